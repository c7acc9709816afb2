"""Ctrl-C and SIGTERM in one process: they wait for the end of a step, once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from seqlab.stopping import Stop

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are others there")
SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SIGTERMException)]
HEEDED = [*(number for number, _ in SIGNALS), getattr(signal, "SIGUSR1", signal.SIGTERM)]


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    before = {number: signal.getsignal(number) for number in HEEDED}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def listening(processes: int = 1, launcher: Any = None) -> Stop:
    stop = Stop()
    trainer: Any = SimpleNamespace(
        world_size=processes, strategy=SimpleNamespace(launcher=launcher)
    )
    stop.listen(trainer)
    return stop


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_signal_waits_while_it_is_held(number: int, error: type[BaseException]) -> None:
    stop = listening()
    stop.hold()
    signal.raise_signal(number)
    assert isinstance(stop.wanted, error)
    with pytest.raises(error):
        stop.release()


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_second_signal_does_not_wait(number: int, error: type[BaseException]) -> None:
    stop = listening()
    stop.hold()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(error):
        signal.raise_signal(number)


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_signal_acts_at_once_where_nothing_holds_it(
    number: int, error: type[BaseException]
) -> None:
    stop = listening()
    stop.hold()
    stop.release()
    with pytest.raises(error):
        signal.raise_signal(number)


def test_several_processes_end_at_once_and_leave_ctrl_c_as_it_is() -> None:
    ended: list[int] = []
    stop = listening(2, SimpleNamespace(kill=ended.append))
    stop.hold()
    with pytest.raises(SIGTERMException):
        signal.raise_signal(signal.SIGTERM)
    assert ended == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listening()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_slurms_signal_asks_for_a_checkpoint_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside = signal.getsignal(signal.SIGUSR1)
    listening()
    assert signal.getsignal(signal.SIGUSR1) is outside
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    stop = listening(2)
    assert not stop.asks_for_checkpoint
    signal.raise_signal(signal.SIGUSR1)
    assert stop.turn_is_over
    assert stop.asks_for_checkpoint
    stop.release()

"""Ctrl-C, SIGTERM and SLURM's signal while a run trains: where they find it, what they end."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.utilities.exceptions import SIGTERMException

from seqlab import requeue


class Stop:
    """Ctrl-C and SIGTERM, which one process has wait until a step is whole.

    A second one does not wait. The trainer puts back what heeded the signals before it.

    Attributes:
        wanted: what is to be raised once it can be; None while nobody has asked.
        turn_is_over: whether SLURM has said that it will soon end the job.
    """

    def __init__(self) -> None:
        self.wanted: BaseException | None = None
        self.turn_is_over = False
        self._held = False

    def listen(self, trainer: lightning.Trainer) -> None:
        """Heed the signals from now on, as becomes the number of processes."""
        self.wanted, self._held = None, False
        if threading.current_thread() is not threading.main_thread():
            return
        alone = trainer.world_size == 1
        if alone and callable(signal.getsignal(signal.SIGINT)):  # else it is ignored
            signal.signal(signal.SIGINT, self._asked)
        if os.name == "nt":
            return
        signal.signal(signal.SIGTERM, self._asked if alone else _ends_all(trainer))
        if requeue.job() is not None:
            signal.signal(signal.SIGUSR1, self._told)

    def hold(self) -> None:
        """Have a signal wait for :meth:`release`."""
        self._held = True

    def release(self) -> None:
        """Raise what has waited, and have it wait no more."""
        self._held = False
        if self.wanted is not None:
            raise self.wanted

    @property
    def asks_for_checkpoint(self) -> bool:
        """Whether one is to be written at the end of this step."""
        return self.turn_is_over or self.wanted is not None

    def _told(self, number: int, frame: Any) -> None:
        self.turn_is_over = True

    def _asked(self, number: int, frame: Any) -> None:
        again = self.wanted is not None
        self.wanted = KeyboardInterrupt() if number == signal.SIGINT else SIGTERMException()
        if again or not self._held:
            self.release()


def _ends_all(trainer: lightning.Trainer) -> Any:
    """Make a handler of SIGTERM that ends a process and those that it has started, at once.

    Lightning's own asks the other processes first, in the midst of whatever they exchange, and
    waits for ever now and then.
    """

    def end(number: int, frame: Any) -> None:
        launcher: Any = trainer.strategy.launcher
        if launcher is not None:
            launcher.kill(number)
        raise SIGTERMException

    return end

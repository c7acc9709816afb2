"""Ctrl-C and SIGTERM while a run trains: where they find it, and what they end."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.utilities.exceptions import SIGTERMException


class Stop:
    """Ctrl-C and SIGTERM, which one process has wait until a step is whole.

    A second one does not wait. The trainer puts back what heeded the signals before it.

    Attributes:
        wanted: what is to be raised once it can be; None while nobody has asked.
    """

    def __init__(self) -> None:
        self.wanted: BaseException | None = None
        self._held = False

    def listen(self, trainer: lightning.Trainer) -> None:
        """Heed the signals from now on, as becomes the number of processes."""
        self.wanted, self._held = None, False
        if threading.current_thread() is not threading.main_thread():
            return
        alone = trainer.world_size == 1
        if alone and callable(signal.getsignal(signal.SIGINT)):  # else it is ignored
            signal.signal(signal.SIGINT, self._asked)
        # Under SLURM, which starts a job anew, Lightning's own handler is left as it is.
        if os.name == "nt" or "SLURM_JOB_ID" in os.environ:
            return
        signal.signal(signal.SIGTERM, self._asked if alone else _ends_all(trainer))

    def hold(self) -> None:
        """Have a signal wait for :meth:`release`."""
        self._held = True

    def release(self) -> None:
        """Raise what has waited, and have it wait no more."""
        self._held = False
        if self.wanted is not None:
            raise self.wanted

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

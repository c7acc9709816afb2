"""Training stops when the validation score rises no more."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
from lightning.pytorch.callbacks import EarlyStopping


class EarlyStop(EarlyStopping):
    """Stop when the validation score has not risen for some epochs.

    Args:
        patience: how many epochs to wait.
        min_delta: a rise of no more than this does not count.
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0) -> None:
        super().__init__(
            monitor="the model's own score",
            mode="max",
            patience=patience,
            min_delta=min_delta,
            strict=False,  # an epoch that was cut short has no score
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was waited so far; how long to wait is what the resumed run says."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Watch the score by which the model chooses its best epoch."""
        self.monitor = pl_module.monitor
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Do not train on where a resumed run had stopped for good."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

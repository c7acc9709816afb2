"""Training as `seqlab fit` does it, timed step by step, in as many processes as are asked for.

    python timed_fit.py RECIPE STEPS WARM [--key value ...]

The first process prints a line of JSON in the end. Nothing is validated and nothing is kept.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch

from seqlab.configuration import build, quiet


class Clock(lightning.Callback):
    """Counts what is trained on after the warm-up, and how long each step takes.

    Args:
        warm: steps before it starts.
    """

    def __init__(self, warm: int) -> None:
        self.warm = warm
        self.tokens = torch.zeros(())
        self.begun = 0.0
        self.laps: list[float] = []

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after the warm-up, in all processes at once."""
        if batch_idx == self.warm:
            trainer.strategy.barrier()
            self.begun = self._now(pl_module)
            self.laps = [self.begun]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        if batch_idx >= self.warm:
            self.tokens = self.tokens.to(pl_module.device) + batch.lengths.sum()
            self.laps.append(time.perf_counter())

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Add up over the processes, and print."""
        seconds = self._now(pl_module) - self.begun
        tokens = float(trainer.strategy.reduce(self.tokens, reduce_op="sum"))
        steps = [b - a for a, b in zip(self.laps, self.laps[1:], strict=False)]
        trained = [p for p in pl_module.parameters() if p.requires_grad]
        if trainer.is_global_zero:
            found = {
                "tokens_per_second": tokens / seconds,
                "tokens_per_step": tokens / len(steps),
                "step_ms": 1e3 * statistics.median(steps),
                "gradient_bytes": sum(p.nbytes for p in trained),
            }
            print(json.dumps(found), flush=True)

    @staticmethod
    def _now(model: Any) -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def main() -> None:
    recipe, steps, warm, *overrides = sys.argv[1:]
    count = int(steps) + int(warm)
    words = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", str(count)]
    words += ["--trainer.limit_val_batches", "0", "--trainer.enable_checkpointing", "false"]
    cli = build(Path(recipe), [*words, *overrides], [Clock(int(warm))])
    with quiet():
        cli.trainer.fit(cli.model, cli.datamodule)


if __name__ == "__main__":
    main()

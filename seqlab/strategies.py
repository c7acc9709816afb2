"""What training cannot keep its promises with, refused before it starts.

Precision, sharding and the like are Lightning's own; what is allowed of them is decided here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
import yaml

from seqlab.data.base import SequenceDataModule
from seqlab.errors import RecipeError, TrainingError

_EXACT = ("None", "32", "32-true", "64", "64-true")
_MIXED = ("bf16", "bf16-mixed", "16", "16-mixed")
_FLOAT16 = ("16", "16-mixed")
_WHOLE = re.compile(r"auto|single_device|ddp(_find_unused_parameters_(true|false))?")
_WHOLE_CLASSES = ("DDPStrategy", "SingleDeviceStrategy")


def check_precision(precision: str | int | None, accelerator: str) -> None:
    """Refuse precisions that round the weights themselves, and float16 where nothing computes it.

    Args:
        precision: ``trainer.precision``.
        accelerator: ``trainer.accelerator``.

    Raises:
        RecipeError: steps would be lost in the rounding.
        TrainingError: float16 is asked for on a CPU.
    """
    name = str(precision)
    if name not in (*_EXACT, *_MIXED):
        raise RecipeError(
            f"trainer.precision {name} rounds the weights themselves, and steps are lost in that: "
            "use bf16-mixed, which rounds the factors of products only, or 16-mixed on a GPU."
        )
    if name in _FLOAT16 and not has_accelerator(accelerator):
        raise TrainingError(
            f"trainer.precision {name} needs a GPU, as a CPU does not compute in float16: use "
            "--trainer.precision bf16-mixed, or leave it out."
        )


def check_strategy(strategy: Any) -> None:
    """Refuse strategies under which no process has the whole model, or all of what was trained.

    Args:
        strategy: ``trainer.strategy``: a name, or a class with its arguments.

    Raises:
        RecipeError: it is another than DDP or that of one process.
    """
    path = strategy if isinstance(strategy, str) else getattr(strategy, "class_path", None)
    name = (path or type(strategy).__name__).split(".")[-1]
    if not (_WHOLE.fullmatch(name) or name in _WHOLE_CLASSES):
        raise RecipeError(
            f"trainer.strategy {name}: a bundle, the average of the weights and the clipping of "
            "gradients need the whole model in every process: use ddp, with model.embedder.tune "
            "lora or checkpointing where a large encoder does not fit, or leave it out."
        )


def shared_out(trainer: lightning.Trainer, data: SequenceDataModule) -> str | None:
    """Say what a step is made of, where that is more than one batch.

    Args:
        trainer: knows how many processes there are.
        data: knows how large a batch may be.
    """
    processes = trainer.world_size
    batches = processes * trainer.accumulate_grad_batches
    if batches == 1:
        return None
    who = f"{processes} processes" if processes > 1 else "1 process"
    sequences, tokens = data.batch_size, data.tokens_per_batch
    if tokens == "auto":
        each, together = "as many tokens as fit", ""
    else:
        each, together = f"{tokens:,} tokens", f" and {batches * tokens:,} tokens"
    return (
        f"{who}; a step has {batches} batches of up to {each} and {sequences:,} sequences each, "
        f"{batches * sequences:,} sequences{together} in all."
    )


def precision_here(recipe: Path) -> list[str]:
    """Have what was trained in float16 scored in float32, where no GPU is.

    Args:
        recipe: that it was trained by.

    Returns:
        overrides of it.
    """
    try:
        given = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return []  # the parser refuses it too, and says where
    trainer = given.get("trainer") if isinstance(given, dict) else None
    precision = trainer.get("precision") if isinstance(trainer, dict) else None
    if str(precision) not in _FLOAT16 or has_accelerator("auto"):
        return []
    return ["--trainer.precision", "32-true"]


def has_accelerator(accelerator: str) -> bool:
    """Whether training would run on something else than the CPU.

    Args:
        accelerator: ``trainer.accelerator``.
    """
    if accelerator == "auto":
        return torch.cuda.is_available() or torch.backends.mps.is_available()
    return accelerator != "cpu"

"""``data.tokens_per_batch: auto``: the largest batches that fit, found by measuring a few.

As Marian's ``mini-batch-fit`` does, but once and for one length: batches of the longest sequences
are the dearest of their tokens, and what they take grows along a line with their number. Trials
leave no trace in weights or random numbers, so that training is that of the number found.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng

from seqlab.callbacks import RunKeeper
from seqlab.configuration import SeqlabCLI
from seqlab.data.base import Ints, SequenceDataModule
from seqlab.errors import TrainingError
from seqlab.memory import begin_peak, check_measurable, free_memory, peak
from seqlab.models.base import SequenceModel
from seqlab.nn.precision import using

SHARE = 0.8  # of the free memory; the rest is for scoring, for what comes later, and for luck
_ENOUGH = {"cpu": 1 << 28, "cuda": 1 << 31}  # bytes in a trial, from which a line is known well
_SECONDS = 30.0  # after which no other trial begins
_MOMENTS = {"sgd": 0, "adam": 2, "adamw": 2}


class Found(NamedTuple):
    """A budget, and what it was found by.

    Attributes:
        tokens: of a batch, padding counted in.
        fixed: bytes that every batch takes: gradients, the optimizer's state.
        per_token: bytes of a token.
        free: bytes that were free before.
        limit: tokens of the largest batch that `data.batch_size` and the corpus allow.
    """

    tokens: int
    fixed: int
    per_token: float
    free: int
    limit: int


def line(trials: list[tuple[int, int]]) -> tuple[float, float]:
    """Lay a line through what trials took, by least squares.

    Args:
        trials: tokens and bytes of each.

    Returns:
        bytes of no token and of each, neither below zero.

    Example:
        >>> line([(1, 30), (2, 50), (4, 90)])
        (10.0, 20.0)
    """
    tokens, taken = np.array(trials, float).T
    centred = tokens - tokens.mean()
    slope = float(centred @ taken / max(centred @ centred, 1e-9))
    slope = max(0.0, round(slope, 6))
    return max(0.0, round(float(taken.mean() - slope * tokens.mean()), 6)), slope


def largest(free: int, trials: list[tuple[int, int]], reserved: int, limit: int) -> Found:
    """Find the largest budget whose batches take no more than their share of the free memory.

    Args:
        free: bytes.
        trials: tokens and bytes of each.
        reserved: bytes that are needed beside.
        limit: tokens that are never exceeded.

    Raises:
        TrainingError: the smallest trial takes more.
    """
    fixed, slope = line(trials)
    fixed += reserved
    room = SHARE * free - fixed
    smallest = trials[0][0]
    if room < slope * smallest:
        raise TrainingError(
            f"data.tokens_per_batch is auto, and a batch of the longest sequence alone, of "
            f"{smallest:,} tokens, takes {_gigabytes(fixed + slope * smallest)} of the "
            f"{_gigabytes(free)} that are free: lower model.hidden_size, or leave long ones out."
        )
    tokens = limit if slope * limit <= room else int(room / slope)
    return Found(tokens, int(fixed), slope, free, limit)


class BudgetFinder(lightning.Callback):
    """Finds the budget when all processes are there and the data are read.

    Args:
        told: called with what was found.
    """

    def __init__(self, told: Callable[[Found], None]) -> None:
        self.told = told

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Measure, agree, and give the data module its number."""
        data: Any = getattr(trainer, "datamodule", None)
        if stage != "fit" or data.tokens_per_batch != "auto":
            return
        device = trainer.strategy.root_device
        check_measurable(device)
        pl_module.to(device)
        found = _measured(trainer, pl_module, data)
        least = trainer.strategy.reduce(torch.tensor(found.tokens, device=device), reduce_op="min")
        found = found._replace(tokens=int(least))
        data.tokens_per_batch = found.tokens
        if trainer.is_global_zero:
            print(f"seqlab: {told(found)}", file=sys.stderr, flush=True)
        self.told(found)


def find_budget(cli: SeqlabCLI, keeper: RunKeeper) -> None:
    """Have the budget found before training, where the recipe says ``auto``, and kept with the run.

    Args:
        cli: its trainer is to be started yet.
        keeper: of the run, whose recipe then has the number, so that whoever takes it up does too.
    """
    if cli.datamodule.tokens_per_batch != "auto":
        return

    def keep(found: Found) -> None:
        cli.config.data.init_args.tokens_per_batch = found.tokens
        keeper.recipe = cli.recipe
        keeper.facts["budget"] = {**found._asdict(), "per_token": round(found.per_token, 1)}
        if cli.trainer.is_global_zero:
            (keeper.folder / "recipe.yaml").write_text(keeper.recipe, encoding="utf-8")

    finder: Any = BudgetFinder(keep)
    cli.trainer.callbacks.insert(0, finder)  # type: ignore[attr-defined]


def told(found: Found) -> str:
    """Say what was found, in a sentence."""
    bound = " (all that data.batch_size and the corpus allow)"
    return (
        f"a batch has up to {found.tokens:,} tokens{bound if found.tokens == found.limit else ''}, "
        f"at {found.per_token / 1024:,.0f} kB each and {_gigabytes(found.fixed)} for all, of "
        f"{_gigabytes(found.free)} that are free."
    )


def _measured(trainer: lightning.Trainer, model: SequenceModel, data: SequenceDataModule) -> Found:
    """Try batches of growing size."""
    device = trainer.strategy.root_device
    sharing = trainer.num_devices if device.type == "cpu" else 1
    free = free_memory(device) // sharing
    trainer.strategy.barrier("seqlab: all know what is free")
    dataset: Any = data.dataset("train", scored=False)
    lengths: Ints = dataset.encoded.lengths
    order = np.argsort(-lengths, kind="stable")[: data.batch_size]
    longest = int(lengths[order[0]])
    trainable = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    copies = _MOMENTS[model.optimizer_name] + bool(model.momentum) + bool(model.averaging)
    reserved = trainable * (copies + (trainer.world_size > 1))  # DDP has gradients in buckets too
    trials: list[tuple[int, int]] = []
    rows, since, mode = 1, time.perf_counter(), model.training
    with isolate_rng():
        while True:
            taken = _trial(trainer, model.train(), dataset[order[:rows]])
            if taken is None:
                break
            trials.append((rows * longest, taken))
            long = time.perf_counter() - since > _SECONDS or taken > _ENOUGH[device.type]
            if rows == len(order) or (long and len(trials) > 2) or 2 * taken > SHARE * free:
                break
            rows = min(2 * rows, len(order))
    model.train(mode)
    if not trials:
        raise TrainingError("the memory is full: lower model.hidden_size.")
    return largest(free, trials, reserved, len(order) * longest)


def _trial(trainer: lightning.Trainer, model: SequenceModel, batch: Any) -> int | None:
    """Say how many bytes a step takes at most; None where they are not there."""
    device = trainer.strategy.root_device
    before = begin_peak(device)
    try:
        batch = trainer.strategy.batch_to_device(batch, device)
        with trainer.precision_plugin.forward_context(), using(model.precision, device):
            loss = model.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad(set_to_none=True)
    return peak(device) - before


def _gigabytes(number: float) -> str:
    return f"{number / (1 << 30):,.1f} GB"

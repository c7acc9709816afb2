"""Checkpoints within an epoch: when one is due, what it holds, and how a run goes on from it.

The trainer counts the batches of one process. Here they are counted over all processes, so that a
run goes on with as many as there are then: of the list of an epoch, what is left is dealt out.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import nn

from seqlab.data.sampling import ResumableLoader, ResumableSampler
from seqlab.errors import check_range

WITHIN = "within_epoch"
_REST = 50  # times as long as the last checkpoint took to write the next one waits


@dataclass(frozen=True)
class Place:
    """Where a run goes on: within an epoch, or after one; of how many batches may not be known.

    Example:
        >>> str(Place(3)), str(Place(3, 120, 393))
        ('after epoch 3', 'in epoch 3 after 120 of 393 batches')
    """

    epoch: int
    batches: int = 0
    of: int = 0

    def __str__(self) -> str:
        if not self.batches:
            return f"after epoch {self.epoch}"
        of = f" of {self.of:,}" if self.of else ""
        return f"in epoch {self.epoch} after {self.batches:,}{of} batches"


class Pace:
    """When a checkpoint within an epoch is due.

    Args:
        every_seconds: of training between two checkpoints; more where one takes long to write, as
            writing may take 2 % of the time. 0 writes them at the ends of epochs only.

    Raises:
        RecipeError: a number below zero.
    """

    def __init__(self, every_seconds: float = 60.0) -> None:
        check_range("checkpoint.every_seconds", every_seconds, 0)
        self.every_seconds = every_seconds
        self._next = 0.0
        self._asked = 0.0
        self._steps = 1  # from one question to the next
        self._left = 1  # of these

    def wrote(self, seconds: float = 0.0) -> None:
        """Count from now on; the last checkpoint took so long to write."""
        self._asked = time.perf_counter()
        self._next = self._asked + max(self.every_seconds, _REST * seconds)
        self._steps = self._left = 1

    def due(
        self,
        agree: Callable[[Any], Any] | None = None,
        wanted: bool = False,
        patience: float = math.inf,
    ) -> bool:
        """Say whether a checkpoint is due after this step.

        Several processes ask at the same steps, and have the answer of the first. As it costs them
        a message, it comes with the number of steps until they ask again: half as many as are
        likely to be left.

        Args:
            agree: gives what the first process has given it; None where there is one process.
            wanted: whether one is wanted at once, by this process.
            patience: seconds after which several processes ask again at the latest.
        """
        if not self.every_seconds:
            return False
        if agree is None:
            return wanted or time.perf_counter() >= self._next
        self._left -= 1
        if self._left:
            return False
        now = time.perf_counter()
        step = max(now - self._asked, 1e-6) / self._steps
        wait = min((self._next - now) / 2, patience)
        found = (wanted or now >= self._next, max(1, int(wait / step)))
        self._asked = now
        due, self._steps = agree(found)
        self._left = self._steps
        return bool(due)


def loader_of(trainer: lightning.Trainer) -> ResumableLoader | None:
    """Return the training batches, if they can begin in the middle of an epoch."""
    loader = trainer.train_dataloader
    resumable = isinstance(loader, ResumableLoader) and isinstance(loader.sampler, ResumableSampler)
    return loader if resumable else None


def is_sound(model: nn.Module) -> bool:
    """Whether all weights are numbers; they are the same in all processes."""
    norms = torch._foreach_norm([p.detach() for p in model.parameters()])
    return all(bool(norm.isfinite()) for norm in norms)


def place_of(checkpoint: Mapping[str, Any]) -> Place:
    """Say where a run goes on from a checkpoint."""
    within = checkpoint.get(WITHIN)
    if within is None:
        return Place(int(checkpoint.get("epoch", 0)))
    return Place(within["epoch"], within["batches"], within["of"])


def record(
    checkpoint: dict[str, Any], trainer: lightning.Trainer, own: Mapping[str, Any]
) -> dict[str, Any]:
    """Put the place within the epoch into a checkpoint that is made before a batch is begun.

    Args:
        checkpoint: as the trainer made it.
        trainer: trains.
        own: numbers and random state of this process, see :func:`share_of`.

    Returns:
        what was put there, to which more may be added.
    """
    loader = loader_of(trainer)
    assert loader is not None
    state, processes = loader.state_dict(), trainer.world_size
    to_come = (trainer.num_training_batches - state["own"]) * processes
    within: dict[str, Any] = {
        "epoch": state["epoch"],
        "batches": state["batches"],
        "of": int(min(state["of"], state["batches"] + to_come)),
        "processes": _gathered(own, processes),
    }
    checkpoint[WITHIN] = within
    progress = _loop(checkpoint)["epoch_loop.batch_progress"]
    progress["is_last_batch"] = False
    for counts in (progress["total"], progress["current"]):  # the next batch is there already
        counts.update(dict.fromkeys(counts, counts["processed"]))
    return within


def fit_to(checkpoint: dict[str, Any], processes: int, windows: int) -> None:
    """Have a checkpoint within an epoch count its batches as the processes do that go on.

    Args:
        checkpoint: its numbers are changed.
        processes: how many go on.
        windows: batches of a process that make a step.
    """
    loop = _loop(checkpoint)
    (loader,) = loop["state_dict"]["combined_loader"]
    if processes == len(checkpoint[WITHIN]["processes"]) and loader["own"] % windows == 0:
        return
    # Whole steps, as a new one begins; and not none, as an epoch would begin with these.
    own = max(1, loader["batches"] // (processes * windows)) * windows
    progress = loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update({name: count + own - loader["own"] for name, count in counts.items()})
    loader["own"] = own


def share_of(states: Sequence[Mapping[str, Any]], rank: int, processes: int) -> dict[str, Any]:
    """Share out what the processes of a checkpoint had summed up.

    Args:
        states: of every process ``loss``, ``steps``, ``tokens``, ``real`` and ``places``, and
            ``random``.
        rank: of this process.
        processes: how many there are now.

    Returns:
        its own where there are as many as there were; else the first has the sums, the others
        zeros, and there is no random state that would be the right one.
    """
    if len(states) == processes:
        return dict(states[rank])
    names = ("loss", "steps", "tokens", "real", "places")
    return {name: sum(state[name] for state in states) * (rank == 0) for name in names}


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of the random numbers that training draws."""
    found = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        found[device.type] = torch.get_device_module(device).get_rng_state().cpu()
    return found


def restore_random(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Put back what :func:`random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])


def random_state_at(place: Place, rank: int) -> None:
    """Fix the random state where other processes go on than have begun."""
    seed = [int(os.environ.get("PL_GLOBAL_SEED", "0")), place.epoch, place.batches, rank]
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))


def _loop(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint["loops"]["fit_loop"]
    return found


def _gathered(own: Mapping[str, Any], processes: int) -> list[Any]:
    if processes == 1:
        return [dict(own)]
    found: list[Any] = [None] * processes
    torch.distributed.all_gather_object(found, dict(own))
    return found

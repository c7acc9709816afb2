"""Which sequences make a batch: similar lengths together, within a budget of tokens."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from seqlab.errors import DataError

Ints = NDArray[np.int64]


def cut(lengths: Ints, order: Ints, batch_size: int, tokens_per_batch: int) -> list[Ints]:
    """Cut an order of sequences into batches.

    Args:
        lengths: ``(sequence,)`` tokens of every sequence.
        order: the sequences, those of similar length beside one another.
        batch_size: most sequences in a batch.
        tokens_per_batch: most tokens in a batch, padding counted in; a longer sequence goes alone.

    Returns:
        the batches, every sequence in exactly one of them.

    Example:
        >>> [b.tolist() for b in cut(np.array([9, 3, 3, 2]), np.arange(4), 2, 9)]
        [[0], [1, 2], [3]]
    """
    batches: list[Ints] = []
    start, longest = 0, 0
    for i, length in enumerate(lengths[order].tolist()):
        longest = max(longest, length)
        size = i - start + 1
        if size > 1 and (size > batch_size or longest * size > tokens_per_batch):
            batches.append(order[start:i])
            start, longest = i, length
    if start < len(order):
        batches.append(order[start:])
    return batches


class Sequences(Protocol):
    """What a sampler and the speed of a run ask of an encoded split."""

    @property
    def lengths(self) -> Ints:
        """``(sequence,)`` tokens that count in a batch's budget."""

    @property
    def sort_key(self) -> Ints:
        """``(sequence,)`` what is alike for sequences that make a good batch."""

    @property
    def offsets(self) -> Ints:
        """``(sequence + 1,)`` where each sequence begins and ends; last the tokens of all."""


class BatchedSplit(Protocol):
    """A split whose index is an array of sequence numbers, and which answers with a whole batch."""

    @property
    def encoded(self) -> Sequences:
        """The split as numbers."""

    def __getitem__(self, index: Ints) -> Any:
        """Return the batch of some sequences."""


class ResumableSampler(Sampler[Any], ABC):
    """Deals out the batches of an epoch, which may begin in its middle.

    Args:
        rank: number of this process.
        world_size: number of processes.

    Attributes:
        epoch: whose order is drawn.
        taken: says how many batches of the epoch this process is done with; without it, none.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.taken: Callable[[], int] | None = None
        self._before = 0  # batches of the epoch that all processes together had before it begins
        self._own_before = 0  # as how many of its own this process counts them

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn; the trainer calls it."""
        if epoch != self.epoch:
            self._before = self._own_before = 0
        self.epoch = epoch

    def _done(self) -> tuple[int, int]:
        """Return the batches that all processes and this one are done with."""
        own = self._own_before if self.taken is None else self.taken()
        return self._before + (own - self._own_before) * self.world_size, own

    @abstractmethod
    def state_dict(self) -> dict[str, int]:
        """Say how far the epoch is, at the end of a step, when all processes are equally far.

        Returns:
            ``epoch``; ``batches`` that all processes together are done with, ``of`` how many (0
            where that is not known); and ``own``, as how many of its own each of them counts these.
        """

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin the current epoch where :meth:`state_dict` was asked, if it was that epoch."""


class ResumableLoader(DataLoader[Any]):
    """A loader that can begin in the middle of an epoch; its state is that of its sampler."""

    def state_dict(self) -> dict[str, int]:
        """Say how far the epoch is; nothing where the trainer has put a sampler of its own."""
        return self.sampler.state_dict() if isinstance(self.sampler, ResumableSampler) else {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin where :meth:`state_dict` was asked."""
        if state and isinstance(self.sampler, ResumableSampler):
            self.sampler.load_state_dict(state)


class BucketSampler(ResumableSampler):
    """Batches of sequences of similar length, in a new order each epoch.

    An epoch is fixed by ``seed`` and its number alone, so that a run which was stopped goes on with
    the batches that it would have had. Several processes deal the batches of one out in turn, so
    that a step of `n` processes has the batches of `n` steps of one. Each has the same number of
    training batches: where some lack one, a batch comes again, and its numbers are given as ``~i``
    (all below zero), which says that it does not count. Otherwise every sequence comes exactly once
    over all processes, and every process has some.

    An epoch may begin in its middle, after batches that were dealt out before a run was stopped, to
    however many processes: what is left of its list is dealt out to those that there are now.

    Args:
        lengths: ``(sequence,)`` tokens of every sequence.
        batch_size: most sequences in a batch.
        tokens_per_batch: most tokens in a batch, padding counted in; a longer sequence goes alone.
        shuffle: draw a new order each epoch; otherwise from long to short.
        seed: of the order.
        pool: sequences are sorted by length within random pools of this many batches.
        rank: number of this process.
        world_size: number of processes.
        sort_key: ``(sequence,)`` what sequences are sorted by in place of their lengths, such as a
            number made of the lengths of two sides.

    Raises:
        DataError: there are more processes than sequences.
    """

    def __init__(
        self,
        lengths: Ints,
        batch_size: int,
        tokens_per_batch: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        pool: int = 200,
        rank: int = 0,
        world_size: int = 1,
        sort_key: Ints | None = None,
    ) -> None:
        if len(lengths) < world_size > 1:
            raise DataError(
                f"{world_size} processes cannot share {len(lengths)} sequences out: use "
                f"--trainer.devices {max(1, len(lengths))}, or fewer."
            )
        super().__init__(rank, world_size)
        self.lengths = lengths
        self.sort_key = lengths if sort_key is None else sort_key
        self.batch_size = batch_size
        self.tokens_per_batch = tokens_per_batch
        self.shuffle = shuffle
        self.seed = seed
        self.pool = pool
        self._made: tuple[tuple[int, int], list[Ints], int] | None = None

    def state_dict(self) -> dict[str, int]:
        """Say how far the epoch is."""
        done, own = self._done()
        _, total = self._batches()
        return {"epoch": self.epoch, "batches": min(done, total), "of": total, "own": own}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin the current epoch where :meth:`state_dict` was asked, if it was that epoch.

        Where the batches are others by now, as many in proportion are left out.
        """
        if state["epoch"] == self.epoch:
            total = len(self._all())  # as they were, not split for many processes
            self._before = min(state["batches"] * total // max(state["of"] or total, 1), total)
            self._own_before = state["own"]

    def batches(self) -> list[Ints]:
        """Return this process's batches of the current epoch, or of what is left of it."""
        return self._batches()[0]

    def _batches(self) -> tuple[list[Ints], int]:
        """This process's batches, and how many all processes have in the whole epoch."""
        place = (self.epoch if self.shuffle else 0, self._before)  # from which they are made
        if self._made is None or self._made[0] != place:
            batches = self._all()
            self._made = (place, self._share(batches), len(batches))
        return self._made[1:]

    def _all(self) -> list[Ints]:
        if not self.shuffle:
            order = np.argsort(-self.sort_key, kind="stable")
            return cut(self.lengths, order, self.batch_size, self.tokens_per_batch)
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        size = self.pool * self.batch_size
        batches: list[Ints] = []
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            pool = pool[np.argsort(self.sort_key[pool], kind="stable")]
            batches += cut(self.lengths, pool, self.batch_size, self.tokens_per_batch)
        return [batches[i] for i in random.permutation(len(batches))]

    def _share(self, batches: list[Ints]) -> list[Ints]:
        while not self._before and 0 < len(batches) < self.world_size:
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            batches[largest : largest + 1] = np.array_split(batches[largest], 2)
        left = batches[self._before :]  # not split: what is hidden in a batch depends on all of it
        if self.shuffle:
            lacking = -len(left) % self.world_size
            left = left + [~batches[i % len(batches)] for i in range(lacking)]
        return left[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[Ints]:
        return iter(self.batches())

    def __len__(self) -> int:
        return self._own_before + len(self.batches())


def is_first() -> bool:
    """Whether this is the first process of a run; also where they do not know one another yet."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in ("NODE_RANK", "LOCAL_RANK"))


def world() -> tuple[int, int]:
    """Return the number of this process and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1

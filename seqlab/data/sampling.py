"""Which sequences make a batch: similar lengths together, within a budget of tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

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


class BucketSampler(Sampler[Ints]):
    """Batches of sequences of similar length, in a new order each epoch.

    An epoch is fixed by ``seed`` and its number alone, so that a run which was stopped goes on with
    the batches that it would have had. Several processes deal the batches of one out in turn, so
    that a step of `n` processes has the batches of `n` steps of one. Each has the same number of
    training batches: where some lack one, a batch comes again, and its numbers are given as ``~i``
    (all below zero), which says that it does not count. Otherwise every sequence comes exactly once
    over all processes, and every process has some.

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
        self.lengths = lengths
        self.sort_key = lengths if sort_key is None else sort_key
        self.batch_size = batch_size
        self.tokens_per_batch = tokens_per_batch
        self.shuffle = shuffle
        self.seed = seed
        self.pool = pool
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._made: tuple[int, list[Ints]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn; the trainer calls it."""
        self.epoch = epoch

    def batches(self) -> list[Ints]:
        """Return this process's batches of the current epoch."""
        if self._made is None or (self.shuffle and self._made[0] != self.epoch):
            self._made = (self.epoch, self._share(self._all()))
        return self._made[1]

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
        while 0 < len(batches) < self.world_size:
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            batches[largest : largest + 1] = np.array_split(batches[largest], 2)
        if self.shuffle:
            batches = batches + [~batches[i] for i in range(-len(batches) % self.world_size)]
        return batches[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[Ints]:
        return iter(self.batches())

    def __len__(self) -> int:
        return len(self.batches())


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

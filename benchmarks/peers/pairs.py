"""Sentence pairs as ids, for contenders that translate: read, padded and timed alike for all."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import torch
from torch import Tensor

PADDING, UNKNOWN, BEGIN, END = range(4)  # as seqlab numbers them; peers take any numbers
EMBEDDING, ENCODER, DECODER = 256, 256, 512  # sizes; the encoder's in each direction
RATE, CLIP = 2e-3, 1.0
RATIO, EXTRA = 1.5, 5  # a translation has at most so many subwords for one of the source, and more
Rows = list[list[int]]


class Batch(NamedTuple):
    """Sentence pairs side by side; every sentence ends with END, padding follows.

    Attributes:
        source: ``(batch, source)`` int64 ids.
        source_lengths: ``(batch,)``, END counted in.
        target: ``(batch, target)``, likewise.
        target_lengths: ``(batch,)``.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor

    @property
    def begun(self) -> Tensor:
        """``(batch, 1 + target)``, the target after BEGIN."""
        return torch.cat([self.target.new_full((len(self.target), 1), BEGIN), self.target], 1)


def padded(rows: Rows) -> tuple[Tensor, Tensor]:
    """End sentences and put them side by side.

    Returns:
        ids ``(batch, time)`` and lengths ``(batch,)``.
    """
    lengths = [len(row) + 1 for row in rows]
    longest = max(lengths)
    filled = [[*row, END] + [PADDING] * (longest - len(row) - 1) for row in rows]
    return torch.tensor(filled), torch.tensor(lengths)


class Corpus:
    """What `benchmarks/translate.py` wrote: batches to train on, sentences to translate.

    Args:
        folder: of the files.

    Attributes:
        size: of the joint vocabulary.
        sources: sentences to translate.
    """

    def __init__(self, folder: str) -> None:
        def read(name: str) -> Iterable[Any]:
            with open(Path(folder) / f"{name}.jsonl", encoding="utf-8") as lines:
                yield from map(json.loads, lines)

        (self.size,) = read("size")
        self.sources: Rows = list(read("test"))
        self._batches: list[tuple[Rows, Rows]] = list(read("train"))

    def batches(self, seed: int, count: int) -> list[Batch]:
        """Return some batches, other ones for another seed, as far as there are enough."""
        made = []
        for number in range(seed * count, (seed + 1) * count):
            source, target = self._batches[number % len(self._batches)]
            made.append(Batch(*padded(source), *padded(target)))
        return made


def trained(
    batches: list[Batch], prepare: Callable[[Batch], Any], step: Callable[[Any], None]
) -> dict[str, Any]:
    """Time training steps.

    Args:
        batches: for each of which a step is taken.
        prepare: brings a batch into a contender's layout, before the clock starts.
        step: takes a step.

    Returns:
        target tokens, seconds and steps.
    """
    prepared = [prepare(batch) for batch in batches]
    start = time.perf_counter()
    for one in prepared:
        step(one)
    seconds = time.perf_counter() - start
    tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
    return {"tokens": tokens, "seconds": seconds, "steps": len(batches)}


def translated(
    sources: Rows, batch: int, translate: Callable[[Tensor, Tensor], Rows]
) -> dict[str, Any]:
    """Time the translation of sentences, from ids to ids.

    Args:
        sources: sentences, of which those of like length are translated together.
        batch: how many together.
        translate: from ids ``(batch, time)`` and lengths ``(batch,)``, the longest first, to ids
            with or without what surrounds them.

    Returns:
        sentences, seconds, and what was found for each, without what surrounds it; cut where its
        own source allows no more, as some look at the longest source of the batch alone.
    """
    order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    found: Rows = [[] for _ in sources]
    start = time.perf_counter()
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        for row, ids in zip(rows, translate(*padded([sources[row] for row in rows])), strict=True):
            found[row] = cut(ids)[: longest(len(sources[row]) + 1)]
    seconds = time.perf_counter() - start
    return {"sentences": len(sources), "seconds": seconds, "found": found}


def cut(ids: Iterable[int]) -> list[int]:
    """Take what stands before END, without BEGIN and padding."""
    kept = []
    for number in ids:
        if number == END:
            break
        if number not in (BEGIN, PADDING):
            kept.append(int(number))
    return kept


def longest(time: int) -> int:
    """Say how long a translation of a padded source of some length may get."""
    return int(RATIO * time + EXTRA)


class Names(dict[str, int]):
    """A vocabulary as far as the peers' builders and searches look at it: names and their ids.

    Args:
        size: how many there are.
        special: the names that a peer has for PADDING, UNKNOWN, BEGIN and END.
    """

    def __init__(self, size: int, special: tuple[str, str, str, str]) -> None:
        self.ids_to_tokens = [*special, *(f"t{number}" for number in range(len(special), size))]
        super().__init__({name: number for number, name in enumerate(self.ids_to_tokens)})
        self.specials, self.lang_tags = list(special), list[str]()
        self.pad_index, self.unk_index, self.bos_index, self.eos_index = range(4)
        self.sep_index = None
        self.tokens_to_ids = self

    def lookup(self, name: str) -> int:
        """JoeyNMT's."""
        return self[name]

    def lookup_token(self, name: str) -> int:
        """OpenNMT-py's."""
        return self.get(name, UNKNOWN)

    def lookup_index(self, number: int) -> str:
        """OpenNMT-py's."""
        return self.ids_to_tokens[number]


def stand_in(*names: str, **others: Any) -> None:
    """Have something stand for modules that a peer imports but that are missing: none is timed.

    Args:
        names: of modules whose place is taken by what answers anything.
        others: what takes the place of further modules.
    """
    for name, other in {**dict.fromkeys(names), **others}.items():
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = MagicMock() if other is None else other


def fill(model: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into a model, which has exactly these.

    Args:
        model: of a peer.
        weights: by the names that the model has for them.
    """
    own = dict(model.named_parameters())
    if set(own) != set(weights):
        raise ValueError(f"other parameters: {sorted(set(own) ^ set(weights))}")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)

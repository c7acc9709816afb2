"""Counts of neighbouring tags over a whole split, from which its scheme is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from seqlab.data.base import Ids, Ints
from seqlab.data.mapping import stretches
from seqlab.schemes import END, EXAMPLES, START, Met, Place, SchemeCounter, key_of


class TagCounts:
    """Feeds numbered tags to a :class:`seqlab.schemes.SchemeCounter`, very many at once.

    Args:
        counter: what is to know of them.
        tags: the distinct tags.
        place: names the place of a token, given its number.
    """

    def __init__(
        self, counter: SchemeCounter, tags: Sequence[str], place: Callable[[int], str]
    ) -> None:
        self._counter = counter
        self._tags = tags
        self._place = place
        self._keys = list(dict.fromkeys([START, END, *map(key_of, tags)]))
        numbers = {key: number for number, key in enumerate(self._keys)}
        self._codes = np.array([numbers[key_of(tag)] for tag in tags], np.int64)
        self._shown: dict[int, int] = {}  # how many places of neighbours were given
        self._strange = np.array([key_of(tag) != tag for tag in tags], bool)
        self._middle = self._strange & np.array([tag.startswith("M-") for tag in tags], bool)

    def add(self, ids: Ids, offsets: Ints) -> None:
        """Count the tags of sentences.

        Args:
            ids: ``(token,)`` which tag each token has.
            offsets: ``(sentence + 1,)`` where each sentence begins and ends.
        """
        for bounds in stretches(offsets):
            first = int(bounds[0])
            here = ids[first : bounds[-1]]
            found = np.flatnonzero(self._strange[here])
            key = self._tags[here[found[0]]] if len(found) else ""
            strangers = Met("", key, len(found), self._places(found, first))
            pairs = self._neighbours(here, bounds - first, first)
            middles = int(self._middle[here[found]].sum())
            self._counter.add_counted(len(here), pairs, strangers, middles)

    def _neighbours(self, here: NDArray[np.int32], bounds: Ints, first: int) -> Iterator[Met]:
        """Count neighbours within whole sentences, none of them empty."""
        after = self._codes[here]  # (token,)
        before = np.empty_like(after)
        before[1:] = after[:-1]
        before[bounds[:-1]] = self._keys.index(START)
        yield from self._pairs(before, after, np.arange(len(here)), first)
        last = bounds[1:] - 1
        ends = np.full(len(last), self._keys.index(END))
        yield from self._pairs(after[last], ends, last, first)

    def _pairs(self, before: Ints, after: Ints, tokens: Ints, first: int) -> Iterator[Met]:
        """Count neighbours ``(pair,)``, each of which is met at one of the tokens."""
        size = len(self._keys)
        codes = before * size + after  # (pair,)
        distinct, counts = _counted(codes, size * size)
        for code, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            known = self._shown.get(code, 0)  # places that are not needed are not looked for
            found = tokens[codes == code] if known < EXAMPLES else tokens[:0]
            self._shown[code] = known + len(found)
            places = self._places(found, first)
            yield Met(self._keys[code // size], self._keys[code % size], count, places)

    def _places(self, tokens: Ints, first: int) -> list[Place]:
        return [
            Place(token + 1, partial(self._place, first + token))
            for token in tokens[:EXAMPLES].tolist()
        ]


def _counted(codes: Ints, end: int) -> tuple[Ints, Ints]:
    """Return the distinct codes below an end, in order, and how often each comes."""
    if end > len(codes):
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)
    distinct = np.flatnonzero(counts)
    return distinct, counts[distinct]

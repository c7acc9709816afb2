"""Counts of neighbouring tags over a whole split, from which its scheme is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

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
        self._strange = np.array([key_of(tag) != tag for tag in tags], bool)
        self._middle = self._strange & np.array([tag.startswith("M-") for tag in tags], bool)

    def add(self, ids: Ids, offsets: Ints) -> None:
        """Count the tags of sentences.

        Args:
            ids: ``(token,)`` which tag each token has.
            offsets: ``(sentence + 1,)`` where each sentence begins and ends.
        """
        for start, end in stretches(offsets):
            bounds = np.unique(offsets[start : end + 1])
            first = int(bounds[0])
            here = ids[first : bounds[-1]]
            if not len(here):
                continue
            found = np.flatnonzero(self._strange[here])
            key = self._tags[here[found[0]]] if len(found) else ""
            strangers = Met("", key, len(found), self._places(found, first))
            pairs = self._neighbours(here, bounds - first, first)
            middles = int(self._middle[here].sum())
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
        codes = (before * size + after).astype(np.uint16 if size < 256 else np.int64)
        order = np.argsort(codes, kind="stable")  # of short numbers in linear time
        codes = codes[order]
        edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for start, end in pairwise(edges):
            before_key, key = divmod(int(codes[start]), size)
            places = self._places(tokens[order[start : min(end, start + EXAMPLES)]], first)
            yield Met(self._keys[before_key], self._keys[key], end - start, places)

    def _places(self, tokens: Ints, first: int) -> list[Place]:
        return [
            Place(token + 1, partial(self._place, first + token))
            for token in tokens[:EXAMPLES].tolist()
        ]

"""Tags of a whole split as the ids that a model learns, computed on arrays."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from seqlab.data.base import Ids, Ints
from seqlab.data.mapping import stretches
from seqlab.tags import CLOSING, OPENING, OUTSIDE, UNKNOWN, split_tag
from seqlab.vocabulary import Vocabulary

STRANGE = -2  # stands for a tag that the vocabulary lacks
_SINGLE, _FIRST, _LAST, _INNER = range(4)  # what a token is in its span
_PREFIXES = {"iob1": "BBII", "iob2": "BBII", "bioes": "SBEI", "bilou": "UBLI"}


class TagIds:
    """Turns numbered tags into ids of a vocabulary, spans read as conlleval reads them.

    What `seqlab.tags.convert` and a look into the vocabulary give, for very many sentences at once.

    Args:
        tags: the distinct tags, in a scheme of spans or all of them bare names.
        vocab: of the model; one that knows spans goes with tags in a scheme of spans.

    Raises:
        DataError: a tag is in no scheme.
    """

    def __init__(self, tags: Sequence[str], vocab: Vocabulary) -> None:
        self._vocab = vocab
        self.spans = vocab.scheme != "none"
        if not self.spans:
            self._plain = np.array([self._id(tag) for tag in tags], np.int32)
            return
        parts = [split_tag(tag) for tag in tags]
        bare = {OUTSIDE: 0, UNKNOWN: 1}  # what is in no span
        labels = sorted({label for prefix, label in parts if prefix not in bare})
        names = [bare.get(prefix, len(bare) + bisect_left(labels, x)) for prefix, x in parts]
        self._labels = labels
        self._names = np.array(names, np.int64)
        self._opening = np.array([prefix in OPENING for prefix, _ in parts], bool)
        self._closing = np.array([prefix in CLOSING for prefix, _ in parts], bool)

    @property
    def plain(self) -> NDArray[np.int32]:
        """``(distinct,)`` the id of each tag, where tags do not depend on their neighbours."""
        return self._plain

    def _id(self, tag: str) -> int:
        if tag == UNKNOWN:
            return -1
        return self._vocab.id(tag) if tag in self._vocab else STRANGE

    @cached_property
    def _written(self) -> NDArray[np.int32]:
        """``(label, place in a span)`` ids."""
        prefixes = _PREFIXES[self._vocab.scheme]
        rows = [[self._id(OUTSIDE)] * 4, [-1] * 4]
        rows += [[self._id(f"{p}-{label}") for p in prefixes] for label in self._labels]
        return np.array(rows, np.int32)

    def parts(self, ids: Ids, offsets: Ints) -> Iterator[NDArray[np.int32]]:
        """Give the ids of a split, some sentences at a time.

        Args:
            ids: ``(token,)`` which tag each token has.
            offsets: ``(sentence + 1,)`` where each sentence begins and ends.

        Yields:
            Ids, -1 where the tag is unknown, `STRANGE` where the vocabulary lacks it.
        """
        for bounds in stretches(offsets):
            yield self._of(ids[bounds[0] : bounds[-1]], bounds - bounds[0])

    def _of(self, tags: NDArray[np.int32], bounds: Ints) -> NDArray[np.int32]:
        """Convert whole sentences, none of them empty."""
        names = self._names[tags]  # (token,)
        same = np.zeros(len(tags) + 1, bool)  # whether a token has the label of the one before
        same[1:-1] = names[1:] == names[:-1]
        same[bounds] = False
        opens = np.ones(len(tags) + 1, bool)  # whether a span begins, if the token is in one
        opens[:-1] = ~same[:-1] | self._opening[tags]
        opens[1:-1] |= self._closing[tags[:-1]]
        closes = ~same[1:] | opens[1:]
        first = opens[:-1]
        if self._vocab.scheme == "iob1":  # which marks a beginning only where spans touch
            first = first & same[:-1]
        place = np.where(first, np.where(closes, _SINGLE, _FIRST), np.where(closes, _LAST, _INNER))
        found: NDArray[np.int32] = self._written[names, place]
        return found

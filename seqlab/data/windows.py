"""Long training documents in pieces: cut where no span is open, or into even ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seqlab.data.base import Encoded


def has_long(encoded: Encoded, limit: int) -> bool:
    """Say whether a split has documents to be cut, or to be left out because they are empty."""
    lengths = encoded.lengths
    return bool(len(lengths)) and bool(lengths.max() > limit or lengths.min() == 0)


def cut_documents(encoded: Encoded, opens: NDArray[np.bool_], limit: int) -> int:
    """Cut the documents of a split that are too long; every token stays in exactly one piece.

    Args:
        encoded: the split with its targets; its offsets and rows are changed.
        opens: ``(tag + 1,)`` whether a document may be cut before a tag; the last entry answers
            for an unknown tag, -1.
        limit: most tokens of a piece; a span that is longer stays whole all the same.

    Returns:
        how many documents were cut.
    """
    assert encoded.target is not None
    offsets, lengths = encoded.offsets, encoded.lengths
    long = np.flatnonzero(lengths > limit)  # (long,)
    inner: list[int] = []  # where pieces begin within documents
    for begin, end in zip(offsets[long].tolist(), offsets[long + 1].tolist(), strict=True):
        start = begin
        free = opens[encoded.target[start:end]]  # (token,)
        while end - begin > limit:
            begin += boundary(free[begin - start :], limit)
            inner += [begin] if begin < end else []
    starts = np.sort(np.concatenate([offsets[:-1][lengths > 0], np.array(inner, np.int64)]))
    encoded.rows = np.searchsorted(offsets, starts, side="right") - 1
    encoded.offsets = np.append(starts, offsets[-1])
    return len(long)


def cut_evenly(encoded: Encoded, limit: int) -> int:
    """Cut the documents of a split that are too long into as few pieces as go, of even length.

    Args:
        encoded: the split, with a target for whole documents; its offsets and rows are changed.
        limit: most tokens of a piece.

    Returns:
        how many documents were cut.

    Example:
        >>> split = Encoded(np.zeros(9, np.int32), np.array([0, 2, 9]))
        >>> cut_evenly(split, 5), split.lengths.tolist(), split.rows.tolist()
        (1, [2, 3, 4], [0, 1, 1])
    """
    starts, lengths = encoded.offsets[:-1], encoded.lengths
    pieces = -(-lengths // limit)  # (row,)
    rows = np.repeat(np.arange(len(lengths)), pieces)  # (piece,)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = starts[rows] + lengths[rows] * number // pieces[rows]
    encoded.offsets = np.append(begin, encoded.offsets[-1])
    encoded.rows = rows
    return int((pieces > 1).sum())


def boundary(opens: NDArray[np.bool_], limit: int) -> int:
    """Find where to cut off the first piece of a document.

    Args:
        opens: ``(token,)`` whether no span is open before each token.
        limit: most tokens of the piece, if possible.

    Returns:
        the last place in the second half of the limit before which no span is open; where there is
        none, the first place after; at last the whole length.

    Example:
        >>> boundary(np.array([True, True, True, False, False, True]), 4)
        2
    """
    before = np.flatnonzero(opens[limit // 2 : limit + 1])
    if len(before):
        return limit // 2 + int(before[-1])
    after = np.flatnonzero(opens[limit + 1 :])
    return limit + 1 + int(after[0]) if len(after) else len(opens)

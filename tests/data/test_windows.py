from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab.data.base import Encoded
from seqlab.data.windows import boundary, cut_documents, cut_evenly

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
OPENS = np.array([True, True, False, False, True])  # O, B, I, E, and a tag nobody knows: -1
DOCUMENTS = st.lists(st.lists(st.sampled_from([0, 1, 2, 3, -1]), max_size=40), max_size=6)


def encoded(documents: list[list[int]]) -> Encoded:
    flat = np.array([tag for tags in documents for tag in tags], np.int32)
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    return Encoded(np.arange(len(flat), dtype=np.int32), offsets, flat)


def pieces(split: Encoded) -> list[tuple[int, list[int]]]:
    """The row and the tags of every piece."""
    assert split.rows is not None
    assert split.target is not None
    bounds = zip(split.offsets[:-1], split.offsets[1:], strict=True)
    return [
        (int(row), split.target[start:end].tolist())
        for row, (start, end) in zip(split.rows, bounds, strict=True)
    ]


def dumb(tags: list[int], limit: int) -> list[list[int]]:
    """Cut one document by looking at every place."""
    found = []
    while len(tags) > limit:
        places = [i for i in range(limit // 2, len(tags)) if OPENS[tags[i]]]
        early = [i for i in places if i <= limit]
        end = max(early) if early else min(places, default=len(tags))
        found.append(tags[:end])
        tags = tags[end:]
    return [*found, tags] if tags else found


@UNHURRIED
@given(DOCUMENTS, st.integers(2, 12))
def test_every_token_is_in_one_piece_and_no_span_is_torn(
    documents: list[list[int]], limit: int
) -> None:
    split = encoded(documents)
    cut = cut_documents(split, OPENS, limit)
    found = pieces(split)
    assert found == [(row, p) for row, tags in enumerate(documents) for p in dumb(tags, limit)]
    for row, tags in enumerate(documents):
        mine = [piece for owner, piece in found if owner == row]
        assert [tag for piece in mine for tag in piece] == tags
        assert all(OPENS[piece[0]] for piece in mine[1:])
    assert cut == sum(len(tags) > limit for tags in documents)
    assert split.forms.tolist() == list(range(len(split.forms)))


def test_short_documents_stay_as_they_are() -> None:
    split = encoded([[0, 1, 2], [0], [1, 2, 2, 3]])
    before = split.offsets.copy()
    assert cut_documents(split, OPENS, 4) == 0
    assert split.offsets.tolist() == before.tolist()
    assert split.rows is not None
    assert split.rows.tolist() == [0, 1, 2]


def test_documents_without_tokens_are_left_out() -> None:
    split = encoded([[], [0, 0], []])
    assert cut_documents(split, OPENS, 4) == 0
    assert pieces(split) == [(1, [0, 0])]


def test_a_span_longer_than_the_limit_stays_whole() -> None:
    split = encoded([[0, 1, 2, 2, 2, 2, 2, 3, 0, 0]])
    assert cut_documents(split, OPENS, 3) == 1
    assert pieces(split) == [(0, [0]), (0, [1, 2, 2, 2, 2, 2, 3]), (0, [0, 0])]


def test_pieces_are_as_long_as_they_may_be() -> None:
    split = encoded([[0] * 1000])
    assert cut_documents(split, OPENS, 64) == 1
    assert split.lengths.tolist() == [64] * 15 + [40]


def test_a_corpus_that_is_one_document_is_cut_in_linear_time() -> None:
    split = encoded([[0] * 2_000_000])
    start = time.perf_counter()
    cut_documents(split, OPENS, 16)
    assert time.perf_counter() - start < 10.0  # a second on an idle machine; quadratic takes hours
    assert split.lengths.max() == 16


@pytest.mark.parametrize("opens", [[True] * 5, [False] * 5])
def test_the_whole_length_is_the_last_resort(opens: list[bool]) -> None:
    assert boundary(np.array(opens), 2) == (2 if opens[0] else 5)


@UNHURRIED
@given(DOCUMENTS, st.integers(1, 12))
def test_even_pieces_hold_every_token_and_are_as_few_as_go(
    documents: list[list[int]], limit: int
) -> None:
    split = encoded(documents)
    assert cut_evenly(split, limit) == sum(len(tags) > limit for tags in documents)
    found = pieces(split)
    for row, tags in enumerate(documents):
        mine = [piece for owner, piece in found if owner == row]
        assert [tag for piece in mine for tag in piece] == tags
        assert len(mine) == -(-len(tags) // limit)
        sizes = [len(piece) for piece in mine]
        assert max(sizes, default=0) <= limit
        assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert [row for row, _ in found] == sorted(row for row, _ in found)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab.data import mapping
from seqlab.data.tag_counts import TagCounts
from seqlab.errors import DataError
from seqlab.schemes import Scheme, SchemeCounter

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPANS = [f"{prefix}-{label}" for prefix in "BIESLU" for label in "XY"]
TAGS = st.one_of(
    st.sampled_from(["O", "?", *SPANS]),
    st.sampled_from(["O", "B-X", "I-X", "I-Y"]),
    st.sampled_from(["O", "B-X", "M-X", "E-X", "NOUN"]),
)
# Sentences that come often, so that what is rare may count as dirt.
SENTENCES = st.lists(TAGS, max_size=5)
PARTS = st.lists(
    st.lists(st.tuples(SENTENCES, st.sampled_from([1, 2, 150])), max_size=5), max_size=3
)


def result(counter: SchemeCounter) -> Scheme | str:
    try:
        return counter.result()
    except DataError as error:
        return str(error)


@UNHURRIED
@given(PARTS, st.integers(1, 400))
def test_counts_are_those_of_one_sentence_at_a_time(
    parts: list[list[tuple[list[str], int]]], most: int
) -> None:
    one, many = SchemeCounter(), SchemeCounter()
    for number, part in enumerate(parts):
        corpus = [tags for tags, times in part for _ in range(times)]
        flat = [tag for tags in corpus for tag in tags]
        offsets = np.cumsum([0, *map(len, corpus)])
        for tags, start in zip(corpus, offsets.tolist(), strict=False):
            one.add(tags, list(range(start, start + len(tags))), f"part-{number}")
        known = list(dict.fromkeys(flat))
        counts = TagCounts(many, known, lambda token, number=number: f"part-{number}:{token}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mapping, "_TOKENS", most)
            counts.add(np.array([known.index(tag) for tag in flat], np.int32), offsets)
    assert result(many) == result(one)


def test_very_many_bare_names_are_counted_together() -> None:
    counter = SchemeCounter()
    tags = [f"lemma{number}" for number in range(50_000)]
    counts = TagCounts(counter, tags, str)
    counts.add(np.arange(50_000, dtype=np.int32), np.arange(0, 50_001, 10))
    assert counter.result() == Scheme("none", 0, [])

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab.data import mapping
from seqlab.data.tag_ids import STRANGE, TagIds
from seqlab.errors import DataError
from seqlab.tags import UNKNOWN, convert
from seqlab.vocabulary import Vocabulary

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TAGS = ["O", "?", *(f"{prefix}-{label}" for prefix in "BIESLU" for label in ("X", "Y", "O", "?"))]
LETTERS = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "bilou": "BILU"}
CORPORA = st.lists(st.lists(st.sampled_from(TAGS), max_size=9), max_size=6)


def vocabulary(scheme: str, labels: str = "XYO?") -> Vocabulary:
    names = [f"{prefix}-{label}" for label in labels for prefix in LETTERS[scheme]]
    return Vocabulary(["O", *names], scheme=scheme)


def ids_of(corpus: list[list[str]], vocab: Vocabulary) -> list[int]:
    flat = [tag for tags in corpus for tag in tags]
    tags = list(dict.fromkeys(flat))
    numbers = np.array([tags.index(tag) for tag in flat], np.int32)
    offsets = np.cumsum([0, *map(len, corpus)])
    made = TagIds(tags, vocab)
    return [number for part in made.parts(numbers, offsets) for number in part.tolist()]


@pytest.mark.parametrize("scheme", list(LETTERS))
@UNHURRIED
@given(corpus=CORPORA, most=st.integers(1, 20))
def test_ids_are_those_of_tags_converted_one_sentence_at_a_time(
    scheme: str, corpus: list[list[str]], most: int
) -> None:
    vocab = vocabulary(scheme)
    wanted = [
        -1 if tag == UNKNOWN else vocab.id(tag)
        for tags in corpus
        for tag in convert(tags, "iob2", scheme)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "_TOKENS", most)
        assert ids_of(corpus, vocab) == wanted


def test_tags_that_the_vocabulary_lacks_are_marked() -> None:
    vocab = vocabulary("bioes", "X")
    assert ids_of([["B-X", "B-Y", "O", "?"]], vocab) == [vocab.id("S-X"), STRANGE, 0, -1]


def test_bare_names_have_their_ids_each() -> None:
    made = TagIds(["NOUN", "?", "VERB", "ODD"], Vocabulary(["VERB", "NOUN"]))
    assert not made.spans
    assert made.plain.tolist() == [1, -1, 0, STRANGE]


def test_a_tag_of_no_scheme_is_an_error() -> None:
    with pytest.raises(DataError, match="tag 'NOUN' is neither O nor PREFIX-LABEL"):
        TagIds(["O", "NOUN"], vocabulary("iob2"))

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab.errors import DataError
from seqlab.schemes import Scheme, SchemeCounter
from seqlab.tags import Span, convert, tags_of

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPAN_SCHEMES = ("iob1", "iob2", "bioes", "bilou")
TAGS = ["O", *(f"{prefix}-{label}" for label in ("X", "Y-Z") for prefix in "BIES")]
SENTENCES = st.lists(st.sampled_from(TAGS), max_size=12)


def detect(*corpus: list[str]) -> Scheme:
    counter = SchemeCounter()
    line = 1
    for tags in corpus:
        counter.add(tags, lines=list(range(line, line + len(tags))), file="train.conll")
        line += len(tags) + 1
    return counter.result()


@pytest.mark.parametrize("scheme", SPAN_SCHEMES)
def test_every_scheme_is_recognised(scheme: str) -> None:
    spans = [Span("X", 0, 1), Span("X", 1, 4), Span("Y", 5, 7)]
    assert detect(tags_of(spans, 8, scheme)) == Scheme(scheme, 0, [])


@pytest.mark.parametrize(
    "tags",
    [
        ["NOUN", "VERB", "PUNCT", "X", "O"],
        ["-LRB-", "NNP", "HYPH", "PRP$", "-RRB-", "``"],
        ["B", "I", "E", "B-"],
        ["PERSON", "O", "O", "LOC"],
        ["NOUN", "VERB", "S-MAJ"],
        ["S-MAJ", "NOUN"],
    ],
)
def test_names_without_prefixes_are_no_scheme(tags: list[str]) -> None:
    assert detect(tags) == Scheme("none", 0, [])


def test_a_corpus_of_o_alone_is_iob2() -> None:
    assert detect(["O", "O"], ["?"]).name == "iob2"
    assert detect().name == "iob2"


def test_dirt_of_one_percent_is_counted_with_its_places() -> None:
    clean = [["B-X", "I-X", "O"]] * 198
    found = detect(*clean[:10], ["O", "I-X"], *clean[10:], ["B-Y", "I-X"])
    assert found == Scheme("iob2", 2, ["train.conll:42", "train.conll:797"])


def test_at_most_five_places_are_kept() -> None:
    found = detect(*[["B-X"]] * 900, *[["I-X"]] * 7)
    assert found.repaired == 7
    assert found.examples == [f"train.conll:{line}" for line in range(1801, 1810, 2)]


def test_unfinished_spans_of_bioes_are_dirt_too() -> None:
    found = detect(*[["S-X", "B-X", "E-X"]] * 100, ["O", "B-X"])
    assert found == Scheme("bioes", 1, ["train.conll:402"])


def test_more_dirt_names_the_first_place_for_each_scheme() -> None:
    with pytest.raises(DataError) as caught:
        detect(["O", "B-X"], ["B-X"], ["O", "I-X"])
    message = str(caught.value)
    assert "train.conll:7: I-X after O is illegal in iob2 (1 such places in 3 spans)" in message
    assert "train.conll:2: B-X after O is illegal in iob1 (2 such places in 3 spans)" in message
    assert "\n" not in message


def test_bioes_and_bilou_in_one_corpus_are_refused() -> None:
    with pytest.raises(DataError, match=r":2: S-X belongs to bioes.*:5: L-X belongs to bilou"):
        detect(["O", "S-X"], ["B-X", "L-X"])


def test_a_stray_prefix_is_named_with_what_it_contradicts() -> None:
    with pytest.raises(
        DataError, match=r"train.conll:4: E-X belongs to bioes.*:2: O after B-X is illegal in bioes"
    ):
        detect(["B-X", "O"], ["E-X"])


@pytest.mark.parametrize(
    ("tag", "advice"), [("PERSON", "-PERSON'?"), ("0", "Fix the line"), ("BPERSON", "'B-PERSON'")]
)
def test_a_tag_outside_the_scheme_is_named_with_its_line(tag: str, advice: str) -> None:
    with pytest.raises(DataError) as caught:
        detect(["B-PERSON", "I-PERSON"], ["O", tag, "B-PERSON"])
    message = str(caught.value)
    assert message.startswith(f"train.conll:5: tag {tag!r} does not belong")
    assert advice in message
    assert "`data.scheme` to none" in message


def test_bmes_is_told_apart_even_where_middles_prevail() -> None:
    with pytest.raises(DataError, match=r":2: tag 'M-X'.*BMES is not: write M- as I-"):
        detect(["B-X", "M-X", "M-X", "M-X", "M-X", "E-X"])


def test_places_without_lines_count_sentences() -> None:
    counter = SchemeCounter()
    counter.add(["B-X", "O"])
    counter.add(["B-X", "NOUN"], file="a.jsonl")
    with pytest.raises(DataError, match=r"^a\.jsonl: sentence 2: tag 'NOUN'"):
        counter.result()


def test_unknown_neighbours_are_no_dirt() -> None:
    assert detect(["B-X", "?", "I-X"], ["S-X", "?"][:0], ["?", "I-X"]) == Scheme("iob2", 0, [])


@UNHURRIED
@given(corpus=st.lists(SENTENCES, max_size=8))
def test_clean_tags_of_any_corpus_are_accepted_as_written(corpus: list[list[str]]) -> None:
    written = [convert(tags, "bioes", "bilou") for tags in corpus]
    letters = {tag[0] for tags in written for tag in tags}
    assert detect(*written).name == ("bilou" if letters & set("LU") else "iob2")

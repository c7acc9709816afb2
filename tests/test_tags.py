from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Tokens

from seqlab.errors import DataError
from seqlab.tags import (
    Grammar,
    Span,
    convert,
    spans_of,
    split_tag,
    tags_of,
)

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PREFIXES = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "bilou": "BILU"}
SPAN_SCHEMES = tuple(PREFIXES)
SEQEVAL = {"iob1": IOB1, "iob2": IOB2, "bioes": IOBES, "bilou": BILOU}


def inventory(scheme: str, labels: tuple[str, ...] = ("X", "Y-Z")) -> list[str]:
    return ["O", *(f"{prefix}-{label}" for label in labels for prefix in PREFIXES[scheme])]


def sentences(scheme: str, max_size: int = 12) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(inventory(scheme)), max_size=max_size)


@st.composite
def spans_in_sentence(draw: st.DrawFn) -> tuple[list[Span], int]:
    cuts = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=5))
    spans, position = [], 0
    for gap, length in cuts:
        start = position + gap
        position = start + length
        spans.append(Span(draw(st.sampled_from(["X", "Y-Z"])), start, position))
    return spans, position + draw(st.integers(0, 2))


def seqeval_spans(tags: list[str], scheme: str) -> list[Span]:
    entities = Tokens(tags, SEQEVAL[scheme], sent_id=0).entities
    return [Span(entity.tag, entity.start, entity.end) for entity in entities]


def perl_spans(tags: list[str]) -> list[Span]:
    """The start and end tables of conlleval, each pair of tags on its own."""
    spans, start = [], None
    pairs = [("O", "")] + [("O", "") if tag == "O" else split_tag(tag) for tag in tags]
    pairs.append(("O", ""))
    for position, ((before, old), (now, new)) in enumerate(itertools.pairwise(pairs)):
        ends = before in "ESLU" or (before in "BI" and now in "BSUO")
        starts = now in "BSU" or (before in "ESLUO" and now in "EIL")
        ends = ends or (before != "O" and old != new)
        starts = starts or (now != "O" and old != new)
        if start is not None and ends:
            spans.append(Span(old, start, position))
            start = None
        if now != "O" and starts:
            start = position
    return spans


def test_split_tag_keeps_hyphens_of_the_label() -> None:
    assert split_tag("I-creative-work") == ("I", "creative-work")
    assert split_tag("?") == ("?", "")


@pytest.mark.parametrize("tag", ["PERSON", "B", "B-", "-X", "", "b-X", "M-X", "BX"])
def test_split_tag_refuses_what_is_no_tag(tag: str) -> None:
    with pytest.raises(DataError, match="neither O nor PREFIX-LABEL"):
        split_tag(tag)


@pytest.mark.parametrize("scheme", ["iob2", "bioes", "bilou"])
@UNHURRIED
@given(data=st.data())
def test_strict_spans_equal_seqeval_on_any_input(scheme: str, data: st.DataObject) -> None:
    tags = data.draw(sentences(scheme))
    assert spans_of(tags, scheme) == seqeval_spans(tags, scheme)


@pytest.mark.parametrize("scheme", ["iob2", "bioes", "bilou"])
def test_strict_spans_equal_seqeval_on_every_short_input(scheme: str) -> None:
    for length in range(5):
        for tags in itertools.product(
            inventory(scheme, ("X", "Y"))[: 2 * len(scheme)], repeat=length
        ):
            assert spans_of(tags, scheme) == seqeval_spans(list(tags), scheme), tags


@pytest.mark.parametrize("scheme", SPAN_SCHEMES)
@UNHURRIED
@given(case=spans_in_sentence())
def test_spans_survive_being_written_and_seqeval_reads_the_same(
    scheme: str, case: tuple[list[Span], int]
) -> None:
    spans, length = case
    tags = tags_of(reversed(spans), length, scheme)
    assert spans_of(tags, scheme) == spans
    assert spans_of(tags, scheme, repair="conlleval") == spans
    if scheme != "iob1" or not lone_b_before_other_b(tags):
        assert seqeval_spans(tags, scheme) == spans


def lone_b_before_other_b(tags: list[str]) -> bool:
    """Where seqeval's IOB1 loses a span; only an illegal second B can follow so, but be sure."""
    return any(a[0] == b[0] == "B" and a != b for a, b in itertools.pairwise(tags))


@UNHURRIED
@given(tags=st.lists(st.sampled_from([*inventory("bioes"), *inventory("bilou")]), max_size=12))
def test_conlleval_spans_follow_the_tables_of_the_script(tags: list[str]) -> None:
    assert spans_of(tags, "bioes", repair="conlleval") == perl_spans(tags)


def test_conlleval_begins_a_span_where_the_label_changes() -> None:
    tags = ["I-PER", "I-LOC", "O", "E-PER", "I-PER"]
    spans = spans_of(tags, "iob2", repair="conlleval")
    assert spans == [("PER", 0, 1), ("LOC", 1, 2), ("PER", 3, 4), ("PER", 4, 5)]


def test_strict_keeps_nothing_of_a_broken_span() -> None:
    assert spans_of(["B-PER", "I-PER", "O", "I-PER", "E-PER"], "bioes") == []
    assert spans_of(["I-PER", "I-PER", "B-PER"], "iob2") == [("PER", 2, 3)]


def test_no_span_reaches_across_an_unknown_tag() -> None:
    assert spans_of(["B-X", "?", "I-X"], "iob2") == [("X", 0, 1)]
    assert spans_of(["B-X", "?", "I-X"], "iob2", "conlleval") == [("X", 0, 1), ("X", 2, 3)]


def test_tags_of_scheme_none_hold_no_spans() -> None:
    assert spans_of(["NOUN", "-LRB-"], "none") == []
    with pytest.raises(DataError, match="scheme none"):
        tags_of([], 2, "none")


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([Span("X", 0, 2), Span("Y", 1, 3)], 3),
        ([Span("X", 0, 4)], 3),
        ([Span("X", -1, 1)], 3),
        ([Span("X", 1, 1)], 3),
        ([Span("", 0, 1)], 3),
        ([Span("X", 0, 1), Span("X", 0, 1)], 3),
    ],
)
def test_spans_that_cannot_be_written_are_refused(spans: list[Span], length: int) -> None:
    with pytest.raises(DataError, match="from token"):
        tags_of(spans, length, "iob2")


def test_iob1_writes_b_only_between_neighbours_of_one_label() -> None:
    spans = [Span("X", 0, 2), Span("X", 2, 3), Span("Y", 3, 4), Span("Y", 5, 6)]
    assert tags_of(spans, 6, "iob1") == ["I-X", "I-X", "B-X", "I-Y", "O", "I-Y"]


@pytest.mark.parametrize("source", SPAN_SCHEMES)
@pytest.mark.parametrize("target", SPAN_SCHEMES)
@UNHURRIED
@given(case=spans_in_sentence())
def test_conversion_keeps_the_spans_and_comes_back(
    source: str, target: str, case: tuple[list[Span], int]
) -> None:
    tags = tags_of(*case, source)
    converted = convert(tags, source, target)
    assert spans_of(converted, target) == case[0]
    assert convert(converted, target, source, repair="strict") == tags


@pytest.mark.parametrize("scheme", SPAN_SCHEMES)
@UNHURRIED
@given(data=st.data())
def test_conversion_makes_any_input_legal(scheme: str, data: st.DataObject) -> None:
    tags = data.draw(sentences(scheme))
    repair = data.draw(st.sampled_from(["strict", "conlleval"]))
    tagset = inventory(scheme)
    grammar = Grammar.of(tagset, scheme)
    assert grammar.allows([tagset.index(tag) for tag in convert(tags, scheme, scheme, repair)])


def test_unknown_tags_stay_unknown() -> None:
    assert convert(["?", "B-X", "?", "I-X", "I-X"], "iob2", "bioes") == [
        *("?", "S-X", "?", "B-X", "E-X")
    ]


def test_none_converts_to_none_only() -> None:
    assert convert(["NOUN", "B-"], "none", "none") == ["NOUN", "B-"]
    with pytest.raises(DataError, match="from scheme none to scheme bioes"):
        convert(["NOUN"], "none", "bioes")


def test_unknown_schemes_and_repairs_are_named() -> None:
    with pytest.raises(DataError, match=r"'iobes' is unknown.*Did you mean 'bioes'"):
        spans_of([], "iobes")
    with pytest.raises(DataError, match="strict, conlleval"):
        spans_of([], "iob2", repair="lenient")
    with pytest.raises(DataError, match="'E-X' does not belong to scheme iob2"):
        spans_of(["E-X"], "iob2")


def legal_by_definition(tags: tuple[str, ...], scheme: str) -> bool:
    """A sequence is legal when it is what its own spans are written as."""
    spans = spans_of(tags, scheme, repair="conlleval")
    return tags_of(spans, len(tags), scheme) == list(tags)


@pytest.mark.parametrize("scheme", SPAN_SCHEMES)
@pytest.mark.parametrize("seed", range(8))
def test_grammar_of_any_tag_list_is_exact_and_leaves_no_dead_end(scheme: str, seed: int) -> None:
    rng = random.Random(seed)
    tags = rng.sample(inventory(scheme, ("X", "Y")), rng.randint(1, 5))
    longest = 5 if len(tags) > 4 else 6
    legal = {
        length: {
            path
            for path in itertools.product(range(len(tags)), repeat=length)
            if legal_by_definition(tuple(tags[i] for i in path), scheme)
        }
        for length in range(1, longest + 1)
    }
    if not all(legal.values()):
        with pytest.raises(DataError, match="no sentence of one token"):
            Grammar.of(tags, scheme)
        return
    grammar = Grammar.of(tags, scheme)
    for length, paths in legal.items():
        every = itertools.product(range(len(tags)), repeat=length)
        assert {path for path in every if grammar.allows(path)} == paths
    used = {tag for paths in legal.values() for path in paths for tag in path}
    for tag in range(len(tags)):
        open_sides = grammar.start[tag] or grammar.end[tag] or any(grammar.transitions[tag])
        assert (open_sides or any(row[tag] for row in grammar.transitions)) == (tag in used)


def test_tags_that_lead_nowhere_are_shut_off() -> None:
    grammar = Grammar.of(["O", "B-X", "I-X", "S-X", "E-Y"], "bioes")
    assert grammar.start == (True, False, False, True, False)
    assert grammar.end == (True, False, False, True, False)
    assert grammar.transitions[1] == (False,) * 5
    assert [row[4] for row in grammar.transitions] == [False] * 5


def test_grammar_without_a_sentence_of_one_token_is_refused() -> None:
    with pytest.raises(DataError, match="add O to the tags"):
        Grammar.of(["B-X", "I-X", "E-X"], "bioes")
    with pytest.raises(DataError, match="at least one tag"):
        Grammar.of([], "none")


def test_none_allows_everything() -> None:
    grammar = Grammar.of(["NOUN", "B-", "I-X"], "none")
    assert all(grammar.allows(path) for path in itertools.product(range(3), repeat=3))
    assert grammar.allows([])

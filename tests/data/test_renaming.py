from __future__ import annotations

import random

import pytest

from seqlab.data.renaming import Renaming
from seqlab.errors import RecipeError
from seqlab.tags import Span, spans_of, tags_of

NAMES = {"person": "PER", "firm": "ORG", "group": "ORG", "product": None}


@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bioes", "bilou"])
def test_spans_keep_their_bounds_and_change_their_labels(scheme: str) -> None:
    rng = random.Random(scheme)
    names = Renaming(NAMES)
    for _ in range(300):
        spans, start, length = [], 0, rng.randint(1, 12)
        while start < length:
            size = rng.randint(1, 3)
            if rng.random() < 0.6 and start + size <= length:
                spans.append(Span(rng.choice([*NAMES, "LOC"]), start, start + size))
            start += size
        renamed = names.tags(tags_of(spans, length, scheme))
        wanted = [s._replace(label=str(NAMES.get(s.label, s.label))) for s in spans]
        assert spans_of(renamed, scheme) == [s for s in wanted if s.label != "None"]


def test_tags_that_are_names_are_renamed_whole() -> None:
    names = Renaming({"NN": "NOUN", "NNS": "NOUN", "B-X": "Y"})
    assert names.tags(["NN", "VB", "NNS", "B-X", "?"]) == ["NOUN", "VB", "NOUN", "Y", "?"]


def test_names_swap_without_a_third() -> None:
    assert Renaming({"A": "B", "B": "A"}).tags(["B-A", "B-B"]) == ["B-B", "B-A"]


def test_no_names_change_nothing() -> None:
    assert not Renaming()
    assert not Renaming({})
    assert Renaming().tags(["B-A", "x"]) == ["B-A", "x"]


@pytest.mark.parametrize("new", ["O", ""])
def test_a_name_that_is_no_label_is_refused(new: str) -> None:
    with pytest.raises(RecipeError) as error:
        Renaming({"person": new})
    assert str(error.value) == (
        f"data.rename.person is {new!r}, which is no label: give it a name, or null to have its "
        "spans left out."
    )


def test_a_name_that_no_tag_has_is_refused() -> None:
    Renaming(NAMES).check(["O", "B-person", "B-firm", "I-group", "S-product", "B-LOC"], "my")
    with pytest.raises(RecipeError) as error:
        Renaming({"persn": "PER"}).check(["O", "B-person", "I-person"], "my")
    assert str(error.value) == (
        "data.rename: no tag of my has the label 'persn'. Did you mean 'person'?"
    )


def test_only_spans_can_be_left_out() -> None:
    with pytest.raises(RecipeError) as error:
        Renaming({"NN": None}).check(["NN", "VB"], "my")
    assert str(error.value) == (
        "data.rename.NN is null, which leaves out spans, and NN is a tag of single tokens: give it "
        "another name."
    )

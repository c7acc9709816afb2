"""Options that make no search are refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from seqlab.errors import RecipeError
from seqlab.nn.search_options import SearchOptions


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beam": 0}, "beam is 0: it must be 1 or more."),
        ({"n_best": 0}, "n_best is 0: it must be 1 or more."),
        ({"alpha": -0.5}, "alpha is -0.5: it must be 0 or more."),
        ({"coverage": -1}, "coverage is -1: it must be 0 or more."),
        ({"max_ratio": -1.0}, "max_ratio is -1.0: it must be 0 or more."),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1: it must be 0 or more."),
        ({"patience": 0.0}, "patience is 0.0: it must be more than 0, or null."),
        (
            {"beam": 3, "n_best": 4},
            "n_best is 4, but beam is 3: raise beam, or ask for fewer.",
        ),
        (
            {"beam": 5, "groups": 2},
            "beam is 5, which groups (2) does not divide: every group needs as many hypotheses.",
        ),
        ({"scores": False}, "scores is false, which only greedy search can do: set beam to 1."),
        (
            {"method": "sampel"},
            "method is 'sampel': choose beam or sample. Did you mean 'sample'?",
        ),
        (
            {"length_penalty": "mean"},
            "length_penalty is 'mean': choose none or average or wu.",
        ),
        (
            {"top_k": 5},
            "top_k is 5, but method is 'beam', which has no such thing: set method to 'sample', or "
            "leave top_k out.",
        ),
        (
            {"method": "sample", "groups": 5},
            "groups is 5, but method is 'sample', which has no such thing: set method to 'beam', "
            "or leave groups out.",
        ),
        ({"method": "sample", "temperature": 0.0}, "temperature is 0.0: it must be more than 0."),
        (
            {"method": "sample", "top_p": 1.5},
            "top_p is 1.5: it must be more than 0 and at most 1.",
        ),
    ],
)
def test_what_makes_no_search_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        SearchOptions(**options)
    assert str(error.value) == sentence


def test_samples_may_be_more_than_the_beam() -> None:
    assert SearchOptions(method="sample", n_best=50).n_best == 50


def test_the_longest_length_is_the_sources_own() -> None:
    options = SearchOptions(max_ratio=1.5, max_extra=2)
    assert [options.limit(length) for length in (1, 2, 3)] == [3, 5, 6]
    assert options.limit(1, prefix=9) == 9

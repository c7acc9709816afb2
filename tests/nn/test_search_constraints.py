"""Constraints that contradict themselves, and what rules leave open."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqlab.errors import UsageError
from seqlab.nn.search_constraints import Rules, check_constraints, contains
from seqlab.nn.search_options import Constraints, SearchOptions


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (
            {"required": [[5, 6]], "banned": [[5, 6]]},
            "the banned phrase [5, 6] is part of the required phrase [5, 6]: drop one of the two.",
        ),
        (
            {"required": [[4, 5, 6]], "banned": [[7], [5]]},
            "the banned phrase [5] is part of the required phrase [4, 5, 6]: drop one of the two.",
        ),
        (
            {"prefix": [4, 5], "banned": [[5]]},
            "the banned phrase [5] is part of the prefix [4, 5]: drop one of the two.",
        ),
        ({"required": [[]]}, "a required phrase is empty: leave it out."),
        (
            {"banned": [[4, 9]]},
            "the banned phrase [4, 9] holds the id 9, but the vocabulary ends at 8.",
        ),
        (
            {"prefix": [3]},
            "the prefix [3] holds the id 3, which is never produced: choose other tokens.",
        ),
    ],
)
def test_what_no_output_can_meet_is_refused(wish: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        check_constraints([Constraints(), Constraints(**wish)], SearchOptions(), 9)
    assert str(error.value) == f"Sentence 2: {sentence}"


def test_an_unknown_token_cannot_be_required_where_it_is_not_allowed() -> None:
    wish = Constraints(required=[[1]])
    check_constraints([wish], SearchOptions(), 9)
    with pytest.raises(UsageError, match="holds the id 1, which is never produced"):
        check_constraints([wish], SearchOptions(unknown_allowed=False), 9)


def test_phrases_are_found_with_their_tokens_side_by_side() -> None:
    assert contains([4, 5, 6], [5, 6])
    assert not contains([5, 4, 6], [5, 6])
    assert not contains([5], [5, 6])


def left_open(rules: Rules, history: list[list[list[int]]], **more: Any) -> list[list[list[int]]]:
    ids = torch.tensor(history, dtype=torch.int64)
    logs = torch.zeros(*ids.shape[:2], 9)
    rules.forbid(logs, ids, **more)
    return [[[t for t in range(4, 9) if row[t] == 0.0] for row in rows] for rows in logs.tolist()]


CPU = torch.device("cpu")


def test_rules_are_of_each_sentence_and_hypothesis() -> None:
    wishes = [
        Constraints(banned=[[4], [5, 6], [5, 5, 7]]),
        Constraints(),
        Constraints(prefix=[7, 8, 4], banned=[[6]]),
    ]
    rules = Rules(SearchOptions(), wishes, CPU)
    history = [[[5, 5], [6, 5]], [[5, 5], [5, 5]], [[7, 8], [7, 8]]]
    every = [4, 5, 6, 7, 8]
    assert left_open(rules, history) == [[[5, 8], [5, 7, 8]], [every, every], [[4], [4]]]
    rules.select(torch.tensor([0, 2]))
    assert left_open(rules, [[[8]], [[7]]]) == [[[5, 6, 7, 8]], [[8]]]
    assert left_open(rules, [[[5, 5, 8]], [[7, 8, 4]]]) == [[[5, 6, 7, 8]], [[4, 5, 7, 8]]]


@pytest.mark.parametrize(
    ("n", "history", "left"),
    [
        (1, [4, 6], [5, 7, 8]),
        (2, [4, 5, 4], [4, 6, 7, 8]),
        (2, [4, 5, 4, 6, 4], [4, 7, 8]),
        (3, [4, 5, 6, 4, 5], [4, 5, 7, 8]),
        (3, [4, 5], [4, 5, 6, 7, 8]),
        (0, [4, 4], [4, 5, 6, 7, 8]),
    ],
)
def test_repeated_ngrams_are_forbidden(n: int, history: list[int], left: list[int]) -> None:
    rules = Rules(SearchOptions(no_repeat_ngram=n), [Constraints()], CPU)
    assert left_open(rules, [[history]]) == [[left]]


def test_a_spared_token_may_repeat_an_ngram_but_not_complete_a_banned_phrase() -> None:
    rules = Rules(SearchOptions(no_repeat_ngram=1), [Constraints(banned=[[5]])], CPU)
    free = torch.tensor([[[4, 5]]])
    assert left_open(rules, [[[4, 5, 6]]], free=free) == [[[4, 7, 8]]]

"""Samples follow the model's distribution, whatever the batch."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.nn.search import Constraints, Hypothesis, SearchOptions, Step, number_of, search
from seqlab.nn.search_sampling import kept_chances

END = 3
CHANCES = [0.0, 0.05, 0.0, 0.3, 0.4, 0.2, 0.05]


class Memoryless:
    """Gives the same distribution at each step to all sentences."""

    size = len(CHANCES)

    def __init__(self, sentences: int) -> None:
        self.sentences = sentences

    def begin(self) -> int:
        return self.sentences

    def step(self, tokens: Tensor, state: int) -> Step:
        assert len(tokens) == state
        return Step(torch.tensor(CHANCES).log().expand(*tokens.shape, -1).clone(), None, state)

    def select(self, state: int, sentences: Tensor, hypotheses: Tensor) -> int:
        return len(sentences)


def samples(numbers: list[int], wishes: Any = None, **options: Any) -> list[list[Hypothesis]]:
    chosen = SearchOptions(**{"method": "sample", "max_ratio": 0, "max_extra": 30, **options})
    lengths = torch.ones(len(numbers), dtype=torch.int64)
    return search(Memoryless(len(numbers)), chosen, lengths, wishes, numbers)


def frequencies(found: list[list[Hypothesis]]) -> dict[int, float]:
    counts = Counter(token for outputs in found for h in outputs for token in [*h.ids, END])
    total = sum(counts.values())
    return {token: count / total for token, count in counts.items()}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, CHANCES),
        ({"temperature": 0.5}, [p * p for p in CHANCES]),
        ({"temperature": 2.0}, [math.sqrt(p) for p in CHANCES]),
        ({"top_k": 2}, [0, 0, 0, 0.3, 0.4, 0, 0]),
        ({"top_p": 0.75}, [0, 0, 0, 0.3, 0.4, 0.2, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0, 0, 0.3, 0.4, 0, 0]),
        ({"unknown_allowed": False}, [0, 0, 0, 0.3, 0.4, 0.2, 0.05]),
    ],
)
def test_tokens_come_as_often_as_they_should(options: Any, wanted: list[float]) -> None:
    found = samples(list(range(40)), n_best=50, **options)
    often = frequencies(found)
    assert set(often) == {token for token, chance in enumerate(wanted) if chance}
    for token, share in often.items():
        # About 6,000 draws: three standard deviations are at most 0.02.
        assert share == pytest.approx(wanted[token] / sum(wanted), abs=0.025)


def test_steps_are_drawn_independently() -> None:
    pairs = Counter(
        pair
        for outputs in samples(list(range(60)), n_best=50)
        for h in outputs
        for pair in zip(h.ids, h.ids[1:], strict=False)
    )
    total = sum(pairs.values())
    kept = 1 - CHANCES[END]
    for first, second in ((4, 4), (4, 5), (5, 4), (5, 5)):
        wanted = CHANCES[first] * CHANCES[second] / kept**2
        assert pairs[first, second] / total == pytest.approx(wanted, abs=0.03)


def test_samples_are_the_sentences_own() -> None:
    together = samples([11, 12, 13], n_best=4)
    assert samples([12], n_best=4)[0] == together[1]
    assert samples([13, 5, 11], n_best=4)[::2] == [together[2], together[0]]
    assert len({tuple(h.ids) for outputs in together for h in outputs}) > 3
    assert samples([11, 12, 13], n_best=4, seed=1) != together


def test_log_probabilities_are_the_models_whatever_is_drawn_among() -> None:
    found = samples(list(range(20)), top_k=2, temperature=0.5, length_penalty="average")
    for outputs in found:
        wanted = sum(math.log(CHANCES[token]) for token in [*outputs[0].ids, END])
        assert outputs[0].log_probability == pytest.approx(wanted, rel=1e-5)
        assert outputs[0].score == pytest.approx(wanted / (len(outputs[0].ids) + 1), rel=1e-5)


def test_lengths_are_kept() -> None:
    found = samples(list(range(50)), min_length=2, max_extra=4, n_best=3)
    assert {len(h.ids) for outputs in found for h in outputs} == {2, 3, 4}


def test_a_sample_without_anything_left_ends() -> None:
    wish = Constraints(banned=[[4], [5], [6], [1]])
    assert samples([1], [wish], min_length=3)[0][0].ids == []


def test_of_equals_the_lowest_ids_are_kept() -> None:
    chances = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.2])
    kept = kept_chances(chances, SearchOptions(method="sample", top_k=2))
    assert kept.nonzero().flatten().tolist() == [0, 1]
    kept = kept_chances(chances, SearchOptions(method="sample", top_p=0.5))
    assert kept.nonzero().flatten().tolist() == [0, 1, 2]


def test_a_number_is_made_from_ids() -> None:
    assert number_of([1, 23]) == number_of([1, 23])
    assert len({number_of(ids) for ids in ([1, 23], [12, 3], [23, 1], [])}) == 4

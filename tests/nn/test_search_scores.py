"""Penalties by hand, and their bounds against every continuation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqlab.nn.search_options import SearchOptions
from seqlab.nn.search_scores import LEAST_COVERAGE, Penalties, length_divisor


@pytest.mark.parametrize(
    ("kind", "alpha", "length", "divisor"),
    [
        ("none", 1.0, 7, 1.0),
        ("average", 1.0, 7, 7.0),
        ("average", 0.5, 9, 3.0),
        ("wu", 1.0, 1, 1.0),
        ("wu", 2.0, 7, 4.0),
        ("wu", 0.0, 7, 1.0),
    ],
)
def test_divisors_are_those_of_the_papers(
    kind: Any, alpha: float, length: int, divisor: float
) -> None:
    assert length_divisor(kind, alpha, length) == pytest.approx(divisor)


def penalties(limits: list[int], lengths: list[int], **options: Any) -> Penalties:
    chosen = SearchOptions(**options)
    return Penalties(chosen, torch.tensor(limits), torch.tensor(lengths), torch.float32)


def test_the_coverage_penalty_counts_real_source_tokens_up_to_one() -> None:
    some = penalties([5, 5], [2, 3], coverage=2.0, length_penalty="none")
    coverage = torch.tensor([[[0.5, 1.7, 0.0]], [[1.0, 0.25, 0.0]]])
    scores = some.score(torch.tensor([[-3.0], [-3.0]]), 4, coverage)
    wanted = [-3 + 2 * torch.tensor([0.5]).log().item()]
    wanted.append(-3 + 2 * torch.tensor([0.25, LEAST_COVERAGE]).log().sum().item())
    assert scores.flatten().tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["none", "average", "wu"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_no_continuation_exceeds_its_bound(kind: Any, alpha: float, beta: float) -> None:
    generator = torch.Generator().manual_seed(1)
    some = penalties([8, 8], [3, 3], length_penalty=kind, alpha=alpha, coverage=beta)
    for _ in range(50):
        logs = -torch.rand(2, 1, generator=generator) * 9
        bound = some.bound(logs)
        for length in range(2, 10):
            logs = logs - torch.rand(2, 1, generator=generator) * (length % 3)  # at times nothing
            coverage = torch.rand(2, 1, 3, generator=generator) * 2 if beta else None
            assert (some.score(logs, length, coverage) <= bound).all()


def test_bounds_are_of_each_sentence() -> None:
    some = penalties([3, 9], [3, 3], length_penalty="average")
    logs = torch.full((2, 1), -20.0)
    assert some.bound(logs).flatten().tolist() == [-5.0, -2.0]
    some.select(torch.tensor([1]))
    assert some.bound(logs[:1]).flatten().tolist() == [-2.0]

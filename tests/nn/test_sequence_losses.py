"""Losses over whole outputs against sums by hand and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seqlab.nn.sequence_losses import distinct, minimum_risk, self_critical

LOG_PROBABILITIES = [[-1.0, -2.5, -0.5, -4.0], [-3.0, -0.1, -9.0, -2.0], [-5.0, -6.0, -7.0, -8.0]]
REWARDS = [[0.2, 0.9, 0.4, 0.0], [0.1, 0.3, 1.0, 0.5], [0.7, 0.6, 0.5, 0.1]]
COUNTS = [[True, True, False, True], [True, False, False, False], [True] * 4]
BASELINE = [0.3, 0.4, 0.6]


def numbers(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def risk_by_hand(alpha: float) -> float:
    total = 0.0
    for logs, rewards, counts in zip(LOG_PROBABILITIES, REWARDS, COUNTS, strict=True):
        powers = [math.exp(x) ** alpha * c for x, c in zip(logs, counts, strict=True)]
        total += sum(p / sum(powers) * r for p, r in zip(powers, rewards, strict=True))
    return -total / len(REWARDS)


@pytest.mark.parametrize("alpha", [0.005, 0.5, 1.0, 3.0])
def test_risk_is_the_expected_reward_by_hand(alpha: float) -> None:
    mask = torch.tensor(COUNTS)
    loss = minimum_risk(numbers(LOG_PROBABILITIES), numbers(REWARDS), alpha, mask)
    assert loss.item() == pytest.approx(risk_by_hand(alpha))


def test_what_does_not_count_has_no_effect_whatever_it_is() -> None:
    mask = torch.tensor(COUNTS)
    logs, rewards = numbers(LOG_PROBABILITIES), numbers(REWARDS)
    logs[~mask], rewards[~mask] = torch.nan, torch.nan
    logs.requires_grad_()
    loss = minimum_risk(logs, rewards, 0.5, mask)
    loss.backward()
    assert loss.item() == pytest.approx(risk_by_hand(0.5))
    assert logs.grad is not None
    assert logs.grad.isfinite().all()
    assert not logs.grad[~mask].any()


def losses() -> list[Callable[[Tensor], Tensor]]:
    return [
        lambda x: minimum_risk(x, numbers(REWARDS), 0.7, torch.tensor(COUNTS)),
        lambda x: self_critical(x, numbers(REWARDS), torch.tensor(BASELINE)),
    ]


@pytest.mark.parametrize("loss", losses(), ids=["minimum risk", "self-critical"])
def test_gradients_are_those_of_finite_differences(loss: Callable[[Tensor], Tensor]) -> None:
    assert torch.autograd.gradcheck(loss, (numbers(LOG_PROBABILITIES).requires_grad_(),))


def test_no_gradient_goes_to_rewards() -> None:
    rewards = numbers(REWARDS).requires_grad_()
    logs = numbers(LOG_PROBABILITIES).requires_grad_()
    for value in (
        minimum_risk(logs, rewards, 0.5, torch.tensor(COUNTS)),
        self_critical(logs, rewards, rewards.mean(1)),
    ):
        assert torch.autograd.grad(value, rewards, allow_unused=True, retain_graph=True) == (None,)


def test_self_critical_is_the_mean_advantage_by_hand() -> None:
    baseline = torch.tensor(BASELINE, dtype=torch.float64)
    loss = self_critical(numbers(LOG_PROBABILITIES), numbers(REWARDS), baseline)
    terms = [
        -(r - b) * x
        for logs, rewards, b in zip(LOG_PROBABILITIES, REWARDS, BASELINE, strict=True)
        for x, r in zip(logs, rewards, strict=True)
    ]
    assert loss.item() == pytest.approx(sum(terms) / len(terms))


def test_risk_makes_the_better_candidate_likelier() -> None:
    """Two outputs, the worse of which a model of one number prefers at first."""
    weight = torch.tensor([-1.0], requires_grad=True)
    rewards, mask = torch.tensor([[0.9, 0.1]]), torch.ones(1, 2, dtype=torch.bool)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    chances = []
    for _ in range(100):
        logs = torch.cat([weight, -weight]).log_softmax(0)
        chances.append(logs[0].exp().item())
        optimizer.zero_grad()
        minimum_risk(logs.unsqueeze(0), rewards, 1.0, mask).backward()
        optimizer.step()
    assert chances == sorted(chances)
    assert chances[0] < 0.2
    assert chances[-1] > 0.95


def test_self_critical_makes_the_better_sample_likelier() -> None:
    """Outputs are sampled, and greedy search is the baseline."""
    torch.manual_seed(0)
    scores = torch.tensor([0.0, 1.0, 0.5], requires_grad=True)
    rewards = torch.tensor([0.2, 0.3, 0.9])
    optimizer = torch.optim.SGD([scores], lr=1.0)
    for _ in range(200):
        logs = scores.log_softmax(0)
        sampled = torch.multinomial(logs.exp().detach(), 8, replacement=True)
        best = rewards[logs.argmax()]
        optimizer.zero_grad()
        self_critical(
            logs[sampled].unsqueeze(0), rewards[sampled].unsqueeze(0), best.view(1)
        ).backward()
        optimizer.step()
    assert scores.softmax(0)[2].item() > 0.9


def test_samples_as_good_as_the_baseline_change_nothing() -> None:
    logs = numbers(LOG_PROBABILITIES).requires_grad_()
    self_critical(logs, torch.full((3, 4), 0.5), torch.full((3,), 0.5)).backward()
    assert logs.grad is not None
    assert not logs.grad.any()


def test_half_precision_is_widened() -> None:
    logs = torch.tensor([[-40.25, -40.5]], dtype=torch.bfloat16)
    rewards, mask = torch.tensor([[1.0, 0.0]]), torch.tensor([[True, True]])
    loss = minimum_risk(logs, rewards, 0.005, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-1 / (1 + math.exp(-0.25 * 0.005)), abs=1e-6)


def test_the_first_of_equal_candidates_is_kept() -> None:
    a, b, padded = [5, 6, 3], [5, 7, 3], [5, 3, 0]
    mask = distinct(torch.tensor([[a, b, a, a], [b, b, padded, a]]))
    assert mask.tolist() == [[True, True, False, False], [True, False, True, True]]

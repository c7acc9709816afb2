"""The best continuations against stable sorting of everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqlab.nn.search_choices import (
    best_choices,
    diverse_choices,
    first_greatest,
    log_probabilities,
)


def sorted_plainly(totals: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    size = totals.shape[2]
    top, places = totals.flatten(1).sort(dim=1, descending=True, stable=True)
    return top[:, :count], places[:, :count] // size, places[:, :count] % size


@settings(deadline=None, max_examples=150)
@given(
    sentences=st.sampled_from([1, 2, 70]),
    hypotheses=st.sampled_from([1, 2, 5]),
    size=st.sampled_from([9, 64, 500, 1025, 1087, 1984, 2048]),
    count=st.sampled_from([1, 3, 5, 40]),
    coarse=st.sampled_from([0, 1, 2, 8]),
    closed=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_choices_are_those_of_stable_sorting(
    sentences: int, hypotheses: int, size: int, count: int, coarse: int, closed: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logs = torch.randn(sentences, hypotheses, size, generator=generator)
    base = None
    if hypotheses > 1 or seed % 2:
        base = torch.randn(sentences, hypotheses, generator=generator)
    if coarse:  # equals everywhere
        logs = (logs * coarse).round() / coarse
        base = None if base is None else (base * coarse).round()
    if closed:
        logs[0, :, size // 2 :] = -torch.inf
        logs[-1, -1] = -torch.inf
    logs[:, :, 0] = -torch.inf
    count = min(count, hypotheses * size)
    found = best_choices(logs.clone(), base, count, padding=0)
    totals = logs if base is None else logs + base.unsqueeze(2)
    top, parents, tokens = sorted_plainly(totals, count)
    real = top > -torch.inf
    assert torch.equal(found.totals, top)
    assert torch.equal(found.parents[real], parents[real])
    assert torch.equal(found.tokens[real], tokens[real])


def test_what_there_is_not_is_filled_up() -> None:
    logs = torch.tensor([[[-torch.inf, 2.0, 3.0]]])
    found = best_choices(logs, None, 5, padding=0)
    assert found.totals.tolist() == [[3.0, 2.0, -torch.inf, -torch.inf, -torch.inf]]
    assert found.tokens[0, :2].tolist() == [2, 1]
    assert found.parents.tolist() == [[0] * 5]


def test_a_choice_does_not_depend_on_other_rows() -> None:
    logs = torch.randn(16, 3, 3000).mul(4).round()
    logs[:, :, 0] = -torch.inf
    base = torch.randn(16, 3)
    together = best_choices(logs.clone(), base, 4, padding=0)
    for row in range(16):
        alone = best_choices(logs[row : row + 1].clone(), base[row : row + 1], 4, padding=0)
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("rows", [1, 4, 5, 70])
@pytest.mark.parametrize("size", [10, 1088, 1100])
def test_the_first_of_the_greatest_is_found(rows: int, size: int) -> None:
    logits = torch.randn(rows, size).mul(2).round()
    assert torch.equal(
        first_greatest(logits), (logits == logits.amax(1, keepdim=True)).int().argmax(1)
    )


@pytest.mark.parametrize("shape", [(1, 1, 7), (1, 5, 8000), (9, 5, 1001)], ids=str)
def test_normalising_in_place_is_exact_and_of_each_row(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape) * 20
    logits[..., 2] = -torch.inf
    wanted = logits.log_softmax(-1)
    alone = torch.cat([log_probabilities(row.clone()) for row in logits.split(1)])
    assert torch.equal(log_probabilities(logits), wanted)
    assert torch.equal(alone, wanted)


def test_later_groups_pay_for_what_earlier_ones_chose() -> None:
    totals = torch.tensor([[[-torch.inf, -1.0, -2.0, -2.5, -9.0]]])
    choices, paid = diverse_choices(totals, groups=3, width=1, diversity=1.2, padding=0)
    assert choices.tokens.tolist() == [[1, 2, 1]]  # 1 for -1, 2 for -2, 1 again for -2.2
    assert choices.totals.tolist() == [[-1.0, -2.0, -1.0]]
    assert paid.flatten().tolist() == pytest.approx([-1.0, -2.0, -2.2])
    both = totals.expand(1, 2, 5) - torch.tensor([[[0.0], [5.0]]])
    choices, _ = diverse_choices(both, groups=2, width=1, diversity=1.2, padding=0)
    assert choices.parents.tolist() == [[0, 1]]  # of each group's own
    assert choices.tokens.tolist() == [[1, 2]]

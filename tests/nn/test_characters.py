"""The character convolution by table equals the convolution itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqlab.nn.characters import largest_sums

SMALLEST = torch.finfo(torch.float64).min


def by_convolution(characters: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Sum by sum, as the docstring says it."""
    window = table.shape[1]
    rows = []
    for form in characters.tolist():
        sums = []
        for position, character in enumerate(form):
            if not character:
                continue
            total = bias
            for place in range(window):
                there = position + place - window // 2
                if 0 <= there < len(form) and form[there]:
                    total = total + table[form[there], place]
            sums.append(total)
        rows.append(torch.stack(sums).amax(0) if sums else bias * 0 + SMALLEST)
    return torch.stack(rows)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    forms, width = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    letters, window = draw(st.integers(2, 6)), draw(st.sampled_from([1, 3, 5]))
    filters = draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    characters = torch.randint(0, letters, (forms, width), generator=generator)  # holes as well
    table = torch.randn(letters, window, filters, generator=generator, dtype=torch.float64)
    return characters, table, torch.randn(filters, generator=generator, dtype=torch.float64)


@settings(deadline=None)
@given(cases())
def test_it_is_the_convolution(case: tuple[Tensor, Tensor, Tensor]) -> None:
    torch.testing.assert_close(largest_sums(*case), by_convolution(*case))


@settings(deadline=None)
@given(cases())
def test_its_gradient_is_that_of_the_convolution(case: tuple[Tensor, Tensor, Tensor]) -> None:
    characters, table, bias = case
    weights = torch.linspace(0.5, 2.0, len(characters) * len(bias), dtype=torch.float64)
    found = []
    for function in (largest_sums, by_convolution):
        leaves = [table.clone().requires_grad_(), bias.clone().requires_grad_()]
        value = function(characters, *leaves)
        kept = value.masked_fill((characters == 0).all(1, keepdim=True), 0.0)
        (kept.flatten() * weights).sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*found, strict=True):
        expected = torch.zeros_like(ours) if theirs is None else theirs
        torch.testing.assert_close(ours, expected)


def test_a_form_without_characters_gets_no_gradient() -> None:
    table, bias = torch.randn(3, 3, 2).requires_grad_(), torch.randn(2).requires_grad_()
    value = largest_sums(torch.zeros(2, 4, dtype=torch.int64), table, bias)
    assert (value == torch.finfo(torch.float32).min).all()
    value.sum().backward()
    assert not table.grad.any()
    assert not bias.grad.any()


def test_the_row_of_padding_counts_as_zero() -> None:
    table = torch.ones(2, 3, 1)
    table[0] = 100.0
    value = largest_sums(torch.tensor([[1, 0, 0]]), table.requires_grad_(), torch.zeros(1))
    assert value.item() == 1.0
    value.backward()
    assert table.grad[0].abs().sum() == 0


def test_the_graph_may_be_kept() -> None:
    table, bias = torch.randn(4, 3, 5).requires_grad_(), torch.zeros(5)
    value = largest_sums(torch.tensor([[1, 2, 3]]), table, bias).sum()
    (first,) = torch.autograd.grad(value, table, retain_graph=True)
    (second,) = torch.autograd.grad(value, table)
    assert torch.equal(first, second)


def test_there_is_no_second_derivative() -> None:
    table = torch.randn(2, 1, 1, requires_grad=True)
    value = largest_sums(torch.tensor([[1]]), table, torch.zeros(1))
    (first,) = torch.autograd.grad(value.sum(), table, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()

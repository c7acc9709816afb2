from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from seqlab.nn import linear_scan as module
from seqlab.nn.linear_scan import by_doubling, by_steps, linear_scan

DOUBLE = torch.float64
WAYS = pytest.mark.parametrize("way", [by_steps, by_doubling])


def case(time: int, seed: int = 0) -> list[Tensor]:
    torch.manual_seed(seed)
    return [
        torch.rand(time, 2, 3, dtype=DOUBLE),
        torch.randn(time, 2, 3, dtype=DOUBLE),
        torch.randn(2, 3, dtype=DOUBLE),
    ]


def plainly(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """The definition: every state from the one before."""
    states = []
    for a, b in zip(decay, drive, strict=True):
        start = a * start + b
        states.append(start)
    return torch.stack(states)


@given(time=st.integers(1, 70), seed=st.integers(0, 99))
@settings(deadline=None)
def test_both_ways_compute_the_recurrence(time: int, seed: int) -> None:
    values = case(time, seed)
    for way in (by_steps, by_doubling):
        torch.testing.assert_close(way(*values), plainly(*values), rtol=1e-12, atol=1e-12)


@WAYS
def test_inputs_are_left_as_they_were(way: type[by_steps]) -> None:
    values = case(9)
    copies = [value.clone() for value in values]
    way(*values)
    for value, before in zip(values, copies, strict=True):
        assert torch.equal(value, before)


@WAYS
@pytest.mark.parametrize("time", [1, 2, 5, 8])
def test_gradients_are_those_of_finite_differences(
    time: int, way: type[by_steps], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_compute", way)
    assert gradcheck(linear_scan, [value.requires_grad_() for value in case(time)])


@WAYS
def test_nothing_is_left_of_a_state_without_decay(way: type[by_steps]) -> None:
    decay, drive, start = case(6)
    assert torch.equal(way(torch.zeros_like(decay), drive, start), drive)
    kept = way(torch.ones_like(decay), torch.zeros_like(drive), start)
    assert torch.equal(kept, start.expand_as(kept))


@WAYS
def test_a_long_recurrence_in_single_precision(way: type[by_steps]) -> None:
    values = case(5000)
    found = way(*(value.float() for value in values))
    torch.testing.assert_close(found.double(), plainly(*values), rtol=1e-5, atol=1e-5)


def test_the_start_takes_the_precision_of_what_is_added() -> None:
    decay, drive, start = case(3)
    leaf = start.requires_grad_()
    found = linear_scan(decay.bfloat16(), drive.bfloat16(), leaf)
    assert found.dtype == torch.bfloat16
    found.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == DOUBLE

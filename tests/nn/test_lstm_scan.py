from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from seqlab.nn.lstm_scan import LSTMWeights, Noise, held, lstm_scan, over_time, parts

DOUBLE = torch.float64


def drawn(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def case(directions: int = 2, time: int = 4, batch: int = 2, size: int = 3) -> list[Tensor]:
    """Gates, hidden state, cell and recurrent weights of a plain LSTM."""
    torch.manual_seed(0)
    return [
        drawn(directions, time, batch, 4 * size),
        drawn(directions, batch, size),
        drawn(directions, batch, size),
        drawn(directions, size, 4 * size),
    ]


def run(values: list[Tensor], noise: Noise | None = None, **extras: Any) -> tuple[Tensor, Tensor]:
    gates, hidden, cell, recurrent = values
    return lstm_scan(gates, hidden, cell, LSTMWeights(recurrent, **extras), noise)


def test_all_states_come_out_in_the_order_of_time() -> None:
    values = case()
    hidden, cells = run(values)
    assert hidden.shape == cells.shape == (2, 4, 2, 3)
    gates, *start = values
    shorter, short_cells = run([gates[:, :2], *start])
    assert torch.equal(hidden[:, :2], shorter)
    assert torch.equal(cells[:, :2], short_cells)


@pytest.mark.parametrize("asked", ["hidden", "cells", "both"])
def test_gradients_come_through_either_output(asked: str) -> None:
    values = [value.requires_grad_() for value in case(time=3, size=2)]

    def outputs(*values: Tensor) -> Any:
        hidden, cells = run(list(values))
        return {"hidden": hidden, "cells": cells, "both": hidden * cells}[asked]

    assert gradcheck(outputs, values)


def test_a_mask_of_zeros_cuts_the_recurrence() -> None:
    gates, hidden, cell, recurrent = case()
    found = run([gates, hidden, cell, recurrent], Noise(mask=torch.zeros_like(hidden)))
    expected = run([gates, hidden, cell, torch.zeros_like(recurrent)])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_mask_stands_before_the_weights_at_every_step() -> None:
    gates, hidden, cell, recurrent = case()
    mask = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 3.0]], dtype=DOUBLE)  # of each direction
    noise = Noise(mask=mask.unsqueeze(1).expand(2, 2, 3))
    found = run([gates, hidden, cell, recurrent], noise)
    expected = run([gates, hidden, cell, mask.unsqueeze(-1) * recurrent])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_zoneout_keeps_the_chosen_units() -> None:
    values = case(time=3)
    hold_h, hold_c = torch.zeros(3, 2, 2, 3, dtype=DOUBLE), torch.zeros(3, 2, 2, 3, dtype=DOUBLE)
    hold_h[1, :, :, 0], hold_c[1, :, :, 1] = 1, 1
    hidden, cells = run(values, Noise(hold_hidden=hold_h, hold_cell=hold_c))
    kept_h, kept_c = hidden[:, 1] == hidden[:, 0], cells[:, 1] == cells[:, 0]
    only = torch.tensor([True, False, False]).expand(2, 2, 3)
    assert torch.equal(kept_h, only)
    assert torch.equal(kept_c, only.roll(1, -1))
    # The output gate shows the cell that was computed, not the one that was kept.
    plain_h, plain_c = run(values)
    assert torch.equal(hidden[:, 1, :, 1:], plain_h[:, 1, :, 1:])
    assert torch.equal(cells[:, 0], plain_c[:, 0])


def test_the_expectation_of_zoneout_is_its_share() -> None:
    gates, hidden, cell, recurrent = (value[:1] for value in case(time=1, batch=1))
    count, share = 20_000, 0.3
    many = [gates.expand(1, 1, count, 12), *(x.expand(1, count, 3) for x in (hidden, cell))]
    hold = (torch.rand(2, 1, 1, count, 3) < share).to(DOUBLE)
    random = run([*many, recurrent], Noise(hold_hidden=hold[0], hold_cell=hold[1]))
    expected = run([gates, hidden, cell, recurrent], Noise(hold_hidden=share, hold_cell=share))
    for found, mean in zip(random, expected, strict=True):
        torch.testing.assert_close(found.mean(2, keepdim=True), mean, rtol=0, atol=0.03)


def test_the_weights_take_the_precision_of_the_gates() -> None:
    gates, hidden, cell, recurrent = case()
    leaf = recurrent.requires_grad_()
    outs = run([gates.bfloat16(), hidden, cell, leaf])
    assert {out.dtype for out in outs} == {torch.bfloat16}
    outs[0].sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == DOUBLE


def test_layouts_other_than_contiguous_are_read_alike() -> None:
    gates, hidden, cell, recurrent = case()
    twisted = [
        gates.transpose(1, 2).contiguous().transpose(1, 2),
        hidden[:, :1].expand(2, 2, 3),
        cell.transpose(0, 2).contiguous().transpose(0, 2),
        recurrent.transpose(1, 2).contiguous().transpose(1, 2),
    ]
    straight = [value.clone(memory_format=torch.contiguous_format) for value in twisted]
    leaves = [value.detach().requires_grad_() for value in twisted]
    others = [value.detach().requires_grad_() for value in straight]
    torch.testing.assert_close(run(leaves), run(others))
    found, expected = (
        torch.autograd.grad(run(values)[0].square().sum(), values) for values in (leaves, others)
    )
    torch.testing.assert_close(found, expected)


def test_what_goes_in_is_left_as_it_was() -> None:
    values = case()
    copies = [value.clone() for value in values]
    noise = Noise(torch.ones(2, 2, 3, dtype=DOUBLE), 0.5, 0.5)
    leaves = [value.requires_grad_() for value in values]
    (run(leaves, noise)[0] ** 2).sum().backward()
    for value, before in zip(values, copies, strict=True):
        assert torch.equal(value, before)


def test_gradients_can_be_asked_for_twice() -> None:
    values = [value.requires_grad_() for value in case()]
    total = (run(values)[0] ** 2).sum()
    first = torch.autograd.grad(total, values, retain_graph=True)
    for found, expected in zip(torch.autograd.grad(total, values), first, strict=True):
        assert torch.equal(found, expected)


def test_shares_that_stay_are_given_step_by_step() -> None:
    assert held(0.0, 3) is None
    assert held(0.5, 3) == [0.5, 0.5, 0.5]
    found = held(torch.arange(3.0), 3)
    assert found is not None
    assert [float(share) for share in found] == [0, 1, 2]


def test_parts_are_pieces_of_the_last_dimension() -> None:
    first, second = parts(torch.arange(8.0).view(2, 4), 2)
    assert [piece.tolist() for piece in first] == [[0, 1], [4, 5]]
    assert [piece.tolist() for piece in second] == [[2, 3], [6, 7]]


def test_outer_products_are_summed_over_time_and_batch() -> None:
    left, right = drawn(5, 2, 3, 4), drawn(5, 2, 3, 6)
    expected = torch.einsum("tdba,tdbc->dac", left, right)
    torch.testing.assert_close(over_time(left, right), expected)

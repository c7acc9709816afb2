from __future__ import annotations

import math

import pytest
import torch

from seqlab.nn.cells import read
from seqlab.nn.lstm_scan import Noise
from seqlab.nn.sru import SRU

DOUBLE = torch.float64


def shaken(input_size: int, hidden_size: int) -> SRU:
    torch.manual_seed(0)
    layer = SRU(input_size, hidden_size).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_()
    return layer


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_two_steps_by_hand() -> None:
    layer = SRU(1, 1).double()
    with torch.no_grad():
        layer.weight_ih.copy_(torch.tensor([[1.0], [2.0], [3.0]]))  # candidate, forget, reset
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
        out, (last,) = layer(torch.tensor([[[1.0], [2.0]]], dtype=DOUBLE))
    cell, outs = 0.0, []
    for x in (1.0, 2.0):
        forget, reset = sigmoid(2 * x + 0.5), sigmoid(3 * x - 0.5)
        cell = forget * cell + (1 - forget) * x
        outs.append(reset * math.tanh(cell) + (1 - reset) * x)
    assert out.flatten().tolist() == pytest.approx(outs)
    assert last.item() == pytest.approx(cell)


@torch.no_grad()
def test_where_the_sizes_differ_the_skip_connection_has_weights() -> None:
    assert SRU(4, 4).weight_ih.shape == (12, 4)
    layer = shaken(3, 4)
    assert layer.weight_ih.shape == (16, 3)
    layer.bias[4:] = -math.inf  # nothing of the cell is shown
    x = torch.randn(2, 5, 3, dtype=DOUBLE)
    torch.testing.assert_close(layer(x)[0], x @ layer.weight_ih[12:].T)
    same = shaken(4, 4)
    same.bias[4:] = -math.inf
    x = torch.randn(2, 5, 4, dtype=DOUBLE)
    torch.testing.assert_close(same(x)[0], x)


@torch.no_grad()
def test_the_gates_do_not_see_the_state() -> None:
    layer = shaken(4, 4)
    x = torch.randn(2, 1, 4, dtype=DOUBLE)
    cells = [torch.full((2, 4), value, dtype=DOUBLE) for value in (0.0, 1.0, 2.0)]
    after = [layer(x, (cell,))[1][0] for cell in cells]
    torch.testing.assert_close(after[2] - after[1], after[1] - after[0])  # linear in the state


@torch.no_grad()
def test_a_held_cell_stays_as_it_was() -> None:
    layer = shaken(4, 4)
    x, start = torch.randn(2, 5, 4, dtype=DOUBLE), torch.randn(2, 4, dtype=DOUBLE)
    hold = torch.ones(5, 1, 2, 4, dtype=DOUBLE)
    hold[2] = 0
    ((_, (held,)),) = read([layer], [x], [(start,)], Noise(hold_cell=hold))
    ((_, (once,)),) = read([layer], [x[:, 2:3]], [(start,)])
    torch.testing.assert_close(held, once)


def test_it_has_a_cell_and_no_hidden_state() -> None:
    layer = SRU(3, 4)
    assert layer.state_sizes == (4,)
    assert repr(layer) == "SRU(3, 4)"
    assert layer.bias.shape == (8,)
    assert (layer.bias == 0).all()

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from seqlab.nn.gru_scan import Nonlinearity, gru_scan, rnn_scan
from seqlab.nn.lstm_scan import Noise

DOUBLE = torch.float64


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE)


def gru_case(time: int = 4) -> list[Tensor]:
    """Gates, hidden state, recurrent weights and biases; two directions, two rows, three units."""
    torch.manual_seed(0)
    return [drawn(2, time, 2, 9), drawn(2, 2, 3), drawn(2, 3, 9), drawn(2, 9)]


def rnn_case(time: int = 4) -> list[Tensor]:
    torch.manual_seed(0)
    return [drawn(2, time, 2, 3), drawn(2, 2, 3), drawn(2, 3, 3)]


def test_one_step_of_a_gru_by_hand() -> None:
    gates, hidden, recurrent, bias = gru_case(1)
    found = gru_scan(gates, hidden, recurrent, bias, Noise())[:, 0]
    inner = hidden @ recurrent + bias.unsqueeze(1)
    x_r, x_z, x_n = gates[:, 0].chunk(3, -1)
    h_r, h_z, h_n = inner.chunk(3, -1)
    update = (x_z + h_z).sigmoid()
    candidate = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    torch.testing.assert_close(found, update * hidden + (1 - update) * candidate)


def test_a_gru_whose_update_gate_is_open_keeps_its_state() -> None:
    gates, hidden, recurrent, bias = gru_case()
    bias[:, 3:6] = torch.inf
    found = gru_scan(gates, hidden, recurrent, bias, Noise())
    assert torch.equal(found, hidden.unsqueeze(1).expand_as(found))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_one_step_of_a_plain_recurrence_by_hand(nonlinearity: Nonlinearity) -> None:
    x, hidden, recurrent = rnn_case(1)
    found = rnn_scan(x, hidden, recurrent, nonlinearity, Noise())[:, 0]
    total = x[:, 0] + hidden @ recurrent
    torch.testing.assert_close(found, total.tanh() if nonlinearity == "tanh" else total.relu())


def test_a_mask_hides_units_from_the_recurrent_weights_only() -> None:
    gates, hidden, recurrent, bias = gru_case()
    mask = torch.zeros_like(hidden)
    found = gru_scan(gates, hidden, recurrent, bias, Noise(mask=mask))
    expected = gru_scan(gates, hidden, torch.zeros_like(recurrent), bias, Noise())
    assert torch.equal(found, expected)  # the update gate still hands the state on
    x, hidden, recurrent = rnn_case()
    plain = rnn_scan(x, hidden, recurrent, "tanh", Noise(mask=mask))
    torch.testing.assert_close(plain, x.tanh())


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_zoneout_mixes_the_old_state_in(share: float) -> None:
    gates, hidden, recurrent, bias = gru_case(1)
    x, start, weights = rnn_case(1)
    for before, plain, found in (
        (
            hidden,
            gru_scan(gates, hidden, recurrent, bias, Noise()),
            gru_scan(gates, hidden, recurrent, bias, Noise(hold_hidden=share)),
        ),
        (
            start,
            rnn_scan(x, start, weights, "tanh", Noise()),
            rnn_scan(x, start, weights, "tanh", Noise(hold_hidden=share)),
        ),
    ):
        expected = share * before + (1 - share) * plain[:, 0]
        torch.testing.assert_close(found[:, 0], expected)


@pytest.mark.parametrize("noisy", [False, True], ids=["plain", "noisy"])
def test_gradients_are_those_of_finite_differences(noisy: bool) -> None:
    noise = Noise()
    if noisy:
        noise = Noise(mask=drawn(2, 2, 3), hold_hidden=torch.rand(3, 2, 2, 3, dtype=DOUBLE))
    leaves = [value.requires_grad_() for value in gru_case(3)]
    assert gradcheck(lambda *values: gru_scan(*values, noise), leaves)
    leaves = [value.requires_grad_() for value in rnn_case(3)]
    for nonlinearity in ("tanh", "relu"):
        assert gradcheck(lambda *v, kind=nonlinearity: rnn_scan(*v, kind, noise), leaves)


def test_the_weights_take_the_precision_of_the_gates() -> None:
    gates, hidden, recurrent, bias = gru_case()
    found = gru_scan(gates.bfloat16(), hidden, recurrent, bias, Noise())
    assert found.dtype == torch.bfloat16
    x, hidden, recurrent = rnn_case()
    assert rnn_scan(x.float(), hidden, recurrent, "relu", Noise()).dtype == torch.float32


def test_what_goes_in_is_left_as_it_was() -> None:
    for values, scan in (
        (gru_case(), lambda *v: gru_scan(*v, Noise(torch.ones(2, 2, 3, dtype=DOUBLE), 0.5))),
        (
            rnn_case(),
            lambda *v: rnn_scan(*v, "relu", Noise(torch.ones(2, 2, 3, dtype=DOUBLE), 0.5)),
        ),
    ):
        copies = [value.clone() for value in values]
        leaves = [value.requires_grad_() for value in values]
        scan(*leaves).square().sum().backward()
        for value, before in zip(values, copies, strict=True):
            assert torch.equal(value, before)

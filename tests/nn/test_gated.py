from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from seqlab.nn.cells import OWN
from seqlab.nn.gated import (
    CoupledLSTM,
    GatedLayer,
    LayerNormLSTM,
    NoForgetLSTM,
    OwnLayer,
    PeepholeLSTM,
    project,
    stacked,
)

DOUBLE = torch.float64
GATED = [cls for cls in OWN.values() if issubclass(cls, GatedLayer)]


def shaken(layer: GatedLayer) -> GatedLayer:
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_()
    return layer.double()


def silent(layer: GatedLayer) -> GatedLayer:
    """The layer with no weights but those that a test sets."""
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
    return layer


def test_one_step_of_peepholes_by_hand() -> None:
    layer = silent(PeepholeLSTM(1, 1))
    assert isinstance(layer, PeepholeLSTM)
    with torch.no_grad():
        layer.peephole.copy_(torch.tensor([[1.0], [2.0], [3.0]]))  # input, forget, output
        layer.bias[2] = 1.0  # candidate
        out, (hidden, cell) = layer(torch.zeros(1, 1, 1), (torch.zeros(1, 1), torch.ones(1, 1)))

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    new = sigmoid(2) * 1 + sigmoid(1) * math.tanh(1)
    assert cell.item() == pytest.approx(new)
    assert out.item() == hidden.item() == pytest.approx(sigmoid(3 * new) * math.tanh(new))


@torch.no_grad()
def test_without_peepholes_it_is_a_plain_lstm() -> None:
    layer = shaken(PeepholeLSTM(3, 4))
    assert isinstance(layer, PeepholeLSTM)
    layer.peephole.zero_()
    twin = nn.LSTM(3, 4, batch_first=True).double()
    for name in ("weight_ih", "weight_hh"):
        getattr(twin, f"{name}_l0").copy_(getattr(layer, name))
    twin.bias_ih_l0.copy_(layer.bias)
    twin.bias_hh_l0.zero_()
    x = torch.randn(2, 5, 3, dtype=DOUBLE)
    torch.testing.assert_close(layer(x)[0], twin(x)[0])


@torch.no_grad()
def test_a_coupled_cell_lies_between_the_old_one_and_the_candidate() -> None:
    layer = shaken(CoupledLSTM(3, 4))
    before = 4 * torch.randn(50, 4, dtype=DOUBLE)
    x, hidden = torch.randn(50, 1, 3, dtype=DOUBLE), torch.randn(50, 4, dtype=DOUBLE)
    _, (_, cell) = layer(x, (hidden, before))
    total = x[:, 0] @ layer.weight_ih.T + hidden @ layer.weight_hh.T + layer.bias
    candidate = total[:, 4:8].tanh()
    low, high = torch.minimum(before, candidate), torch.maximum(before, candidate)
    assert ((low <= cell) & (cell <= high)).all()
    share = (cell - before) / (candidate - before)
    torch.testing.assert_close(share, total[:, :4].sigmoid())


@torch.no_grad()
def test_without_a_forget_gate_a_shut_input_gate_keeps_the_cell() -> None:
    layer = shaken(NoForgetLSTM(3, 4))
    layer.bias[:4] = -math.inf
    before = torch.randn(2, 4, dtype=DOUBLE)
    x, zeros = torch.randn(2, 9, 3, dtype=DOUBLE), torch.zeros(2, 4, dtype=DOUBLE)
    out, (_, cell) = layer(x, (zeros, before))
    assert torch.equal(cell, before)
    assert (out != 0).all()  # the output gate shows it all the same


@torch.no_grad()
def test_layer_norm_does_not_see_how_large_or_where_its_input_is() -> None:
    layer = shaken(LayerNormLSTM(3, 4))
    x = torch.randn(2, 5, 3, dtype=DOUBLE)
    expected, _ = layer(x)
    layer.weight_ih *= 1e3
    layer.weight_hh *= 1e3
    layer.weight_ih += torch.randn(1, 3, dtype=DOUBLE)  # the same shift for all gates
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-3)
    layer.weight_ih[0] += 1e3
    assert (layer(x)[0] - expected).abs().max() > 0.01


def test_layer_norm_starts_with_gains_of_one_and_no_shift() -> None:
    layer = LayerNormLSTM(3, 4)
    for gain in (layer.input_gain, layer.hidden_gain, layer.cell_gain):
        assert (gain == 1).all()
    assert (layer.cell_bias == 0).all()
    assert (PeepholeLSTM(3, 4).peephole == 0).all()


@pytest.mark.parametrize("cls", GATED)
def test_a_layer_starts_from_zeros_where_it_is_told_no_state(cls: type[GatedLayer]) -> None:
    layer = shaken(cls(3, 4))
    x, zeros = torch.randn(2, 5, 3, dtype=DOUBLE), torch.zeros(2, 4, dtype=DOUBLE)
    (found, last), (expected, _) = layer(x), layer(x, (zeros, zeros))
    assert torch.equal(found, expected)
    assert torch.equal(found[:, -1], last[0])
    assert not torch.equal(layer(x, last)[0], expected)


@pytest.mark.parametrize("cls", GATED)
def test_weights_have_a_row_for_every_unit_of_every_gate(cls: type[GatedLayer]) -> None:
    layer, count = cls(3, 4), 4 * len(cls.gates)
    assert layer.weight_ih.shape == (count, 3)
    assert layer.weight_hh.shape == (count, 4)
    assert layer.bias.shape == (count,)
    assert cls.gates[0] == "input"
    assert cls.gates[-2:] == ("candidate", "output")
    assert ("forget" in cls.gates) == (cls.forget == "gate")
    bound = 4**-0.5
    assert float(layer.weight_ih.detach().abs().max()) <= bound
    assert float(layer.weight_hh.detach().std()) > bound / 3
    assert repr(layer) == f"{cls.__name__}(3, 4)"


def test_the_input_of_all_steps_is_multiplied_at_once() -> None:
    xs = [torch.randn(2, 5, 3, dtype=DOUBLE) for _ in range(2)]
    weight, bias = torch.randn(2, 4, 3, dtype=DOUBLE), torch.randn(2, 4, dtype=DOUBLE)
    found, without = project(xs, weight, bias), project(xs, weight)
    assert found.shape == (2, 5, 2, 4)
    for direction in range(2):
        expected = (xs[direction] @ weight[direction].T).transpose(0, 1)
        torch.testing.assert_close(without[direction], expected)
        torch.testing.assert_close(found[direction], expected + bias[direction])


def test_parameters_are_stacked_by_direction() -> None:
    left, right = PeepholeLSTM(3, 4), PeepholeLSTM(3, 4)
    both: Tensor = stacked([left, right], "weight_hh")
    assert torch.equal(both[0], left.weight_hh)
    assert torch.equal(both[1], right.weight_hh)


def test_the_base_has_no_equations() -> None:
    base = OwnLayer(3, 4)
    with pytest.raises(TypeError, match="OwnLayer has no state"):
        _ = base.state_sizes
    with pytest.raises(TypeError, match="OwnLayer has no state"):
        base(torch.zeros(1, 2, 3))
    with pytest.raises(TypeError, match="OwnLayer cannot read"):
        base(torch.zeros(1, 2, 3), (torch.zeros(1, 4),))

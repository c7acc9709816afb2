from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from seqlab.nn.cells import CELLS, make_layer, read
from seqlab.nn.initialisation import initialise

SIZE = 4
LAYERS: list[tuple[str, dict[str, Any]]] = [(cell, {}) for cell in CELLS]
LAYERS += [("lstm", {"proj_size": 2}), ("rnn", {"nonlinearity": "relu"})]
every_layer = pytest.mark.parametrize(("cell", "options"), LAYERS, ids=str)
# Which block of the biases belongs to the gate that keeps the state, and with which sign.
KEEPS = {
    "lstm": ("bias_ih_l0", 1, 1.0),
    "gru": ("bias_ih_l0", 1, 1.0),
    "peephole": ("bias", 1, 1.0),
    "coupled": ("bias", 0, -1.0),
    "layernorm": ("bias", 1, 1.0),
    "sru": ("bias", 0, 1.0),
}


def made(cell: str, options: dict[str, Any]) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    layer = make_layer(cell, 3, SIZE, **options)
    return layer, dict(layer.named_parameters())


def of_kind(weights: dict[str, torch.Tensor], *starts: str) -> list[torch.Tensor]:
    return [w.detach() for name, w in weights.items() if name.startswith(starts)]


@every_layer
def test_recurrent_blocks_are_orthogonal(cell: str, options: dict[str, Any]) -> None:
    layer, weights = made(cell, options)
    initialise(layer, "orthogonal", 0.0)
    found = of_kind(weights, "weight_hh")
    assert len(found) == (cell != "sru")
    for weight in found:
        for block in weight.split(SIZE):
            # Columns where the hidden state is smaller than the cell.
            torch.testing.assert_close(block.T @ block, torch.eye(block.shape[1]))
        assert not torch.equal(weight[:SIZE], weight[-SIZE:]) or cell == "rnn"


@every_layer
def test_blocks_of_the_input_are_drawn_by_glorot_each_with_its_own_sizes(
    cell: str, options: dict[str, Any]
) -> None:
    layer, weights = made(cell, options)
    before = copy.deepcopy(layer.state_dict())
    initialise(layer, "orthogonal", 0.0)
    for weight in of_kind(weights, "weight_ih"):
        bound = (6 / (3 + SIZE)) ** 0.5
        assert float(weight.abs().max()) <= bound
        for block in weight.split(SIZE):
            assert float(block.abs().max()) > 0.7 * bound
    for weight in of_kind(weights, "weight_hr"):
        assert 0.7 < float(weight.abs().max()) <= 1.0  # the square root of 6 / (2 + 4)
        assert not torch.equal(weight, before["weight_hr_l0"])
    for bias in of_kind(weights, "bias"):
        assert (bias == 0).all()
    # Gains stay one, peepholes zero.
    for name, weight in weights.items():
        if not name.startswith(("weight", "bias")):
            assert torch.equal(weight, before[name])


@pytest.mark.parametrize("how", ["orthogonal", "uniform"])
@every_layer
def test_the_forget_bias_belongs_to_the_gate_that_keeps_the_state(
    cell: str, options: dict[str, Any], how: str
) -> None:
    found = []
    for forget_bias in (0.0, 0.7):
        layer, weights = made(cell, options)
        torch.manual_seed(1)
        initialise(layer, how, forget_bias)
        found.append({name: weight.detach().clone() for name, weight in weights.items()})
    name, block, sign = KEEPS.get(cell, ("", 0, 0.0))
    for key, before in found[0].items():
        expected = before.clone()
        if key == name:
            expected[SIZE * block : SIZE * (block + 1)] += sign * 0.7
        assert torch.equal(found[1][key], expected), key
    assert (name in found[0]) == (cell in KEEPS)


@pytest.mark.parametrize("cell", sorted(KEEPS))
@torch.no_grad()
def test_a_great_forget_bias_hands_the_state_on_whole(cell: str) -> None:
    layer, _ = made(cell, {})
    x, starts = torch.randn(2, 1, 3), torch.randn(2, 2, SIZE)

    def changed() -> torch.Tensor:
        """How far two cells are apart after a token, which both read with the same input."""
        alone = cell in ("gru", "sru")
        given = [(start,) if alone else (torch.zeros(2, SIZE), start) for start in starts]
        after = [read([layer], [x], [state])[0][1][-1] for state in given]
        return after[1] - after[0]

    initialise(layer, "orthogonal", 0.0)
    assert not torch.allclose(changed(), starts[1] - starts[0], atol=0.1)
    initialise(layer, "orthogonal", 1e3)
    torch.testing.assert_close(changed(), starts[1] - starts[0])


@every_layer
def test_uniform_leaves_a_layer_as_it_came(cell: str, options: dict[str, Any]) -> None:
    layer, _ = made(cell, options)
    before = copy.deepcopy(layer.state_dict())
    initialise(layer, "uniform", 0.0)
    for name, weight in layer.state_dict().items():
        assert torch.equal(weight, before[name])
    assert float(before["weight_ih_l0" if "weight_ih_l0" in before else "weight_ih"].std()) > 0.1


@every_layer
def test_glorot_draws_whole_matrices_and_leaves_other_vectors(
    cell: str, options: dict[str, Any]
) -> None:
    layer, weights = made(cell, options)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    initialise(layer, "glorot", 0.0)
    for name, weight in weights.items():
        if weight.ndim > 1:
            bound = (6 / sum(weight.shape)) ** 0.5
            assert 0.5 * bound < weight.abs().max() <= bound
        elif name.startswith("bias"):
            assert not weight.any()
        else:
            assert torch.equal(weight, before[name])

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from seqlab.nn.averaging import WeightAverage


def module(frozen: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Embedding(3, 2, sparse=True), nn.Linear(2, 2))
    layers[0].requires_grad_(not frozen)
    return layers


def move(layers: nn.Module, step: float) -> None:
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(step)


def values(layers: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in layers.parameters()]


def assert_all_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 0.0) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.998])
def test_the_average_moves_by_its_decay_and_faster_in_the_first_steps(decay: float) -> None:
    layers = module()
    average = WeightAverage(layers, decay)
    expected = values(layers)
    for step in range(1, 40):
        move(layers, 1.0)
        average.update()
        share = min(decay, (1 + step) / (10 + step))  # of the old average
        pairs = zip(expected, values(layers), strict=True)
        expected = [share * mean + (1 - share) * value for mean, value in pairs]
    assert_all_close(average.average, expected, 1e-5)
    assert average.steps == 39


def test_weights_that_stand_still_are_their_average() -> None:
    layers = module()
    average = WeightAverage(layers, 0.9)
    for _ in range(50):
        average.update()
    assert_all_close(average.average, values(layers))


def test_swapping_puts_the_average_in_place_and_swapping_again_the_weights() -> None:
    layers = module()
    average = WeightAverage(layers, 0.9)
    move(layers, 1.0)
    average.update()
    move(layers, 1.0)
    weights, mean = values(layers), [a.clone() for a in average.average]
    parameters = list(layers.parameters())
    average.swap()
    assert_all_close(values(layers), mean)
    assert_all_close(average.average, weights)
    average.swap()
    assert_all_close(values(layers), weights)
    assert_all_close(average.average, mean)
    assert all(a is b for a, b in zip(parameters, layers.parameters(), strict=True))
    assert all(p.grad is None for p in parameters)


def test_frozen_parameters_are_left_out() -> None:
    layers = module(frozen=True)
    average = WeightAverage(layers, 0.9)
    frozen = layers[0].weight.detach().clone()  # type: ignore[index]
    move(layers[1], 1.0)  # type: ignore[index]
    average.update()
    average.swap()
    assert len(average.average) == 2
    assert torch.equal(layers[0].weight, frozen)  # type: ignore[index]


def test_an_average_goes_on_where_its_state_was_saved() -> None:
    layers = module()
    average = WeightAverage(layers, 0.9)
    for _ in range(5):
        move(layers, 1.0)
        average.update()
    state, weights = copy.deepcopy((average.state_dict(), layers.state_dict()))
    resumed = module()
    move(resumed, -7.0)  # a new process begins with other weights
    twin = WeightAverage(resumed, 0.9)
    twin.load_state_dict(state)
    resumed.load_state_dict(weights)
    for _ in range(3):
        for some, its in ((layers, average), (resumed, twin)):
            move(some, 1.0)
            its.update()
    assert_all_close(twin.average, average.average)
    assert twin.steps == average.steps == 8


def test_a_state_of_another_module_is_refused() -> None:
    average = WeightAverage(module(), 0.9)
    with pytest.raises(ValueError, match="zip"):
        average.load_state_dict({"steps": 1, "average": average.average[:1]})


def test_an_average_follows_the_weights_to_another_type() -> None:
    layers = module()
    average = WeightAverage(layers, 0.9)
    layers.to(torch.float64)
    average.follow()
    move(layers, 1.0)
    average.update()
    average.swap()
    assert {p.dtype for p in layers.parameters()} == {torch.float64}
    assert {a.dtype for a in average.average} == {torch.float64}

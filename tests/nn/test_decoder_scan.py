"""The decoder's scan against a loop that autograd differentiates, in float64 where that can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seqlab.nn.decoder_scan import ScanInputs, feeding_scan

TIME, BATCH, SOURCE, HIDDEN = 5, 3, 4, 6


def made(depth: int, dropped: bool, seed: int = 0) -> ScanInputs:
    torch.manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape).requires_grad_()

    def factors() -> Tensor:
        return (torch.rand(TIME, BATCH, HIDDEN) > 0.3) / 0.7

    lengths = torch.tensor([4, 2, 1])
    return ScanInputs(
        gates=random(TIME, BATCH, 4 * HIDDEN),
        keys=random(BATCH, SOURCE, HIDDEN),
        values=random(BATCH, SOURCE, HIDDEN),
        mask=torch.arange(SOURCE) < lengths.unsqueeze(1),
        weights=[random(4 * HIDDEN, 2 * HIDDEN) for _ in range(depth)],
        biases=[random(4 * HIDDEN) for _ in range(depth - 1)],
        output=random(HIDDEN, HIDDEN),
        hidden=random(depth, BATCH, HIDDEN),
        cell=random(depth, BATCH, HIDDEN),
        kept=factors() if dropped else None,
        between=[factors() for _ in range(depth - 1)] if dropped else (),
    )


def by_hand(inputs: ScanInputs) -> Tensor:
    """The definition, step by step."""
    hidden, cell = list(inputs.hidden), list(inputs.cell)
    fed = torch.zeros_like(hidden[0])
    features = []
    for at in range(len(inputs.gates)):
        below = fed
        for level, weight in enumerate(inputs.weights):
            sums = torch.cat([below, hidden[level]], 1) @ weight.t()
            sums = sums + (inputs.biases[level - 1] if level else inputs.gates[at])
            i, f, g, o = sums.chunk(4, 1)
            cell[level] = f.sigmoid() * cell[level] + i.sigmoid() * g.tanh()
            hidden[level] = o.sigmoid() * cell[level].tanh()
            below = hidden[level]
            if level < len(inputs.between):
                below = below * inputs.between[level][at]
        top = hidden[-1]
        scores = (inputs.keys @ top.unsqueeze(2))[:, :, 0].masked_fill(~inputs.mask, -torch.inf)
        context = (scores.softmax(1).unsqueeze(1) @ inputs.values)[:, 0]
        fed = torch.tanh(context + top @ inputs.output.t())
        fed = fed if inputs.kept is None else fed * inputs.kept[at]
        features.append(fed)
    return torch.stack(features)


def leaves(inputs: ScanInputs) -> list[Tensor]:
    single = [inputs.gates, inputs.keys, inputs.values, inputs.output, inputs.hidden, inputs.cell]
    return [*single, *inputs.weights, *inputs.biases]


def in_double(inputs: ScanInputs) -> ScanInputs:
    def doubled(x: Tensor) -> Tensor:
        return x.detach().double().requires_grad_(x.requires_grad)

    names = ("gates", "keys", "values", "output", "hidden", "cell")
    changed = {name: doubled(getattr(inputs, name)) for name in names}
    return replace(
        inputs,
        **changed,
        weights=[doubled(x) for x in inputs.weights],
        biases=[doubled(x) for x in inputs.biases],
        kept=None if inputs.kept is None else inputs.kept.double(),
        between=[x.double() for x in inputs.between],
    )


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("dropped", [False, True])
def test_features_and_gradients_are_those_of_the_definition(depth: int, dropped: bool) -> None:
    inputs = made(depth, dropped)
    double = in_double(inputs)
    weight = torch.randn(TIME, BATCH, HIDDEN)
    ours, theirs = feeding_scan(inputs), by_hand(double)
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=2e-6)

    found = torch.autograd.grad((ours * weight).sum(), leaves(inputs))
    wanted = torch.autograd.grad((theirs * weight.double()).sum(), leaves(double))
    for mine, other in zip(found, wanted, strict=True):
        bound = 4e-6 * float(other.abs().max())
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=bound)


def test_what_stands_at_padding_has_no_effect() -> None:
    inputs = made(1, dropped=False)
    with torch.no_grad():
        plain = feeding_scan(inputs)
        keys = inputs.keys.masked_fill(~inputs.mask.unsqueeze(-1), 1e4)
        values = inputs.values.masked_fill(~inputs.mask.unsqueeze(-1), 1e4)
        assert torch.equal(feeding_scan(replace(inputs, keys=keys, values=values)), plain)


def test_rounded_factors_are_near() -> None:
    inputs = made(2, dropped=True)
    exact = feeding_scan(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        near = feeding_scan(inputs)
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    torch.testing.assert_close(near, exact, rtol=0, atol=0.15)
    weight = torch.randn(TIME, BATCH, HIDDEN)
    ours = torch.autograd.grad((near * weight).sum(), leaves(inputs))
    theirs = torch.autograd.grad((exact * weight).sum(), leaves(inputs))
    for mine, other in zip(ours, theirs, strict=True):
        assert float((mine - other).norm()) < 0.2 * float(other.norm())


def test_a_second_way_back_is_the_same_as_the_first() -> None:
    inputs = made(1, dropped=True)
    total = feeding_scan(inputs).sum()
    first = torch.autograd.grad(total, leaves(inputs), retain_graph=True)
    second = torch.autograd.grad(total, leaves(inputs))
    assert all(map(torch.equal, first, second))

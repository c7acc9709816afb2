from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from seqlab.errors import RecipeError
from seqlab.nn.cells import (
    CELLS,
    OWN,
    cell_size_of,
    draw_noise,
    make_layer,
    output_size_of,
    read,
    state_sizes,
)
from seqlab.nn.gated import State
from seqlab.nn.lstm_scan import Noise

# Torch says once that its projection has no fast kernel on this CPU.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

Reader = Callable[..., Any]
LAYERS: list[tuple[str, dict[str, Any]]] = [(cell, {}) for cell in CELLS]
LAYERS += [("lstm", {"proj_size": 2}), ("rnn", {"nonlinearity": "relu"})]
NAMES = [" ".join([cell, *map(str, options.values())]) for cell, options in LAYERS]
TORCH = [(cell, options) for cell, options in LAYERS if cell in ("lstm", "gru", "rnn")]
every_layer = pytest.mark.parametrize(("cell", "options"), LAYERS, ids=NAMES)
NOISES = {
    "plain": (0.0, 0.0, True),
    "recurrent dropout": (0.4, 0.0, True),
    "zoneout": (0.0, 0.4, True),
    "both": (0.4, 0.3, True),
    "both, not training": (0.4, 0.3, False),
}
DOUBLE = torch.float64


def shaken(
    cell: str, options: dict[str, Any], ways: int = 1, sizes: tuple[int, int] = (3, 4)
) -> list[nn.Module]:
    """Layers in double precision, all of whose weights are random."""
    torch.manual_seed(0)
    layers = [make_layer(cell, *sizes, **options).double() for _ in range(ways)]
    with torch.no_grad():
        for layer in layers:
            for weight in layer.parameters():
                weight.normal_(std=0.7)
    return layers


def starts(layers: Sequence[nn.Module], batch: int) -> list[State]:
    return [
        tuple(torch.randn(batch, size, dtype=DOUBLE) for size in state_sizes(layer))
        for layer in layers
    ]


def flat(results: Sequence[tuple[Tensor, State]]) -> list[Tensor]:
    return [value for out, state in results for value in (out, *state)]


def leaves(
    layers: Sequence[nn.Module], xs: Sequence[Tensor], states: Sequence[State]
) -> list[Tensor]:
    """All that a gradient may be asked of."""
    found = [*xs, *(part for state in states for part in state)]
    found += [weight for layer in layers for weight in layer.parameters()]
    return [leaf.requires_grad_() for leaf in found]


def undisturbed(layers: Sequence[nn.Module], batch: int, dtype: torch.dtype = DOUBLE) -> Noise:
    """Noise that disturbs nothing, but leads torch's layers through our scans."""
    return Noise(mask=torch.ones(len(layers), batch, output_size_of(layers[0]), dtype=dtype))


def way(value: Tensor | float | None, direction: int, dim: int) -> Any:
    """One direction's part of the noise, for the reference."""
    return value.select(dim, direction) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("noises", NOISES)
@pytest.mark.parametrize("input_size", [3, 4])
@pytest.mark.parametrize("ways", [1, 2])
@every_layer
@torch.no_grad()
def test_outputs_and_last_states_are_those_of_the_equations(
    cell: str,
    options: dict[str, Any],
    ways: int,
    input_size: int,
    noises: str,
    reference: Reader,
) -> None:
    layers = shaken(cell, options, ways, (input_size, 4))
    xs = [torch.randn(3, 6, input_size, dtype=DOUBLE) for _ in layers]
    dropout, zoneout, training = NOISES[noises]
    noise = draw_noise(
        layers, (3, 6), xs[0], recurrent_dropout=dropout, zoneout=zoneout, training=training
    )
    drawn = noise or Noise()
    for given in (None, starts(layers, 3)):
        for direction, (out, last) in enumerate(read(layers, xs, given, noise)):
            expected = reference(
                cell,
                layers[direction],
                xs[direction],
                given and given[direction],
                mask=1.0 if drawn.mask is None else drawn.mask[direction],
                hold_hidden=way(drawn.hold_hidden, direction, 1),
                hold_cell=way(drawn.hold_cell, direction, 1),
            )
            np.testing.assert_allclose(out, expected.hidden, rtol=0, atol=1e-10)
            parts = [expected.cell] if cell == "sru" else list(expected)[: len(last)]
            assert len(last) == len(state_sizes(layers[0])) == len(parts)
            for part, value in zip(last, parts, strict=True):
                np.testing.assert_allclose(part, value[:, -1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("noises", ["plain", "random", "shares"])
@pytest.mark.parametrize("input_size", [2, 3])
@every_layer
def test_gradients_are_those_of_finite_differences(
    cell: str, options: dict[str, Any], input_size: int, noises: str
) -> None:
    options = options | ({"proj_size": 1} if options.get("proj_size") else {})
    layers = shaken(cell, options, 2, (input_size, 2))
    batch, time, out = 2, 3, output_size_of(layers[0])
    xs = [torch.randn(batch, time, input_size, dtype=DOUBLE) for _ in layers]
    states = starts(layers, batch)
    noise = undisturbed(layers, batch)
    if noises == "random":
        noise.mask = 2 * torch.randint(2, (2, batch, out), dtype=DOUBLE)
        noise.hold_hidden = torch.rand(time, 2, batch, out, dtype=DOUBLE)
        noise.hold_cell = torch.rand(time, 2, batch, 2, dtype=DOUBLE)
    elif noises == "shares":
        noise = Noise(hold_hidden=0.3, hold_cell=0.2)
    inputs = leaves(layers, xs, states)
    # Finite differences change the inputs in place, so that the weights need not be handed over.
    assert gradcheck(lambda *_: tuple(flat(read(layers, xs, states, noise))), inputs)


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize(("cell", "options"), TORCH, ids=str)
def test_our_scans_give_what_the_kernels_of_torch_give(
    cell: str, options: dict[str, Any], ways: int
) -> None:
    layers = shaken(cell, options, ways)
    xs = [torch.randn(3, 5, 3, dtype=DOUBLE) for _ in layers]
    states = starts(layers, 3)
    inputs = leaves(layers, xs, states)
    found = flat(read(layers, xs, states, undisturbed(layers, 3)))
    expected = flat(read(layers, xs, states))
    weights = [torch.randn_like(value) for value in expected]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    gradients = [
        torch.autograd.grad(
            sum((value * weight).sum() for value, weight in zip(values, weights, strict=True)),
            inputs,
        )
        for values in (found, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("forced", [False, True], ids=["as it is", "our scans"])
@every_layer
def test_single_precision_is_near_double(cell: str, options: dict[str, Any], forced: bool) -> None:
    layers = shaken(cell, options, 2)
    xs, states = [torch.randn(3, 9, 3, dtype=DOUBLE) for _ in layers], starts(layers, 3)
    noise = undisturbed(layers, 3) if forced else None
    expected = flat(read(layers, xs, states, noise))
    singles = [copy.deepcopy(layer).float() for layer in layers]
    noise = undisturbed(layers, 3, torch.float32) if forced else None
    found = flat(
        read(
            singles,
            [x.float() for x in xs],
            [tuple(part.float() for part in state) for state in states],
            noise,
        )
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("forced", [False, True], ids=["as it is", "our scans"])
@every_layer
def test_bfloat16_runs_and_is_roughly_right(
    cell: str, options: dict[str, Any], forced: bool
) -> None:
    layers = shaken(cell, options, 2)
    xs = [torch.randn(3, 5, 3, dtype=DOUBLE) for _ in layers]
    expected = flat(read(layers, xs))
    halves = [copy.deepcopy(layer).bfloat16() for layer in layers]
    noise = undisturbed(layers, 3, torch.bfloat16) if forced else None
    found = flat(read(halves, [x.bfloat16() for x in xs], None, noise))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), theirs, rtol=0.05, atol=0.1)
    sum(value.sum() for value in found).backward()  # type: ignore[union-attr]
    for half in halves:
        for weight in half.parameters():
            assert weight.grad is not None
            assert weight.grad.isfinite().all()


@pytest.mark.parametrize("noises", ["plain", "shares"])
@every_layer
@torch.no_grad()
def test_one_step_at_a_time_gives_what_the_whole_gives(
    cell: str, options: dict[str, Any], noises: str
) -> None:
    layers = shaken(cell, options)
    x, start = torch.randn(3, 7, 3, dtype=DOUBLE), starts(layers, 3)
    noise = Noise(hold_hidden=0.3, hold_cell=0.3) if noises == "shares" else None
    ((whole, last),) = read(layers, [x], start, noise)
    states, outs = start, []
    for now in x.split(1, dim=1):
        ((out, state),) = read(layers, [now], states, noise)
        states = [state]
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), whole, rtol=0, atol=1e-12)
    for part, expected in zip(states[0], last, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


@every_layer
@torch.no_grad()
def test_directions_that_go_together_read_as_each_alone(cell: str, options: dict[str, Any]) -> None:
    layers = shaken(cell, options, 2)
    xs, states = [torch.randn(3, 5, 3, dtype=DOUBLE) for _ in layers], starts(layers, 3)
    together = flat(read(layers, xs, states))
    alone = [
        value
        for layer, x, state in zip(layers, xs, states, strict=True)
        for value in flat(read([layer], [x], [state]))
    ]
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@every_layer
def test_copies_and_pickles_read_alike(cell: str, options: dict[str, Any]) -> None:
    (layer,) = shaken(cell, options)
    x = torch.randn(2, 4, 3, dtype=DOUBLE)
    ((expected, _),) = read([layer], [x])
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        ((found, _),) = read([other], [x])
        assert torch.equal(found, expected)
        assert not {id(w) for w in other.parameters()} & {id(w) for w in layer.parameters()}


@pytest.mark.slow
@every_layer
def test_a_sequence_of_20000_tokens(cell: str, options: dict[str, Any]) -> None:
    layers = [make_layer(cell, 3, 4, **options)]
    x = torch.randn(1, 20_000, 3, requires_grad=True)
    ((out, last),) = read(layers, [x], None, undisturbed(layers, 1, torch.float32))
    assert out.shape == (1, 20_000, output_size_of(layers[0]))
    (out.mean() + last[0].mean()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[0, ::1000] != 0).any()


@pytest.mark.parametrize("forced", [False, True], ids=["as it is", "our scans"])
@every_layer
def test_one_token_of_one_sequence(cell: str, options: dict[str, Any], forced: bool) -> None:
    layers = shaken(cell, options)
    x = torch.randn(1, 1, 3, dtype=DOUBLE, requires_grad=True)
    ((out, last),) = read(layers, [x], None, undisturbed(layers, 1) if forced else None)
    assert out.shape == (1, 1, output_size_of(layers[0]))
    assert [tuple(part.shape) for part in last] == [(1, size) for size in state_sizes(layers[0])]
    out.sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any()


def test_sizes_of_outputs_and_states() -> None:
    sizes = {cell: state_sizes(make_layer(cell, 3, 5)) for cell in CELLS}
    one, two = (5,), (5, 5)
    assert sizes == {cell: two for cell in CELLS} | {"gru": one, "rnn": one, "sru": one}
    small = make_layer("lstm", 3, 5, proj_size=2)
    assert (output_size_of(small), cell_size_of(small), state_sizes(small)) == (2, 5, (2, 5))
    assert set(OWN) == set(CELLS) - {"lstm", "gru", "rnn"}
    assert [type(make_layer(cell, 3, 5)) for cell in OWN] == list(OWN.values())


def test_noise_is_drawn_in_training_only() -> None:
    layers, like = [make_layer("lstm", 3, 64, proj_size=32)] * 2, torch.zeros(1, dtype=DOUBLE)

    def drawn(dropout: float, zoneout: float, training: bool) -> Noise | None:
        torch.manual_seed(0)
        return draw_noise(
            layers,
            (50, 7),
            like,
            recurrent_dropout=dropout,
            zoneout=zoneout,
            training=training,
        )

    assert drawn(0, 0, True) is None
    assert drawn(0.5, 0, False) is None
    assert drawn(0.5, 0.25, False) == Noise(None, 0.25, 0.25)
    noise = drawn(0.5, 0.25, True)
    assert noise is not None
    assert isinstance(noise.mask, Tensor)
    assert isinstance(noise.hold_hidden, Tensor)
    assert isinstance(noise.hold_cell, Tensor)
    assert noise.mask.shape == (2, 50, 32)  # no time: the same at all steps
    assert set(noise.mask.unique().tolist()) == {0.0, 2.0}
    assert abs(float(noise.mask.mean()) - 1) < 0.1
    assert noise.hold_hidden.shape == (7, 2, 50, 32)
    assert noise.hold_cell.shape == (7, 2, 50, 64)
    for hold in (noise.hold_hidden, noise.hold_cell):
        assert hold.dtype == DOUBLE
        assert set(hold.unique().tolist()) == {0.0, 1.0}
        assert abs(float(hold.mean()) - 0.25) < 0.02
        assert not torch.equal(hold[0], hold[1])
    assert noise.hold_hidden.dtype == noise.mask.dtype


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("lstmm", {}, "no cell 'lstmm'; the cells are lstm, gru, .* sru. Did you mean 'lstm'"),
        ("", {}, "no cell ''; the cells are .*sru.$"),
        ("gru", {"proj_size": 2}, "proj_size goes with cell lstm, as gru has no projection"),
        ("peephole", {"proj_size": 2}, "proj_size goes with cell lstm"),
        ("lstm", {"proj_size": 4}, r"proj_size is 4: it must lie between 1 and .* \(3\)"),
        ("lstm", {"proj_size": 5}, "proj_size is 5: it must lie"),
        ("lstm", {"proj_size": -1}, "proj_size is -1: it must lie"),
        ("rnn", {"nonlinearity": "gelu"}, "nonlinearity is 'gelu': choose tanh or relu"),
        ("lstm", {"nonlinearity": "relu"}, "nonlinearity goes with cell rnn, as lstm has its own"),
    ],
)
def test_what_does_not_fit_is_refused(cell: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_layer(cell, 3, 4, **options)

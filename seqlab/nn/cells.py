"""Recurrent cells as layers over whole sequences, torch's own and ours.

=========  =====================================================  ================================
name       cell                                                   source
=========  =====================================================  ================================
lstm       LSTM with forget gates, `torch.nn.LSTM`; with          Gers et al. (2000); projection:
           ``proj_size`` the hidden state is projected            Sak et al. (2014)
gru        gated recurrent unit, `torch.nn.GRU`                   Cho et al. (2014)
rnn        plain recurrence, tanh or relu, `torch.nn.RNN`         Elman (1990)
peephole   LSTM whose gates see the cell                          Gers and Schmidhuber (2000)
coupled    LSTM that forgets what it writes over (CIFG)           Greff et al. (2017)
layernorm  LSTM with normalised gates and cell                    Ba et al. (2016)
no-forget  the first LSTM, without a forget gate                  Hochreiter, Schmidhuber (1997)
sru        simple recurrent unit, steps without matrix product    Lei et al. (2018)
=========  =====================================================  ================================

Words: ``x`` is the input, ``h`` the hidden state, ``c`` the cell; ``i, f, g, o`` are the input
gate, forget gate, candidate and output gate; ``*`` multiplies element by element.

Every layer maps ``x (batch, time, input)`` and a state to ``(batch, time, output)`` and the state
after the last step. A state is a tuple of ``(batch, size)`` tensors: hidden state and cell; the
hidden state alone for `gru` and `rnn`; the cell alone for `sru`. An encoder gives whole sequences,
a decoder may give one step at a time. What each costs stands in `seqlab.nn.costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from seqlab.errors import RecipeError, nearest
from seqlab.nn.dropout import keep_mask
from seqlab.nn.gated import (
    CoupledLSTM,
    LayerNormLSTM,
    NoForgetLSTM,
    OwnLayer,
    PeepholeLSTM,
    Scanned,
    State,
    project,
    stacked,
)
from seqlab.nn.gru_scan import Nonlinearity, gru_scan, rnn_scan
from seqlab.nn.lstm_scan import LSTMWeights, Noise, lstm_scan
from seqlab.nn.sru import SRU

CellName = Literal["lstm", "gru", "rnn", "peephole", "coupled", "layernorm", "no-forget", "sru"]
CELLS: tuple[str, ...] = get_args(CellName)
OWN: dict[str, type[OwnLayer]] = {
    cls.cell: cls for cls in (PeepholeLSTM, CoupledLSTM, LayerNormLSTM, NoForgetLSTM, SRU)
}


def make_layer(
    cell: str,
    input_size: int,
    hidden_size: int,
    *,
    proj_size: int = 0,
    nonlinearity: str = "tanh",
) -> nn.Module:
    """Build one layer that reads from left to right.

    Args:
        cell: one of :data:`CELLS`.
        input_size: size of the input.
        hidden_size: size of the cell and, without projection, of the output.
        proj_size: size of the projected hidden state; `lstm` only, 0 for none.
        nonlinearity: ``tanh`` or ``relu``; `rnn` only.

    Raises:
        RecipeError: the cell is unknown, or has no projection or no other nonlinearity.
    """
    if cell not in CELLS:
        raise RecipeError(
            f"model.cell: there is no cell {cell!r}; the cells are {', '.join(CELLS)}."
            f"{nearest(cell, CELLS)}"
        )
    if proj_size and cell != "lstm":
        raise RecipeError(
            f"model.proj_size goes with cell lstm, as {cell} has no projection: leave it out."
        )
    if proj_size and not 0 < proj_size < hidden_size:
        raise RecipeError(
            f"model.proj_size is {proj_size}: it must lie between 1 and model.hidden_size - 1 "
            f"({hidden_size - 1})."
        )
    if nonlinearity not in get_args(Nonlinearity):
        raise RecipeError(f"model.nonlinearity is {nonlinearity!r}: choose tanh or relu.")
    if nonlinearity != "tanh" and cell != "rnn":
        raise RecipeError(
            f"model.nonlinearity goes with cell rnn, as {cell} has its own: leave it out."
        )
    if cell == "lstm":
        return nn.LSTM(input_size, hidden_size, batch_first=True, proj_size=proj_size)
    if cell == "gru":
        return nn.GRU(input_size, hidden_size, batch_first=True)
    if cell == "rnn":
        return nn.RNN(input_size, hidden_size, batch_first=True, nonlinearity=nonlinearity)
    return OWN[cell](input_size, hidden_size)


def output_size_of(layer: nn.Module) -> int:
    """Size of a layer's hidden state, which is its output."""
    return int(getattr(layer, "proj_size", 0)) or cell_size_of(layer)


def cell_size_of(layer: nn.Module) -> int:
    """Size of a layer's cell, or of its hidden state where it has no cell."""
    return int(cast(int, layer.hidden_size))


def state_sizes(layer: nn.Module) -> tuple[int, ...]:
    """Sizes of the tensors of a layer's state."""
    if isinstance(layer, OwnLayer):
        return layer.state_sizes
    if isinstance(layer, nn.LSTM):
        return output_size_of(layer), cell_size_of(layer)
    return (output_size_of(layer),)


def draw_noise(
    layers: Sequence[nn.Module],
    shape: tuple[int, int],
    like: Tensor,
    *,
    recurrent_dropout: float,
    zoneout: float,
    training: bool,
) -> Noise | None:
    """Draw recurrent dropout and zoneout for a pass over sequences.

    Args:
        layers: the directions of one layer.
        shape: batch and time.
        like: a tensor whose device and type the noise takes.
        recurrent_dropout: share of the previous hidden state's units that the recurrent weights do
            not see, the same ones at all steps of a sequence.
        zoneout: share of the units of hidden state and cell that keep their value at a step; when
            not training, every unit keeps this share of its value.
        training: whether to draw at all.

    Returns:
        None where nothing is disturbed.
    """
    batch, time = shape
    noise = Noise(hold_hidden=zoneout, hold_cell=zoneout)
    if training:
        of_layer = (len(layers), batch, output_size_of(layers[0]))
        if recurrent_dropout:
            noise.mask = keep_mask(of_layer, recurrent_dropout, like)
        if zoneout:
            of_cell = (time, len(layers), batch, cell_size_of(layers[0]))
            noise.hold_hidden = (torch.rand((time, *of_layer), device=like.device) < zoneout).to(
                like.dtype
            )
            noise.hold_cell = (torch.rand(of_cell, device=like.device) < zoneout).to(like.dtype)
    return noise if zoneout or noise.mask is not None else None


def read(
    layers: Sequence[nn.Module],
    xs: Sequence[Tensor],
    states: Sequence[State] | None = None,
    noise: Noise | None = None,
) -> list[tuple[Tensor, State]]:
    """Let one layer, or both directions of one, read sequences from left to right.

    Args:
        layers: one or two layers of the same kind and size.
        xs: for each of them ``(batch, time, input)``.
        states: for each of them the state before the first step; zeros if None.
        noise: recurrent dropout and zoneout, see :func:`draw_noise`.

    Returns:
        for each of them the output ``(batch, time, output)`` and the state after the last step.
    """
    first = layers[0]
    if isinstance(first, nn.RNNBase) and noise is None and _has_kernel(first, xs[0]):
        starts = [None] * len(layers) if states is None else states
        return [_fused(*each) for each in zip(layers, xs, starts, strict=True)]
    if states is None:
        sizes = state_sizes(first)
        states = [tuple(x.new_zeros(x.shape[0], size) for size in sizes) for x in xs]
    started = [torch.stack(each) for each in zip(*states, strict=True)]
    scan = first.scan if isinstance(first, OwnLayer) else _scan_torch
    outs, lasts = scan(layers, xs, started, noise or Noise())
    return [(outs[d].transpose(0, 1), tuple(last[d] for last in lasts)) for d in range(len(layers))]


def _has_kernel(layer: nn.RNNBase, x: Tensor) -> bool:
    """Whether torch has a kernel of its own; a projection has none on a CPU, and torch warns."""
    return not layer.proj_size or x.device.type != "cpu"


def _fused(layer: nn.Module, x: Tensor, state: State | None) -> tuple[Tensor, State]:
    """Torch's own kernel."""
    start: Any = None if state is None else tuple(part.unsqueeze(0).contiguous() for part in state)
    if start is not None and not isinstance(layer, nn.LSTM):
        start = start[0]
    out, last = layer(x, start)
    lasts = last if isinstance(last, tuple) else (last,)
    return out, tuple(part[0] for part in lasts)


def _scan_torch(
    layers: Sequence[nn.Module], xs: Sequence[Tensor], started: Sequence[Tensor], noise: Noise
) -> Scanned:
    """What torch's layers compute, with the noise that their kernels do not offer."""
    first = layers[0]
    weight = stacked(layers, "weight_ih_l0")
    recurrent = stacked(layers, "weight_hh_l0").transpose(1, 2)
    bias, inner = stacked(layers, "bias_ih_l0"), stacked(layers, "bias_hh_l0")
    if isinstance(first, nn.GRU):
        hidden = gru_scan(project(xs, weight, bias), started[0], recurrent, inner, noise)
        return hidden, [hidden[:, -1]]
    x = project(xs, weight, bias + inner)
    if isinstance(first, nn.RNN):
        hidden = rnn_scan(x, started[0], recurrent, cast(Nonlinearity, first.nonlinearity), noise)
        return hidden, [hidden[:, -1]]
    assert isinstance(first, nn.LSTM)
    weights = LSTMWeights(recurrent)
    if first.proj_size:
        weights.projection = stacked(layers, "weight_hr_l0").transpose(1, 2)
    hidden, cells = lstm_scan(x, started[0], started[1], weights, noise)
    return hidden, [hidden[:, -1], cells[:, -1]]

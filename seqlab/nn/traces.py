"""What the gates and states of recurrent layers do at every token, recomputed step by step.

The fused kernels of torch and the scans of our own cells keep their gates to themselves. Here every
step is computed again from the layer's weights, one equation a line, in plain PyTorch: slow,
clearly right, and open to be looked at. The equations of our own cells stand in `seqlab.nn.gated`
and `seqlab.nn.sru`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from seqlab.errors import SeqlabError
from seqlab.nn.cells import state_sizes
from seqlab.nn.encoders import Encoder, RecurrentEncoder, reversal, turn
from seqlab.nn.gated import CoupledLSTM, LayerNormLSTM, NoForgetLSTM, PeepholeLSTM, State
from seqlab.nn.lstm_scan import EPSILON
from seqlab.nn.sru import SRU

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")
GATES = frozenset({"input", "forget", "output", "reset", "update"})  # they lie between 0 and 1
Values = dict[str, Tensor]  # by name, each (batch, size)
Step = Callable[[Any, Tensor, Values, float], Values]


@dataclass(frozen=True)
class Trace:
    """What one direction of one layer computed.

    Args:
        layer: counted from 1, the layer that reads the embeddings.
        direction: ``forward`` (left to right) or ``backward``.
        cell: name of its cell, as in `seqlab.nn.cells.CELLS`.
        series: by the names of the literature ``(batch, time, size)``, in the order of the text for
            both directions; what stands at padding has no meaning. Gates (``input``, ``forget``,
            ``output``; ``reset``, ``update``) lie between 0 and 1, ``candidate`` between -1 and 1
            (anywhere for `sru`); ``cell`` and ``hidden`` are the states after the token was read.
    """

    layer: int
    direction: Direction
    cell: str
    series: dict[str, Tensor]


class Traced(NamedTuple):
    """What an encoder computed on the way, and what it gave."""

    layers: list[Trace]  # both directions of the first layer, then those of the second, ...
    output: Tensor  # (batch, time, output_size)


@torch.no_grad()
def trace(encoder: Encoder, x: Tensor, lengths: Tensor) -> Traced:
    """Recompute an encoder step by step, as it reads when not training.

    Args:
        encoder: a :class:`seqlab.nn.encoders.RecurrentEncoder` of any cell.
        x: ``(batch, time, input)``.
        lengths: ``(batch,)`` int64 on the device of ``x``.

    Returns:
        the traces of all its layers and directions, and its output, equal to what a call of the
        encoder gives but for rounding.

    Raises:
        SeqlabError: the encoder is of another class, whose equations are not known here.
    """
    known = traceable(encoder)
    index = reversal(lengths, x.shape[1])
    traces = []
    for depth in range(len(known.forward_layers)):
        layers = known.layers(depth)
        starts: Sequence[State | None] = known.states(depth, len(x)) or [None, None]
        ways = []
        for direction, layer, start in zip(DIRECTIONS, layers, starts, strict=False):
            back = direction == "backward"
            read = series_of(layer, turn(x, index) if back else x, start, known.zoneout)
            series = {
                name: turn(values, index) if back else values for name, values in read.items()
            }
            traces.append(Trace(depth + 1, direction, cell_name(layer), series))
            ways.append(series["hidden"])
        x = known.join(depth, x, ways)
    return Traced(traces, x)


def traceable(encoder: object) -> RecurrentEncoder:
    """Return an encoder if it can be traced.

    Args:
        encoder: any encoder.

    Raises:
        SeqlabError: its equations are not known here.
    """
    if isinstance(encoder, RecurrentEncoder) and type(encoder).forward is RecurrentEncoder.forward:
        return encoder
    raise SeqlabError(
        f"the encoder {type(encoder).__module__}.{type(encoder).__qualname__} cannot be looked "
        "into: only the equations of seqlab.nn.encoders.RecurrentEncoder are known; train the "
        "model without model.encoder, or with that class."
    )


def cell_name(layer: nn.Module) -> str:
    """Return the name of a layer's cell, as in `seqlab.nn.cells.CELLS`.

    Example:
        >>> cell_name(nn.GRU(3, 2)), cell_name(SRU(3, 2))
        ('gru', 'sru')
    """
    return type(layer).__name__.lower() if isinstance(layer, nn.RNNBase) else str(layer.cell)


def series_of(
    layer: nn.Module, x: Tensor, state: State | None = None, zoneout: float = 0.0
) -> Values:
    """Let a layer read sequences from left to right, and keep all that it computes.

    Args:
        layer: one of `torch.nn.LSTM`, `GRU` and `RNN` with a single layer, or of our own cells.
        x: ``(batch, time, input)``.
        state: the state before the first step, as in `seqlab.nn.cells`; zeros if None.
        zoneout: the share of its value that every unit keeps at a step.

    Returns:
        gates, candidate, cell and hidden state by name, each ``(batch, time, size)``; the layer's
        output is ``hidden``.

    Raises:
        TypeError: on any other layer.

    Example:
        >>> found = series_of(nn.GRU(3, 2, batch_first=True), torch.zeros(1, 4, 3))
        >>> {name: tuple(values.shape) for name, values in found.items()}
        {'reset': (1, 4, 2), 'update': (1, 4, 2), 'candidate': (1, 4, 2), 'hidden': (1, 4, 2)}
    """
    step = step_of(layer)
    if step is None:
        raise TypeError(f"{type(layer).__name__} is no recurrent layer that can be traced.")
    if state is None:
        state = tuple(x.new_zeros(len(x), size) for size in state_sizes(layer))
    names = ("cell",) if isinstance(layer, SRU) else ("hidden", "cell")
    values = dict(zip(names, state, strict=False))  # some have no cell
    steps = [values := step(layer, now, values, zoneout) for now in x.unbind(1)]
    return {name: torch.stack([values[name] for values in steps], 1) for name in values}


def step_of(layer: nn.Module) -> Step | None:
    """Find the equations of a layer; None where it has none here."""
    return next((step for kind, step in _STEPS.items() if isinstance(layer, kind)), None)


def _lstm(layer: Any, x: Tensor, before: Values, zoneout: float) -> Values:
    gates = linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
    gates = gates + linear(before["hidden"], layer.weight_hh_l0, layer.bias_hh_l0)
    i, f, g, o = gates.chunk(4, -1)
    project = layer.weight_hr_l0 if layer.proj_size else None
    return _written(before, zoneout, i=i, f=f, g=g, o=o, project=project)


def _peephole(layer: PeepholeLSTM, x: Tensor, before: Values, zoneout: float) -> Values:
    gates = linear(x, layer.weight_ih, layer.bias) + linear(before["hidden"], layer.weight_hh)
    i, f, g, o = gates.chunk(4, -1)
    to_input, to_forget, to_output = layer.peephole
    i, f = i + to_input * before["cell"], f + to_forget * before["cell"]
    return _written(before, zoneout, i=i, f=f, g=g, o=o, to_output=to_output)


def _without_forget_gate(
    layer: CoupledLSTM | NoForgetLSTM, x: Tensor, before: Values, zoneout: float
) -> Values:
    gates = linear(x, layer.weight_ih, layer.bias) + linear(before["hidden"], layer.weight_hh)
    i, g, o = gates.chunk(3, -1)
    stays = 1 - torch.sigmoid(i) if isinstance(layer, CoupledLSTM) else torch.ones_like(i)
    return _written(before, zoneout, i=i, g=g, o=o, stays=stays)


def _layernorm(layer: LayerNormLSTM, x: Tensor, before: Values, zoneout: float) -> Values:
    width = layer.bias.shape
    of_input = layer_norm(linear(x, layer.weight_ih), width, layer.input_gain, eps=EPSILON)
    of_hidden = linear(before["hidden"], layer.weight_hh)
    of_hidden = layer_norm(of_hidden, width, layer.hidden_gain, eps=EPSILON)
    i, f, g, o = (of_input + of_hidden + layer.bias).chunk(4, -1)
    norm = (layer.cell_gain, layer.cell_bias)
    return _written(before, zoneout, i=i, f=f, g=g, o=o, norm=norm)


def _written(
    before: Values,
    zoneout: float,
    *,
    i: Tensor,
    g: Tensor,
    o: Tensor,
    f: Tensor | None = None,
    stays: Tensor | None = None,
    to_output: Tensor | None = None,
    norm: tuple[Tensor, Tensor] | None = None,
    project: Tensor | None = None,
) -> Values:
    """What all LSTMs do once their gates are known, before the sigmoid or tanh.

    Args:
        before: hidden state and cell of the step before.
        zoneout: the share of its value that every unit keeps.
        i: input gate.
        g: candidate.
        o: output gate.
        f: forget gate.
        stays: in place of a forget gate, the share of the cell that stays.
        to_output: the output gate's view of the new cell.
        norm: gain and bias of the cell's normalisation on its way out.
        project: from what leaves the cell to the hidden state.
    """
    found = {"input": torch.sigmoid(i)}
    if f is not None:
        found["forget"] = stays = torch.sigmoid(f)
    assert stays is not None
    found["candidate"] = torch.tanh(g)
    cell = stays * before["cell"] + found["input"] * found["candidate"]
    found["output"] = torch.sigmoid(o if to_output is None else o + to_output * cell)
    shown = cell if norm is None else layer_norm(cell, cell.shape[-1:], *norm, eps=EPSILON)
    hidden = found["output"] * torch.tanh(shown)
    if project is not None:
        hidden = linear(hidden, project)
    found["cell"] = torch.lerp(cell, before["cell"], zoneout)
    found["hidden"] = torch.lerp(hidden, before["hidden"], zoneout)
    return found


def _gru(layer: Any, x: Tensor, before: Values, zoneout: float) -> Values:
    of_input = linear(x, layer.weight_ih_l0, layer.bias_ih_l0).chunk(3, -1)
    of_hidden = linear(before["hidden"], layer.weight_hh_l0, layer.bias_hh_l0).chunk(3, -1)
    reset = torch.sigmoid(of_input[0] + of_hidden[0])
    update = torch.sigmoid(of_input[1] + of_hidden[1])
    candidate = torch.tanh(of_input[2] + reset * of_hidden[2])
    hidden = (1 - update) * candidate + update * before["hidden"]
    hidden = torch.lerp(hidden, before["hidden"], zoneout)
    return {"reset": reset, "update": update, "candidate": candidate, "hidden": hidden}


def _rnn(layer: Any, x: Tensor, before: Values, zoneout: float) -> Values:
    total = linear(x, layer.weight_ih_l0, layer.bias_ih_l0)
    total = total + linear(before["hidden"], layer.weight_hh_l0, layer.bias_hh_l0)
    hidden = torch.tanh(total) if layer.nonlinearity == "tanh" else torch.relu(total)
    return {"hidden": torch.lerp(hidden, before["hidden"], zoneout)}


def _sru(layer: SRU, x: Tensor, before: Values, zoneout: float) -> Values:
    candidate, to_forget, to_reset, *skip = torch.split(
        linear(x, layer.weight_ih), layer.hidden_size, -1
    )
    forget_bias, reset_bias = layer.bias.chunk(2)
    forget = torch.sigmoid(to_forget + forget_bias)
    reset = torch.sigmoid(to_reset + reset_bias)
    cell = forget * before["cell"] + (1 - forget) * candidate
    cell = torch.lerp(cell, before["cell"], zoneout)
    hidden = reset * torch.tanh(cell) + (1 - reset) * (skip[0] if skip else x)
    return {
        "candidate": candidate,
        "forget": forget,
        "reset": reset,
        "cell": cell,
        "hidden": hidden,
    }


_STEPS: dict[type[nn.Module], Step] = {
    nn.LSTM: _lstm,
    nn.GRU: _gru,
    nn.RNN: _rnn,
    PeepholeLSTM: _peephole,
    CoupledLSTM: _without_forget_gate,
    NoForgetLSTM: _without_forget_gate,
    LayerNormLSTM: _layernorm,
    SRU: _sru,
}

"""The LSTMs that torch does not have, as layers over whole sequences; see `seqlab.nn.cells`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqlab.nn.lstm_scan import EPSILON, Forget, LSTMWeights, Noise, lstm_scan

State = tuple[Tensor, ...]
Scanned = tuple[Tensor, list[Tensor]]
Layers = Sequence[Any]
Inputs = Sequence[Tensor]


def stacked(layers: Sequence[nn.Module], name: str) -> Tensor:
    """Put a parameter of several layers together, ``(direction, ...)``."""
    return torch.stack([cast(Tensor, getattr(layer, name)) for layer in layers])


def project(xs: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the input of all steps with the weights in one matrix product a direction.

    Args:
        xs: for each direction ``(batch, time, input)``.
        weight: ``(direction, gate, input)``.
        bias: ``(direction, gate)``.

    Returns:
        ``(direction, time, batch, gate)``.
    """
    batch, time, _ = xs[0].shape
    rows = torch.stack([x.transpose(0, 1).flatten(0, 1) for x in xs])  # (direction, row, input)
    back = weight.transpose(1, 2)
    flat = torch.bmm(rows, back) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, back)
    return flat.view(len(xs), time, batch, -1)


class OwnLayer(nn.Module):
    """Base of the layers that torch does not have.

    Args:
        input_size: size of the input.
        hidden_size: size of the cell and of the output.
    """

    cell: ClassVar[str]
    gates: ClassVar[tuple[str, ...]]

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Sizes of the tensors of a state."""
        raise TypeError(f"{type(self).__name__} has no state.")

    @classmethod
    def scan(cls, layers: Layers, xs: Inputs, started: Inputs, noise: Noise) -> Scanned:
        """Let one layer, or both directions of one, read sequences from left to right.

        Args:
            layers: one or two of this class.
            xs: for each of them ``(batch, time, input_size)``.
            started: the parts of the state before the first step, ``(direction, batch, size)``.
            noise: recurrent dropout and zoneout.

        Returns:
            ``(direction, time, batch, hidden_size)`` and the parts of the last state.
        """
        raise TypeError(f"{cls.__name__} cannot read.")

    def extra_repr(self) -> str:
        """Show the sizes in the printed model."""
        return f"{self.input_size}, {self.hidden_size}"

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read sequences from left to right.

        Args:
            x: ``(batch, time, input_size)``.
            state: the state before the first step, each part ``(batch, size)``; zeros if None.

        Returns:
            ``(batch, time, hidden_size)`` and the state after the last step.
        """
        before = state or tuple(x.new_zeros(x.shape[0], size) for size in self.state_sizes)
        out, lasts = self.scan([self], [x], [part.unsqueeze(0) for part in before], Noise())
        return out[0].transpose(0, 1), tuple(last[0] for last in lasts)


class GatedLayer(OwnLayer):
    """Base of the LSTMs that torch does not have.

    Args:
        input_size: size of the input.
        hidden_size: size of the cell and of the hidden state.

    Attributes:
        weight_ih: ``(gate, input)``, gates in the order input, forget, candidate, output.
        weight_hh: ``(gate, hidden)``.
        bias: ``(gate,)``.
        gates: the names of the gates in that order.
    """

    gates: ClassVar[tuple[str, ...]] = ("input", "forget", "candidate", "output")
    forget: ClassVar[Forget] = "gate"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        width = len(self.gates) * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(width, input_size))
        self.weight_hh = nn.Parameter(torch.empty(width, hidden_size))
        self.bias = nn.Parameter(torch.zeros(width))
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -(hidden_size**-0.5), hidden_size**-0.5)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Sizes of hidden state and cell."""
        return self.hidden_size, self.hidden_size

    @classmethod
    def input_gates(cls, layers: Sequence[Any], xs: Sequence[Tensor]) -> Tensor:
        """Compute the input's part of the gates, ``(direction, time, batch, gate)``."""
        return project(xs, stacked(layers, "weight_ih"), stacked(layers, "bias"))

    @classmethod
    def recurrent_weights(cls, layers: Sequence[Any]) -> LSTMWeights:
        """Gather what the steps work with."""
        return LSTMWeights(stacked(layers, "weight_hh").transpose(1, 2), cls.forget)

    @classmethod
    def scan(cls, layers: Layers, xs: Inputs, started: Inputs, noise: Noise) -> Scanned:
        """Read sequences; see the base class."""
        gates, weights = cls.input_gates(layers, xs), cls.recurrent_weights(layers)
        hidden, cells = lstm_scan(gates, started[0], started[1], weights, noise)
        return hidden, [hidden[:, -1], cells[:, -1]]


class PeepholeLSTM(GatedLayer):
    r"""LSTM whose gates see the cell (Gers and Schmidhuber, 2000, equations 1 to 6).

    | i = sigmoid(W_i x + U_i h' + p_i * c' + b_i)
    | f = sigmoid(W_f x + U_f h' + p_f * c' + b_f)
    | g = tanh(W_g x + U_g h' + b_g)
    | c = f * c' + i * g
    | o = sigmoid(W_o x + U_o h' + p_o * c + b_o)
    | h = o * tanh(c)

    with h' and c' of the step before. Matrix products take ``4 hidden (input + hidden)``
    multiply-adds a token, what is done element by element ``6 hidden``.

    Attributes:
        peephole: ``(3, hidden)``, for the input, forget and output gates.
    """

    cell = "peephole"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.peephole = nn.Parameter(torch.zeros(3, hidden_size))

    @classmethod
    def recurrent_weights(cls, layers: Sequence[Any]) -> LSTMWeights:
        """Gather what the steps work with."""
        weights = super().recurrent_weights(layers)
        weights.peephole = stacked(layers, "peephole")
        return weights


class CoupledLSTM(GatedLayer):
    r"""LSTM with coupled input and forget gates (CIFG; Greff et al., 2017, appendix).

    | i = sigmoid(W_i x + U_i h' + b_i)
    | g = tanh(W_g x + U_g h' + b_g)
    | o = sigmoid(W_o x + U_o h' + b_o)
    | c = (1 - i) * c' + i * g
    | h = o * tanh(c)

    Matrix products take ``3 hidden (input + hidden)`` multiply-adds a token, what is done element
    by element ``3 hidden``.
    """

    cell = "coupled"
    gates = ("input", "candidate", "output")
    forget = "coupled"


class NoForgetLSTM(GatedLayer):
    r"""The first LSTM, whose cell only ever adds (Hochreiter and Schmidhuber, 1997).

    | i = sigmoid(W_i x + U_i h' + b_i)
    | g = tanh(W_g x + U_g h' + b_g)
    | o = sigmoid(W_o x + U_o h' + b_o)
    | c = c' + i * g
    | h = o * tanh(c)

    With tanh in place of the paper's own two squashing functions, and the whole gradient through
    time in place of the paper's truncated one. Matrix products take ``3 hidden (input + hidden)``
    multiply-adds a token, what is done element by element ``2 hidden``.
    """

    cell = "no-forget"
    gates = ("input", "candidate", "output")
    forget = "none"


class LayerNormLSTM(GatedLayer):
    r"""LSTM with layer normalisation (Ba et al., 2016, equations 20 to 22).

    | i, f, g, o = N(W x) * gain_x + N(U h') * gain_h + b
    | c = sigmoid(f) * c' + sigmoid(i) * tanh(g)
    | h = sigmoid(o) * tanh(N(c) * gain_c + b_c)

    N subtracts the mean of a vector and divides by its standard deviation; of the four gates, it
    takes all units together, as the paper does. Matrix products take ``4 hidden (input + hidden)``
    multiply-adds a token, what is done element by element ``30 hidden``.

    Attributes:
        input_gain: ``(gate,)``.
        hidden_gain: ``(gate,)``.
        cell_gain: ``(hidden,)``.
        cell_bias: ``(hidden,)``.
    """

    cell = "layernorm"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.input_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.hidden_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.cell_gain = nn.Parameter(torch.ones(hidden_size))
        self.cell_bias = nn.Parameter(torch.zeros(hidden_size))

    @classmethod
    def input_gates(cls, layers: Sequence[Any], xs: Sequence[Tensor]) -> Tensor:
        """Compute the input's part of the gates, normalised."""
        plain = project(xs, stacked(layers, "weight_ih"))
        normal = functional.layer_norm(plain, plain.shape[-1:], eps=EPSILON)
        gain, bias = (stacked(layers, name)[:, None, None] for name in ("input_gain", "bias"))
        return torch.addcmul(bias, normal, gain)

    @classmethod
    def recurrent_weights(cls, layers: Sequence[Any]) -> LSTMWeights:
        """Gather what the steps work with."""
        weights = super().recurrent_weights(layers)
        weights.gate_gain = stacked(layers, "hidden_gain")
        weights.cell_gain = stacked(layers, "cell_gain")
        weights.cell_shift = stacked(layers, "cell_bias")
        return weights

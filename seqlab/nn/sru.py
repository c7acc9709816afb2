"""The simple recurrent unit, as a layer over whole sequences; see `seqlab.nn.cells`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqlab.nn.gated import Inputs, Layers, OwnLayer, Scanned, project, stacked
from seqlab.nn.linear_scan import linear_scan
from seqlab.nn.lstm_scan import Noise


class SRU(OwnLayer):
    r"""Simple recurrent unit, parallel over time (Lei et al., 2018).

    | g = W_g x
    | f = sigmoid(W_f x + b_f)
    | r = sigmoid(W_r x + b_r)
    | c = f * c' + (1 - f) * g
    | h = r * tanh(c) + (1 - r) * (W_s x, or x where the sizes agree)

    The gates see the input alone, as in the paper's first version (arXiv:1709.02755v1): then the
    steps need no matrix product, and ``c`` is a linear recurrence. Matrix products take ``3 hidden
    input`` multiply-adds a token (4 where the sizes differ), what is done element by element
    ``4 hidden``.

    Args:
        input_size: size of the input.
        hidden_size: size of the cell and of the output.

    Attributes:
        weight_ih: ``(gate, input)``: candidate, forget and reset gates, and the skip connection
            where the sizes differ.
        bias: ``(2 * hidden,)``, of the forget and reset gates.
    """

    cell = "sru"
    gates = ("candidate", "forget", "reset")

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        blocks = 3 if input_size == hidden_size else 4
        self.weight_ih = nn.Parameter(torch.empty(blocks * hidden_size, input_size))
        self.bias = nn.Parameter(torch.zeros(2 * hidden_size))
        nn.init.uniform_(self.weight_ih, -(hidden_size**-0.5), hidden_size**-0.5)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Size of the cell."""
        return (self.hidden_size,)

    @classmethod
    def scan(cls, layers: Layers, xs: Inputs, started: Inputs, noise: Noise) -> Scanned:
        """Read sequences; see the base class."""
        size = layers[0].hidden_size
        blocks = project(xs, stacked(layers, "weight_ih"))  # (direction, time, batch, gate)
        candidate, *rest = torch.split(blocks, size, -1)
        like, noise = blocks.dtype, noise.to(blocks.dtype)
        skip = rest[2] if len(rest) == 3 else torch.stack([x.transpose(0, 1) for x in xs]).to(like)
        bias = stacked(layers, "bias")[:, None, None].to(like)
        bias_f, bias_r = torch.split(bias, size, -1)
        forget, reset = torch.sigmoid(rest[0] + bias_f), torch.sigmoid(rest[1] + bias_r)
        decay, drive = forget.transpose(0, 1), ((1 - forget) * candidate).transpose(0, 1)
        if isinstance(noise.hold_cell, Tensor) or noise.hold_cell:
            decay = torch.lerp(decay, torch.ones_like(decay), noise.hold_cell)
            drive = drive * (1 - noise.hold_cell)
        cells = linear_scan(decay.contiguous(), drive.contiguous(), started[0]).transpose(0, 1)
        hidden = torch.lerp(skip, torch.tanh(cells), reset)
        return hidden, [cells[:, -1]]

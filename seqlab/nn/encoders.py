"""Encoders: ``(batch, time, input)`` -> ``(batch, time, output_size)``, padding without effect."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from seqlab.nn.dropout import Dropout


class Encoder(Protocol):
    """What a model asks of an encoder: to be called, and to know its output size."""

    output_size: int

    def __call__(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map ``x (batch, time, input)`` with ``lengths`` to ``(batch, time, output_size)``."""


def reversal(lengths: Tensor, time: int) -> Tensor:
    """Index that turns every sequence round inside its own length and leaves the padding in place.

    Args:
        lengths: ``(batch,)`` int64.
        time: padded length.

    Returns:
        ``(batch, time)`` int64; it is its own inverse.

    Example:
        >>> reversal(torch.tensor([3, 1]), 3).tolist()
        [[2, 1, 0], [0, 1, 2]]
    """
    step = torch.arange(time, device=lengths.device)
    ends = lengths.unsqueeze(1)
    return torch.where(step < ends, ends - 1 - step, step)  # (batch, time)


def turn(x: Tensor, index: Tensor) -> Tensor:
    """Reorder ``x (batch, time, dim)`` along time by ``index (batch, time)``."""
    return x.gather(1, index.unsqueeze(-1).expand_as(x))


class BiLSTM(nn.Module):
    """Bidirectional LSTM of n layers over right-padded sequences (Graves and Schmidhuber, 2005).

    The backward direction reads every sequence turned round inside its own length. That gives the
    very results of packed sequences, but keeps the padded layout for which torch has its fast CPU
    kernel.

    Args:
        input_size: size of the input.
        hidden_size: size of each direction.
        num_layers: number of layers.
        dropout: probability of dropping an element between layers.
        forget_bias: what is added to the forget gate's bias at the start, so that the cell
            remembers before it has learnt what to forget (Jozefowicz et al., 2015).

    Attributes:
        output_size: ``2 * hidden_size``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 200,
        num_layers: int = 1,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
    ) -> None:
        super().__init__()
        self.output_size = 2 * hidden_size
        sizes = [input_size] + [self.output_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(
            nn.LSTM(size, hidden_size, batch_first=True) for size in sizes
        )
        self.backward_layers = nn.ModuleList(
            nn.LSTM(size, hidden_size, batch_first=True) for size in sizes
        )
        self.dropout = Dropout(dropout)
        for layer in [*self.forward_layers, *self.backward_layers]:
            assert isinstance(layer, nn.LSTM)
            _initialise(layer, forget_bias)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Read sequences in both directions.

        Args:
            x: ``(batch, time, input_size)``.
            lengths: ``(batch,)`` int64 on the device of ``x``.

        Returns:
            ``(batch, time, output_size)``; what stands at padding has no meaning.
        """
        index = reversal(lengths, x.shape[1])
        for depth, (ahead, back) in enumerate(
            zip(self.forward_layers, self.backward_layers, strict=True)
        ):
            if depth:
                x = self.dropout(x)
            left, _ = ahead(x)  # (batch, time, hidden)
            right, _ = back(turn(x, index))
            x = torch.cat([left, turn(right, index)], -1)
        return x


def _initialise(layer: nn.LSTM, forget_bias: float) -> None:
    """Orthogonal recurrent blocks, Glorot input blocks, zero biases but for the forget gate's."""
    size = layer.hidden_size
    input_weight, recurrent_weight, input_bias, recurrent_bias = layer.all_weights[0]
    with torch.no_grad():
        for block in recurrent_weight.chunk(4):  # one a gate
            nn.init.orthogonal_(block)
        for block in input_weight.chunk(4):
            nn.init.xavier_uniform_(block)
        input_bias.zero_()
        recurrent_bias.zero_()
        input_bias[size : 2 * size] = forget_bias

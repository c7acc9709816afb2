"""Recurrent decoders with attention: one step, or a whole target that is known.

A step reads the embedded token before (and, with input feeding, the feature that the step before
gave), asks the attention what of the source matters to its new state, and gives a feature::

    state   = LSTM([token, feature before], state before)
    feature = tanh(context + W state)                  context = W' (sum of the attended states)

which is the attentional vector of Luong et al. (2015, equation 5) with its matrix in two halves;
that of the context is applied once a source token, by the attention's memory, instead of once a
hypothesis and step. The words to come are told from the feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from seqlab.errors import RecipeError, check_range, nearest
from seqlab.nn.attention import Attention, Memory
from seqlab.nn.attention_kinds import DotAttention, GeneralAttention
from seqlab.nn.decoder_scan import ScanInputs, feeding_scan
from seqlab.nn.dropout import Dropout, keep_mask
from seqlab.nn.initialisation import initialise
from seqlab.nn.kernels import decoder_native
from seqlab.nn.products import linear

BridgeName = Literal["linear", "copy", "zero"]
_SCANNED = (DotAttention, GeneralAttention)  # what the scan computes, and no subclass of it


class Start(NamedTuple):
    """The state of a decoder before its first step.

    Attributes:
        hidden: ``(layer, batch, hidden)``.
        cell: likewise.
    """

    hidden: Tensor
    cell: Tensor


@dataclass
class DecoderState:
    """What a decoder knows between two steps; ``hypothesis`` counts those of one sentence.

    Attributes:
        hidden: ``(layer, batch, hypothesis, hidden)``.
        cell: likewise.
        feature: ``(batch, hypothesis, hidden)``, what the last step gave; zero before the first.
        coverage: ``(batch, hypothesis, source)``, the sum of all attention so far; None where the
            decoder does not look at it.
    """

    hidden: Tensor
    cell: Tensor
    feature: Tensor
    coverage: Tensor | None = None

    def select(self, sentences: Tensor, hypotheses: Tensor) -> DecoderState:
        """Keep some sentences, and continue some hypotheses of each.

        Args:
            sentences: ``(kept,)`` int64.
            hypotheses: ``(kept, new)`` int64, which of the old ones each new one goes on from.
        """
        rows = (sentences.unsqueeze(1) * self.hidden.shape[2] + hypotheses).flatten()
        shape = hypotheses.shape

        def picked(x: Tensor) -> Tensor:
            return x.flatten(0, 1).index_select(0, rows).view(*shape, -1)

        def stacked(x: Tensor) -> Tensor:
            return x.flatten(1, 2).index_select(1, rows).view(len(x), *shape, -1)

        coverage = None if self.coverage is None else picked(self.coverage)
        return DecoderState(
            stacked(self.hidden), stacked(self.cell), picked(self.feature), coverage
        )


class Decoded(NamedTuple):
    """What a decoder says of a target that is known.

    Attributes:
        features: ``(batch, time, hidden)``, with dropout while training.
        attention: ``(batch, time, source)``; None where it was not asked for.
    """

    features: Tensor
    attention: Tensor | None


class Decoder(nn.Module):
    """Layers of LSTMs under an attention (Bahdanau et al., 2015; Luong et al., 2015).

    Args:
        input_size: of an embedded token.
        hidden_size: of every layer, and of the features.
        attention: its queries and its output have `hidden_size`.
        num_layers: number of layers.
        input_feeding: whether a step reads the feature of the step before (Luong et al., 2015,
            section 3.3). Without it all steps of a known target are computed at once.
        coverage: whether the attention sees how much every source token was attended to before.
        dropout: on the states between layers and on the features.
        initialisation: of the layers, see :func:`seqlab.nn.initialisation.initialise`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        attention: Attention,
        *,
        num_layers: int = 1,
        input_feeding: bool = True,
        coverage: bool = False,
        dropout: float = 0.0,
        initialisation: str = "glorot",
    ) -> None:
        super().__init__()
        check_range("model.decoder_layers", num_layers, 1)
        self.hidden_size = hidden_size
        self.input_feeding = input_feeding
        self.coverage = coverage
        self.attention = attention
        sizes = [input_size + hidden_size * input_feeding] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(size, hidden_size, batch_first=True) for size in sizes)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.dropout = Dropout(dropout)
        for layer in self.layers:
            initialise(layer, initialisation, 1.0)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(
        self, x: Tensor, start: Start, memory: Memory, *, with_attention: bool = False
    ) -> Decoded:
        """Decode a known target.

        Args:
            x: ``(batch, time, input)``, the embedded tokens before each step.
            start: the state before the first step.
            memory: of the source.
            with_attention: whether the weights of the attention are wanted too.
        """
        if not self.input_feeding:
            return self._at_once(x, start, memory)
        if type(self.attention) in _SCANNED and not (self.coverage or with_attention):
            return Decoded(self._scanned(x, start, memory), None)
        state = self.begin(start, memory)
        features, weights = [], []
        for at in range(x.shape[1]):
            feature, weight, state = self.step(x[:, at : at + 1], state, memory)
            features.append(feature)
            weights.append(weight)
        return Decoded(torch.cat(features, 1), torch.cat(weights, 1))

    def begin(self, start: Start, memory: Memory) -> DecoderState:
        """Return the state before the first step, with one hypothesis a sentence."""
        hidden, cell = start.hidden.unsqueeze(2), start.cell.unsqueeze(2)
        coverage = None
        if self.coverage:
            coverage = hidden.new_zeros(hidden.shape[1], 1, memory.mask.shape[1])
        return DecoderState(hidden, cell, torch.zeros_like(hidden[0]), coverage)

    def step(
        self, x: Tensor, state: DecoderState, memory: Memory
    ) -> tuple[Tensor, Tensor, DecoderState]:
        """Go one step on.

        Args:
            x: ``(batch, hypothesis, input)``, the embedded tokens that were said last.
            state: what the step before gave.
            memory: of the source, of each sentence once.

        Returns:
            the features ``(batch, hypothesis, hidden)``, the attention ``(batch, hypothesis,
            source)`` and the new state.
        """
        below = torch.cat([x, state.feature], -1) if self.input_feeding else x
        hidden, cell = [], []
        for level, layer in enumerate(self.layers):
            below = self.dropout(below) if level else below
            new, kept = _cell(layer, below, state.hidden[level], state.cell[level])
            hidden.append(new)
            cell.append(kept)
            below = new
        context, weights = self.attention(below, memory, state.coverage)
        feature = self.dropout(torch.tanh(context + linear(below, self.output.weight)))
        coverage = None if state.coverage is None else state.coverage + weights
        after = DecoderState(torch.stack(hidden), torch.stack(cell), feature, coverage)
        return feature, weights, after

    def _at_once(self, x: Tensor, start: Start, memory: Memory) -> Decoded:
        """Decode without input feeding: the layers first, then the attention of all steps."""
        below = x
        for level, layer in enumerate(self.layers):
            below = self.dropout(below) if level else below
            state = (start.hidden[level : level + 1], start.cell[level : level + 1])
            below, _ = layer(below, tuple(part.to(below.dtype).contiguous() for part in state))
        if self.coverage:
            context, weights = self._covering(below, memory)
        else:
            context, weights = self.attention(below, memory)
        feature = torch.tanh(context + linear(below, self.output.weight))
        return Decoded(self.dropout(feature), weights)

    def _covering(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend step by step, each of which sees what was attended to before."""
        coverage = queries.new_zeros(len(queries), 1, memory.mask.shape[1], dtype=torch.float32)
        contexts, weights = [], []
        for at in range(queries.shape[1]):
            context, weight = self.attention(queries[:, at : at + 1], memory, coverage)
            coverage = coverage + weight
            contexts.append(context)
            weights.append(weight)
        return torch.cat(contexts, 1), torch.cat(weights, 1)

    def _scanned(self, x: Tensor, start: Start, memory: Memory) -> Tensor:
        """Decode with input feeding, by a scan that is differentiated by hand."""
        layers = [weights_of(layer) for layer in self.layers]
        first, size = layers[0], x.shape[-1]
        token, fed = first.input[:, :size], first.input[:, size:]
        if len(layers) > 1 or not decoder_native.supports(x, first.hidden):
            gates = linear(x.transpose(0, 1), token, first.bias)
            layers[0] = first._replace(input=fed)
            return self._scan(gates, layers, start, memory).transpose(0, 1)
        return decoder_native.feeding_decoder(
            linear(x, token, first.bias),
            memory.keys,
            memory.values,
            memory.mask.sum(1),
            fed,
            first.hidden,
            self.output.weight,
            start.hidden[0],
            start.cell[0],
            self._drawn(x.shape[:2], start.hidden),
        )

    def _drawn(self, shape: torch.Size, like: Tensor) -> Tensor | None:
        """Draw the dropout of states or features as factors; None where nothing is dropped."""
        p = self.dropout.p if self.training else 0.0
        return keep_mask((*shape, self.hidden_size), p, like) if p else None

    def _scan(
        self, gates: Tensor, layers: Sequence[LayerWeights], start: Start, memory: Memory
    ) -> Tensor:
        shape = gates.shape[:2]
        between = [self._drawn(shape, start.hidden) for _ in layers[1:]]
        return feeding_scan(
            ScanInputs(
                gates=gates,
                keys=memory.keys,
                values=memory.values,
                mask=memory.mask,
                weights=[torch.cat([layer.input, layer.hidden], 1) for layer in layers],
                biases=[layer.bias for layer in layers[1:]],
                output=self.output.weight,
                hidden=start.hidden,
                cell=start.cell,
                kept=self._drawn(shape, start.hidden),
                between=[factors for factors in between if factors is not None],
            )
        )


class LayerWeights(NamedTuple):
    """The weights of one layer.

    Attributes:
        input: ``(4 * hidden, input)``.
        hidden: ``(4 * hidden, hidden)``.
        bias: ``(4 * hidden,)``.
    """

    input: Tensor
    hidden: Tensor
    bias: Tensor


def weights_of(layer: nn.Module) -> LayerWeights:
    """Return the weights of an LSTM, its two biases as one."""
    assert isinstance(layer, nn.LSTM)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    of_input, of_hidden, bias, other = (cast(Tensor, getattr(layer, name)) for name in names)
    return LayerWeights(of_input, of_hidden, bias + other)


def _cell(layer: nn.Module, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM over any leading dimensions."""
    weights = weights_of(layer)
    sums = linear(x, weights.input, weights.bias)
    sums = sums.float() + linear(hidden, weights.hidden)
    i, f, g, o = sums.chunk(4, -1)
    after = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * after.tanh(), after


class Bridge(nn.Module):
    """From what an encoder ends with to the state in which a decoder begins.

    Args:
        kind: ``linear``: ``tanh`` of a learned map, another for every layer, state and cell;
            ``copy``: the ends themselves as state and as cell of all layers; ``zero``.
        input_size: size of the ends.
        hidden_size: of the decoder.
        num_layers: of the decoder.

    Raises:
        RecipeError: the kind is unknown, or the ends are not of the size to be copied.
    """

    def __init__(self, kind: str, input_size: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        known = get_args(BridgeName)
        if kind not in known:
            raise RecipeError(
                f"model.bridge is {kind!r}: choose one of {', '.join(known)}.{nearest(kind, known)}"
            )
        if kind == "copy" and input_size != hidden_size:
            raise RecipeError(
                f"model.bridge copy hands {input_size} numbers of the encoder to a decoder of "
                f"{hidden_size}: set model.decoder_size to {input_size}, or use linear."
            )
        self.kind = kind
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.map = None
        if kind == "linear":
            self.map = nn.Linear(input_size, 2 * num_layers * hidden_size)
            nn.init.xavier_uniform_(self.map.weight)
            nn.init.zeros_(self.map.bias)

    def forward(self, ends: Tensor) -> Start:
        """Map ``ends (batch, input)`` to the state before the first step."""
        shape = (2 * self.num_layers, len(ends), self.hidden_size)
        if self.map is not None:
            mapped = torch.tanh(self.map(ends)).float()
            hidden, cell = mapped.view(len(ends), *shape[::2]).transpose(0, 1).chunk(2)
        elif self.kind == "copy":
            hidden, cell = ends.float().unsqueeze(0).expand(shape).chunk(2)
        else:
            hidden, cell = ends.new_zeros(shape, dtype=torch.float32).chunk(2)
        return Start(hidden, cell)


def ends_of(states: Tensor, lengths: Tensor, forward_size: int | None) -> Tensor:
    """Take what an encoder ends with: the last state forwards, and the first one backwards.

    Args:
        states: ``(batch, time, size)``.
        lengths: ``(batch,)``, at least 1.
        forward_size: how many dimensions were read forwards; None where the directions were merged
            into one, of which the mean of the first and the last state is taken.

    Returns:
        ``(batch, size)``.
    """
    rows = torch.arange(len(states), device=states.device)
    last = states[rows, lengths - 1]
    first = states[:, 0]
    if forward_size is None:
        return (first + last) / 2
    return torch.cat([last[:, :forward_size], first[:, forward_size:]], -1)

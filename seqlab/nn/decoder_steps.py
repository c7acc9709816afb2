"""A decoder laid out for decoding: one step of many hypotheses at a time, without gradients.

What does not change from step to step is worked out before: every weight is laid out for products
(`seqlab.nn.products`), and what a token adds to the gates of the first layer is looked up in a
table of all tokens, once enough of them were read for that to pay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from seqlab.nn.attention import Memory
from seqlab.nn.attention_kinds import DotAttention, GeneralAttention
from seqlab.nn.decoder_scan import ordered
from seqlab.nn.decoders import Decoder, DecoderState, weights_of
from seqlab.nn.kernels import steps_native
from seqlab.nn.products import Product, factor

_SHARE = 4  # a table pays once more tokens were read than this share of the vocabulary


class TokenGates:
    """What each token of the vocabulary adds to the gates of a decoder's first layer.

    Args:
        embeddings: ``(vocabulary, input)``.
        scale: what they are multiplied by.
        weight: ``(4 * hidden, input)``, gates ordered.
        bias: ``(4 * hidden,)``.
        rows: about how many tokens are read at once.
    """

    def __init__(
        self, embeddings: Tensor, scale: float, weight: Tensor, bias: Tensor, rows: int
    ) -> None:
        self._embeddings = embeddings.detach()
        self._product = factor(weight * scale, rows, False, bias)
        self._table: Tensor | None = None
        self._read = 0

    def table(self, tokens: int) -> Tensor | None:
        """Return ``(vocabulary, 4 * hidden)`` float32, of all tokens; None where it is not there.

        Args:
            tokens: how many are to be read now.
        """
        self._read += tokens
        if self._table is None and self._read * _SHARE >= len(self._embeddings):
            self._table = self._product(self._embeddings)
        return self._table

    def direct(self, tokens: Tensor) -> Tensor:
        """Return ``(row, 4 * hidden)`` float32 for ``tokens (row,)``, worked out for them."""
        return self._product(functional.embedding(tokens, self._embeddings))

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return ``(row, 4 * hidden)`` float32 for ``tokens (row,)``."""
        table = self.table(len(tokens))
        return self.direct(tokens) if table is None else table.index_select(0, tokens)


class DecoderSteps:
    """One decoder with its embeddings and its output, as they are now.

    Args:
        decoder: the decoder.
        embeddings: ``(vocabulary, input)`` of the tokens that it reads.
        scale: what they are multiplied by.
        project: ``(size, hidden)``, applied to the features before the output; None where the
            output takes them as they are.
        output: ``(vocabulary, size)``.
        bias: ``(vocabulary,)``.
        rows: about how many hypotheses there will be at once.
        rounded: round the factors of products to bfloat16.
    """

    def __init__(
        self,
        decoder: Decoder,
        embeddings: Tensor,
        scale: float,
        project: Tensor | None,
        output: Tensor,
        bias: Tensor,
        *,
        rows: int,
        rounded: bool,
    ) -> None:
        self.decoder = decoder
        self.size = decoder.hidden_size
        width = embeddings.shape[1]
        with torch.autocast(output.device.type, enabled=False), torch.no_grad():
            layers = [weights_of(layer) for layer in decoder.layers]
            token, bias_of_gates = layers[0].input[:, :width], layers[0].bias
            self._token_gates = TokenGates(
                embeddings, scale, ordered(token), ordered(bias_of_gates), rows
            )
            inputs = [layers[0].input[:, width:], *(layer.input for layer in layers[1:])]
            self._gates: list[Product] = [
                factor(ordered(torch.cat([inner, layer.hidden], 1)), rows, rounded)
                for inner, layer in zip(inputs, layers, strict=True)
            ]
            self._biases = [ordered(layer.bias) for layer in layers[1:]]
            self._onto = factor(decoder.output.weight, rows, rounded)
            self._project = None if project is None else factor(project, rows, rounded)
            self._output = factor(output, rows, rounded, bias)
        attention = decoder.attention
        # Not of kinds that are made of these: they compute something else.
        simple = type(attention) in (DotAttention, GeneralAttention) and attention.coverage is None
        self._compiled = simple and steps_native.supports(output)

    def memory(self, memory: Memory) -> Memory:
        """Lay out what the decoder attends to."""
        if not self._compiled:
            return memory
        keys, values = (part.float().contiguous() for part in (memory.keys, memory.values))
        return Memory(keys, values, memory.mask)

    def __call__(
        self, tokens: Tensor, state: DecoderState, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor, DecoderState]:
        """Go one step on; see :meth:`seqlab.nn.decoders.Decoder.step`.

        Args:
            tokens: ``(batch, hypothesis)`` int64, what was said last.
            state: what the step before gave.
            memory: of the source, of each sentence once, as :meth:`memory` has laid it out.

        Returns:
            logits ``(batch, hypothesis, vocabulary)``, features ``(batch, hypothesis, hidden)``,
            attention ``(batch, hypothesis, source)``, and the new state.
        """
        shape, size = tokens.shape, self.size
        rows = tokens.numel()
        hidden, cell = [], []
        below = state.feature.reshape(rows, size) if self.decoder.input_feeding else None
        for level, gates in enumerate(self._gates):
            before = state.hidden[level].reshape(rows, size)
            sums = gates(before if below is None else torch.cat([below, before], 1))
            kept = state.cell[level].reshape(rows, size)
            new, kept = self._cell(level, sums, tokens.reshape(rows), kept)
            hidden.append(new)
            cell.append(kept)
            below = new
        assert below is not None
        flat, weights = self._look(below, shape, memory, state.coverage)
        logits = self._output(flat if self._project is None else self._project(flat))
        coverage = None if state.coverage is None else state.coverage + weights
        after = DecoderState(
            _stacked(hidden).view(-1, *shape, size),
            _stacked(cell).view(-1, *shape, size),
            flat.view(*shape, size),
            coverage,
        )
        return logits.view(*shape, -1), after.feature, weights, after

    def _cell(
        self, level: int, sums: Tensor, tokens: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step of a layer, from the sums of its gates ``(row, 4 * hidden)``; uses them up."""
        if not self._compiled:
            sums += self._biases[level - 1] if level else self._token_gates(tokens)
            return _cell(sums, cell)
        if level:
            return steps_native.cells(sums, self._biases[level - 1], None, cell)
        table = self._token_gates.table(len(tokens))
        if table is None:
            return steps_native.cells(sums.add_(self._token_gates.direct(tokens)), None, None, cell)
        return steps_native.cells(sums, table, tokens, cell)

    def _look(
        self, states: Tensor, shape: torch.Size, memory: Memory, coverage: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """From states ``(row, hidden)`` to features of that shape, and the attention."""
        query, flat = states.view(*shape, -1), self._onto(states)
        if self._compiled:
            return flat, steps_native.read(query, *memory, flat.view(query.shape))
        context, weights = self.decoder.attention(query, memory, coverage)
        return flat.add_(context.reshape(flat.shape)).tanh_(), weights


def _stacked(layers: list[Tensor]) -> Tensor:
    return layers[0].unsqueeze(0) if len(layers) == 1 else torch.stack(layers)


def _cell(sums: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM from the sums of its gates ``(row, 4 * hidden)``, which are used up."""
    size = cell.shape[1]
    sums[:, : 3 * size].sigmoid_()
    i, f, o, g = torch.split(sums, size, 1)
    after = torch.mul(f, cell).addcmul_(i, g.tanh())
    return torch.tanh(after).mul_(o), after


class Kept:
    """Steps that were laid out before, for as long as the weights stay as they are.

    The fused optimizers change weights without a new version: whoever trains has to begin anew.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[int, bool], tuple[tuple[int, ...], DecoderSteps]] = {}

    def get(
        self,
        rows: int,
        rounded: bool,
        versions: tuple[int, ...],
        make: Callable[[int], DecoderSteps],
    ) -> DecoderSteps:
        """Return the steps for about so many rows, made anew where a weight has changed.

        Args:
            rows: hypotheses at once.
            rounded: see :class:`DecoderSteps`.
            versions: of the weights: where each lies and how often it was written to.
            make: lays the weights out for so many rows.
        """
        size = 1 if rows <= 2 else 8 if rows <= 16 else 256
        known = self._made.get((size, rounded))
        if known is None or known[0] != versions:
            known = (versions, make(size))
            self._made[size, rounded] = known
        return known[1]

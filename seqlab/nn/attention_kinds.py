"""The kinds of attention: how a query is compared with the states of a source.

The source is projected once a sentence, see :class:`Memory`; queries may come one at a time, all
steps of a target at once, or as the hypotheses of a beam, which share the memory of their sentence.
Padding never counts: what stands there may be anything, and its weight is exactly zero.

Shape notation: ``batch`` counts sentences, ``query`` what asks, ``source`` the tokens asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

HEADS = 8
WINDOW = 10
# How many numbers of (batch, query, source, size) additive attention holds at a time.
LARGEST = 2**24


class Memory(NamedTuple):
    """A source as an attention sees it: projected, ready to be asked any number of times.

    Attributes:
        keys: what queries are compared with, ``(batch, source, size)``; of several heads
            ``(batch, head, source, size)``, so that no step has to bring a head together.
        values: what is read, ``(batch, source, output_size)``, or by heads as the keys.
        mask: ``(batch, source)`` bool, True = real token.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor

    def select(self, sentences: Tensor) -> Memory:
        """Keep some of the sentences.

        Args:
            sentences: ``(kept,)`` int64, which ones, in their new order; one may come twice.
        """
        return Memory(*(part.index_select(0, sentences) for part in self))


class Attention(nn.Module, ABC):
    """What all kinds share: values, the mask, coverage and the softmax.

    The softmax is taken in float32 at least, also where autocast computes the scores in less. The
    projection of the values stands for the context's half of a decoder's output layer, so that
    ``tanh(W [context; h])`` becomes ``tanh(context + W_h h)`` and the larger half of the work is
    done once a sentence.

    Args:
        query_size: size of a query.
        memory_size: size of a state of the source.
        output_size: size of the context.
        coverage: whether scores depend on the attention that a token has had so far.

    Attributes:
        output_size: as given.
    """

    coverage: Tensor | None

    def __init__(
        self, query_size: int, memory_size: int, output_size: int, coverage: bool = False
    ) -> None:
        super().__init__()
        self.query_size = query_size
        self.memory_size = memory_size
        self.output_size = output_size
        self.values = _glorot(memory_size, output_size)
        # From zero, so that coverage may join a model that was trained without.
        self.coverage = nn.Parameter(torch.zeros(self._coverage_size)) if coverage else None

    _coverage_size = 1

    def memory(self, states: Tensor, lengths: Tensor) -> Memory:
        """Project a source, once for all queries.

        Args:
            states: ``(batch, source, memory_size)``; what stands at padding has no meaning.
            lengths: ``(batch,)`` int64, tokens of each sentence, at least one.
        """
        time = torch.arange(states.shape[1], device=states.device)
        mask = time < lengths.unsqueeze(1)  # (batch, source)
        states = states.masked_fill(~mask.unsqueeze(-1), 0.0)  # 0 times infinity is no number
        return Memory(self._keys(states), self.values(states), mask)

    def forward(
        self, query: Tensor, memory: Memory, coverage: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read the source.

        Args:
            query: ``(batch, query, query_size)``.
            memory: of the same batch, from :meth:`memory`.
            coverage: ``(batch, query, source)``, the weights that each token has had from earlier
                queries, added up; None where there were none.

        Returns:
            The context ``(batch, query, output_size)``, and the weights ``(batch, query, source)``,
            at least float32, which sum to 1 over the source; of several heads their mean.

        Raises:
            ValueError: there is coverage, but the attention was built without.
        """
        if coverage is not None:
            if self.coverage is None:
                raise ValueError("this attention was built without coverage.")
            coverage = coverage.masked_fill(~memory.mask.unsqueeze(1), 0.0)
        return self._read(query, memory, coverage)

    def _read(
        self, query: Tensor, memory: Memory, coverage: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores = self._scores(query, memory, coverage)
        weights = _softmax(scores, memory.mask.unsqueeze(1))  # (batch, query, source)
        return weights.to(memory.values.dtype) @ memory.values, weights

    def _covered(self, scores: Tensor, coverage: Tensor | None) -> Tensor:
        """Add a learned multiple of the coverage to ``scores (batch, query, source)``."""
        if coverage is None or self.coverage is None:
            return scores
        return scores + self.coverage * coverage

    @abstractmethod
    def _keys(self, states: Tensor) -> Tensor:
        """Project ``states (batch, source, memory_size)``, zero at padding."""

    @abstractmethod
    def _scores(self, query: Tensor, memory: Memory, coverage: Tensor | None) -> Tensor:
        """``(batch, query, source)``; anything at padding."""


class DotAttention(Attention):
    """Scores are the products of query and state (Luong et al., 2015, equation 8, dot)."""

    def _keys(self, states: Tensor) -> Tensor:
        return states

    def _scores(self, query: Tensor, memory: Memory, coverage: Tensor | None) -> Tensor:
        return self._covered(query @ memory.keys.transpose(1, 2), coverage)


class GeneralAttention(DotAttention):
    """Scores are ``query W state`` (Luong et al., 2015, equation 8, general)."""

    def __init__(
        self, query_size: int, memory_size: int, output_size: int, coverage: bool = False
    ) -> None:
        super().__init__(query_size, memory_size, output_size, coverage)
        self.keys = _glorot(memory_size, query_size)

    def _keys(self, states: Tensor) -> Tensor:
        return self.keys(states)  # type: ignore[no-any-return]


class AdditiveAttention(Attention):
    """Scores are ``v . tanh(W query + U state + b)`` (Bahdanau et al., 2015, appendix A.1.2).

    Coverage enters inside of the tanh (See et al., 2017, equation 11). The sum is as large as all
    its parts together, so that queries are taken in groups of at most `LARGEST` numbers, and for
    the backward pass all groups but one are computed again rather than kept.
    """

    def __init__(
        self, query_size: int, memory_size: int, output_size: int, coverage: bool = False
    ) -> None:
        self._coverage_size = query_size
        super().__init__(query_size, memory_size, output_size, coverage)
        self.keys = _glorot(memory_size, query_size)
        self.query = _glorot(query_size, query_size, bias=True)
        self.score = _glorot(query_size, 1)

    def _keys(self, states: Tensor) -> Tensor:
        return self.keys(states)  # type: ignore[no-any-return]

    def _scores(self, query: Tensor, memory: Memory, coverage: Tensor | None) -> Tensor:
        query = self.query(query)  # (batch, query, query_size)
        step = max(1, LARGEST // max(1, memory.keys.numel()))
        if step >= query.shape[1]:
            return self._together(query, memory.keys, coverage)
        groups = [
            checkpoint(
                self._together,
                query[:, start : start + step],
                memory.keys,
                None if coverage is None else coverage[:, start : start + step],
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for start in range(0, query.shape[1], step)
        ]
        return torch.cat(groups, 1)

    def _together(self, query: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """Score projected queries ``(batch, some, query_size)``."""
        total = query.unsqueeze(2) + keys.unsqueeze(1)  # (batch, some, source, query_size)
        if coverage is not None and self.coverage is not None:
            total = total + coverage.unsqueeze(-1) * self.coverage
        return self.score(torch.tanh(total)).squeeze(-1)  # type: ignore[no-any-return]


class LocalAttention(GeneralAttention):
    """General scores in a window round a place that the query predicts (Luong et al., 2015).

    The centre is ``(length - 1) * sigmoid(v . tanh(W query))``, counted from 0, so that it is a
    place in the sentence whatever its padding (equation 9). A Gaussian of standard deviation
    ``window / 2`` round it enters the scores as its logarithm, and what is further away than
    ``window`` has no weight. Equation 10 multiplies after the softmax, and its weights sum to less
    than 1; here they sum to 1, as copying and coverage ask.

    Args:
        query_size: size of a query.
        memory_size: size of a state of the source.
        output_size: size of the context.
        coverage: see :class:`Attention`.
        window: how many tokens are seen on either side of the centre, at least one.
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        output_size: int,
        coverage: bool = False,
        window: int = WINDOW,
    ) -> None:
        super().__init__(query_size, memory_size, output_size, coverage)
        self.window = window
        self.hidden = _glorot(query_size, query_size)
        self.place = _glorot(query_size, 1)

    def _scores(self, query: Tensor, memory: Memory, coverage: Tensor | None) -> Tensor:
        scores = super()._scores(query, memory, coverage)
        place = self.place(torch.tanh(self.hidden(query)))  # (batch, query, 1)
        length = memory.mask.sum(1).view(-1, 1, 1)
        centre = (length - 1) * torch.sigmoid(_exact(place))
        away = (
            torch.arange(scores.shape[-1], device=scores.device) - centre
        )  # (batch, query, source)
        scores = scores - 2.0 * (away / self.window).square()
        return scores.masked_fill(away.abs() > self.window, -torch.inf)


class MultiHeadAttention(Attention):
    """Several attentions side by side, each over a share of the size (Vaswani et al., 2017, 3.2).

    Args:
        query_size: size of a query.
        memory_size: size of a state of the source.
        output_size: size of the context; the heads share it.
        coverage: see :class:`Attention`; all heads have the same.
        heads: how many, a divisor of ``output_size``.
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        output_size: int,
        coverage: bool = False,
        heads: int = HEADS,
    ) -> None:
        super().__init__(query_size, memory_size, output_size, coverage)
        self.heads = heads
        self.keys = _glorot(memory_size, output_size)
        self.query = _glorot(query_size, output_size)
        self.output = _glorot(output_size, output_size)

    def memory(self, states: Tensor, lengths: Tensor) -> Memory:
        """Project a source, once for all queries; see :meth:`Attention.memory`."""
        whole = super().memory(states, lengths)
        return Memory(self._split(whole.keys), self._split(whole.values), whole.mask)

    def _keys(self, states: Tensor) -> Tensor:
        return self.keys(states)  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """From ``(batch, time, size)`` to ``(batch, head, time, size)``, a head in one piece."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2).contiguous()

    def _scores(self, query: Tensor, memory: Memory, coverage: Tensor | None) -> Tensor:
        """``(batch, head, query, source)``."""
        queries = self._split(self.query(query) * (self.output_size // self.heads) ** -0.5)
        seen = None if coverage is None else coverage.unsqueeze(1)
        return self._covered(queries @ memory.keys.transpose(2, 3), seen)

    def _read(
        self, query: Tensor, memory: Memory, coverage: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores = self._scores(query, memory, coverage)
        weights = _softmax(scores, memory.mask[:, None, None])  # (batch, head, query, source)
        read = weights.to(memory.values.dtype) @ memory.values
        return self.output(read.transpose(1, 2).flatten(2)), weights.mean(1)


def _glorot(input_size: int, output_size: int, bias: bool = False) -> nn.Linear:
    """A layer with the weights of Glorot and Bengio (2010) and a bias of zero."""
    layer = nn.Linear(input_size, output_size, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _exact(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, _exact(scores), -torch.inf).softmax(-1)

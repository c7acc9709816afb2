"""Pooling: the states of a sequence, however many, become one vector.

Padding never counts: what stands there may be anything, and attention gives it a weight of exactly
zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from seqlab.errors import RecipeError, check_range, nearest

PoolingName = Literal["last", "mean", "max", "attention"]
Pooled = tuple[Tensor, Tensor | None]


class LastPooling(nn.Module):
    """The state at which each direction has read everything (Sutskever et al., 2014).

    Args:
        input_size: size of a state.
        forward_size: the first so many dimensions were read from left to right and are taken at the
            last token, the rest was read from right to left and is taken at the first. None where
            directions are merged into one: the whole state is taken at both ends.

    Attributes:
        output_size: ``input_size``, or twice that where ``forward_size`` is None.
    """

    def __init__(self, input_size: int, forward_size: int | None) -> None:
        super().__init__()
        self.forward_size = input_size if forward_size is None else forward_size
        self.backward_size = input_size if forward_size is None else input_size - forward_size
        self.output_size = self.forward_size + self.backward_size

    def forward(self, states: Tensor, mask: Tensor) -> Pooled:
        """Pool ``states (batch, time, input_size)``; see :class:`Pooling`."""
        final = (mask.sum(1) - 1).clamp(min=0).view(-1, 1, 1)
        ahead = states[..., : self.forward_size]
        ends = ahead.gather(1, final.expand(-1, 1, self.forward_size)).squeeze(1)
        back = states[:, 0, states.shape[-1] - self.backward_size :]  # (batch, backward_size)
        return torch.cat([ends, back], -1), None


class _SizeKept(nn.Module):
    """A pooling whose output is as large as a state."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.output_size = input_size


class MeanPooling(_SizeKept):
    """The mean of the states of real tokens.

    Args:
        input_size: size of a state, and of the output.
    """

    def forward(self, states: Tensor, mask: Tensor) -> Pooled:
        """Pool ``states (batch, time, input_size)``; see :class:`Pooling`."""
        total = states.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
        return total / mask.sum(1, keepdim=True).clamp(min=1), None


class MaxPooling(_SizeKept):
    """The largest value of each dimension over the real tokens (Collobert et al., 2011).

    Args:
        input_size: size of a state, and of the output.
    """

    def forward(self, states: Tensor, mask: Tensor) -> Pooled:
        """Pool ``states (batch, time, input_size)``; see :class:`Pooling`."""
        lowest = torch.finfo(states.dtype).min
        return states.masked_fill(~mask.unsqueeze(-1), lowest).amax(1), None


class AttentionPooling(nn.Module):
    """A learned weighted mean of the states, or several of them.

    Every token is scored by ``context . tanh(W state + b)``, and the softmax of the scores over the
    tokens of a text weights its states (Yang et al., 2016, equations 5 to 7). Each head has a
    context of its own, as the rows of W_s2 in Lin et al. (2017, equation 6).

    Args:
        input_size: size of a state.
        heads: how many weighted means.

    Attributes:
        output_size: ``heads * input_size``.
    """

    def __init__(self, input_size: int, heads: int = 1) -> None:
        super().__init__()
        self.output_size = heads * input_size
        self.hidden = nn.Linear(input_size, input_size)
        self.context = nn.Linear(input_size, heads, bias=False)
        for layer in (self.hidden, self.context):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.hidden.bias)

    def forward(self, states: Tensor, mask: Tensor) -> Pooled:
        """Pool ``states (batch, time, input_size)``; see :class:`Pooling`."""
        states = states.masked_fill(~mask.unsqueeze(-1), 0.0)  # 0 times infinity is no number
        scores = self.context(torch.tanh(self.hidden(states)))  # (batch, time, head)
        scores = scores.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        weights = scores.softmax(1).transpose(1, 2)  # (batch, head, time)
        pooled = weights.to(states.dtype) @ states  # (batch, head, input_size)
        return pooled.flatten(1), weights


class Pooling(nn.Module):
    """One or several kinds of pooling side by side; see :func:`make_pooling`.

    Args:
        parts: each called with states and mask, and with an ``output_size``.

    Attributes:
        output_size: the sizes of all parts together.
    """

    def __init__(
        self, parts: Sequence[LastPooling | MeanPooling | MaxPooling | AttentionPooling]
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.output_size = sum(part.output_size for part in parts)

    def forward(self, states: Tensor, mask: Tensor) -> Pooled:
        """Pool the states of each sequence.

        Args:
            states: ``(batch, time, input_size)``; what stands at padding has no meaning.
            mask: ``(batch, time)`` bool, True = real token; every row has one.

        Returns:
            ``(batch, output_size)``, and the weights of attention ``(batch, head, time)``, which
            sum to 1 over time; None without attention.
        """
        found = [part(states, mask) for part in self.parts]
        weights = [weights for _, weights in found if weights is not None]
        return torch.cat([pooled for pooled, _ in found], -1), weights[0] if weights else None


def make_pooling(
    names: str | Sequence[str], input_size: int, forward_size: int | None, heads: int = 1
) -> Pooling:
    """Build a pooling.

    Args:
        names: ``last``, ``mean``, ``max``, ``attention``, or several of them, whose results stand
            side by side.
        input_size: size of a state.
        forward_size: see :class:`LastPooling`.
        heads: of ``attention``.

    Raises:
        RecipeError: a name is unknown or stands twice, there is none, or ``heads`` does nothing.

    Example:
        >>> make_pooling(["mean", "max"], 3, None).output_size
        6
    """
    chosen = [names] if isinstance(names, str) else list(names)
    known = get_args(PoolingName)
    for name in chosen:
        if name not in known:
            raise RecipeError(
                f"model.pooling: {name!r} is none of {', '.join(known)}.{nearest(name, known)}"
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise RecipeError(
            f"model.pooling is {chosen}: name at least one of {', '.join(known)}, each once."
        )
    check_range("model.heads", heads, 1)
    if heads > 1 and "attention" not in chosen:
        raise RecipeError(
            f"model.heads is {heads}, but model.pooling has no attention: add it, or leave heads "
            "out."
        )
    return Pooling([_part(name, input_size, forward_size, heads) for name in chosen])


def _part(
    name: str, input_size: int, forward_size: int | None, heads: int
) -> LastPooling | MeanPooling | MaxPooling | AttentionPooling:
    if name == "last":
        return LastPooling(input_size, forward_size)
    if name == "mean":
        return MeanPooling(input_size)
    return MaxPooling(input_size) if name == "max" else AttentionPooling(input_size, heads)

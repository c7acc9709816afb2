"""Attention by name: each query reads the states of a source, weighted by how well they answer it.

What the kinds compute, and what stands for padding, is in `seqlab.nn.attention_kinds`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from seqlab.errors import RecipeError, check_range, nearest
from seqlab.nn.attention_kinds import (
    HEADS,
    WINDOW,
    AdditiveAttention,
    Attention,
    DotAttention,
    GeneralAttention,
    LocalAttention,
    Memory,
    MultiHeadAttention,
)

__all__ = ["Attention", "AttentionName", "Memory", "coverage_loss", "make_attention"]

AttentionName = Literal["dot", "general", "additive", "multi-head", "local"]


def make_attention(
    kind: str,
    query_size: int,
    memory_size: int,
    output_size: int,
    *,
    heads: int | None = None,
    window: int | None = None,
    coverage: bool = False,
) -> Attention:
    """Build an attention.

    Args:
        kind: ``dot``, ``general``, ``additive``, ``multi-head`` or ``local``.
        query_size: size of a query, as of the state of a decoder.
        memory_size: size of a state of the source.
        output_size: size of the context.
        heads: of ``multi-head``, 8 if None.
        window: of ``local``, tokens on either side, 10 if None.
        coverage: see :class:`Attention`.

    Raises:
        RecipeError: the kind is unknown, sizes do not fit, or an option does nothing.

    Example:
        >>> attention = make_attention("general", query_size=4, memory_size=6, output_size=3)
        >>> memory = attention.memory(torch.randn(2, 5, 6), torch.tensor([5, 3]))
        >>> context, weights = attention(torch.randn(2, 7, 4), memory)
        >>> context.shape, weights.shape
        (torch.Size([2, 7, 3]), torch.Size([2, 7, 5]))
    """
    known = get_args(AttentionName)
    if kind not in known:
        raise RecipeError(
            f"model.attention: {kind!r} is none of {', '.join(known)}.{nearest(kind, known)}"
        )
    _check_option("heads", heads, kind, "multi-head")
    _check_option("window", window, kind, "local")
    sizes = (query_size, memory_size, output_size)
    if kind == "multi-head":
        return _multi_head(*sizes, coverage, HEADS if heads is None else heads)
    if kind == "local":
        return LocalAttention(*sizes, coverage, WINDOW if window is None else window)
    if kind == "dot" and query_size != memory_size:
        raise RecipeError(
            f"model.attention is dot, but a state of the decoder has {query_size} dimensions and "
            f"one of the encoder {memory_size}: make them equal, or choose general."
        )
    kinds = {"dot": DotAttention, "general": GeneralAttention, "additive": AdditiveAttention}
    return kinds[kind](*sizes, coverage)


def coverage_loss(weights: Tensor, mask: Tensor) -> Tensor:
    """How often attention went where it had been (See et al., 2017, equation 12).

    Args:
        weights: ``(batch, time, source)``, step after step; what stands at padding in time has no
            meaning.
        mask: ``(batch, time)`` bool, True = a step that counts.

    Returns:
        The sum over all steps and tokens of the lesser of weight and coverage, a scalar.

    Example:
        >>> weights = torch.tensor([[[1.0, 0.0], [0.75, 0.25]]])
        >>> coverage_loss(weights, torch.tensor([[True, True]]))
        tensor(0.7500)
    """
    weights = weights.masked_fill(~mask.unsqueeze(-1), 0.0)
    before = weights[:, :-1].cumsum(1)  # the first step finds nothing covered
    return torch.minimum(weights[:, 1:], before).sum()


def _multi_head(
    query_size: int, memory_size: int, output_size: int, coverage: bool, heads: int
) -> MultiHeadAttention:
    if output_size % heads:
        raise RecipeError(
            f"model.heads is {heads}, which does not divide the attention's size {output_size}: "
            "choose a divisor of it."
        )
    return MultiHeadAttention(query_size, memory_size, output_size, coverage, heads)


def _check_option(name: str, value: int | None, kind: str, of: str) -> None:
    """Refuse an option that is out of range, or that the kind of attention does not have."""
    if value is None:
        return
    check_range(f"model.{name}", value, 1)
    if kind != of:
        raise RecipeError(
            f"model.{name} is {value}, but model.attention is {kind}: choose {of}, or leave {name} "
            "out."
        )

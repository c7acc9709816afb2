"""Convolution over the characters of words by table, and the largest value of each filter.

A convolution is linear in the embedding of each character. So every character of the alphabet goes
through every place of the filters once, and a window adds up to a sum of rows of that table. In the
backward pass only the largest window of each filter matters, and that alone is looked at.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seqlab.nn.kernels import characters_native, chosen


def largest_sums(characters: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    """Add up a table's rows over windows of characters, and take the largest sums of each word.

    Args:
        characters: ``(form, character)`` int64 on the CPU, 0 = padding, whose rows count as zero.
        table: ``(character id, place in the window, filter)``; an odd number of places.
        bias: ``(filter,)``.

    Returns:
        ``(form, filter)``: the largest over the real characters of a form, of equals the first; the
        smallest float where it has none. Differentiable once in table and bias.

    Example:
        >>> table = torch.tensor([[9.0], [1.0], [2.0]]).unsqueeze(1)  # a window of one character
        >>> largest_sums(torch.tensor([[1, 2], [1, 0]]), table, torch.tensor([0.5])).tolist()
        [[2.5], [1.5]]
    """
    value: Tensor = _LargestSums.apply(characters, table, bias)  # type: ignore[no-untyped-call]
    return value


class _LargestSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, characters: Tensor, table: Tensor, bias: Tensor) -> Tensor:
        characters, table, bias = characters.contiguous(), table.contiguous(), bias.contiguous()
        compiled = table.dtype == torch.float32 and chosen(table) == "native"
        values, where = (characters_native.largest if compiled else _largest)(
            characters, table, bias
        )
        ctx.compiled, ctx.shape = compiled, table.shape
        ctx.save_for_backward(characters, where)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        characters, where = ctx.saved_tensors
        gradient = gradient.masked_fill(where < 0, 0.0)  # (form, filter)
        table = None
        if ctx.needs_input_grad[1]:
            spread = characters_native.spread if ctx.compiled else _spread
            table = spread(characters, where, gradient, ctx.shape)
        return None, table, gradient.sum(0) if ctx.needs_input_grad[2] else None


def _shifted(characters: Tensor, window: int) -> Tensor:
    """With half a window of padding on either side: the characters at each place of the windows."""
    side = window // 2
    return functional.pad(characters, (side, side))  # (form, character + window - 1)


def _largest(characters: Tensor, table: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The largest sums (form, filter), and the position of each, -1 where there is none."""
    forms, width = characters.shape
    _, window, filters = table.shape
    table = table.index_fill(0, characters.new_zeros(1), 0.0)
    around = _shifted(characters, window)
    sums = bias.expand(forms * width, filters).clone()
    for place in range(window):
        ids = around[:, place : place + width].flatten()
        sums += table[:, place].contiguous().index_select(0, ids)
    sums = sums.view(forms, width, filters)
    smallest = torch.finfo(sums.dtype).min
    sums.masked_fill_((characters == 0).unsqueeze(-1), smallest)
    values, where = sums.max(1)
    return values, where.masked_fill_(values == smallest, -1)


def _spread(characters: Tensor, where: Tensor, gradient: Tensor, shape: torch.Size) -> Tensor:
    """Give the gradient (form, filter) of the largest sums to the table's rows they came from."""
    _, window, filters = shape
    around = _shifted(characters, window)
    filter_ids = torch.arange(filters)
    rows = [
        (around.gather(1, where.clamp(min=0) + place) * window + place) * filters + filter_ids
        for place in range(window)
    ]
    table = gradient.new_zeros(shape.numel())
    table.index_add_(0, torch.cat(rows).flatten(), gradient.repeat(window, 1).flatten())
    table[: window * filters] = 0.0  # padding has no gradient
    return table.view(shape)

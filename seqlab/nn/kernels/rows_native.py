"""The compiled twins of `seqlab.nn.rows`, `seqlab.nn.adam` and dropout on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from seqlab.nn.kernels.library import signature

_ADAM = (*[c_void_p] * 10, *[c_int32] * 2)
_SUMS = (*[c_void_p] * 2, *[c_int64] * 4, *[c_void_p] * 3)
_DROPPED = (*[c_void_p] * 2, c_int64, c_int32, c_float, c_void_p, c_int32)
_FEW = 1 << 15  # numbers below which waking threads costs more than they bring
_function = cache(signature)


# A step of Adam for a parameter: the parameter; its gradient, or that of some rows of it; int64
# numbers of these rows, rising, and uint8 for each row of the parameter, whether a gradient has
# ever reached it (which is brought up to date), or None; the averages of gradients and of their
# squares; and seven numbers: learning rate, corrected for the first average's start at zero; share
# of a weight that it loses, or that is added to its gradient; which of them (1 or 0); 1 minus the
# decay of either average; what corrects the root of the second; epsilon. Tensors are contiguous
# float32 on the CPU.
Rows = tuple[Tensor, Tensor]
Move = tuple[Tensor, Tensor, Rows | None, Tensor, Tensor, tuple[float, ...]]


def adam_(moves: Sequence[Move]) -> None:
    """Take a step of Adam in place, in one pass over the memory of all parameters.

    Args:
        moves: the parameters.
    """
    count = len(moves)
    pointers, integers = c_void_p * count, c_int64 * count
    values, gradients, rows, means, squares, numbers = zip(*moves, strict=True)
    _function("seqlab_adam", _ADAM)(
        *(pointers(*[x.data_ptr() for x in column]) for column in (values, gradients, means)),
        pointers(*[x.data_ptr() for x in squares]),
        integers(*[x.numel() for x in values]),
        pointers(*[None if x is None else x[0].data_ptr() for x in rows]),
        integers(*[-1 if x is None else len(x[0]) for x in rows]),
        integers(*[x.shape[-1] if x.ndim else 1 for x in values]),
        pointers(*[None if x is None else x[1].data_ptr() for x in rows]),
        (c_float * (7 * count))(*[x for row in numbers for x in row]),
        *(count, torch.get_num_threads()),
    )


def row_sums(ids: Tensor, gradient: Tensor, rows: int, padding: int) -> tuple[Tensor, Tensor]:
    """Add up the gradients of the rows that tokens were looked up in, in the order of the tokens.

    Args:
        ids: ``(token,)`` int64, the row of each.
        gradient: ``(token, size)`` float32.
        rows: how many there are.
        padding: the row that has no gradient, -1 for none.

    Returns:
        ``(row,)`` int64 numbers of rows, rising, and ``(row, size)`` their sums.
    """
    tokens, width = gradient.shape
    found = torch.empty(min(tokens, rows), dtype=torch.int64)
    sums = torch.empty(min(tokens, rows), width)
    places = torch.empty(rows, dtype=torch.int32)
    count = _function("seqlab_row_sums", _SUMS, c_int64)(
        *(ids.data_ptr(), gradient.data_ptr()),
        *(tokens, width, rows, padding),
        *(places.data_ptr(), found.data_ptr(), sums.data_ptr()),
    )
    return found[:count], sums[:count]


def dropped(x: Tensor, draws: Tensor, threshold: int, scale: float) -> Tensor:
    """Multiply by a scale, or by zero where a byte drawn is below a threshold.

    Args:
        x: any shape, contiguous float32.
        draws: at least as many bytes, int8.
        threshold: from -128 to 127.
        scale: of what stays.
    """
    out = torch.empty_like(x)
    count = x.numel()
    _function("seqlab_dropped", _DROPPED)(
        *(x.data_ptr(), draws.data_ptr(), count, threshold, scale, out.data_ptr()),
        torch.get_num_threads() if count > _FEW else 1,
    )
    return out

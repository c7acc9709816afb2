"""The compiled twin of `seqlab.nn.characters`: largest sums over windows, and their gradient."""

from __future__ import annotations

from ctypes import c_int32, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from seqlab.nn.kernels.library import signature

_LARGEST = (*[c_void_p] * 3, *[c_int64] * 4, *[c_void_p] * 2, c_int32)
_SPREAD = (*[c_void_p] * 3, *[c_int64] * 4, c_void_p, c_int32)
_FEW = 1 << 16  # additions below which waking threads costs more than they bring
_function = cache(signature)


def largest(characters: Tensor, table: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Take the largest sums of a table's rows over windows of characters.

    Args:
        characters: ``(form, character)`` int64, 0 = padding.
        table: ``(character id, place in the window, filter)`` float32.
        bias: ``(filter,)`` float32.

    Returns:
        The sums ``(form, filter)``, and the position of each, int32, -1 where a form has no
        character. All tensors are contiguous and on the CPU.
    """
    forms, width = characters.shape
    _, window, filters = table.shape
    values = torch.empty(forms, filters)
    where = torch.empty(forms, filters, dtype=torch.int32)
    _function("seqlab_characters", _LARGEST)(
        *(tensor.data_ptr() for tensor in (characters, table, bias)),
        *(forms, width, window, filters),
        *(values.data_ptr(), where.data_ptr()),
        _threads(forms * width * window * filters),
    )
    return values, where


def spread(characters: Tensor, where: Tensor, gradient: Tensor, shape: torch.Size) -> Tensor:
    """Give the gradient of the largest sums to the table's rows they came from.

    Args:
        characters: as in :func:`largest`.
        where: what that returned.
        gradient: ``(form, filter)``.
        shape: of the table.

    Returns:
        The gradient of the table, the same whatever the number of threads.
    """
    forms, width = characters.shape
    _, window, filters = shape
    table = torch.zeros(shape)
    _function("seqlab_characters_backward", _SPREAD)(
        *(tensor.data_ptr() for tensor in (characters, where, gradient.contiguous())),
        *(forms, width, window, filters),
        table.data_ptr(),
        _threads(forms * window * filters),
    )
    return table


def _threads(additions: int) -> int:
    return torch.get_num_threads() if additions > _FEW else 1

"""The compiled twin of `seqlab.nn.losses`: losses of a softmax, and their gradients."""

from __future__ import annotations

from ctypes import c_float, c_int32, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from seqlab.nn.kernels import chosen
from seqlab.nn.kernels.library import signature

_ROWS = (
    *[c_void_p] * 3,
    *[c_int64] * 2,
    *(c_float, c_int32),
    *[c_void_p] * 4,
    *(c_int64, c_int32),
)
_LINE = 16  # float32 in a cache line, and in the widest vector
_function = cache(signature)


def supports(logits: torch.dtype, like: Tensor) -> bool:
    """Say whether the kernel computes here.

    Args:
        logits: their type.
        like: what is where they will be.
    """
    if torch.compiler.is_compiling() or logits not in (torch.float32, torch.bfloat16):
        return False
    return like.is_cpu and chosen(like) == "native"


def smoothed_rows(
    logits: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: float,
    losses: Tensor,
    gradient: Tensor | None,
    sums: Tensor | None,
) -> None:
    """Compute the smoothed cross-entropy of rows of logits, and its gradient.

    All tensors are contiguous and on the CPU. The same comes out whatever the number of threads.

    Args:
        logits: ``(row, vocabulary)`` float32 or bfloat16.
        bias: ``(vocabulary,)`` float32, added to each row first; None for none.
        target: ``(row,)`` int64.
        smoothing: share of the target that is spread over the vocabulary.
        losses: ``(row,)`` float32, where the losses go.
        gradient: where that of the logits goes, of their shape and type; None for nowhere.
        sums: ``(vocabulary,)`` float32, what the gradient's rows are added to; None for nothing.

    Raises:
        IndexError: a target is not in the vocabulary.
    """
    rows, vocabulary = logits.shape
    if rows and not 0 <= int(target.min()) <= int(target.max()) < vocabulary:
        raise IndexError(f"a target is not from 0 to {vocabulary - 1}")
    threads = torch.get_num_threads()
    room = -(-vocabulary // _LINE) * _LINE
    scratch = torch.empty(threads, room)
    _function("seqlab_smoothed_rows", _ROWS)(
        *(logits.data_ptr(), None if bias is None else bias.data_ptr(), target.data_ptr()),
        *(rows, vocabulary),
        *(smoothing, logits.dtype == torch.bfloat16),
        losses.data_ptr(),
        *(x if x is None else x.data_ptr() for x in (gradient, sums)),
        scratch.data_ptr(),
        *(room, threads),
    )

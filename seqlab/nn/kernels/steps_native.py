"""The compiled twin of what `seqlab.nn.decoder_steps` does between its products."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from seqlab.nn.kernels import chosen
from seqlab.nn.kernels.library import signature

_MANY = 1 << 14  # numbers below which waking threads costs more than they bring
_function = cache(signature)


class _Cells(Structure):
    """`Cells` in `native/steps.cpp`."""

    _fields_ = [
        *((name, c_void_p) for name in ("sums", "table", "tokens", "bias", "before")),
        *((name, c_void_p) for name in ("hidden", "after")),
        *((name, c_int64) for name in ("rows", "size", "threads")),
    ]


class _Reading(Structure):
    """`Reading` in `native/steps.cpp`."""

    _fields_ = [
        *((name, c_void_p) for name in ("query", "keys", "values", "mask", "raw", "weights")),
        *((name, c_int64) for name in ("sentences", "hypotheses", "source", "size", "threads")),
    ]


_CELLS, _READING = (POINTER(_Cells),), (POINTER(_Reading),)


def supports(like: Tensor) -> bool:
    """Say whether the kernels compute here.

    Args:
        like: a weight of the decoder.
    """
    if torch.compiler.is_compiling() or like.dtype != torch.float32 or not like.is_cpu:
        return False
    return chosen(like) == "native"


def cells(
    sums: Tensor, more: Tensor | None, tokens: Tensor | None, before: Tensor
) -> tuple[Tensor, Tensor]:
    """Take a step of an LSTM. All tensors are float32 and on the CPU; sums and more contiguous.

    Args:
        sums: ``(row, 4 * size)``, of the gates in the order input, forget, output, candidate.
        more: what is added to them: ``(token, 4 * size)`` where tokens are given, else
            ``(4 * size,)`` or None for nothing.
        tokens: ``(row,)`` int64, which rows of ``more`` are added.
        before: ``(row, size)``, the cells.

    Returns:
        The hidden states and the cells, each ``(row, size)``.
    """
    before = before.contiguous()
    rows, size = before.shape
    hidden, after = torch.empty_like(before), torch.empty_like(before)
    call = _Cells(
        sums=sums.data_ptr(),
        before=before.data_ptr(),
        hidden=hidden.data_ptr(),
        after=after.data_ptr(),
        rows=rows,
        size=size,
        threads=_threads(rows, rows * size),
    )
    if tokens is not None and more is not None:
        call.table, call.tokens = more.data_ptr(), tokens.data_ptr()
    elif more is not None:
        call.bias = more.data_ptr()
    _function("seqlab_step_cells", _CELLS)(byref(call))
    return hidden, after


def read(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, raw: Tensor) -> Tensor:
    """Attend to the sources, and make features of what is read.

    Scores are the products of queries and keys. All tensors are on the CPU, and numbers float32.

    Args:
        query: ``(sentence, hypothesis, size)``.
        keys: ``(sentence, source, size)``.
        values: likewise.
        mask: ``(sentence, source)`` bool, True = real token.
        raw: ``(sentence, hypothesis, size)``, contiguous, the state's share of the features; what
            is read is added, and ``raw`` becomes the tanh of that.

    Returns:
        The weights ``(sentence, hypothesis, source)``.
    """
    sentences, hypotheses, size = query.shape
    source = keys.shape[1]
    weights = query.new_empty(sentences, hypotheses, source)
    given = [x.contiguous() for x in (query, keys, values, mask)]
    call = _Reading(
        *(x.data_ptr() for x in (*given, raw, weights)),
        *(sentences, hypotheses, source, size),
        _threads(sentences * hypotheses, query.numel() * source),
    )
    _function("seqlab_step_reading", _READING)(byref(call))
    return weights


def _threads(rows: int, work: int) -> int:
    return min(rows, torch.get_num_threads()) if work > _MANY else 1

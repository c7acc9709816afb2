"""The compiled twin of `seqlab.nn.search_choices`: the best continuations, straight from logits."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_int64, c_void_p
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from seqlab.nn.kernels import chosen
from seqlab.nn.kernels.library import signature

MOST = 64  # hypotheses beyond which another way of choosing is faster
_MANY = 1 << 15  # logits below which waking threads costs more than they bring
_function = cache(signature)


class _Choosing(Structure):
    """`Choosing` in `native/search.cpp`."""

    _fields_ = [
        *((name, c_void_p) for name in ("logits", "base", "last", "forbidden")),
        *((name, c_void_p) for name in ("totals", "parents", "tokens", "ended")),
        *((name, c_int64) for name in ("sentences", "hypotheses", "size", "count")),
        *((name, c_int64) for name in ("forbiddens", "end", "padding", "normalised", "threads")),
    ]


_CHOOSE = (POINTER(_Choosing),)


class Found(NamedTuple):
    """What a step of search goes on with.

    Attributes:
        totals: ``(sentence, count)``, the greatest first; of equals the lowest hypothesis first,
            then the lowest token. ``-inf`` where there were not enough.
        parents: the hypotheses that they continue.
        tokens: the tokens that they add; padding where there were not enough.
        ended: ``(sentence, hypothesis)``, what the end token comes to.
    """

    totals: Tensor
    parents: Tensor
    tokens: Tensor
    ended: Tensor


def supports(logits: Tensor, count: int) -> bool:
    """Say whether the kernel chooses here.

    Args:
        logits: any.
        count: how many continuations are wanted of a sentence.
    """
    if torch.compiler.is_compiling() or logits.dtype != torch.float32 or count > MOST:
        return False
    return logits.is_cpu and chosen(logits) == "native"


def best(
    logits: Tensor,
    base: Tensor | None,
    count: int,
    *,
    forbidden: Tensor,
    end: int,
    padding: int,
    last: Tensor | None = None,
    normalised: bool = True,
) -> Found:
    """Choose the best continuations of each sentence.

    Args:
        logits: ``(sentence, hypothesis, size)`` float32 on the CPU.
        base: ``(sentence, hypothesis)``, what each hypothesis has so far; None for zeros.
        count: how many are wanted.
        forbidden: ``(token,)`` int64, tokens that are not chosen.
        end: the end token.
        padding: what stands where there were not enough.
        last: ``(sentence,)`` bool, where none is wanted; None for nowhere.
        normalised: whether log-probabilities are added up, or the logits as they are.
    """
    sentences, hypotheses, size = logits.shape
    totals = logits.new_empty(sentences, count)
    parents = torch.empty(sentences, count, dtype=torch.int64)
    tokens = torch.empty_like(parents)
    ended = logits.new_empty(sentences, hypotheses)
    given = (logits.contiguous(), base if base is None else base.contiguous(), last, forbidden)
    made = Found(totals, parents, tokens, ended)
    call = _Choosing(
        *(x if x is None else x.data_ptr() for x in (*given, *made)),
        *(sentences, hypotheses, size, count, len(forbidden), end, padding, normalised),
        min(sentences, torch.get_num_threads()) if logits.numel() > _MANY else 1,
    )
    _function("seqlab_choose", _CHOOSE)(byref(call))
    return made

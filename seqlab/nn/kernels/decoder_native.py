"""The compiled decoder with input feeding, of one layer, on a CPU: forwards and backwards.

It computes what `seqlab.nn.decoder_scan` computes, sequence by sequence where they lie, without the
dozens of small calls that a step takes there. What it does is said in `native/decoder.h`. Where
autocast asks for bfloat16, the factors of products with weights are rounded to it if the machine
has an instruction for that (AVX512_BF16); all else stays in float32.
"""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_int64, c_void_p
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqlab.nn.kernels import chosen
from seqlab.nn.kernels.library import signature
from seqlab.nn.kernels.lstm_native import rounds_in_bfloat16
from seqlab.nn.products import product

_LINE = 16  # float32 in a cache line
_GIVEN = ("gates", "keys", "values", "lengths", "fed", "recurrent", "output", "hidden", "cell")
_FOUND = ("features", "activated", "cells", "states", "raw", "weights")
_BACK = ("d_features", "d_gates", "d_raw", "d_weights", "d_hidden", "d_cell")


class _Decoding(Structure):
    """`Decoding` in `native/decoder.h`."""

    _fields_ = [
        *((name, c_void_p) for name in (*_GIVEN, "kept", *_FOUND, "scratch", *_BACK)),
        *((name, c_int64) for name in ("batch", "time", "source", "size", "threads", "fast")),
    ]


def supports(gates: Tensor, weight: Tensor) -> bool:
    """Say whether the kernel decodes here.

    Args:
        gates: what the tokens add to the gates.
        weight: one of the decoder's.
    """
    if torch.compiler.is_compiling() or weight.dtype != torch.float32 or not weight.is_cpu:
        return False
    if chosen(weight) != "native":
        return False
    rounded = torch.is_autocast_enabled("cpu")
    return not rounded or rounds_in_bfloat16(gates)


def feeding_decoder(
    gates: Tensor,
    keys: Tensor,
    values: Tensor,
    lengths: Tensor,
    fed: Tensor,
    recurrent: Tensor,
    output: Tensor,
    hidden: Tensor,
    cell: Tensor,
    kept: Tensor | None,
) -> Tensor:
    """Decode all steps of one layer; see :func:`seqlab.nn.decoder_scan.feeding_scan`.

    Args:
        gates: ``(batch, time, 4 * hidden)``, what the tokens add to the gates, biases included.
        keys: ``(batch, source, hidden)``.
        values: ``(batch, source, hidden)``.
        lengths: ``(batch,)`` int64, tokens of the source, at least one.
        fed: ``(4 * hidden, hidden)``, weights of the feature of the step before.
        recurrent: ``(4 * hidden, hidden)``, weights of the state.
        output: ``(hidden, hidden)``, weights of the state in the feature.
        hidden: ``(batch, hidden)``, before the first step.
        cell: likewise.
        kept: ``(batch, time, hidden)``, the dropout of the features as factors; None without.

    Returns:
        ``(batch, time, hidden)`` float32, the features after dropout; differentiable once.

    Raises:
        ValueError: shapes or lengths do not go together.
    """
    batch, time, columns = gates.shape
    size, source = columns // 4, keys.shape[1]
    shapes = {
        "keys": (keys, (batch, source, size)),
        "values": (values, (batch, source, size)),
        "lengths": (lengths, (batch,)),
        "fed": (fed, (columns, size)),
        "recurrent": (recurrent, (columns, size)),
        "output": (output, (size, size)),
        "hidden": (hidden, (batch, size)),
        "cell": (cell, (batch, size)),
        "kept": (gates[..., :size] if kept is None else kept, (batch, time, size)),
    }
    for name, (tensor, shape) in shapes.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} and not {shape}")
    if batch and not 1 <= int(lengths.min()) <= int(lengths.max()) <= source:
        raise ValueError(f"lengths {lengths.tolist()} do not go with a source of {source} tokens")
    return cast(
        Tensor,
        _Decode.apply(  # type: ignore[no-untyped-call]
            torch.is_autocast_enabled("cpu"),
            lengths.to(torch.int64).contiguous(),
            None if kept is None else kept.float().contiguous(),
            *(x.float() for x in (gates, keys, values, fed, recurrent, output, hidden, cell)),
        ),
    )


class _Decode(torch.autograd.Function):
    """See :func:`feeding_decoder`."""

    @staticmethod
    def forward(
        ctx: Any, fast: bool, lengths: Tensor, kept: Tensor | None, *given: Tensor
    ) -> Tensor:
        tensors = [x.contiguous() for x in given]
        gates, keys = tensors[0], tensors[1]
        batch, time, columns = gates.shape
        size = columns // 4
        found = {
            "features": gates.new_empty(batch, time, size),
            "activated": torch.empty_like(gates),
            "cells": gates.new_empty(batch, time, size),
            "states": gates.new_empty(batch, time, size),
            "raw": gates.new_empty(batch, time, size),
            "weights": gates.new_empty(batch, time, keys.shape[1]),
        }
        call = _call_of(fast, lengths, kept, tensors, list(found.values()))
        _run("seqlab_decoder", call)
        ctx.fast = fast
        ctx.save_for_backward(lengths, kept, *tensors, *found.values())
        return found["features"]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_features: Tensor) -> Any:
        lengths, kept, *rest = ctx.saved_tensors
        given, found = rest[: len(_GIVEN) - 1], rest[len(_GIVEN) - 1 :]
        hidden = given[6]
        features, activated, _, states, raw, weights = found
        d_features = d_features.float().contiguous()
        d_gates, d_raw = torch.empty_like(activated), torch.empty_like(raw)
        d_scores = torch.empty_like(weights)
        d_hidden, d_cell = torch.empty_like(hidden), torch.empty_like(hidden)
        call = _call_of(ctx.fast, lengths, kept, given, found)
        back = (d_features, d_gates, d_raw, d_scores, d_hidden, d_cell)
        for name, tensor in zip(_BACK, back, strict=True):
            setattr(call, name, tensor.data_ptr())
        _run("seqlab_decoder_backward", call)

        def weight(left: Tensor, right: Tensor) -> Tensor:
            return product(left.flatten(0, 1).t(), right.flatten(0, 1), ctx.fast)

        none = torch.zeros_like(hidden).unsqueeze(1)
        before = torch.cat([hidden.unsqueeze(1), states[:, :-1]], 1)
        fed = torch.cat([none, features[:, :-1]], 1)
        both = weight(d_gates, torch.cat([fed, before], -1))
        size = hidden.shape[1]
        return (
            *(None,) * 3,
            d_gates,
            torch.bmm(d_scores.transpose(1, 2), states),
            torch.bmm(weights.transpose(1, 2), d_raw),
            both[:, :size],
            both[:, size:],
            weight(d_raw, states),
            d_hidden,
            d_cell,
        )


def _call_of(fast: bool, lengths: Tensor, kept: Tensor | None, given: Any, found: Any) -> _Decoding:
    gates, keys, values, *weights = given
    batch, time, columns = gates.shape
    call = _Decoding(
        batch=batch,
        time=time,
        source=keys.shape[1],
        size=columns // 4,
        threads=torch.get_num_threads(),
        fast=fast,
        kept=None if kept is None else kept.data_ptr(),
    )
    tensors = (gates, keys, values, lengths, *weights, *found)
    for name, tensor in zip((*_GIVEN, *_FOUND), tensors, strict=True):
        setattr(call, name, tensor.data_ptr())
    return call


def _run(name: str, call: _Decoding) -> None:
    pointer = (POINTER(_Decoding),)
    room = signature(f"{name}_room", pointer, c_int64)(byref(call))
    scratch = np.empty(room + _LINE, np.float32)
    call.scratch = scratch.ctypes.data + -scratch.ctypes.data % (4 * _LINE)
    signature(name, pointer)(byref(call))

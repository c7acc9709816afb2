"""The compiled LSTM: whole layers over padded sequences on a CPU, forwards and backwards.

Torch's own kernel reads padding as if it were text, and the backward direction needs every sequence
turned round before and after. This one reads sequences where they lie and writes both directions
into one tensor. What it does is said in `native/lstm.h`.

Where autocast asks for bfloat16, the factors of products are rounded to it if the machine has an
instruction for that (AVX512_BF16); sums, gates, cells, outputs and gradients stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, Array, Structure, addressof, byref, c_int64, c_void_p
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqlab.nn.kernels import chosen
from seqlab.nn.kernels.library import signature

WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
_LINE = 16  # float32 in a cache line
_Tensors = Sequence[Tensor | None]


class _Layer(Structure):
    """`Layer` in `native/lstm.h`."""

    _fields_ = [
        *((name, c_void_p) for name in ("x", "lengths", "weights", "out", "gates", "cells")),
        *((name, c_void_p) for name in ("scratch", "d_out", "d_x", "d_weights")),
        *((name, c_int64) for name in ("batch", "time", "input", "hidden", "directions")),
        *((name, c_int64) for name in ("x_batch", "x_time", "tokens", "threads")),
        *(("rows", c_void_p), ("sums", c_void_p), ("known", c_int64), ("fast", c_int64)),
    ]


_RUN = (POINTER(_Layer),)
_COUNT = (c_void_p, c_int64, c_int64)


def supports(layers: Sequence[nn.Module], x: Tensor) -> bool:
    """Say whether the kernel computes these layers.

    Not computed are other cells than `torch.nn.LSTM`, projections, layers without biases, weights
    of other types than float32, what is being compiled, and what autocast would compute in another
    type, unless that is bfloat16 and the machine multiplies in it.

    Args:
        layers: one or two directions.
        x: ``(batch, time, input)`` float32; under autocast bfloat16 too.
    """
    if torch.compiler.is_compiling():
        return False
    rounded = torch.is_autocast_enabled("cpu")
    if rounded and not _multiplies(torch.get_autocast_dtype("cpu"), x):
        return False
    if x.dtype != torch.float32 and not (rounded and x.dtype == torch.bfloat16):
        return False
    return all(
        type(layer) is nn.LSTM
        and not layer.proj_size
        and layer.bias
        and layer.weight_hh_l0.dtype == torch.float32
        and layer.weight_hh_l0.is_cpu
        for layer in layers
    )


def _multiplies(dtype: torch.dtype, x: Tensor) -> bool:
    """Whether factors can be rounded to a type."""
    return dtype == torch.bfloat16 and rounds_in_bfloat16(x)


def rounds_in_bfloat16(x: Tensor) -> bool:
    """Say whether the compiled kernels can round the factors of products to bfloat16.

    Args:
        x: what they would work on.
    """
    if torch.get_autocast_dtype("cpu") != torch.bfloat16 or chosen(x) != "native":
        return False
    return bool(signature("seqlab_lstm_rounds", (), c_int64)())


def read(layers: Sequence[nn.Module], x: Tensor, lengths: Tensor) -> Tensor:
    """Let one or both directions of a layer read sequences.

    Under autocast factors are rounded to bfloat16, here and on the way back.

    Args:
        layers: such as :func:`supports` accepts; the first reads from left to right, the second
            from right to left, every sequence from its own end.
        x: ``(batch, time, input)``; what stands at padding is not read.
        lengths: ``(batch,)`` int64.

    Returns:
        ``(batch, time, directions * hidden)`` float32, 0 at padding. Differentiable once in ``x``
        and in all weights.

    Raises:
        ValueError: a length is negative or greater than time.
    """
    weights = [cast(Tensor, getattr(layer, name)) for layer in layers for name in WEIGHTS]
    fast, x = torch.is_autocast_enabled("cpu"), x.float()
    tracked = torch.is_grad_enabled() and (x.requires_grad or any(w.requires_grad for w in weights))
    if tracked:
        return cast(Tensor, _Read.apply(x, lengths, fast, *weights))  # type: ignore[no-untyped-call]
    return _Run(x, lengths, weights, fast).forward(keep=False)[0]


@torch.no_grad()
def sums(layers: Sequence[nn.Module], rows: Tensor) -> Tensor:
    """Multiply inputs by the weights that they meet in a layer, for :func:`look_up`; no gradient.

    Args:
        layers: such as :func:`supports` accepts.
        rows: ``(row, input)``.

    Returns:
        ``(direction, row, 4 * hidden)``, biases added.
    """
    weights = [[cast(Tensor, getattr(layer, name)) for name in WEIGHTS] for layer in layers]
    factors = _rounded if torch.is_autocast_enabled("cpu") else Tensor.float
    left = factors(rows)
    found = left.new_empty(len(layers), len(rows), len(weights[0][0]))
    with torch.autocast("cpu", enabled=False):
        for (own, _, bias, other), out in zip(weights, found, strict=True):
            torch.addmm(bias + other, left, factors(own).t(), out=out)
    return found


def _rounded(x: Tensor) -> Tensor:
    """Numbers as the kernel multiplies them in bfloat16: their products are exact in float32."""
    return x.bfloat16().float()


def look_up(
    layers: Sequence[nn.Module], table: Tensor, rows: Tensor, lengths: Tensor, known: Tensor
) -> Tensor:
    """As :func:`read` without a gradient, of sequences that are looked up in a table.

    Args:
        layers: such as :func:`supports` accepts.
        table: ``(row, input)``.
        rows: ``(batch, time)`` int64, the row of every token; any row of the table at padding.
        lengths: ``(batch,)`` int64.
        known: ``(direction, row, 4 * hidden)``, the :func:`sums` of the table's first rows, perhaps
            of none.

    Returns:
        ``(batch, time, directions * hidden)``, 0 at padding.

    Raises:
        ValueError: a length is negative or greater than time, or the table has no such row.
    """
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < len(table):
        raise ValueError(f"the table has no rows but 0 to {len(table) - 1}")
    weights = [cast(Tensor, getattr(layer, name)) for layer in layers for name in WEIGHTS]
    fast = torch.is_autocast_enabled("cpu")
    return _Run(table.float(), lengths, weights, fast, rows, known).forward(keep=False)[0]


class _Read(torch.autograd.Function):
    """See :func:`read`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: Tensor, fast: bool, *weights: Tensor) -> Tensor:
        run = _Run(x, lengths, weights, fast)
        ctx.fast = fast
        out, gates, cells = run.forward(keep=True)
        ctx.save_for_backward(run.x, run.lengths, out, gates, cells, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> Any:
        x, lengths, out, gates, cells, *weights = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        run = _Run(x, lengths, weights, ctx.fast)
        d_x, d_weights = run.backward(out, gates, cells, d_out, wanted[0], wanted[3:])
        return d_x, None, None, *d_weights


class _Run:
    """One layer over one batch."""

    def __init__(
        self,
        x: Tensor,
        lengths: Tensor,
        weights: Sequence[Tensor],
        fast: bool,
        rows: Tensor | None = None,
        known: Tensor | None = None,
    ) -> None:
        self.x = x if x.stride(-1) == 1 else x.contiguous()
        self.lengths = lengths.to(torch.int64).contiguous()
        self.weights = [weight.contiguous() for weight in weights]
        self.looked_up = None if rows is None or known is None else (rows.contiguous(), known)
        self.shape = batch, time = x.shape[:2] if rows is None else rows.shape
        size = x.shape[-1]
        if lengths.shape != (batch,) or weights[0].shape[1] != size:
            raise ValueError(
                f"the input {tuple(x.shape)} goes neither with lengths {tuple(lengths.shape)} nor "
                f"with a layer that reads {weights[0].shape[1]} numbers"
            )
        count = signature("seqlab_lstm_tokens", _COUNT, c_int64)
        self.tokens = count(self.lengths.data_ptr(), batch, time)
        if self.tokens < 0:
            raise ValueError(f"lengths {lengths.tolist()} do not go with {time} steps")
        self.hidden, self.ways = weights[1].shape[1], len(weights) // len(WEIGHTS)
        self.layer = _Layer(
            x=self.x.data_ptr(),
            lengths=self.lengths.data_ptr(),
            batch=batch,
            time=time,
            input=size,
            hidden=self.hidden,
            directions=self.ways,
            x_batch=self.x.stride(0),
            x_time=self.x.stride(-2),
            tokens=self.tokens,
            threads=torch.get_num_threads(),
            fast=fast,
        )
        self.layer.weights, self._addresses = _addresses(self.weights)
        if self.looked_up is not None:
            index, sums = self.looked_up
            self.layer.rows, self.layer.sums = index.data_ptr(), sums.data_ptr()
            self.layer.known = sums.shape[1]

    def forward(self, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the output, and what the way back needs: empty if not to be kept."""
        out = self.x.new_empty(*self.shape, self.ways * self.hidden)
        kept = self.ways * self.tokens * keep
        gates, cells = self.x.new_empty(kept, 4 * self.hidden), self.x.new_empty(kept, self.hidden)
        self.layer.out = out.data_ptr()
        if keep:
            self.layer.gates, self.layer.cells = gates.data_ptr(), cells.data_ptr()
        self._call("seqlab_lstm")
        return out, gates, cells

    def backward(
        self,
        out: Tensor,
        gates: Tensor,
        cells: Tensor,
        d_out: Tensor,
        wants_x: bool,
        wants: Sequence[bool],
    ) -> tuple[Tensor | None, _Tensors]:
        """Compute the gradients of the input and of the weights, None where not wanted."""
        d_out = d_out.contiguous()
        d_x = self.x.new_empty(self.x.shape) if wants_x else None
        d_weights = [
            torch.empty_like(weight) if wanted else None
            for weight, wanted in zip(self.weights, wants, strict=True)
        ]
        layer = self.layer
        layer.out, layer.d_out = out.data_ptr(), d_out.data_ptr()
        layer.gates, layer.cells = gates.data_ptr(), cells.data_ptr()
        layer.d_x = None if d_x is None else d_x.data_ptr()
        layer.d_weights, addresses = _addresses(d_weights)
        self._call("seqlab_lstm_backward")
        del addresses
        return d_x, d_weights

    def _call(self, name: str) -> None:
        room = signature(f"{name}_room", _RUN, c_int64)(byref(self.layer))
        scratch = np.empty(room + _LINE, np.float32)  # no tensor: it is the kernel's own affair
        self.layer.scratch = scratch.ctypes.data + -scratch.ctypes.data % (4 * _LINE)
        signature(name, _RUN)(byref(self.layer))


def _addresses(tensors: _Tensors) -> tuple[int, Array[Any]]:
    """An array of pointers, which must be kept for as long as its address is used."""
    each = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    array = (c_void_p * len(each))(*each)
    return addressof(array), array

"""Matrix products that recurrent decoders make again and again with the same weights.

Torch multiplies float32 on a CPU through MKL, which on processors of other makers reaches about
half of what oneDNN does, and both are slower with a weight that is not laid out for them. Here a
weight is laid out once for many products. Where torch's layer over oneDNN is not to be had (it is
private to torch, and may change), its public functions compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Product = Callable[[Tensor], Tensor]


@cache
def _has_onednn() -> bool:
    """Whether torch lays weights out for oneDNN and multiplies by them."""
    operators: Any = torch.ops.mkldnn
    names = ("_linear_pointwise", "_reorder_linear_weight")
    known: Any = torch.backends.mkldnn
    if not (known.is_available() and all(hasattr(operators, n) for n in names)):
        return False
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        x, weight = torch.linspace(-1, 1, 15).view(3, 5), torch.linspace(0, 1, 20).view(4, 5)
        try:
            found = _multiply(x, operators._reorder_linear_weight(weight, 3))
        except (RuntimeError, TypeError):  # another torch: the same is computed without it
            return False
        return torch.allclose(found, x @ weight.t(), rtol=1e-5)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def _enabled(x: Tensor) -> bool:
    return x.is_cpu and bool(torch.backends.mkldnn.enabled) and _has_onednn()


def rounds(x: Tensor) -> bool:
    """Whether autocast asks for factors in bfloat16 where a tensor is."""
    device = x.device.type
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16


def factor(weight: Tensor, rows: int, rounded: bool, bias: Tensor | None = None) -> Product:
    """Prepare a weight for many products; nothing is recorded for gradients.

    Args:
        weight: ``(output, input)`` float32.
        rows: about how many rows will be multiplied at once.
        rounded: round the factors to bfloat16.
        bias: ``(output,)`` float32, added to each row.

    Returns:
        what maps ``(row, input)`` to ``(row, output)`` float32. With rounded factors it takes
        bfloat16 as well.
    """
    weight = weight.detach().contiguous()
    bias = None if bias is None else bias.detach().contiguous()
    if rounded:
        weight = weight.bfloat16()
    if not _enabled(weight):
        if rounded:
            return lambda x: _plus(functional.linear(x.bfloat16(), weight).float(), bias)
        return lambda x: functional.linear(x, weight, bias)
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    if rounded:
        return lambda x: _plus(_multiply(x.bfloat16(), laid_out).float(), bias)
    return lambda x: _multiply(x, laid_out, bias)


def _plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x.add_(bias)


def _dense(x: Tensor) -> Tensor:
    """Copy a part of a wider matrix, which oneDNN would multiply number by number."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()


def product(a: Tensor, b: Tensor, rounded: bool) -> Tensor:
    """Multiply ``a (row, inner)`` by ``b (inner, column)``; nothing is recorded for gradients.

    Args:
        a: float32, or bfloat16 where rounded.
        b: likewise.
        rounded: round the factors to bfloat16.

    Returns:
        ``(row, column)`` float32.
    """
    if rounded:
        return (a.bfloat16() @ b.bfloat16()).float()
    if _enabled(a) and a.numel() and b.numel():  # oneDNN refuses what is empty
        return _multiply(_dense(a), _dense(b).t())
    return a @ b


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply as `torch.nn.functional.linear` does, as fast as this machine can.

    Args:
        x: ``(..., input)``.
        weight: ``(output, input)``.
        bias: ``(output,)``.

    Returns:
        ``(..., output)`` float32; under autocast to bfloat16 the factors are rounded to it.
    """
    if not x.is_cpu or not _enabled(x) or weight.dtype != torch.float32:
        return functional.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    found = cast(Tensor, _Linear.apply(flat, weight, bias, rounds(x)))  # type: ignore[no-untyped-call]
    return found.view(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """See :func:`linear`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rounded: bool) -> Tensor:
        factors = (x.bfloat16(), weight.bfloat16()) if rounded else (x.float(), weight)
        ctx.save_for_backward(*factors)
        ctx.kind, ctx.rounded = x.dtype, rounded
        out = product(factors[0], factors[1].t(), rounded)
        return out if bias is None else out.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        flat = gradient.contiguous()
        short = flat.bfloat16() if ctx.rounded else flat
        return (
            product(short, weight, ctx.rounded).to(ctx.kind) if wants_x else None,
            product(short.t(), x, ctx.rounded) if wants_weight else None,
            flat.sum(0) if wants_bias else None,
            None,
        )

"""Dropout in the three kinds that recurrent models use, cheap on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seqlab.nn.kernels import chosen, rows_native

_LEVELS = 256  # on a CPU the probability is drawn from one random byte


def keep_mask(shape: torch.Size | tuple[int, ...], p: float, like: Tensor) -> Tensor:
    """Draw which elements stay, scaled so that the expectation is unchanged.

    ``torch.nn.Dropout`` draws a float for every element on one thread; here eight elements share a
    64-bit draw. The probability is rounded to 1/256 and the scale belongs to the rounded one, so
    the expectation is exact.

    Args:
        shape: the shape of the mask.
        p: probability that an element is dropped, in [0, 1).
        like: a tensor whose device and type the mask takes.

    Returns:
        a tensor of zeros and ``1 / (1 - p)``.
    """
    count = 1
    for size in shape:
        count *= size
    draws, (threshold, scale) = _draws(count, like.device), _kept(p)
    kept = draws[:count].view(shape) >= threshold
    return kept.to(like.dtype).mul_(scale)


def _draws(count: int, device: torch.device) -> Tensor:
    """Draw random bytes, int8, at least so many."""
    draws = torch.empty((count + 7) // 8, dtype=torch.int64, device=device)
    return draws.random_(-(2**63), None).view(torch.int8)


def _kept(p: float) -> tuple[int, float]:
    """From which byte on an element stays, and what it is then multiplied by."""
    threshold = min(round(_LEVELS * p), _LEVELS - 1)
    return threshold - _LEVELS // 2, _LEVELS / (_LEVELS - threshold)


class _Dropped(torch.autograd.Function):
    """Dropout by a compiled kernel: it keeps one byte an element in place of a mask of floats."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        draws, ctx.kept = _draws(x.numel(), x.device), _kept(p)
        ctx.save_for_backward(draws)
        return rows_native.dropped(x.contiguous(), draws, *ctx.kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (draws,) = ctx.saved_tensors
        return rows_native.dropped(gradient.contiguous(), draws, *ctx.kept), None


class Dropout(nn.Module):
    """Zero single elements (Srivastava et al., 2014).

    Args:
        p: probability that an element is zeroed, in [0, 1).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        """Show the probability in the printed model."""
        return f"p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with elements dropped while training, unchanged otherwise."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        if x.dtype == torch.float32 and x.numel() and chosen(x) == "native":
            return _Dropped.apply(x, self.p)  # type: ignore[no-untyped-call, no-any-return]
        return x * keep_mask(x.shape, self.p, x)


class LockedDropout(Dropout):
    """Zero whole dimensions for all time steps of a sequence (Gal and Ghahramani, 2016).

    Args:
        p: probability that a dimension is zeroed, in [0, 1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x (batch, time, dim)`` with the same dimensions dropped at every time step."""
        if not self.training or self.p == 0.0:
            return x
        batch, _, size = x.shape
        return x * keep_mask((batch, 1, size), self.p, x)


class WordDropout(Dropout):
    """Zero all dimensions of single tokens, so that the model learns to read the context.

    Args:
        p: probability that a token is zeroed, in [0, 1). The rest is not scaled up.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x (batch, time, dim)`` with whole tokens dropped while training."""
        if not self.training or self.p == 0.0:
            return x
        kept = torch.rand(x.shape[:2], device=x.device) >= self.p  # (batch, time)
        return x * kept.unsqueeze(-1)

"""Dropout in the three kinds that recurrent models use, cheap on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    threshold = min(round(_LEVELS * p), _LEVELS - 1)
    count = 1
    for size in shape:
        count *= size
    draws = torch.empty((count + 7) // 8, dtype=torch.int64, device=like.device)
    draws.random_(-(2**63), None)
    kept = draws.view(torch.int8)[:count].view(shape) >= threshold - _LEVELS // 2
    return kept.to(like.dtype).mul_(_LEVELS / (_LEVELS - threshold))


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

"""The linear recurrence ``c_t = a_t * c_{t-1} + b_t``, whose steps need no matrix product.

On a GPU it is computed for all steps in a logarithmic number of passes (Kogge and Stone, 1973); on
a CPU, step by step over whole rows, which touches every number once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def linear_scan(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """Run the recurrence over time.

    Args:
        decay: ``(time, ..., size)``, how much of the state stays at each step.
        drive: ``(time, ..., size)``, what is added.
        start: ``(..., size)``, the state before the first step.

    Returns:
        ``(time, ..., size)``, the state after every step.

    Example:
        >>> half, one = torch.full((3, 1), 0.5), torch.ones(3, 1)
        >>> linear_scan(half, one, torch.zeros(1)).flatten().tolist()
        [1.0, 1.5, 1.75]
    """
    result: Tensor = _LinearScan.apply(  # type: ignore[no-untyped-call]
        decay, drive, start.to(drive.dtype)
    )
    return result


def by_steps(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """Compute :func:`linear_scan` one step after the other."""
    states = torch.empty_like(drive)
    before = start
    for a, b, state in zip(decay.unbind(0), drive.unbind(0), states.unbind(0), strict=True):
        before = torch.addcmul(b, a, before, out=state)
    return states


def by_doubling(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    """Compute :func:`linear_scan` in passes that each double how far back a state sees."""
    states = drive.clone()
    states[0] += decay[0] * start
    decay = decay.clone()
    reach = 1
    while reach < len(states):
        added = decay[reach:] * states[:-reach]
        together = decay[reach:] * decay[:-reach]
        states[reach:] += added
        decay[reach:] = together
        reach *= 2
    return states


def _compute(decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
    if drive.device.type == "cpu":
        return by_steps(decay, drive, start)
    return by_doubling(decay, drive, start)


class _LinearScan(torch.autograd.Function):
    """Its gradient is the same recurrence backwards in time."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, drive: Tensor, start: Tensor) -> Tensor:
        states = _compute(decay, drive, start)
        ctx.save_for_backward(decay, states, start)
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        decay, states, start = ctx.saved_tensors
        later = torch.cat([torch.zeros_like(decay[:1]), decay[1:].flip(0)])  # of the step after
        d_drive = _compute(later, grad.flip(0), torch.zeros_like(start)).flip(0)
        before = torch.cat([start.unsqueeze(0), states[:-1]])
        return d_drive * before, d_drive, d_drive[0] * decay[0]

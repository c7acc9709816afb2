"""Losses over a vocabulary that is large beside the features it is predicted from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqlab.nn.kernels import losses_native
from seqlab.nn.products import product

# How many tokens are worked on at a time: on a CPU so few that their logits stay in its caches, and
# so many that a matrix product does well; elsewhere as many as have this many logits.
_ROWS = 256
_IN_MEMORY = 2**27


def smoothed_cross_entropy(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float
) -> Tensor:
    """Cross-entropy of an output layer and a softmax, without the log-probabilities in between.

    Equals torch's ``cross_entropy(linear(features, weight, bias), target, reduction="sum",
    label_smoothing=smoothing)``. The logits are computed some tokens at a time and become their own
    gradient while they are at hand. Only that is kept, in the precision of the products: what
    autocast says, and the features' own without. Softmax and sums are in float32 at least.

    Args:
        features: ``(token, size)``, of real tokens only.
        weight: ``(vocabulary, size)``.
        bias: ``(vocabulary,)``, or None.
        target: ``(token,)`` int64.
        smoothing: how much of the target's probability is spread over the vocabulary, itself
            included (Szegedy et al., 2016, section 7); from 0 to 1.

    Returns:
        The sum over all tokens in nats, a scalar; differentiable once, in all but the target.

    Example:
        >>> features, weight = torch.zeros(3, 5), torch.zeros(8, 5)
        >>> loss = smoothed_cross_entropy(features, weight, None, torch.tensor([1, 4, 7]), 0.1)
        >>> round(loss.item() / 3, 4)  # the logarithm of 8
        2.0794
    """
    device = features.device.type
    dtype = features.dtype
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    keep = torch.is_grad_enabled()
    with torch.autocast(device, enabled=False):
        loss: Tensor = _SmoothedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            features, weight, bias, target, smoothing, dtype, keep
        )
    return loss


class _SmoothedCrossEntropy(torch.autograd.Function):
    """The gradient of a token's logits is softmax minus smoothed target, known with the loss."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        smoothing: float,
        dtype: torch.dtype,
        keep: bool,
    ) -> Tensor:
        ctx.types = [x if x is None else x.dtype for x in (features, weight, bias)]
        kind = torch.promote_types(dtype, torch.float32)
        x, w, b = features.to(dtype), weight.to(dtype), None if bias is None else bias.to(kind)
        losses = x.new_empty(len(target), dtype=kind)
        gradient = total = None
        if keep and any(ctx.needs_input_grad):
            gradient = x.new_empty(len(target), len(weight))
            if ctx.needs_input_grad[2]:
                total = losses.new_zeros(len(weight))  # of the bias
        of_rows = losses_native.smoothed_rows if losses_native.supports(dtype, x) else _of_rows
        rows = _ROWS if x.is_cpu else max(_ROWS, _IN_MEMORY // len(weight))
        for start in range(0, len(target), rows):
            some = slice(start, start + rows)
            slope = None if gradient is None else gradient[some]
            of_rows(
                _product(x[some], w.t()), b, target[some], smoothing, losses[some], slope, total
            )
        if gradient is not None:
            ctx.save_for_backward(gradient, x, w, total)
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradient, x, w, total = ctx.saved_tensors
        # A copy of the bias's, as backward may be called again.
        found: list[Tensor | None] = [None, None, None if total is None else total.clone()]
        with torch.autocast(scale.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                found[0] = _product(gradient, w).to(scale.dtype)
            if ctx.needs_input_grad[1]:
                found[1] = _product(gradient.t(), x).to(scale.dtype)
            scaled = (
                part if part is None else part.mul_(scale).to(dtype)
                for part, dtype in zip(found, ctx.types, strict=True)
            )
            return *scaled, None, None, None, None


def _product(a: Tensor, b: Tensor) -> Tensor:
    return product(a, b, rounded=False) if a.dtype == torch.float32 else a @ b


def _of_rows(
    logits: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: float,
    losses: Tensor,
    gradient: Tensor | None,
    sums: Tensor | None,
) -> None:
    """See :func:`seqlab.nn.kernels.losses_native.smoothed_rows`.

    One pass takes exponentials: the largest probability is one over their sum, taken relative to
    the largest logit.
    """
    logits = logits.to(losses.dtype)
    if bias is not None:
        logits = logits + bias
    slope = logits.softmax(1)
    total = logits.amax(1) - slope.amax(1).log()  # (row,) logarithm of the sum of exponentials
    places = target.unsqueeze(1)
    losses.copy_(total - (1 - smoothing) * logits.gather(1, places).squeeze(1))
    if smoothing:
        losses -= smoothing * logits.mean(1)
        slope -= smoothing / logits.shape[1]
    slope.scatter_add_(1, places, slope.new_full(places.shape, smoothing - 1))
    if gradient is not None:
        gradient.copy_(slope)
    if sums is not None:
        sums += slope.sum(0)

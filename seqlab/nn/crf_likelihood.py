"""The log-likelihood of a linear-chain CRF and its exact gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqlab.nn.crf_answers import transition_counts
from seqlab.nn.crf_inputs import ANY_TAG, full_precision
from seqlab.nn.crf_kernels import (
    Messages,
    Posterior,
    Scores,
    forward_backward,
    real_positions,
    widened,
)
from seqlab.nn.crf_search import score_of, tag_pairs
from seqlab.nn.kernels import crf_triton


def log_likelihood(
    emissions: Tensor, lengths: Tensor, scores: Scores, tags: Tensor, partial: bool
) -> Tensor:
    """Log-probability of the tags; of all sequences that agree with them where some are unknown.

    Args:
        emissions: ``(batch, time, tag)``, left-aligned.
        lengths: ``(batch,)``.
        scores: start, transition and end scores in the dtype of the emissions.
        tags: ``(batch, time)`` ids, -1 for any tag; 0 at padding.
        partial: whether there is a -1 among them.

    Returns:
        ``(batch,)`` nats; differentiable once in the emissions and the scores.
    """
    if not partial:
        return _likelihood(emissions, lengths, scores, tags).to(emissions.dtype)
    unknown = tags == ANY_TAG
    # Both sums lose the same shift, so that their difference keeps its digits.
    top = emissions.detach().amax(-1, keepdim=True)  # (batch, time, 1)
    emissions = emissions - top.masked_fill(top == -torch.inf, 0.0)
    others = torch.arange(emissions.shape[-1], device=tags.device) != tags.unsqueeze(-1)
    known = emissions.masked_fill(others & ~unknown.unsqueeze(-1), -torch.inf)
    free, agreeing = (_likelihood(given, lengths, scores, None) for given in (emissions, known))
    return (free - agreeing).to(emissions.dtype)


def log_partition(emissions: Tensor, lengths: Tensor, scores: Scores) -> Tensor:
    """Log of the summed exponential scores of all sequences.

    Args:
        emissions: ``(batch, time, tag)``, left-aligned.
        lengths: ``(batch,)``.
        scores: start, transition and end scores in the dtype of the emissions.

    Returns:
        ``(batch,)`` nats; differentiable once in the emissions and the scores.
    """
    return -_likelihood(emissions, lengths, scores, None).to(emissions.dtype)


class _Likelihood(torch.autograd.Function):
    """log p(tags | emissions), or minus the log partition where no tags are given.

    The gradient is what was seen minus what was expected; both come from one forward-backward pass,
    without a tape over time and without a (batch, time, tag, tag) tensor. Values (batch,) are in
    float64 where the device has it: they are small differences of large sums.
    """

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        start: Tensor,
        transitions: Tensor,
        end: Tensor,
        lengths: Tensor,
        tags: Tensor | None,
    ) -> Tensor:
        scores = Scores(start, transitions, end)
        posterior = forward_backward(emissions, lengths, scores)
        difference = posterior.marginals.neg_()  # (time, batch, tag) seen minus expected
        pairs = None
        if tags is None:
            value = -posterior.log_partition - _shift(emissions, posterior, lengths)  # (batch,)
        else:
            real = real_positions(lengths, tags.shape[1])  # (time, batch)
            padding = ~real.t()
            pairs = tag_pairs(tags, padding, len(start))
            value = score_of(posterior.emissions, tags, padding, pairs, scores)  # (batch,)
            value -= posterior.log_partition
            seen = real.unsqueeze(-1).to(difference.dtype)  # (time, batch, 1)
            difference.scatter_add_(-1, tags.t().unsqueeze(-1), seen)
        ctx.save_for_backward(difference, lengths, pairs, *posterior.messages)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        difference, lengths, pairs, *messages = ctx.saved_tensors
        weights = weights.to(difference.dtype)  # (batch,)
        emissions = start = transitions = end = None
        with full_precision(weights.device):
            if ctx.needs_input_grad[0]:
                emissions = (difference * weights.unsqueeze(-1)).transpose(0, 1)
            if ctx.needs_input_grad[1]:
                start = weights @ difference[0]
            if ctx.needs_input_grad[2]:
                expected = transition_counts(Messages(*messages), weights)
                transitions = -expected if pairs is None else _counts(pairs, weights, expected)
            if ctx.needs_input_grad[3]:
                last = (lengths - 1).clamp(min=0)
                end = weights @ difference[last, torch.arange(len(last), device=last.device)]
        return emissions, start, transitions, end, None, None


def _counts(pairs: Tensor, weights: Tensor, expected: Tensor) -> Tensor:
    """How much oftener each tag follows each other one than expected: (previous tag, next tag)."""
    size = len(expected) + 1
    # One pair may come up thousands of times, which float32 cannot add up to the last digit.
    seen = widened(weights.new_zeros(size * size))
    each = weights.to(seen.dtype).unsqueeze(1).expand_as(pairs)  # (batch, time + 1)
    seen.index_add_(0, pairs.flatten(), each.flatten())
    return (seen.view(size, size)[:-1, :-1] - expected).to(expected.dtype)


def _shift(emissions: Tensor, posterior: Posterior, lengths: Tensor) -> Tensor:
    """What the posterior's emissions lack of the given ones, summed over each sentence (batch,)."""
    shift = emissions.amax(-1) - posterior.emissions.amax(-1)  # (batch, time)
    # Only where every tag is impossible both are -inf, and the sum is -inf already.
    shift = shift.masked_fill(posterior.log_partition.unsqueeze(1) == -torch.inf, 0.0)
    real = real_positions(lengths, emissions.shape[1]).t()  # (batch, time)
    return widened(shift.masked_fill(~real, 0.0)).sum(1)


def _likelihood(emissions: Tensor, lengths: Tensor, scores: Scores, tags: Tensor | None) -> Tensor:
    if emissions.numel() == 0:
        return widened(emissions.sum((1, 2)))  # (batch,) zeros: an empty sentence is certain
    if crf_triton.computes(emissions, scores):
        return crf_triton.likelihood(emissions, lengths, scores, tags)
    value: Tensor = _Likelihood.apply(emissions, *scores, lengths, tags)  # type: ignore[no-untyped-call]
    return value

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
from seqlab.nn.crf_search import path_score


def log_likelihood(emissions: Tensor, lengths: Tensor, scores: Scores, tags: Tensor) -> Tensor:
    """Log-probability of the tags; of all sequences that agree with them where some are unknown.

    Args:
        emissions: ``(batch, time, tag)``, left-aligned.
        lengths: ``(batch,)``.
        scores: start, transition and end scores in the dtype of the emissions.
        tags: ``(batch, time)`` ids, -1 for any tag; 0 at padding.

    Returns:
        ``(batch,)`` nats; differentiable once in the emissions and the scores.
    """
    unknown = tags == ANY_TAG
    if not bool(unknown.any()):
        return _likelihood(emissions, lengths, scores, tags).to(emissions.dtype)
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
        if tags is None:
            value = -posterior.log_partition - _shift(emissions, posterior, lengths)  # (batch,)
        else:
            value = path_score(posterior.emissions, tags, lengths, scores)  # (batch,)
            value -= posterior.log_partition
            gold = tags.t().unsqueeze(-1)  # (time, batch, 1)
            seen = real_positions(lengths, tags.shape[1]).unsqueeze(-1)
            difference.scatter_(-1, gold, difference.gather(-1, gold) + seen)
        ctx.save_for_backward(difference, lengths, tags, *posterior.messages)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        difference, lengths, tags, *messages = ctx.saved_tensors
        weights = weights.to(difference.dtype)  # (batch,)
        emissions = start = transitions = end = None
        with full_precision(weights.device):
            if ctx.needs_input_grad[0]:
                emissions = (difference * weights.unsqueeze(-1)).transpose(0, 1)
            if ctx.needs_input_grad[1]:
                start = weights @ difference[0]
            if ctx.needs_input_grad[2]:
                transitions = -transition_counts(Messages(*messages), weights)
                if tags is not None:
                    seen = real_positions(lengths - 1, tags.shape[1] - 1).t()
                    pairs = (tags[:, :-1], tags[:, 1:])  # of (batch, time - 1)
                    transitions.index_put_(pairs, seen * weights.unsqueeze(1), accumulate=True)
            if ctx.needs_input_grad[3]:
                last = (lengths - 1).clamp(min=0)
                end = weights @ difference[last, torch.arange(len(last), device=last.device)]
        return emissions, start, transitions, end, None, None


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
    value: Tensor = _Likelihood.apply(emissions, *scores, lengths, tags)  # type: ignore[no-untyped-call]
    return value

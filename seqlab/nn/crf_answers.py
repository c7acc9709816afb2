"""What is asked of a CRF's distribution: transition counts, probabilities of spans, entropy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from seqlab.nn.crf_kernels import (
    Messages,
    Posterior,
    Scores,
    forward_backward,
    parts,
    widened,
)
from seqlab.nn.crf_search import path_score


def transition_counts(messages: Messages, weights: Tensor) -> Tensor:
    """Expected number of times each tag follows each other one, summed over the batch.

    Args:
        messages: of ``forward_backward``.
        weights: ``(batch,)`` weight of each sentence.

    Returns:
        ``(previous tag, next tag)``.
    """
    scale = (messages.weight[1:] * weights).unsqueeze(-1)  # (time - 1, batch, 1)
    left, right = messages.left[:-1] * scale, messages.right[1:]  # (time - 1, batch, tag)
    counts = messages.step * (left.flatten(0, 1).t() @ right.flatten(0, 1))
    if len(messages.log_rows) == 0:
        return counts
    weights = weights[messages.log_rows].to(messages.log_step.dtype)
    extra = torch.zeros_like(messages.log_step)
    for some, pairs in log_pairs(messages):
        extra += torch.einsum("r,rij->ij", weights[some], pairs)
    return counts + extra.to(counts.dtype)


def log_pairs(messages: Messages) -> Iterator[tuple[slice, Tensor]]:
    """Pair probabilities of the sentences that needed the log domain, position by position.

    Args:
        messages: of ``forward_backward``.

    Yields:
        Places in ``log_rows``, and their probabilities ``(some, previous tag, next tag)``.
    """
    for some in parts(len(messages.log_rows), len(messages.log_step)):
        lefts, rights = messages.log_left[:, some], messages.log_right[:, some]
        for left, right in zip(lefts[:-1], rights[1:], strict=True):
            yield some, (left.unsqueeze(-1) + messages.log_step + right.unsqueeze(-2)).exp()


def pair_probabilities(
    messages: Messages, rows: Tensor, positions: Tensor, previous: Tensor, tags: Tensor
) -> Tensor:
    """Probability of a tag at a position together with the tag before it.

    Args:
        messages: of ``forward_backward``.
        rows: sentences; this and all others of shapes that broadcast.
        positions: at least 1.
        previous: tags at the position before.
        tags: tags at the position.

    Returns:
        Probabilities, in the common shape.
    """
    # The weight first: the product of both messages alone could be too small for a float.
    left = messages.left[positions - 1, rows, previous] * messages.weight[positions, rows]
    pairs = left * messages.step[previous, tags] * messages.right[positions, rows, tags]
    if len(messages.log_rows) == 0:
        return pairs
    places = torch.full_like(messages.weight[0], -1, dtype=torch.int64)  # (batch,)
    places[messages.log_rows] = torch.arange(len(messages.log_rows), device=places.device)
    place = places[rows]
    logs = (
        messages.log_left[positions - 1, place, previous]
        + messages.log_step[previous, tags]
        + messages.log_right[positions, place, tags]
    )
    return torch.where(place >= 0, logs.exp().to(pairs.dtype), pairs)


def path_probabilities(
    posterior: Posterior,
    rows: Sequence[int],
    starts: Sequence[int],
    tags: Sequence[Sequence[int]],
) -> Tensor:
    """Probability that sentences carry given tags at given positions, whatever surrounds them.

    The first tag's marginal times the conditional probability of each following one: a chain.

    Args:
        posterior: of ``forward_backward``.
        rows: sentence of each query.
        starts: first position of each query.
        tags: tag ids of each query; all inside their sentence.

    Returns:
        ``(query,)``.
    """
    longest = max((len(path) for path in tags), default=0)
    device = posterior.emissions.device
    if longest == 0:
        return posterior.emissions.new_ones(len(tags))
    padded = [[*path, *[0] * (longest - len(path))] for path in tags]
    ids = torch.tensor(padded, device=device)  # (query, longest)
    sizes = torch.tensor([len(path) for path in tags], device=device).unsqueeze(1)
    steps = torch.arange(longest, device=device)
    inside = steps < sizes  # (query, longest)
    row = torch.tensor(rows, device=device).unsqueeze(1)  # (query, 1)
    positions = torch.tensor(starts, device=device).unsqueeze(1) + steps  # (query, longest)
    positions = positions.clamp(max=len(posterior.marginals) - 1)
    single = posterior.marginals[positions, row, ids]  # (query, longest)
    chances = torch.where(inside, single, 1.0)[:, 0]
    if longest == 1:
        return chances
    pairs = pair_probabilities(
        posterior.messages, row, positions[:, 1:].clamp(min=1), ids[:, :-1], ids[:, 1:]
    )
    given = torch.where(pairs > 0, pairs / single[:, :-1], 0.0).clamp(max=1.0)
    return chances * torch.where(inside[:, 1:], given, 1.0).prod(1)


def chances(posterior: Posterior, paths: Tensor, lengths: Tensor, scores: Scores) -> Tensor:
    """Probabilities of the n best sequences.

    Args:
        posterior: of ``forward_backward``.
        paths: ``(batch, n, time)`` tags, best first.
        lengths: ``(batch,)``.
        scores: start, transition and end scores.

    Returns:
        ``(batch, n)``, never rising, as it might by rounding alone.
    """
    n = paths.shape[1]
    score = path_score(
        posterior.emissions.repeat_interleave(n, 0),
        paths.flatten(0, 1).clamp(min=0),
        lengths.repeat_interleave(n),
        scores,
    ).view(-1, n)
    chance = (score - posterior.log_partition.unsqueeze(1)).exp()
    return chance.clamp(max=1.0).cummin(1).values


def entropy(emissions: Tensor, lengths: Tensor, scores: Scores) -> tuple[Tensor, Tensor]:
    """Entropy of the distribution over tag sequences: log partition minus mean score.

    Args:
        emissions: ``(batch, time, tag)``.
        lengths: ``(batch,)``.
        scores: start, transition and end scores.

    Returns:
        Nats ``(batch,)``, in float64 where the device has it because two large numbers cancel; and
        the log partitions ``(batch,)`` of ``forward_backward``, which tell where it is undefined.
    """
    scores = Scores(*(widened(values) for values in scores))
    posterior = forward_backward(widened(emissions), lengths, scores)
    if emissions.numel() == 0:
        return posterior.log_partition, posterior.log_partition
    marginals = posterior.marginals  # (time, batch, tag)
    last = (lengths - 1).clamp(min=0)
    closing = marginals[last, torch.arange(len(last), device=last.device)]  # (batch, tag)
    expected = (
        _mean(marginals, posterior.emissions.transpose(0, 1)).sum(0)
        + _mean(marginals[0], scores.start)
        + _mean(closing, scores.end)
        + _mean_transitions(posterior.messages, scores.transitions)
    )
    return (posterior.log_partition - expected).clamp(min=0.0), posterior.log_partition


def _mean(chances: Tensor, values: Tensor) -> Tensor:
    """Mean value over the last axis, where what has no chance may be -inf."""
    return torch.where(chances == 0, 0.0, chances * values).sum(-1)


def _mean_transitions(messages: Messages, transitions: Tensor) -> Tensor:
    """Mean sum of the transition scores of each sentence (batch,)."""
    finite = transitions.masked_fill(transitions == -torch.inf, 0.0)
    left = messages.left[:-1] * messages.weight[1:].unsqueeze(-1)  # (time - 1, batch, tag)
    reached = left @ (messages.step * finite)  # (time - 1, batch, tag)
    means = (reached * messages.right[1:]).sum((0, 2))  # (batch,)
    for some, pairs in log_pairs(messages):
        means[messages.log_rows[some]] += (pairs * finite).sum((1, 2)).to(means.dtype)
    return means

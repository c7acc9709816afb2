"""Sums over all tag sequences of a linear-chain CRF: the forward-backward recursion.

Pure functions over left-aligned sentences: row ``b`` of ``emissions (batch, time, tag)`` begins
with ``lengths[b]`` real positions; what lies behind them may be anything, NaN included, and changes
nothing. A score of ``-inf`` forbids a tag, a transition, a start or an end, exactly. No gradient is
recorded: call them without one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Most steps between two rescalings, and the natural logarithm of what a message may lose meanwhile.
# It never grows, as the weights of a position sum to 1 and the greatest step is 1; that it shrank
# too far after all is noticed afterwards, sentence by sentence.
_SELDOM, _LOSS = 64, 25.0
# Numbers in the largest temporary; beyond, the batch is taken in parts.
_PART_NUMBERS = 1 << 24


class Scores(NamedTuple):
    """What a CRF adds to the emissions; ``-inf`` where the grammar forbids."""

    start: Tensor  # (tag,)
    transitions: Tensor  # (previous tag, next tag)
    end: Tensor  # (tag,)


class Messages(NamedTuple):
    """Forward and backward messages: everything about two neighbouring tags follows from them.

    P(tag i at t - 1, tag j at t) of sentence b is ``left[t - 1, b, i] * step[i, j] * right[t, b, j]
    * weight[t, b]``, and for the sentences in ``log_rows``, whose four are 0, the exponential of
    ``log_left[t - 1, row, i] + log_step[i, j] + log_right[t, row, j]``.
    """

    left: Tensor  # (time, batch, tag)
    right: Tensor  # (time, batch, tag)
    weight: Tensor  # (time, batch)
    step: Tensor  # (previous tag, next tag)
    log_rows: Tensor  # (row,) sentences
    log_left: Tensor  # (time, row, tag)
    log_right: Tensor  # (time, row, tag)
    log_step: Tensor  # (previous tag, next tag)


class Posterior(NamedTuple):
    """The distribution over the tag sequences of each sentence."""

    emissions: Tensor  # (batch, time, tag) as given, less a number for each position
    log_partition: Tensor  # (batch,) with those emissions; float64 where the device has it
    marginals: Tensor  # (time, batch, tag) 0 at padding
    messages: Messages


def real_positions(lengths: Tensor, time: int) -> Tensor:
    """Tell real positions from padding.

    Args:
        lengths: ``(batch,)`` number of real positions of each sentence.
        time: width of the batch.

    Returns:
        Boolean ``(time, batch)``.
    """
    return torch.arange(time, device=lengths.device).unsqueeze(1) < lengths


def forward_backward(emissions: Tensor, lengths: Tensor, scores: Scores) -> Posterior:
    """Sum over all legal tag sequences (Rabiner, 1989, section III.A; Lafferty et al., 2001).

    Both sweeps run as one batched product in the probability domain: the backward sweep is a
    forward sweep over each sentence reversed inside its own length, so that neither needs a mask.
    A sentence in which underflow may have taken a noticeable share is redone with logarithms.

    Args:
        emissions: ``(batch, time, tag)`` float32 or float64.
        lengths: ``(batch,)``.
        scores: start, transition and end scores in the dtype of the emissions.

    Returns:
        The posterior. Its log partition is 0 for an empty sentence, ``-inf`` where no sequence is
        possible, and NaN for a sentence with NaN or ``+inf`` among its emissions.
    """
    real = real_positions(lengths, emissions.shape[1])  # (time, batch)
    centred = _log_softmax(emissions)
    if emissions.numel() == 0:
        return _nothing(centred, scores)
    posterior, good = _scaled_posterior(centred, real, lengths, scores)
    if bool(good.all()):
        return posterior
    rows = (~good).nonzero().squeeze(1)
    wide = Scores(*(widened(values) for values in scores))
    return _redone(posterior, widened(emissions[rows]), lengths[rows], wide, rows)


def _log_softmax(emissions: Tensor) -> Tensor:
    """`torch.log_softmax` over the tags, which on a CPU takes few of them number by number."""
    if emissions.shape[-1] >= 16 or not emissions.is_cpu:
        return torch.log_softmax(emissions, -1)
    return torch.log_softmax(emissions.transpose(1, 2).contiguous(), 1).transpose(1, 2).contiguous()


def widened(values: Tensor) -> Tensor:
    """The same numbers in float64, where the device has it: Apple's GPUs do not."""
    return values if values.device.type == "mps" else values.double()


def _both_ways(values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Lay out each sentence forward and reversed in itself.

    Args:
        values: (batch, time, tag); padding is replaced by other positions of the sentence.
        lengths: (batch,).

    Returns:
        (time, 2, batch, tag) copy, and flat (time * batch,) rows in it which hold, in the order of
        time, what was computed for each position on the way back.
    """
    batch, time, tags = values.shape
    steps = torch.arange(time, device=lengths.device).unsqueeze(1)  # (time, 1)
    last = (lengths - 1).clamp_(min=0)  # (batch,)
    mirror = (last - steps).clamp_(min=0)  # (time, batch)
    sources = torch.stack([torch.minimum(steps, last), mirror], 1)  # (time, 2, batch)
    sentence = torch.arange(batch, device=lengths.device)
    rows = (sources + sentence * time).flatten()  # (time * 2 * batch,)
    laid = values.flatten(0, 1).index_select(0, rows).view(time, 2, batch, tags)
    return laid, mirror.mul_(2 * batch).add_(sentence + batch).flatten()


def _on_the_way_back(messages: Tensor, rows: Tensor) -> Tensor:
    """Bring (time, 2, batch, tag) messages of the way back into the order of time."""
    time, _, batch, tags = messages.shape
    return messages.flatten(0, 2).index_select(0, rows).view(time, batch, tags)


def _exponentials(values: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentials of scores less the greatest one of each row, and those greatest (row, 1)."""
    # Where all are -inf a finite number is taken off, so that there is no NaN.
    peak = values.amax(-1, keepdim=True).clamp_(min=torch.finfo(values.dtype).min)
    return (values - peak).exp_(), peak


def _interval(step: Tensor) -> int:
    """After how many steps a message is rescaled; ``step`` holds weights of which 1 is greatest."""
    least = float(step.amin())  # a step keeps at least this share of a message
    loss = -math.log(least) if least > 0.0 else math.inf
    return max(2, min(_SELDOM, int(_LOSS / max(loss, _LOSS / _SELDOM))))


def _sweep(
    emitted: Tensor, step: Tensor, first: Tensor, every: int
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Run both ways; messages before and after each emission, and the scales taken out.

    Shapes: emitted (time, 2, batch, tag), step (2, tag, tag), first (2, tag) -> twice
    (time, 2, batch, tag), and each (2, batch, 1).
    """
    before, after = torch.empty_like(emitted), torch.empty_like(emitted)
    before[0] = first.unsqueeze(1)
    torch.mul(before[0], emitted[0], out=after[0])
    tiny = torch.finfo(emitted.dtype).tiny
    scales = []
    slices = zip(before.unbind(0), after.unbind(0), emitted.unbind(0), strict=True)
    message = next(slices)[1]  # (2, batch, tag)
    for now, (incoming, outgoing, weights) in enumerate(slices, start=1):
        torch.bmm(message, step, out=incoming)
        torch.mul(incoming, weights, out=outgoing)
        if now % every == 0:
            scales.append(outgoing.sum(-1, keepdim=True).clamp_(min=tiny))
            outgoing.div_(scales[-1])
        message = outgoing
    return before, after, scales


def _scaled_posterior(
    centred: Tensor, real: Tensor, lengths: Tensor, scores: Scores
) -> tuple[Posterior, Tensor]:
    """Posterior in the probability domain, and whether each sentence's can be trusted (batch,)."""
    tags = len(scores.start)
    first, borders = _exponentials(torch.stack([scores.start, scores.end]))  # (2, tag), (2, 1)
    step, between = _exponentials(scores.transitions.reshape(1, -1))  # (1, tag * tag), (1, 1)
    step = step.view(tags, tags)
    every = _interval(step)
    emitted, rows = _both_ways(centred.exp(), lengths)
    both_steps = torch.stack([step, step.t()])
    before, after, scales = _sweep(emitted, both_steps, first, every)
    left, right = before[:, 0], _on_the_way_back(after, rows)  # (time, batch, tag)
    share = left * right  # (time, batch, tag)
    total = share @ share.new_ones(tags)  # (time, batch)
    # At padding infinite, but NaN where it is NaN.
    total = torch.where(real, total, total.clamp(min=torch.inf))
    weight = total.reciprocal()  # (time, batch) 0 at padding
    good = total.amin(0) > _enough(total)  # (batch,) False for NaN
    last = (lengths - 1).clamp_(min=0)  # (batch,)
    peaks = widened(torch.cat([borders, between]))  # (3, 1)
    log_partition = widened(total.gather(0, last.unsqueeze(0)).squeeze(0)).log_()
    log_partition += peaks[0] + peaks[1] + peaks[2] * (lengths - 1)
    if scales:
        scale = torch.stack(scales).squeeze(-1)  # (scaling, 2, batch)
        scaled_at = torch.arange(every, len(real), every, device=real.device).unsqueeze(1)
        good &= _trusted(total, scale[:, 1], scaled_at, lengths)
        # `total` holds the message before the last emission, so the scale taken after it is not
        # in it.
        log_scales = scale[:, 0].log().masked_fill_(scaled_at >= last, 0.0)  # (scaling, batch)
        log_partition += log_scales.sum(0, dtype=log_partition.dtype)
    none = share.new_empty(len(real), 0, tags)
    messages = Messages(
        after[:, 0], right, weight, step, lengths[:0], none, none, scores.transitions
    )
    return Posterior(
        centred,
        log_partition.masked_fill_(lengths == 0, 0.0),
        share.mul_(weight.unsqueeze(-1)),
        messages,
    ), good


def _enough(total: Tensor) -> float:
    """The product of two messages from which on nothing that underflowed can matter.

    An entry that was lost was below the smallest normal number when it was lost. As no message
    exceeds 1, it would have added less than that number to the sum over the tags of the product of
    both messages. While that sum is 1 / eps^2 times greater, all losses together are below
    rounding.
    """
    limits = torch.finfo(total.dtype)
    return float(limits.tiny / limits.eps**2)


def _trusted(total: Tensor, scales: Tensor, scaled_at: Tensor, lengths: Tensor) -> Tensor:
    """Whether what underflowed before a message was rescaled cannot matter, by sentence (batch,).

    There the ``total (time, batch)`` of before counts: it is smaller by the scale of the way back,
    (scaling, batch), taken scaled_at (scaling, 1) steps.
    """
    unscaled = total.gather(0, (lengths - 1 - scaled_at).clamp_(min=0)) * scales
    return ((unscaled > _enough(total)) | (scaled_at >= lengths)).all(0)


def _nothing(centred: Tensor, scores: Scores) -> Posterior:
    """The posterior of no sentence at all, or of sentences without any token."""
    empty = centred.transpose(0, 1)  # (time, batch, tag)
    rows = torch.empty(0, dtype=torch.int64, device=centred.device)
    weight, none, step = empty[..., 0], empty[:, :0], scores.transitions
    messages = Messages(empty, empty, weight, step.exp(), rows, none, none, step)
    return Posterior(centred, widened(centred.new_zeros(len(centred))), empty, messages)


def _redone(
    posterior: Posterior, emissions: Tensor, lengths: Tensor, scores: Scores, rows: Tensor
) -> Posterior:
    """Replace the given rows of a posterior by their values from the log domain."""
    real = real_positions(lengths, emissions.shape[1]).t().unsqueeze(-1)  # (row, time, 1)
    emissions = emissions.masked_fill(~real, 0.0)
    top = emissions.amax(-1, keepdim=True)  # (row, time, 1)
    emissions = emissions - top.masked_fill(top == -torch.inf, 0.0)
    sums = [
        _log_sums(emissions[some], lengths[some], scores)
        for some in parts(len(rows), len(scores.start))
    ]
    log_partition = torch.cat([part[0] for part in sums])  # (row,)
    marginals, left, right = (torch.cat([part[n] for part in sums], 1) for n in (1, 2, 3))
    dtype = posterior.emissions.dtype
    old = posterior.messages
    return Posterior(
        posterior.emissions.index_copy(0, rows, emissions.to(dtype)),
        posterior.log_partition.index_copy(0, rows, log_partition),
        posterior.marginals.index_copy(1, rows, marginals.to(dtype)),
        Messages(
            old.left.index_fill(1, rows, 0.0),
            old.right.index_fill(1, rows, 0.0),
            old.weight.index_fill(1, rows, 0.0),
            old.step,
            rows,
            left,
            right,
            scores.transitions,
        ),
    )


def parts(rows: int, tags: int) -> list[slice]:
    """Split rows so that a tensor ``(row, tag, tag)`` stays small, whatever the number of tags."""
    size = max(1, _PART_NUMBERS // tags**2)
    return [slice(first, min(rows, first + size)) for first in range(0, rows, size)]


def _log_sums(
    emissions: Tensor, lengths: Tensor, scores: Scores
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both sweeps in logarithms: log partition, marginals, left and right log messages."""
    real = real_positions(lengths, emissions.shape[1])
    emitted, rows = _both_ways(emissions, lengths)  # (time, 2, row, tag)
    step = torch.stack([scores.transitions, scores.transitions.t()]).unsqueeze(1)
    before, after = torch.empty_like(emitted), torch.empty_like(emitted)
    before[0] = torch.stack([scores.start, scores.end]).unsqueeze(1)
    after[0] = before[0] + emitted[0]
    for now in range(1, len(real)):
        before[now] = torch.logsumexp(after[now - 1].unsqueeze(-1) + step, -2)
        after[now] = before[now] + emitted[now]
    left, right = before[:, 0], _on_the_way_back(after, rows)  # (time, row, tag)
    right = right.masked_fill(~real.unsqueeze(-1), -torch.inf)
    # The whole sentence as seen from its first position; an empty one has none.
    log_partition = torch.logsumexp(left[0] + right[0], -1).masked_fill_(lengths == 0, 0.0)
    # Where no sequence is possible every product of messages is -inf: there is nothing to divide.
    right -= log_partition.masked_fill(log_partition == -torch.inf, 0.0).unsqueeze(-1)
    return log_partition, (left + right).exp(), after[:, 0], right

"""The best tag sequences of a linear-chain CRF: Viterbi and its n-best extension.

Pure functions over left-aligned sentences, as in ``crf_kernels``. Both add up scores in the same
order, so that the first of the n best is the one that Viterbi finds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqlab.nn.crf_kernels import Scores, parts, real_positions, widened
from seqlab.nn.kernels import crf_triton

# Steps between two subtractions of the best score, which change no decision and keep the numbers
# small, so that float32 can tell sequences apart in long sentences as well.
_SETTLE_EVERY = 16


def path_score(emissions: Tensor, tags: Tensor, lengths: Tensor, scores: Scores) -> Tensor:
    """Score of one tag sequence for each sentence.

    Args:
        emissions: ``(batch, time, tag)``.
        tags: ``(batch, time)`` ids; padding may hold any id in range.
        lengths: ``(batch,)``.
        scores: start, transition and end scores.

    Returns:
        ``(batch,)`` in float64 where the device has it; 0 for an empty sentence, ``-inf`` for a
        forbidden sequence.
    """
    padding = ~real_positions(lengths, emissions.shape[1]).t()  # (batch, time)
    return score_of(emissions, tags, padding, tag_pairs(tags, padding, len(scores.start)), scores)


def score_of(
    emissions: Tensor, tags: Tensor, padding: Tensor, pairs: Tensor, scores: Scores
) -> Tensor:
    """As :func:`path_score`, where the pairs of neighbours are known.

    Args:
        emissions: ``(batch, time, tag)``.
        tags: ``(batch, time)`` ids; padding may hold any id in range.
        padding: ``(batch, time)`` True there.
        pairs: ``(batch, time + 1)``, see :func:`tag_pairs`.
        scores: start, transition and end scores.

    Returns:
        ``(batch,)`` in float64 where the device has it.
    """
    emitted = emissions.gather(-1, tags.unsqueeze(-1)).squeeze(-1)  # (batch, time)
    total = widened(emissions[:0]).dtype
    score = emitted.masked_fill_(padding, 0.0).sum(-1, dtype=total)  # (batch,)
    return score + pair_scores(scores).take(pairs).sum(-1, dtype=total)


def tag_pairs(tags: Tensor, padding: Tensor, size: int) -> Tensor:
    """Number every pair of neighbours, sentence borders among them, for a table of pairs.

    Args:
        tags: ``(batch, time)`` ids.
        padding: ``(batch, time)`` True there.
        size: number of tags, which also is the id of what is outside of a sentence.

    Returns:
        ``(batch, time + 1)`` places in a flat ``(size + 1, size + 1)`` table: from the border to
        the first tag, from tag to tag, from the last tag to the border, from border to border.
    """
    padded = nn.functional.pad(tags.masked_fill(padding, size), (1, 1), value=size)
    return torch.add(padded[:, 1:], padded[:, :-1], alpha=size + 1)


def pair_scores(scores: Scores) -> Tensor:
    """Put all scores into one ``(tag + 1, tag + 1)`` table; see :func:`tag_pairs`."""
    below = torch.cat([scores.start, scores.start.new_zeros(1)]).unsqueeze(0)
    return torch.cat([torch.cat([scores.transitions, scores.end.unsqueeze(1)], 1), below])


def viterbi(emissions: Tensor, lengths: Tensor, scores: Scores) -> tuple[Tensor, Tensor]:
    """Best tag sequence of each sentence (Viterbi, 1967).

    Only the best scores are kept on the way up. The choice is made again along the chosen path,
    which costs ``tag`` additions a step in place of ``tag ** 2`` pointers. Of equals the lowest id
    is taken, from the last position back.

    Args:
        emissions: ``(batch, time, tag)``.
        lengths: ``(batch,)``.
        scores: start, transition and end scores.

    Returns:
        Tags ``(batch, time)`` int64, -1 at padding, and scores ``(batch,)``: ``-inf`` where no
        sequence is possible, NaN where the emissions hold NaN or ``+inf``.
    """
    batch, time, tags = emissions.shape
    real = real_positions(lengths, time)  # (time, batch)
    if emissions.numel() == 0:
        return lengths.new_full((batch, time), -1), emissions.new_zeros(batch)
    if crf_triton.computes(emissions, scores):
        return crf_triton.viterbi(emissions, lengths, scores)
    split = parts(batch, tags)
    if len(split) > 1:
        found = [viterbi(emissions[some], lengths[some], scores) for some in split]
        return torch.cat([part[0] for part in found]), torch.cat([part[1] for part in found])
    table = _best_scores(emissions, scores)  # (time, batch, tag)
    ends = (lengths - 1).clamp(min=0)  # (batch,)
    final = table[ends, torch.arange(batch, device=ends.device)] + scores.end  # (batch, tag)
    best, tag = final.max(-1)  # (batch,)
    chosen = _traced(table, scores.transitions, tag, real).masked_fill_(~real.t(), -1)
    score = path_score(emissions, chosen.clamp(min=0), lengths, scores).to(best.dtype)
    score.masked_fill_(best == -torch.inf, -torch.inf)
    score.masked_fill_(best.isnan() | (best == torch.inf), torch.nan)
    return chosen, score.masked_fill_(lengths == 0, 0.0)


def _best_scores(emissions: Tensor, scores: Scores) -> Tensor:
    """Best score of any sequence that ends in each tag at each position: (time, batch, tag).

    The batch is the innermost axis on the way: the maximum over the previous tag then runs over
    whole vectors whatever the number of tags.
    """
    batch, time, tags = emissions.shape
    emitted = emissions.permute(1, 2, 0).contiguous()  # (time, tag, batch)
    step = scores.transitions.unsqueeze(-1)  # (previous tag, next tag, 1)
    table = torch.empty_like(emitted)
    sums = emitted.new_empty(tags, tags, batch)
    torch.add(emitted[0], scores.start.unsqueeze(-1), out=table[0])
    slices = zip(table.unbind(0), emitted.unbind(0), strict=True)
    best = next(slices)[0]
    for now, (following, weights) in enumerate(slices, start=1):
        torch.add(best.unsqueeze(1), step, out=sums)
        torch.amax(sums, 0, out=following)
        following.add_(weights)
        if now % _SETTLE_EVERY == 0:
            following.sub_(_peak(following, 0))
        best = following
    return table.transpose(1, 2).contiguous()


def _peak(best: Tensor, *axes: int) -> Tensor:
    """The greatest score of each sentence, or 0 where nothing is possible."""
    peak = best.amax(axes, keepdim=True)
    return peak.masked_fill_(peak == -torch.inf, 0.0)


def _traced(table: Tensor, transitions: Tensor, last: Tensor, real: Tensor) -> Tensor:
    """Follow the best sequences back from their last tags: (batch, time)."""
    into = transitions.t().contiguous()  # (next tag, previous tag)
    rows, alive = table.unbind(0), real.unbind(0)
    tag = last
    chosen = [tag]
    for now in range(len(rows) - 2, -1, -1):
        before = (rows[now] + into.index_select(0, tag)).argmax(-1)
        tag = torch.where(alive[now + 1], before, last)
        chosen.append(tag)
    return torch.stack(chosen[::-1], 1)


def n_best(emissions: Tensor, lengths: Tensor, scores: Scores, n: int) -> tuple[Tensor, Tensor]:
    """The n best tag sequences of each sentence, from the n best ones that end in each tag.

    Args:
        emissions: ``(batch, time, tag)`` without NaN and ``+inf``.
        lengths: ``(batch,)``.
        scores: start, transition and end scores.
        n: number of sequences, at least 1.

    Returns:
        Tags ``(batch, n, time)`` int64, -1 at padding, best first; and their number ``(batch,)``,
        below n where fewer are possible.
    """
    batch, time, tags = emissions.shape
    if emissions.numel() == 0:
        return lengths.new_full((batch, n, time), -1), torch.ones_like(lengths)
    real = real_positions(lengths, time)  # (time, batch)
    best = emissions.new_full((batch, tags, n), -torch.inf)  # (batch, tag, rank)
    best[:, :, 0] = scores.start + emissions[:, 0]
    stay = torch.arange(tags * n, dtype=torch.int32, device=best.device)
    pointers = []
    for now in range(1, time):
        values, origin = _extended(best, scores.transitions)
        values += emissions[:, now].unsqueeze(-1)
        if now % _SETTLE_EVERY == 0:
            values -= _peak(values, 1, 2)
        alive = real[now].unsqueeze(1)  # (batch, 1)
        best = torch.where(alive.unsqueeze(2), values, best)
        pointers.append(torch.where(alive, origin.flatten(1).int(), stay))  # (batch, tag * n)
    final = (best + scores.end.unsqueeze(-1)).flatten(1)  # (batch, tag * n)
    ranked, state = final.sort(dim=-1, descending=True, stable=True)
    state = state[:, :n]
    chosen = [state // n]
    for pointer in reversed(pointers):
        state = pointer.gather(1, state).long()
        chosen.append(state // n)
    paths = torch.stack(chosen[::-1], -1).masked_fill_(~real.t().unsqueeze(1), -1)
    found = (ranked[:, :n] > -torch.inf).sum(1)
    return paths, found.masked_fill(lengths == 0, 1)


def _extended(best: Tensor, transitions: Tensor) -> tuple[Tensor, Tensor]:
    """One step of ``n_best``: the n best of each next tag, and where they came from.

    For each next tag the ranked lists of all previous tags are merged: n times the best head is
    taken, and the next rank of its list becomes the head. Values and origins, numbered ``previous
    tag * n + rank``, are (batch, next tag, n).
    """
    n = best.shape[2]
    into = transitions.t().expand(len(best), -1, -1)  # (batch, next tag, previous tag)
    ranked = nn.functional.pad(best, (0, 1), value=-torch.inf).flatten(1)  # (batch, tag * (n + 1))
    heads = best[:, :, 0].unsqueeze(1) + into  # (batch, next tag, previous tag)
    ranks = torch.zeros_like(heads, dtype=torch.int64)
    values, origins = [], []
    for _ in range(n):
        value, previous = heads.max(-1, keepdim=True)  # (batch, next tag, 1)
        rank = ranks.gather(-1, previous)
        values.append(value)
        origins.append(previous * n + rank.clamp(max=n - 1))  # beyond: exhausted, of score -inf
        rank = (rank + 1).clamp(max=n)
        head = ranked.gather(1, (previous * (n + 1) + rank).squeeze(-1)).unsqueeze(-1)
        heads.scatter_(-1, previous, head + into.gather(-1, previous))
        ranks.scatter_(-1, previous, rank)
    return torch.cat(values, -1), torch.cat(origins, -1)

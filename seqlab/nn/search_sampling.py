"""Sampling: outputs drawn from the model's distribution, the same ones in any batch.

Every sentence has a generator of its own, whose seed is worked out from the search's seed and the
sentence's number. Each sample takes one number between 0 and 1 from it at each step and looks up
the token at which the probabilities, added up, pass it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from seqlab.errors import UsageError
from seqlab.nn.search_choices import log_probabilities
from seqlab.nn.search_constraints import Rules
from seqlab.nn.search_history import History
from seqlab.nn.search_options import Constraints, Hypothesis, SearchOptions
from seqlab.nn.search_scores import length_divisor
from seqlab.nn.search_steppers import Stepper


def number_of(ids: Sequence[int]) -> int:
    """Work out a number from a sentence's ids, for those who have no better one.

    Args:
        ids: its tokens.

    Example:
        >>> number_of([5, 6]) == number_of([5, 6]) != number_of([6, 5])
        True
    """
    text = ",".join(map(str, ids)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


class Sampling:
    """Samples of each sentence, all drawn side by side.

    Args:
        stepper: the model.
        options: what is asked for.
        lengths: ``(sentence,)`` tokens of the sources.
        constraints: of each sentence, without required phrases.
        numbers: of each sentence: equal ones draw alike.
    """

    def __init__(
        self,
        stepper: Stepper,
        options: SearchOptions,
        lengths: Tensor,
        constraints: Sequence[Constraints],
        numbers: Sequence[int],
    ) -> None:
        device = lengths.device
        self._stepper, self._options = stepper, options
        self._sources: list[int] = lengths.tolist()
        pairs = zip(self._sources, constraints, strict=True)
        limits = [options.limit(source, len(wish.prefix)) for source, wish in pairs]
        self._limits = torch.tensor(limits, device=device)
        self._longest = max(limits)
        self._forbidden = torch.tensor(options.forbidden, device=device)
        self._rules = Rules(options, constraints, device)
        self._history = History(len(limits))
        draws = [
            _draws(options, number, limit + 1)
            for number, limit in zip(numbers, limits, strict=True)
        ]
        # One number for each sentence, sample and step: (sentence, sample, time)
        self._draws = torch.nn.utils.rnn.pad_sequence(draws, batch_first=True).to(device)
        self._draws = self._draws.transpose(1, 2)
        shape = len(limits), options.n_best
        self._ends = torch.full(shape, -1, device=device)  # tokens of each finished sample
        self._logs = torch.zeros(shape, dtype=torch.float64, device=device)

    def run(self) -> list[list[Hypothesis]]:
        """Draw ``n_best`` samples a sentence, in the order of their numbers."""
        options, stepper = self._options, self._stepper
        rows = torch.arange(len(self._limits), device=self._limits.device)
        samples = torch.arange(options.n_best, device=rows.device)
        tokens = torch.full((len(rows), 1), options.begin, device=rows.device)
        ids = tokens.new_zeros(len(rows), options.n_best, 0)
        state = stepper.begin()
        for time in range(self._longest + 1):
            step = stepper.step(tokens, state)
            if options.keep_attention and step.attention is None:
                raise UsageError("keep_attention is true, but the model has no attention.")
            logs = log_probabilities(step.logits).expand(-1, options.n_best, -1)
            tokens = self._drawn(logs, ids, rows, time)
            parents = samples.expand_as(tokens) if time else torch.zeros_like(tokens)
            weights = step.attention if options.keep_attention else None
            self._history.record(tokens, parents, weights)
            left = self._note(logs, tokens, rows, time)
            if len(left) == 0:
                break
            ids = torch.cat([ids, tokens.unsqueeze(2)], 2)[left]
            tokens = tokens[left]
            state = stepper.select(step.state, left, parents[left])
            if len(left) < len(rows):
                rows = rows[left]
                self._rules.select(left)
                self._history.select(rows.tolist())
        return self._results()

    def _drawn(self, logs: Tensor, ids: Tensor, rows: Tensor, time: int) -> Tensor:
        """Draw the next tokens: (sentence, sample)."""
        options = self._options
        logs = logs.clone()
        self._rules.forbid(logs, ids)
        logs.index_fill_(2, self._forbidden, -torch.inf)
        if time < options.min_length:
            logs[:, :, options.end] = -torch.inf
        last = self._limits[rows] == time
        ends = torch.full_like(logs[0, 0], -torch.inf)
        ends[options.end] = 0.0
        # At the longest length, and where rules have left nothing else, a sample ends.
        stuck = (logs == -torch.inf).all(2, keepdim=True)
        logs = torch.where(last.view(-1, 1, 1) | stuck, ends, logs)
        chances = kept_chances((logs / options.temperature).double().softmax(2), options)
        sums = chances.cumsum(2)
        drawn = self._draws[rows, :, time].unsqueeze(2) * sums[:, :, -1:]
        # The bound is for sums that are no numbers, which the caller finds out by the scores.
        size = chances.shape[2]
        return torch.searchsorted(sums, drawn, right=True).squeeze(2).clamp(max=size - 1)

    def _note(self, logs: Tensor, tokens: Tensor, rows: Tensor, time: int) -> Tensor:
        """Note probabilities and ends; return the places of the sentences that go on."""
        open_ = self._ends[rows] < 0
        gained = logs.gather(2, tokens.unsqueeze(2)).squeeze(2).double()
        self._logs[rows] += gained.masked_fill(~open_, 0.0)
        over = open_ & (tokens == self._options.end)
        self._ends[rows] = self._ends[rows].masked_fill(over, time)
        return (open_ & ~over).any(1).nonzero().squeeze(1)

    def _results(self) -> list[list[Hypothesis]]:
        options = self._options
        kind, alpha = options.length_penalty, options.alpha
        rows = zip(self._ends.tolist(), self._logs.tolist(), self._sources, strict=True)
        return [
            [
                self._history.hypothesis(
                    sentence,
                    length,
                    sample,
                    score=log / length_divisor(kind, alpha, length + 1),
                    log_probability=log,
                    source=source if options.keep_attention else None,
                )
                for sample, (length, log) in enumerate(zip(ends, logs, strict=True))
            ]
            for sentence, (ends, logs, source) in enumerate(rows)
        ]


def kept_chances(chances: Tensor, options: SearchOptions) -> Tensor:
    """Keep what is drawn among: of the ``top_k`` tokens the fewest with ``top_p`` together.

    Of equally probable tokens the lowest ids are kept.

    Args:
        chances: ``(..., size)`` probabilities.
        options: with ``top_k`` and ``top_p``.

    Returns:
        ``(..., size)``, 0 elsewhere; they no longer add up to 1.
    """
    if options.top_k == 0 and options.top_p == 1:
        return chances
    ranked, order = chances.sort(dim=-1, descending=True, stable=True)
    if options.top_k:
        ranked[..., options.top_k :] = 0.0
    total = ranked.sum(-1, keepdim=True)
    before = ranked.cumsum(-1) - ranked
    ranked = ranked.masked_fill(before >= options.top_p * total, 0.0)
    return torch.zeros_like(chances).scatter(-1, order, ranked)


def _draws(options: SearchOptions, number: int, steps: int) -> Tensor:
    """Numbers from 0 to just below 1: (time, sample)."""
    text = f"{options.seed} {number}".encode()
    seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(steps, options.n_best, dtype=torch.float64, generator=generator)
    # Times a sum, rounding would otherwise reach the sum itself, which no token passes.
    return drawn * (1 - 2**-52)

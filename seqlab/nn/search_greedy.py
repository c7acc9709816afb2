"""Greedy search: the most probable token at each step, and nothing else."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqlab.errors import UsageError
from seqlab.nn.kernels import search_native
from seqlab.nn.search_choices import first_greatest, log_probabilities
from seqlab.nn.search_history import History
from seqlab.nn.search_options import Hypothesis, SearchOptions
from seqlab.nn.search_scores import length_divisor
from seqlab.nn.search_steppers import Stepper


class GreedySearch:
    """Greedy search without constraints and coverage penalty.

    It chooses what beam search with one hypothesis would, in fewer steps: without
    ``options.scores`` no probability is worked out at all.

    Args:
        stepper: the model.
        options: what is asked for.
        lengths: ``(sentence,)`` tokens of the sources.
    """

    def __init__(self, stepper: Stepper, options: SearchOptions, lengths: Tensor) -> None:
        self._stepper, self._options = stepper, options
        self._sources: list[int] = lengths.tolist()
        self._limits = [options.limit(length) for length in self._sources]
        self._shortest = min(self._limits)
        self._forbidden = torch.tensor(options.forbidden, device=lengths.device)
        self._too_early = torch.tensor([*options.forbidden, options.end], device=lengths.device)
        self._history = History(len(self._limits))
        self._ends: dict[int, tuple[int, float]] = {}  # sentence -> length, log-probability
        self._device = lengths.device

    def run(self) -> list[list[Hypothesis]]:
        """Search, and return one output a sentence."""
        options, stepper = self._options, self._stepper
        left = list(range(len(self._limits)))
        tokens = torch.full((len(left), 1), options.begin, device=self._device)
        state = stepper.begin()
        total: Tensor | None = None
        for time in range(max(self._limits) + 1):
            step = stepper.step(tokens, state)
            if options.keep_attention and step.attention is None:
                raise UsageError("keep_attention is true, but the model has no attention.")
            tokens, total = self._choose(step.logits, total, time, left)
            over = (tokens == options.end).squeeze(1).tolist()
            state = step.state
            self._history.record(tokens, None, step.attention if options.keep_attention else None)
            if not any(over):
                continue
            self._finish(left, over, total, time)
            left = [sentence for sentence, gone in zip(left, over, strict=True) if not gone]
            if not left:
                break
            kept = torch.tensor([i for i, gone in enumerate(over) if not gone])
            kept = kept.to(self._device)
            tokens, total = tokens[kept], None if total is None else total[kept]
            state = stepper.select(state, kept, kept.new_zeros(len(kept), 1))
            self._history.select(left)
        return [[self._output(sentence)] for sentence in range(len(self._limits))]

    def _choose(
        self, logits: Tensor, total: Tensor | None, time: int, left: list[int]
    ) -> tuple[Tensor, Tensor | None]:
        """The next tokens and the log-probabilities with them, each (sentence, 1)."""
        options = self._options
        last = self._at_limit(time, left)
        forbidden = self._forbidden if time >= options.min_length else self._too_early
        if search_native.supports(logits, 1):
            found = search_native.best(
                logits,
                total,
                1,
                forbidden=forbidden,
                end=options.end,
                padding=options.padding,
                normalised=options.scores,
            )
            if last:
                found.tokens[last], found.totals[last] = options.end, found.ended[last]
            return found.tokens, found.totals if options.scores else None
        logits = logits.squeeze(1)  # (sentence, size)
        if options.scores:
            logits = log_probabilities(logits)
        ends = logits[last, options.end] if last else None
        logits.index_fill_(1, forbidden, -torch.inf)
        if ends is not None:
            logits[last] = -torch.inf
            logits[last, options.end] = ends
        tokens = first_greatest(logits).unsqueeze(1)
        if not options.scores:
            return tokens, None
        chosen = logits.gather(1, tokens)
        return tokens, chosen if total is None else chosen + total

    def _at_limit(self, time: int, left: list[int]) -> list[int]:
        """Rows of the sentences that must end now."""
        if time < self._shortest:
            return []
        return [row for row, sentence in enumerate(left) if self._limits[sentence] == time]

    def _finish(self, left: list[int], over: list[bool], total: Tensor | None, time: int) -> None:
        logs = [math.nan] * len(left) if total is None else total.squeeze(1).tolist()
        for sentence, gone, log in zip(left, over, logs, strict=True):
            if gone:
                self._ends[sentence] = time, log

    def _output(self, sentence: int) -> Hypothesis:
        options = self._options
        length, log = self._ends[sentence]
        return self._history.hypothesis(
            sentence,
            length,
            0,
            score=log / length_divisor(options.length_penalty, options.alpha, length + 1),
            log_probability=log,
            source=self._sources[sentence] if options.keep_attention else None,
        )

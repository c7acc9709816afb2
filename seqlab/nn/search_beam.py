"""Beam search over a batch, in tensors over (sentence, hypothesis).

One step, for every sentence by itself:

1. The model gives each hypothesis' distribution over the next token.
2. A hypothesis that ends now is finished if fewer than ``beam`` continuations of any kind are more
   probable. It is ranked by its penalised score, and kept if it is among the ``n_best``.
3. The ``beam`` most probable continuations that do not end are the next hypotheses. They are chosen
   by probability alone: at equal length the length penalty changes nothing.
4. The sentence leaves the batch when nothing that is left in its beam can still beat the worst of
   its n best (``search_scores.Penalties.bound``), or at its own longest length, where the end token
   is the only choice.

No decision looks at another sentence, so none can depend on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seqlab.errors import UsageError
from seqlab.nn.kernels import search_native
from seqlab.nn.search_choices import (
    Choices,
    best_choices,
    diverse_choices,
    log_probabilities,
)
from seqlab.nn.search_constraints import Rules
from seqlab.nn.search_history import Finished, History
from seqlab.nn.search_options import Constraints, Hypothesis, SearchOptions
from seqlab.nn.search_required import Required, needed_phrases
from seqlab.nn.search_scores import Penalties
from seqlab.nn.search_steppers import Stepper


class BeamSearch:
    """One beam search.

    Args:
        stepper: the model.
        options: what is asked for.
        lengths: ``(sentence,)`` tokens of the sources.
        constraints: of each sentence; either all of them have required phrases or none has.
    """

    def __init__(
        self,
        stepper: Stepper,
        options: SearchOptions,
        lengths: Tensor,
        constraints: Sequence[Constraints],
    ) -> None:
        device = lengths.device
        self._stepper, self._options = stepper, options
        self._sources: list[int] = lengths.tolist()
        prefixes = [len(wish.prefix) for wish in constraints]
        limits = [options.limit(*both) for both in zip(self._sources, prefixes, strict=True)]
        self._limits = torch.tensor(limits, device=device)
        self._lengths = lengths
        self._shortest, self._longest = min(limits), max(limits)
        self._forbidden = torch.tensor([*options.forbidden, options.end], device=device)
        self._rows = torch.arange(len(limits), device=device)  # places at the start
        self._all = self._rows  # places now
        self._history = History(len(limits))
        ruled = options.no_repeat_ngram or any(wish.prefix or wish.banned for wish in constraints)
        self._rules = Rules(options, constraints, device) if ruled else None
        phrases = [needed_phrases(wish.required) for wish in constraints]
        self._required = (
            Required(phrases, self._limits, prefixes, options.padding, device)
            if any(phrases)
            else None
        )
        self._plain = self._rules is None and self._required is None and options.groups == 1
        width = options.width
        self._quota = math.inf if options.patience is None else options.patience * width
        if width == 1:
            self._quota = 1  # greedy search ends with its first end token
        self._tokens = torch.full((len(limits), 1), options.begin, device=device)
        self._scores: Tensor | None = None  # (sentence, hypothesis) log-probabilities
        self._coverage: Tensor | None = None  # (sentence, hypothesis, source)
        self._ids: Tensor | None = None  # (sentence, hypothesis, time) where rules look back
        if self._rules is not None:
            self._ids = self._tokens.new_zeros(len(limits), 1, 0)

    def run(self) -> list[list[Hypothesis]]:
        """Search, and return the n best outputs of each sentence, best first.

        A sentence whose constraints left nothing to choose from has none.
        """
        options = self._options
        state = self._stepper.begin()
        for time in range(self._longest + 1):
            step = self._stepper.step(self._tokens, state)
            if time == 0:
                self._prepare(step.logits)
            attention = self._looked(step.attention)
            if self._plain and search_native.supports(step.logits, options.beam):
                choices, ended = self._chosen_at_once(step.logits, time)
                rivals = choices.totals.unsqueeze(1)
            else:
                logs, ended = self._logs(step.logits, time)
                choices, rivals = self._choose(logs)
            self._finish(ended, rivals, attention, time)
            self._history.record(
                choices.tokens, choices.parents, step.attention if options.keep_attention else None
            )
            kept = self._kept(choices.totals, time)
            if kept is not None and len(kept) == 0:
                break
            state = self._go_on(step.state, choices, attention, kept)
        return self._results()

    def _prepare(self, logits: Tensor) -> None:
        """Set up what needs the kind of the model's numbers."""
        options = self._options
        self._penalties = Penalties(options, self._limits, self._lengths, logits.dtype)
        each = -(-options.n_best // options.groups)
        rows = len(self._limits) * options.groups
        self._finished = Finished(rows, each, options.width, logits)
        self._any_finished = False

    def _looked(self, attention: Tensor | None) -> Tensor | None:
        """Attention that each source token got so far, where the coverage penalty needs it."""
        options = self._options
        if attention is None and (options.keep_attention or options.coverage):
            if options.keep_attention:
                raise UsageError("keep_attention is true, but the model has no attention.")
            raise UsageError(
                f"coverage is {options.coverage}, but the model has no attention: leave it out."
            )
        if not options.coverage or attention is None or self._coverage is None:
            return attention if options.coverage else None
        # A model that drops padding of sentences that left gives less than before.
        return attention + self._coverage[:, :, : attention.shape[2]]

    def _chosen_at_once(self, logits: Tensor, time: int) -> tuple[Choices, Tensor]:
        """What :meth:`_logs` and :meth:`_choose` come to without constraints, compiled."""
        options = self._options
        last = self._limits == time if time >= self._shortest else None
        *choices, ended = search_native.best(
            logits,
            self._scores,
            options.beam,
            forbidden=self._forbidden,
            end=options.end,
            padding=options.padding,
            last=last,
        )
        if time < options.min_length:
            ended.masked_fill_(_opposite(last, ended), -torch.inf)
        return Choices(*choices), ended

    def _logs(self, logits: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities of all next tokens, and of the hypotheses that end with the step.

        Returns:
            ``(sentence, hypothesis, size)``, where the end is none of them, and
            ``(sentence, hypothesis)``.
        """
        options = self._options
        logs = log_probabilities(logits)
        if self._rules is not None and self._ids is not None:
            free = None if self._required is None else self._required.next_tokens()
            self._rules.forbid(logs, self._ids, free)
        ended = logs.select(2, options.end)
        ended = ended.clone() if self._scores is None else ended + self._scores
        last = self._limits == time if time >= self._shortest else None
        if time < options.min_length or self._required is not None:
            allowed = torch.zeros_like(ended, dtype=torch.bool)
            if time >= options.min_length and self._required is not None:
                allowed = self._required.met()
            if last is not None:
                allowed = allowed | last.unsqueeze(1)
            ended.masked_fill_(~allowed, -torch.inf)
        logs.index_fill_(2, self._forbidden, -torch.inf)
        if last is not None:
            logs[last] = -torch.inf
        if self._required is not None:
            self._required.enforce(logs, time)
        return logs, ended

    def _choose(self, logs: Tensor) -> tuple[Choices, Tensor]:
        """The next hypotheses, and what ends are measured by: (sentence, group, hypothesis)."""
        options = self._options
        if self._required is None and options.groups == 1:
            choices = best_choices(logs, self._scores, options.beam, options.padding)
            return choices, choices.totals.unsqueeze(1)
        totals = logs if self._scores is None else logs + self._scores.unsqueeze(2)
        if self._required is None:
            return diverse_choices(
                totals, options.groups, options.width, options.diversity, options.padding
            )
        choices, rivals = self._required.choose(totals, options.beam)
        return choices, rivals.unsqueeze(1)

    def _finish(self, ended: Tensor, rivals: Tensor, coverage: Tensor | None, time: int) -> None:
        """Keep the hypotheses that end now.

        Args:
            ended: ``(sentence, hypothesis)`` log-probabilities, ``-inf`` where it may not be.
            rivals: ``(sentence, group, width)`` totals of continuations.
            coverage: ``(sentence, hypothesis, source)``, or None.
            time: tokens before the end.
        """
        options = self._options
        sentences, groups, width = rivals.shape
        # (sentence, group, hypothesis of the group); at the first step all share one
        each = ended.view(sentences, -1, min(width, ended.shape[1])).expand(-1, groups, -1)
        if not _any_at_least(each, rivals):
            return
        better = (rivals.unsqueeze(2) > each.unsqueeze(3)).sum(3)
        better += (each.unsqueeze(2) > each.unsqueeze(3)).sum(3)
        may = (better < options.width) & (each > -torch.inf)
        rows = (self._rows.unsqueeze(1) * groups + torch.arange(groups, device=ended.device)).view(
            -1
        )
        may &= (self._finished.counts[rows] < self._quota).view(sentences, groups, 1)
        scores = self._penalties.score(ended, time + 1, coverage)
        scores = scores.view(sentences, -1, each.shape[2]).expand(-1, groups, -1)
        scores = scores.masked_fill(~may, -torch.inf)
        self._finished.add(rows, scores.flatten(0, 1), each.flatten(0, 1), time)
        self._any_finished = True

    def _kept(self, totals: Tensor, time: int) -> Tensor | None:
        """Places of the sentences that go on; None for all of them."""
        if not self._any_finished and time < self._shortest:
            return None
        sentences, groups = len(totals), self._options.groups
        done = self._limits <= time
        if self._any_finished:
            best = totals.view(sentences, groups, -1).amax(2)  # (sentence, group)
            worst = self._finished.scores.view(-1, groups, self._finished.scores.shape[1])[
                self._rows, :, -1
            ]
            over = worst >= self._penalties.bound(best)
            if self._quota < math.inf:
                counts = self._finished.counts.view(-1, groups)[self._rows]
                over |= counts >= self._quota
            done |= over.all(1)
        if not bool(done.any()):
            return None
        return (~done).nonzero().squeeze(1)

    def _go_on(
        self, state: object, choices: Choices, coverage: Tensor | None, kept: Tensor | None
    ) -> object:
        """Continue with the chosen hypotheses of the sentences that are left."""
        if kept is not None:
            choices = Choices(*(part[kept] for part in choices))
            coverage = None if coverage is None else coverage[kept]
            self._leave(kept)
        self._scores, parents, self._tokens = choices
        if coverage is not None:
            place = parents.unsqueeze(2).expand(-1, -1, coverage.shape[2])
            self._coverage = coverage.gather(1, place)
        if self._ids is not None:
            place = parents.unsqueeze(2).expand(-1, -1, self._ids.shape[2])
            old = self._ids.gather(1, place)
            self._ids = torch.cat([old, self._tokens.unsqueeze(2)], 2)
        return self._stepper.select(state, self._all if kept is None else kept, parents)

    def _leave(self, kept: Tensor) -> None:
        """Drop the sentences that are done."""
        self._rows, self._limits = self._rows[kept], self._limits[kept]
        self._all = self._all[: len(kept)]
        self._shortest = int(self._limits.min())
        self._penalties.select(kept)
        self._history.select(self._rows.tolist())
        if self._rules is not None:
            self._rules.select(kept)
        if self._required is not None:
            self._required.select(kept)
        if self._ids is not None:
            self._ids = self._ids[kept]

    def _results(self) -> list[list[Hypothesis]]:
        options = self._options
        found = self._finished.results()
        results = []
        for sentence, source in enumerate(self._sources):
            first = sentence * options.groups
            groups = found[first : first + options.groups]
            # The best of each group before the second best of any.
            ranked = sorted(
                (rank, -score, group, log, length, slot)
                for group, outputs in enumerate(groups)
                for rank, (score, log, length, slot) in enumerate(outputs)
            )
            results.append(
                [
                    self._history.hypothesis(
                        sentence,
                        length,
                        group * options.width + slot,
                        score=-score,
                        log_probability=log,
                        source=source if options.keep_attention else None,
                    )
                    for _, score, group, log, length, slot in ranked[: options.n_best]
                ]
            )
        return results


def _opposite(last: Tensor | None, like: Tensor) -> Tensor:
    """Which hypotheses are not of the last step of their sentence: as ``like``."""
    if last is None:
        return torch.ones_like(like, dtype=torch.bool)
    return ~last.unsqueeze(1).expand_as(like)


def _any_at_least(ended: Tensor, rivals: Tensor) -> bool:
    """Whether any end is at least as probable as the last of the continuations beside it."""
    if ended.shape[0] * ended.shape[1] == 1:  # lists are faster than calls on so few numbers
        return bool(max(ended.flatten().tolist()) >= rivals.flatten().tolist()[-1])
    return bool((ended >= rivals[:, :, -1:]).any())

"""How a search remembers: back-pointers of all steps, and the finished outputs of each sentence.

A step leaves two small tensors, which token every hypothesis chose and which hypothesis it goes on
from. Whole outputs are put together at the end, and only those that are handed out.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from seqlab.nn.search_options import Hypothesis


class History:
    """Tokens, parents and attention of all steps.

    Args:
        sentences: how many there are at the start.
    """

    def __init__(self, sentences: int) -> None:
        self._tokens: list[Tensor] = []
        self._parents: list[Tensor | None] = []
        self._attention: list[Tensor | None] = []
        self._rows: list[list[int]] = []  # of each step: the row of each sentence, -1 where it left
        self._now = list(range(sentences))
        self._flat: tuple[list[int], list[int]] | None = None

    def record(self, tokens: Tensor, parents: Tensor | None, attention: Tensor | None) -> None:
        """Note one step.

        Args:
            tokens: ``(sentence, hypothesis)`` that were chosen.
            parents: ``(sentence, hypothesis)`` which hypotheses of before they continue; None where
                there is but one.
            attention: ``(sentence, old hypothesis, source)`` of the step, where it is kept.
        """
        self._tokens.append(tokens)
        self._parents.append(parents)
        self._attention.append(attention)
        self._rows.append(self._now)

    def select(self, sentences: list[int]) -> None:
        """Go on with some sentences, named by their places at the start, ascending."""
        self._now = [-1] * len(self._now)
        for row, sentence in enumerate(sentences):
            self._now[sentence] = row

    def trace(self, sentence: int, length: int, slot: int) -> list[tuple[int, int, int]]:
        """Follow a hypothesis back to its beginning.

        Args:
            sentence: its place at the start.
            length: number of its tokens.
            slot: its place among the sentence's hypotheses after the last of them.

        Returns:
            Of each step the token, the row and the hypothesis that chose it.
        """
        if self._flat is None:
            self._flat = self._flattened()
        tokens, parents = self._flat
        path = []
        for time in range(length - 1, -1, -1):
            row = self._rows[time][sentence]
            place = self._starts[time] + row * self._tokens[time].shape[1] + slot
            slot = parents[place]
            path.append((tokens[place], row, slot))
        return path[::-1]

    def _flattened(self) -> tuple[list[int], list[int]]:
        """All tokens and parents in one transfer each."""
        sizes = [step.numel() for step in self._tokens]
        self._starts = [0, *itertools.accumulate(sizes)]
        if not sizes:
            return [], []
        tokens = torch.cat([step.flatten() for step in self._tokens])
        pairs = zip(self._parents, self._tokens, strict=True)
        parents = [torch.zeros_like(t) if p is None else p for p, t in pairs]
        return tokens.tolist(), torch.cat([step.flatten() for step in parents]).tolist()

    def attention(self, path: list[tuple[int, int, int]], source: int) -> Tensor:
        """Put together the attention of a traced hypothesis.

        Args:
            path: of :meth:`trace`.
            source: tokens of its source.

        Returns:
            ``(token, source)``.
        """
        steps = []
        for (_, row, slot), weights in zip(path, self._attention, strict=False):
            assert weights is not None
            steps.append(weights[row, slot, :source])
        return torch.stack(steps) if steps else torch.zeros(0, source)

    def hypothesis(
        self,
        sentence: int,
        length: int,
        slot: int,
        *,
        score: float,
        log_probability: float,
        source: int | None,
    ) -> Hypothesis:
        """Put a finished output together.

        Args:
            sentence: its place at the start.
            length: number of its tokens, without the end token.
            slot: its place among the hypotheses.
            score: what it is ranked by.
            log_probability: of all tokens.
            source: tokens of its source, where attention is wanted.
        """
        path = self.trace(sentence, length, slot)
        attention = None if source is None else self.attention(path, source)
        return Hypothesis([step[0] for step in path], score, log_probability, attention)


class Finished:
    """The best finished outputs of each sentence, or of each group of it.

    Rows are sentences times groups, and stay where they are when sentences leave the search.

    Args:
        rows: how many.
        n_best: outputs to keep of each.
        width: hypotheses of each.
        like: a tensor of the scores' kind.
    """

    def __init__(self, rows: int, n_best: int, width: int, like: Tensor) -> None:
        self._n_best, self._width = n_best, width
        self.scores = like.new_full((rows, n_best), -torch.inf)
        self.counts = torch.zeros(rows, dtype=torch.int64, device=like.device)
        self._log_probabilities = like.new_full((rows, n_best), -torch.inf)
        self._places = torch.zeros(rows, n_best, dtype=torch.int64, device=like.device)

    def add(self, rows: Tensor, scores: Tensor, log_probabilities: Tensor, length: int) -> None:
        """Take in what has finished in a step.

        Args:
            rows: ``(some,)`` which rows.
            scores: ``(some, hypothesis)``; ``-inf`` for hypotheses that did not finish.
            log_probabilities: ``(some, hypothesis)``.
            length: number of tokens, without the end token.
        """
        slots = torch.arange(scores.shape[1], device=scores.device) + length * self._width
        self.counts[rows] += (scores > -torch.inf).sum(1)
        pool = torch.cat([self.scores[rows], scores], 1)
        best, order = pool.sort(dim=1, descending=True, stable=True)  # of equals the earliest
        best, order = best[:, : self._n_best], order[:, : self._n_best]
        logs = torch.cat([self._log_probabilities[rows], log_probabilities], 1)
        places = torch.cat([self._places[rows], slots.expand_as(scores)], 1)
        self.scores[rows] = best
        self._log_probabilities[rows] = logs.gather(1, order)
        self._places[rows] = places.gather(1, order)

    def results(self) -> list[list[tuple[float, float, int, int]]]:
        """Return of each row its outputs, best first: score, log-probability, length, slot."""
        scores, logs, places = (
            part.tolist() for part in (self.scores, self._log_probabilities, self._places)
        )
        return [
            [
                (score, log, *divmod(place, self._width))
                for score, log, place in zip(*row, strict=True)
                if score > -torch.inf
            ]
            for row in zip(scores, logs, places, strict=True)
        ]

"""What finished outputs are ranked by, and the best that unfinished ones can still become.

With log-probability ``p <= 0``, ``n`` tokens (the end token counted in) and coverage ``c``::

    score = p / divisor(n) + coverage(c)

**Bound.** A hypothesis that goes on never gains probability, and every divisor grows with ``n``, so
no continuation of ``p`` within the longest length ``m`` exceeds ``p / divisor(m)``: the quotient of
a number that is not positive is greatest where it is smallest in size. For ``none`` that is ``p``
itself. The coverage penalty is a sum of logarithms of at most 1, so it is at most 0, whatever
attention is still to come, and adds nothing to the bound. Float arithmetic rounds monotonically,
hence the bound holds for computed scores as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqlab.nn.search_options import LengthPenalty, SearchOptions

# What the coverage of a source token counts for at least, lest one that was never looked at decide
# alone: its logarithm would be minus infinity.
LEAST_COVERAGE = 1e-6


def length_divisor(kind: LengthPenalty, alpha: float, length: int) -> float:
    """What a log-probability is divided by.

    Args:
        kind: ``none``, ``average`` or ``wu`` (Wu et al., 2016, equation 14).
        alpha: exponent.
        length: tokens, the end token counted in.

    Example:
        >>> length_divisor("wu", 1.0, 7)
        2.0
    """
    if kind == "none":
        return 1.0
    base = float(length) if kind == "average" else (5 + length) / 6
    return math.pow(base, alpha)


class Penalties:
    """The penalties of one search.

    Args:
        options: which penalties.
        limits: ``(sentence,)`` greatest number of tokens of each, without the end token.
        lengths: ``(sentence,)`` tokens of the sources.
        dtype: of the scores.
    """

    def __init__(
        self, options: SearchOptions, limits: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> None:
        longest = int(limits.max()) + 1
        kind, alpha = options.length_penalty, options.alpha
        divisors = [1.0, *(length_divisor(kind, alpha, n) for n in range(1, longest + 1))]
        # One table for scores and bounds, so that both divide by the same number.
        self._divisors = torch.tensor(divisors, dtype=dtype, device=limits.device)
        self._greatest = self._divisors[limits + 1].unsqueeze(1)  # (sentence, 1)
        self._beta = options.coverage
        self._lengths = lengths

    def score(self, log_probabilities: Tensor, length: int, coverage: Tensor | None) -> Tensor:
        """Rank finished outputs.

        Args:
            log_probabilities: ``(sentence, hypothesis)``.
            length: tokens, the end token counted in.
            coverage: ``(sentence, hypothesis, source)`` attention that each source token got in
                all steps; None where there is no coverage penalty.

        Returns:
            ``(sentence, hypothesis)``.
        """
        scores = log_probabilities / self._divisors[length]
        return scores if coverage is None else scores + self._coverage(coverage)

    def _coverage(self, coverage: Tensor) -> Tensor:
        """Equation 14 of Wu et al.: (sentence, hypothesis)."""
        places = torch.arange(coverage.shape[2], device=coverage.device)
        padding = places >= self._lengths.view(-1, 1, 1)  # (sentence, 1, source)
        logs = coverage.clamp(LEAST_COVERAGE, 1.0).log().masked_fill(padding, 0.0)
        return self._beta * logs.sum(2)

    def bound(self, log_probabilities: Tensor) -> Tensor:
        """The greatest score that unfinished hypotheses can still reach.

        Args:
            log_probabilities: ``(sentence, group)`` of the most probable ones.

        Returns:
            ``(sentence, group)``.
        """
        return log_probabilities / self._greatest

    def select(self, rows: Tensor) -> None:
        """Go on with some sentences: ``rows (kept,)``."""
        self._greatest = self._greatest[rows]
        self._lengths = self._lengths[rows]

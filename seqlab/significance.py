"""Is one system better than another, or was it luck? Tests over test sentences and over seeds.

Scores such as F1 are no means over sentences: what is drawn anew are sentences, and what is scored
is the sum of their counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# From counts summed over sentences ``(..., count)`` to scores ``(...)``.
Score = Callable[[Floats], Floats]

_AT_ONCE = 1 << 24  # numbers of all draws that are in memory together
_TIE = 1e-12  # differences that are nearer to each other are equal


class Interval(NamedTuple):
    """What a bootstrap says of a difference.

    Attributes:
        difference: of the scores, the first system's less the second's.
        low: lower end of the interval.
        high: upper end.
        p: how probable a difference as far from zero is if there is none; two-sided.
    """

    difference: float
    low: float
    high: float
    p: float


def accuracy(counts: Floats) -> Floats:
    """The share of what is right, from counts of what is right and of all ``(..., 2)``."""
    return _ratio(counts[..., 0], counts[..., 1])


def f1(counts: Floats) -> Floats:
    """Micro-averaged F1, from counts of what is right, found and wanted ``(..., 3)``.

    Example:
        >>> float(f1(np.array([3.0, 4.0, 6.0])))
        0.6
    """
    return _ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


def _ratio(above: Floats, below: Floats) -> Floats:
    some = below > 0
    return np.where(some, above / np.where(some, below, 1.0), 0.0)


def approximate_randomisation(
    first: Floats, second: Floats, score: Score, *, rounds: int = 10_000, seed: int = 0
) -> float:
    """How probable a difference at least as large is if the two systems are exchangeable.

    In each round the answers of a random half of the sentences are exchanged (Noreen, 1989; Yeh,
    2000). Two-sided.

    Args:
        first: counts of each sentence ``(sentence, count)``.
        second: those of another system on the same sentences.
        score: of counts that are summed.
        rounds: how often.
        seed: of the draws.

    Returns:
        p, never 0: ``(1 + rounds that differ as much) / (1 + rounds)``.
    """
    _check(first, second)
    one, other = first.sum(0), second.sum(0)
    observed = abs(score(one) - score(other))
    random = np.random.default_rng(seed)
    gap, hits = second - first, 0
    for count in _portions(rounds, len(first)):
        moved = (random.random((count, len(first))) < 0.5) @ gap  # (round, count)
        difference = np.abs(score(one + moved) - score(other - moved))
        hits += int((difference >= observed - _TIE).sum())
    return (1 + hits) / (1 + rounds)


def paired_bootstrap(
    first: Floats,
    second: Floats,
    score: Score,
    *,
    rounds: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval in which a difference lies, from test sets drawn from this one (Koehn, 2004).

    Args:
        first: counts of each sentence ``(sentence, count)``.
        second: those of another system on the same sentences.
        score: of counts that are summed.
        rounds: test sets that are drawn, with replacement.
        level: of the interval.
        seed: of the draws.
    """
    _check(first, second)
    random = np.random.default_rng(seed)
    found = []
    for count in _portions(rounds, len(first)):
        times = random.multinomial(len(first), np.full(len(first), 1 / len(first)), count)
        found.append(score(times @ first) - score(times @ second))
    differences = np.concatenate(found)
    below, above = (differences <= _TIE).sum(), (differences >= -_TIE).sum()
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Interval(
        difference=float(score(first.sum(0)) - score(second.sum(0))),
        low=float(low),
        high=float(high),
        p=min(1.0, 2 * (1 + int(min(below, above))) / (1 + rounds)),
    )


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """Whether the scores over seeds of one system tend to be higher (Mann and Whitney, 1947).

    Args:
        first: scores, one a seed.
        second: scores of another system.

    Returns:
        p, two-sided, by scipy; exact for few scores without ties.
    """
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(first, second, alternative="two-sided").pvalue)


def almost_stochastic_order(
    first: Sequence[float],
    second: Sequence[float],
    *,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> float:
    """How far the first system is from being better in all of its distribution over seeds.

    Of the squared distance between the two distributions' quantiles, the share where the first is
    worse, at most, at a level of confidence (del Barrio et al., 2018; Dror et al., 2019). 0: the
    first is better throughout; below 0.5: it is almost stochastically better; 1: it is worse.

    Args:
        first: scores, one a seed.
        second: scores of another system.
        level: of confidence.
        rounds: of the bootstrap that finds the spread.
        seed: of its draws.
    """
    from scipy.stats import norm

    a, b = np.asarray(first, float), np.asarray(second, float)
    if not len(a) or not len(b):
        raise ValueError("each system needs a score at least.")
    random = np.random.default_rng(seed)
    ratio = _violation(a, b)
    scale = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    drawn = [_violation(random.choice(a, len(a)), random.choice(b, len(b))) for _ in range(rounds)]
    spread = float(np.std(scale * (np.array(drawn) - ratio)))
    return float(np.clip(ratio - spread * norm.ppf(1 - level) / scale, 0.0, 1.0))


def _violation(first: Floats, second: Floats) -> float:
    """The share of the squared distance of quantiles where the first is below the second."""
    a, b = np.sort(first), np.sort(second)
    # Quantile functions are steps: between all places where either jumps they are constant.
    jumps = np.unique(
        np.concatenate([np.arange(len(a) + 1) / len(a), np.arange(len(b) + 1) / len(b)])
    )
    middles, widths = (jumps[1:] + jumps[:-1]) / 2, np.diff(jumps)
    gap = a[(middles * len(a)).astype(int)] - b[(middles * len(b)).astype(int)]
    whole = float((widths * gap**2).sum())
    if whole <= _TIE**2:
        return 0.5  # neither is better
    return float((widths * np.minimum(gap, 0.0) ** 2).sum()) / whole


def holm(p: Sequence[float]) -> list[float]:
    """Correct the results of several tests that are made together (Holm, 1979).

    Args:
        p: of each test.

    Returns:
        of each the corrected one, in the same order.

    Example:
        >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    found, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p[i] * (len(p) - rank)))
        found[i] = least
    return found


def _check(first: Floats, second: Floats) -> None:
    if first.shape != second.shape or not len(first):
        raise ValueError(
            f"two systems are compared on the same sentences, not on {first.shape} and "
            f"{second.shape} counts."
        )


def _portions(rounds: int, sentences: int) -> Iterator[int]:
    """Cut the rounds into as many as fit into memory at once."""
    step = max(1, _AT_ONCE // sentences)
    for start in range(0, rounds, step):
        yield min(step, rounds - start)

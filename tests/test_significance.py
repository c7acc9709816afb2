"""Tests of significance, against scipy's and on systems whose relation is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seqlab import significance
from seqlab.significance import (
    accuracy,
    almost_stochastic_order,
    approximate_randomisation,
    f1,
    holm,
    mann_whitney,
    paired_bootstrap,
)


def right(sentences: int, share: float, seed: int) -> significance.Floats:
    """Counts of sentences of 5 tokens, each right with some probability."""
    random = np.random.default_rng(seed)
    return np.stack([random.binomial(5, share, sentences), np.full(sentences, 5)], 1).astype(float)


def spans(sentences: int, share: float, seed: int) -> significance.Floats:
    """Counts of what is right, found and wanted."""
    random = np.random.default_rng(seed)
    wanted = random.integers(0, 4, sentences)
    hits = random.binomial(wanted, share)
    return np.stack([hits, hits + random.binomial(1, 0.3, sentences), wanted], 1).astype(float)


def test_scores_of_nothing_are_zero() -> None:
    assert accuracy(np.zeros(2)) == 0.0
    assert f1(np.zeros((4, 3))).tolist() == [0.0] * 4


@pytest.mark.parametrize(("made", "score"), [(right, accuracy), (spans, f1)])
def test_equal_systems_do_not_differ(made: object, score: significance.Score) -> None:
    counts = made(200, 0.7, 1)  # type: ignore[operator]
    assert approximate_randomisation(counts, counts, score) == 1.0
    found = paired_bootstrap(counts, counts, score)
    assert found == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(("made", "score"), [(right, accuracy), (spans, f1)])
def test_a_planted_difference_is_found(made: object, score: significance.Score) -> None:
    better, worse = made(800, 0.85, 1), made(800, 0.75, 1)  # type: ignore[operator]
    assert approximate_randomisation(better, worse, score) < 0.01
    found = paired_bootstrap(better, worse, score)
    assert found.p < 0.01
    assert 0 < found.low < found.difference < found.high
    other = paired_bootstrap(worse, better, score)
    assert other.difference == pytest.approx(-found.difference)


def test_randomisation_agrees_with_scipy() -> None:
    first, second = right(60, 0.75, 3), right(60, 0.68, 4)
    theirs = stats.permutation_test(
        (first[:, 0], second[:, 0]),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        permutation_type="samples",
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    ours = approximate_randomisation(first, second, accuracy)
    assert ours == pytest.approx(theirs.pvalue, abs=0.02)


def test_the_bootstrap_agrees_with_scipy() -> None:
    first, second = right(80, 0.75, 3), right(80, 0.65, 4)
    theirs = stats.bootstrap(
        (first[:, 0] / 5, second[:, 0] / 5),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ours = paired_bootstrap(first, second, accuracy)
    assert ours.low == pytest.approx(theirs.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.high, abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize(("made", "score"), [(right, accuracy), (spans, f1)])
def test_without_a_difference_one_in_twenty_is_called_significant(
    made: object, score: significance.Score
) -> None:
    runs = 400
    wrong = [0, 0]
    for number in range(runs):
        # The sentences are the same, of one difficulty, and the answers of both alike in law.
        first, second = made(120, 0.7, 2 * number), made(120, 0.7, 2 * number + 1)  # type: ignore[operator]
        if made is spans:
            second[:, 2] = first[:, 2]
            second[:, 0] = np.random.default_rng(number).binomial(first[:, 2].astype(int), 0.7)
            second[:, 1] = second[:, 0] + np.random.default_rng(-number % 7919).binomial(
                1, 0.3, 120
            )
        wrong[0] += approximate_randomisation(first, second, score, rounds=400) <= 0.05
        wrong[1] += paired_bootstrap(first, second, score, rounds=400).p <= 0.05
    for count in wrong:  # 20 are expected; beyond these bounds by chance once in 500 times
        assert 8 <= count <= 36


def test_the_order_of_rounds_in_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = spans(50, 0.8, 1), spans(50, 0.7, 2)
    whole = approximate_randomisation(first, second, f1, rounds=500)
    interval = paired_bootstrap(first, second, f1, rounds=500)
    monkeypatch.setattr(significance, "_AT_ONCE", 50 * 7)
    assert approximate_randomisation(first, second, f1, rounds=500) == whole
    assert paired_bootstrap(first, second, f1, rounds=500) == pytest.approx(interval, abs=0.02)


def test_systems_on_other_sentences_are_refused() -> None:
    with pytest.raises(ValueError, match="same sentences"):
        approximate_randomisation(right(3, 0.5, 0), right(4, 0.5, 0), accuracy)
    with pytest.raises(ValueError, match="same sentences"):
        paired_bootstrap(np.zeros((0, 2)), np.zeros((0, 2)), accuracy)


def test_seeds_are_compared_as_scipy_does() -> None:
    first, second = [0.81, 0.83, 0.82, 0.84, 0.85], [0.79, 0.80, 0.78, 0.775, 0.77]
    assert mann_whitney(first, second) == pytest.approx(2 / 252)  # no overlap, exact


def test_almost_stochastic_order() -> None:
    better, worse = [0.9, 0.91, 0.92, 0.93], [0.8, 0.81, 0.82, 0.83]
    assert almost_stochastic_order(better, worse) == 0.0
    assert almost_stochastic_order(worse, better) == 1.0
    same = [0.8, 0.9, 0.85]
    assert almost_stochastic_order(same, same) > 0.5  # not shown to be better
    crossed = almost_stochastic_order([0.5, 0.9, 0.95, 0.97], [0.6, 0.8, 0.85, 0.87])
    assert 0.0 < crossed < 1.0
    with pytest.raises(ValueError, match="needs a score"):
        almost_stochastic_order([], worse)


def test_what_violates_the_order_is_measured_exactly() -> None:
    # Quantiles 1, 3 against 2, 2: of a squared distance of 0.5 + 0.5 half is where it is below.
    assert significance._violation(np.array([1.0, 3.0]), np.array([2.0, 2.0])) == 0.5
    assert significance._violation(np.array([3.0]), np.array([1.0, 2.0, 4.0])) == pytest.approx(
        1 / (4 + 1 + 1)
    )


def test_several_tests_are_corrected() -> None:
    assert holm([0.01, 0.02, 0.2]) == pytest.approx([0.03, 0.04, 0.2])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []

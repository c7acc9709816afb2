"""The comparison itself: scores over seeds, tests of significance, prices, and who is worth it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from seqlab.compare.answers import Confusions, by_type, confusions, differing
from seqlab.compare.outcomes import Outcomes
from seqlab.compare.price import Price
from seqlab.compare.systems import System
from seqlab.errors import UsageError
from seqlab.significance import (
    almost_stochastic_order,
    approximate_randomisation,
    holm,
    mann_whitney,
    paired_bootstrap,
)

_FEWEST = 3  # seeds of each for a test over seeds


@dataclass
class Row:
    """A system in the table.

    Args:
        name: what it is called.
        seeds: of its runs.
        scores: of its runs, in the same order; 0 to 100.
        mean: of the scores.
        sd: their standard deviation; None of a single run.
        price: what it costs.
        best_for_its_price: whether nothing that is as fast or smaller scores as much: it is on the
            Pareto front of score and speed, or of score and size where no speed was measured.
        ece: expected calibration error, the mean over the runs, 0 to 1; None of what has no
            confidences.
    """

    name: str
    seeds: list[int]
    scores: list[float]
    mean: float
    sd: float | None
    price: Price
    best_for_its_price: bool = False
    ece: float | None = None


@dataclass
class Pair:
    """Two systems beside each other.

    Args:
        first: the name of one.
        second: the name of the other.
        difference: of the mean scores, the first's less the second's.
        low: lower end of the 95 % interval over test sentences.
        high: upper end of it.
        p: over test sentences, corrected for all pairs that are compared (Holm).
        p_alone: the same as it came: by approximate randomisation of all sentences of all seeds
            that both have, or by sacrebleu's paired bootstrap.
        p_seeds: over seeds (Mann-Whitney), corrected; None with fewer than three seeds of each.
        order: almost stochastic order over seeds: below 0.5 the first is better; None likewise.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    p_alone: float
    p_seeds: float | None
    order: float | None


@dataclass
class Comparison:
    """All that is said of some systems.

    Args:
        task: ``tags``, ``labels`` or ``texts``.
        scorer: of the scores.
        sentences: of the test split.
        rows: the systems, the best first.
        pairs: all pairs of them.
        notes: what the reader has to know.
        by_type: by label the F1 of each system; empty of translations.
        differing: test sentences that one of the two best systems answers better than the other,
            with the answers of both; the first seed of each.
        confusions: of the two best systems, by gold label and answered label how often; likewise.
    """

    task: str
    scorer: str
    sentences: int
    rows: list[Row]
    pairs: list[Pair]
    notes: list[str]
    by_type: dict[str, dict[str, float]] = field(default_factory=dict)
    differing: list[dict[str, Any]] = field(default_factory=list)
    confusions: dict[str, Confusions] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON data."""
        return asdict(self)


def check_alike(outcomes: Mapping[str, Outcomes]) -> None:
    """Refuse to compare what was not asked the same.

    Args:
        outcomes: by the names of runs.

    Raises:
        UsageError: tasks, scorers or test sentences differ; it says whose.
    """
    (first, one), *others = outcomes.items()
    for name, other in others:
        if other.scorer != one.scorer:
            raise UsageError(
                f"{first} is scored by {one.scorer} and {name} by {other.scorer}: they cannot be "
                "compared."
            )
        if other.digest != one.digest:
            what = f"{len(one.gold):,} and {len(other.gold):,} test sentences"
            raise UsageError(
                f"{first} and {name} have other test sentences or other right answers ({what}): "
                "compare on one corpus, with --data.path."
            )


def compared(
    systems: Sequence[System],
    outcomes: Mapping[str, Sequence[Outcomes]],
    prices: Mapping[str, Price],
    rounds: int,
) -> Comparison:
    """Compare systems.

    Args:
        systems: what is compared.
        outcomes: by the name of a system, of each of its runs.
        prices: by the name of a system.
        rounds: of the tests over sentences.
    """
    rows = [_row(system, outcomes[system.name], prices[system.name]) for system in systems]
    rows.sort(key=lambda row: -row.mean)
    _mark_front(rows)
    pairs = [
        _pair(one, other, outcomes[one.name], outcomes[other.name], rounds)
        for one, other in itertools.combinations(rows, 2)
    ]
    for pair, p in zip(pairs, holm([pair.p_alone for pair in pairs]), strict=True):
        pair.p = p
    over_seeds = [pair for pair in pairs if pair.p_seeds is not None]
    corrected = holm([pair.p_seeds for pair in over_seeds if pair.p_seeds is not None])
    for pair, p in zip(over_seeds, corrected, strict=True):
        pair.p_seeds = p
    one = next(iter(outcomes.values()))[0]
    firsts = {row.name: outcomes[row.name][0] for row in rows}
    best = [row.name for row in rows[:2]]
    return Comparison(
        one.task,
        one.scorer,
        len(one.gold),
        rows,
        pairs,
        _notes(rows),
        by_type(firsts),
        differing(*((name, firsts[name]) for name in best)),
        {name: confusions(firsts[name]) for name in best},
    )


def _row(system: System, outcomes: Sequence[Outcomes], price: Price) -> Row:
    scores = [score_of(one) for one in outcomes]
    errors = [one.ece for one in outcomes if one.ece is not None]
    return Row(
        system.name,
        [run.seed for run in system.runs],
        scores,
        statistics.mean(scores),
        statistics.stdev(scores) if len(scores) > 1 else None,
        price,
        ece=statistics.mean(errors) if len(errors) == len(scores) else None,
    )


def score_of(outcomes: Outcomes) -> float:
    """Score a run, from 0 to 100."""
    return 100 * float(outcomes.score(outcomes.counts.sum(0)))


def _pair(
    one: Row, other: Row, first: Sequence[Outcomes], second: Sequence[Outcomes], rounds: int
) -> Pair:
    both = min(len(first), len(second))
    # A sentence's counts are those of as many seeds as both have, together.
    a, b = (np.sum([x.counts for x in some[:both]], axis=0) for some in (first, second))
    interval = paired_bootstrap(a, b, first[0].score, rounds=rounds)
    if first[0].task == "texts":
        p = _of_sacrebleu(first[0], second[0], rounds)
    else:
        p = approximate_randomisation(a, b, first[0].score, rounds=rounds)
    many = min(len(first), len(second)) >= _FEWEST
    return Pair(
        one.name,
        other.name,
        one.mean - other.mean,
        100 * interval.low,
        100 * interval.high,
        p,
        p,
        mann_whitney(one.scores, other.scores) if many else None,
        almost_stochastic_order(one.scores, other.scores) if many else None,
    )


def _of_sacrebleu(first: Outcomes, second: Outcomes, rounds: int) -> float:
    """By sacrebleu's own approximate randomisation, of the first seeds."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.significance import PairedTest

    named: list[tuple[str, Sequence[str]]] = [
        ("second", second.answers),
        ("first", first.answers),
    ]
    metrics: Any = {"BLEU": BLEU(references=[first.gold])}
    _, scores = PairedTest(named, metrics, None, test_type="ar", n_samples=rounds)()
    found: Any = scores["BLEU"][1]
    return 1.0 if found.p_value is None else float(found.p_value)


def _mark_front(rows: Sequence[Row]) -> None:
    """Mark the Pareto front of the score and the speed, or the size where no speed is known."""

    def worth(row: Row) -> float:
        speed = row.price.speed
        return -float(row.price.parameters) if speed is None else speed

    for row in rows:
        row.best_for_its_price = not any(
            other.mean >= row.mean
            and worth(other) >= worth(row)
            and (other.mean, worth(other)) != (row.mean, worth(row))
            for other in rows
        )


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    single = [row.name for row in rows if row.sd is None]
    if single:
        notes.append(
            f"{', '.join(single)}: one seed only, so that no standard deviation can be given, and "
            "the choice of the seed may be all of the difference."
        )
    if len({tuple(row.seeds) for row in rows}) > 1:
        notes.append("the systems were trained with different seeds, or not as many.")
    if len({row.price.hardware for row in rows}) > 1:
        notes.append("training times are from different machines.")
    return notes

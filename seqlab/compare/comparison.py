"""The comparison itself: scores over seeds, tests of significance, prices, and who is worth it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from seqlab.compare.outcomes import Outcomes
from seqlab.compare.systems import System
from seqlab.errors import UsageError
from seqlab.metrics import f1_of
from seqlab.significance import (
    almost_stochastic_order,
    approximate_randomisation,
    holm,
    mann_whitney,
    paired_bootstrap,
)
from seqlab.tags import UNKNOWN, spans_of

_FEWEST = 3  # seeds of each for a test over seeds


@dataclass
class Price:
    """What a system costs.

    Args:
        parameters: how many it has.
        bundle_mb: megabytes of its bundle.
        training_seconds: median over the runs.
        peak_memory_mb: of its training, the median; None where it is not known.
        tokens_per_second: by sentences at a time; empty where nothing was measured.
        joules_per_1000_tokens: likewise; without what no counter gives.
        hardware: of the training.
    """

    parameters: int
    bundle_mb: float
    training_seconds: float
    peak_memory_mb: float | None
    tokens_per_second: dict[int, float] = field(default_factory=dict)
    joules_per_1000_tokens: dict[int, float] = field(default_factory=dict)
    hardware: str = ""


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
    """

    name: str
    seeds: list[int]
    scores: list[float]
    mean: float
    sd: float | None
    price: Price
    best_for_its_price: bool = False


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
        scorer: of the scores.
        sentences: of the test split.
        rows: the systems, the best first.
        pairs: all pairs of them.
        notes: what the reader has to know.
        by_type: by label the F1 of each system; empty of translations.
        differing: test sentences that one of the two best systems answers better than the other,
            with the answers of both; the first seed of each.
    """

    scorer: str
    sentences: int
    rows: list[Row]
    pairs: list[Pair]
    notes: list[str]
    by_type: dict[str, dict[str, float]] = field(default_factory=dict)
    differing: list[dict[str, Any]] = field(default_factory=list)

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
    return Comparison(
        one.scorer,
        len(one.gold),
        rows,
        pairs,
        _notes(rows),
        by_type(firsts),
        differing(*((row.name, firsts[row.name]) for row in rows[:2])),
    )


def by_type(outcomes: Mapping[str, Outcomes]) -> dict[str, dict[str, float]]:
    """Score each label by itself, from 0 to 100.

    Args:
        outcomes: of one run of each system.

    Returns:
        by label and system the F1, of spans where there are any.
    """
    found: dict[str, dict[str, float]] = {}
    for name, one in outcomes.items():
        for label, (right, ours, gold) in _label_counts(one).items():
            found.setdefault(label, {})[name] = 100 * f1_of(ours, gold, right)[2]
    return {
        label: {name: found[label].get(name, 0.0) for name in outcomes} for label in sorted(found)
    }


def _label_counts(one: Outcomes) -> dict[str, list[int]]:
    """Of each label how often it was right, found and wanted."""
    counts: dict[str, list[int]] = {}
    if one.task == "texts":
        return counts
    for answer, gold in zip(one.answers, one.gold, strict=True):
        for place, labels in enumerate(_labelled(one, answer, gold)):
            for label in labels:
                counts.setdefault(label, [0, 0, 0])[place] += 1
    return counts


def _labelled(one: Outcomes, answer: Any, gold: Any) -> tuple[list[str], list[str], list[str]]:
    """The labels of what is right, found and wanted in a sentence."""
    if one.task == "labels":
        return [x for x in answer if x in gold], list(answer), list(gold)
    if one.scheme == "none":
        kept = [(a, b) for a, b in zip(answer, gold, strict=True) if b != UNKNOWN]
        return [a for a, b in kept if a == b], [a for a, _ in kept], [b for _, b in kept]
    ours, theirs = (set(spans_of(tags, one.scheme, "strict")) for tags in (answer, gold))
    return tuple([x.label for x in some] for some in (ours & theirs, ours, theirs))  # type: ignore[return-value]


def differing(first: tuple[str, Outcomes], second: tuple[str, Outcomes]) -> list[dict[str, Any]]:
    """List the sentences that one system answers better than the other.

    Args:
        first: a system's name, and what it answered.
        second: those of another.

    Returns:
        of each sentence its number from 1, its text, what is right, both answers by the systems'
        names, and which is ``better``.
    """
    (name, one), (other_name, other) = first, second
    found = []
    scores = [x.score(x.counts) for x in (one, other)]
    for number, (a, b) in enumerate(zip(*scores, strict=True)):
        if a == b:
            continue
        found.append(
            {
                "sentence": number + 1,
                "text": one.sentences[number],
                "gold": one.gold[number],
                name: one.answers[number],
                other_name: other.answers[number],
                "better": name if a > b else other_name,
            }
        )
    return found


def _row(system: System, outcomes: Sequence[Outcomes], price: Price) -> Row:
    scores = [score_of(one) for one in outcomes]
    return Row(
        system.name,
        [run.seed for run in system.runs],
        scores,
        statistics.mean(scores),
        statistics.stdev(scores) if len(scores) > 1 else None,
        price,
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
        speeds = row.price.tokens_per_second
        return speeds[max(speeds)] if speeds else -float(row.price.parameters)

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

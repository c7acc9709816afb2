"""Thresholds between two models: what each means, against plain counting; which one is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from seqlab.cascade import Cascade, sureness
from seqlab.errors import UsageError
from seqlab.pipeline import Pipeline
from seqlab.routing import Answered, Route, answered, chosen, lines_of, route_of, routes_of
from tests.test_cascade import MAKERS, sentences


def made(count: int = 500) -> Answered:
    """A small model that is right as often as it says, and a large one that is right in 90 %."""
    draw = np.random.default_rng(3)
    sure = draw.uniform(0.3, 1.0, count)
    small = np.stack([draw.random(count) < sure, np.ones(count)], 1).astype(float)
    large = np.stack([draw.random(count) < 0.9, np.ones(count)], 1).astype(float)
    return Answered("accuracy", sure, (small, large), (1.0, 10.0))


def test_routes_go_from_one_model_to_the_other() -> None:
    found = made()
    routes = routes_of(found)
    first, last = routes[0], routes[-1]
    assert (first.handed_on, first.milliseconds) == (0.0, 1.0)
    assert first.score == pytest.approx(100 * found.counts[0][:, 0].mean())
    assert (last.handed_on, last.milliseconds) == (1.0, 10.0)
    assert last.score == pytest.approx(100 * found.counts[1][:, 0].mean())
    assert [r.handed_on for r in routes] == sorted(r.handed_on for r in routes)
    assert len(routes) <= 202


def test_a_route_is_what_counting_says() -> None:
    found = made()
    route = route_of(found, 0.8)
    right = asked = 0.0
    for sure, small, large in zip(found.sure, *found.counts, strict=True):
        hits, all_ = large if sure < 0.8 else small
        right, asked = right + hits, asked + all_
    assert route.score == pytest.approx(100 * right / asked)
    assert route.milliseconds == pytest.approx(1.0 + 10.0 * float((found.sure < 0.8).mean()))


def test_the_cheapest_that_scores_as_much_is_chosen() -> None:
    routes = routes_of(made())
    best = chosen(routes)
    assert best.score >= max(routes[0].score, routes[-1].score)
    assert best.milliseconds < routes[-1].milliseconds
    for route in routes:
        assert route.milliseconds >= best.milliseconds or route.score < routes[-1].score
    lines = lines_of(routes, best, "accuracy")
    assert sum(line.endswith("*") for line in lines) == 1
    assert lines[-1].split()[0] == "always"


def test_a_small_model_that_is_better_is_never_left() -> None:
    routes = [Route(0.0, 0.0, 91.0, 1.0), Route(0.5, 0.2, 90.0, 3.0), Route(1.01, 1.0, 89.0, 9.0)]
    assert chosen(routes).threshold == 0.0


def test_without_sentences_there_is_nothing_to_choose_from() -> None:
    nothing = Answered("accuracy", np.zeros(0), (np.zeros((0, 2)), np.zeros((0, 2))), (0.0, 0.0))
    with pytest.raises(UsageError, match="the validation split is empty"):
        chosen(routes_of(nothing))


def rows_of(kind: str, answers: list[Any]) -> Dataset:
    """A split whose right answers are those of a model, but for every third sentence."""
    right = []
    for number, one in enumerate(answers):
        gold = list(one.tags if hasattr(one, "tags") else one.labels)
        if number % 3 == 0:
            gold = ["O" if kind == "spans" else "other"] * len(gold)
        right.append(gold)
    name = "tags" if kind in ("spans", "tags") else "labels"
    return Dataset.from_dict({"tokens": [one.tokens for one in answers], name: right})


@pytest.mark.parametrize("kind", MAKERS)
def test_a_threshold_scores_as_the_cascade_itself_does(kind: str) -> None:
    small, large = (Pipeline(MAKERS[kind](seed)) for seed in (1, 2))
    answers = large(sentences())
    rows = rows_of(kind, answers)
    found = answered(small, large, rows)
    assert found.sure == pytest.approx([sureness(one) for one in small(sentences())])
    threshold = float(np.median(found.sure))
    cascade: Cascade[Any] = Cascade(small, large, threshold)
    results = cascade(sentences())
    golds = rows["tags" if "tags" in rows.column_names else "labels"][:]
    assert route_of(found, threshold).score == pytest.approx(scored(kind, results, golds))
    assert all(time > 0 for time in found.milliseconds)


def scored(kind: str, results: list[Any], golds: list[list[str]]) -> float:
    if kind == "tags":
        pairs = [
            p for x, y in zip(results, golds, strict=True) for p in zip(x.tags, y, strict=True)
        ]
        return 100 * sum(a == b for a, b in pairs) / len(pairs)
    if kind == "labels":
        return 100 * sum(x.labels == y for x, y in zip(results, golds, strict=True)) / len(golds)
    if kind == "several labels":
        hits = sum(len(set(x.labels) & set(y)) for x, y in zip(results, golds, strict=True))
        return 200 * hits / sum(len(x.labels) + len(y) for x, y in zip(results, golds, strict=True))
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

    return 100 * float(f1_score(golds, [x.tags for x in results], mode="strict", scheme=IOB2))

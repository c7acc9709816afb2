"""From which confidence on a small model may answer alone: its score and cost, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqlab.cascade import sureness
from seqlab.errors import UsageError
from seqlab.metrics import count_tags, f1_of
from seqlab.pipeline import Pipeline
from seqlab.sentence import Sentence
from seqlab.significance import Floats
from seqlab.tags import spans_of

_TRIED = 200  # thresholds
_SHOWN = 8  # of them, in the table
_ALWAYS = 1.01  # a threshold that no model is as sure as


class Route(NamedTuple):
    """A threshold, and what it means on a split.

    Attributes:
        threshold: sentences that the small model is less sure of go to the large one.
        handed_on: the share of sentences that does.
        score: 0 to 100.
        milliseconds: mean time for a sentence, of both models together.
    """

    threshold: float
    handed_on: float
    score: float
    milliseconds: float


class Answered(NamedTuple):
    """A split as two models answered it.

    Attributes:
        scorer: what is counted.
        sure: ``(sentence,)`` how sure the small one is.
        counts: of the small and of the large one, ``(sentence, count)``.
        milliseconds: mean time for a sentence, of either.
    """

    scorer: str
    sure: Floats
    counts: tuple[Floats, Floats]
    milliseconds: tuple[float, float]


def answered(small: Pipeline[Any], large: Pipeline[Any], rows: Any) -> Answered:
    """Let two models answer a split, and take the time.

    Args:
        small: a pipeline of the small model.
        large: of the large one.
        rows: a split of a corpus, as a DataModule has it.
    """
    small.confidence = True
    sentences = _sentences(small, large, rows)
    golds = rows["labels"][:] if "labels" in rows.column_names else rows["tags"][:]
    found, spent = [], []
    for pipeline in (small, large):
        pipeline.tag(sentences[:1])  # what is made once does not count
        start = time.perf_counter()
        found.append(pipeline.tag(sentences))
        spent.append(1000 * (time.perf_counter() - start) / max(1, len(sentences)))
    scorer = _scorer(small.model)
    counts = [
        np.asarray(
            [_counts(pipeline.model, *pair) for pair in zip(some, golds, strict=True)], np.float64
        )
        for pipeline, some in zip((small, large), found, strict=True)
    ]
    sure = np.asarray([sureness(one) for one in found[0]])
    return Answered(scorer, sure, (counts[0], counts[1]), (spent[0], spent[1]))


def _sentences(small: Pipeline[Any], large: Pipeline[Any], rows: Any) -> list[Sentence]:
    names = {
        name: None for pipeline in (small, large) for name in pipeline.model.source_vocab.features
    }
    words = rows["tokens"][:]
    columns = {name: rows[name][:] for name in names}
    return [
        Sentence(tokens, {name: column[row] for name, column in columns.items()})
        for row, tokens in enumerate(words)
    ]


def _scorer(model: Any) -> str:
    if getattr(model, "has_spans", False):
        return "span F1"
    return "micro F1" if getattr(model, "multi_label", False) else "accuracy"


def _counts(model: Any, result: Any, gold: Sequence[str]) -> tuple[float, ...]:
    """What the score of a sentence is made of: right, found, wanted; or right, asked."""
    if _scorer(model) == "span F1":
        right = spans_of(gold, model.target_vocab.written, "strict")
        wanted = {(span.label, span.start, span.end) for span in right}
        ours = {(span.label, span.first_token, span.last_token + 1) for span in result.spans}
        return len(ours & wanted), len(ours), len(wanted)
    if hasattr(result, "tags"):
        hits, asked, _, _ = count_tags([result.tags], [gold])
        return hits, asked
    if model.multi_label:
        return len(set(result.labels) & set(gold)), len(result.labels), len(gold)
    return float(result.labels == list(gold)), 1.0


def routes_of(found: Answered) -> list[Route]:
    """Try thresholds, from the small model alone to the large one alone.

    Args:
        found: both models' answers.
    """
    if not len(found.sure):
        return []
    levels = np.unique(found.sure)
    if len(levels) > _TRIED:
        levels = np.unique(np.quantile(found.sure, np.linspace(0, 1, _TRIED), method="higher"))
    thresholds = [0.0, *(float(level) for level in levels[1:]), _ALWAYS]
    return [route_of(found, threshold) for threshold in thresholds]


def route_of(found: Answered, threshold: float) -> Route:
    """Work out what a threshold means on a split."""
    on = found.sure < threshold
    small, large = found.counts
    total = np.where(on[:, None], large, small).sum(0)
    share = float(on.mean()) if len(on) else 0.0
    alone, more = found.milliseconds
    cost = more if threshold > 1.0 else alone + share * more
    return Route(threshold, share, _score(total), cost)


def _score(total: Floats) -> float:
    if len(total) == 2:
        return 100 * float(total[0]) / max(1.0, float(total[1]))
    hits, found, wanted = total.tolist()
    return 100 * f1_of(int(found), int(wanted), int(hits))[2]


def chosen(routes: Sequence[Route]) -> Route:
    """Choose the cheapest threshold that scores no less than the better model alone.

    Args:
        routes: of the validation split; the first is the small model alone, the last the large one.

    Raises:
        UsageError: there are none.
    """
    if not routes:
        raise UsageError("--threshold auto: the validation split is empty; give a number.")
    wanted = max(routes[0].score, routes[-1].score)
    return min(
        (route for route in routes if route.score >= wanted), key=lambda route: route.milliseconds
    )


def lines_of(routes: Sequence[Route], best: Route, scorer: str) -> list[str]:
    """Lay routes out for a terminal; the chosen one has a star.

    Args:
        routes: all of them.
        best: the chosen one.
        scorer: the name of the score.
    """
    places = np.unique(np.linspace(0, len(routes) - 1, _SHOWN).round().astype(int)).tolist()
    shown = [route for at, route in enumerate(routes) if at in places or route == best]
    lines = [f"threshold  handed on  {scorer:>8}  ms a sentence"]
    for route in shown:
        said = "always" if route.threshold > 1.0 else f"{route.threshold:.4f}"
        star = "  *" if route == best else ""
        lines.append(
            f"{said:>9}  {route.handed_on:9.1%}  {route.score:{max(8, len(scorer))}.2f}  "
            f"{route.milliseconds:13.2f}{star}"
        )
    return lines


def validation_rows(folders: Sequence[Path], trust: bool) -> Any:
    """Read the validation split that models were trained with.

    Args:
        folders: their bundles.
        trust: allow their recipes to name classes of other packages.

    Raises:
        UsageError: there is none, or they were not validated on the same sentences.
    """
    from seqlab.restoring import restored

    splits = []
    for folder in folders:
        data = restored(folder, [], trust=trust).datamodule
        if "validation" not in data.splits:
            raise UsageError(
                f"--threshold auto: the corpus of {folder} has no validation split; give a number."
            )
        splits.append(data.splits["validation"])
    first, *others = splits
    gold = "labels" if "labels" in first.column_names else "tags"
    for other in others:
        if any(first[name][:] != other[name][:] for name in ("tokens", gold)):
            raise UsageError(
                "--threshold auto: the models were validated on other sentences; give a number, "
                "or train both on the same corpus."
            )
    return first

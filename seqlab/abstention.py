"""Answers withheld where a model is not sure enough: what a wished precision costs.

A model whose confidences can be believed may keep silent: of answers that are surer than some
number, more are right (El-Yaniv and Wiener, 2010). How many are, is measured on the validation
split after training, and kept with the model as a curve; a wished precision is looked up there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqlab.errors import UsageError

POINTS = 100  # of a curve, at most
FEWEST = 20  # answers of a point: the share of fewer that is right says little
WISHES = (0.9, 0.95, 0.99)  # precisions that `seqlab test` tries


class Point(NamedTuple):
    """Answers that are at least as sure as a number.

    Attributes:
        confidence: the number, 0 to 1.
        precision: the share of them that is right.
        kept: how many they are, as a share of all answers.
        answers: how many they are.
    """

    confidence: float
    precision: float
    kept: float
    answers: int


def curve_of(sure: Tensor, right: Tensor) -> list[Point]:
    """Measure how many answers are right, by how sure they are.

    Args:
        sure: ``(answer,)`` confidences, 0 to 1.
        right: ``(answer,)`` bool.

    Returns:
        points from the surest answers to all of them; none with fewer than 20 answers.

    Example:
        >>> sure = torch.tensor([0.9] * 30 + [0.6] * 10)
        >>> right = torch.tensor([True] * 35 + [False] * 5)
        >>> [tuple(point) for point in curve_of(sure, right)][-1]
        (0.6000000238418579, 0.875, 1.0, 40)
    """
    count = len(sure)
    if count < FEWEST:
        return []
    ranked, order = sure.double().sort(descending=True)
    hits = right[order].double().cumsum(0)
    # Only where the next answer is less sure: equal ones are kept or withheld together.
    last = torch.cat([ranked[1:] < ranked[:-1], torch.tensor([True])])
    ends = last.nonzero().squeeze(1) + 1
    ends = ends[ends >= FEWEST]
    if len(ends) > POINTS:
        shares = torch.linspace(0, len(ends) - 1, POINTS).round().long()
        ends = ends[shares]
    return [
        Point(float(ranked[end - 1]), float(hits[end - 1]) / end, end / count, end)
        for end in ends.tolist()
    ]


def points(rows: Sequence[Sequence[float]]) -> list[Point]:
    """Read the curve that a model keeps."""
    return [Point(row[0], row[1], row[2], int(row[3])) for row in rows]


def point_for(curve: Sequence[Point], precision: float, name: str) -> Point:
    """Find the point of a curve that keeps the most answers at a wished precision.

    Args:
        curve: of a model.
        precision: the share of answers that is to be right, 0 to 1.
        name: what the wish is called, for messages.

    Raises:
        UsageError: there is no curve, it never reaches that precision, or the wish is no number
            from 0 to 1.
    """
    if not 0.0 <= precision <= 1.0:
        raise UsageError(f"{name} is {precision:g}: it must be from 0 to 1, such as 0.95.")
    if not curve:
        raise UsageError(
            f"{name}: this model does not know how right its confidences are: it found fewer than "
            f"{FEWEST} answers in its validation split, may give a text several labels, or was "
            "trained by an older seqlab; give --min-confidence."
        )
    found = max(
        (point for point in curve if point.precision >= precision),
        key=lambda point: point.kept,
        default=None,
    )
    if found is None:
        best = max(curve, key=lambda point: point.precision)
        raise UsageError(
            f"{name} is {precision:g}, and this model reached {best.precision:.4f} at most on its "
            f"validation split (answers with a confidence of {best.confidence:.4f} and more): wish "
            "for less, or train a better one."
        )
    return found


def wished(curve: Sequence[Point], sure: Tensor, right: Tensor) -> list[dict[str, Any]]:
    """Try wished precisions on another split.

    Args:
        curve: of the model, from its validation split.
        sure: ``(answer,)`` confidences on the other split.
        right: ``(answer,)`` bool.

    Returns:
        for 0.9, 0.95 and 0.99 the ``confidence`` below which answers are withheld, the share that
        is ``kept`` and the ``precision`` of these; without those that the curve does not reach.
    """
    rows = []
    for wish in WISHES:
        try:
            least = point_for(curve, wish, "precision").confidence
        except UsageError:  # not to be had, as the lines that are left out say
            continue
        kept = sure.double() >= least
        count = int(kept.sum())
        rows.append(
            {
                "wished": wish,
                "confidence": least,
                "kept": count / max(1, len(sure)),
                "precision": float(right[kept].double().mean()) if count else None,
            }
        )
    return rows


def wished_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lay wished precisions out for a terminal.

    Args:
        rows: of :func:`wished`.
    """
    if not rows:
        return []
    lines = ["precision wished  confidence    kept  precision"]
    for row in rows:
        found = "" if row["precision"] is None else f"{row['precision']:9.2%}"
        line = f"{row['wished']:16.2f}  {row['confidence']:10.4f}  {row['kept']:6.1%}  {found}"
        lines.append(line.rstrip())
    return lines

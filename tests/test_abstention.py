"""Answers withheld: the curve, what a wished precision means, and what is left of results."""

from __future__ import annotations

import math

import pytest
import torch

from seqlab.abstention import (
    FEWEST,
    POINTS,
    Point,
    curve_of,
    point_for,
    points,
    wished,
    wished_lines,
)
from seqlab.errors import UsageError


def calibrated(count: int = 5000) -> tuple[torch.Tensor, torch.Tensor]:
    """Answers that are right as often as they say."""
    torch.manual_seed(4)
    sure = 0.5 + torch.rand(count) / 2
    return sure, torch.rand(count) < sure


def test_each_point_says_what_counting_says() -> None:
    sure, right = calibrated(700)
    curve = curve_of(sure, right)
    assert 2 < len(curve) <= POINTS
    for point in curve:
        kept = sure.double() >= point.confidence
        assert point.answers == int(kept.sum()) >= FEWEST
        assert point.precision == pytest.approx(float(right[kept].double().mean()))
        assert point.kept == pytest.approx(point.answers / 700)
    assert curve[-1].kept == 1.0


def test_answers_that_are_equally_sure_stay_together() -> None:
    sure = torch.tensor([0.9] * 25 + [0.8] * 25 + [0.3] * 50)
    right = torch.tensor([True] * 50 + [False] * 50)
    assert [point.answers for point in curve_of(sure, right)] == [25, 50, 100]


def test_of_few_answers_nothing_is_said() -> None:
    sure, right = calibrated(FEWEST - 1)
    assert curve_of(sure, right) == []
    with pytest.raises(UsageError, match="give --min-confidence"):
        point_for([], 0.9, "--target-precision")


def test_a_wish_keeps_as_many_answers_as_it_can() -> None:
    curve = curve_of(*calibrated())
    found = point_for(curve, 0.9, "--target-precision")
    # Answers from c on are right in (c + 1) / 2 of the cases: 0.9 from 0.8 on, two fifths of all.
    assert found.confidence == pytest.approx(0.8, abs=0.03)
    assert found.kept == pytest.approx(0.4, abs=0.06)
    assert all(p.precision < 0.9 for p in curve if p.kept > found.kept)


def test_what_is_never_reached_is_told_with_what_is() -> None:
    curve = [Point(0.9, 0.8, 0.5, 50), Point(0.1, 0.6, 1.0, 100)]
    with pytest.raises(UsageError, match=r"--target-precision is 0.95, .* 0.8000 at most"):
        point_for(curve, 0.95, "--target-precision")
    with pytest.raises(UsageError, match="precision is nan: it must be from 0 to 1"):
        point_for(curve, math.nan, "precision")


def test_a_curve_is_kept_as_plain_numbers() -> None:
    curve = curve_of(*calibrated(300))
    assert points([list(point) for point in curve]) == curve


def test_wishes_hold_on_another_split() -> None:
    curve = curve_of(*calibrated())
    torch.manual_seed(9)
    sure = 0.5 + torch.rand(5000) / 2
    rows = wished(curve, sure, torch.rand(5000) < sure)
    assert [row["wished"] for row in rows][:2] == [0.9, 0.95]
    for row in rows[:2]:
        assert row["precision"] == pytest.approx(row["wished"], abs=0.03)
    lines = wished_lines(rows)
    assert len(lines) == 1 + len(rows)
    assert lines[1].split()[0] == "0.90"


def test_where_nothing_is_kept_nothing_is_right_or_wrong() -> None:
    curve = [Point(0.9, 1.0, 1.0, 30)]
    rows = wished(curve, torch.tensor([0.2]), torch.tensor([True]))
    assert [row["precision"] for row in rows] == [None] * 3
    assert wished_lines(rows)[1].endswith("0.0%")
    assert wished_lines([]) == []

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from seqlab.errors import DataError, UsageError
from seqlab.invariance import Way, _compare, check_invariance
from seqlab.models.translator import Translator
from seqlab.nn.search import SearchOptions
from seqlab.translated import Candidate
from seqlab.translation_pipeline import TranslationPipeline, Wishes

WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "runs", "he", "I", "see", "cats", "and"]
OPTIONS = SearchOptions(beam=3, n_best=3, max_ratio=1.0, max_extra=2)


def texts(count: int) -> list[str]:
    return [" ".join(WORDS[at % 7 : at % 7 + 1 + at % 9]) for at in range(count)]


def made(make_translator: Any, cls: type[Translator] = Translator) -> TranslationPipeline:
    return TranslationPipeline(make_translator(cls=cls), device="cpu", options=OPTIONS)


class Padded(Translator):
    """Sees how far a batch is padded."""

    def encode(self, batch: Any) -> Any:
        memory, start = super().encode(batch)
        return memory._replace(values=memory.values * (1 + 0.1 * batch.source.shape[1])), start


class Crowded(Translator):
    """Sees how many sentences a batch has."""

    def encode(self, batch: Any) -> Any:
        memory, start = super().encode(batch)
        return memory._replace(values=memory.values * (1 + 0.1 * len(batch))), start


class Neighbourly(Translator):
    """Sees what stands first in a batch."""

    def encode(self, batch: Any) -> Any:
        memory, start = super().encode(batch)
        first = memory.values[:1, :1].clone()
        return memory._replace(values=memory.values + 0.1 * first), start


def test_batches_change_nothing_in_a_translator(make_translator: Any) -> None:
    pipeline = made(make_translator)
    inputs = [*texts(70), "", ("the cat", Wishes(prefix="a dog"))]
    report = check_invariance(pipeline, inputs, Wishes(ban=("runs",)))
    assert report.holds
    assert report.texts == 71
    assert report.hypotheses == 3 * 71
    assert 0 <= report.largest < 1e-5
    names = [way.name for way in report.ways]
    assert names == [
        "7 at a time",
        "64 at a time",
        "64 at a time, shuffled",
        "64 at a time, padded",
    ]
    assert str(report).endswith("Batches change nothing: all scores agree within 0.0001.")
    assert pipeline.options == OPTIONS


@pytest.mark.parametrize("cls", [Padded, Crowded, Neighbourly])
def test_a_model_that_sees_its_batch_is_found_out(make_translator: Any, cls: Any) -> None:
    report = check_invariance(made(make_translator, cls), texts(20))
    assert not report.holds
    assert report.largest > 1e-4
    assert "Batches change results" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["holds"] is False


def test_only_padding_is_to_blame_where_only_padding_matters(make_translator: Any) -> None:
    alike = ["the cat sat", "a dog runs", "I see cats"] * 3  # never padded but by the filler
    report = check_invariance(made(make_translator, Padded), alike)
    assert [way.largest > 1e-4 for way in report.ways] == [False, False, False, True]


def candidates(*scored: tuple[str, float]) -> list[Candidate]:
    return [Candidate(name, score, score, [ord(name)], [name]) for name, score in scored]


@pytest.mark.parametrize(
    ("output", "changed"),
    [
        ([("a", -1.0), ("b", -2.0), ("c", -2.00005)], False),
        ([("a", -1.0), ("c", -2.0), ("b", -2.00005)], False),  # near enough to change places
        ([("x", -1.0), ("b", -2.0), ("c", -2.00005)], True),
        ([("a", -1.0), ("b", -2.0), ("x", -2.00005)], False),
        ([("a", -1.0), ("b", -2.0)], True),
    ],
)
def test_what_is_nearly_equal_may_change_places(output: Any, changed: bool) -> None:
    alone = candidates(("a", -1.0), ("b", -2.0), ("c", -2.00005))
    way = Way("some")
    _compare(way, 4, alone, candidates(*output), asked=3, more=4, tolerance=1e-4)
    assert way.changed == ([4] if changed else [])
    assert way.largest <= 1e-4


def test_below_the_last_of_a_full_beam_there_may_be_one_near_it() -> None:
    alone, output = candidates(("a", -1.0), ("b", -2.0)), candidates(("a", -1.0), ("x", -2.0))
    for more, changed in ((2, []), (3, [1])):  # of 3, no third was found
        way = Way("some")
        _compare(way, 1, alone, output, asked=2, more=more, tolerance=1e-4)
        assert way.changed == changed


def test_scores_are_compared_by_rank() -> None:
    way = Way("some")
    _compare(way, 1, candidates(("a", -1.0)), candidates(("a", -1.5)), 1, 2, 1e-4)
    assert way.largest == 0.5
    assert way.changed == []


def test_nan_is_no_agreement(make_translator: Any) -> None:
    way = Way("some")
    _compare(way, 1, candidates(("a", -1.0)), candidates(("a", math.nan)), 1, 2, 1e-4)
    assert not way.largest <= 1e-4


def test_what_cannot_be_compared_is_refused(make_translator: Any) -> None:
    pipeline = made(make_translator)
    with pytest.raises(DataError, match="no text whose translations could be compared"):
        check_invariance(pipeline, ["", " "])
    pipeline.options = replace(OPTIONS, method="sample")
    with pytest.raises(UsageError, match="only a beam search"):
        check_invariance(pipeline, ["the cat"])
    pipeline = made(make_translator)
    pipeline.precision = "fast"
    with pytest.raises(UsageError, match="set precision to exact"):
        check_invariance(pipeline, ["the cat"])
    assert torch.is_grad_enabled()

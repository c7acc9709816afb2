"""What systems cost, by a clock and a counter that are told what to say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seqlab.compare import price as module
from seqlab.compare.price import Price, price_of
from seqlab.compare.systems import Run, System
from seqlab.explain import pace
from seqlab.explain.energy import Unreadable


class Translating:
    """A pipeline that writes two pieces for each word."""

    device = torch.device("cpu")
    asked: list[list[str]] = []

    def __init__(self, model: Any, device: str) -> None:
        self.asked.clear()

    def __call__(self, texts: list[str]) -> list[Any]:
        self.asked.append(list(texts))
        return [
            SimpleNamespace(hypotheses=[SimpleNamespace(pieces=2 * text.split())]) for text in texts
        ]


class Counting:
    source = "a toy"

    def __init__(self, readings: int = 10**6) -> None:
        self.used, self.readings = 0.0, readings

    def joules(self) -> float:
        self.readings -= 1
        if self.readings < 0:
            raise Unreadable("no more")
        self.used += 1
        return self.used


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run takes a second, and there is no time for a fourth."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(pace.timed, "__defaults__", (lambda: next(ticks),))
    monkeypatch.setattr("seqlab.translation_pipeline.TranslationPipeline", Translating)
    monkeypatch.setattr(module, "_SECONDS", 3.0)


@pytest.mark.usefixtures("clock")
def test_translators_are_timed_on_sentences_of_the_test_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "meter_of", lambda *_: Counting())
    found = Price(1, 1.0, 1.0, None)
    module.time_translator(found, None, [f"sentence {n}" for n in range(70)])
    assert found.unit == "target subwords"
    assert found.sentences_per_second == {1: 32.0, 32: 32.0}
    assert found.tokens_per_second == {1: 128.0, 32: 128.0}
    assert found.joules_per_1000_tokens[1] == pytest.approx(1000 / 128)
    sizes = [len(texts) for texts in Translating.asked]
    assert sizes == [32, *[1] * 96, *[32] * 3]  # one pass to begin with, and three for each speed
    assert Translating.asked[0][:3] == ["sentence 0", "sentence 2", "sentence 4"]


@pytest.mark.usefixtures("clock")
def test_a_counter_that_stops_leaves_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "meter_of", lambda *_: Counting(2))
    found = Price(1, 1.0, 1.0, None)
    module.time_translator(found, None, ["one two", "three"])
    assert found.joules_per_1000_tokens == {}
    assert set(found.sentences_per_second) == {1, 32}  # few sentences come again


def test_who_writes_is_ranked_by_sentences() -> None:
    assert Price(1, 1.0, 1.0, None).speed is None
    assert Price(1, 1.0, 1.0, None, {1: 5.0, 32: 50.0}).speed == 50.0
    wordy = Price(1, 1.0, 1.0, None, {1: 900.0}, sentences_per_second={1: 3.0})
    assert wordy.speed == 3.0


def test_what_training_took_is_the_median_of_the_runs(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 2_000_000)
    runs = [
        Run(tmp_path, "a", seed, {"train/seconds": seconds, "hardware": "a machine"}, {})
        for seed, seconds in enumerate((1.0, 9.0, 2.0))
    ]
    found = price_of(System("a", runs), torch.nn.Linear(2, 3), None)
    assert (found.parameters, found.bundle_mb) == (9, 2.0)
    assert (found.training_seconds, found.peak_memory_mb) == (2.0, None)
    assert (found.hardware, found.speed) == ("a machine", None)

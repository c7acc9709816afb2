from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from seqlab.explain import pace as module
from seqlab.explain.energy import Unreadable
from seqlab.explain.pace import Pace, counter_of, pace_of, sentences_of
from seqlab.sentence import Sentence
from seqlab.vocabulary import Vocabulary


def test_frequent_words_are_drawn_most_often() -> None:
    vocab = Vocabulary(["the", "cat", "sat", "ate"], padding=True, unknown=1)
    found = sentences_of(vocab, 10, 200)
    assert len(found) == 200
    assert {len(sentence.tokens) for sentence in found} == {10}
    counts = Counter(word for sentence in found for word in sentence.tokens)
    assert [word for word, _ in counts.most_common()] == ["the", "cat", "sat", "ate"]
    assert counts["the"] == pytest.approx(2 * counts["cat"], rel=0.2)  # Zipf
    assert found == sentences_of(vocab, 10, 200)


def test_columns_beside_the_words_are_drawn_as_well() -> None:
    pos = Vocabulary(["N", "V"], padding=True, unknown=1)
    (found,) = sentences_of(Vocabulary([], padding=True, features={"pos": pos}), 4, 1)
    assert found.tokens == ["word"] * 4
    assert len(found.features["pos"]) == 4
    assert set(found.features["pos"]) <= {"N", "V"}


class Clock:
    """Every reading takes as long as it is told to."""

    def __init__(self, *seconds: float) -> None:
        self.readings = self.of(seconds)

    def of(self, seconds: Sequence[float]) -> Iterator[float]:
        now = 0.0
        for passed in seconds:
            yield now
            now += passed
            yield now

    def __call__(self) -> float:
        return next(self.readings)


class Reader:
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.read: list[int] = []

    def tag(self, sentences: Sequence[Sentence]) -> None:
        self.read.append(len(sentences))


class Counting:
    """Uses one joule between two readings."""

    source = "a toy"

    def __init__(self) -> None:
        self.used = 10.0

    def joules(self) -> float:
        self.used += 1
        return self.used


SENTENCES = [Sentence(["a"] * 5)] * 4


def test_the_median_of_runs_within_the_time() -> None:
    reader: Any = Reader()
    found = pace_of(reader, SENTENCES, 2, None, 10.0, Clock(1.0, 2.0, 5.0, 2.0, 9.0, 9.0))
    assert found == Pace(2, 10 / 2.0, 4, None)  # ten seconds have passed after four runs
    assert reader.read == [2] * 5  # one that does not count comes first


def test_three_runs_are_made_however_long_they_take() -> None:
    reader: Any = Reader()
    found = pace_of(reader, SENTENCES, 4, None, 1.0, Clock(7.0, 8.0, 9.0, 1.0))
    assert found == Pace(4, 20 / 8.0, 3, None)


def test_energy_is_that_of_all_runs() -> None:
    reader: Any = Reader()
    found = pace_of(reader, SENTENCES, 1, Counting(), 3.5, Clock(1.0, 1.0, 1.0, 1.0, 1.0))
    assert found.runs == 4
    assert found.joules == pytest.approx(1000 * 4 / (4 * 5))  # one joule a run of five tokens


def test_without_a_counter_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Counting()
    reader: Any = Reader()
    monkeypatch.setattr(module, "meter_of", lambda *_: meter)
    assert counter_of(reader) == (meter, "a toy")

    def none(*_: object) -> None:
        raise Unreadable("there is none here")

    monkeypatch.setattr(module, "meter_of", none)
    assert counter_of(reader) == (None, "there is none here")

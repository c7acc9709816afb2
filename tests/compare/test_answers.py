"""What is taken for what."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqlab.compare.answers import NONE, confusions
from seqlab.compare.outcomes import Outcomes
from seqlab.significance import accuracy
from seqlab.tags import UNKNOWN


def answered(task: str, answers: list[Any], gold: list[Any], scheme: str = "none") -> Outcomes:
    counts, texts = np.zeros((len(gold), 2)), ["a b c"] * len(gold)
    return Outcomes(task, "accuracy", "same", texts, answers, gold, counts, accuracy, scheme)


def test_spans_are_matched_by_their_borders() -> None:
    gold = [["S-PER", "O", "B-LOC", "E-LOC"], ["O", "S-ORG", "O", "O"]]
    ours = [["S-LOC", "O", "B-LOC", "E-LOC"], ["B-ORG", "E-ORG", "O", "S-PER"]]
    assert confusions(answered("tags", ours, gold, "bioes")) == {
        NONE: {"ORG": 1, "PER": 1},  # invented; another border is another span
        "LOC": {"LOC": 1},
        "ORG": {NONE: 1},
        "PER": {"LOC": 1},
    }


def test_tags_are_counted_where_it_is_known_what_is_right() -> None:
    gold, ours = [["N", "V", UNKNOWN], ["N"]], [["N", "N", "V"], ["V"]]
    assert confusions(answered("tags", ours, gold)) == {"N": {"N": 1, "V": 1}, "V": {"N": 1}}


def test_a_label_is_taken_for_another() -> None:
    gold, ours = [["pos"], ["neg"], ["neg"]], [["pos"], ["pos"], ["neg"]]
    assert confusions(answered("labels", ours, gold)) == {
        "neg": {"neg": 1, "pos": 1},
        "pos": {"pos": 1},
    }


def test_of_several_labels_some_are_missed_and_some_invented() -> None:
    gold = [["a", "b"], ["a", "b"], [], ["a"]]
    ours = [["a", "c"], ["a"], ["c"], ["b", "c"]]
    assert confusions(answered("labels", ours, gold)) == {
        NONE: {"b": 1, "c": 2},
        "a": {NONE: 1, "a": 2},
        "b": {NONE: 1, "c": 1},
    }


def test_translations_are_taken_for_nothing() -> None:
    assert confusions(answered("texts", ["a"], ["b"])) == {}

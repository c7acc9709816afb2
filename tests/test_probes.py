from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from seqlab.errors import BundleError
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tagger import TaggerNetwork
from seqlab.probes import TOLERANCE, answers, differences, probe_texts
from seqlab.vocabulary import Vocabulary
from seqlab.zoo import serve

SOURCE = Vocabulary(
    ["the", "was", "in"],
    padding=True,
    unknown=1,
    lowercase=True,
    characters=Vocabulary("abcdefghinorstw", padding=True, unknown=1),
)
TAGS = Vocabulary(["O", "B-PER", "I-PER"], scheme="iob2", written="iob2")
LABELS = Vocabulary(["pos", "neg", "none"], scheme="label")


def pipelines(make_translator: Any) -> dict[str, Any]:
    torch.manual_seed(1)
    small = {"hidden_size": 4, "embedding_size": 4}
    return {
        "tags": serve(TaggerNetwork(SOURCE, TAGS, **small), device="cpu"),
        "labels": serve(ClassifierNetwork(SOURCE, LABELS, **small), device="cpu"),
        "translations": serve(make_translator(), device="cpu"),
    }


@pytest.mark.parametrize("task", ["tags", "labels", "translations"])
def test_the_same_model_answers_the_same(task: str, make_translator: Any) -> None:
    pipeline, texts = pipelines(make_translator)[task], probe_texts("en")
    before = answers(pipeline, texts)
    assert [one["text"] for one in before] == list(texts)
    sizes = {"tags": None, "labels": 3, "translations": 1}
    for one in before:
        assert len(one["sure"]) == (sizes[task] or len(one["said"]))
    wrong, largest = differences(before, answers(pipeline, texts[::1]))
    assert (wrong, largest) == ([], 0.0)


def test_languages_without_texts_of_their_own_get_english_ones() -> None:
    assert probe_texts("fr") != probe_texts("en") == probe_texts("xx")
    assert all(len(set(probe_texts(code))) == len(probe_texts(code)) for code in ("en", "fr"))


def test_another_answer_and_another_confidence_are_told_apart(make_translator: Any) -> None:
    before = answers(pipelines(make_translator)["labels"], probe_texts("en"))
    now = copy.deepcopy(before)
    now[0]["said"] = ["other"]
    now[1]["sure"][0] += 2 * TOLERANCE
    now[2]["sure"][0] += TOLERANCE / 2
    now[3]["sure"] = []
    now[4]["sure"][0] = float("nan")
    wrong, largest = differences(before, now)
    assert [line.split("':")[0].strip("'\"") for line in wrong] == [
        one["text"] for one in (before[0], before[1], before[3], before[4])
    ]
    assert "is ['other']" in wrong[0]
    assert "0.0020 more or less sure" in wrong[1]
    assert largest >= TOLERANCE / 2


@pytest.mark.parametrize("damaged", [None, [], [3], [{"text": "x"}], {"a": 1}])
def test_damaged_expectations_are_refused(damaged: object, make_translator: Any) -> None:
    found = answers(pipelines(make_translator)["tags"], ["Rain."])
    with pytest.raises(BundleError, match="probe sentences are damaged"):
        differences(damaged, found)

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from seqlab.batch import FormTable
from seqlab.labelled import Labelled, has_attention
from seqlab.models.classifier import Classifier
from seqlab.pipeline import Pipeline
from seqlab.vocabulary import Vocabulary

WORDS = ["Ada", "loved", "every", "minute", "of", "it", "."]
TEXT = "Ada  loved every minute, of it!"


def classifier(scheme: str = "label", labels: str = "abc", **options: Any) -> Classifier:
    torch.manual_seed(3)
    letters = Vocabulary("abcdefghijklmnopqrstuvwxyz", padding=True, unknown=1)
    words = Vocabulary(WORDS, padding=True, unknown=1, characters=letters)
    target = Vocabulary(list(labels), scheme=scheme, written=scheme)
    return Classifier(
        words, target, hidden_size=8, embedding_size=8, character_size=8, **options
    ).eval()


def probabilities(model: Classifier, tokens: list[str]) -> list[float]:
    table = FormTable(model.source_vocab)
    with torch.inference_mode():
        found = model.classify(table.batch(table.index(tokens), [len(tokens)]))
    return list(map(float, found.probabilities[0]))


def labelled(**fields: Any) -> Labelled:
    given: dict[str, Any] = {
        "text": "I loved\nit.",
        "tokens": ["I", "loved", "it", "."],
        "offsets": [(0, 1), (2, 7), (8, 10), (10, 11)],
        "label": "positive",
        "labels": ["positive"],
        "probabilities": {"positive": 0.966, "negative": 0.034},
        "attention": None,
    }
    return Labelled(**(given | fields))


def test_a_text_gets_the_label_of_the_greatest_probability() -> None:
    model = classifier()
    found = Pipeline(model, device="cpu")(TEXT)
    expected = probabilities(model, found.tokens)
    assert found.probabilities == pytest.approx(dict(zip("abc", expected, strict=True)), abs=1e-6)
    ranked = sorted(zip(expected, "abc", strict=True), reverse=True)
    assert list(found.probabilities) == [label for _, label in ranked]
    assert sum(found.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert [found.label] == found.labels == list(found.probabilities)[:1]
    assert found.text == TEXT
    assert [TEXT[start:end] for start, end in found.offsets] == found.tokens
    assert not found.multi_label


def test_several_labels_are_those_that_reach_their_threshold() -> None:
    model = classifier("labels", "abcd")
    row = dict(zip("abcd", probabilities(model, WORDS), strict=True))
    ordered = sorted(row, key=lambda label: -row[label])
    pipeline = Pipeline(model, device="cpu")
    for chosen in (0, 1, 3, 4):
        for label, threshold in zip("abcd", model.thresholds, strict=True):
            threshold.fill_(row[label] + (-0.01 if label in ordered[:chosen] else 0.01))
        (found,) = pipeline([WORDS])
        assert found.labels == ordered[:chosen]
        assert found.label == (ordered[0] if chosen else None)
        assert list(found.probabilities or {}) == ordered
        assert found.multi_label


def test_attention_is_the_mean_over_heads_with_a_share_for_each_token() -> None:
    model = classifier(pooling=["mean", "attention"], heads=3)
    tokens = [WORDS, WORDS[:2]]
    table = FormTable(model.source_vocab)
    rows = table.index([token for words in tokens for token in words])
    with torch.inference_mode():
        weights = model.classify(table.batch(rows, list(map(len, tokens)))).attention
    assert weights is not None
    assert weights.shape == (2, 3, 7)
    assert weights[0, 0].tolist() != weights[0, 1].tolist()
    for row, found in enumerate(Pipeline(model, device="cpu")(tokens)):
        size = len(tokens[row])
        assert found.attention is not None
        assert len(found.attention) == size
        assert found.attention == pytest.approx(weights[row].mean(0)[:size].tolist(), abs=1e-6)
        assert sum(found.attention) == pytest.approx(1.0, abs=1e-5)


def test_models_without_attention_have_none_of_it() -> None:
    pipeline = Pipeline(classifier(pooling=["mean", "max"]), device="cpu")
    assert pipeline(TEXT).attention is None
    assert pipeline("").attention is None
    assert not has_attention(pipeline.model)
    for pooling in ("attention", ["last", "attention"]):
        assert has_attention(classifier(pooling=pooling))


def test_a_text_without_words_has_no_label() -> None:
    for scheme in ("label", "labels"):
        pipeline = Pipeline(classifier(scheme), device="cpu")
        several = scheme == "labels"
        for text in ("", " \t\n "):
            assert pipeline(text) == Labelled(text, [], [], None, [], None, [], several)
        found = pipeline([[], WORDS, []])
        assert [one.probabilities is None for one in found] == [True, False, True]
        assert found[1] == pipeline([WORDS])[0]


@pytest.mark.parametrize("scheme", ["label", "labels"])
def test_without_confidence_the_labels_stay_the_same(scheme: str) -> None:
    model = classifier(scheme)
    sure = Pipeline(model, device="cpu")([WORDS, WORDS[:1]])
    for one, plain in zip(
        sure, Pipeline(model, device="cpu", confidence=False)([WORDS, WORDS[:1]]), strict=True
    ):
        assert plain.probabilities is None
        assert (plain.label, plain.labels) == (one.label, one.labels)
        assert plain.attention == one.attention


def test_a_result_becomes_plain_json() -> None:
    found = Pipeline(classifier(), device="cpu")("Ada loved")
    data = json.loads(json.dumps(found.to_dict()))
    assert list(data) == [
        "text",
        "tokens",
        "offsets",
        "label",
        "labels",
        "probabilities",
        "attention",
    ]
    assert data["offsets"] == [[0, 3], [4, 9]]
    assert data["probabilities"] == found.probabilities
    assert data["attention"] == found.attention


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "positive 0.97, negative 0.03 | I loved it."),
        ({"probabilities": None}, "positive | I loved it."),
        (
            {"label": None, "labels": [], "probabilities": None, "tokens": [], "text": " \n"},
            "(no words) |",
        ),
        (
            {"probabilities": dict.fromkeys(["positive", *"abcd"], 0.2)},
            "positive 0.20, a 0.20, b 0.20, c 0.20, d 0.20 | I loved it.",
        ),
        (
            {"probabilities": dict.fromkeys(["positive", *"abcde"], 0.1)},
            "positive 0.10, a 0.10, b 0.10 and 3 others | I loved it.",
        ),
    ],
)
def test_printed_it_is_one_line_of_the_most_probable_labels(
    fields: dict[str, Any], line: str
) -> None:
    assert str(labelled(**fields)) == line


@pytest.mark.parametrize(
    ("labels", "chances", "line"),
    [
        ("ba", {"c": 0.6, "b": 0.5, "a": 0.4}, "*b 0.50, *a 0.40, c 0.60"),
        ("", {"a": 0.4, "b": 0.1}, "(no label) a 0.40, b 0.10"),
        ("", None, "(no label)"),
        ("ab", None, "a, b"),
        ("", dict.fromkeys("abcdef", 0.1), "(no label) a 0.10, b 0.10, c 0.10 and 3 others"),
        (
            "abcde",
            dict.fromkeys("abcdef", 0.9),
            "*a 0.90, *b 0.90, *c 0.90, *d 0.90, *e 0.90 and 1 other",
        ),
    ],
)
def test_of_several_labels_those_chosen_come_first_and_are_marked(
    labels: str, chances: dict[str, float] | None, line: str
) -> None:
    found = labelled(
        label=labels[0] if labels else None,
        labels=list(labels),
        probabilities=chances,
        multi_label=True,
    )
    assert str(found) == f"{line} | I loved it."

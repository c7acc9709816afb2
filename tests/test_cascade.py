"""Two models as one: every sentence gets the answer of the model that is to give it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from seqlab.cascade import Cascade, sureness
from seqlab.errors import RecipeError, UsageError
from seqlab.labelled import Labelled
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.pipeline import Pipeline, Sentence
from seqlab.vocabulary import Vocabulary

WORDS = [f"w{number}" for number in range(12)]
SIZES = {"hidden_size": 6, "embedding_size": 6, "character_size": 6}


def source() -> Vocabulary:
    letters = Vocabulary("w0123456789", padding=True, unknown=1)
    return Vocabulary(WORDS, padding=True, unknown=1, characters=letters)


def tagger(seed: int, names: str = "O B-X I-X E-X S-X", scheme: str = "bioes") -> Tagger:
    torch.manual_seed(seed)
    written = "iob2" if scheme == "bioes" else scheme
    tags = Vocabulary(names.split(), scheme=scheme, written=written)
    model = Tagger(source(), tags, **SIZES)
    with torch.no_grad():
        model.emit.weight *= 4.0
    return model


def classifier(seed: int, scheme: str = "label") -> Classifier:
    torch.manual_seed(seed)
    labels = Vocabulary(["a", "b", "c"], scheme=scheme)
    model = Classifier(source(), labels, **SIZES)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.0
    return model


def sentences(count: int = 60) -> list[list[str]]:
    draw = random.Random(2)
    return [draw.choices(WORDS, k=draw.randint(1, 6)) for _ in range(count)]


MAKERS: dict[str, Any] = {
    "spans": tagger,
    "tags": lambda seed: tagger(seed, "N V A", "none"),
    "labels": classifier,
    "several labels": lambda seed: classifier(seed, "labels"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_each_sentence_has_the_answer_of_the_model_that_was_to_give_it(kind: str) -> None:
    small, large = (Pipeline(MAKERS[kind](seed)) for seed in (1, 2))
    inputs = sentences()
    ours, theirs = small(inputs), large(inputs)
    threshold = sorted(map(sureness, ours))[len(inputs) // 3]
    cascade: Cascade[Any] = Cascade(small, large, threshold)
    found = cascade(inputs)
    for answer, one, other in zip(found, ours, theirs, strict=True):
        wanted = other if sureness(one) < threshold else one
        assert str(answer) == str(wanted)
        assert sureness(answer) == pytest.approx(sureness(wanted), abs=1e-6)
    assert cascade.sentences == len(inputs)
    assert cascade.handed_on == sum(sureness(one) < threshold for one in ours) > 0


def test_at_the_ends_one_model_answers_all() -> None:
    small, large = (Pipeline(tagger(seed)) for seed in (1, 2))
    inputs = sentences()
    for threshold, pipeline in ((0.0, small), (1.01, large)):
        cascade = Cascade(small, large, threshold)
        assert [x.tags for x in cascade(inputs)] == [x.tags for x in pipeline(inputs)]
    assert cascade("w1 w2").tags == large("w1 w2").tags
    assert cascade([]) == []


def test_answers_are_withheld_after_the_models_were_chosen() -> None:
    small, large = (Pipeline(tagger(seed)) for seed in (1, 2))
    inputs = sentences()
    ours = small(inputs)
    threshold = sorted(map(sureness, ours))[len(inputs) // 2]
    least = 0.6
    found = Cascade(small, large, threshold, least)(inputs)
    strict = [Pipeline(x.model, min_confidence=least)(inputs) for x in (small, large)]
    for row, (answer, one) in enumerate(zip(found, ours, strict=True)):
        assert answer.tags == strict[sureness(one) < threshold][row].tags
    every = Cascade(small, large, threshold)(inputs)
    assert any(a.tags != b.tags for a, b in zip(found, every, strict=True))
    assert small.min_confidence == large.min_confidence == 0.0


def test_a_stream_is_not_read_to_its_end() -> None:
    small, large = (Pipeline(tagger(seed), tokens_per_batch=8) for seed in (1, 2))

    def endless() -> Iterator[Sentence]:
        for words in itertools.cycle(sentences()):
            yield Sentence(words)

    stream = Cascade(small, large, 0.7).stream(endless())
    assert len(list(itertools.islice(stream, 200))) == 200


def test_a_small_model_without_confidences_works_them_out() -> None:
    small, large = (Pipeline(tagger(seed), confidence=False) for seed in (1, 2))
    cascade = Cascade(small, large, 0.5)
    assert len(cascade(sentences())) == 60
    assert small.confidence is False


@pytest.mark.parametrize(
    ("large", "said"),
    [
        (classifier(1), "one model is a Tagger and the other a Classifier"),
        (tagger(1, "O B-Y I-Y E-Y S-Y"), r"do not give the same labels \(X, Y only one"),
        (tagger(1, "N V", "none"), "do not give the same labels"),
    ],
)
def test_models_that_do_not_go_together_are_refused(large: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Cascade(Pipeline(tagger(1)), Pipeline(large), 0.5)
    with pytest.raises(RecipeError, match="--threshold"):
        Cascade(Pipeline(tagger(1)), Pipeline(tagger(2)), -0.5)


def test_how_sure_a_model_is_of_a_sentence() -> None:
    pipeline = Pipeline(tagger(1))
    (found,) = pipeline([["w1", "w2", "w3"]])
    assert found.confidences is not None
    assert sureness(found) == min(found.confidences)
    assert sureness(pipeline("")) == 1.0
    text = ("t", ["t"], [(0, 1)])
    several = Labelled(*text, "a", ["a"], {"a": 0.9, "b": 0.3}, None, True)
    assert sureness(several) == pytest.approx(0.7)
    with pytest.raises(ValueError, match="no confidences"):
        sureness(Labelled(*text, "a", ["a"], None, None))

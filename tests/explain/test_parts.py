from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqlab.batch import FormTable
from seqlab.errors import SeqlabError
from seqlab.explain.parts import is_known, parts_of, watched
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.nn.encoders import BiLSTM
from seqlab.vocabulary import Vocabulary

Maker = Callable[..., Any]


def embedded(model: Any) -> Any:
    table = FormTable(model.source_vocab)
    features = [torch.ones(4, dtype=torch.int64).numpy() for _ in model.source_vocab.features]
    return table.batch(table.index(["Ada", "saw", "Paris", "."]), [4], features)


MODELS: list[dict[str, Any]] = [
    {},
    {"characters": "lstm", "character_size": 4, "num_layers": 2, "connection": "highway"},
    {"characters": "none", "casing_size": 0, "cell": "gru", "bidirectional": False},
    {"num_layers": 3, "learned_state": True, "cell": "peephole"},
    {"encoder": {"class_path": "tests_of_parts.Elsewhere"}},
]


class Elsewhere(nn.Module):
    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.weight = nn.Linear(input_size, 3)
        self.output_size = 3

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out: Tensor = self.weight(x)
        return out


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    module: Any = ModuleType("tests_of_parts")
    module.Elsewhere = Elsewhere
    monkeypatch.setitem(sys.modules, "tests_of_parts", module)


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_every_weight_belongs_to_one_part(
    options: dict[str, Any], make_tagger: Maker, make_classifier: Maker
) -> None:
    columns = {"pos": Vocabulary(["N"], padding=True, unknown=1)}
    for model in (make_tagger(columns, **options), make_classifier(**options)):
        found = [tensor for part in parts_of(model) for tensor in part.tensors]
        assert len({id(tensor) for tensor in found}) == len(found)
        assert {id(weight) for weight in model.parameters()} <= {id(tensor) for tensor in found}


def test_parts_have_the_names_that_people_know(make_tagger: Maker, make_classifier: Maker) -> None:
    columns = {"pos": Vocabulary(["N"], padding=True, unknown=1)}
    tagger = make_tagger(columns, num_layers=2, cell="sru")
    assert [part.name for part in parts_of(tagger)] == [
        "word embedding",
        "characters: cnn",
        "casing",
        "features",
        "layer 1: sru, two ways",
        "layer 2: sru, two ways",
        "output layer",
        "decoder: crf",
    ]
    classifier = make_classifier(bidirectional=False, characters="none", casing_size=0)
    assert [part.name for part in parts_of(classifier)] == [
        "word embedding",
        "layer 1: lstm",
        "pooling",
        "output layer",
    ]


def test_costs_belong_to_their_parts(make_tagger: Maker, make_classifier: Maker) -> None:
    tagger: Tagger = make_tagger(num_layers=2)
    costs = {part.name: part.cost for part in parts_of(tagger, letters=2.0)}
    size, tags = 10, 9
    assert costs["word embedding"] == costs["casing"] == (0, 0)
    assert costs["characters: cnn"] == (2 * 3 * 3 * 3, 0)
    assert costs["layer 1: lstm, two ways"] == (2 * 4 * 5 * (9 + 5), 2 * 3 * 5)
    assert costs["layer 2: lstm, two ways"] == (2 * 4 * 5 * (size + 5), 2 * 3 * 5)
    assert costs["output layer"] == (size * tags, 0)
    assert costs["decoder: crf"] == (4 * tags**2, tags**2)  # probabilities of tags and of spans
    (*_, softmax) = parts_of(make_tagger(decoder="softmax"))
    assert softmax.cost == (4 * tags**2, 0)
    flat = Vocabulary(["N", "V"], scheme="none")
    (*_, without_spans) = parts_of(make_tagger(target=flat))
    assert without_spans.cost == (2 * 2**2, 2**2)
    classifier: Classifier = make_classifier(pooling=["attention", "max"], heads=2)
    *_, pooling, output = parts_of(classifier, tokens=4)
    assert pooling.cost == (size * size + 2 * size + 2 * size, 0)
    assert output.cost == ((2 * size + size) * 2 / 4, 0)  # once a text


def test_parts_take_their_turns(make_tagger: Maker, make_classifier: Maker) -> None:
    columns = {"pos": Vocabulary(["N"], padding=True, unknown=1)}
    tagger = make_tagger(columns, num_layers=2)
    words = ["word embedding", "characters: cnn", "word embedding", "casing", "word embedding"]
    layers = ["layer 1: lstm, two ways", "layer 2: lstm, two ways"]
    turns: list[str] = []
    with watched(tagger, parts_of(tagger), turns.append):
        tagger.emissions(embedded(tagger))
    features = ["features", "word embedding"]
    assert turns == [*words, *features, *layers, "output layer", "decoder: crf"]
    classifier = make_classifier(characters="lstm", character_size=4, merge="sum")
    turns.clear()
    with watched(classifier, parts_of(classifier), turns.append):
        classifier.classify(embedded(classifier))
    words[1] = "characters: lstm"
    assert turns == [*words, layers[0], "pooling", "output layer"]


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_a_watched_model_is_left_as_it_was(options: dict[str, Any], make_tagger: Maker) -> None:
    model = make_tagger(**options)
    before = [(m, set(vars(m)), len(m._forward_pre_hooks)) for m in model.modules()]
    turns: list[str] = []

    def broken_off() -> None:
        with watched(model, parts_of(model), turns.append):
            model.emissions(embedded(model))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    count = len(turns)
    model.emissions(embedded(model))
    assert len(turns) == count > 0
    assert [(m, set(vars(m)), len(m._forward_pre_hooks)) for m in model.modules()] == before


class Changed(BiLSTM):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return 2 * super().forward(x, lengths)


def test_an_encoder_of_another_class_is_one_part_of_unknown_cost(make_tagger: Maker) -> None:
    model = make_tagger(encoder={"class_path": "tests_of_parts.Elsewhere"})
    parts = {part.name: part for part in parts_of(model)}
    assert parts["encoder: Elsewhere"].cost is None
    turns: list[str] = []
    with watched(model, list(parts.values()), turns.append):
        model.emissions(embedded(model))
    assert turns[-3:] == ["encoder: Elsewhere", "output layer", "decoder: crf"]
    assert is_known(BiLSTM(2, 3))
    assert not is_known(Changed(2, 3))


def test_a_model_of_another_class_is_refused(tagger: Tagger) -> None:
    class Other(nn.Module):
        embedder, encoder, config = tagger.embedder, tagger.encoder, tagger.config
        contextual = None

    other: Any = Other()
    with pytest.raises(SeqlabError, match="what a Other costs is not known: give a tagger"):
        parts_of(other)

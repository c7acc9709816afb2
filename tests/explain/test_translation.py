from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from seqlab.errors import UsageError
from seqlab.explain import view
from seqlab.explain.options import Options
from seqlab.explain.pieces import END, by_words
from seqlab.explain.terminal import Look
from seqlab.explain.translation import TranslationExplanation, explain_translation
from seqlab.explain.translation_page import translation_page_of
from seqlab.explain.translation_terminal import translation_picture_of
from seqlab.models.translator import Translator
from seqlab.nn.encoders import RecurrentEncoder
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary, train_tokenizer
from seqlab.translation_pipeline import TranslationPipeline
from tests.networks.test_contextual import asked

Make = Callable[..., Translator]
TEXT = "Ada saw Paris, the\tBo."


def told(model: Translator, text: str = TEXT, **asked: Any) -> TranslationExplanation:
    return explain_translation(model, text, Options("m", **asked))


def test_the_prediction_is_that_of_the_pipeline(translator: Translator) -> None:
    found = told(translator)
    assert found.prediction == TranslationPipeline(translator, device="cpu")(TEXT)
    assert " ".join(found.target.words[:-1]).replace("<unk>", "").split() == (
        found.prediction.translation.split()
    )
    assert found.languages == ("en", "fr")


def test_attention_is_shown_by_words_or_by_pieces(translator: Translator) -> None:
    found = told(translator)
    assert found.columns == ["Ada", "saw", "Paris,", "the", "Bo.", END]
    assert found.rows == found.target.words
    assert found.weights == by_words(found.attention, found.target, found.source).tolist()
    for row in found.weights:
        assert sum(row) == pytest.approx(1)
    found = told(translator, pieces=True)
    assert found.columns == ["Ada", "saw", "Paris", "·,", "the", "<unk>", "·.", END]
    assert found.rows == found.target.labels
    assert found.weights == found.attention.tolist()


def test_coverage_is_what_each_column_got(make_translator: Make, translator: Translator) -> None:
    assert told(translator).coverage is None
    model = make_translator(coverage=1.0)
    found = told(model)
    assert found.coverage is not None
    assert sum(found.coverage) == pytest.approx(len(found.steps))
    by_pieces = told(model, pieces=True).coverage
    assert by_pieces == pytest.approx(found.attention.sum(0).tolist())
    assert found.coverage[2] == pytest.approx(sum((by_pieces or [])[2:4]))


def test_the_kind_of_attention_is_named(make_translator: Make, translator: Translator) -> None:
    assert told(translator).kind == "general"
    heads = make_translator(attention="multi-head", heads=3)
    assert told(heads).kind == "multi-head, mean of 3 heads"


@torch.no_grad()
@pytest.mark.parametrize("cell", ["lstm", "gru", "sru"])
def test_the_encoder_is_traced(make_translator: Make, cell: str) -> None:
    model = make_translator(cell=cell, num_layers=2)
    found = told(model)
    assert [(t.layer, t.direction, t.cell) for t in found.layers] == [
        (layer, way, cell) for layer in (1, 2) for way in ("forward", "backward")
    ]
    (ids,) = model.source_vocab.encode([TEXT])
    source = torch.tensor([[*ids, SubwordVocabulary.END]])
    batch = PairBatch(source, torch.tensor([len(ids) + 1]))
    assert isinstance(model.encoder, RecurrentEncoder)
    states = model.encoder(model.embed(model.source_embedding, source), batch.source_lengths)[0]
    last = torch.cat([trace.series["hidden"] for trace in found.layers[2:]], 1)
    torch.testing.assert_close(last, states, rtol=1e-4, atol=1e-5)
    assert len(found.words) == len(states)


def test_a_layer_a_direction_and_a_unit_are_picked(make_translator: Make) -> None:
    found = told(make_translator(num_layers=2), layer=2, direction="backward", unit=3)
    (layer,) = found.layers
    assert (layer.layer, layer.direction) == (2, "backward")
    assert {values.shape[1] for values in layer.series.values()} == {1}


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        ("", {}, "the text has no words: give one with a letter, a digit or a sign."),
        (" \n\x07", {}, "the text has no words: give one"),
        (TEXT, {"first": 2}, "--from 2: a translation is shown whole; leave that out, or give a"),
        (TEXT, {"last": 2}, "--to 2: a translation is shown whole; leave that out"),
        (TEXT, {"layer": 2}, "--layer 2: the model has 1 layer; choose from 1 to 1."),
        (TEXT, {"unit": 6}, "--unit 6: the model has 5 units; choose from 1 to 5."),
        (TEXT, {"direction": "up"}, "--direction up: the model reads forward and backward; choose"),
        (
            "Ada " * 200,
            {},
            "the text has 201 pieces with its end, and at most 200 can be shown: give a sentence "
            "of it.",
        ),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    translator: Translator, text: str, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        told(translator, text, **asked)


def test_large_models_show_less(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MOST_VALUES", 240)  # of 2 directions, 6 series, 5 units
    said = "8 pieces with its end, and at most 4 can be shown: .* of it, or choose one --layer, --d"
    with pytest.raises(UsageError, match=said):
        told(translator)
    assert len(told(translator, direction="forward").layers) == 1


def test_any_text_is_explained(translator: Translator) -> None:
    found = told(translator, "Ada \udcff <s> \x1b[31m日本\u202e")
    assert found.source.words[:3] == ["Ada", "\ufffd", "<s>"]
    json.dumps(found.to_dict()).encode()


def test_an_empty_translation_is_its_end(make_translator: Make) -> None:
    model = make_translator()
    with torch.no_grad():
        model.output.bias[SubwordVocabulary.END] = 1e4
    found = told(model)
    assert found.prediction.translation == ""
    assert found.rows == [END]
    assert found.steps[0].probability == pytest.approx(1)
    assert found.steps[0].entropy == pytest.approx(0)


def test_plain_data_hold_everything(make_translator: Make) -> None:
    found = told(make_translator(copy=True, coverage=1.0), layer=1, direction="forward")
    data = json.loads(json.dumps(found.to_dict()))
    assert data["prediction"]["translation"] == found.prediction.translation
    assert data["source"]["words"] == found.source.words
    assert data["source"]["word_of_piece"] == [1, 2, 3, 3, 4, 5, 5, 6]
    assert data["target"]["pieces"] == found.target.pieces
    assert data["attention"]["pieces"] == found.attention.tolist()
    assert data["attention"]["words"] == found.weights
    assert data["attention"]["kind"] == "general"
    assert [step["piece"] for step in data["steps"]] == found.target.pieces
    assert data["steps"][0]["copied"] == found.steps[0].copied
    assert data["coverage"] == found.attention.sum(0).tolist()
    (layer,) = data["layers"]
    for name, values in found.layers[0].series.items():
        assert torch.equal(torch.tensor(layer["series"][name]), values)
    assert data["unit"] is None


def of_bytes() -> SubwordVocabulary:
    return SubwordVocabulary(train_tokenizer(iter([TEXT] * 3), "bpe", 300), language="en")


def test_without_a_recurrent_encoder_there_are_no_layers_to_show(make_translator: Make) -> None:
    model = make_translator(source=of_bytes(), embedder=asked(), num_layers=0)
    found = told(model)
    assert found.layers == []
    assert found.columns == ["Ada", "saw", "Paris,", "the", "Bo.", END]
    assert all(sum(row) == pytest.approx(1) for row in found.weights)
    assert "encoder, layer" not in translation_picture_of(found, Look(80))
    assert '<section class="cell" hidden>' in translation_page_of(found, "m")
    json.dumps(found.to_dict())
    refused: list[dict[str, Any]] = [{"layer": 1}, {"direction": "forward"}, {"unit": 2}]
    for options in refused:
        with pytest.raises(UsageError, match="the model has no recurrent encoder"):
            told(model, **options)


def test_an_encoder_above_a_pretrained_one_is_traced(make_translator: Make) -> None:
    found = told(make_translator(source=of_bytes(), embedder=asked()))
    assert [trace.direction for trace in found.layers] == ["forward", "backward"]
    assert found.layers[0].series["hidden"].shape[0] == len(found.source.pieces)

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqlab.errors import BundleError, SeqlabError, UsageError
from seqlab.explain.explanation import explain
from seqlab.explain.options import Options
from seqlab.models.base import SequenceModel
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.models.translator import Translator
from seqlab.pipeline import Labelled, Pipeline, Tagged
from seqlab.vocabulary import Vocabulary

MakeTagger = Callable[..., Tagger]
MakeClassifier = Callable[..., Classifier]
TEXT = "Ada saw\tParis, and Ada saw Bo."


def test_the_prediction_is_that_of_the_pipeline(tagger: Tagger) -> None:
    found = explain(tagger, TEXT, Options("m"))
    assert found.prediction == Pipeline(tagger, device="cpu")(TEXT)
    assert found.words == ["Ada", "saw", "Paris", ",", "and", "Ada", "saw", "Bo", "."]
    assert found.attention is None


@torch.no_grad()
def test_decisions_are_about_the_tags_that_the_model_chose(tagger: Tagger) -> None:
    found = explain(tagger, TEXT, Options("m", first=3, last=5))
    assert isinstance(found.prediction, Tagged)
    assert found.words == ["Paris", ",", "and"]
    assert found.decisions is not None
    # In the scheme of the model, where the prediction is in that of the corpus.
    bare = [decision.tag.replace("S-", "B-").replace("E-", "I-") for decision in found.decisions]
    assert bare == found.prediction.tags[2:5]
    assert {len(v) for t in found.layers for v in t.series.values()} == {3}


def test_a_classifier_shows_each_head(make_classifier: MakeClassifier) -> None:
    model = make_classifier(heads=2)
    whole = explain(model, TEXT, Options("m"))
    assert whole.decisions is None
    assert whole.attention is not None
    assert [sum(head) for head in whole.attention] == pytest.approx([1.0, 1.0])
    assert isinstance(whole.prediction, Labelled)
    means = [sum(heads) / 2 for heads in zip(*whole.attention, strict=True)]
    assert whole.prediction.attention == pytest.approx(means)
    part = explain(model, TEXT, Options("m", first=2, last=4))
    assert part.attention == [pytest.approx(head[1:4]) for head in whole.attention]
    assert part.excerpt.attention == pytest.approx(means[1:4])  # type: ignore[union-attr]


def test_a_classifier_without_attention_shows_its_cells(make_classifier: MakeClassifier) -> None:
    found = explain(make_classifier(pooling="mean"), TEXT, Options("m"))
    assert found.attention is None
    assert found.excerpt.text == TEXT
    assert len(found.layers) == 2


@pytest.mark.parametrize("decoder", ["crf", "constrained", "softmax"])
def test_every_decoder_is_explained(make_tagger: MakeTagger, decoder: str) -> None:
    found = explain(make_tagger(decoder=decoder), TEXT, Options("m"))
    assert found.decisions is not None
    assert len(found.decisions) == 9
    if decoder != "crf":
        assert {d.transition_in for d in found.decisions} == {0.0}


def test_tags_without_spans_are_explained(make_tagger: MakeTagger) -> None:
    model = make_tagger(target=Vocabulary(["NOUN", "VERB", "X"]))
    found = explain(model, TEXT, Options("m", last=2))
    assert found.decisions is not None
    assert [d.tag for d in found.decisions] == found.excerpt.tags  # type: ignore[union-attr]


def spanned(tagger: Tagger) -> str:
    """A text in which the model finds a span of several words."""
    for count in range(2, 40):
        text = " ".join(["Ada", "saw", "Paris", "Bo"][i * i % 4] for i in range(count))
        spans = Pipeline(tagger, device="cpu")(text).spans
        if any(span.last_token > span.first_token for span in spans):
            return text
    raise AssertionError("the weights of the test model find no such span")


def test_an_excerpt_cuts_the_spans_at_its_ends(tagger: Tagger) -> None:
    text = spanned(tagger)
    whole = explain(tagger, text, Options("m")).prediction
    assert isinstance(whole, Tagged)
    span = next(span for span in whole.spans if span.last_token > span.first_token)
    found = explain(tagger, text, Options("m", first=span.first_token + 2)).excerpt
    assert isinstance(found, Tagged)
    assert found.text == text[whole.offsets[span.first_token + 1][0] :]
    assert found.spans[0].label == span.label
    assert (found.spans[0].start, found.spans[0].first_token) == (0, 0)
    assert found.spans[0].text == found.text[: found.spans[0].end]
    for part in found.spans:
        assert found.text[part.start : part.end] == part.text
        assert found.offsets[part.first_token][0] == part.start
        assert found.offsets[part.last_token][1] == part.end
    assert [found.text[a:b] for a, b in found.offsets] == found.tokens
    assert len(found.tags) == len(found.tokens) == len(found.confidences or [])


def test_plain_data_hold_everything(tagger: Tagger) -> None:
    found = explain(tagger, TEXT, Options("m", first=2, last=3, direction="backward"))
    data = json.loads(json.dumps(found.to_dict()))
    assert (data["total"], data["from"], data["to"], data["unit"]) == (9, 2, 3, None)
    assert data["words"] == ["saw", "Paris"]
    assert data["prediction"] == json.loads(json.dumps(found.prediction.to_dict()))
    (layer,) = data["layers"]
    assert (layer["layer"], layer["direction"], layer["cell"]) == (1, "backward", "lstm")
    for name, values in found.layers[0].series.items():
        assert torch.equal(torch.tensor(layer["series"][name]), values)
    assert [d["tag"] for d in data["decisions"]] == [d.tag for d in found.decisions or []]
    assert "attention" not in data


class Elsewhere(nn.Module):
    output_size = 4

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.to = nn.Linear(input_size, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.to(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\x07"])
def test_a_text_without_words_is_refused(tagger: Tagger, text: str) -> None:
    with pytest.raises(UsageError, match=r"the text has no words: give one with a letter"):
        explain(tagger, text, Options("m"))


def test_an_encoder_of_others_is_refused(make_tagger: MakeTagger) -> None:
    model = make_tagger()
    model.encoder = Elsewhere(model.embedder.output_size)
    with pytest.raises(SeqlabError, match="Elsewhere cannot be looked into: .* train the model"):
        explain(model, TEXT, Options("m"))


def test_a_model_that_needs_a_column_is_refused(make_tagger: MakeTagger) -> None:
    model = make_tagger(features={"pos": Vocabulary(["NN"], padding=True, unknown=1)})
    with pytest.raises(SeqlabError, match="needs the column pos beside the words, which a text"):
        explain(model, TEXT, Options("m"))


def test_pieces_are_for_translators(tagger: Tagger) -> None:
    with pytest.raises(UsageError, match="--pieces is for translators, .* leave it out"):
        explain(tagger, TEXT, Options("m", pieces=True))


def test_a_translator_is_sent_on(translator: Translator) -> None:
    with pytest.raises(UsageError, match="is explained by seqlab.explain.translation"):
        explain(translator, TEXT, Options("m"))


def test_another_kind_of_model_is_refused() -> None:
    class Parrot(SequenceModel):
        pass

    model: Any = Parrot(Vocabulary(["a"]), Vocabulary(["b"]))
    with pytest.raises(BundleError, match="a Parrot cannot be explained: give a tagger, a class"):
        explain(model, TEXT, Options("m"))

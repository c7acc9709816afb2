"""What is to be known of a model and a text: traces, attention, and what the decisions rest on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from seqlab.batch import Batch, FormTable
from seqlab.errors import BundleError, SeqlabError, UsageError
from seqlab.explain.decisions import Decision, decisions_of
from seqlab.explain.options import Options
from seqlab.explain.view import View, plain_layers, traces_of, view_of
from seqlab.networks.base import Network, kind_of
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tagger import TaggerNetwork
from seqlab.networks.translator import TranslatorNetwork
from seqlab.nn.traces import Trace, traceable
from seqlab.pipeline import Labelled, Pipeline, Tagged, is_served
from seqlab.sentence import Sentence


@dataclass(frozen=True)
class Explanation:
    """A text, what the model makes of it, and what it computed on the way.

    Args:
        prediction: what the pipeline says of the whole text, with its words and their places.
        view: which words, layers, directions and units are looked at.
        layers: one trace a layer and direction, its series ``(word, unit)``.
        decisions: for taggers, one a word that is looked at; None for others.
        attention: for classifiers with attention, for each head the weight of every word that is
            looked at; over the whole text, the weights of a head sum to 1. None for others.
    """

    prediction: Tagged | Labelled
    view: View
    layers: list[Trace]
    decisions: list[Decision] | None = None
    attention: list[list[float]] | None = None

    @property
    def words(self) -> list[str]:
        """The words that are looked at."""
        return [self.prediction.tokens[position] for position in self.view.shown]

    @property
    def excerpt(self) -> Tagged | Labelled:
        """The prediction cut to these words, its text and the places in it as well."""
        words, whole = self.view.shown, self.prediction
        low, high = whole.offsets[words[0]][0], whole.offsets[words[-1]][1]
        part = slice(words.start, words.stop)
        cut: dict[str, Any] = {
            "text": whole.text[low:high],
            "tokens": whole.tokens[part],
            "offsets": [(start - low, end - low) for start, end in whole.offsets[part]],
        }
        if isinstance(whole, Labelled):
            attention = whole.attention
            return replace(whole, **cut, attention=attention and attention[part])
        spans = [
            replace(
                span,
                text=whole.text[max(low, span.start) : min(high, span.end)],
                start=max(low, span.start) - low,
                end=min(high, span.end) - low,
                first_token=max(0, span.first_token - words.start),
                last_token=min(words.stop - 1, span.last_token) - words.start,
            )
            for span in whole.spans
            if span.end > low and span.start < high
        ]
        sure = whole.confidences
        return replace(
            whole, **cut, tags=whole.tags[part], spans=spans, confidences=sure and sure[part]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON data; words, layers and units are counted from 1."""
        data: dict[str, Any] = {
            "prediction": self.prediction.to_dict(),
            "total": self.view.total,
            "from": self.view.shown.start + 1,
            "to": self.view.shown.stop,
            "unit": self.view.unit,
            "words": self.words,
            "layers": plain_layers(self.layers),
        }
        if self.decisions is not None:
            data["decisions"] = [decision.to_dict() for decision in self.decisions]
        if self.attention is not None:
            data["attention"] = self.attention
        return data


@torch.inference_mode()
def explain(model: Network, text: str, options: Options) -> Explanation:
    """Look at what a model does with a text.

    Args:
        model: a tagger or a classifier, on the CPU, in evaluation mode.
        text: any text with at least one word.
        options: which words, layers, directions and units to look at.

    Returns:
        what was found.

    Raises:
        UsageError: the text has no words, there is no such word, layer, direction or unit, or an
            option is for other models.
        SeqlabError: the model's encoder cannot be looked into, or it needs more than words.
    """
    if isinstance(model, TranslatorNetwork):
        raise UsageError("a Translator is explained by seqlab.explain.translation: call that.")
    if not is_served(model):
        raise BundleError(
            f"a {kind_of(model)} cannot be explained: give a tagger, a classifier or a translator."
        )
    if options.pieces:
        raise UsageError(
            "--pieces is for translators, and this model reads whole words: leave it out."
        )
    traceable(model.encoder)
    if lacking := list(model.source_vocab.features):
        raise SeqlabError(
            f"the model needs the column {' and '.join(lacking)} beside the words, which a text "
            "does not have: explain a model that reads words alone."
        )
    tokens = Sentence.of(text).tokens
    if not tokens:
        raise UsageError("the text has no words: give one with a letter, a digit or a sign.")
    table = FormTable(model.source_vocab)
    batch = table.batch(table.index(tokens), [len(tokens)])
    x = model.embed(batch)  # (1, time, dim)
    view = view_of(model, x, options)
    found = Explanation(Pipeline(model, device="cpu")(text), view, traces_of(model, x, view))
    if isinstance(model, TaggerNetwork):
        return replace(found, decisions=_decisions(model, batch, view.shown))
    return replace(found, attention=_attention(model, batch, view.shown))


def _decisions(model: TaggerNetwork, batch: Batch, shown: range) -> list[Decision]:
    emissions = model.emissions(batch)  # (1, time, tag)
    (tags,) = model.decode(emissions, batch.mask)
    return decisions_of(model.crf, emissions[0], tags, model.target_vocab.tokens, shown)


def _attention(model: ClassifierNetwork, batch: Batch, shown: range) -> list[list[float]] | None:
    weights = model.classify(batch).attention  # (1, head, time)
    return None if weights is None else weights[0, :, shown.start : shown.stop].tolist()

"""What is to be known of a translation: where it looked, how sure it was, what the encoder did."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqlab.errors import UsageError
from seqlab.explain.options import Options
from seqlab.explain.pieces import Side, by_words, source_side, target_side
from seqlab.explain.steps import Step, retold
from seqlab.explain.view import WORDS, View, plain_layers, traces_in, view_of
from seqlab.networks.translator import TranslatorNetwork
from seqlab.nn.attention_kinds import MultiHeadAttention
from seqlab.nn.encoders import NoEncoder
from seqlab.nn.traces import Trace
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary
from seqlab.translated import Translated
from seqlab.translation_pipeline import TranslationPipeline

_HALF = re.compile("[\ud800-\udfff]")  # of a character, of which no tokenizer knows


@dataclass(frozen=True)
class TranslationExplanation:
    """A text, its best translation, and what the model computed on the way.

    Args:
        prediction: what the pipeline says of the text.
        languages: of source and target; None where unknown.
        source: the pieces and words of the text.
        target: those of the translation.
        attention: ``(target piece, source piece)``, with the ends; every row sums to 1.
        kind: of the attention; of several heads it is the mean.
        covers: whether the attention sees how much a piece was attended to before.
        steps: one a piece of the translation, that of its end the last.
        view: which layers, directions and units of the encoder are looked at.
        layers: one trace a layer and direction, its series ``(source piece, unit)``; none where a
            pretrained encoder reads alone.
        by_pieces: whether attention is shown by pieces in place of words.
    """

    prediction: Translated
    languages: tuple[str | None, str | None]
    source: Side
    target: Side
    attention: Tensor
    kind: str
    covers: bool
    steps: list[Step]
    view: View
    layers: list[Trace]
    by_pieces: bool = False

    @property
    def words(self) -> list[str]:
        """What the encoder reads, as it is shown."""
        return self.source.labels

    @property
    def rows(self) -> list[str]:
        """The words of the translation, or its pieces."""
        return self.target.labels if self.by_pieces else self.target.words

    @property
    def columns(self) -> list[str]:
        """The words of the text, or its pieces."""
        return self.source.labels if self.by_pieces else self.source.words

    @property
    def weights(self) -> list[list[float]]:
        """Attention, a list for each of `rows` with a weight for each of `columns`."""
        by_pieces = self.attention
        shown = by_pieces if self.by_pieces else by_words(by_pieces, self.target, self.source)
        found: list[list[float]] = shown.tolist()
        return found

    @property
    def coverage(self) -> list[float] | None:
        """What each of `columns` got over all steps, where the attention itself sees that."""
        if not self.covers:
            return None
        total = self.attention.sum(0)
        if not self.by_pieces:
            places = torch.tensor(self.source.places)
            total = total.new_zeros(len(self.source.words)).index_add_(0, places, total)
        found: list[float] = total.tolist()
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON data; layers and units are counted from 1."""
        words = by_words(self.attention, self.target, self.source)
        data: dict[str, Any] = {
            "prediction": self.prediction.to_dict(),
            "source": _side(self.source),
            "target": _side(self.target),
            "attention": {
                "kind": self.kind,
                "pieces": self.attention.tolist(),
                "words": words.tolist(),
            },
            "steps": [step.to_dict() for step in self.steps],
            "unit": self.view.unit,
            "layers": plain_layers(self.layers),
        }
        if self.covers:
            data["coverage"] = self.attention.sum(0).tolist()
        return data


def _side(side: Side) -> dict[str, Any]:
    """A side as JSON; words are counted from 1."""
    return {
        "pieces": side.pieces,
        "words": side.words,
        "word_of_piece": [place + 1 for place in side.places],
    }


@torch.inference_mode()
def explain_translation(
    model: TranslatorNetwork, text: str, options: Options
) -> TranslationExplanation:
    """Translate a text, and look at how the model did it.

    Args:
        model: on the CPU, in evaluation mode.
        text: one sentence.
        options: which layers, directions and units to look at; whether by pieces.

    Returns:
        what was found.

    Raises:
        UsageError: the text has no words or too many, an option does not apply, or there is no such
            layer, direction or unit.
        SeqlabError: the model's encoder cannot be looked into.
    """
    _refuse_parts(options)
    text = _HALF.sub("\ufffd", text)
    (ids,) = model.source_vocab.encode([text])
    if not ids:
        raise UsageError("the text has no words: give one with a letter, a digit or a sign.")
    source = torch.tensor([[*ids, SubwordVocabulary.END]])
    batch = PairBatch(source, torch.tensor([len(ids) + 1]))
    x = model.embed_source(batch)
    read = not isinstance(model.encoder, NoEncoder)
    view = view_of(model, x, options) if read else _unread(x.shape[1], options)
    _check_whole(view)
    prediction = TranslationPipeline(model, device="cpu")(text)
    said = prediction.hypotheses[0].ids
    found = retold(model, batch, said)
    return TranslationExplanation(
        prediction=prediction,
        languages=(model.source_vocab.language, model.target_vocab.language),
        source=source_side(model.source_vocab, text, ids),
        target=target_side(model.target_vocab, said),
        attention=found.attention,
        kind=_kind(model),
        covers=model.decoder.coverage,
        steps=found.steps,
        view=view,
        layers=traces_in(model.encoder, x, view, x.shape[1]) if read else [],
        by_pieces=options.pieces,
    )


def _refuse_parts(options: Options) -> None:
    for name, value in (("from", options.first), ("to", options.last)):
        if value is not None:
            raise UsageError(
                f"--{name} {value}: a translation is shown whole; leave that out, or give a part "
                "of the text."
            )


def _unread(total: int, options: Options) -> View:
    """Look at no layers, where there is no recurrent encoder."""
    asked = {"layer": options.layer, "direction": options.direction, "unit": options.unit}
    for name, value in asked.items():
        if value is not None:
            raise UsageError(
                f"--{name} {value}: the model has no recurrent encoder, as its model.num_layers is "
                "0; leave that out."
            )
    return View(range(total), frozenset(), None, total, WORDS, False)


def _kind(model: TranslatorNetwork) -> str:
    attention = model.decoder.attention
    name = str(model.config["attention"])
    if isinstance(attention, MultiHeadAttention):
        return f"{name}, mean of {attention.heads} heads"
    return name


def _check_whole(view: View) -> None:
    """Refuse what cannot be shown whole."""
    most = min(WORDS, view.most)
    if view.total > most:
        choose = ", or choose one --layer, --direction or --unit" if view.most < WORDS else ""
        raise UsageError(
            f"the text has {view.total:,} pieces with its end, and at most {most:,} can be shown: "
            f"give a sentence of it{choose}."
        )

"""Taggers in a pipeline: tags and spans with their probabilities, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from seqlab.batch import Batch
from seqlab.confidence import Confidence
from seqlab.errors import SeqlabError
from seqlab.models.tagger import Tagger
from seqlab.sentence import Sentence, Sentences
from seqlab.tags import Span, convert, spans_of

_SCHEMES = ("bioes", "bilou", "iob2", "none")


@dataclass(frozen=True, slots=True)
class TaggedSpan:
    """A labelled stretch of a text.

    Args:
        text: what it says, ``Tagged.text[start:end]``.
        label: its label; for models without spans, the tag of its one token.
        start: its first character.
        end: the character after its last.
        confidence: the probability that exactly these tokens are a span of this label, 0 to 1;
            ``None`` where no confidence was asked for.
        first_token: the position of its first token.
        last_token: the position of its last token; the same as the first for a single one.
    """

    text: str
    label: str
    start: int
    end: int
    confidence: float | None
    first_token: int
    last_token: int


@dataclass(frozen=True, slots=True)
class Tagged:
    """A text and what the model found in it; printed, it shows the spans in the text.

    Args:
        text: the text as given, or pretokenised words with a space between each two.
        tokens: its words.
        offsets: ``(start, end)`` characters of every token in ``text``, end exclusive.
        tags: one tag a token, in the scheme of the corpus that the model learnt from.
        spans: what the tags mark, from left to right; every token where the tags mark no spans.
        confidences: for every token the probability of its tag, 0 to 1. Where the model tells
            single tokens and last tokens apart and the corpus does not, those are added up: the
            probability that the token begins, continues or is outside a span of this label.
            ``None`` where no confidence was asked for.
        has_spans: whether the tags mark spans.
    """

    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    tags: list[str]
    spans: list[TaggedSpan]
    confidences: list[float] | None
    has_spans: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON data, but for ``has_spans``."""
        data = asdict(self)
        del data["has_spans"]
        data["offsets"] = [list(pair) for pair in self.offsets]
        return data

    def __str__(self) -> str:
        if not self.has_spans:
            return " ".join(
                f"{token}/{tag}" for token, tag in zip(self.tokens, self.tags, strict=True)
            )
        parts, position = [], 0
        for span in self.spans:
            sure = "" if span.confidence is None else f" {span.confidence:.2f}"
            parts += [self.text[position : span.start], f"[{span.text}]({span.label}{sure})"]
            position = span.end
        return "".join(parts) + self.text[position:]


class Tagging:
    """What a pipeline asks of a tagger.

    Args:
        model: the tagger.

    Attributes:
        unit: what one input is called.

    Raises:
        SeqlabError: its tags are in a scheme that models do not use.
    """

    unit = "sentence"

    def __init__(self, model: Tagger) -> None:
        scheme = model.target_vocab.scheme
        if scheme not in _SCHEMES:
            raise SeqlabError(
                f"the model tags in {scheme}, and a pipeline reads {', '.join(_SCHEMES)}: train it "
                "with data.tag_scheme bioes or iob2."
            )
        self._model = model
        self._sure = Confidence(model.target_vocab)

    def of_batch(self, batch: Batch, sentences: Sentences, confidence: bool) -> list[Tagged]:
        """Tag a batch.

        Args:
            batch: the sentences, on the device of the model.
            sentences: the same as given, none without a token.
            confidence: whether probabilities are wanted.

        Returns:
            one result a sentence.
        """
        mask = batch.mask  # (batch, time)
        emissions = self._model.emissions(batch)  # (batch, time, tag)
        decoded = self._model.decode(emissions, mask)
        scheme = self._model.target_vocab.scheme
        found = [spans_of(tags, scheme, "conlleval") for tags in decoded]
        surely: list[list[float]] | list[None] = [None] * len(decoded)
        spans_surely = surely
        if confidence:
            crf, sure = self._model.crf, self._sure
            surely = sure.of_tokens(crf.marginals(emissions, mask)[mask], decoded)
            spans_surely = sure.of_spans(crf, emissions, mask, decoded, found)
        parts = zip(sentences, decoded, found, surely, spans_surely, strict=True)
        return [self._tagged(*part) for part in parts]

    def of_nothing(self, sentence: Sentence, confidence: bool) -> Tagged:
        """Answer a sentence that has no token, which no model can read."""
        certain: list[float] | None = [] if confidence else None
        return self._tagged(sentence, [], [], certain, certain)

    def _tagged(
        self,
        sentence: Sentence,
        tags: list[str],
        found: Sequence[Span],
        surely: list[float] | None,
        spans_surely: list[float] | None,
    ) -> Tagged:
        text, offsets = sentence.placed()
        vocab = self._model.target_vocab
        if not self._model.has_spans:
            found = [Span(tag, position, position + 1) for position, tag in enumerate(tags)]
            spans_surely = surely
        elif vocab.written not in ("none", vocab.scheme):
            tags = convert(tags, vocab.scheme, vocab.written)
        spans = []
        for number, (label, first, end) in enumerate(found):
            start, stop = offsets[first][0], offsets[end - 1][1]
            sure = None if spans_surely is None else spans_surely[number]
            spans.append(TaggedSpan(text[start:stop], label, start, stop, sure, first, end - 1))
        return Tagged(
            text, list(sentence.tokens), offsets, tags, spans, surely, self._model.has_spans
        )

"""Taggers in a pipeline: tags and spans with their probabilities, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

from seqlab.batch import Batch
from seqlab.confidence import Confidence
from seqlab.errors import SeqlabError
from seqlab.networks.tagger import TaggerNetwork
from seqlab.nn.crf import CRF
from seqlab.sentence import Sentence, Sentences, places_of_words
from seqlab.tags import OUTSIDE, UNKNOWN, Span, convert, spans_of, split_tag
from seqlab.vocabulary import Vocabulary

_SCHEMES = ("bioes", "bilou", "iob2", "none")
# How prefixes are written in another scheme, where that depends on nothing but the tag itself.
_PREFIXES = {
    ("bioes", "iob2"): "BBIISBEI",
    ("bilou", "iob2"): "BBIIUBLI",
    ("bioes", "bilou"): "BBIISUEL",
    ("bilou", "bioes"): "BBIIUSLE",
}


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


class _Source(NamedTuple):
    """What text, places and spans of a result are made of; nothing that its holder can change.

    Args:
        tokens: the words.
        tags: of the words, as they are written.
        scheme: that they are written in; ``none`` where every token is a span.
        text: as given, where ``offsets`` are.
        offsets: as given; None where text and places follow from the words.
        found: the spans, where they are known already.
        sure: the confidence in each span, where it is wanted.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    scheme: str
    text: str | None
    offsets: Sequence[tuple[int, int]] | None
    found: Sequence[Span] | None
    sure: Sequence[float] | None

    def placed(self) -> tuple[str, Sequence[tuple[int, int]]]:
        """Work out the text and the place of every word in it."""
        if self.text is not None and self.offsets is not None:
            return self.text, self.offsets
        return " ".join(self.tokens), places_of_words(self.tokens)

    def spans(self) -> list[TaggedSpan]:
        """Work out the spans."""
        text, offsets = self.placed()
        found = self.found
        if self.scheme == "none":
            found = [Span(tag, position, position + 1) for position, tag in enumerate(self.tags)]
        elif found is None:
            found = spans_of(self.tags, self.scheme, "conlleval")
        chances = [None] * len(found) if self.sure is None else self.sure
        spans = []
        for (label, first, end), chance in zip(found, chances, strict=True):
            start, stop = offsets[first][0], offsets[end - 1][1]
            spans.append(TaggedSpan(text[start:stop], label, start, stop, chance, first, end - 1))
        return spans


class _Lazy:
    """Room for what a result is made of."""

    __slots__ = ("_source",)
    _source: _Source


@dataclass(frozen=True, slots=True)
class Tagged(_Lazy):
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
            ``None`` where no confidence was asked for. Of a tag that is withheld, ``?``, it is
            the probability of the tag that would have stood there.
        has_spans: whether the tags mark spans.
    """

    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    tags: list[str]
    spans: list[TaggedSpan]
    confidences: list[float] | None
    has_spans: bool = True

    @classmethod
    def _later(
        cls, source: _Source, tags: list[str], confidences: list[float] | None, has_spans: bool
    ) -> Tagged:
        """Leave text, offsets and spans out until they are asked for.

        To make them takes longer than to find the tags, which are all that many ask for.
        """
        tagged = object.__new__(cls)
        fill = object.__setattr__  # as the constructor of a frozen class does
        fill(tagged, "_source", source)
        fill(tagged, "tokens", list(source.tokens))
        fill(tagged, "tags", tags)
        fill(tagged, "confidences", confidences)
        fill(tagged, "has_spans", has_spans)
        return tagged

    def __getattr__(self, name: str) -> Any:
        if name == "spans":
            value: Any = self._source.spans()
        elif name == "text":
            value = self._source.placed()[0]
        elif name == "offsets":
            value = list(self._source.placed()[1])
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, value)
        return value

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

    def __init__(self, model: TaggerNetwork) -> None:
        scheme = model.target_vocab.scheme
        if scheme not in _SCHEMES:
            raise SeqlabError(
                f"the model tags in {scheme}, and a pipeline reads {', '.join(_SCHEMES)}: train it "
                "with data.tag_scheme bioes or iob2."
            )
        self._model = model
        vocab = model.target_vocab
        self._sure = Confidence(vocab)
        self._cooled: tuple[float, CRF] | None = None
        self._written = scheme if "none" in (scheme, vocab.written) else vocab.written
        self._rewritten = _rewritten(vocab) if self._written != scheme else None

    def of_batch(
        self, batch: Batch, sentences: Sentences, confidence: bool, least: float = 0.0
    ) -> list[Tagged]:
        """Tag a batch.

        Args:
            batch: the sentences, on the device of the model.
            sentences: the same as given, none without a token.
            confidence: whether probabilities are wanted.
            least: spans, or tags where there are none, that are less sure are withheld.

        Returns:
            one result a sentence.
        """
        mask = batch.mask  # (batch, time)
        emissions = self._model.emissions(batch)  # (batch, time, tag)
        decoded = self._model.decode(emissions, mask)
        if not confidence and least <= 0.0:
            return [self._tagged(*part) for part in zip(sentences, decoded, strict=True)]
        temperature, scheme = self._model.temperature, self._model.target_vocab.scheme
        crf, emissions = self._tempered(temperature), emissions / temperature
        found = [spans_of(tags, scheme, "conlleval") for tags in decoded]
        spans_surely = self._sure.of_spans(crf, emissions, mask, decoded, found)
        if least > 0.0 and self._model.has_spans:
            rows = zip(decoded, found, spans_surely, strict=True)
            withheld = [_without_unsure(*row, least) for row in rows]
            decoded, found, spans_surely = (list(column) for column in zip(*withheld, strict=True))
        surely = self._sure.of_tokens(crf.marginals(emissions, mask)[mask], decoded)
        if least > 0.0 and not self._model.has_spans:
            decoded = [
                [tag if chance >= least else UNKNOWN for tag, chance in zip(*row, strict=True)]
                for row in zip(decoded, surely, strict=True)
            ]
        if not confidence:
            return [self._tagged(*part) for part in zip(sentences, decoded, strict=True)]
        parts = zip(sentences, decoded, surely, found, spans_surely, strict=True)
        return [self._tagged(*part) for part in parts]

    def _tempered(self, temperature: float) -> CRF:
        """The distribution of confidences, made once."""
        known = self._cooled
        if known is None or known[0] != temperature:
            known = self._cooled = (temperature, self._model.tempered(temperature))
        return known[1]

    def of_nothing(self, sentence: Sentence, confidence: bool) -> Tagged:
        """Answer a sentence that has no token, which no model can read."""
        return self._tagged(sentence, [], [] if confidence else None)

    def _tagged(
        self,
        sentence: Sentence,
        tags: list[str],
        surely: list[float] | None = None,
        found: Sequence[Span] | None = None,
        spans_surely: Sequence[float] | None = None,
    ) -> Tagged:
        if self._rewritten is not None:
            tags = list(map(self._rewritten.__getitem__, tags))
        elif self._written != self._model.target_vocab.scheme:
            tags = convert(tags, self._model.target_vocab.scheme, self._written)
        text = offsets = None
        if sentence.text is not None and sentence.offsets is not None:
            text = sentence.text
            # Copied, as the caller may change them; those that are tuples stay the same ones.
            offsets = cast("list[tuple[int, int]]", list(map(tuple, sentence.offsets)))
        if not self._model.has_spans:
            spans_surely = None if surely is None else tuple(surely)
        source = _Source(
            tuple(sentence.tokens), tuple(tags), self._written, text, offsets, found, spans_surely
        )
        return Tagged._later(source, tags, surely, self._model.has_spans)


def _without_unsure(
    tags: Sequence[str], found: Sequence[Span], chances: Sequence[float], least: float
) -> tuple[list[str], list[Span], list[float]]:
    """Leave spans out that are less sure: tags, spans and their probabilities."""
    kept, tags = [], list(tags)
    for span, chance in zip(found, chances, strict=True):
        if chance >= least:
            kept.append((span, chance))
        else:
            tags[span.start : span.end] = [OUTSIDE] * (span.end - span.start)
    return tags, [span for span, _ in kept], [chance for _, chance in kept]


def _rewritten(vocab: Vocabulary) -> dict[str, str] | None:
    """How every tag is written in the corpus, or None where that depends on the tags beside it."""
    pairs = _PREFIXES.get((vocab.scheme, vocab.written))
    if pairs is None:
        return None
    parts = [split_tag(tag) for tag in vocab.tokens if tag != OUTSIDE]
    if not {prefix for prefix, _ in parts} <= set(pairs[::2]):
        return None
    tags = {
        f"{own}-{label}": f"{theirs}-{label}"
        for own, theirs in zip(pairs[::2], pairs[1::2], strict=True)
        for _, label in parts
    }
    return {OUTSIDE: OUTSIDE} | tags

"""Text in, tags and spans with their probabilities out.

A :class:`Pipeline` reads any amount of text in constant memory: it takes in some batches ahead,
puts sentences of like length together, and gives the results back in the order of the texts. What
a sentence gets never depends on what else was in its batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, overload

import numpy as np
import torch

from seqlab.batch import Batch, FormTable, Ints
from seqlab.confidence import Confidence
from seqlab.errors import DataError, SeqlabError
from seqlab.models.tagger import Tagger
from seqlab.tags import Span, convert, spans_of
from seqlab.words import words_of

_BATCHES_AHEAD = 16  # how many batches of tokens are read before the first of them is tagged
_FORMS_KEPT = 200_000  # word forms whose spelling is remembered from batch to batch
_SCHEMES = ("bioes", "bilou", "iob2", "none")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sequence to tag: its words, and what else the input says of them.

    Args:
        tokens: the words, none empty.
        features: by column name, one value a token, for models that were trained with such columns.
        text: the text that the words were found in; used together with ``offsets`` only.
        offsets: ``(start, end)`` characters of every token in ``text``, end exclusive. Without them
            the text is taken to be the words with a space between each two.
    """

    tokens: Sequence[str]
    features: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text: str | None = None
    offsets: Sequence[tuple[int, int]] | None = None

    @classmethod
    def of(cls, text: str) -> Sentence:
        """Cut a text into words.

        Example:
            >>> Sentence.of("It rains.").tokens
            ['It', 'rains', '.']
        """
        words = words_of(text)
        return cls([w.text for w in words], text=text, offsets=[(w.start, w.end) for w in words])


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


class Pipeline:
    """A model ready to tag text. Several threads may use one pipeline at once.

    Args:
        model: a trained tagger; it is moved to the device and set to evaluation mode.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        tokens_per_batch: how many tokens, padding included, go through the model at once; a longer
            document is a batch of its own.
        confidence: compute the probabilities of tags and spans; this takes a little longer.

    Attributes:
        model: the model.
        device: the device it is on.
        confidence: as given; may be changed between calls.

    Raises:
        SeqlabError: the device is not there, or the tags are in a scheme that models do not use.
    """

    def __init__(
        self,
        model: Tagger,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
    ) -> None:
        if tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch must be at least 1, not {tokens_per_batch}.")
        scheme = model.target_vocab.scheme
        if scheme not in _SCHEMES:
            raise SeqlabError(
                f"the model tags in {scheme}, and a pipeline reads {', '.join(_SCHEMES)}: train it "
                "with data.tag_scheme bioes or iob2."
            )
        self.device = _device(device)
        self.model = model.to(self.device).eval()
        self.tokens_per_batch = tokens_per_batch
        self.confidence = confidence
        self._forms = FormTable(model.source_vocab, bound=_FORMS_KEPT)
        self._lock = threading.Lock()  # for the table of forms alone, never held in the model
        self._sure = Confidence(model.target_vocab)

    @overload
    def __call__(self, inputs: str) -> Tagged: ...

    @overload
    def __call__(self, inputs: list[str] | tuple[str, ...] | list[list[str]]) -> list[Tagged]: ...

    def __call__(
        self, inputs: str | list[str] | tuple[str, ...] | list[list[str]]
    ) -> Tagged | list[Tagged]:
        """Tag one text, several texts, or several sentences that are already cut into words.

        A flat list of strings is always several texts: one sentence of known words is given as
        ``pipeline([["It", "rains", "."]])``.

        Args:
            inputs: a text; a list of texts; or a list of lists of words.

        Returns:
            one result for a text, a list of as many results for a list.

        Raises:
            TypeError: something else was given.
            SeqlabError: the model needs columns beside the words (see :meth:`stream`), or a word is
                empty.
        """
        if isinstance(inputs, str):
            return self.tag([Sentence.of(inputs)])[0]
        if not isinstance(inputs, list | tuple):
            raise TypeError(
                f"a pipeline takes a text, a list of texts or a list of lists of words, not "
                f"{type(inputs).__name__}; for a stream of sentences use `stream`."
            )
        return self.tag([_sentence_of(item, number) for number, item in enumerate(inputs, 1)])

    def tag(self, inputs: Iterable[Sentence]) -> list[Tagged]:
        """Tag sentences and return the results as a list; see :meth:`stream`."""
        return list(self.stream(inputs))

    def stream(self, inputs: Iterable[Sentence]) -> Iterator[Tagged]:
        """Tag any number of sentences in constant memory.

        Args:
            inputs: the sentences; they are taken in some batches ahead of what is given back.

        Yields:
            the results, in the order of the sentences.

        Raises:
            SeqlabError: a sentence lacks a column that the model needs, or a word is empty.
            TypeError: an input is no :class:`Sentence`, or a word no string.
        """
        for chunk in self._chunks(inputs):
            results: list[Tagged | None] = [None] * len(chunk)
            for rows in self._plan([len(sentence.tokens) for sentence in chunk]):
                tagged = self._tag_batch([chunk[row] for row in rows])
                for row, result in zip(rows, tagged, strict=True):
                    results[row] = result
            for sentence, found in zip(chunk, results, strict=True):
                yield self._empty(sentence) if found is None else found

    def _chunks(self, inputs: Iterable[Sentence]) -> Iterator[list[Sentence]]:
        chunk: list[Sentence] = []
        room = budget = _BATCHES_AHEAD * self.tokens_per_batch
        for number, sentence in enumerate(inputs, 1):
            self._check(sentence, number)
            chunk.append(sentence)
            room -= max(1, len(sentence.tokens))
            if room <= 0:
                yield chunk
                chunk, room = [], budget
        if chunk:
            yield chunk

    def _check(self, sentence: Sentence, number: int) -> None:
        if not isinstance(sentence, Sentence):
            raise TypeError(f"input {number} is no Sentence but {type(sentence).__name__}.")
        _check_words(sentence.tokens, number)
        columns = {name: sentence.features.get(name) for name in self.model.source_vocab.features}
        lacking = [name for name, values in columns.items() if values is None]
        if lacking:
            options = " ".join(f"--columns {name}=1" for name in lacking)
            raise SeqlabError(
                f"the model needs the column {' and '.join(lacking)} beside the words, which "
                f"sentence {number} lacks: give a file that has it, as in `--input FILE {options}`."
            )
        if sentence.text is not None and sentence.offsets is not None:
            columns["offsets"] = sentence.offsets  # type: ignore[assignment]
        for name, values in columns.items():
            if values is not None and len(values) != len(sentence.tokens):
                raise DataError(
                    f"sentence {number} has {len(sentence.tokens)} tokens and {len(values)} values "
                    f"of {name}: give every token one."
                )

    def _plan(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Put sentences of like length into batches; those without tokens are left out."""
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            if rows and (len(rows) + 1) * lengths[row] > self.tokens_per_batch:
                yield rows
                rows = []
            if lengths[row]:
                rows.append(row)
        if rows:
            yield rows

    def _batch(self, sentences: Sequence[Sentence]) -> Batch:
        vocab = self.model.source_vocab
        features: list[Ints] = [
            np.array([i for s in sentences for i in column.encode(s.features[name])], np.int64)
            for name, column in vocab.features.items()
        ]
        with self._lock:
            self._forms.make_room()
            rows = self._forms.index([token for s in sentences for token in s.tokens])
            batch = self._forms.batch(rows, [len(s.tokens) for s in sentences], features)
        moved: Batch = self.model.transfer_batch_to_device(batch, self.device, 0)
        return moved

    @torch.inference_mode()
    def _tag_batch(self, sentences: Sequence[Sentence]) -> list[Tagged]:
        batch = self._batch(sentences)
        mask = batch.mask  # (batch, time)
        emissions = self.model.emissions(batch)  # (batch, time, tag)
        decoded = self.model.decode(emissions, mask)
        scheme = self.model.target_vocab.scheme
        found = [spans_of(tags, scheme, "conlleval") for tags in decoded]
        surely: list[list[float]] | list[None] = [None] * len(decoded)
        spans_surely = surely
        if self.confidence:
            crf, sure = self.model.crf, self._sure
            surely = sure.of_tokens(crf.marginals(emissions, mask)[mask], decoded)
            spans_surely = sure.of_spans(crf, emissions, mask, decoded, found)
        parts = zip(sentences, decoded, found, surely, spans_surely, strict=True)
        return [self._tagged(*part) for part in parts]

    def _empty(self, sentence: Sentence) -> Tagged:
        certain: list[float] | None = [] if self.confidence else None
        return self._tagged(sentence, [], [], certain, certain)

    def _tagged(
        self,
        sentence: Sentence,
        tags: list[str],
        found: Sequence[Span],
        surely: list[float] | None,
        spans_surely: list[float] | None,
    ) -> Tagged:
        text, offsets = _placed(sentence)
        vocab = self.model.target_vocab
        if not self.model.has_spans:
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
            text, list(sentence.tokens), offsets, tags, spans, surely, self.model.has_spans
        )


def _placed(sentence: Sentence) -> tuple[str, list[tuple[int, int]]]:
    """The text of a sentence and the place of every token in it."""
    if sentence.text is not None and sentence.offsets is not None:
        return sentence.text, [(start, end) for start, end in sentence.offsets]
    sizes = [len(token) for token in sentence.tokens]
    nexts = accumulate(size + 1 for size in sizes)
    return " ".join(sentence.tokens), [
        (after - 1 - size, after - 1) for size, after in zip(sizes, nexts, strict=True)
    ]


def _sentence_of(item: object, number: int) -> Sentence:
    if isinstance(item, str):
        return Sentence.of(item)
    if isinstance(item, list | tuple):
        return Sentence(item)
    raise TypeError(
        f"input {number} is of type {type(item).__name__}: each must be a text or a list of words."
    )


def _check_words(tokens: object, number: int) -> None:
    if not isinstance(tokens, list | tuple):
        raise TypeError(
            f"sentence {number}: its words come as a {type(tokens).__name__}, not a list."
        )
    for position, token in enumerate(tokens, 1):
        if not isinstance(token, str):
            raise TypeError(
                f"sentence {number}: word {position} is a {type(token).__name__}, not a string."
            )
        if not token:
            raise DataError(f"sentence {number}: word {position} is empty; leave it out.")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SeqlabError(f"device {name!r} is unknown: choose auto, cpu or cuda.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SeqlabError(f"device {name!r} is not there: choose auto or cpu.")
    return device

"""Text in, results out: tags and spans, or labels, with their probabilities.

A :class:`Pipeline` reads any amount of text in constant memory: it takes in some batches ahead,
puts texts of like length together, and gives the results back in the order of the texts. What a
text gets never depends on what else was in its batch. What is done with a batch is the part of
:mod:`seqlab.tagged` and :mod:`seqlab.labelled`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Generic, Protocol, TypeGuard, TypeVar, overload

import numpy as np
import torch

from seqlab.abstention import Point, point_for, points
from seqlab.batch import Batch, Data, Forms, FormTable, Ints, on_device
from seqlab.errors import SeqlabError
from seqlab.labelled import Labelled, Labelling
from seqlab.networks.base import kind_of
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tagger import TaggerNetwork
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn.precision import Precision, check_precision, using
from seqlab.sentence import Sentence, check_sentence, sentence_of
from seqlab.tagged import Tagged, TaggedSpan, Tagging

__all__ = ["Labelled", "Pipeline", "Sentence", "Tagged", "TaggedSpan", "is_served"]

_BATCHES_AHEAD = 16  # how many batches of tokens are read before the first of them is answered
_FORMS_KEPT = 200_000  # word forms whose spelling is remembered from batch to batch

Result = TypeVar("Result")


class Task(Protocol[Result]):
    """What a pipeline asks of the model's task."""

    unit: str  # what one input is called

    def of_batch(
        self, batch: Batch, sentences: Sequence[Sentence], confidence: bool, least: float = 0.0
    ) -> list[Result]:
        """Answer a batch, whose sentences all have tokens; less sure answers are withheld."""

    def of_nothing(self, sentence: Sentence, confidence: bool) -> Result:
        """Answer a sentence without tokens."""


class Served(ABC, Generic[Result]):
    """What is called on texts, and answers each of them."""

    @overload
    def __call__(self, inputs: str) -> Result: ...

    @overload
    def __call__(self, inputs: list[str] | tuple[str, ...] | list[list[str]]) -> list[Result]: ...

    def __call__(
        self, inputs: str | list[str] | tuple[str, ...] | list[list[str]]
    ) -> Result | list[Result]:
        """Read one text, several texts, or several sentences that are already cut into words.

        A flat list of strings is always several texts: one sentence of known words is given as
        ``pipeline([["It", "rains", "."]])``.

        Args:
            inputs: a text; a list of texts; or a list of lists of words.

        Returns:
            one result for a text, a list of as many results for a list: :class:`Tagged` from a
            tagger, :class:`Labelled` from a classifier.

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
        return self.tag([sentence_of(item, number) for number, item in enumerate(inputs, 1)])

    def tag(self, inputs: Iterable[Sentence]) -> list[Result]:
        """Read sentences and return the results as a list; see :meth:`stream`."""
        return list(self.stream(inputs))

    @abstractmethod
    def stream(self, inputs: Iterable[Sentence]) -> Iterator[Result]:
        """Read any number of sentences in constant memory."""


class Pipeline(Served[Result]):
    """A model ready to read text. Several threads may use one pipeline at once.

    Args:
        model: a trained tagger or classifier; it is moved to the device and set to evaluation mode.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        tokens_per_batch: how many tokens, padding included, go through the model at once; a longer
            document is a batch of its own.
        confidence: give the probabilities of tags and spans, which takes a little longer, or those
            of labels.
        precision: ``exact`` (float32), or ``fast``: matrix products in bfloat16 (see
            :mod:`seqlab.nn.precision`); then a text's numbers may also depend a little on its
            batch.
        min_confidence: answers that the model is less sure of are withheld: a span is left out, a
            tag without spans is ``?``, and a text gets no label.

    Attributes:
        model: the model.
        device: the device it is on.
        confidence: as given; may be changed between calls.
        precision: likewise.
        min_confidence: likewise; see :meth:`at_precision`.

    Raises:
        SeqlabError: the device is not there, the precision is unknown, or the tags are in a scheme
            that models do not use.
        TypeError: the model is neither a tagger nor a classifier.
    """

    @overload
    def __init__(
        self: Pipeline[Tagged],
        model: TaggerNetwork,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
        precision: Precision = "exact",
        min_confidence: float = 0.0,
    ) -> None: ...

    @overload
    def __init__(
        self: Pipeline[Labelled],
        model: ClassifierNetwork,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
        precision: Precision = "exact",
        min_confidence: float = 0.0,
    ) -> None: ...

    @overload
    def __init__(
        self: Pipeline[Any],
        model: TokenNetwork,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
        precision: Precision = "exact",
        min_confidence: float = 0.0,
    ) -> None: ...

    def __init__(
        self,
        model: TokenNetwork,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
        precision: Precision = "exact",
        min_confidence: float = 0.0,
    ) -> None:
        check_precision(precision, "precision")
        if tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch must be at least 1, not {tokens_per_batch}.")
        self._task: Task[Result] = _task_of(model)
        self.device = device_named(device)
        self.model = model.to(self.device).eval()
        self.tokens_per_batch = tokens_per_batch
        self.confidence = confidence
        self.precision: Precision = precision
        self.min_confidence = min_confidence
        self._forms = FormTable(model.source_vocab, bound=_FORMS_KEPT)
        self._lock = threading.Lock()  # for the table of forms alone, never held in the model

    def at_precision(self, precision: float) -> Point:
        """Withhold so many answers from now on that of the others this share is right.

        Where that begins was measured on the validation split that the model was trained with; on
        other texts the share may be another.

        Args:
            precision: 0 to 1.

        Returns:
            what ``min_confidence`` is now, and the precision and the share of answers that were
            kept on the validation split.

        Raises:
            UsageError: the model never was that precise, or that was not measured.
        """
        point = point_for(points(self.model.precision_curve), precision, "--target-precision")
        self.min_confidence = point.confidence
        return point

    def stream(self, inputs: Iterable[Sentence]) -> Iterator[Result]:
        """Read any number of sentences in constant memory.

        Args:
            inputs: the sentences; they are taken in some batches ahead of what is given back.

        Yields:
            the results, in the order of the sentences.

        Raises:
            SeqlabError: a sentence lacks a column that the model needs, or a word is empty.
            TypeError: an input is no :class:`Sentence`, or a word no string.
        """
        for chunk in self.chunks(inputs):
            yield from self._answers(chunk)

    def chunks(self, inputs: Iterable[Sentence]) -> Iterator[list[Sentence]]:
        """Check sentences, and give as many at a time as are read ahead."""
        features = list(self.model.source_vocab.features)
        chunk: list[Sentence] = []
        room = budget = _BATCHES_AHEAD * self.tokens_per_batch
        for number, sentence in enumerate(inputs, 1):
            check_sentence(sentence, features, self._task.unit, number)
            chunk.append(sentence)
            room -= max(1, len(sentence.tokens))
            if room <= 0:
                yield chunk
                chunk, room = [], budget
        if chunk:
            yield chunk

    @torch.inference_mode()
    def _answers(self, chunk: Sequence[Sentence]) -> list[Result]:
        """Answer sentences; what depends on a word form alone is computed once for all of them."""
        order = sorted(range(len(chunk)), key=lambda row: len(chunk[row].tokens))
        ranked = [chunk[row] for row in order]
        lengths = np.fromiter((len(s.tokens) for s in ranked), np.int64, len(ranked))
        first = int((lengths == 0).sum())  # those that have tokens
        found = [self._task.of_nothing(s, self.confidence) for s in ranked[:first]]
        if first < len(ranked):
            with using(self.precision, self.device):
                for batch, some in self._batches(ranked[first:], lengths[first:]):
                    found += self._task.of_batch(batch, some, self.confidence, self.min_confidence)
        results = dict(zip(order, found, strict=True))
        return [results[row] for row in range(len(chunk))]

    def _batches(
        self, sentences: Sequence[Sentence], lengths: Ints
    ) -> Iterator[tuple[Batch, Sequence[Sentence]]]:
        """Put sentences, ordered by length and none empty, into batches of like length."""
        forms, places, features = self._looked_up(sentences)
        words = forms.words  # stay on the CPU, where batches are put together
        forms = self._moved(forms)
        self.model.prepare(forms)
        forms.words = words
        ends = lengths.cumsum()
        for part in self._plan(lengths):
            tokens = slice(ends[part.start] - lengths[part.start], ends[part.stop - 1])
            columns = [feature[tokens] for feature in features]
            batch = forms.batch(places[tokens], lengths[part], columns)
            yield self._moved(batch), sentences[part]

    def _plan(self, lengths: Ints) -> Iterator[slice]:
        """Cut sentences that are ordered by length into batches."""
        start = 0
        for row, longest in enumerate(lengths.tolist()):
            if row > start and (row + 1 - start) * longest > self.tokens_per_batch:
                yield slice(start, row)
                start = row
        yield slice(start, len(lengths))

    def _looked_up(self, sentences: Sequence[Sentence]) -> tuple[Forms, Ints, list[Ints]]:
        """Look words and features up: distinct forms, which of them each token has, features."""
        vocab = self.model.source_vocab
        features: list[Ints] = [
            np.array([i for s in sentences for i in column.encode(s.features[name])], np.int64)
            for name, column in vocab.features.items()
        ]
        words = list(chain.from_iterable(s.tokens for s in sentences))
        with self._lock:
            self._forms.make_room()
            return *self._forms.forms(self._forms.index(words), often=True), features

    def _moved(self, data: Data) -> Data:
        return data if self.device.type == "cpu" else on_device(data, self.device)

    def batch(self, sentences: Sequence[Sentence]) -> Batch:
        """Put sentences that have tokens together, on the device of the model."""
        forms, places, features = self._looked_up(sentences)
        return self._moved(forms.batch(places, [len(s.tokens) for s in sentences], features))


def is_served(model: object) -> TypeGuard[TaggerNetwork | ClassifierNetwork]:
    """Say whether there is a pipeline for a model."""
    return isinstance(model, TaggerNetwork | ClassifierNetwork)


def translates(model: object) -> bool:
    """Say whether a model is one for :class:`seqlab.translation_pipeline.TranslationPipeline`."""
    return hasattr(model, "translate")


def _task_of(model: object) -> Any:
    if isinstance(model, TaggerNetwork):
        return Tagging(model)
    if isinstance(model, ClassifierNetwork):
        return Labelling(model)
    remedy = ": use TranslationPipeline" if translates(model) else ""
    raise TypeError(
        f"a pipeline serves a Tagger or a Classifier, and this is a {kind_of(model)}{remedy}."
    )


def device_named(name: str) -> torch.device:
    """Find a device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        SeqlabError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SeqlabError(f"device {name!r} is unknown: choose auto, cpu or cuda.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SeqlabError(f"device {name!r} is not there: choose auto or cpu.")
    return device

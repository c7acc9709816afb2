"""Text in, results out: tags and spans, or labels, with their probabilities.

A :class:`Pipeline` reads any amount of text in constant memory: it takes in some batches ahead,
puts texts of like length together, and gives the results back in the order of the texts. What a
text gets never depends on what else was in its batch. What is done with a batch is the part of
:mod:`seqlab.tagged` and :mod:`seqlab.labelled`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeGuard, TypeVar, overload

import numpy as np
import torch

from seqlab.batch import Batch, FormTable, Ints
from seqlab.errors import SeqlabError
from seqlab.labelled import Labelled, Labelling
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.models.tokens import TokenModel
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
        self, batch: Batch, sentences: Sequence[Sentence], confidence: bool
    ) -> list[Result]:
        """Answer a batch, whose sentences all have tokens."""

    def of_nothing(self, sentence: Sentence, confidence: bool) -> Result:
        """Answer a sentence without tokens."""


class Pipeline(Generic[Result]):
    """A model ready to read text. Several threads may use one pipeline at once.

    Args:
        model: a trained tagger or classifier; it is moved to the device and set to evaluation mode.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        tokens_per_batch: how many tokens, padding included, go through the model at once; a longer
            document is a batch of its own.
        confidence: give the probabilities of tags and spans, which takes a little longer, or those
            of labels.

    Attributes:
        model: the model.
        device: the device it is on.
        confidence: as given; may be changed between calls.

    Raises:
        SeqlabError: the device is not there, or the tags are in a scheme that models do not use.
        TypeError: the model is neither a tagger nor a classifier.
    """

    @overload
    def __init__(
        self: Pipeline[Tagged],
        model: Tagger,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
    ) -> None: ...

    @overload
    def __init__(
        self: Pipeline[Labelled],
        model: Classifier,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
    ) -> None: ...

    @overload
    def __init__(
        self: Pipeline[Any],
        model: TokenModel,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
    ) -> None: ...

    def __init__(
        self,
        model: TokenModel,
        *,
        device: str = "auto",
        tokens_per_batch: int = 4096,
        confidence: bool = True,
    ) -> None:
        if tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch must be at least 1, not {tokens_per_batch}.")
        self._task: Task[Result] = _task_of(model)
        self.device = _device(device)
        self.model = model.to(self.device).eval()
        self.tokens_per_batch = tokens_per_batch
        self.confidence = confidence
        self._forms = FormTable(model.source_vocab, bound=_FORMS_KEPT)
        self._lock = threading.Lock()  # for the table of forms alone, never held in the model

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
        for chunk in self._chunks(inputs):
            results: dict[int, Result] = {}
            for rows in self._plan([len(sentence.tokens) for sentence in chunk]):
                found = self._read([chunk[row] for row in rows])
                results.update(zip(rows, found, strict=True))
            for row, sentence in enumerate(chunk):
                yield (
                    results[row]
                    if row in results
                    else self._task.of_nothing(sentence, self.confidence)
                )

    def _chunks(self, inputs: Iterable[Sentence]) -> Iterator[list[Sentence]]:
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

    def batch(self, sentences: Sequence[Sentence]) -> Batch:
        """Put sentences that have tokens together, on the device of the model."""
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
    def _read(self, sentences: Sequence[Sentence]) -> list[Result]:
        return self._task.of_batch(self.batch(sentences), sentences, self.confidence)


def is_served(model: object) -> TypeGuard[Tagger | Classifier]:
    """Say whether there is a pipeline for a model."""
    return isinstance(model, Tagger | Classifier)


def _task_of(model: object) -> Any:
    if isinstance(model, Tagger):
        return Tagging(model)
    if isinstance(model, Classifier):
        return Labelling(model)
    raise TypeError(
        f"a pipeline serves a Tagger or a Classifier, and this is a {type(model).__name__}."
    )


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

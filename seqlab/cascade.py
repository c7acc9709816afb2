"""Two models as one: a small one answers where it is sure, and a large one elsewhere.

Most sentences are easy, and a model that is sure of those is right about them (see
:mod:`seqlab.calibration`); the others are worth more work. How sure a model is of a sentence is its
confidence in the word, or the text, that it is least sure of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any, Generic

from seqlab.errors import UsageError, check_range
from seqlab.labelled import Labelled
from seqlab.networks.base import kind_of
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.pipeline import Pipeline, Result, Served
from seqlab.sentence import Sentence
from seqlab.tagged import Tagged


class Cascade(Served[Result], Generic[Result]):
    """A small model that hands on to a large one what it is not sure of.

    Args:
        small: asked first, of every sentence.
        large: asked of the sentences that the small one is less sure of than the threshold.
        threshold: 0 to 1; at 0 the large one is never asked, above 1 always.
        min_confidence: answers that are less sure, of whichever model, are withheld (see
            :class:`seqlab.pipeline.Pipeline`).

    Attributes:
        small: like the one given, but that it always works out confidences.
        large: like the one given.
        threshold: as given; may be changed between calls.
        sentences: how many were answered so far.
        handed_on: how many of them by the large model.

    Raises:
        UsageError: the models do not answer the same question.
        RecipeError: the threshold is below 0.
    """

    def __init__(
        self,
        small: Pipeline[Result],
        large: Pipeline[Result],
        threshold: float,
        min_confidence: float = 0.0,
    ) -> None:
        _check_alike(small.model, large.model)
        check_range("--threshold", threshold, 0.0)
        self.small, self.large, self._strict = copy(small), copy(large), copy(small)
        self.threshold = threshold
        self.sentences = self.handed_on = 0
        self.small.confidence, self.small.min_confidence = True, 0.0
        self.large.min_confidence = self._strict.min_confidence = min_confidence

    def stream(self, inputs: Iterable[Sentence]) -> Iterator[Result]:
        """Read any number of sentences in constant memory; see :meth:`Pipeline.stream`."""
        for chunk in self.small.chunks(inputs):
            found = self.small.tag(chunk)
            unsure = [row for row, one in enumerate(found) if sureness(one) < self.threshold]
            rest = sorted(set(range(len(chunk))).difference(unsure))
            again = rest if self._strict.min_confidence > 0.0 else []
            for pipeline, rows in ((self.large, unsure), (self._strict, again)):
                for row, better in zip(rows, pipeline.tag([chunk[r] for r in rows]), strict=True):
                    found[row] = better
            self.sentences += len(chunk)
            self.handed_on += len(unsure)
            yield from found


def sureness(result: Any) -> float:
    """Say how sure a model is of a sentence: of the word or label that it is least sure of.

    Args:
        result: of a pipeline with confidences.

    Returns:
        0 to 1; 1 of a sentence without a word.

    Raises:
        ValueError: there are no confidences.

    Example:
        >>> text = Labelled("Fine.", ["Fine", "."], [(0, 4), (4, 5)], "pos", ["pos"],
        ...                 {"pos": 0.75, "neg": 0.25}, None)
        >>> sureness(text)
        0.75
    """
    if not result.tokens:
        return 1.0
    if isinstance(result, Tagged) and result.confidences is not None:
        return min(result.confidences)
    if isinstance(result, Labelled) and result.probabilities is not None:
        chances = result.probabilities
        if result.multi_label:  # every label is a question of its own
            return min(p if label in result.labels else 1 - p for label, p in chances.items())
        return max(chances.values())
    raise ValueError("the result has no confidences.")


def _check_alike(small: Any, large: Any) -> None:
    """Refuse two models of which one cannot stand in for the other."""
    kinds = [kind_of(model) for model in (small, large)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"--cascade: one model is a {kinds[0]} and the other a {kinds[1]}, which answer other "
            "questions."
        )
    ours, theirs = (_answers(model) for model in (small, large))
    if ours != theirs:
        lacking = sorted(ours ^ theirs)[:3]
        raise UsageError(
            f"--cascade: the models do not give the same labels ({', '.join(lacking)} only one of "
            "them): train both on the same corpus."
        )


def _answers(model: Any) -> set[str]:
    """All that a model may answer, as the corpus writes it."""
    vocab = model.target_vocab
    if isinstance(model, ClassifierNetwork) or not model.has_spans:
        return set(vocab.tokens)
    return {tag.partition("-")[2] for tag in vocab.tokens} | {f"scheme {vocab.written}"}

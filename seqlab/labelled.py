"""Classifiers in a pipeline: the labels of a text, their probabilities, and what was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from torch import Tensor

from seqlab.batch import Batch
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.sentence import Sentence, Sentences

_ALL = 5  # up to so many labels are all printed; of more, the most probable
_BEST = 3


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and what the model says of it; printed, one line with the most probable labels.

    Args:
        text: the text as given, or pretokenised words with a space between each two.
        tokens: its words.
        offsets: ``(start, end)`` characters of every token in ``text``, end exclusive.
        label: the label, of several the most probable one; ``None`` where the model chooses none
            or is not sure enough, or where there is no word to read.
        labels: all labels that the model chooses, the most probable first; never more than one
            unless the model may give a text several.
        probabilities: for every label of the model its probability, 0 to 1, the most probable
            first; they sum to 1 where a text has exactly one label. ``None`` where no confidence
            was asked for, or where there is no word to read.
        attention: for every token the share of it in what the model decided on, the mean over its
            attention heads; they sum to 1. ``None`` where the model has no attention.
        multi_label: whether the model may give a text several labels, or none.
    """

    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    label: str | None
    labels: list[str]
    probabilities: dict[str, float] | None
    attention: list[float] | None
    multi_label: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON data, but for ``multi_label``."""
        data = asdict(self)
        del data["multi_label"]
        data["offsets"] = [list(pair) for pair in self.offsets]
        return data

    def __str__(self) -> str:
        return f"{self._summary()} | {' '.join(self.text.split())}".rstrip()

    def _summary(self) -> str:
        """The labels that are printed; those that were chosen among several are marked."""
        if not self.tokens:
            return "(no words)"
        none = "" if self.labels else "(no label) "
        if self.probabilities is None:
            return (none + ", ".join(self.labels)).strip()
        room = len(self.probabilities)
        if room > _ALL:
            room = max(_BEST, len(self.labels))
        others = [label for label in self.probabilities if label not in self.labels]
        shown = [
            f"{'*' * (self.multi_label and label in self.labels)}{label} {chance:.2f}"
            for label in [*self.labels, *others][:room]
            for chance in [self.probabilities[label]]
        ]
        left = len(self.probabilities) - len(shown)
        rest = f" and {left} other{'s' * (left > 1)}" if left else ""
        return none + ", ".join(shown) + rest


class Labelling:
    """What a pipeline asks of a classifier.

    Args:
        model: the classifier.

    Attributes:
        unit: what one input is called.
    """

    unit = "text"

    def __init__(self, model: ClassifierNetwork) -> None:
        self._model = model
        self._attends = has_attention(model)
        self._ids = {label: number for number, label in enumerate(model.target_vocab.tokens)}

    def of_batch(
        self, batch: Batch, sentences: Sentences, confidence: bool, least: float = 0.0
    ) -> list[Labelled]:
        """Classify a batch of texts; see :meth:`seqlab.tagged.Tagging.of_batch`."""
        found = self._model.classify(batch)
        chosen = self._model.choose(found.probabilities)  # probabilities: (batch, label)
        names = self._model.target_vocab.tokens
        chances: list[list[float]] | list[None] = [None] * len(chosen)
        if least > 0.0:
            chosen = [
                [label for label in labels if row[self._ids[label]] >= least]
                for labels, row in zip(chosen, found.probabilities.tolist(), strict=True)
            ]
        if confidence:
            chances = found.probabilities.tolist()
        shares: list[list[float]] | list[None] = [None] * len(chosen)
        if found.attention is not None:
            shares = _per_token(found.attention, batch)
        return [
            self._labelled(sentence, labels, None if row is None else _ranked(names, row), share)
            for sentence, labels, row, share in zip(sentences, chosen, chances, shares, strict=True)
        ]

    def of_nothing(self, sentence: Sentence, confidence: bool) -> Labelled:
        """Answer a text that has no token, of which no model can say anything."""
        return self._labelled(sentence, [], None, [] if self._attends else None)

    def _labelled(
        self,
        sentence: Sentence,
        labels: list[str],
        probabilities: dict[str, float] | None,
        attention: list[float] | None,
    ) -> Labelled:
        text, offsets = sentence.placed()
        return Labelled(
            text,
            list(sentence.tokens),
            offsets,
            labels[0] if labels else None,
            labels,
            probabilities,
            attention,
            self._model.multi_label,
        )


def has_attention(model: ClassifierNetwork) -> bool:
    """Say whether a classifier weighs the tokens of a text by attention."""
    pooling = model.config["pooling"]
    return "attention" in ([pooling] if isinstance(pooling, str) else pooling)


def _ranked(names: Sequence[str], chances: Sequence[float]) -> dict[str, float]:
    pairs = zip(names, chances, strict=True)
    return dict(sorted(pairs, key=lambda pair: pair[1], reverse=True))


def _per_token(attention: Tensor, batch: Batch) -> list[list[float]]:
    """For each text one number a token: the mean of ``attention (batch, head, time)``."""
    flat: list[float] = attention.mean(1)[batch.mask].tolist()
    sizes: list[int] = batch.lengths.tolist()
    return [flat[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]

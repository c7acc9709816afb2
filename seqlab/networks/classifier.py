"""The network of a classifier: embedder -> encoder -> pooling -> labels of whole texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from seqlab.batch import Batch
from seqlab.errors import DataError, RecipeError, check_range, nearest
from seqlab.networks.base import own_arguments
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn.dropout import LockedDropout
from seqlab.nn.pooling import PoolingName, make_pooling
from seqlab.vocabulary import Vocabulary


class Classified(NamedTuple):
    """What a classifier says of a batch of texts.

    Attributes:
        probabilities: ``(batch, label)`` float32, 0 to 1; they sum to 1 where every text has one
            label.
        attention: ``(batch, head, time)``, which sums to 1 over the tokens of a text and is 0 at
            padding; None where the pooling has no attention.
    """

    probabilities: Tensor
    attention: Tensor | None


class ClassifierNetwork(TokenNetwork):
    """One label for every text, or any number of labels (as Yang et al., 2016, without sentences).

    Args:
        source_vocab: words, with characters and feature columns.
        target_vocab: labels; its ``scheme`` is ``label`` where every text has exactly one, and
            ``labels`` where it has any number.
        pooling: how the states of a text become one vector: ``attention``, ``last``, ``mean``,
            ``max``, or a list of several, which stand side by side.
        heads: of ``attention``.
        class_weights: how much a label counts in the loss: ``none``, all the same; ``balanced``,
            the less the more often it stands in the training split, such that its mean over the
            texts is 1; or ``{label: weight}``, 1 for those that are not named. Where texts have any
            number of labels, it is what counts of a label that is there, not of its absence.
        label_smoothing: share of the target that is spread over all labels (Szegedy et al., 2016).
        spatial_dropout: on the embedder's output, whole dimensions for all tokens of a text.
        **options: see :class:`seqlab.networks.tokens.TokenNetwork`.

    Attributes:
        multi_label: whether a text may have any number of labels.
        thresholds: ``(label,)``, from which probability on a label is chosen, where a text may have
            any number. They are tuned for F1 on the validation split while fitting.

    Raises:
        DataError: there is only one label to choose from.
        RecipeError: the data has no labels of texts, or an argument names none of them.
    """

    thresholds: Tensor

    def __init__(
        self,
        source_vocab: Vocabulary,
        target_vocab: Vocabulary,
        *,
        pooling: PoolingName | list[PoolingName] = "attention",
        heads: int = 1,
        class_weights: Literal["none", "balanced"] | dict[str, float] = "none",
        label_smoothing: float = 0.0,
        spatial_dropout: float = 0.0,
        **options: Any,
    ) -> None:
        arguments = own_arguments(locals())
        _check_labels(target_vocab)
        super().__init__(source_vocab, target_vocab, **options)
        check_range("model.label_smoothing", label_smoothing, 0, 1)
        check_range("model.spatial_dropout", spatial_dropout, 0, 1)
        weights = label_weights(class_weights, target_vocab)
        if weights is not None:  # a bundle has no counts of labels
            arguments["class_weights"] = dict(zip(target_vocab.tokens, weights, strict=True))
        self._config = {**arguments, **self._config}
        self.multi_label = target_vocab.scheme == "labels"
        self.label_smoothing = label_smoothing
        self.spatial_dropout = LockedDropout(spatial_dropout)
        size = self.encoder.output_size
        self.pooling = make_pooling(
            pooling, size, getattr(self.encoder, "forward_size", None), heads
        )
        self.output = nn.Linear(self.pooling.output_size, len(target_vocab))
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.class_weights: Tensor | None
        self.register_buffer(
            "class_weights", None if weights is None else torch.tensor(weights), persistent=False
        )
        self.register_buffer("thresholds", torch.full((len(target_vocab),), 0.5))

    def disturb(self, x: Tensor) -> Tensor:
        """Drop parts of embedded tokens while training; see the base class."""
        return self.spatial_dropout(super().disturb(x))  # type: ignore[no-any-return]

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Score every label for every text.

        Returns:
            ``(batch, label)`` float32, log scale, and the weights of attention ``(batch, head,
            time)`` if there are any.
        """
        pooled, attention = self.pooling(self.encode(batch), batch.mask)
        return self.output(pooled).float(), attention

    def classify(self, batch: Batch) -> Classified:
        """Find how probable every label is for every text."""
        logits, attention = self.logits(batch)
        # Thresholds of several labels were tuned on what the model says by itself.
        chances = (logits / self.temperature).softmax(-1)
        probabilities = logits.sigmoid() if self.multi_label else chances
        return Classified(probabilities, None if attention is None else attention.float())

    def choose(self, probabilities: Tensor) -> list[list[str]]:
        """Choose the labels of every text.

        Args:
            probabilities: ``(batch, label)``, see :meth:`classify`.

        Returns:
            the labels of each text, the most probable first: one of them, or those at or above
            their thresholds, which may be none.
        """
        labels = self.target_vocab.tokens
        if not self.multi_label:
            return [[labels[i]] for i in probabilities.argmax(-1).tolist()]
        kept = (probabilities >= self.thresholds).tolist()
        ranked = probabilities.argsort(stable=True, descending=True).tolist()
        return [
            [labels[i] for i in order if row[i]] for order, row in zip(ranked, kept, strict=True)
        ]


def _check_labels(target_vocab: Vocabulary) -> None:
    """Refuse a vocabulary from which there is nothing to choose."""
    if target_vocab.scheme not in ("label", "labels"):
        raise RecipeError(
            "model: a Classifier labels whole texts, but the data tags their tokens: use "
            "data.class_path seqlab.ClassificationData, or model.class_path seqlab.Tagger."
        )
    if len(target_vocab) < (2 if target_vocab.scheme == "label" else 1):
        all_are = f"all labelled {target_vocab.tokens[0]!r}" if len(target_vocab) else "unlabelled"
        raise DataError(
            f"the texts of the training split are {all_are}: a classifier needs two labels or "
            "more to choose from."
        )


def label_weights(given: str | Mapping[str, float], target_vocab: Vocabulary) -> list[float] | None:
    """Work out how much each label counts.

    Args:
        given: see :class:`ClassifierNetwork`.
        target_vocab: the labels, with their counts for ``balanced``.

    Returns:
        a weight for each label; None where all count the same, or their counts are not known.

    Raises:
        RecipeError: a label is not known, or a weight is no weight.
    """
    if given == "balanced":
        counts = target_vocab.counts
        if counts is None:
            return None
        total = sum(counts.values())
        return [
            total / (len(target_vocab) * counts[label]) if counts.get(label) else 1.0
            for label in target_vocab.tokens
        ]
    if given == "none":
        return None
    if isinstance(given, str):
        raise RecipeError(
            f"model.class_weights is {given!r}: write none, balanced or {{label: weight}}."
        )
    for label, weight in given.items():
        if label not in target_vocab:
            raise RecipeError(
                f"model.class_weights: there is no label {label!r}; name those of the training "
                f"split.{nearest(label, target_vocab.tokens)}"
            )
        check_range(f"model.class_weights.{label}", weight, 0)
    return [float(given.get(label, 1.0)) for label in target_vocab.tokens]

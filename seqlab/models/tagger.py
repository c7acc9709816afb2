"""Tagger: embedder -> encoder -> emissions -> decoder, as a LightningModule."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqlab.batch import Batch
from seqlab.errors import RecipeError
from seqlab.metrics import SpanF1, TagAccuracy
from seqlab.models.base import Stage, own_arguments
from seqlab.models.parts import make_scorers
from seqlab.models.tokens import TokenModel
from seqlab.nn.crf import CRF
from seqlab.tags import Grammar, convert
from seqlab.vocabulary import Vocabulary

DecoderName = Literal["crf", "constrained", "softmax"]


class Tagger(TokenModel):
    """A tag for every token (Huang et al., 2015; Lample et al., 2016; Ma and Hovy, 2016).

    In documents that are encoded in windows, the decoder still sees the whole document.

    Args:
        source_vocab: words, with characters and feature columns.
        target_vocab: tags, with their scheme.
        decoder: ``crf``; ``constrained`` (softmax in training, and the best *legal* sequence when
            decoding); ``softmax`` (each token by itself, illegal spans repaired as conlleval reads
            them).
        **options: see :class:`seqlab.models.tokens.TokenModel`.

    Raises:
        RecipeError: the data labels whole texts.
    """

    def __init__(
        self,
        source_vocab: Vocabulary,
        target_vocab: Vocabulary,
        *,
        decoder: DecoderName = "crf",
        **options: Any,
    ) -> None:
        arguments = own_arguments(locals())
        if target_vocab.scheme in ("label", "labels"):
            raise RecipeError(
                "model: a Tagger tags tokens, but the data labels whole texts: use "
                "model.class_path seqlab.Classifier, or data.class_path seqlab.TaggingData."
            )
        super().__init__(source_vocab, target_vocab, **options)
        self._config = {**arguments, **self._config}
        self.decoder: DecoderName = decoder
        self.emit = nn.Linear(self.encoder.output_size, len(target_vocab))
        nn.init.xavier_uniform_(self.emit.weight)
        nn.init.zeros_(self.emit.bias)
        self.crf = CRF(
            len(target_vocab),
            batch_first=True,
            grammar=None
            if decoder == "softmax"
            else Grammar.of(target_vocab.tokens, target_vocab.scheme),
            learn=decoder == "crf",
        )
        self.has_spans = target_vocab.scheme != "none"
        self.monitor = "val/span_f1" if self.has_spans else "val/accuracy"
        self.scorers = make_scorers(target_vocab)
        self.labels = list(self._spans("val").labels) if self.has_spans else []

    def tempered(self, temperature: float) -> CRF:
        """Return the distribution whose scores, but for the emissions, are divided.

        Args:
            temperature: what they are divided by; emissions are to be divided by the same.
        """
        if temperature == 1.0:
            return self.crf
        crf = copy.deepcopy(self.crf)
        with torch.no_grad():
            for parameter in crf.parameters():
                parameter.div_(temperature)
        return crf

    def emissions(self, batch: Batch) -> Tensor:
        """Score every tag at every token.

        Args:
            batch: sequences.

        Returns:
            ``(batch, time, tag)``, log scale; what stands at padding has no meaning.
        """
        return self.in_windows(batch, self.emit)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the tags of a sentence, a scalar."""
        assert batch.target is not None
        emissions = self.emissions(batch)
        if self.decoder == "crf":
            likelihood: Tensor = self.crf(emissions, batch.target, batch.mask)
            return -likelihood / len(batch)
        flat = functional.cross_entropy(
            emissions.flatten(0, 1).float(),
            batch.target.flatten(),
            ignore_index=-1,
            reduction="sum",
        )
        return flat / len(batch)

    def decode(self, emissions: Tensor, mask: Tensor) -> list[list[str]]:
        """Find the best tags; they are always legal in the scheme of the target vocabulary.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` bool, True = real token.

        Returns:
            the tags of each sentence.
        """
        scheme = self.target_vocab.scheme
        if self.decoder == "softmax":
            best = [
                row[: sum(kept)]
                for row, kept in zip(emissions.argmax(-1).tolist(), mask.tolist(), strict=True)
            ]
            tags = [self.target_vocab.decode(row) for row in best]
            return [convert(row, scheme, scheme) for row in tags] if self.has_spans else tags
        return [self.target_vocab.decode(row) for row in self.crf.decode(emissions, mask)]

    def score(self, batch: Batch, stage: Stage) -> None:
        """Count the right tags and spans of a batch."""
        assert batch.gold is not None
        predicted = self.decode(self.emissions(batch), batch.mask)
        self._accuracy(stage).update(predicted, batch.gold)
        if self.has_spans:
            self._spans(stage).update(predicted, batch.gold)

    def _accuracy(self, stage: Stage) -> TagAccuracy:
        scorer = self.scorers[f"{stage}_accuracy"]
        assert isinstance(scorer, TagAccuracy)
        return scorer

    def _spans(self, stage: Stage) -> SpanF1:
        scorer = self.scorers[f"{stage}_spans"]
        assert isinstance(scorer, SpanF1)
        return scorer

    def scores(self, stage: Stage) -> dict[str, Any]:
        """Return what the scorers of a stage have counted so far.

        Args:
            stage: ``val`` or ``test``.

        Returns:
            ``{stage}/accuracy``, ``{stage}/sentence_accuracy`` and, with spans,
            ``{stage}/span_f1``, ``precision``, ``recall``, ``macro_f1`` (all 0 to 1), ``per_type``
            and ``scorer``.
        """
        accuracy = self._accuracy(stage)
        found = accuracy.compute()
        result: dict[str, Any] = {
            f"{stage}/accuracy": float(found["token_accuracy"]),
            f"{stage}/sentence_accuracy": float(found["sentence_accuracy"]),
            f"{stage}/per_type": accuracy.per_label(),
            f"{stage}/scorer": accuracy.scorer,
        }
        if self.has_spans:
            spans = self._spans(stage)
            result.update({f"{stage}/{k}": float(v) for k, v in spans.compute().items()})
            result[f"{stage}/macro_f1"] = float(spans.macro_f1())
            result[f"{stage}/per_type"] = spans.per_label()
            result[f"{stage}/scorer"] = spans.scorer
        return result

"""Tagger: its network, trained and scored as a LightningModule."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from seqlab.batch import Batch
from seqlab.metrics import SpanF1, TagAccuracy
from seqlab.models.base import SequenceModel, Stage
from seqlab.networks.tagger import TaggerNetwork
from seqlab.tags import split_tag
from seqlab.vocabulary import Vocabulary


class Tagger(TaggerNetwork, SequenceModel):
    """A tag for every token (Huang et al., 2015; Lample et al., 2016; Ma and Hovy, 2016).

    Args:
        source_vocab: words, with characters and feature columns.
        target_vocab: tags, with their scheme.
        **options: see :class:`seqlab.networks.tagger.TaggerNetwork`.

    Raises:
        RecipeError: the data labels whole texts.
    """

    def __init__(self, source_vocab: Vocabulary, target_vocab: Vocabulary, **options: Any) -> None:
        super().__init__(source_vocab, target_vocab, **options)
        self.monitor = "val/span_f1" if self.has_spans else "val/accuracy"
        self.scorers = _make_scorers(target_vocab)

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


def _make_scorers(target_vocab: Vocabulary) -> nn.ModuleDict:
    """Build the scorers of a tagger: ``{val,test}_accuracy`` and, with spans, ``{val,test}_spans``.

    Args:
        target_vocab: the tags, with their scheme.
    """
    scheme = target_vocab.scheme
    scorers: dict[str, nn.Module] = {}
    for stage in ("val", "test"):
        scorers[f"{stage}_accuracy"] = TagAccuracy(target_vocab.tokens)
        if scheme != "none":
            labels = sorted({split_tag(tag)[1] for tag in target_vocab.tokens if tag != "O"})
            scorers[f"{stage}_spans"] = SpanF1(labels, scheme=scheme)
    return nn.ModuleDict(scorers)

"""Classifier: its network, trained and scored as a LightningModule."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn import functional

from seqlab.batch import Batch
from seqlab.errors import RecipeError
from seqlab.label_metrics import LabelScores, LabelSetScores
from seqlab.models.base import SequenceModel, Stage
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.vocabulary import Vocabulary


class Classifier(ClassifierNetwork, SequenceModel):
    """One label for every text, or any number of labels (as Yang et al., 2016, without sentences).

    Args:
        source_vocab: words, with characters and feature columns.
        target_vocab: labels; its ``scheme`` is ``label`` where every text has exactly one, and
            ``labels`` where it has any number.
        **options: see :class:`seqlab.networks.classifier.ClassifierNetwork`.

    Raises:
        DataError: there is only one label to choose from.
        RecipeError: the data has no labels of texts, or an argument names none of them.
    """

    def __init__(self, source_vocab: Vocabulary, target_vocab: Vocabulary, **options: Any) -> None:
        super().__init__(source_vocab, target_vocab, **options)
        self.monitor = "val/macro_f1" if self.multi_label else "val/accuracy"
        scorer = LabelSetScores if self.multi_label else LabelScores
        self.scorers = nn.ModuleDict({s: scorer(target_vocab.tokens) for s in ("val", "test")})

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the labels of a text, a scalar."""
        assert batch.target is not None
        logits, _ = self.logits(batch)
        if self._config["class_weights"] == "balanced":
            raise RecipeError(
                "model.class_weights is balanced, but the target vocabulary does not say how often "
                "each label occurs: give the weights themselves, as {label: weight}."
            )
        smoothing = self.label_smoothing
        if self.multi_label:
            target = batch.target * (1.0 - smoothing) + 0.5 * smoothing
            total = functional.binary_cross_entropy_with_logits(
                logits, target, pos_weight=self.class_weights, reduction="sum"
            )
        else:
            total = functional.cross_entropy(
                logits,
                batch.target,
                weight=self.class_weights,
                label_smoothing=smoothing,
                reduction="sum",
            )
        return total / len(batch)

    def score(self, batch: Batch, stage: Stage) -> None:
        """Count a batch of the validation or test split."""
        assert batch.gold is not None
        self._scorer(stage).update(self.classify(batch).probabilities, batch.gold)

    def _scorer(self, stage: Stage) -> LabelScores | LabelSetScores:
        scorer = self.scorers[stage]
        assert isinstance(scorer, LabelScores | LabelSetScores)
        return scorer

    def on_validation_epoch_end(self) -> None:
        """Tune the thresholds while fitting, and log the scores of the validation split."""
        scorer = self._scorer("val")
        fitting = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking
        if fitting and isinstance(scorer, LabelSetScores):
            self.thresholds.copy_(scorer.tuned())
        super().on_validation_epoch_end()

    def scores(self, stage: Stage) -> dict[str, Any]:
        """Return what the scorer of a stage has counted so far.

        Args:
            stage: ``val`` or ``test``.

        Returns:
            ``{stage}/accuracy``, ``macro_f1``, ``micro_f1``, ``ece`` (all 0 to 1), ``per_type`` and
            ``scorer``; with one label a text ``confusion``, otherwise ``thresholds`` by label.
        """
        scorer = self._scorer(stage)
        result: dict[str, Any] = {}
        if isinstance(scorer, LabelSetScores):
            scorer.thresholds = self.thresholds
            values = self.thresholds.tolist()
            result["thresholds"] = dict(zip(self.target_vocab.tokens, values, strict=True))
        result = {**scorer.compute(), **result, "scorer": scorer.scorer}
        return {f"{stage}/{name}": value for name, value in result.items()}

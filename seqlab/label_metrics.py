"""Scores of classifiers: accuracy, F1 by label, confusions and calibration.

What is counted are integers. Probabilities are kept as they came and put in order before they are
added up, so that a score depends neither on batches nor on the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_confusion_matrix,
    multilabel_stat_scores,
)

from seqlab.metrics import OTHERS, f1_of, macro_f1_of, rows_of

BINS = 15
_MACRO = "macro F1 over the labels that occur"


class _OfLabels(Metric):
    """A metric that knows labels by their names."""

    is_differentiable = False
    full_state_update = False

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self._ids = {label: i for i, label in enumerate(self.labels)}

    def _id(self, label: str) -> int:
        """The place of a label; that after the last for all that are not known."""
        return self._ids.get(label, len(self.labels))


class LabelScores(_OfLabels):
    """Scores of a classifier that gives every text exactly one label.

    A gold label that is not in ``labels`` counts as wrong; all such labels share one row.

    Args:
        labels: the labels of the model, in the order of their ids, each once.

    Example:
        >>> metric = LabelScores(["bad", "good"])
        >>> metric.update(torch.tensor([[0.2, 0.8], [0.4, 0.6]]), [["good"], ["bad"]])
        >>> scores = metric.compute()
        >>> scores["accuracy"], scores["confusion"]
        (0.5, {'bad': {'good': 1}, 'good': {'good': 1}})
    """

    counts: Tensor
    confidences: list[Tensor]
    right: list[Tensor]

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        size = len(self.labels) + 1
        counts = torch.zeros(size, size, dtype=torch.int64)  # (gold, predicted)
        self.add_state("counts", counts, dist_reduce_fx="sum")
        self.add_state("confidences", [], dist_reduce_fx="cat")
        self.add_state("right", [], dist_reduce_fx="cat")

    @property
    def scorer(self) -> str:
        """What is scored and how, to be printed beside the score."""
        return (
            f"torchmetrics {torchmetrics.__version__}: one label a text, {_MACRO}, "
            f"calibration error (ECE) of the chosen label in {BINS} bins"
        )

    def update(self, probabilities: Tensor, gold: Sequence[Sequence[str]]) -> None:
        """Count a batch of texts.

        Args:
            probabilities: ``(batch, label)``; the most probable label is the predicted one.
            gold: the label of every text, a list of one.

        Raises:
            ValueError: there are not as many texts as gold labels, or a text has not one label.
        """
        if len(probabilities) != len(gold) or any(len(labels) != 1 for labels in gold):
            raise ValueError(f"{len(probabilities)} texts need one gold label each, not {gold}.")
        wanted = torch.tensor(
            [self._id(labels[0]) for labels in gold],
            dtype=torch.int64,
            device=probabilities.device,
        )
        confidence, chosen = probabilities.float().max(1)
        self.counts += multiclass_confusion_matrix(
            chosen, wanted, num_classes=len(self.counts), validate_args=False
        )
        self.confidences.append(confidence)
        self.right.append(chosen == wanted)

    def compute(self) -> dict[str, Any]:
        """Score all that was counted.

        Returns:
            ``accuracy``, ``macro_f1``, ``micro_f1`` and ``ece`` from 0 to 1; ``per_type``, see
            :func:`seqlab.metrics.rows_of`; ``confusion``: for every gold label, how often each
            label was predicted, where it was.
        """
        names = [*self.labels, OTHERS]
        table = self.counts.tolist()
        found, wanted = self.counts.sum(0).tolist(), self.counts.sum(1).tolist()
        rows = [[found[i], wanted[i], table[i][i]] for i in range(len(names))]
        return {
            "accuracy": f1_of(*map(sum, zip(*rows, strict=True)))[0],
            **_f1_scores(self.labels, rows),
            "ece": calibration_error(_joined(self.confidences), _joined(self.right)),
            "confusion": {
                name: {names[i]: n for i, n in enumerate(row) if n}
                for name, row in zip(names, table, strict=True)
                if any(row)
            },
        }


class LabelSetScores(_OfLabels):
    """Scores of a classifier that gives every text any number of labels.

    Args:
        labels: the labels of the model, in the order of their ids, each once.

    Attributes:
        thresholds: ``(label,)``; a label is predicted from this probability on. To be set before
            :meth:`compute`.

    Example:
        >>> metric = LabelSetScores(["news", "sport"])
        >>> metric.update(torch.tensor([[0.9, 0.8], [0.6, 0.3]]), [["news", "sport"], []])
        >>> metric.compute()["accuracy"]
        0.5
    """

    probabilities: list[Tensor]
    wanted: list[Tensor]

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.thresholds = torch.full((len(self.labels),), 0.5)
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("wanted", [], dist_reduce_fx="cat")

    @property
    def scorer(self) -> str:
        """What is scored and how, to be printed beside the score."""
        return (
            f"torchmetrics {torchmetrics.__version__}: labels at or above their thresholds, which "
            "are tuned for F1 on the validation split, accuracy of whole sets of labels, "
            f"{_MACRO}, calibration error (ECE) of all labels in {BINS} bins"
        )

    def update(self, probabilities: Tensor, gold: Sequence[Sequence[str]]) -> None:
        """Count a batch of texts.

        Args:
            probabilities: ``(batch, label)``.
            gold: the labels of every text.

        Raises:
            ValueError: there are not as many texts as lists of gold labels.
        """
        if len(probabilities) != len(gold):
            raise ValueError(f"{len(probabilities)} texts for {len(gold)} lists of gold labels.")
        counts = torch.zeros(len(gold), len(self.labels) + 1, dtype=torch.int64)
        for row, labels in enumerate(gold):
            for label in set(labels):
                counts[row, self._id(label)] += 1
        self.probabilities.append(probabilities.float())
        self.wanted.append(counts.to(probabilities.device))

    def tuned(self) -> Tensor:
        """Find the thresholds that give each label its best F1 on what was counted.

        All processes of a training have to call this.

        Returns:
            ``(label,)`` on the CPU, see :func:`best_thresholds`.
        """
        with self.sync_context(should_sync=not self._is_synced, should_unsync=not self._is_synced):
            probabilities, wanted = self._counted()
            return best_thresholds(probabilities, wanted[:, :-1])

    def _counted(self) -> tuple[Tensor, Tensor]:
        """``(text, label)`` and ``(text, label + 1)``, the last column for all other labels."""
        size = len(self.labels)
        return (
            _joined(self.probabilities).view(-1, size),
            _joined(self.wanted).view(-1, size + 1).long(),
        )

    def compute(self) -> dict[str, Any]:
        """Score all that was counted, by ``thresholds``.

        Returns:
            ``accuracy``, ``macro_f1``, ``micro_f1`` and ``ece`` from 0 to 1; ``per_type``, see
            :func:`seqlab.metrics.rows_of`. A text is accurate if its labels are all found, and no
            others.
        """
        probabilities, wanted = self._counted()
        known = wanted.clamp(max=1)
        chosen = torch.zeros_like(wanted)
        chosen[:, :-1] = probabilities >= self.thresholds.cpu()
        rows = [[0, 0, 0] for _ in range(len(self.labels) + 1)]
        if len(wanted):
            stats = multilabel_stat_scores(
                chosen, known, num_labels=len(rows), average=None, validate_args=False
            )  # (label + 1, 5): true and false positives, true and false negatives, gold
            rows = [[tp + fp, tp + fn, tp] for tp, fp, _, fn, _ in stats.tolist()]
            rows[-1][1] = int(wanted[:, -1].sum())  # a text may have several of them
        return {
            "accuracy": int((chosen == wanted).all(1).sum()) / max(len(wanted), 1),
            **_f1_scores(self.labels, rows),
            "ece": calibration_error(probabilities.flatten(), known[:, :-1].flatten()),
        }


def _f1_scores(labels: Sequence[str], rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    per_type = rows_of(labels, rows)
    micro = f1_of(*map(sum, zip(*rows, strict=True)))[2]
    return {"macro_f1": macro_f1_of(per_type), "micro_f1": micro, "per_type": per_type}


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """Put together on the CPU what batches or processes have left; empty where there was none."""
    if isinstance(parts, Tensor):  # gathered from several processes
        return parts.cpu()
    return torch.cat([part.cpu() for part in parts]) if parts else torch.zeros(0)


def calibration_error(confidences: Tensor, right: Tensor) -> float:
    """How far probabilities are from what comes true (ECE; Naeini et al., 2015), in 15 bins.

    Args:
        confidences: ``(any,)`` probabilities.
        right: ``(any,)`` whether what they were given to is so.

    Returns:
        the mean over all of the distance between mean probability and share of the right ones in
        their bin, from 0 to 1; 0 where there are none.

    Example:
        >>> round(calibration_error(torch.tensor([0.9, 0.9]), torch.tensor([True, False])), 3)
        0.4
    """
    if not len(confidences):
        return 0.0
    # Of 1.0 itself torchmetrics makes a bin of its own; and sums depend on the order of the terms.
    values = confidences.double().clamp(0.0, 1.0 - 1e-12)
    order = torch.argsort(values + 2.0 * right.double())
    values, truth = values[order], right[order].long()
    return float(binary_calibration_error(values, truth, BINS, "l1", validate_args=False))


def best_thresholds(probabilities: Tensor, wanted: Tensor) -> Tensor:
    """Find for each label the threshold of the best F1, in the middle between two probabilities.

    Args:
        probabilities: ``(text, label)`` float32.
        wanted: ``(text, label)``, 1 where the label is gold.

    Returns:
        ``(label,)`` float32; of equally good ones that next to 0.5, and 0.5 for a label that is
        never gold.

    Example:
        >>> scores = torch.tensor([[0.1], [0.2], [0.4], [0.3]])
        >>> best_thresholds(scores, torch.tensor([[0], [1], [1], [0]]))
        tensor([0.1500])
    """
    found = torch.full((probabilities.shape[1],), 0.5)
    for label, gold in enumerate(wanted.sum(0).tolist()):
        if not gold:
            continue
        values, order = probabilities[:, label].sort(descending=True)
        right = wanted[order, label].cumsum(0)  # of the first 1, 2, ... texts
        count = torch.arange(1, len(values) + 1)
        f1 = 2.0 * right.double() / (count + gold)
        below = torch.cat([values[1:], values.new_zeros(1)])
        middle = (values + below) / 2
        middle = torch.where(middle > below, middle, values)  # no number lies between them
        f1[:-1][values[1:] == values[:-1]] = -1.0  # what is equal cannot be told apart
        best = middle[f1 == f1.max()]
        found[label] = best[(best - 0.5).abs().argmin()]
    return found

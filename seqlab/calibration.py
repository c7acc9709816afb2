"""Whether confidences mean what they say: temperature, calibration error, reliability diagram.

A model that is right in 80 % of what it is 95 % sure of is too sure. One number mends most of that:
all scores are divided by a temperature that is fitted on the validation split, after training, by
the likelihood of what is right there (Guo et al., 2017). No answer changes, as the best is still
the best; only how sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from seqlab.confidence import Confidence
from seqlab.label_metrics import calibration_error
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tagger import TaggerNetwork
from seqlab.nn.precision import using
from seqlab.tags import UNKNOWN, spans_of

COOLEST, HOTTEST = 0.1, 10.0
BINS = 10  # of the diagram
_HELD = 1 << 26  # numbers of the validation split that are kept to fit on


class Scored(NamedTuple):
    """A batch as the model scored it.

    Attributes:
        scores: emissions ``(batch, time, tag)``, or logits ``(batch, label)``.
        target: ids of what is right, ``(batch, time)`` or ``(batch,)``; -1 where that is unknown to
            the model, or padding.
        mask: ``(batch, time)`` bool, True = real token.
        gold: what is right, as strings.
    """

    scores: Tensor
    target: Tensor
    mask: Tensor
    gold: Sequence[Sequence[str]]


class Calibration(NamedTuple):
    """How confidences and the truth go together.

    Attributes:
        error: mean distance of confidence and truth, 0 to 1 (ECE, 15 bins).
        before: the same at a temperature of 1.
        bins: of the diagram: from 0 to 1 in tenths, each with ``count``, mean ``confidence`` and
            the share that is ``right``; both None in an empty one.
        sure: ``(answer,)`` the confidences.
        right: ``(answer,)`` bool.
    """

    error: float
    before: float
    bins: list[dict[str, Any]]
    sure: Tensor
    right: Tensor


def is_calibrated(model: object) -> bool:
    """Say whether a model has confidences that a temperature can mend."""
    return isinstance(model, TaggerNetwork) or (
        isinstance(model, ClassifierNetwork) and not model.multi_label
    )


@torch.inference_mode()
def scored(model: Any, batches: Iterable[Any]) -> tuple[list[Scored], bool]:
    """Score a split, as far as there is room to keep it.

    Args:
        model: a tagger or a classifier.
        batches: with what is right.

    Returns:
        the batches, and whether all of them are there.
    """
    model.eval()
    found: list[Scored] = []
    held = 0
    for batch in batches:
        batch = model.transfer_batch_to_device(batch, model.device, 0)
        with using(model.precision, model.device):
            if isinstance(model, TaggerNetwork):
                scores = model.emissions(batch).float()
            else:
                scores = model.logits(batch)[0]
        target = _target(model, batch.gold, scores)
        found.append(Scored(scores.clone(), target, batch.mask, batch.gold))
        held += scores.numel()
        if held > _HELD:
            return found, False
    return found, True


def _target(model: Any, gold: Sequence[Sequence[str]], scores: Tensor) -> Tensor:
    """The ids of what is right, -1 for what the model does not know."""
    vocab = model.target_vocab

    def known(label: str) -> int:
        return vocab.id(label) if label in vocab else -1

    target = scores.new_full(scores.shape[:-1], -1, dtype=torch.int64)
    for row, labels in enumerate(gold):
        ids = torch.tensor([known(label) for label in labels], dtype=torch.int64)
        if isinstance(model, TaggerNetwork):
            target[row, : len(ids)] = ids
        elif len(ids) == 1:
            target[row] = ids[0]
    return target


@torch.no_grad()
def fit_temperature(model: Any, kept: Sequence[Scored]) -> float:
    """Find the temperature at which what is right is most probable.

    Args:
        model: what scored them.
        kept: the validation split.

    Returns:
        a number from 0.1 to 10; 1 where nothing is known to be right.
    """
    from scipy.optimize import minimize_scalar

    loss = (
        _tagging_loss(model, kept) if isinstance(model, TaggerNetwork) else _label_loss(model, kept)
    )
    if not math.isfinite(loss(1.0)) or loss(1.0) == 0.0:
        return 1.0
    bounds = (math.log(COOLEST), math.log(HOTTEST))
    best = minimize_scalar(
        lambda x: loss(math.exp(x)), bounds=bounds, method="bounded", options={"xatol": 1e-3}
    )
    return float(math.exp(best.x))


def _tagging_loss(model: TaggerNetwork, kept: Sequence[Scored]) -> Callable[[float], float]:
    def loss(temperature: float) -> float:
        crf, total = model.tempered(temperature), 0.0
        for one in kept:
            total -= float(crf(one.scores / temperature, one.target, one.mask))
        return total

    return loss


def _label_loss(model: ClassifierNetwork, kept: Sequence[Scored]) -> Callable[[float], float]:
    def loss(temperature: float) -> float:
        return sum(
            float(
                functional.cross_entropy(
                    one.scores / temperature, one.target, ignore_index=-1, reduction="sum"
                )
            )
            for one in kept
        )

    return loss


@torch.inference_mode()
def calibration_of(model: Any, kept: Sequence[Scored]) -> Calibration:
    """Compare the confidences of a model with the truth.

    What is counted are spans that the model found, or tokens where there are no spans, or texts.

    Args:
        model: at its temperature.
        kept: a split as it scored it.
    """
    now, right = _confidences(model, kept, model.temperature)
    before, _ = _confidences(model, kept, 1.0)
    return Calibration(
        calibration_error(now, right),
        calibration_error(before, right),
        _diagram(now, right),
        now,
        right,
    )


def _confidences(model: Any, kept: Sequence[Scored], temperature: float) -> tuple[Tensor, Tensor]:
    """How sure the model is of each answer, and whether that is right."""
    sure: list[float] = []
    right: list[bool] = []
    if isinstance(model, TaggerNetwork):
        confidence, crf = Confidence(model.target_vocab), model.tempered(temperature)
        for one in kept:
            _of_tags(model, confidence, crf, one, temperature, sure, right)
    else:
        for one in kept:
            chances, chosen = (one.scores / temperature).softmax(-1).max(-1)
            sure += chances.tolist()
            right += (chosen == one.target).tolist()
    return torch.tensor(sure), torch.tensor(right, dtype=torch.bool)


def _of_tags(
    model: TaggerNetwork,
    confidence: Confidence,
    crf: Any,
    one: Scored,
    temperature: float,
    sure: list[float],
    right: list[bool],
) -> None:
    mask, scheme = one.mask, model.target_vocab.scheme
    decoded = model.decode(one.scores, mask)
    scores = one.scores / temperature
    if not model.has_spans:
        chances = confidence.of_tokens(crf.marginals(scores, mask)[mask], decoded)
        for row, ours, gold in zip(chances, decoded, one.gold, strict=True):
            for chance, tag, wanted in zip(row, ours, gold, strict=True):
                if wanted != UNKNOWN:
                    sure.append(chance)
                    right.append(tag == wanted)
        return
    found = [spans_of(tags, scheme, "conlleval") for tags in decoded]
    chances = confidence.of_spans(crf, scores, mask, decoded, found)
    for row, spans, tags in zip(chances, found, one.gold, strict=True):
        gold_spans = set(spans_of(tags, scheme, "strict"))
        sure += row
        right += [span in gold_spans for span in spans]


def _diagram(sure: Tensor, right: Tensor) -> list[dict[str, Any]]:
    bins = []
    places = (sure * BINS).long().clamp(0, BINS - 1)
    for number in range(BINS):
        inside = places == number
        count = int(inside.sum())
        bins.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "count": count,
                "confidence": float(sure[inside].mean()) if count else None,
                "right": float(right[inside].double().mean()) if count else None,
            }
        )
    return bins


def diagram_lines(bins: Sequence[dict[str, Any]]) -> list[str]:
    """Draw a reliability diagram for a terminal: what confidences say, and what comes true.

    Args:
        bins: of a :class:`Calibration`.
    """
    if not any(one["count"] for one in bins):
        return []
    lines = ["confidence     answers   mean  right"]
    for one in bins:
        if not one["count"]:
            continue
        share, mean = one["right"], one["confidence"]
        bar = "█" * round(20 * share)
        lines.append(
            f"{one['from']:.1f} to {one['to']:.1f}  {one['count']:10,}  {mean:5.2f}  {share:5.2f}  "
            f"{bar}"
        )
    return lines

"""Scores of taggers: span F1 and accuracies, held as integer counts only.

Integers add up exactly in any order, so the score of a corpus does not depend on batches or on the
number of processes that counted it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from seqlab.errors import DataError
from seqlab.tags import UNKNOWN, spans_of

OTHERS = "(other labels)"


def count_spans(
    predicted: Sequence[Sequence[str]],
    target: Sequence[Sequence[str]],
    labels: Sequence[str],
    scheme: str = "iob2",
    repair: str = "strict",
) -> tuple[list[list[int]], int]:
    """Count the spans of a batch of sentences, label by label.

    Args:
        predicted: the tags of every sentence, as predicted.
        target: the tags of every sentence, as they should be; same lengths.
        labels: the span labels to count one by one.
        scheme: the scheme of both, one of `seqlab.tags.SCHEMES` except ``none``.
        repair: how illegal tags are read, see `seqlab.tags.spans_of`.

    Returns:
        (label + 1, 3) numbers of predicted, gold and correct spans for each label, and in the last
        row for all other labels together; and the number of sentences whose spans are all correct,
        none missing. A span is correct if start, end and label agree.

    Raises:
        ValueError: there are not as many predicted as gold sentences, or tags in one of them.

    Example:
        >>> count_spans([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "B-GPE"]], ["LOC", "PER"])
        ([[1, 0, 0], [1, 1, 1], [0, 1, 0]], 0)
    """
    rows = {label: row for row, label in enumerate(labels)}
    counts = [[0, 0, 0] for _ in range(len(labels) + 1)]
    exact = 0
    for ours, gold in _aligned(predicted, target):
        found = set(spans_of(ours, scheme, repair))
        wanted = set(spans_of(gold, scheme, repair))
        for column, spans in enumerate((found, wanted, found & wanted)):
            for span in spans:
                counts[rows.get(span.label, len(labels))][column] += 1
        exact += found == wanted
    return counts, exact


def count_tags(
    predicted: Sequence[Sequence[str]], target: Sequence[Sequence[str]]
) -> tuple[int, int, int, int]:
    """Count the right tags and the sentences without a wrong one.

    A token whose gold tag is unknown (``?``) is not counted. A sentence without a counted token is
    not counted either.

    Args:
        predicted: the tags of every sentence, as predicted.
        target: the tags of every sentence, as they should be; same lengths.

    Returns:
        Right tokens, counted tokens, right sentences, counted sentences.

    Raises:
        ValueError: there are not as many predicted as gold sentences, or tags in one of them.

    Example:
        >>> count_tags([["NOUN", "VERB"], ["ADP"]], [["NOUN", "NOUN"], ["ADP"]])
        (2, 3, 1, 2)
    """
    right_tokens = tokens = right_sentences = sentences = 0
    for ours, gold in _aligned(predicted, target):
        hits = [a == b for a, b in zip(ours, gold, strict=True) if b != UNKNOWN]
        right_tokens += sum(hits)
        tokens += len(hits)
        right_sentences += bool(hits) and all(hits)
        sentences += bool(hits)
    return right_tokens, tokens, right_sentences, sentences


def count_labels(
    predicted: Sequence[Sequence[str]], target: Sequence[Sequence[str]], labels: Sequence[str]
) -> list[list[int]]:
    """Count the tokens of every tag.

    Args:
        predicted: the tags of every sentence, as predicted.
        target: the tags of every sentence, as they should be; same lengths.
        labels: the tags to count one by one.

    Returns:
        (label + 1, 3) numbers of predicted, gold and right tokens for each tag, and in the last row
        for all other tags together; tokens whose gold tag is ``?`` are left out.

    Example:
        >>> count_labels([["NOUN", "X"]], [["NOUN", "VERB"]], ["NOUN", "VERB"])
        [[1, 1, 1], [0, 1, 0], [1, 0, 0]]
    """
    rows = {label: row for row, label in enumerate(labels)}
    counts = [[0, 0, 0] for _ in range(len(labels) + 1)]
    for ours, gold in zip(predicted, target, strict=True):
        for found, wanted in zip(ours, gold, strict=True):
            if wanted != UNKNOWN:
                counts[rows.get(found, len(labels))][0] += 1
                counts[rows.get(wanted, len(labels))][1] += 1
                counts[rows.get(wanted, len(labels))][2] += found == wanted
    return counts


def f1_of(predicted: int, gold: int, correct: int) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean; each is 0 where it is undefined.

    Args:
        predicted: number of predicted spans.
        gold: number of spans that should be found.
        correct: number of spans that are both.

    Returns:
        Precision, recall and F1, from 0 to 1.

    Example:
        >>> f1_of(predicted=4, gold=2, correct=1)
        (0.25, 0.5, 0.3333333333333333)
    """
    return (
        correct / predicted if predicted else 0.0,
        correct / gold if gold else 0.0,
        2 * correct / (predicted + gold) if predicted + gold else 0.0,
    )


def rows_of(
    labels: Sequence[str], counts: Sequence[Sequence[int]]
) -> dict[str, dict[str, float | int]]:
    """Score each label from its counts.

    Args:
        labels: the labels.
        counts: (label + 1, 3) numbers predicted, gold and correct; the last row is for all other
            labels together.

    Returns:
        For each label ``precision``, ``recall``, ``f1`` from 0 to 1, and the numbers ``gold``,
        ``predicted`` and ``correct``; under `OTHERS`, if there were any, those of the last row.

    Example:
        >>> rows_of(["LOC"], [[4, 2, 1], [0, 0, 0]])["LOC"]["recall"]
        0.5
    """
    scores: dict[str, dict[str, float | int]] = {}
    for label, (predicted, gold, correct) in zip([*labels, OTHERS], counts, strict=True):
        precision, recall, f1 = f1_of(predicted, gold, correct)
        scores[label] = {"precision": precision, "recall": recall, "f1": f1}
        scores[label] |= {"gold": gold, "predicted": predicted, "correct": correct}
    if not any(counts[-1]):
        del scores[OTHERS]
    return scores


def macro_f1_of(rows: Mapping[str, Mapping[str, float | int]]) -> float:
    """Average F1 over the labels that were gold or predicted at least once, as seqeval does.

    Args:
        rows: as :func:`rows_of` returns them.

    Returns:
        The average, from 0 to 1, and 0 if there was nothing to find; `OTHERS` counts as one label.
    """
    met = [row for row in rows.values() if row["gold"] or row["predicted"]]
    return sum(row["f1"] for row in met) / len(met) if met else 0.0


class _LabelCounts(Metric):
    """Counts of predicted, gold and correct for every label, and one row for all others.

    Args:
        labels: the labels to count one by one, each once.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        if len(set(labels)) < len(labels):
            raise ValueError(f"a label may come only once, not as in {', '.join(labels)}.")
        self.labels = tuple(labels)
        counts = torch.zeros(len(labels) + 1, 3, dtype=torch.int64)  # (label + others, count)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def per_label(self) -> dict[str, dict[str, float | int]]:
        """Score each label, see :func:`rows_of`; all processes of a training have to call this."""
        with self.sync_context(should_sync=not self._is_synced, should_unsync=not self._is_synced):
            return rows_of(self.labels, self.counts.tolist())

    def macro_f1(self) -> float:
        """Average F1 over the labels, see :func:`macro_f1_of`."""
        return macro_f1_of(self.per_label())


class SpanF1(_LabelCounts):
    """Exact span F1, micro-averaged, equal to seqeval in strict mode or to conlleval.

    A gold span whose label is not in ``labels`` counts as missed unless it was predicted all the
    same; such labels share one row. An unknown gold tag ``?`` is in no gold span.

    Args:
        labels: the span labels, without prefixes, each once.
        scheme: the scheme of the tags, one of `seqlab.tags.SCHEMES` except ``none``.
        repair: ``strict`` or ``conlleval``, how illegal tags are read.

    Raises:
        DataError: the scheme or the repair is unknown, or the scheme has no spans.
        ValueError: a label comes twice.

    Example:
        >>> metric = SpanF1(["LOC", "PER"])
        >>> metric.update([["B-PER", "I-PER", "B-LOC"]], [["B-PER", "I-PER", "O"]])
        >>> metric.compute()["span_f1"]
        tensor(0.6667)
        >>> metric.per_label()["PER"]["f1"]
        1.0
    """

    sentences: Tensor

    def __init__(self, labels: Sequence[str], scheme: str = "iob2", repair: str = "strict") -> None:
        super().__init__(labels)
        if scheme == "none":
            raise DataError("scheme none has no spans to score: use TagAccuracy for such tags.")
        spans_of([], scheme, repair)  # refuses unknown names now, not after an epoch
        self.scheme = scheme
        self.repair = repair
        sentences = torch.zeros(2, dtype=torch.int64)  # (exact, all)
        self.add_state("sentences", sentences, dist_reduce_fx="sum")

    @property
    def scorer(self) -> str:
        """What is scored and how, to be printed beside the score."""
        reference = {"strict": "seqeval strict", "conlleval": "conlleval"}[self.repair]
        return (
            f"seqlab SpanF1: exact spans, micro-averaged, repair={self.repair}, "
            f"scheme={self.scheme} (equal to {reference})"
        )

    def update(self, predicted: Sequence[Sequence[str]], target: Sequence[Sequence[str]]) -> None:
        """Count a batch of sentences.

        Args:
            predicted: the tags of every sentence, as predicted.
            target: the tags of every sentence, as they should be; same lengths.

        Raises:
            ValueError: there are not as many predicted as gold sentences, or tags in one of them.
            DataError: a tag is not of the scheme.
        """
        counts, exact = count_spans(predicted, target, self.labels, self.scheme, self.repair)
        device = self.counts.device
        self.counts += torch.tensor(counts, device=device)  # (label + others, count)
        self.sentences += torch.tensor([exact, len(target)], device=device)  # (exact, all)

    def compute(self) -> dict[str, Tensor]:
        """Score all that was counted.

        Returns:
            ``span_f1``, ``precision`` and ``recall`` over the spans of all labels, scalars from 0
            to 1, 0 where undefined.
        """
        precision, recall, f1 = f1_of(*self.counts.sum(dim=0).tolist())
        scores = {"span_f1": f1, "precision": precision, "recall": recall}
        return {name: torch.tensor(x, device=self.counts.device) for name, x in scores.items()}


class TagAccuracy(_LabelCounts):
    """How many tags are right, and how many sentences are right throughout.

    Tokens whose gold tag is unknown (``?``) are left out.

    Args:
        labels: the tags to count one by one for :meth:`per_label`, each once; all others share a
            row.

    Example:
        >>> metric = TagAccuracy()
        >>> metric.update([["NOUN", "VERB"], ["ADP", "X"]], [["NOUN", "NOUN"], ["ADP", "?"]])
        >>> metric.compute()
        {'token_accuracy': tensor(0.6667), 'sentence_accuracy': tensor(0.5000)}
    """

    totals: Tensor

    def __init__(self, labels: Sequence[str] = ()) -> None:
        super().__init__(labels)
        totals = torch.zeros(4, dtype=torch.int64)  # (right tokens, tokens, and both of sentences)
        self.add_state("totals", totals, dist_reduce_fx="sum")

    @property
    def scorer(self) -> str:
        """What is scored and how, to be printed beside the score."""
        return "seqlab TagAccuracy: right tags among the tokens whose gold tag is known"

    def update(self, predicted: Sequence[Sequence[str]], target: Sequence[Sequence[str]]) -> None:
        """Count a batch of sentences.

        Args:
            predicted: the tags of every sentence, as predicted.
            target: the tags of every sentence, as they should be; same lengths.

        Raises:
            ValueError: there are not as many predicted as gold sentences, or tags in one of them.
        """
        device = self.totals.device
        self.totals += torch.tensor(count_tags(predicted, target), device=device)
        rows = count_labels(predicted, target, self.labels)
        self.counts += torch.tensor(rows, device=device)  # (label + others, count)

    def compute(self) -> dict[str, Tensor]:
        """Score all that was counted.

        Returns:
            ``token_accuracy`` and ``sentence_accuracy``, scalars from 0 to 1, 0 where nothing was
            counted.
        """
        right_tokens, tokens, right_sentences, sentences = self.totals.tolist()
        device = self.totals.device
        return {
            "token_accuracy": torch.tensor(right_tokens / max(tokens, 1), device=device),
            "sentence_accuracy": torch.tensor(right_sentences / max(sentences, 1), device=device),
        }


def _aligned(
    predicted: Sequence[Sequence[str]], target: Sequence[Sequence[str]]
) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Pairs of sentences; their lengths are checked before the first pair is handed out."""
    if len(predicted) != len(target):
        raise ValueError(f"{len(predicted)} predicted sentences for {len(target)} gold sentences.")
    pairs = list(zip(predicted, target, strict=True))
    for index, (ours, gold) in enumerate(pairs):
        if len(ours) != len(gold):
            raise ValueError(
                f"sentence {index} of the batch has {len(ours)} predicted tags for "
                f"{len(gold)} gold tags."
            )
    return iter(pairs)

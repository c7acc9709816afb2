"""What models answer on the sentences of a test split, beside what is right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from seqlab.calibration import calibration_of, is_calibrated, scored
from seqlab.data.sampling import cut
from seqlab.errors import SeqlabError, UsageError
from seqlab.metrics import count_spans, count_tags
from seqlab.networks.base import kind_of
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tagger import TaggerNetwork
from seqlab.networks.translator import TranslatorNetwork
from seqlab.nn.precision import using
from seqlab.significance import Floats, Score, accuracy, f1

_AT_ONCE = 4096  # tokens


class Outcomes(NamedTuple):
    """The answers of one model.

    Attributes:
        task: ``tags``, ``labels`` or ``texts``.
        scorer: what is scored and how; two models are compared by the same one.
        digest: of the test sentences and of what is right.
        sentences: of each its words, or its text.
        answers: of each sentence its tags, its labels, or its translation.
        gold: likewise, what is right.
        counts: ``(sentence, count)``, what the score is made of.
        score: from summed counts to the score, 0 to 1.
        scheme: of tags.
        ece: expected calibration error, 0 to 1; None of a model without confidences.
    """

    task: str
    scorer: str
    digest: str
    sentences: list[str]
    answers: list[Any]
    gold: list[Any]
    counts: Floats
    score: Score
    scheme: str = "none"
    ece: float | None = None


def outcomes_of(model: Any, data: Any) -> Outcomes:
    """Let a model answer the test split.

    Args:
        model: a tagger, a classifier or a translator.
        data: of the same kind, set up.

    Raises:
        UsageError: there is no test split.
    """
    if "test" not in data.splits:
        raise UsageError(
            "the corpus has no test split to compare on: name one that has, with --data.path."
        )
    dataset = data.dataset("test", scored=True)
    lengths = dataset.encoded.lengths
    order = np.argsort(-lengths, kind="stable")
    answers: list[Any] = [None] * len(lengths)
    gold: list[Any] = [None] * len(lengths)
    model.eval()
    for rows in cut(lengths, order, len(lengths), _AT_ONCE):
        batch = dataset[rows]
        with using(model.precision, model.device), torch.inference_mode():
            found = _answered(model, batch)
        for row, answer, right in zip(rows.tolist(), found, batch.gold, strict=True):
            answers[row], gold[row] = answer, right
    sentences = _sentences(data)
    return _counted(model, _digest([sentences, gold]), sentences, answers, gold)


def calibration_error(model: Any, data: Any) -> float | None:
    """Measure how far confidences are from the truth on the test split.

    Args:
        model: a tagger, a classifier or a translator.
        data: of the same kind, set up.

    Returns:
        0 to 1; None of a model without confidences.
    """
    if not is_calibrated(model):
        return None
    return calibration_of(model, scored(model, data.test_dataloader())[0]).error


def _answered(model: Any, batch: Any) -> Sequence[Any]:
    if isinstance(model, TaggerNetwork):
        return model.decode(model.emissions(batch), batch.mask)
    if isinstance(model, ClassifierNetwork):
        return model.choose(model.classify(batch).probabilities)
    if isinstance(model, TranslatorNetwork):
        return model.target_vocab.decode([best[0].ids for best in model.translate(batch)])
    raise SeqlabError(f"a {kind_of(model)} cannot be compared.")


def _sentences(data: Any) -> list[str]:
    """The sentences of the test split as they were read."""
    rows = data.splits["test"]
    name = next(name for name in ("source", "tokens", "text") if name in rows.column_names)
    return [" ".join(words) if isinstance(words, list) else str(words) for words in rows[name][:]]


def _digest(content: Any) -> str:
    return hashlib.sha256(repr(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _counted(
    model: Any, digest: str, sentences: list[str], answers: list[Any], gold: list[Any]
) -> Outcomes:
    about = (digest, sentences, answers, gold)
    counts: list[Sequence[float]]
    if isinstance(model, TranslatorNetwork):
        counts, signature = _of_translations(answers, gold)
        return Outcomes("texts", signature, *about, _array(counts, 10), bleu)
    if isinstance(model, TaggerNetwork) and model.has_spans:
        scheme = model.target_vocab.scheme
        counts = []
        for ours, right in zip(answers, gold, strict=True):
            ((found, wanted, hits),), _ = count_spans([ours], [right], [], scheme)
            counts.append((hits, found, wanted))
        return Outcomes("tags", "span F1", *about, _array(counts, 3), f1, scheme)
    if isinstance(model, TaggerNetwork):
        counts = [count_tags([a], [b])[:2] for a, b in zip(answers, gold, strict=True)]
        return Outcomes("tags", "accuracy", *about, _array(counts, 2), accuracy)
    if model.multi_label:
        counts = [
            (len(set(a) & set(b)), len(a), len(b)) for a, b in zip(answers, gold, strict=True)
        ]
        return Outcomes("labels", "micro F1", *about, _array(counts, 3), f1)
    counts = [(float(a == list(b)), 1.0) for a, b in zip(answers, gold, strict=True)]
    return Outcomes("labels", "accuracy", *about, _array(counts, 2), accuracy)


def _of_translations(
    answers: Sequence[str], gold: Sequence[str]
) -> tuple[list[Sequence[float]], str]:
    """What BLEU counts in each sentence, and the signature of BLEU."""
    from sacrebleu.metrics.bleu import BLEU

    metric, counts = BLEU(effective_order=True), list[Sequence[float]]()
    for answer, right in zip(answers, gold, strict=True):
        one = metric.sentence_score(answer, [right])
        counts.append((*one.counts, *one.totals, one.sys_len, one.ref_len))
    whole = BLEU()
    whole.corpus_score(list(answers), [list(gold)])
    return counts, f"BLEU {whole.get_signature()}"


def bleu(counts: Floats) -> Floats:
    """BLEU from 0 to 1 by sacrebleu, of summed counts ``(..., 10)``.

    They are matches and n-grams of one to four words, and the words of translations and references.
    """
    from sacrebleu.metrics.bleu import BLEU

    rows = counts.reshape(-1, 10).astype(int).tolist()
    found = [
        BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="exp").score / 100
        for row in rows
    ]
    return np.asarray(found).reshape(counts.shape[:-1])


def _array(counts: list[Sequence[float]], width: int) -> Floats:
    return np.asarray(counts, np.float64).reshape(-1, width)

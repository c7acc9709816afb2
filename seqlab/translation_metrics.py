"""Scores of translators: BLEU, chrF and TER by sacrebleu itself, and perplexity.

What is kept are the sentences. They are scored all at once when all are there, so that a score
depends neither on batches nor on the number of processes, and is the one that the command
``sacrebleu`` prints for the same two files (Post, 2018).
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

if TYPE_CHECKING:
    from sacrebleu import BLEU, CHRF

Likelihood = tuple[float, int, int | None]
_LARGEST_EXPONENT = math.log(sys.float_info.max)


class TranslationScores(Metric):
    """Scores of translations, and of the likelihood that a model gives to the right ones.

    Example:
        >>> metric = TranslationScores()
        >>> metric.update(["the cat sat on the mat"], ["the cat sat on a mat"])
        >>> metric.update_likelihood(nll_sum=math.log(2.0) * 7, tokens=7, right_tokens=5)
        >>> scores = metric.compute()
        >>> round(scores["bleu"], 1), round(scores["ter"], 1), round(scores["perplexity"], 3)
        (53.7, 16.7, 2.0)
        >>> scores["scorer"]["ter"]
        'nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:...'
    """

    is_differentiable = False
    full_state_update = False
    records: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # Processes exchange tensors, not strings: each batch is a line of JSON, as bytes.
        self.add_state("records", [], dist_reduce_fx="cat")
        self.set_dtype(torch.uint8)  # of what a process sends that has seen no batch

    def update(
        self,
        hypotheses: Sequence[str],
        references: Sequence[str],
        likelihood: Likelihood | None = None,
    ) -> None:
        """Keep a batch of sentences.

        Args:
            hypotheses: the translations of a model, as text; a sentence may be empty.
            references: the translations they should be, as many.
            likelihood: the arguments of :meth:`update_likelihood`, if there are any.

        Raises:
            ValueError: there are not as many translations as references.
        """
        if len(hypotheses) != len(references):
            raise ValueError(f"{len(hypotheses)} translations for {len(references)} references.")
        line = json.dumps([list(hypotheses), list(references), likelihood]) + "\n"
        record = torch.frombuffer(bytearray(line, "ascii"), dtype=torch.uint8)
        self.records.append(record.to(self.device))

    def update_likelihood(
        self, nll_sum: float | Tensor, tokens: int, right_tokens: int | None = None
    ) -> None:
        """Keep what a model makes of the references of a batch, teacher-forced.

        Args:
            nll_sum: negative log-likelihood of all their tokens together, in nats, without label
                smoothing.
            tokens: how many those are, ends of sentences counted in.
            right_tokens: how many of them the model holds the most likely, if they were counted.
        """
        right = None if right_tokens is None else int(right_tokens)
        self.update([], [], (float(nll_sum), int(tokens), right))

    def compute(self) -> dict[str, Any]:
        """Score all that was kept.

        Returns:
            Of translations, if there are any: ``bleu`` (13a, cased), ``bleu_lowercased`` and
            ``chrf`` (chrF2) from 0 to 100, ``ter`` from 0 up, lower is better; ``brevity_penalty``
            and ``length_ratio`` of BLEU with ``translated_words`` and ``reference_words``;
            ``sentences``; and ``scorer``, the signature of each score. Of likelihoods, if there are
            any: ``perplexity``, and ``token_accuracy`` where right tokens were counted.
        """
        kept = _read(self.records)
        scores = corpus_scores(kept.hypotheses, kept.references) if kept.hypotheses else {}
        return scores | _likelihood_scores(kept.likelihoods)


class _Kept(NamedTuple):
    hypotheses: list[str]
    references: list[str]
    likelihoods: list[Likelihood]


def _read(records: list[Tensor] | Tensor) -> _Kept:
    """Take apart what batches, or processes together, have left."""
    parts = [records] if isinstance(records, Tensor) else records
    kept = _Kept([], [], [])
    for part in parts:
        for line in bytes(part.cpu().numpy()).splitlines():
            hypotheses, references, likelihood = json.loads(line)
            kept.hypotheses.extend(hypotheses)
            kept.references.extend(references)
            if likelihood is not None:
                kept.likelihoods.append(likelihood)
    return kept


def _likelihood_scores(likelihoods: Sequence[Likelihood]) -> dict[str, float]:
    tokens = sum(count for _, count, _ in likelihoods)
    if not tokens:
        return {}
    mean = math.fsum(nll for nll, _, _ in likelihoods) / tokens  # rounded once, in any order
    scores = {"perplexity": math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf}
    right = [count for _, _, count in likelihoods if count is not None]
    if len(right) == len(likelihoods):
        scores["token_accuracy"] = sum(right) / tokens
    return scores


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Score a corpus with sacrebleu.

    TER looks for shifts of words, and takes seconds for a sentence of hundreds of words that come
    in quite another order.

    Args:
        hypotheses: the translations of a model, detokenised; at least one.
        references: the translations they should be, as many.

    Returns:
        See :meth:`TranslationScores.compute`.
    """
    from sacrebleu import BLEU, CHRF, TER

    scorers = {
        "bleu": BLEU(),
        "bleu_lowercased": BLEU(lowercase=True, force=True),  # what is amiss has been said once
        "chrf": CHRF(),
        "ter": TER(),
    }
    found = {name: one.corpus_score(hypotheses, [references]) for name, one in scorers.items()}
    bleu: Any = found["bleu"]
    return {
        **{name: float(score.score) for name, score in found.items()},
        "brevity_penalty": float(bleu.bp),
        "length_ratio": float(bleu.ratio),
        "translated_words": bleu.sys_len,
        "reference_words": bleu.ref_len,
        "sentences": len(hypotheses),
        "scorer": {name: str(one.get_signature()) for name, one in scorers.items()},
    }


def sentence_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
    """Score sentence by sentence with sacrebleu's BLEU, as a reward to train on.

    Orders of n-grams that a sentence is too short for are left out; those without a match are
    smoothed as in the score of a corpus.

    Args:
        hypotheses: translations.
        references: the translations they should be, as many.

    Returns:
        From 0 to 1 for each; 0 where no word is right.

    Example:
        >>> sentence_bleu(["a dog runs", ""], ["a dog runs", "a cat"])
        [1.0, 0.0]
    """
    return _each(_bleu_of_sentences(), hypotheses, references)


def sentence_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
    """Score sentence by sentence with sacrebleu's chrF2, as a reward to train on.

    Args:
        hypotheses: translations.
        references: the translations they should be, as many.

    Returns:
        From 0 to 1 for each.

    Example:
        >>> sentence_chrf(["a dog runs", ""], ["a dog runs", "a cat"])
        [1.0, 0.0]
    """
    return _each(_chrf_of_sentences(), hypotheses, references)


@functools.cache
def _bleu_of_sentences() -> BLEU:
    from sacrebleu import BLEU

    return BLEU(effective_order=True, force=True)


@functools.cache
def _chrf_of_sentences() -> CHRF:
    from sacrebleu import CHRF

    return CHRF()


def _each(scorer: BLEU | CHRF, ours: Sequence[str], gold: Sequence[str]) -> list[float]:
    pairs = zip(ours, gold, strict=True)
    # Roundings may leave a little more than 100.
    return [min(scorer.sentence_score(a, [b]).score / 100, 1.0) for a, b in pairs]

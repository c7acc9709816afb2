"""Translator: its network, trained and scored as a LightningModule."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seqlab.models.base import SequenceModel, Stage
from seqlab.models.sequence_training import fed_own_words, sampling_share, sequence_training_of
from seqlab.networks.translator import TranslatorNetwork
from seqlab.nn.attention import coverage_loss
from seqlab.nn.losses import smoothed_cross_entropy
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary
from seqlab.translation_metrics import TranslationScores

_EXAMPLES = 5


class Examples:
    """A few translations of a split to show, of the same sentences whatever the batches are."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, dict[str, str]]] = []

    def add(self, sources: Sequence[str], found: Sequence[str], gold: Sequence[str]) -> None:
        """Take in the texts of a batch, their translations, and the right ones."""
        for source, text, reference in zip(sources, found, gold, strict=True):
            example = {"source": source, "translation": text, "reference": reference}
            self._kept.append((zlib.crc32(source.encode("utf-8", "replace")), example))
        self._kept.sort(key=lambda pair: (pair[0], pair[1]["source"]))
        del self._kept[_EXAMPLES:]

    def taken(self) -> list[dict[str, str]]:
        """Return the examples, and forget them."""
        taken = [example for _, example in self._kept]
        self._kept = []
        return taken


class Translator(TranslatorNetwork, SequenceModel):
    """An encoder, and a decoder that attends to it (Bahdanau et al., 2015; Luong et al., 2015).

    Args:
        source_vocab: the subwords of the source language.
        target_vocab: those of the target language; the same where they were learnt jointly.
        **options: see :class:`seqlab.networks.translator.TranslatorNetwork`.

    Raises:
        RecipeError: an argument does not fit the others.
    """

    monitor = "val/bleu"
    source_vocab: SubwordVocabulary
    target_vocab: SubwordVocabulary

    def __init__(
        self, source_vocab: SubwordVocabulary, target_vocab: SubwordVocabulary, **options: Any
    ) -> None:
        super().__init__(source_vocab, target_vocab, **options)
        self.sequence = sequence_training_of(self.config)
        self.scorers = nn.ModuleDict({stage: TranslationScores() for stage in ("val", "test")})
        self._examples = {stage: Examples() for stage in ("val", "test")}

    def loss(self, batch: PairBatch) -> Tensor:
        """Return the mean loss of a target subword, a scalar; see the class arguments."""
        if self.sequence is not None and self.current_epoch >= self.sequence.after:
            return self.sequence.loss(self, batch)
        return self.likelihood_loss(batch)

    def count(self, batch: PairBatch) -> Tensor | int:
        """Say of how many target subwords, or sentences, the loss of a batch is the mean."""
        by_sentence = self.sequence is not None and self.current_epoch >= self.sequence.after
        return len(batch) if by_sentence else batch.lengths.sum()

    def likelihood_loss(self, batch: PairBatch) -> Tensor:
        """Return the mean smoothed negative log-likelihood of a target subword, in nats."""
        assert batch.target is not None
        memory, start = self.encode(batch)
        share = sampling_share(self)
        if share:
            features, attention = fed_own_words(self, batch, memory, start, share)
        else:
            x = self.embed(self.target_embedding, self.before(batch.target))
            features, attention = self.decoder(
                x, start, memory, with_attention=self.copy is not None or self.coverage_share > 0
            )
        total = self.negative_log_likelihood(batch, features, attention, self.label_smoothing)
        tokens = batch.lengths.sum()
        if self.coverage_share:
            assert attention is not None
            total = total + self.coverage_share * coverage_loss(attention, batch.target_mask)
        return total / tokens

    def negative_log_likelihood(
        self,
        batch: PairBatch,
        features: Tensor,
        attention: Tensor | None,
        smoothing: float,
    ) -> Tensor:
        """Return the sum over all target subwords, in nats, a scalar.

        Args:
            batch: with targets.
            features: ``(batch, time, decoder)``.
            attention: ``(batch, time, source)``, where subwords can be copied.
            smoothing: share of the target spread over all subwords.
        """
        assert batch.target is not None
        mask = batch.target_mask
        if self.copy is None:
            narrow = self.output.narrowed(features[mask])
            return smoothed_cross_entropy(
                narrow, self.output.weight, self.output.bias, batch.target[mask], smoothing
            )
        found = self.log_probabilities(features, attention, batch.source)[mask]
        right = found.gather(1, batch.target[mask].unsqueeze(1)).sum()
        total: Tensor = (smoothing - 1) * right - smoothing * found.mean(1).sum()
        return total

    @torch.no_grad()
    def log_likelihood(self, batch: PairBatch) -> tuple[float, int]:
        """Return the log-likelihood of all targets in nats, and how many subwords they have."""
        assert batch.target is not None
        memory, start = self.encode(batch)
        x = self.embed(self.target_embedding, self.before(batch.target))
        features, attention = self.decoder(x, start, memory, with_attention=self.copy is not None)
        total = self.negative_log_likelihood(batch, features, attention, 0.0)
        return -float(total), int(batch.lengths.sum())

    def score(self, batch: PairBatch, stage: Stage) -> None:
        """Translate a batch of the validation or test split, and count."""
        assert batch.gold is not None
        beam = self.validation_beam if stage == "val" else self.searching.beam
        found = self.translate(batch, replace(self.searching, beam=beam))
        texts = self.target_vocab.decode([best[0].ids for best in found])
        scorer = self.scorers[stage]
        assert isinstance(scorer, TranslationScores)
        scorer.update(texts, batch.gold)
        total, tokens = self.log_likelihood(batch)
        scorer.update_likelihood(-total, tokens)
        if batch.texts is not None:
            self._examples[stage].add(batch.texts, texts, batch.gold)

    def scores(self, stage: Stage) -> dict[str, Any]:
        """Return what the scorer of a stage has gathered so far.

        Args:
            stage: ``val`` or ``test``.

        Returns:
            ``{stage}/bleu``, ``bleu_lowercased``, ``chrf``, ``ter`` (0 to 100, by sacrebleu),
            ``perplexity``, ``scorer`` with the signatures, and ``examples``.
        """
        scorer = self.scorers[stage]
        assert isinstance(scorer, TranslationScores)
        found = {**scorer.compute(), "examples": self._examples[stage].taken()}
        return {f"{stage}/{name}": value for name, value in found.items()}

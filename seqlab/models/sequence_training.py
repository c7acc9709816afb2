"""Training a translator on what it says itself: scheduled sampling, and losses of whole sentences.

A decoder that is trained on right words alone never sees what follows a mistake. With scheduled
sampling (Bengio et al., 2015) it reads its own words now and then. With a loss of whole sentences
it translates, and learns what the translations are worth: their expected worth among candidates
(minimum risk, Shen et al., 2016), or by how much a drawn one is better than the one that it would
have given (self-critical, Rennie et al., 2017). Such a loss is for a model that translates already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqlab.errors import RecipeError, check_range
from seqlab.nn.attention import Memory
from seqlab.nn.decoders import Start
from seqlab.nn.sequence_losses import distinct, minimum_risk, self_critical
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary
from seqlab.translation_metrics import sentence_bleu, sentence_chrf

if TYPE_CHECKING:
    from seqlab.models.translator import Translator

REWARDS = {"bleu": sentence_bleu, "chrf": sentence_chrf}


def fed_own_words(
    model: Translator, batch: PairBatch, memory: Memory, start: Start, share: float
) -> tuple[Tensor, Tensor]:
    """Decode a known target, with the model's own words read in place of some right ones.

    Args:
        model: in training.
        batch: with targets.
        memory: of the source.
        start: the state before the first step.
        share: probability that the word before a step is the one that the model found best.

    Returns:
        features ``(batch, time, hidden)`` and attention ``(batch, time, source)``.
    """
    assert batch.target is not None
    state = model.decoder.begin(start, memory)
    word = batch.target.new_full((len(batch), 1), SubwordVocabulary.BEGIN)
    features, weights = [], []
    for at in range(batch.target.shape[1]):
        x = model.embed(model.target_embedding, word)
        feature, weight, state = model.decoder.step(x, state, memory)
        features.append(feature)
        weights.append(weight)
        with torch.no_grad():
            own = model.log_probabilities(feature, weight, batch.source).argmax(-1)
        right = batch.target[:, at : at + 1]
        word = torch.where(torch.rand(right.shape, device=right.device) < share, own, right)
    return torch.cat(features, 1), torch.cat(weights, 1)


def sampling_share(model: Translator) -> float:
    """Say with what probability the decoder reads its own words now."""
    if not (model.training and model.scheduled_sampling):
        return 0.0
    steps = model.scheduled_sampling_steps
    reached = min(1.0, model.global_step / steps) if steps else 1.0
    return model.scheduled_sampling * reached


def sequence_training_of(arguments: Mapping[str, Any]) -> SequenceTraining | None:
    """Make the loss of whole translations that a translator's arguments ask for, if they do."""
    if arguments["sequence_loss"] == "none":
        return None
    return SequenceTraining(
        name=arguments["sequence_loss"],
        after=arguments["sequence_after"],
        candidates=arguments["sequence_candidates"],
        reward=arguments["sequence_reward"],
        smoothness=arguments["sequence_smoothness"],
        likelihood_share=arguments["likelihood_share"],
    )


@dataclass
class SequenceTraining:
    """A loss of whole translations; the arguments are those of the model.

    Attributes:
        name: ``minimum_risk`` or ``self_critical``.
        after: epochs that are trained on likelihood before.
        candidates: translations drawn for a sentence.
        reward: ``bleu`` or ``chrf``.
        smoothness: of ``minimum_risk``.
        likelihood_share: share of the likelihood that stays in the loss.

    Raises:
        RecipeError: a number is out of range.
    """

    name: str
    after: int
    candidates: int
    reward: str
    smoothness: float
    likelihood_share: float

    def __post_init__(self) -> None:
        check_range("model.sequence_after", self.after, 0)
        least = 2 if self.name == "minimum_risk" else 1
        check_range("model.sequence_candidates", self.candidates, least)
        check_range("model.likelihood_share", self.likelihood_share, 0, 1)
        if not self.smoothness > 0:
            raise RecipeError(
                f"model.sequence_smoothness is {self.smoothness:g}: it must be more than 0."
            )

    def loss(self, model: Translator, batch: PairBatch) -> Tensor:
        """Return the loss of a batch with targets, a scalar."""
        assert batch.target is not None
        assert batch.target_lengths is not None
        lengths = (batch.target_lengths - 1).tolist()
        right = [row[:n] for row, n in zip(batch.target.tolist(), lengths, strict=True)]
        drawn, best = self._candidates(model, batch, right)
        gold = model.target_vocab.decode(right)
        worth = self._worth(model, drawn, gold)
        found, mask = self._log_probabilities(model, batch, drawn)
        worth = worth.to(found.device)
        if self.name == "minimum_risk":
            loss = minimum_risk(found, worth, self.smoothness, mask)
        else:
            baseline = self._worth(model, [[ids] for ids in best], gold)[:, 0]
            loss = self_critical(found, worth, baseline.to(found.device))
        share = self.likelihood_share
        return (1 - share) * loss + share * model.likelihood_loss(batch) if share else loss

    def _candidates(
        self, model: Translator, batch: PairBatch, right: list[list[int]]
    ) -> tuple[list[list[list[int]]], list[list[int]]]:
        """Draw translations without dropout, and find the best one for the self-critical loss.

        The right translation is one of the candidates of ``minimum_risk``, as in the paper.
        """
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                seed = int(torch.randint(2**31 - 1, ()))
                sampling = replace(
                    model.searching, method="sample", n_best=self.candidates, seed=seed
                )
                sampled = model.translate(batch, sampling, numbers=range(len(batch)))
                greedy = model.translate(batch, replace(model.searching, beam=1))
        finally:
            model.train(was_training)
        drawn = [[hypothesis.ids for hypothesis in some] for some in sampled]
        if self.name == "minimum_risk":
            drawn = [[ids, *some] for ids, some in zip(right, drawn, strict=True)]
        return drawn, [some[0].ids for some in greedy]

    def _worth(self, model: Translator, some: list[list[list[int]]], gold: list[str]) -> Tensor:
        """Score candidates against the right translation, ``(sentence, candidate)`` in 0 to 1."""
        flat = [ids for candidates in some for ids in candidates]
        references = [text for text, candidates in zip(gold, some, strict=True) for _ in candidates]
        scores = REWARDS[self.reward](model.target_vocab.decode(flat), references)
        return torch.tensor(scores, dtype=torch.float32).view(len(some), -1)

    def _log_probabilities(
        self, model: Translator, batch: PairBatch, drawn: list[list[list[int]]]
    ) -> tuple[Tensor, Tensor]:
        """Find how probable candidates are, with a gradient.

        Returns:
            ``(sentence, candidate)`` in nats, and which of them are no repetition of another.
        """
        count = len(drawn[0])
        rows = torch.arange(len(batch), device=batch.source.device).repeat_interleave(count)
        flat = [[*ids, SubwordVocabulary.END] for candidates in drawn for ids in candidates]
        lengths = torch.tensor([len(ids) for ids in flat])
        target = torch.full((len(flat), int(lengths.max())), SubwordVocabulary.PADDING)
        for row, ids in enumerate(flat):
            target[row, : len(ids)] = torch.tensor(ids)
        target = target.to(batch.source.device)
        memory, start = model.encode(batch)
        memory, start = memory.select(rows), Start(start.hidden[:, rows], start.cell[:, rows])
        x = model.embed(model.target_embedding, model.before(target))
        features, attention = model.decoder(x, start, memory, with_attention=model.copy is not None)
        found = model.log_probabilities(features, attention, batch.source[rows])
        each = found.gather(-1, target.unsqueeze(-1))[..., 0]
        inside = torch.arange(target.shape[1], device=target.device) < lengths.to(
            target.device
        ).unsqueeze(1)
        total = each.masked_fill(~inside, 0.0).sum(1).view(len(batch), count)
        return total, distinct(target.view(len(batch), count, -1))

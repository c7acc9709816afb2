"""What a translator thought at every step: how sure it was, and what it might have said instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqlab.explain.pieces import END, label_of
from seqlab.networks.translator import TranslatorNetwork
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary

ALTERNATIVES = 4


class Step(NamedTuple):
    """One piece of a translation, and the distribution that it was chosen from.

    Attributes:
        piece: as the vocabulary spells it.
        probability: given the source and all pieces before.
        entropy: of the distribution over all pieces, in bits.
        alternatives: the most probable other pieces, with their probabilities.
        copied: the share of the distribution that is copied from the source, for models that copy.
    """

    piece: str
    probability: float
    entropy: float
    alternatives: list[tuple[str, float]]
    copied: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the step as plain JSON data."""
        data = self._asdict()
        data["alternatives"] = [
            {"piece": piece, "probability": value} for piece, value in self.alternatives
        ]
        if self.copied is None:
            del data["copied"]
        return data

    @property
    def others(self) -> list[tuple[str, float]]:
        """The alternatives as they are shown."""
        return [(label_of(piece), value) for piece, value in self.alternatives]


class Retold(NamedTuple):
    """A translation read again by the model that made it.

    Attributes:
        steps: one a piece, that of the end the last.
        attention: ``(target piece, source piece)``, with the ends of both.
    """

    steps: list[Step]
    attention: Tensor


@torch.no_grad()
def retold(model: TranslatorNetwork, batch: PairBatch, ids: Sequence[int]) -> Retold:
    """Let a model make a known translation step by step, and look at each.

    Args:
        model: in evaluation mode, on the CPU.
        batch: one source sentence.
        ids: of the translation, without the end.
    """
    chosen = torch.tensor([*ids, SubwordVocabulary.END])
    memory, start = model.encode(batch)
    x = model.embed(model.target_embedding, model.before(chosen.unsqueeze(0)))
    features, attention = model.decoder(x, start, memory, with_attention=True)
    found = model.log_probabilities(features, attention, batch.source)[0].double().exp()
    copied: list[float | None] = [None] * len(chosen)
    if model.copy is not None:
        copied = torch.sigmoid(model.copy.gate(features))[0, :, 0].tolist()
    rows = zip(
        _spelt(model, chosen),
        found.gather(1, chosen.unsqueeze(1))[:, 0].tolist(),
        (torch.special.entr(found).sum(1) / math.log(2)).tolist(),
        _alternatives(model, found, chosen),
        copied,
        strict=True,
    )
    return Retold([Step(*row) for row in rows], attention[0])


def _spelt(model: TranslatorNetwork, ids: Tensor) -> list[str]:
    pieces = model.target_vocab.pieces(ids.tolist())
    ends = (ids == SubwordVocabulary.END).tolist()
    return [END if end else piece for piece, end in zip(pieces, ends, strict=True)]


def _alternatives(
    model: TranslatorNetwork, found: Tensor, chosen: Tensor
) -> list[list[tuple[str, float]]]:
    """The most probable other pieces of each step, those that can never be said apart."""
    others = found.scatter(1, chosen.unsqueeze(1), -1.0)
    others[:, model.searching.forbidden] = -1.0
    values, places = others.topk(min(ALTERNATIVES, found.shape[1]), dim=1)
    return [
        [pair for pair in zip(_spelt(model, ids), row, strict=True) if pair[1] >= 0]
        for ids, row in zip(places, values.tolist(), strict=True)
    ]

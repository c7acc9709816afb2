"""``seqlab explain MODEL --cost``: what every part of a model costs, computed and measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqlab.batch import Batch
from seqlab.explain.holding import Holding
from seqlab.explain.pace import Pace, counter_of, pace_of, sentences_of
from seqlab.explain.parts import Part, parts_of, watched
from seqlab.networks.base import kind_of
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tagger import TaggerNetwork
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn import costs
from seqlab.nn.costs import Cost
from seqlab.pipeline import Pipeline
from seqlab.report import hardware
from seqlab.sentence import Sentence

SECONDS = 2.0  # spent on each of the two speeds


@dataclass(frozen=True)
class PartCost:
    """A row of the table.

    Args:
        part: its name.
        parameters: how many numbers are learned.
        bytes: of parameters and buffers, by type of number.
        cost: multiply-adds a token; None where its equations are not known.
        inference: the most bytes of activations alive at once, a token.
        training: bytes of activations held for the backward pass, a token.
    """

    part: str
    parameters: int
    bytes: dict[str, int]
    cost: Cost | None
    inference: float
    training: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON data."""
        return {
            "part": self.part,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "multiply_adds": None if self.cost is None else self.cost._asdict(),
            "activation_bytes": {"inference": self.inference, "training": self.training},
        }


@dataclass(frozen=True)
class ModelCost:
    """What a model costs.

    Args:
        kind: its class.
        parts: a row each.
        total: all of them; its activations at inference are the most alive at once of all parts
            together, which is less than their sum.
        tokens: words in a sentence.
        letters: of a word, in the mean over the words drawn; None for a model without characters.
        paces: one sentence at a time, and a batch of the pipeline at a time if that is more.
        device: ``cpu`` or ``cuda``.
        hardware: the machine, with its threads.
        counter: what counts the energy, or why nothing does.
    """

    kind: str
    parts: list[PartCost]
    total: PartCost
    tokens: int
    letters: float | None
    paces: list[Pace]
    device: str
    hardware: str
    counter: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON data."""
        return {
            "model": self.kind,
            "parts": [part.to_dict() for part in self.parts],
            "total": self.total.to_dict(),
            "tokens": self.tokens,
            "letters": self.letters,
            "speed": [
                {
                    "sentences": pace.sentences,
                    "tokens_per_second": pace.tokens_per_second,
                    "runs": pace.runs,
                    "joules_per_1000_tokens": pace.joules,
                }
                for pace in self.paces
            ],
            "device": self.device,
            "hardware": self.hardware,
            "threads": torch.get_num_threads(),
            "energy_counter": self.counter,
        }


def cost_of(pipeline: Pipeline[Any], tokens: int = 25, seconds: float = SECONDS) -> ModelCost:
    """Find out what a model costs.

    Args:
        pipeline: a tagger or a classifier, on its device.
        tokens: words in a sentence.
        seconds: spent on each of the two speeds.
    """
    model = pipeline.model
    at_once = max(1, pipeline.tokens_per_batch // tokens)
    sentences = sentences_of(model.source_vocab, tokens, at_once)
    letters = _letters(model, sentences)
    parts = parts_of(model, tokens, letters or 0.0)
    inference = _at_inference(pipeline, sentences, parts)
    training = _in_training(pipeline, sentences, parts)
    count = tokens * at_once
    rows = [
        _row(part, inference.peak[part.name] / count, training[part.name] / count) for part in parts
    ]
    meter, counter = counter_of(pipeline)
    sizes = sorted({1, at_once})
    paces = [pace_of(pipeline, sentences, size, meter, seconds) for size in sizes]
    return ModelCost(
        kind_of(model),
        rows,
        _sum(rows, inference.total / count),
        tokens,
        letters,
        paces,
        pipeline.device.type,
        hardware(),
        counter,
    )


def _letters(model: TokenNetwork, sentences: Sequence[Sentence]) -> float | None:
    """How many characters the words have, in the mean over distinct ones."""
    if model.embedder is None or model.embedder.characters is None:
        return None
    words = {word for sentence in sentences for word in sentence.tokens}
    return sum(map(len, words)) / len(words)


def _at_inference(
    pipeline: Pipeline[Any], sentences: Sequence[Sentence], parts: Sequence[Part]
) -> Holding:
    """Watch what is alive while a batch is read as users have it read."""
    holding = Holding()
    with watched(pipeline.model, parts, holding.enter), holding:
        pipeline.tag(sentences)
    return holding


def _in_training(
    pipeline: Pipeline[Any], sentences: Sequence[Sentence], parts: Sequence[Part]
) -> Counter[str]:
    """Count what is alive, by part, when a loss is there and its gradient is not yet taken."""
    model: Any = pipeline.model  # one that can be trained
    holding = Holding()
    batch = pipeline.batch(sentences)
    batch.target = _target(model, batch)
    model.train()
    try:
        with torch.random.fork_rng(), watched(model, parts, holding.enter), holding:
            loss = model.loss(batch)
        held = Counter(holding.now)
        del loss
    finally:
        model.eval()
    return held


@torch.no_grad()
def _target(model: TokenNetwork, batch: Batch) -> Tensor:
    """What the model itself says, for want of a better answer."""
    if isinstance(model, TaggerNetwork):
        return model.crf.best(model.emissions(batch), batch.mask)[0]
    assert isinstance(model, ClassifierNetwork)
    probabilities = model.classify(batch).probabilities  # (batch, label)
    return (probabilities >= 0.5).float() if model.multi_label else probabilities.argmax(-1)


def _row(part: Part, inference: float, training: float) -> PartCost:
    sizes: Counter[str] = Counter()
    for tensor in part.tensors:
        sizes[str(tensor.dtype).removeprefix("torch.")] += tensor.nbytes
    learned = sum(t.numel() for t in part.tensors if isinstance(t, nn.Parameter))
    return PartCost(part.name, learned, dict(sizes), part.cost, inference, training)


def _sum(rows: Sequence[PartCost], inference: float) -> PartCost:
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes.update(row.bytes)
    known = [row.cost for row in rows if row.cost is not None]
    return PartCost(
        "all",
        sum(row.parameters for row in rows),
        dict(sizes),
        costs.total(*known) if len(known) == len(rows) else None,
        inference,
        sum(row.training for row in rows),
    )

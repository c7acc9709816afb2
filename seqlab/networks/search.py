"""How a translator is searched: its steps, as :mod:`seqlab.nn.search` asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from seqlab.nn.attention import Memory
from seqlab.nn.decoders import DecoderState
from seqlab.nn.products import rounds
from seqlab.nn.search import Constraints, Ensemble, Hypothesis, SearchOptions, Step, search
from seqlab.pairs import PairBatch

if TYPE_CHECKING:
    from seqlab.networks.translator import TranslatorNetwork


class _State(NamedTuple):
    """What is known of all hypotheses.

    Attributes:
        decoder: the decoder's state.
        memory: of the sentences that are left.
        source: ``(batch, source)`` their ids, where they can be copied; else None.
    """

    decoder: DecoderState
    memory: Memory
    source: Tensor | None


class TranslatorSteps:
    """One translator over one batch of source sentences.

    Args:
        model: in evaluation mode.
        batch: the sentences.
        rows: about how many hypotheses there will be at once.
    """

    def __init__(self, model: TranslatorNetwork, batch: PairBatch, rows: int) -> None:
        self.model = model
        self.batch = batch
        self.rows = rows
        self.size = len(model.target_vocab)
        self._begun: _State | None = None  # a search may begin more than once

    def begin(self) -> _State:
        """Read the source, once."""
        if self._begun is not None:
            return self._begun
        model = self.model
        memory, start = model.encode(self.batch)
        self._steps = model.steps(self.rows, rounds(memory.keys))
        memory = self._steps.memory(memory)
        source = None if model.copy is None else self.batch.source
        self._begun = _State(model.decoder.begin(start, memory), memory, source)
        return self._begun

    def step(self, tokens: Tensor, state: _State) -> Step:
        """Read one token a hypothesis; see :class:`seqlab.nn.search.Stepper`."""
        logits, features, attention, decoder = self._steps(tokens, state.decoder, state.memory)
        if self.model.copy is not None:
            assert state.source is not None
            logits = self.model.copy(logits, features, attention, state.source)
        return Step(logits, attention, _State(decoder, state.memory, state.source))

    def select(self, state: _State, sentences: Tensor, hypotheses: Tensor) -> _State:
        """Keep some sentences and hypotheses; see :class:`seqlab.nn.search.Stepper`."""
        decoder = state.decoder.select(sentences, hypotheses)
        if len(sentences) == len(state.memory.mask):
            return _State(decoder, state.memory, state.source)
        source = None if state.source is None else state.source.index_select(0, sentences)
        return _State(decoder, state.memory.select(sentences), source)


def searched(
    models: Sequence[TranslatorNetwork],
    batch: PairBatch,
    options: SearchOptions,
    constraints: Sequence[Constraints | None] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Translate a batch.

    Args:
        models: one, or several of the same vocabularies, whose probabilities are averaged.
        batch: source sentences.
        options: how to search.
        constraints: of each sentence, where it has any.
        numbers: of each sentence, what samples of it depend on besides the seed.

    Returns:
        for each sentence its hypotheses, the best first.
    """
    count = len(batch) * (options.beam if options.method == "beam" else options.n_best)
    steppers = [TranslatorSteps(model, batch, count) for model in models]
    stepper = steppers[0] if len(steppers) == 1 else Ensemble(steppers)
    lengths = batch.source_lengths - 1  # without the end
    with torch.inference_mode():
        return search(stepper, options, lengths, constraints, numbers)

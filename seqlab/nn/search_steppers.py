"""What a search asks of a model: one step for all hypotheses of all sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from seqlab.errors import UsageError

# Whatever a model keeps of its hypotheses; the search only carries it about.
State = Any


class Step(NamedTuple):
    """What a model says of the next token.

    Attributes:
        logits: ``(sentence, hypothesis, size)`` float32, not normalised; may hold ``-inf``. The
            search writes into it: a fresh tensor, or a buffer of the model's.
        attention: ``(sentence, hypothesis, source)`` weights of the step, or None.
        state: after the step.
    """

    logits: Tensor
    attention: Tensor | None
    state: State


class Stepper(Protocol):
    """A model that reads its own output token by token.

    What it says of one hypothesis must not depend on others. All calls are made in torch's
    inference mode.
    """

    @property
    def size(self) -> int:
        """Number of tokens of the vocabulary: the last axis of the logits."""
        ...

    def begin(self) -> State:
        """Return the state before the first token: one hypothesis a sentence."""
        ...

    def step(self, tokens: Tensor, state: State) -> Step:
        """Read one token a hypothesis.

        Args:
            tokens: ``(sentence, hypothesis)`` int64.
            state: before these were read.
        """
        ...

    def select(self, state: State, sentences: Tensor, hypotheses: Tensor) -> State:
        """Choose what the search goes on with.

        Args:
            state: of the last step.
            sentences: ``(kept,)`` the old places of the sentences that are left, ascending: as
                many as there were means all.
            hypotheses: ``(kept, new)`` which old hypothesis each new one goes on from.
        """
        ...


class Ensemble:
    """Several models as one: the mean of their probabilities, and of their attention.

    Args:
        steppers: models of the same vocabulary; attention is averaged over those that have any.

    Raises:
        UsageError: there is none, or their vocabularies differ in size.
    """

    def __init__(self, steppers: Sequence[Stepper]) -> None:
        sizes = [stepper.size for stepper in steppers]
        if len(set(sizes)) != 1:
            raise UsageError(
                f"An ensemble's models need one vocabulary, but theirs have {sizes} tokens: choose "
                f"models that were trained with the same one."
            )
        self.steppers = list(steppers)
        self.size = sizes[0]

    def begin(self) -> State:
        """Return the states of all models."""
        return [stepper.begin() for stepper in self.steppers]

    def step(self, tokens: Tensor, state: State) -> Step:
        """Let every model read one token a hypothesis.

        Args:
            tokens: ``(sentence, hypothesis)``.
            state: of all models.

        Returns:
            Logarithms of the mean probabilities, and the mean attention.
        """
        steps = [s.step(tokens, part) for s, part in zip(self.steppers, state, strict=True)]
        logs = torch.stack([step.logits.log_softmax(-1) for step in steps])
        weights = [step.attention for step in steps if step.attention is not None]
        return Step(
            logs.logsumexp(0).sub_(math.log(len(steps))),
            torch.stack(weights).mean(0) if weights else None,
            [step.state for step in steps],
        )

    def select(self, state: State, sentences: Tensor, hypotheses: Tensor) -> State:
        """Choose in the states of all models.

        Args:
            state: of all models.
            sentences: ``(kept,)``.
            hypotheses: ``(kept, new)``.
        """
        return [
            stepper.select(part, sentences, hypotheses)
            for stepper, part in zip(self.steppers, state, strict=True)
        ]


class Part:
    """Some sentences of a batch, as if they were all.

    Args:
        stepper: of the whole batch.
        sentences: ``(kept,)`` places of the sentences that are wanted, ascending.
    """

    def __init__(self, stepper: Stepper, sentences: Tensor) -> None:
        self.stepper = stepper
        self.sentences = sentences
        self.size = stepper.size
        self.step = stepper.step
        self.select = stepper.select

    def begin(self) -> State:
        """Return the state of these sentences before the first token."""
        first = self.sentences.new_zeros(len(self.sentences), 1)
        return self.stepper.select(self.stepper.begin(), self.sentences, first)

"""What all networks share: vocabularies, and the arguments that a bundle keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from seqlab.errors import check_range
from seqlab.nn.optimizers import OptimizerName, ScheduleName
from seqlab.nn.precision import Precision, check_precision
from seqlab.subwords import SubwordVocabulary
from seqlab.vocabulary import Vocabulary

_NO_ARGUMENTS = {"self", "source_vocab", "target_vocab", "options", "__class__"}


def own_arguments(frame: Mapping[str, Any]) -> dict[str, Any]:
    """Pick out what belongs into ``config`` of what a constructor was given.

    Args:
        frame: its ``locals()``, taken in its first line.

    Returns:
        its arguments by name but for the vocabularies and ``**options``, which are recorded by the
        base classes that take them.
    """
    return {name: value for name, value in frame.items() if name not in _NO_ARGUMENTS}


def kind_of(model: object) -> str:
    """Name a model for people: a network is called as the model that trains it is.

    Example:
        >>> class TaggerNetwork: ...
        >>> kind_of(TaggerNetwork())
        'Tagger'
    """
    return type(model).__name__.removesuffix("Network")


class Network(nn.Module):
    """Base of the networks, which know how they were trained but not how to train.

    A network predicts; the model of the same name in :mod:`seqlab.models` is a network that a
    trainer can train too, of the same arguments and weights.

    Args:
        source_vocab: what goes in.
        target_vocab: what comes out.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        learning_rate: step size after the warm-up.
        weight_decay: of the optimizer, for matrices only.
        momentum: of SGD.
        betas: decay of the two moments of the Adams.
        schedule: ``constant``; ``plateau`` (multiplied by ``plateau_factor`` when the monitored
            score has not risen for more than ``plateau_patience`` epochs); ``cosine`` or ``linear``
            down to 0.
        warmup_steps: steps over which the learning rate rises from near 0.
        plateau_factor: see ``schedule``.
        plateau_patience: see ``schedule``.
        averaging: decay of a moving average of the weights, which is what is scored and kept, such
            as 0.998; 0 scores and keeps the weights themselves.
        precision: ``exact``: float32; ``fast``: matrix products in bfloat16, in training and when
            it is scored (see :mod:`seqlab.nn.precision`).
    """

    def __init__(
        self,
        source_vocab: Vocabulary | SubwordVocabulary,
        target_vocab: Vocabulary | SubwordVocabulary,
        *,
        optimizer: OptimizerName = "adam",
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: ScheduleName = "constant",
        warmup_steps: int = 0,
        plateau_factor: float = 0.5,
        plateau_patience: int = 3,
        averaging: float = 0.0,
        precision: Precision = "exact",
    ) -> None:
        arguments = own_arguments(locals())
        super().__init__()
        for name, value in (
            ("learning_rate", learning_rate),
            ("weight_decay", weight_decay),
            ("warmup_steps", warmup_steps),
            ("plateau_patience", plateau_patience),
        ):
            check_range(f"model.{name}", value, 0)
        check_range("model.momentum", momentum, 0, 1)
        for beta in betas:
            check_range("model.betas", beta, 0, 1)
        check_range("model.plateau_factor", plateau_factor, 0, 1)
        check_range("model.averaging", averaging, 0, 1)
        check_precision(precision, "model.precision")
        self.source_vocab: Any = source_vocab
        self.target_vocab: Any = target_vocab
        self.optimizer_name: OptimizerName = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.betas = (betas[0], betas[1])
        self.schedule: ScheduleName = schedule
        self.warmup_steps = warmup_steps
        self.plateau_factor = plateau_factor
        self.plateau_patience = plateau_patience
        self.averaging = averaging
        self.precision: Precision = precision
        self._config = {**arguments, "betas": list(betas)}  # as a bundle gives them back

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments but for the vocabularies, as plain JSON data."""
        return dict(self._config)

    def beginning(self, batch: Any) -> str | None:
        """Return how the first sequence of a batch begins, for a message; None where unknown."""
        return None

    def flush(self) -> None:
        """Keep on disk what was worked out and will be needed again; here nothing is."""

    def compile_parts(self) -> None:
        """Have torch compile what the recipe says, before training; here nothing is."""

    def tuned_apart(self) -> tuple[Iterable[nn.Parameter], float | None]:
        """Give the parameters with a learning rate of their own, and that; None where none has."""
        return (), None

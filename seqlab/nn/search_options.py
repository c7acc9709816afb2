"""What a search is asked for, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from seqlab.errors import RecipeError, check_range, nearest

Method = Literal["beam", "sample"]
LengthPenalty = Literal["none", "average", "wu"]


class Hypothesis(NamedTuple):
    """One output of a sentence.

    Attributes:
        ids: its tokens, without the end token.
        score: what it is ranked by: ``log_probability`` under the penalties. NaN where
            ``SearchOptions.scores`` is off.
        log_probability: natural logarithm, the end token counted in. NaN likewise.
        attention: ``(len(ids), source)`` weights, where they were asked for.
        missing: required phrases that it lacks, as their places in ``Constraints.required``.
    """

    ids: list[int]
    score: float
    log_probability: float
    attention: Tensor | None = None
    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Constraints:
    """What one sentence's outputs must and must not contain; phrases are ids of tokens.

    Attributes:
        prefix: how every output begins. The longest output is never shorter than this.
        required: phrases that every output contains.
        banned: phrases that no output contains.
    """

    prefix: Sequence[int] = ()
    required: Sequence[Sequence[int]] = ()
    banned: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class SearchOptions:
    """How outputs are searched for.

    Attributes:
        method: ``beam``, or ``sample`` to draw from the model's distribution.
        beam: hypotheses at a time; 1 is greedy search, which ends with the first end token.
        n_best: outputs a sentence: the best that were found, best first, or as many samples, in
            the order in which they were drawn.
        length_penalty: what a log-probability is divided by, of an output of ``n`` tokens with the
            end token: ``none`` 1, ``average`` ``n ** alpha``, ``wu`` ``((5 + n) / 6) ** alpha`` (Wu
            et al., 2016).
        alpha: exponent of the length penalty, 0 or more.
        coverage: weight of the coverage penalty (Wu et al., 2016), 0 or more.
        min_length: least number of tokens, without the end token.
        max_ratio: of the greatest number of tokens: this times the source's length,
        max_extra: plus this. It goes before ``min_length``. There the end token is the only choice.
        no_repeat_ngram: forbid to repeat any sequence of so many tokens; 0 allows all.
        patience: end a sentence as soon as this times ``beam`` outputs were found (Kasai et al.,
            2022), even where better ones may come; None searches until none can.
        groups: of diverse beam search (Vijayakumar et al., 2016); 1 is plain beam search.
        diversity: what every choice of a token by earlier groups costs later ones in the same step.
        temperature: of samples: logits are divided by it.
        top_k: draw among so many most probable tokens; 0 for all.
        top_p: draw among the fewest tokens with this probability together; 1 for all.
        seed: of samples.
        unknown_allowed: whether the unknown token may be produced.
        keep_attention: whether outputs carry attention weights.
        scores: whether greedy search works out probabilities; it is faster without.
        padding: id of the padding token; it is never produced.
        unknown: id of the unknown token.
        begin: id of the token that every output begins with; it is never produced.
        end: id of the token that ends an output.
        never: further ids that are never produced.

    Raises:
        RecipeError: a value is out of range, or contradicts another.
    """

    method: Method = "beam"
    beam: int = 5
    n_best: int = 1
    length_penalty: LengthPenalty = "average"
    alpha: float = 1.0
    coverage: float = 0.0
    min_length: int = 0
    max_ratio: float = 2.0
    max_extra: int = 10
    no_repeat_ngram: int = 0
    patience: float | None = None
    groups: int = 1
    diversity: float = 0.5
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    unknown_allowed: bool = True
    keep_attention: bool = False
    scores: bool = True
    padding: int = 0
    unknown: int = 1
    begin: int = 2
    end: int = 3
    never: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_choice("method", self.method, get_args(Method))
        _check_choice("length_penalty", self.length_penalty, get_args(LengthPenalty))
        for name in ("beam", "n_best", "groups"):
            check_range(name, getattr(self, name), 1)
        for name in ("alpha", "coverage", "min_length", "max_ratio", "max_extra"):
            check_range(name, getattr(self, name), 0)
        for name in ("no_repeat_ngram", "diversity", "top_k"):
            check_range(name, getattr(self, name), 0)
        if not 0 < self.temperature < math.inf:
            raise RecipeError(f"temperature is {self.temperature}: it must be more than 0.")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"top_p is {self.top_p}: it must be more than 0 and at most 1.")
        if self.patience is not None and not self.patience > 0:
            raise RecipeError(f"patience is {self.patience}: it must be more than 0, or null.")
        self._check_beam()
        self._check_method()

    def _check_beam(self) -> None:
        if self.method == "beam" and self.n_best > self.beam:
            raise RecipeError(
                f"n_best is {self.n_best}, but beam is {self.beam}: raise beam, or ask for fewer."
            )
        if self.beam % self.groups:
            raise RecipeError(
                f"beam is {self.beam}, which groups ({self.groups}) does not divide: every group "
                f"needs as many hypotheses."
            )
        if not self.scores and (self.method == "sample" or self.beam > 1):
            raise RecipeError("scores is false, which only greedy search can do: set beam to 1.")

    def _check_method(self) -> None:
        foreign: dict[str, float | None]
        if self.method == "beam":
            foreign = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        else:
            foreign = {"groups": 1, "patience": None}
        for name, default in foreign.items():
            value = getattr(self, name)
            if value != default:
                other = "sample" if self.method == "beam" else "beam"
                raise RecipeError(
                    f"{name} is {value}, but method is {self.method!r}, which has no such thing: "
                    f"set method to {other!r}, or leave {name} out."
                )

    @property
    def forbidden(self) -> list[int]:
        """Ids that are never produced, the end token apart."""
        unknown = () if self.unknown_allowed else (self.unknown,)
        return [self.padding, self.begin, *unknown, *self.never]

    @property
    def width(self) -> int:
        """Hypotheses of one group."""
        return self.beam // self.groups

    def limit(self, length: int, prefix: int = 0) -> int:
        """Greatest number of tokens of a sentence's outputs, without the end token.

        Args:
            length: tokens of the source.
            prefix: tokens of the prefix that is asked for.
        """
        return max(int(self.max_ratio * length) + self.max_extra, prefix)


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise RecipeError(
            f"{name} is {value!r}: choose {' or '.join(known)}.{nearest(str(value), known)}"
        )

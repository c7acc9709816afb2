"""What may not come next: prefixes, banned phrases and repeated n-grams, for all sentences at once.

Everything here sets values of forbidden tokens to ``-inf`` and touches no other, so that a sentence
without constraints is searched as if there were none in its batch. Probabilities are not shared out
anew among what is left: a score stays the model's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqlab.errors import UsageError
from seqlab.nn.search_options import Constraints, SearchOptions

_ANY = -1  # matches every token
_NONE = -2  # matches no token


def contains(ids: Sequence[int], phrase: Sequence[int]) -> bool:
    """Whether a phrase stands somewhere in a sequence, its tokens next to each other."""
    size, wanted = len(phrase), list(phrase)
    return any(list(ids[at : at + size]) == wanted for at in range(len(ids) - size + 1))


def check_constraints(
    constraints: Sequence[Constraints], options: SearchOptions, size: int
) -> None:
    """Refuse constraints that no output could meet.

    Args:
        constraints: of each sentence.
        options: which tokens are never produced.
        size: of the vocabulary.

    Raises:
        UsageError: a phrase is empty or holds an id that is never produced, or what is banned is
            part of what is required or of the prefix.
    """
    never = {*options.forbidden, options.end}
    for number, wish in enumerate(constraints, start=1):
        kinds = {"required": wish.required, "banned": wish.banned}
        for kind, phrases in {**kinds, "prefix": [wish.prefix] if wish.prefix else []}.items():
            for phrase in phrases:
                _check_phrase(number, kind, list(phrase), never, size)
        for banned in wish.banned:
            for phrase in wish.required:
                if contains(phrase, banned):
                    raise UsageError(
                        f"Sentence {number}: the banned phrase {list(banned)} is part of the "
                        f"required phrase {list(phrase)}: drop one of the two."
                    )
            if contains(wish.prefix, banned):
                raise UsageError(
                    f"Sentence {number}: the banned phrase {list(banned)} is part of the prefix "
                    f"{list(wish.prefix)}: drop one of the two."
                )


def _check_phrase(number: int, kind: str, phrase: list[int], never: set[int], size: int) -> None:
    name = "prefix" if kind == "prefix" else f"{kind} phrase"
    if not phrase:
        raise UsageError(f"Sentence {number}: a {name} is empty: leave it out.")
    for token in phrase:
        if not 0 <= token < size:
            raise UsageError(
                f"Sentence {number}: the {name} {phrase} holds the id {token}, but the vocabulary "
                f"ends at {size - 1}."
            )
        if token in never:
            raise UsageError(
                f"Sentence {number}: the {name} {phrase} holds the id {token}, which is never "
                f"produced: choose other tokens."
            )


class Rules:
    """Prefixes, banned phrases and n-grams of the sentences that are left in a search.

    Args:
        options: of the search.
        constraints: of each sentence.
        device: where the search runs.
    """

    def __init__(
        self, options: SearchOptions, constraints: Sequence[Constraints], device: torch.device
    ) -> None:
        self._ngram = options.no_repeat_ngram
        self._padding = options.padding
        prefixes = [list(wish.prefix) for wish in constraints]
        self._prefixes = padded(prefixes, _NONE, device)  # (sentence, longest)
        phrases = [[list(phrase) for phrase in wish.banned] for wish in constraints]
        lasts = [[phrase[-1] for phrase in some] for some in phrases]
        self._lasts = padded(lasts, options.padding, device)  # (sentence, phrase)
        longest = max((len(phrase) for some in phrases for phrase in some), default=1) - 1
        most = self._lasts.shape[1]
        heads = [
            [[_ANY] * (longest + 1 - len(phrase)) + phrase[:-1] for phrase in some]
            + [[_NONE] * longest] * (most - len(some))
            for some in phrases
        ]
        # What stands before the last token of each phrase: (sentence, phrase, longest - 1)
        self._heads = torch.tensor(heads, dtype=torch.int64, device=device).view(
            len(constraints), most, longest
        )

    def forbid(self, logs: Tensor, history: Tensor, free: Tensor | None = None) -> None:
        """Forbid what may not come next, in place.

        Args:
            logs: ``(sentence, hypothesis, size)``.
            history: ``(sentence, hypothesis, time)`` tokens so far.
            free: ``(sentence, hypothesis, some)`` tokens that may repeat an n-gram.
        """
        time = history.shape[2]
        forcing = time < self._prefixes.shape[1]
        if forcing:
            wanted = self._prefixes[:, time].view(-1, 1, 1)  # (sentence, 1, 1)
            forced = wanted != _NONE
            place = wanted.clamp(min=0).expand(-1, logs.shape[1], -1)
            kept = logs.gather(2, place)
        if self._ngram and time >= self._ngram:
            spared = None if free is None else logs.gather(2, free)
            logs.scatter_(2, self._repeats(history), -torch.inf)
            if free is not None and spared is not None:
                logs.scatter_(2, free, spared)
        if self._lasts.numel():
            logs.scatter_(2, self._completions(history), -torch.inf)
        if forcing:
            logs.masked_fill_(forced, -torch.inf)
            logs.scatter_(2, place, torch.where(forced, kept, logs.gather(2, place)))

    def _repeats(self, history: Tensor) -> Tensor:
        """Tokens that would repeat an n-gram, and padding: (sentence, hypothesis, window)."""
        windows = history.unfold(2, self._ngram, 1)  # (sentence, hypothesis, window, n)
        tail = history[:, :, history.shape[2] - self._ngram + 1 :].unsqueeze(2)
        repeated = (windows[..., :-1] == tail).all(3)
        return torch.where(repeated, windows[..., -1], self._padding)

    def _completions(self, history: Tensor) -> Tensor:
        """Tokens that would complete a banned phrase, and padding: as :meth:`_repeats`."""
        longest = self._heads.shape[2]
        history = torch.nn.functional.pad(history, (longest, 0), value=_NONE)
        tail = history[:, :, history.shape[2] - longest :].unsqueeze(2)
        heads = self._heads.unsqueeze(1)  # (sentence, 1, phrase, longest)
        due = ((heads == tail) | (heads == _ANY)).all(3)  # (sentence, hypothesis, phrase)
        return torch.where(due, self._lasts.unsqueeze(1), self._padding)

    def select(self, rows: Tensor) -> None:
        """Go on with some sentences: ``rows (kept,)``."""
        self._prefixes, self._lasts = self._prefixes[rows], self._lasts[rows]
        self._heads = self._heads[rows]


def padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> Tensor:
    """Put lists of unequal length into one tensor: (row, longest)."""
    longest = max((len(row) for row in rows), default=0)
    filled = [[*row, *[filler] * (longest - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.int64, device=device).view(len(rows), longest)

"""Must-have phrases: how far each hypothesis is, and a share of the beam for every stage of it.

After Post and Vilar (2018), Fast Lexically Constrained Decoding with Dynamic Beam Allocation, in
tensors over (sentence, hypothesis, phrase). Three things differ from the paper. Progress in a
phrase falls back to its longest border when another token comes (Knuth, Morris and Pratt, 1977), so
a phrase counts wherever it stands, whatever stands before it. There are at most as many shares as
hypotheses, each for a range of stages, so that long wishes do not starve early ones. And no
hypothesis may waste the tokens that it still needs before it reaches the longest length; hence
every output contains every phrase, whenever they fit in one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqlab.nn.search_choices import Choices, best_choices
from seqlab.nn.search_constraints import contains, padded

_NONE = -1


def needed_phrases(phrases: Sequence[Sequence[int]]) -> list[list[int]]:
    """Drop phrases that stand twice, or within another one: who has that has them too."""
    once = [list(phrase) for phrase in dict.fromkeys(map(tuple, phrases))]
    return [p for p in once if not any(p != other and contains(other, p) for other in once)]


def missing_phrases(ids: Sequence[int], phrases: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Places of the phrases that an output lacks."""
    return tuple(place for place, phrase in enumerate(phrases) if not contains(ids, phrase))


class Required:
    """Progress of all hypotheses in the required phrases of their sentences.

    Args:
        phrases: of each sentence; none of them within another.
        limits: ``(sentence,)`` greatest number of tokens.
        prefixes: tokens of each sentence's prefix, during which nothing is enforced.
        padding: a token that is never produced.
        device: where the search runs.
    """

    def __init__(
        self,
        phrases: Sequence[Sequence[Sequence[int]]],
        limits: Tensor,
        prefixes: Sequence[int],
        padding: int,
        device: torch.device,
    ) -> None:
        most = max(len(some) for some in phrases)
        longest = max(len(phrase) for some in phrases for phrase in some)
        filled = [[*some, *[[]] * (most - len(some))] for some in phrases]
        flat = [list(phrase) for some in filled for phrase in some]
        shape = (len(phrases), most, longest)
        # The phrases, and of each which of its beginnings end others: (sentence, phrase, longest),
        # (sentence, phrase, matched, shorter)
        self._phrases = padded([*flat, [_NONE] * longest], _NONE, device)[:-1].view(shape)
        borders = [_borders(phrase, longest) for phrase in flat]
        self._borders = torch.tensor(borders, device=device).view(*shape, longest)
        sizes = [len(phrase) for phrase in flat]
        self._sizes = torch.tensor(sizes, device=device).view(shape[:2])
        self._limits, self._padding = limits, padding
        self._prefixes = torch.tensor(prefixes, device=device)
        self.progress = torch.zeros(len(phrases), 1, most, dtype=torch.int64, device=device)

    def _after(self, progress: Tensor, tokens: Tensor) -> Tensor:
        """Progress once a token was added.

        Args:
            progress: ``(sentence, some, phrase)``.
            tokens: ``(sentence, some)``.

        Returns:
            ``(sentence, some, phrase)``.
        """
        sentences, most, longest = self._phrases.shape
        rows = torch.arange(sentences, device=tokens.device).view(-1, 1, 1)
        which = torch.arange(most, device=tokens.device)
        borders = self._borders[rows, which, progress.clamp(max=longest - 1)]
        fits = self._phrases.unsqueeze(1) == tokens[:, :, None, None]
        reached = torch.arange(1, longest + 1, device=tokens.device)
        best = (reached * (borders & fits)).amax(3)  # (sentence, some, phrase)
        sizes = self._sizes.unsqueeze(1)
        return torch.where(progress == sizes, sizes, best)

    def _needed(self, progress: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens that complete everything: from here, and from scratch in each open phrase."""
        sizes = self._sizes.unsqueeze(1)
        unmet = progress < sizes
        full = (sizes * unmet).sum(2)
        return full - (progress * unmet).amax(2), full

    def met(self) -> Tensor:
        """Which hypotheses have every phrase: ``(sentence, hypothesis)``."""
        return (self.progress == self._sizes.unsqueeze(1)).all(2)

    def next_tokens(self) -> Tensor:
        """The token that continues each phrase: ``(sentence, hypothesis, phrase)``, or padding."""
        longest = self._phrases.shape[2]
        phrases = self._phrases.unsqueeze(1).expand(-1, self.progress.shape[1], -1, -1)
        place = self.progress.clamp(max=longest - 1).unsqueeze(3)
        tokens = phrases.gather(3, place).squeeze(3)
        done = self.progress == self._sizes.unsqueeze(1)
        return tokens.masked_fill(done | (tokens == _NONE), self._padding)

    def enforce(self, logs: Tensor, time: int) -> None:
        """Forbid, in place, what would leave too little room for what is still needed.

        Args:
            logs: ``(sentence, hypothesis, size)``.
            time: tokens so far.
        """
        room = (self._limits - time - 1).unsqueeze(1)  # (sentence, 1) after this token
        needed, full = self._needed(self.progress)
        free = (self._prefixes > time).unsqueeze(1)
        narrow = (full > room) & (needed > 0) & ~free  # (sentence, hypothesis)
        if not bool(narrow.any()):
            return
        sentences, hypotheses, _ = logs.shape
        tokens = self._phrases.flatten(1)  # (sentence, token)
        each = tokens.unsqueeze(1).expand(-1, hypotheses, -1)  # (sentence, hypothesis, token)
        before = self.progress.repeat_interleave(each.shape[2], 1)
        after = self._needed(self._after(before, each.flatten(1)))[0].view(each.shape)
        # Where there is not room enough anyway, as many as fit are produced.
        useful = after <= torch.maximum(room, needed - 1).unsqueeze(2)
        useful &= each != _NONE
        place = torch.where(useful, each, self._padding)
        kept = logs.gather(2, place)
        closed = logs.masked_fill(narrow.unsqueeze(2), -torch.inf)
        closed.scatter_(2, place, kept)
        logs.copy_(torch.where(narrow.unsqueeze(2), closed, logs))

    def choose(self, totals: Tensor, count: int) -> tuple[Choices, Tensor]:
        """Choose hypotheses of all stages, and advance to them.

        Args:
            totals: ``(sentence, hypothesis, size)``.
            count: hypotheses to choose.

        Returns:
            The choices, and ``(sentence, count)`` the greatest totals among those that have every
            phrase already, as a measure for outputs that end.
        """
        sentences, hypotheses, size = totals.shape
        wanted = self.next_tokens()
        free = best_choices(totals.view(-1, 1, size), None, count, self._padding)
        tokens = torch.cat([free.tokens.view(sentences, hypotheses, -1), wanted], 2)
        values = torch.cat(
            [free.totals.view(sentences, hypotheses, -1), totals.gather(2, wanted)], 2
        )
        # In the order of tokens, equals stand side by side, and all but the first are dropped.
        tokens, order = tokens.sort(dim=2, stable=True)
        values = values.gather(2, order)
        twice = torch.nn.functional.pad(tokens[..., 1:] == tokens[..., :-1], (1, 0), value=False)
        values = values.masked_fill(twice, -torch.inf)
        each = tokens.shape[2]
        tokens, values = tokens.flatten(1), values.flatten(1)  # (sentence, candidate)
        after = self._after(self.progress.repeat_interleave(each, 1), tokens)
        rivals = values.masked_fill(~self.met().repeat_interleave(each, 1), -torch.inf)
        chosen = self._allocated(values, after, count)
        self.progress = after.gather(1, chosen.unsqueeze(2).expand(-1, -1, after.shape[2]))
        choices = Choices(
            values.gather(1, chosen),
            chosen.div(each, rounding_mode="trunc"),
            tokens.gather(1, chosen),
        )
        return choices, rivals.sort(dim=1, descending=True).values[:, :count]

    def _allocated(self, values: Tensor, after: Tensor, count: int) -> Tensor:
        """Places of the chosen candidates: (sentence, count).

        Stages are put into at most ``count`` shares. The best of each share goes first, then the
        second of each, and so on: shares that have too few leave their places to the others.
        """
        whole = self._sizes.sum(1, keepdim=True)  # (sentence, 1)
        stage = whole - self._needed(after)[0]
        share = (stage * count).div(whole + 1, rounding_mode="trunc")  # (sentence, candidate)
        ranked, order = values.sort(dim=1, descending=True, stable=True)
        share = share.gather(1, order)
        rank = _ranks(share)
        key = rank * count + (count - 1 - share)  # of equal ranks the furthest first
        key = key.masked_fill(ranked == -torch.inf, torch.iinfo(torch.int64).max)
        return order.gather(1, key.argsort(dim=1, stable=True)[:, :count])

    def select(self, rows: Tensor) -> None:
        """Go on with some sentences: ``rows (kept,)``."""
        self._phrases, self._borders = self._phrases[rows], self._borders[rows]
        self._sizes, self._limits = self._sizes[rows], self._limits[rows]
        self._prefixes, self.progress = self._prefixes[rows], self.progress[rows]


def _ranks(share: Tensor) -> Tensor:
    """How many of each share stand before each member of it: (sentence, candidate)."""
    places = torch.arange(share.shape[1], device=share.device).expand_as(share)
    sorted_, order = share.sort(dim=1, stable=True)
    first = torch.ones_like(sorted_, dtype=torch.bool)
    first[:, 1:] = sorted_[:, 1:] != sorted_[:, :-1]
    starts = torch.where(first, places, 0).cummax(1).values
    return torch.empty_like(places).scatter_(1, order, places - starts)


def _borders(phrase: list[int], longest: int) -> list[list[bool]]:
    """Which beginnings of each beginning also end it: (matched, shorter)."""
    return [
        [
            shorter <= matched <= len(phrase)
            and phrase[:shorter] == phrase[matched - shorter : matched]
            for shorter in range(longest)
        ]
        for matched in range(longest)
    ]

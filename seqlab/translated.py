"""What a translation pipeline gives: a text, its translations, and which words made which."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from seqlab.subwords import SPECIAL, SubwordVocabulary

_DIGITS = 4  # of attention weights, in JSON


@dataclass(frozen=True, slots=True)
class Candidate:
    """One translation of a text; printed, its text.

    Args:
        text: the translation, one line.
        score: what it is ranked by, see :class:`seqlab.nn.search.SearchOptions`; NaN where no
            scores were asked for.
        log_probability: natural logarithm of its probability, the end counted in; NaN likewise.
        ids: of its pieces.
        pieces: as one reads them; a piece that begins a word has a blank before it.
        missing: required phrases that the text lacks.
        alignment: ``(piece, source piece)``, to how many parts each piece looked at each of the
            source, the end of the source left out; None where it was not asked for.
    """

    text: str
    score: float
    log_probability: float
    ids: list[int]
    pieces: list[str]
    missing: list[str] = field(default_factory=list)
    alignment: Tensor | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON data; weights with four decimals, NaN as null."""
        weights = None
        if self.alignment is not None:
            weights = [[round(x, _DIGITS) for x in row] for row in self.alignment.tolist()]
        return {
            "text": self.text,
            "score": _number(self.score),
            "log_probability": _number(self.log_probability),
            "ids": self.ids,
            "pieces": self.pieces,
            "missing": self.missing,
            "alignment": weights,
        }

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Translated:
    """A text and its translations; printed, the best one.

    Args:
        text: the text as given.
        hypotheses: its translations, the best first, or samples as they were drawn; at least one.
        source_pieces: the pieces of the text, as one reads them.
        offsets: ``(start, end)`` characters of each of them in ``text``, end exclusive; None where
            nothing was asked for that needs them.
        unknown: how many of them the model does not know.
    """

    text: str
    hypotheses: list[Candidate]
    source_pieces: list[str]
    offsets: list[tuple[int, int]] | None
    unknown: int = 0

    @property
    def translation(self) -> str:
        """The best translation."""
        return self.hypotheses[0].text

    @property
    def score(self) -> float:
        """What the best translation is ranked by."""
        return self.hypotheses[0].score

    @property
    def log_probability(self) -> float:
        """The log-probability of the best translation."""
        return self.hypotheses[0].log_probability

    def links(self, which: int = 0) -> list[tuple[int, int]]:
        """Pair each word of a translation with the word of the text that it looked at most.

        Words are what stands between blanks. The weights of the pieces of a word are added up.

        Args:
            which: of the hypotheses.

        Returns:
            ``(word of the text, word of the translation)``, both counted from 0, in the order of
            the translation; none where no alignments were asked for.
        """
        found = self.hypotheses[which]
        if found.alignment is None or self.offsets is None:
            return []
        source = _words_at(self.text, self.offsets)
        if not any(source):
            return []
        surfaces = [
            "" if i == SubwordVocabulary.UNKNOWN and piece == SPECIAL[i] else piece
            for i, piece in zip(found.ids, found.pieces, strict=True)
        ]
        sums: dict[int, dict[int, float]] = {}  # target word -> source word -> weight
        for words, weights in zip(_words_of(surfaces), found.alignment.tolist(), strict=True):
            for word in words:
                row = sums.setdefault(word, {})
                for places, weight in zip(source, weights, strict=True):
                    for place in places:
                        row[place] = row.get(place, 0.0) + weight
        return [(max(sorted(row), key=row.__getitem__), word) for word, row in sums.items()]

    def alignments(self, which: int = 0) -> str:
        """Return :meth:`links` in Pharaoh's format, such as ``0-0 2-1``."""
        return " ".join(f"{source}-{target}" for source, target in self.links(which))

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON data, with :meth:`alignments` of each hypothesis."""
        hypotheses = [
            {**found.to_dict(), "alignments": self.alignments(which) if self._aligned else None}
            for which, found in enumerate(self.hypotheses)
        ]
        return {
            "text": self.text,
            "translation": self.translation,
            "score": _number(self.score),
            "log_probability": _number(self.log_probability),
            "hypotheses": hypotheses,
            "source_pieces": self.source_pieces,
            "offsets": self.offsets and [list(pair) for pair in self.offsets],
            "unknown": self.unknown,
        }

    @property
    def _aligned(self) -> bool:
        return self.hypotheses[0].alignment is not None

    def __str__(self) -> str:
        return self.translation


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _words_at(text: str, offsets: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Say of each piece of a text which words it is part of."""
    words = [-1] * len(text)
    for number, found in enumerate(re.finditer(r"\S+", text)):
        words[found.start() : found.end()] = [number] * (found.end() - found.start())
    return [sorted({words[at] for at in range(*span)} - {-1}) for span in offsets]


def _words_of(pieces: Sequence[str]) -> list[list[int]]:
    """Say of each piece which words it is part of, where the pieces put together are the text."""
    word, inside = -1, False
    places = []
    for piece in pieces:
        found: list[int] = []
        for sign in piece:
            if sign.isspace():
                inside = False
                continue
            word += not inside
            inside = True
            if word not in found:
                found.append(word)
        places.append(found)
    return places


def replaced(
    ids: Sequence[int],
    pieces: Sequence[str],
    attention: Tensor,
    text: str,
    places: Sequence[tuple[int, int]],
) -> tuple[list[str], str]:
    """Put in the place of each unknown piece what it looked at most.

    Args:
        ids: of a translation.
        pieces: of it, as one reads them.
        attention: ``(piece, source piece)``.
        text: the source.
        places: ``(start, end)`` of each source piece in it.

    Returns:
        The pieces and the text of the translation; unknown pieces that looked at a blank are left
        out of the text.
    """
    found, shown = list(pieces), list(pieces)
    for row, piece in enumerate(ids):
        if piece != SubwordVocabulary.UNKNOWN:
            continue
        start, end = places[int(attention[row].argmax())]
        word = text[start:end]
        blank = " " if not start or text[start - 1].isspace() else ""
        shown[row] = blank + word
        found[row] = shown[row] if word.strip() else pieces[row]
    return found, " ".join("".join(shown).split())

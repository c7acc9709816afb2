"""A pair of sentences as a row, and what tells the two languages apart."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from seqlab.data.rows import Dirt
from seqlab.errors import RecipeError

# What the two sides are called where no language is named.
SIDE_NAMES = (("source", "target"), ("src", "tgt"), ("src", "trg"))
# ISO 639-1: the two letters by which files, headers and keys name languages.
_CODES = (
    " "
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs "
    "cu cv cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha "
    "he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn "
    "ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb "
    "nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd "
    "se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw "
    "ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu "
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Languages(NamedTuple):
    """What a recipe calls the two languages; None where it says nothing."""

    source: str | None
    target: str | None

    def check(self) -> None:
        """Refuse a translation of a language into itself."""
        if self.source is not None and self.source == self.target:
            raise RecipeError(
                f"data.source_language and data.target_language are both {self.source}: name two."
            )

    def among(self, names: Sequence[str], *, ordered: bool) -> Languages:
        """Fill in what the names of a file's columns, keys or sides tell.

        Args:
            names: some of them languages.
            ordered: whether, with nothing given, the first of two languages is the source.

        Returns:
            The languages, as far as they can be told.
        """
        found = [name for name in names if is_language(name) or name in self]
        if len(found) == 2 and found[0] != found[1]:
            for source, target in (found, found[::-1]):
                fits = (self.source or source, self.target or target) == (source, target)
                if fits and (ordered or any(self)):
                    return Languages(source, target)
        return self


@dataclass(frozen=True, slots=True)
class PairRow:
    """A sentence and its translation, as :func:`clean` leaves them.

    Args:
        source: what is translated.
        target: its translation.
        line: the 1-based line, or row, of the file that holds them.
    """

    source: str
    target: str
    line: int

    @property
    def tokens(self) -> list[str]:
        """The words of the source."""
        return self.source.split()

    @property
    def lines(self) -> list[int]:
        """The line of the pair."""
        return [self.line]

    def columns(self) -> dict[str, Any]:
        """Return what the cache keeps of the pair, by the names of its columns."""
        return {"source": [self.source], "target": [self.target], "lines": [self.line]}


def is_language(name: str) -> bool:
    """Whether a name is that of a language, such as ``de``, ``pt-BR`` or ``zh_Hans``.

    Example:
        >>> is_language("de"), is_language("pt-BR"), is_language("tsv")
        (True, True, False)
    """
    code = re.split(r"[-_]", name, maxsplit=1)[0].lower()
    return f" {code} " in _CODES


def clean(text: str) -> str:
    r"""Write a text in Unicode's form NFC and on one line.

    White space of any kind and control characters become one blank, and nothing at the borders.

    Example:
        >>> clean("\u2028Cafe\u0301\t noir\x00")
        'Café noir'
    """
    return " ".join(_CONTROL.sub(" ", unicodedata.normalize("NFC", text)).split())


def pair_row(source: str, target: str, number: int, file: str, dirt: Dirt) -> Iterator[PairRow]:
    """Give the row of a pair, unless a side is empty.

    Args:
        source: what is translated.
        target: its translation.
        number: of its line or row.
        file: its name, for the note.
        dirt: where pairs with an empty side are noted.

    Yields:
        The pair, or nothing.
    """
    row = PairRow(clean(source), clean(target), number)
    if row.source and row.target:
        yield row
    else:
        which = "on one side" if row.source or row.target else "on both sides"
        dirt.note(f"empty {which}", file, number)

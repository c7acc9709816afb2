"""What a translation must and must not say, as text, and how a vocabulary spells it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from seqlab.errors import UsageError
from seqlab.nn.search import Constraints
from seqlab.nn.search_constraints import contains
from seqlab.subwords import SubwordVocabulary

# Letters that are written without blanks between words: a phrase of them may begin anywhere.
_CLOSE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"
)
_OPENING = ("Ps", "Pi")  # brackets and quotation marks that lean on what follows


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the translations of one text must and must not say.

    Args:
        prefix: how they begin; a blank goes before what follows, unless the model continues the
            last word.
        require: phrases that they contain, each as words of their own.
        ban: phrases that they do not contain: no translation has one as words of its own, however
            the model spells it. A word that begins with the pieces of a banned one, such as
            ``cats`` where ``cat`` is banned, may be avoided too.

    Raises:
        UsageError: a phrase is blank, or what is banned is part of what is asked for.
    """

    prefix: str = ""
    require: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, phrases in (("required", self.require), ("banned", self.ban)):
            for phrase in phrases:
                if not phrase.strip():
                    raise UsageError(f"a {name} phrase is blank: leave it out.")
        for banned in self.ban:
            for name, phrase in self._asked:
                if says(phrase, banned):
                    raise contradiction(banned, name, phrase)

    @property
    def _asked(self) -> list[tuple[str, str]]:
        """What is asked for, with what it is called."""
        return [*(("required phrase", phrase) for phrase in self.require), ("prefix", self.prefix)]

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.prefix.strip() or self.require or self.ban)

    def joined(self, other: Wishes) -> Wishes:
        """Return these and those of another, whose prefix goes before.

        Raises:
            UsageError: they contradict each other.
        """
        if not (self.any and other.any):
            return other if other.any else self
        require, ban = self.require + other.require, self.ban + other.ban
        return Wishes(other.prefix or self.prefix, require, ban)

    def constraints(self, vocabulary: SubwordVocabulary) -> Constraints:
        """Spell the wishes for a search.

        Required phrases are spelt as words inside of a sentence are; marks that lean on the word
        before them, such as commas, without a blank.

        Args:
            vocabulary: of the translations.

        Raises:
            UsageError: the vocabulary cannot spell what is asked for, or only with what is banned.
        """
        prefix = self._known("prefix", self.prefix, vocabulary) if self.prefix.strip() else []
        required = [self._known("required phrase", phrase, vocabulary) for phrase in self.require]
        banned: list[list[int]] = []
        for phrase in self.ban:
            for ids in _spellings(phrase, vocabulary):
                for (name, text), asked in zip(self._asked, [*required, prefix], strict=True):
                    if contains(asked, ids):
                        raise contradiction(phrase, name, text)
                banned.append(ids)
        return Constraints(prefix, required, banned)

    def _known(self, name: str, phrase: str, vocabulary: SubwordVocabulary) -> list[int]:
        [ids] = vocabulary.encode([phrase])
        if name != "prefix" and _leans(phrase):
            ids = _attached(phrase, vocabulary) or ids
        if SubwordVocabulary.UNKNOWN in ids or not ids:
            raise UsageError(
                f"the {name} {phrase!r} cannot be written with the model's vocabulary, which has "
                "no piece for a part of it: choose other words."
            )
        return ids

    def missing(self, text: str, vocabulary: SubwordVocabulary) -> list[str]:
        """List the required phrases that a translation lacks."""
        return [phrase for phrase in self.require if written(phrase, vocabulary) not in text]


def contradiction(banned: str, name: str, phrase: str) -> UsageError:
    """Say that what is banned is part of what is asked for."""
    how = "the same as" if banned == phrase else "part of"
    return UsageError(
        f"the banned phrase {banned!r} is {how} the {name} {phrase!r}: drop one of the two."
    )


def written(phrase: str, vocabulary: SubwordVocabulary) -> str:
    """Return a phrase as translations write it, in lower case where they are."""
    ids = vocabulary.encode([phrase])
    return phrase if SubwordVocabulary.UNKNOWN in ids[0] else vocabulary.decode(ids)[0]


def says(text: str, phrase: str) -> bool:
    """Whether a text has a phrase as words of its own.

    Example:
        >>> says("the cat sat", "cat"), says("the cats sat", "cat")
        (True, False)
    """
    return place_of(text, phrase) is not None


def place_of(text: str, phrase: str) -> tuple[int, int] | None:
    """Find a phrase in a text: ``(start, end)`` of the first, or None."""
    phrase = " ".join(unicodedata.normalize("NFC", phrase).split())
    before = r"(?<!\w)" if _is_bound(phrase[:1]) else ""
    after = r"(?!\w)" if _is_bound(phrase[-1:]) else ""
    found = re.search(before + re.escape(phrase) + after, text) if phrase else None
    return None if found is None else found.span()


def _is_bound(sign: str) -> bool:
    """Whether a word ends where this does."""
    return re.match(r"\w", sign) is not None and _CLOSE.match(sign) is None


def _leans(phrase: str) -> bool:
    """Whether a phrase begins with a mark that leans on the word before it."""
    first = phrase.strip()[0]
    return not re.match(r"\w", first) and unicodedata.category(first) not in _OPENING


def _spellings(phrase: str, vocabulary: SubwordVocabulary) -> list[list[int]]:
    """Spell a phrase as it stands in a sentence; nothing where there are no pieces for it.

    After a mark without a blank a word begins with other pieces, which stand inside of longer words
    too: it would be too much to ban these, see :func:`spelling_in`.
    """
    found = vocabulary.encode([phrase])
    if not _is_bound(phrase.strip()[0]):
        found.append(_attached(phrase, vocabulary))
    return [ids for ids in found if ids and SubwordVocabulary.UNKNOWN not in ids]


def _attached(phrase: str, vocabulary: SubwordVocabulary) -> list[int]:
    """Spell a phrase without a blank before it; empty where no piece begins with it."""
    text = "a" + " ".join(phrase.split())
    [ids], [spans] = vocabulary.encode([text]), vocabulary.offsets([text])
    starts = [start for start, _ in spans]
    at = next((i for i, start in enumerate(starts) if start >= 1), len(ids))
    apart = all(end <= 1 for _, end in spans[:at])
    return ids[at:] if apart and SubwordVocabulary.UNKNOWN not in ids[at:] else []


def spelling_in(
    ids: Sequence[int], phrase: str, vocabulary: SubwordVocabulary, asked: Sequence[Sequence[int]]
) -> list[int] | None:
    """Find the pieces by which a translation says a phrase.

    A word that no blank goes before is found with the piece before it, lest that be banned inside
    of longer words; and what is part of something asked for with the pieces after it.

    Args:
        ids: of the translation.
        phrase: as text.
        vocabulary: of the translation.
        asked: ids of required phrases and of the prefix.

    Returns:
        The pieces; None where the translation does not say it.
    """
    [text] = vocabulary.decode([ids])
    place = place_of(text, written(phrase, vocabulary))
    if place is None:
        return None
    begun = vocabulary.decode([ids[:count] for count in range(len(ids) + 1)])
    first = max(i for i, part in enumerate(begun) if len(part) <= place[0])
    last = next(i for i, part in enumerate(begun) if part[: place[1]] == text[: place[1]])
    if first and place[0] and not text[place[0] - 1].isspace() and _is_bound(phrase.strip()[0]):
        first -= 1
    while any(contains(some, ids[first:last]) for some in asked) and (first or last < len(ids)):
        first, last = (first, last + 1) if last < len(ids) else (first - 1, last)
    return list(ids[first:last])

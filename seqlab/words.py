"""Raw text to words with their places: a small tokenizer made of rules, for European languages.

It follows the Penn Treebank and the English treebanks of Universal Dependencies where their habits
are plain: punctuation stands alone, clitics are split off, a hyphenated word is one word. The same
text gives the same words everywhere, in time that grows with its length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple


class Word(NamedTuple):
    """A word and its place in the text: character offsets, ``end`` exclusive."""

    text: str
    start: int
    end: int


# Accents and vowel signs belong to the letter before them, but `\w` does not know them.
_MARKS = "".join(chr(c) for c in range(0x300, 0xAC00) if unicodedata.category(chr(c))[0] == "M")
_MARKS += "\ufe00-\ufe0f"  # variation selectors
_LETTER = r"[^\W\d_]"
_LETTERS = rf"[\w{_MARKS}]*"
_CAPITAL = "[A-ZÀ-ÖØ-ÞČŁŚŠŻŽΑ-ΩА-Я]"

# What joins letters into one word: a single hyphen or apostrophe, invisible joiners, a separator
# between digits, an ampersand between capitals.
_JOINT = (
    r"(?:[-\u2010\u2011'’]|[\u00ad\u200c\u200d\u2060]+|(?<=\d)[.,:/](?=\d)|(?<=[A-Z])&(?=[A-Z]))"
)
_INVISIBLE = r"\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
_URL = rf"(?:(?:https?|ftp)://|www\.)[^{_INVISIBLE}<>\"]+"
_DOMAIN = (
    r"(?:[a-z0-9][a-z0-9-]{0,62}\.){1,5}(?:com|org|net|edu|gov|info|io|eu|uk|de|fr|es|it|nl|pl|ch)"
    rf"(?:/[^{_INVISIBLE}<>\"]+|(?![\w@]))"
)
# Every repetition that may have to be given back has an upper limit, so that no text, however odd,
# takes more than linear time.
_EMAIL = rf"\w[\w.+%-]{{0,63}}@[\w-]{{1,63}}(?:\.[\w-]{{1,63}}){{0,8}}\.{_LETTER}{{2,24}}(?!\w)"
_TITLE = r"(?:[MD]rs?|Ms|Prof|St|[JS]r|Inc|Ltd|Corp|Co|vs|etc|cf|bzw|usw|Nr)\.(?!\w)"
_INITIAL = rf"(?!I){_CAPITAL}\.(?=[ \u00a0]{_CAPITAL})"
_DOTTED = rf"{_LETTER}(?:\.{_LETTER})+(?!\w)\.?(?:-\w{_LETTERS})?"
_PICTURE = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\u3030"
    "\u303d\u3297\u3299\U0001f000-\U0001faff]"
    "\ufe0f?[\U0001f3fb-\U0001f3ff]?(?:[\U000e0020-\U000e007e]{1,8}\U000e007f)?"
)
_EMOJI = f"[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{_PICTURE}(?:\u200d{_PICTURE})*\ufe0e?"
_LONE_CLITIC = r"['’](?i:s|re|ve|ll|d|m)(?![\w'’])"
_RUN = r"\.{2,}|-{2,}|[!?]+|=+|\*+|~+|''|``"

# Most words, found before anything else is tried: ASCII letters and digits before white space,
# letters before a mark that joins nothing, and such marks before white space. None of the patterns
# below reads these in another way.
_SIMPLE = (
    r"[A-Za-z0-9]+(?!\S)|[A-Za-z]+(?=[,;!?)\"])|[.,;:!?()\"](?!\S)"
    rf"|(?!{_TITLE})[A-Za-z]{{2,}}(?=\.(?!\S))"
)

_WORD = re.compile(
    rf"(?P<simple>{_SIMPLE})|(?P<url>{_URL}|{_DOMAIN})|{_EMAIL}|[@#]\w{_LETTERS}|{_EMOJI}|{_TITLE}"
    rf"|{_INITIAL}|{_DOTTED}"
    rf"|(?P<plain>\w{_LETTERS}(?:{_JOINT}\w{_LETTERS})*)"
    rf"|{_LONE_CLITIC}|{_RUN}|(?P<symbol>\S[{_MARKS}]*)"
)

# Controls, formats, halves of characters and marks without a letter (no white space matches `\S`).
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Mc", "Me", "Mn"})
_CLITICS = ("'s", "'d", "'m", "'re", "'ve", "'ll", "n't")
_ELISIONS = frozenset(
    ["c", "d", "j", "l", "m", "n", "s", "t", "qu", "jusqu", "lorsqu", "puisqu"]  # French
    + ["un", "dell", "all", "nell", "sull", "dall", "quest", "quell"]  # Italian
)
_CLOSERS = {")": "(", "]": "[", "}": "{"}


def words_of(text: str) -> list[Word]:
    """Split raw text into words.

    One word each: a URL, an e-mail address, an @mention, a #hashtag, an emoji with all that joins
    it, a number with its separators, an abbreviation with inner dots, a hyphenated word, an
    ellipsis, any other punctuation mark. English clitics are split off (``do|n't``, ``John|'s``),
    and so are French and Italian elisions (``l'|homme``). White space of every kind separates;
    control characters and invisible ones are never words of their own.

    Args:
        text: any string.

    Returns:
        The words from left to right. ``text[word.start:word.end] == word.text`` for each.

    Example:
        >>> [word.text for word in words_of("Don't pay $3.14 at U.S. cafés!")]
        ['Do', "n't", 'pay', '$', '3.14', 'at', 'U.S.', 'cafés', '!']
        >>> words_of("John's")
        [Word(text='John', start=0, end=4), Word(text="'s", start=4, end=6)]
    """
    return [Word(text[start:end], start, end) for start, end in places_of(text)]


def places_of(text: str) -> list[tuple[int, int]]:
    """Say where the words of a text are, which takes less time than :func:`words_of`.

    Args:
        text: any string.

    Returns:
        ``(start, end)`` characters of every word, ``end`` exclusive.

    Example:
        >>> places_of("John's")
        [(0, 4), (4, 6)]
    """
    places: list[tuple[int, int]] = []
    position = 0
    while position < len(text):
        position = _read(text, position, places)
    return places


def _read(text: str, position: int, places: list[tuple[int, int]]) -> int:
    """Note the words from a position on, and return how far that went."""
    for match in _WORD.finditer(text, position):
        kind = match.lastgroup
        if kind == "simple":
            places.append(match.span())
            continue
        start, end = match.span()
        if kind == "plain":
            places.extend(_split_plain(text, start, end))
        elif kind == "url":
            shorter = _url_end(text, start, end)
            places.append((start, shorter))
            if shorter < end:
                return shorter
        elif kind != "symbol" or unicodedata.category(text[start]) not in _UNSEEN:
            places.append((start, end))
    return len(text)


def _split_plain(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Split underscores, elisions and clitics off a run of letters."""
    left, right = start, end
    while left < right and text[left] == "_":
        left += 1
    while left < right and text[right - 1] == "_":
        right -= 1
    if left > start:
        yield start, left
    cuts = [right]
    while cut := _clitic_start(text, left, cuts[-1]):
        cuts.append(cut)
    if elided := _elision_end(text, left, cuts[-1]):
        yield left, elided
        left = elided
    for cut in reversed(cuts):
        if left < cut:
            yield left, cut
        left = cut
    if right < end and right > start:
        yield right, end


def _clitic_start(text: str, start: int, end: int) -> int:
    """Where the English clitic at the end of a word begins, or 0 if it has none or is one."""
    tail = text[max(start, end - 3) : end].lower().replace("’", "'")
    for clitic in _CLITICS:
        cut = end - len(clitic)
        if cut > start and tail.endswith(clitic):
            return cut
    return 0


def _elision_end(text: str, start: int, end: int) -> int:
    """Where the French or Italian elision at the start of a word ends, or 0 if it has none."""
    if text[start:end].lower() in ("n't", "n’t"):  # an English clitic that stood alone
        return 0
    for position in range(start + 1, min(start + 8, end - 1)):
        if text[position] in "'’":
            # Two capitals make a name: D'Amato.
            name = text[start].isupper() and text[position + 1].isupper()
            known = text[start:position].lower() in _ELISIONS
            return position + 1 if known and not name else 0
    return 0


def _url_end(text: str, start: int, end: int) -> int:
    """Where a URL ends without the punctuation of the sentence around it."""
    unopened = {
        closer: text.count(closer, start, end) - text.count(opener, start, end)
        for closer, opener in _CLOSERS.items()
    }
    while end - start > 1:
        last = text[end - 1]
        if unopened.get(last, 0) > 0:
            unopened[last] -= 1
        elif last not in ".,;:!?'’”»*…":
            break
        end -= 1
    return end

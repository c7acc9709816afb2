"""Words as they can be shown: what is invisible escaped, and measured in columns of a terminal."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # they shape the letters and emoji around them
_TAGS = range(0xE0020, 0xE0080)  # spell the region of a flag
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def shown(text: str, keep: str = "") -> str:
    r"""Escape what cannot be seen, or would command the terminal, or turn the text around.

    Args:
        text: any string.
        keep: characters that are left as they are.

    Returns:
        The text with control and format characters, line separators and halves of characters as
        ``\x1b`` or ``\u202e``; what joins letters and emoji stays.

    Example:
        >>> print(shown("a\x1b[31mb\u202ec"))
        a\x1b[31mb\u202ec
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or _is_seen(c) else _escape(c) for c in text)


def _is_seen(character: str) -> bool:
    if character in _JOINERS or ord(character) in _TAGS:
        return True
    return unicodedata.category(character) not in _ESCAPED


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def width(text: str) -> int:
    """Count the columns that a shown text takes: two for wide characters, none for marks.

    Example:
        >>> width("naïve"), width("日本"), width("e\u0301")
        (5, 4, 1)
    """
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fitted(text: str, columns: int, right: bool = False) -> str:
    """Bring a text to a number of columns, cut with an ellipsis or filled with blanks.

    Args:
        text: what is shown, already escaped.
        columns: at least 1.
        right: put it to the right.

    Example:
        >>> fitted("Lovelace", 5), fitted("in", 4), fitted("日本語", 4)
        ('Love…', 'in  ', '日… ')
    """
    if width(text) > columns:
        kept, room = "", columns - 1
        for character in text:
            room -= _columns(character)
            if room < 0:
                break
            kept += character
        text = kept + "…"
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks

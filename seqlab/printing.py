"""Results as bytes: lines for people, columns, JSON; and words shaded by their weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from seqlab.errors import DataError
from seqlab.explain.colours import Paint
from seqlab.explain.glyphs import shown, width

if TYPE_CHECKING:
    from seqlab.labelled import Labelled
    from seqlab.tagged import Tagged
    from seqlab.translated import Translated

_GAP = "  "  # before each word
_PART = "|"  # between several labels
_BREAK = re.compile(r"[\t\n\r]")


def as_text(result: Tagged | Labelled, number: int) -> bytes:
    """Write a result for people: a text with its spans marked, or one line of labels.

    Args:
        result: what a pipeline gave.
        number: which input it belongs to, for the error.

    Raises:
        DataError: it holds half of a character, as every format but JSON cannot.
    """
    return _encoded(f"{result}\n", result, number)


def as_conll(tagged: Tagged, number: int) -> bytes:
    """Write a token, a tab and its tag a line, and a blank line at the end.

    Args:
        tagged: what a tagger's pipeline gave.
        number: which input it belongs to, for the error.

    Returns:
        the lines; nothing for a sentence without a word.

    Raises:
        DataError: a token holds a tab or a line break.
    """
    if _BREAK.search(" ".join(tagged.tokens)):
        token = next(token for token in tagged.tokens if _BREAK.search(token))
        raise DataError(
            f"sentence {number}: the token {token!r} holds a tab or a line break, which columns "
            "cannot hold; use --format jsonl."
        )
    lines = map("\t".join, zip(tagged.tokens, tagged.tags, strict=True))
    return _encoded("\n".join([*lines, "", ""]) if tagged.tokens else "", tagged, number)


def as_tsv(labelled: Labelled, number: int, confidence: bool = True) -> bytes:
    """Write label, probability and text as a line of a table, the first with the header above.

    Several labels are parted by ``|``, and so are their probabilities.

    Args:
        labelled: what a classifier's pipeline gave.
        number: which input it belongs to, from 1.
        confidence: whether there is a column of probabilities.

    Returns:
        the line; label and probability are empty where there is no label.

    Raises:
        DataError: the text holds a tab or a line break, or a label does or the sign between labels.
    """
    _check_cell("text", labelled.text, number)
    for label in labelled.labels:
        _check_cell("label", label, number, also=_PART if labelled.multi_label else "")
    chances = labelled.probabilities or {}
    cells = {
        "label": _PART.join(labelled.labels),
        "probability": _PART.join(f"{chances[label]:.4f}" for label in labelled.labels if chances),
        "text": labelled.text,
    }
    if not confidence:
        del cells["probability"]
    header = "\t".join(cells) + "\n" if number == 1 else ""
    return _encoded(header + "\t".join(cells.values()) + "\n", labelled, number)


def _check_cell(what: str, value: str, number: int, also: str = "") -> None:
    if found := re.search(rf"[\t\n\r{also}]", value):
        sign = f"a {also!r}" if found[0] == also else "a tab or a line break"
        raise DataError(
            f"text {number}: the {what} holds {sign}, which columns cannot hold; use --format "
            "jsonl."
        )


def as_jsonl(result: Tagged | Labelled | Translated, number: int) -> bytes:
    """Write all that a result holds as one line of JSON."""
    data = result.to_dict()
    try:
        return (json.dumps(data, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a character: JSON can hold it, UTF-8 cannot
        return (json.dumps(data) + "\n").encode()


def _encoded(text: str, result: Tagged | Labelled, number: int) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        unit = "sentence" if hasattr(result, "tags") else "text"
        raise DataError(
            f"{unit} {number} holds {text[error.start]!r}, half of a character, which UTF-8 "
            "cannot hold; use --format jsonl."
        ) from error


def weighed_words(
    words: Sequence[str], weights: Sequence[float], columns: int = 100, paint: Paint | None = None
) -> str:
    """Write words in lines, each word above its weight.

    Args:
        words: in the order of the text.
        weights: one a word, none negative.
        columns: how long a line may be, unless one word is longer.
        paint: colours a word by its weight as a share of the largest.

    Returns:
        the lines, each with its end; nothing without words. Weights have two decimals, or as many
        as show two digits of the largest.

    Example:
        >>> print(weighed_words(["I", "loved", "it"], [0.02, 0.9, 0.08]), end="")
          I     loved  it
          0.02  0.90   0.08
    """
    largest = max(weights, default=0.0) or 1.0
    decimals = max(2, 1 - math.floor(math.log10(largest)))
    cells = [
        _Cell(shown(word), f"{weight:.{decimals}f}", weight / largest)
        for word, weight in zip(words, weights, strict=True)
    ]
    lines: list[str] = []
    for row in _rows(cells, columns):
        above = below = ""
        for cell in row:
            word = paint(cell.share, cell.word) if paint else cell.word
            above += _GAP + word + " " * (cell.columns - width(cell.word))
            below += _GAP + cell.weight.ljust(cell.columns)
        lines += [above.rstrip() + "\n", below.rstrip() + "\n"]
    return "".join(lines)


class _Cell(NamedTuple):
    """A word, its weight as it is shown, and as a share of the largest."""

    word: str
    weight: str
    share: float

    @property
    def columns(self) -> int:
        return max(width(self.word), len(self.weight))


def _rows(cells: Sequence[_Cell], columns: int) -> Iterator[list[_Cell]]:
    row: list[_Cell] = []
    left = columns
    for cell in cells:
        size = len(_GAP) + cell.columns
        if row and size > left:
            yield row
            row, left = [], columns
        row.append(cell)
        left -= size
    if row:
        yield row

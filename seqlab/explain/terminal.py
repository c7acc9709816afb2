"""The picture of an explanation for a terminal: heat maps of words, and a table of decisions."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from seqlab.explain.colours import Paint, in_24_bits, in_256_colours, plain
from seqlab.explain.decisions import Decision
from seqlab.explain.explanation import Explanation
from seqlab.explain.glyphs import fitted, shown, width
from seqlab.explain.summary import Row, figure, rows_of, title_of

_NARROWEST, _WIDEST = 5, 14  # columns of the terminal that a word may take
_GAP = 1
_MARGIN = (
    "margin: how much the score of the path falls when the rival takes the place of the tag at\n"
    "this word alone: what the emissions make of it, and what the transitions make of it.\n"
    "none: no other tag is legal between its neighbours. else: the most probable other tag.\n"
)


@dataclass(frozen=True)
class Look:
    """How a picture is drawn.

    Args:
        columns: the width of the terminal.
        paint: colours a cell by its value, or puts a shade before it.
    """

    columns: int = 100
    paint: Paint = plain


class Column(NamedTuple):
    """A column of a table: its cells, the heading among them, take as many columns each."""

    cells: list[str]
    width: int


def look() -> Look:
    """Fit the picture to where it goes: in colour on a terminal, unless NO_COLOR is set."""
    columns = max(40, shutil.get_terminal_size((100, 24)).columns)
    dull = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if dull or not sys.stdout.isatty():
        return Look(columns, plain)
    true = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    return Look(columns, in_24_bits if true else in_256_colours)


def picture_of(found: Explanation, look: Look) -> str:
    """Draw an explanation.

    Args:
        found: what is to be shown.
        look: how.

    Returns:
        lines, the last one ended as well.
    """
    lines = [shown(str(found.excerpt), keep="\n\t"), ""]
    view = found.view
    lines += [f"words {view.shown.start + 1:,} to {view.shown.stop:,} of {view.total:,}", ""]
    words = [shown(word) for word in found.words]
    if found.attention is not None:
        heads = zip(_names("attention", len(found.attention)), found.attention, strict=True)
        rows = [Row(name, weights, max(weights) or 1.0) for name, weights in heads]
        lines += heat_map("attention: what share each word has", words, rows, look)
    for trace in found.layers:
        lines += heat_map(title_of(trace, view.unit), words, rows_of(trace, view.unit), look)
    lines += [legend(view.unit), ""]
    if found.decisions is not None:
        table = laid_out(["", *words], _columns(found.decisions), look.columns)
        lines += ["why these tags", *table, _MARGIN]
    return "\n".join(lines).rstrip("\n") + "\n"


def _names(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name} {number}" for number in range(1, count + 1)]


def legend(unit: int | None) -> str:
    """Say what the values of gates and states are."""
    if unit is not None:
        return "gates lie between 0 and 1; candidate, cell and hidden have a sign."
    return "gates lie between 0 and 1; |candidate|, |cell| and |hidden| are means without signs."


def heat_map(title: str, words: Sequence[str], rows: Sequence[Row], look: Look) -> list[str]:
    """Draw the lines of a table with a column a word, its cells shaded by their values."""
    columns = []
    for position, word in enumerate(words):
        size = min(_WIDEST, max(_NARROWEST, width(word)))
        cells = [fitted(word, size, right=True)]
        for row in rows:
            value = row.values[position]
            cells.append(look.paint(value / row.scale, fitted(figure(value), size, right=True)))
        columns.append(Column(cells, size))
    return [title, *laid_out(["", *(row.label for row in rows)], columns, look.columns)]


def _columns(decisions: Sequence[Decision]) -> list[Column]:
    """The columns of the table of decisions, a heading and a cell a word in each."""

    def numbers(heading: str, name: str) -> Column:
        values = [getattr(decision, name) for decision in decisions]
        return column(heading, ["" if value is None else f"{value:.2f}" for value in values])

    return [
        column("tag", [d.tag for d in decisions], right=False),
        numbers("prob", "probability"),
        numbers("emission", "emission"),
        numbers("in", "transition_in"),
        numbers("out", "transition_out"),
        column("rival", [d.rival or "none" for d in decisions], right=False),
        numbers("margin", "margin"),
        numbers("= emission", "margin_emission"),
        numbers("+ transition", "margin_transition"),
        column("else", [d.alternative or "none" for d in decisions], right=False),
        numbers("prob", "alternative_probability"),
    ]


def column(heading: str, cells: Sequence[str], right: bool = True) -> Column:
    """Make a column of any texts, as wide as the widest."""
    cells = [shown(cell) for cell in (heading, *cells)]
    size = max(map(width, cells))
    return Column([fitted(cell, size, right) for cell in cells], size)


def laid_out(labels: Sequence[str], columns: Sequence[Column], room: int) -> Iterator[str]:
    """Draw the lines of a table; what is too wide goes on below, beside the same labels."""
    size = min(_WIDEST, max(map(width, labels)))
    labels = [fitted(label, size) for label in labels]
    for some in _fitting(columns, room - size):
        for label, *cells in zip(labels, *(column.cells for column in some), strict=True):
            yield (" " * _GAP).join([label, *cells]).rstrip(" ")
        yield ""


def _fitting(columns: Sequence[Column], room: int) -> Iterator[list[Column]]:
    """Cut columns into runs that fit; at least one in each."""
    some: list[Column] = []
    left = room
    for column in columns:
        left -= _GAP + column.width
        if some and left < 0:
            yield some
            some, left = [], room - _GAP - column.width
        some.append(column)
    if some:
        yield some

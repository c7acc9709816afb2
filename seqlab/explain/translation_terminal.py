"""The picture of a translation for a terminal: where it looked, how sure it was, the encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seqlab.explain.glyphs import fitted, shown, width
from seqlab.explain.steps import Step
from seqlab.explain.summary import figure, rows_of, title_of
from seqlab.explain.terminal import Column, Look, column, heat_map, laid_out, legend
from seqlab.explain.translation import TranslationExplanation

_CELL = 5  # columns of the terminal that a weight takes, with its shade
_WIDEST = (14, 10, 7)  # how wide words may be; the first that lets all stand side by side
_LABEL = 14
COVERAGE = "= coverage"
_DOT = "A dot before a piece: it goes on with the word before.\n"
_STEPS = (
    "prob: of the piece, given the text and what was said before. entropy: how open the choice\n"
    "was, in bits; 1 is a coin toss. else: the most probable other pieces."
)
_COPY = "\ncopy: the share of the choice that is copied from the text."


def translation_picture_of(found: TranslationExplanation, look: Look) -> str:
    """Draw an explanation.

    Args:
        found: what is to be shown.
        look: how.

    Returns:
        lines, the last one ended as well.
    """
    lines = [
        shown(found.prediction.text.strip(), keep="\n\t"),
        shown(found.prediction.translation),
        "",
    ]
    unit = "piece" if found.by_pieces else "word"
    lines += [f"attention ({found.kind}): what each {unit} said looks at, in shares of 1"]
    lines += [*_alignment(found, look)]
    lines += ["how sure each piece is", *_table(found.steps, found.target.labels, look)]
    copies = _COPY if found.steps[0].copied is not None else ""
    lines += [_STEPS + copies, _DOT]
    for trace in found.layers:
        title = f"encoder, {title_of(trace, found.view.unit)}"
        words = [shown(word) for word in found.words]
        lines += heat_map(title, words, rows_of(trace, found.view.unit), look)
    if found.layers:
        lines += [legend(found.view.unit)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _alignment(found: TranslationExplanation, look: Look) -> Iterator[str]:
    """A row for each word said, a column for each word read."""
    rows, labels = found.weights, [shown(label) for label in found.rows]
    if (coverage := found.coverage) is not None:
        labels.append(COVERAGE)
    most = max(map(max, rows)) or 1.0
    heads = [shown(word) for word in found.columns]
    label_size = min(_LABEL, max(map(width, labels)))
    columns = []
    for place, size in enumerate(_sizes(heads, look.columns - label_size)):
        cells = [fitted(heads[place], size, right=True)]
        for row in rows:
            cells.append(look.paint(row[place] / most, _cell(row[place], size)))
        if coverage is not None:
            cells.append(_cell(coverage[place], size))
        columns.append(Column(cells, size))
    return laid_out(["", *labels], columns, look.columns)


def _sizes(words: Sequence[str], room: int) -> list[int]:
    """How wide the columns are: short enough to stand side by side, if that can be."""
    for widest in _WIDEST:
        sizes = [min(widest, max(_CELL, width(word))) for word in words]
        if sum(sizes) + len(sizes) <= room:
            return sizes
    return [min(_WIDEST[0], max(_CELL, width(word))) for word in words]


def _cell(value: float, size: int) -> str:
    """A weight; one that is nearly zero is left out, as most of them are."""
    text = figure(value)
    return fitted("" if text == ".00" else text, size, right=True)


def _table(steps: Sequence[Step], labels: Sequence[str], look: Look) -> Iterator[str]:
    """A row for each piece said."""
    columns = [
        column("prob", [f"{step.probability:.2f}" for step in steps]),
        column("entropy", [f"{step.entropy:.1f}" for step in steps]),
    ]
    if steps[0].copied is not None:
        columns.append(column("copy", [f"{step.copied:.2f}" for step in steps]))
    for place in range(max(len(step.others) for step in steps)):
        others = [step.others[place] if place < len(step.others) else None for step in steps]
        names = column(
            "else", ["" if other is None else _short(other[0]) for other in others], False
        )
        values = column("prob", ["" if other is None else f"{other[1]:.2f}" for other in others])
        cells = [" ".join(pair) for pair in zip(names.cells, values.cells, strict=True)]
        columns.append(Column(cells, names.width + 1 + values.width))
    return laid_out(["", *(shown(label) for label in labels)], columns, look.columns)


def _short(name: str) -> str:
    """Cut a long piece, so that one does not widen a whole column."""
    name = shown(name)
    return fitted(name, _LABEL) if width(name) > _LABEL else name

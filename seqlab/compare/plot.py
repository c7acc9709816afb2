"""A drawing of scores over costs, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from seqlab.compare.comparison import Row

_WIDTH, _HEIGHT, _LEFT, _BELOW = 640, 320, 60, 40
_LINE = 14  # of a name
_COLOURS = ("#3b6ea5", "#c8553d", "#588157", "#8e6c8a", "#b08900", "#4a4e69")


def colour_of(number: int) -> str:
    """Return the colour of a system by its rank from 0; with many systems they come again."""
    return _COLOURS[number % len(_COLOURS)]


def plot_of(rows: Sequence[Row]) -> Iterator[str]:
    """Draw scores over costs: the time of an answer, or parameters where no speed is known.

    Args:
        rows: the systems, the best first; their seeds are the small dots.
    """
    timed = all(row.price.speed for row in rows)
    written = any(row.price.sentences_per_second for row in rows)
    count, unit = (1, "a sentence") if written else (1000, "for 1,000 tokens")

    def cost(row: Row) -> float:
        return 1000 * count / (row.price.speed or 1) if timed else float(row.price.parameters)

    what = f"milliseconds {unit}" if timed else "parameters"
    low, across = _range([math.log10(cost(row)) for row in rows])
    bottom, up = _range([score for row in rows for score in row.scores])

    def x(value: float) -> float:
        share = (math.log10(value) - low + 0.1 * across) / (1.2 * across)
        return _LEFT + share * (_WIDTH - _LEFT)

    def y(score: float) -> float:
        share = (score - bottom + 0.1 * up) / (1.2 * up)
        return (1 - share) * (_HEIGHT - _BELOW)

    yield f"<div class='wide'><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img'>"
    yield f"<title>score over {what}</title>"
    base = _HEIGHT - _BELOW
    yield f"<path d='M{_LEFT} 0V{base}H{_WIDTH}' fill='none' stroke='#999'/>"
    for share in (0.0, 0.5, 1.0):
        score, value = bottom + share * up, 10 ** (low + share * across)
        yield f"<text x='{_LEFT - 6}' y='{y(score) + 4:.1f}' text-anchor='end'>{score:.1f}</text>"
        said = f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
        yield f"<text x='{x(value):.1f}' y='{base + 16}' text-anchor='middle'>{said}</text>"
    yield f"<text x='{_WIDTH}' y='{_HEIGHT - 6}' text-anchor='end'>{what}, logarithmic</text>"
    front = sorted((row for row in rows if row.best_for_its_price), key=cost)
    line = " ".join(f"{x(cost(row)):.1f},{y(row.mean):.1f}" for row in front)
    yield f"<polyline points='{line}' fill='none' stroke='#bbb' stroke-dasharray='4'/>"
    free = 0.0  # below the names that stand already
    for number, row in sorted(enumerate(rows), key=lambda ranked: y(ranked[1].mean)):
        colour, at = colour_of(number), x(cost(row))
        for score in row.scores:
            yield f"<circle cx='{at:.1f}' cy='{y(score):.1f}' r='2' fill='{colour}'/>"
        yield f"<circle cx='{at:.1f}' cy='{y(row.mean):.1f}' r='5' fill='{colour}'/>"
        side, shift = ("end", -9) if at > _WIDTH / 2 else ("start", 9)
        line_at = max(y(row.mean) + 4, free)
        free = line_at + _LINE
        yield (
            f"<text x='{at + shift:.1f}' y='{line_at:.1f}' text-anchor='{side}' fill='{colour}'>"
            f"{escape(row.name)}</text>"
        )
    yield "</svg></div>"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Where an axis begins and how long it is: as the values need, but not too short."""
    low, high = min(values), max(values)
    length = max(high - low, 0.1)
    return (low + high - length) / 2, length

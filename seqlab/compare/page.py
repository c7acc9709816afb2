"""A comparison as one HTML page: the table, the plot of score and cost, labels, differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from seqlab.compare.comparison import Comparison, Row

_WIDTH, _HEIGHT, _LEFT, _BELOW = 640, 320, 60, 40
_SHOWN = 200  # sentences that differ
_COLOURS = ("#3b6ea5", "#c8553d", "#588157", "#8e6c8a", "#b08900", "#4a4e69")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, td.text { text-align: left; }
.front { font-weight: 600; } .sure { background: #eaf3ea; }
svg text { font: 12px system-ui, sans-serif; } .quiet { color: #666; }
.bar { display: inline-block; height: .8em; }
"""


def page_of(comparison: Comparison) -> str:
    """Make the page.

    Args:
        comparison: what it shows.

    Returns:
        HTML that stands alone: it loads nothing.
    """
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>seqlab compare</title><style>{_STYLE}</style></head><body>",
        "<h1>Which model, at what price?</h1>",
        f"<p>{escape(comparison.scorer)}; {comparison.sentences:,} test sentences.</p>",
        *_systems(comparison),
        *_plot(comparison.rows),
        *_pairs(comparison),
        *(f"<p class='quiet'>Note: {escape(note)}</p>" for note in comparison.notes),
        *_types(comparison),
        *_differences(comparison),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _systems(comparison: Comparison) -> Iterator[str]:
    speeds = sorted({n for row in comparison.rows for n in row.price.tokens_per_second})
    head = ["system", "score", "sd", "seeds", "parameters", "MB", "training", "peak MB"]
    head += [f"tokens/s, {n} at a time" for n in speeds]
    yield "<table><tr>" + "".join(f"<th>{x}</th>" for x in head) + "</tr>"
    for row in comparison.rows:
        price = row.price
        peak = price.peak_memory_mb
        cells = [
            escape(row.name),
            f"{row.mean:.2f}",
            "" if row.sd is None else f"{row.sd:.2f}",
            ", ".join(map(str, row.seeds)),
            f"{price.parameters:,}",
            f"{price.bundle_mb:,.1f}",
            f"{price.training_seconds:,.0f} s",
            "" if peak is None else f"{peak:,.0f}",
            *(f"{price.tokens_per_second.get(n, 0):,.0f}" for n in speeds),
        ]
        kind = " class='front'" if row.best_for_its_price else ""
        yield f"<tr{kind}>" + "".join(f"<td>{x}</td>" for x in cells) + "</tr>"
    yield "</table><p class='quiet'>Bold: nothing else scores as much for its price.</p>"


def _plot(rows: Sequence[Row]) -> Iterator[str]:
    """Score over cost: milliseconds for 1,000 tokens, or parameters where no speed is known."""
    timed = all(row.price.tokens_per_second for row in rows)

    def cost(row: Row) -> float:
        speeds = row.price.tokens_per_second
        return 1e6 / speeds[max(speeds)] if timed else float(row.price.parameters)

    what = "milliseconds for 1,000 tokens" if timed else "parameters"
    low, high = (f(math.log10(cost(row)) for row in rows) for f in (min, max))
    bottom, top = (f(x for row in rows for x in row.scores) for f in (min, max))
    across, up = max(high - low, 0.1), max(top - bottom, 0.1)

    def x(value: float) -> float:
        share = (math.log10(value) - low + 0.1 * across) / (1.2 * across)
        return _LEFT + share * (_WIDTH - _LEFT)

    def y(score: float) -> float:
        share = (score - bottom + 0.1 * up) / (1.2 * up)
        return (1 - share) * (_HEIGHT - _BELOW)

    yield f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' role='img'>"
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
    for number, row in enumerate(rows):
        colour, at = _COLOURS[number % len(_COLOURS)], x(cost(row))
        for score in row.scores:
            yield f"<circle cx='{at:.1f}' cy='{y(score):.1f}' r='2' fill='{colour}'/>"
        yield f"<circle cx='{at:.1f}' cy='{y(row.mean):.1f}' r='5' fill='{colour}'/>"
        side, shift = ("end", -9) if at > 0.7 * _WIDTH else ("start", 9)
        yield (
            f"<text x='{at + shift:.1f}' y='{y(row.mean) + 4:.1f}' text-anchor='{side}'>"
            f"{escape(row.name)}</text>"
        )
    yield "</svg>"


def _pairs(comparison: Comparison) -> Iterator[str]:
    yield "<h2>How sure is it?</h2><table><tr>"
    head = ["", "difference", "95 %", "p", "p over seeds", "order"]
    yield "".join(f"<th>{x}</th>" for x in head) + "</tr>"
    for pair in comparison.pairs:
        cells = [
            f"{escape(pair.first)} against {escape(pair.second)}",
            f"{pair.difference:+.2f}",
            f"{pair.low:+.2f} to {pair.high:+.2f}",
            f"{pair.p:.4f}",
            "" if pair.p_seeds is None else f"{pair.p_seeds:.4f}",
            "" if pair.order is None else f"{pair.order:.2f}",
        ]
        kind = " class='sure'" if pair.p < 0.05 else ""
        yield f"<tr{kind}>" + "".join(f"<td>{x}</td>" for x in cells) + "</tr>"
    yield (
        "</table><p class='quiet'>p: over test sentences, approximate randomisation, corrected for "
        "all pairs (Holm). 95 %: paired bootstrap. p over seeds: Mann-Whitney, corrected. Order: "
        "almost stochastic order; below 0.5 the first is better.</p>"
    )


def _types(comparison: Comparison) -> Iterator[str]:
    if not comparison.by_type:
        return
    yield "<h2>By label</h2><p class='quiet'>F1 of the first seed.</p><table>"
    names = [row.name for row in comparison.rows]
    yield "<tr><th>label</th>" + "".join(f"<th>{escape(n)}</th>" for n in names) + "</tr>"
    for label, scores in comparison.by_type.items():
        cells = "".join(
            f"<td><span class='bar' style='width:{scores[name]:.0f}px;"
            f"background:{_COLOURS[number % len(_COLOURS)]}'></span> {scores[name]:.1f}</td>"
            for number, name in enumerate(names)
        )
        yield f"<tr><td>{escape(label)}</td>{cells}</tr>"
    yield "</table>"


def _differences(comparison: Comparison) -> Iterator[str]:
    some = comparison.differing[:_SHOWN]
    if not some:
        return
    first, second = (row.name for row in comparison.rows[:2])
    count = len(comparison.differing)
    yield (
        f"<h2>Where they differ</h2><p>{count:,} sentences that {escape(first)} or "
        f"{escape(second)} answers better than the other"
        + (f"; the first {_SHOWN} of them." if count > _SHOWN else ".")
        + "</p>"
    )
    for one in some:
        yield f"<details><summary>{one['sentence']}: {escape(one['text'])}</summary><table>"
        for name in ("gold", first, second):
            mark = " (better)" if one["better"] == name else ""
            said = one[name] if isinstance(one[name], str) else " ".join(one[name])
            yield f"<tr><td>{escape(name)}{mark}</td><td class='text'>{escape(said)}</td></tr>"
        yield "</table></details>"

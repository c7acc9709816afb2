"""A comparison as one HTML page: tables, score over cost, labels, confusions, differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from seqlab.compare.answers import NONE
from seqlab.compare.cells import SURE, pair_cells, system_cells
from seqlab.compare.comparison import Comparison
from seqlab.compare.plot import colour_of, plot_of
from seqlab.report import MATRIX, most_confused
from seqlab.tags import OUTSIDE

_SHOWN = 200  # sentences that differ
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em;
  color: #222; background: #fff; }
h1 { font-size: 1.6em; line-height: 1.2; } h2 { font-size: 1.2em; margin: 2em 0 .4em; }
h3 { font-size: 1em; margin: 1em 0 .2em; }
.wide { overflow-x: auto; margin: .6em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
th { font-weight: 500; color: #555; vertical-align: bottom; }
th.name, td.name { text-align: left; } td.said { text-align: left; white-space: normal; }
.front td { font-weight: 600; } .sure td { background: #eaf3ea; }
svg { width: 100%; min-width: 30em; max-width: 640px; height: auto; }
svg text { font: 12px system-ui, sans-serif; }
.quiet { color: #666; font-size: .93em; }
.key { display: inline-block; margin-right: 1em; }
.key i { display: inline-block; width: .8em; height: .8em; }
.bars { display: grid; grid-template-columns: max-content 1fr; gap: .5em 1em; max-width: 640px; }
.bars > span { overflow-wrap: anywhere; max-width: 40vw; }
.track { display: grid; grid-template-columns: 1fr 3em; gap: .5em; align-items: center; }
.track i { background: #f0f0f0; height: .8em; } .track b { display: block; height: 100%; }
.track span { text-align: right; font-variant-numeric: tabular-nums; line-height: 1.3; }
.beside { display: flex; flex-wrap: wrap; gap: 0 3em; } .beside > div { max-width: 100%; }
.matrix td { border: 1px solid #fff; padding: .25em .5em; min-width: 2em; }
.matrix td.name { background: none; } .matrix th { max-width: 9em; }
.tags td { text-align: center; } .tags td.name { text-align: left; } .tags .outside { color: #aaa; }
.wrong { background: #f8dcd5; }
@media (max-width: 40em) { td.name { white-space: normal; min-width: 7em; } }
details { margin: .2em 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
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
        *plot_of(comparison.rows),
        *_pairs(comparison),
        *(f"<p class='quiet'>Note: {escape(note)}</p>" for note in comparison.notes),
        *_types(comparison),
        *_confusions(comparison),
        *_differences(comparison),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], named: int = 1
) -> Iterator[str]:
    """A table in a box that scrolls by itself; some columns of names to the left."""

    def line(cells: Sequence[str], tag: str, kind: str = "") -> str:
        names = [" class='name'" if place < named else "" for place in range(len(cells))]
        said = (f"<{tag}{n}>{escape(x)}</{tag}>" for n, x in zip(names, cells, strict=True))
        return f"<tr{kind and f' class={kind!r}'}>{''.join(said)}</tr>"

    yield f"<div class='wide'><table>{line(head, 'th')}"
    yield from (line(cells, "td", kind) for cells, kind in zip(rows, kinds, strict=True))
    yield "</table></div>"


def _systems(comparison: Comparison) -> Iterator[str]:
    head, rows = system_cells(comparison.rows)
    yield from _table(head, rows, ["front" * row.best_for_its_price for row in comparison.rows])
    said = "Bold: nothing else scores as much for its price."
    if "ECE" in head:
        said += " ECE: expected calibration error, 0 is best."
    if any(row.price.speed is not None for row in comparison.rows):
        said += " At 1, at 32: sentences at a time, on the CPU of this machine."
    yield f"<p class='quiet'>{said}</p>"


def _pairs(comparison: Comparison) -> Iterator[str]:
    yield "<h2>How sure is it?</h2>"
    kinds = ["sure" * (pair.p < SURE) for pair in comparison.pairs]
    head, rows = pair_cells(comparison.pairs)
    yield from _table(head, rows, kinds, 2)
    yield "<p class='quiet'>p: over test sentences, approximate randomisation, corrected for "
    yield "all pairs (Holm). 95 %: paired bootstrap."
    if any(pair.p_seeds is not None for pair in comparison.pairs):
        yield "p over seeds: Mann-Whitney, corrected. Order: almost stochastic order; below 0.5 "
        yield "the first is better."
    yield "</p>"


def _types(comparison: Comparison) -> Iterator[str]:
    if not comparison.by_type:
        return
    names = [row.name for row in comparison.rows]
    yield "<h2>By label</h2><p class='quiet'>F1 of the first seed: "
    for number, name in enumerate(names):
        key = f"<i style='background:{colour_of(number)}'></i>"
        yield f"<span class='key'>{key} {escape(name)}</span>"
    yield "</p><div class='bars'>"
    for label, scores in comparison.by_type.items():
        yield f"<span>{escape(label)}</span><div>"
        for number, name in enumerate(names):
            yield (
                f"<div class='track' title='{escape(name)}'><i><b style='width:{scores[name]:.1f}%;"
                f"background:{colour_of(number)}'></b></i><span>{scores[name]:.1f}</span></div>"
            )
        yield "</div>"
    yield "</div>"


def _confusions(comparison: Comparison) -> Iterator[str]:
    """What the two best systems take for what, beside each other."""
    tables = {name: table for name, table in comparison.confusions.items() if table}
    if not tables:
        return
    labels = {x for table in tables.values() for gold in table for x in (gold, *table[gold])}
    ordered = [*sorted(labels - {NONE}), *({NONE} & labels)]
    few = len(ordered) <= MATRIX
    said = "What is right in rows, what was answered in columns" if few else "Most often confused"
    yield f"<h2>What is taken for what</h2><p class='quiet'>{said}; the first seed of each."
    if NONE in labels:
        yield f" {NONE}: nothing there, so that it was missed, or invented."
    yield "</p><div class='beside'>"
    for name, table in tables.items():
        yield f"<div><h3>{escape(name)}</h3>"
        if few:
            yield from _matrix(table, ordered)
        else:
            rows = [[gold, found, f"{count:,}"] for count, gold, found in most_confused(table)]
            yield from _table(["right", "answered", "times"], rows, [""] * len(rows), 2)
        yield "</div>"
    yield "</div>"


def _matrix(table: Mapping[str, Mapping[str, int]], labels: Sequence[str]) -> Iterator[str]:
    """Counts, coloured by their share of the row: green what is right, red what is not."""
    yield "<div class='wide'><table class='matrix'><tr><th></th>"
    yield "".join(f"<th>{escape(label)}</th>" for label in labels) + "</tr>"
    for gold in labels:
        row = table.get(gold, {})
        whole = sum(row.values())
        yield f"<tr><td class='name'>{escape(gold)}</td>"
        for found in labels:
            count = row.get(found, 0)
            hue = "88,129,87" if gold == found else "200,85,61"
            share = count / whole if whole else 0.0
            nothing = gold == found == NONE  # cannot be counted
            style = f"background:rgba({hue},{0.75 * share:.2f})"
            yield f"<td style='{style}'>{'' if nothing else f'{count:,}'}</td>"
        yield "</tr>"
    yield "</table></div>"


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
        yield f"<details><summary>{one['sentence']}: {escape(one['text'])}</summary>"
        words = one["text"].split(" ") if comparison.task == "tags" else []
        yield "<div class='wide'><table class='tags'>" if words else "<div class='wide'><table>"
        if len(words) == len(one["gold"]):
            yield "<tr><th></th>" + "".join(f"<th>{escape(x)}</th>" for x in words) + "</tr>"
        for name in ("gold", first, second):
            mark = " (better)" if one["better"] == name else ""
            yield f"<tr><td class='name'>{escape(name)}{mark}</td>"
            yield _answer(one[name], one["gold"], comparison.task) + "</tr>"
        yield "</table></div></details>"


def _answer(said: str | Sequence[str], gold: Sequence[str], task: str) -> str:
    """The cells of an answer: one for each tag, or one for all of it."""
    if task != "tags":
        return f"<td class='said'>{escape(said if isinstance(said, str) else ', '.join(said))}</td>"
    cells = []
    for tag, right in zip(said, gold, strict=True):
        kind = "outside" if tag == right == OUTSIDE else "wrong" * (tag != right)
        cells.append(f"<td class='{kind}'>{escape(tag)}</td>")
    return "".join(cells)

"""The parts of a page that are plain HTML: the text, the means, attention and decisions."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from seqlab.explain.decisions import Decision
from seqlab.explain.explanation import Explanation
from seqlab.explain.glyphs import shown
from seqlab.explain.summary import Row, figure, rows_of, title_of
from seqlab.explain.view import Looked
from seqlab.pipeline import Labelled, Tagged

_FEW = 5  # words up to which they are written upright on a telephone as well
_UPRIGHT = 16  # words up to which they are written upright elsewhere
_MIDDLE, _STRONG = 0.5, 0.82  # shares of the full colour from which it needs the other ink
MINUS = "−"
_ANGLE = 137.5  # degrees between the hues of labels: no two of the first dozen are alike


def safe(text: str, markup: bool = True) -> str:
    """Make any text fit for a page: what cannot be seen is written out, and no mark-up starts.

    Args:
        text: any string.
        markup: whether it stands in HTML, and not in data.
    """
    seen = shown(text, keep="\n\t")
    return html.escape(seen) if markup else seen


def marked_text(found: Explanation) -> str:
    """The text with what was found in it, or with the words tinted by their attention."""
    excerpt = found.excerpt
    pieces: list[tuple[int, int, str, str]] = []
    if isinstance(excerpt, Tagged):
        labels = sorted({span.label for span in excerpt.spans})
        hues = {label: i * _ANGLE % 360 for i, label in enumerate(labels)}
        for span in excerpt.spans:
            sure = "" if span.confidence is None else f" {figure(span.confidence)}"
            opening = f'<mark style="--hue:{hues[span.label]:g}">'
            closing = f"<small>{safe(span.label)}{sure}</small></mark>"
            pieces.append((span.start, span.end, opening, closing))
    elif excerpt.attention is not None:
        most = max(excerpt.attention) or 1.0
        for (start, end), weight in zip(excerpt.offsets, excerpt.attention, strict=True):
            opening = f'<span class="seen" style="--v:{weight / most:.3f}">'
            pieces.append((start, end, opening, "</span>"))
    return _with(excerpt.text, pieces)


def _with(text: str, pieces: Iterable[tuple[int, int, str, str]]) -> str:
    parts, position = [], 0
    for start, end, opening, closing in pieces:
        parts += [safe(text[position:start]), opening, safe(text[start:end]), closing]
        position = end
    return "".join([*parts, safe(text[position:])])


def gate_map(found: Looked, number: int) -> str:
    """A layer and direction: a table of means, and the place for the map of its units."""
    trace, unit = found.layers[number], found.view.unit
    name, _, rest = title_of(trace, unit).partition(":")
    rows = zip(rows_of(trace, unit), trace.series, strict=True)
    body = "".join(_mean_row(row, series) for row, series in rows)
    body += (
        '<tr class="units"><th>units</th>'
        f'<td colspan="{len(found.words)}"><canvas data-layer="{number}" role="img" tabindex="0">'
        "</canvas></td></tr>"
    )
    return f"<div><h3>{name} <small>{rest}</small></h3>{_map(found.words, body)}</div>"


def _mean_row(row: Row, series: str) -> str:
    cells = [shaded(value, row.scale, figure(value)) for value in row.values]
    button = f'<button type="button" data-series="{series}">{row.label}</button>'
    return f"<tr><th>{button}</th>{''.join(cells)}</tr>"


def shaded(value: float, scale: float, text: str, data: str = "") -> str:
    """A cell of a heat map.

    Args:
        value: what decides the colour.
        scale: the value of the full colour.
        text: what is written in the cell.
        data: further attributes.
    """
    share = min(1.0, abs(value) / scale)
    kinds = (
        "v" + " minus" * (value < 0) + " middle" * (share > _MIDDLE) + " strong" * (share > _STRONG)
    )
    return f'<td class="{kinds}" style="--v:{share:.3f}"{data}>{text}</td>'


def _map(words: Sequence[str], body: str) -> str:
    heads = [
        f'<button type="button" data-word="{i}" title="{safe(word)}"><bdi>{safe(word)}</bdi>'
        "</button>"
        for i, word in enumerate(words)
    ]
    return map_of(heads, body)


def map_of(heads: Sequence[str], body: str, kind: str = "") -> str:
    """A table with a column a word.

    Args:
        heads: the heading of each column.
        body: the rows.
        kind: a further class.
    """
    count = len(heads)
    kinds = "map" + kind + " tall" * (count > _UPRIGHT) + " few" * (count <= _FEW)
    heads = [f'<th scope="col">{head}</th>' for head in heads]
    columns = '<col class="name">' + "<col>" * count
    return (
        f'<div class="pan"><table class="{kinds}" style="--n:{count}">'
        f"<colgroup>{columns}</colgroup>"
        f"<thead><tr><td></td>{''.join(heads)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def attention_map(found: Explanation) -> str:
    """For classifiers with attention, a bar a word and head."""
    if found.attention is None:
        return ""
    most = max(map(max, found.attention)) or 1.0
    rows = []
    for number, weights in enumerate(found.attention, 1):
        bars = "".join(
            f'<td title="{weight:.4f}"><div><span>{figure(weight)}</span>'
            f'<i style="--v:{0.8 * weight / most:.4f}"></i></div></td>'
            for weight in weights
        )
        name = "weight" if len(found.attention) == 1 else f"head {number}"
        rows.append(f'<tr class="bars"><th>{name}</th>{bars}</tr>')
    return (
        "<section><h2>What the classifier looks at</h2><p>The share that the state of each word "
        "has in the state of the text; over the whole text, the shares of a head sum to 1. A state "
        "has read its neighbours too: a share says where the model looked, not why it decided.</p>"
        f"{_map(found.words, ''.join(rows))}</section>"
    )


def label_bars(found: Explanation) -> str:
    """For classifiers, the labels with their probabilities, the most probable first."""
    found_labels = found.prediction
    if not isinstance(found_labels, Labelled):
        return ""
    items = []
    for label, chance in (found_labels.probabilities or {}).items():
        chosen = ' class="chosen"' if label in found_labels.labels else ""
        items.append(
            f'<li{chosen} style="--v:{chance:.4f}"><b>{safe(label)}</b><i></i>'
            f"<span>{chance:.3f}</span></li>"
        )
    return f'<ul class="labels">{"".join(items)}</ul>'


def decision_table(found: Explanation) -> str:
    """For taggers, why every word has its tag."""
    if found.decisions is None:
        return ""
    heads = ["word", "tag", "prob.", "emission", "transition in", "transition out", "rival"]
    heads += ["margin", "of emissions", "of transitions", "", "else"]
    left = {"word", "tag", "rival", "else"}
    head = "".join(f'<th scope="col"{_left(name in left)}>{name}</th>' for name in heads)
    reach = _reach(found.decisions)
    rows = "".join(
        f'<tr><th scope="row" class="left"><bdi>{safe(word)}</bdi></th>{_decided(d, reach)}</tr>'
        for word, d in zip(found.words, found.decisions, strict=True)
    )
    return (
        "<section><h2>Why these tags</h2><p>The tagger takes the tags whose scores add up to the "
        "most: an <b>emission</b> a word, and a <b>transition</b> between each two tags. The "
        "<b>margin</b> is how much that sum falls when the best <b>rival</b> takes the place of "
        "the tag at this word alone: "
        '<span class="key"><i class="e"></i> what the emissions make of it, <i class="t"></i> what '
        "the transitions make of it</span>. <b>Else</b> is the most probable other tag, whatever "
        "its neighbours.</p>"
        f'<div class="pan"><table class="why"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></section>"
    )


def _left(left: bool) -> str:
    return ' class="left"' if left else ""


def _reach(decisions: Sequence[Decision]) -> tuple[float, float]:
    """The ends of the bars: the most on either side of 0."""
    parts = [
        part
        for d in decisions
        for part in (d.margin_emission, d.margin_transition, d.margin)
        if part is not None
    ]
    return min([0.0, *parts]), max([1e-9, *parts])


def _decided(d: Decision, reach: tuple[float, float]) -> str:
    scores = [d.probability, d.emission, d.transition_in, d.transition_out]
    cells = [f'<td class="left">{safe(d.tag)}</td>', *map(_score, scores)]
    if d.margin_emission is None or d.margin_transition is None:
        why = "no other tag is legal between its neighbours"
        cells.append(f'<td class="none" colspan="5">{why}</td>')
    else:
        cells.append(f'<td class="left">{safe(d.rival or "")}</td>')
        margins = (d.margin, d.margin_emission, d.margin_transition)
        cells += [_score(part) for part in margins if part is not None]
        cells.append(f"<td>{_split(d.margin_emission, d.margin_transition, reach)}</td>")
    other = ""
    if d.alternative is not None:
        other = f"{safe(d.alternative)} <small>{d.alternative_probability:.2f}</small>"
    return "".join([*cells, f'<td class="left">{other}</td>'])


def _score(value: float) -> str:
    return f"<td>{value:.2f}</td>".replace("-", MINUS)


def _split(emission: float, transition: float, reach: tuple[float, float]) -> str:
    """A bar of two parts, end to end where they agree, to either side of 0 where they do not."""
    low, high = reach
    span = high - low
    from_second = emission if emission * transition > 0 else 0.0

    def bar(kind: str, start: float, size: float) -> str:
        left = (min(start, start + size) - low) / span
        return f'<i class="{kind}" style="--a:{left:.4f};--w:{abs(size) / span:.4f}"></i>'

    zero = f'<u style="--a:{-low / span:.4f}"></u>'
    bars = bar("e", 0.0, emission) + bar("t", from_second, transition)
    return f'<span class="split">{bars}{zero}</span>'

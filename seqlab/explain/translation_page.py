"""The page of a translation: where it looked, how sure it was, and what the encoder did."""

from __future__ import annotations

from seqlab.explain.page import filled, reading
from seqlab.explain.page_parts import MINUS, map_of, safe, shaded
from seqlab.explain.steps import ALTERNATIVES, Step
from seqlab.explain.summary import figure
from seqlab.explain.translation import TranslationExplanation

_MEANINGS = {
    "attention": "what share of the text a step looks at, a share for each piece, 1 in all; the "
    "shares of a word are those of its pieces together, in the mean over the pieces said",
    "(end)": "the end of the text, and of the translation: pieces like all others",
    "probability": "of a piece, given the text and what was said before",
    "entropy": "how open the choice was, in bits: 0 for no choice, 1 for the toss of a coin, 2 for "
    "one of four",
    "·piece": "a piece with a dot before it goes on with the word before",
}
_COPY = {"copy": "the share of the choice that is copied from the text, by its attention"}
_COVERAGE = {
    "coverage": "what a piece has got over all steps; the attention sees it, not to come back too "
    "often and to leave nothing out"
}


def translation_page_of(found: TranslationExplanation, model: str) -> str:
    """Make the page.

    Args:
        found: what is to be shown.
        model: the name that the model was given on the command line.

    Returns:
        HTML with its style, its script and all values inside.
    """
    text = found.prediction.text.strip()
    return filled(
        found,
        model,
        text,
        reads="piece",
        heading="What the encoder does",
        marked=f"<span{_language(found.languages[0])}>{safe(text)}</span>",
        above=f'<p class="said" dir="auto"{_language(found.languages[1])}>'
        f"{safe(found.prediction.translation)}</p>",
        range=_range(found),
        before=alignment_map(found) + step_table(found),
        after="",
        reading=_reading(found),
    )


def _language(name: str | None) -> str:
    return "" if name is None else f' lang="{safe(name)}"'


def _range(found: TranslationExplanation) -> str:
    source, target = len(found.source.pieces) - 1, len(found.target.pieces) - 1
    chance = f"{found.prediction.log_probability:.2f}".replace("-", MINUS)
    return f"{source} piece{'s' * (source > 1)} read, {target} said; log-probability {chance}."


def alignment_map(found: TranslationExplanation) -> str:
    """A row for each word said, a column for each word read, and a weight where they meet."""
    rows = found.weights
    most = max(map(max, rows)) or 1.0
    unit = "piece" if found.by_pieces else "word"
    body = "".join(
        f"<tr>{_head(label)}{''.join(_weight(value, most) for value in row)}</tr>"
        for label, row in zip(found.rows, rows, strict=True)
    )
    if found.coverage is not None:
        cells = "".join(f"<td>{figure(value)}</td>" for value in found.coverage)
        body += f'<tr class="total"><th scope="row">coverage</th>{cells}</tr>'
    heads = [
        f'<span title="{safe(label)}"><bdi>{safe(label)}</bdi></span>' for label in found.columns
    ]
    return (
        f"<section><h2>Where it looks</h2><p>A row for each {unit} of the translation, a column "
        f"for each {unit} of the text: the share of the attention ({safe(found.kind)}) that it got "
        "when that was said. A share says where the model looked, not why it decided; each state "
        "has read its neighbours too.</p>"
        f"{map_of(heads, body, kind=' alignment')}</section>"
    )


def _head(label: str) -> str:
    return f'<th scope="row" title="{safe(label)}"><bdi>{safe(label)}</bdi></th>'


def _weight(value: float, most: float) -> str:
    """A cell; what is nearly zero is told by its colour, and under the pointer."""
    text = figure(value)
    return shaded(value, most, "" if text == ".00" else text, f' data-w="{value:.4f}"')


def step_table(found: TranslationExplanation) -> str:
    """A row for each piece said: its probability, and what else might have been said."""
    copies = found.steps[0].copied is not None
    heads = ["piece", "prob.", "", "entropy", *["copy"] * copies, *["else"] * ALTERNATIVES]
    left = {"piece", "", "else"}
    head = "".join(f'<th scope="col"{_left(name in left)}>{name}</th>' for name in heads)
    rows = "".join(
        f'<tr><th scope="row" class="left"><bdi>{safe(label)}</bdi></th>{_step(step)}</tr>'
        for label, step in zip(found.target.labels, found.steps, strict=True)
    )
    return (
        "<section><h2>How sure each piece is</h2><p>Its probability given the text and what was "
        "said before, the entropy of the choice in bits, and the most probable other pieces. The "
        "search keeps several beginnings at a time: the best whole need not have the best piece "
        "at every step.</p>"
        f'<div class="pan"><table class="why"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></section>"
    )


def _left(left: bool) -> str:
    return ' class="left"' if left else ""


def _step(step: Step) -> str:
    bar = f'<i class="e" style="--a:0;--w:{step.probability:.4f}"></i>'
    cells = [
        f"<td>{step.probability:.3f}</td>",
        f'<td class="left"><span class="split">{bar}</span></td>',
        f"<td>{step.entropy:.2f}</td>",
    ]
    if step.copied is not None:
        cells.append(f"<td>{step.copied:.3f}</td>")
    others = [
        f'<td class="left"><bdi>{safe(name)}</bdi> <small>{value:.3f}</small></td>'
        for name, value in step.others
    ]
    cells += others + ["<td></td>"] * (ALTERNATIVES - len(others))
    return "".join(cells)


def _reading(found: TranslationExplanation) -> str:
    meanings = dict(_MEANINGS)
    if found.steps[0].copied is not None:
        meanings |= _COPY
    if found.covers:
        meanings |= _COVERAGE
    items = "".join(f"<dt>{name}</dt><dd>{safe(text)}</dd>" for name, text in meanings.items())
    return f"<dl>{items}</dl>{reading(found.layers) if found.layers else ''}"

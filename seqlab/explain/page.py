"""The page of an explanation: one file that needs no network, for any browser."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from torch import Tensor

from seqlab.explain.explanation import Explanation
from seqlab.explain.meanings import MEANINGS
from seqlab.explain.page_parts import (
    attention_map,
    decision_table,
    gate_map,
    label_bars,
    marked_text,
    safe,
)
from seqlab.explain.view import Looked
from seqlab.nn.traces import GATES, Trace

_LONG = 240  # characters from which the text is set smaller


def page_of(found: Explanation, model: str) -> str:
    """Make the page.

    Args:
        found: what is to be shown.
        model: the name that the model was given on the command line.

    Returns:
        HTML with its style, its script and the values of all units inside.
    """
    return filled(
        found,
        model,
        found.excerpt.text,
        marked=marked_text(found),
        above=label_bars(found),
        range=_range(found),
        before=attention_map(found),
        after=decision_table(found),
        reading=reading(found.layers),
    )


def filled(found: Looked, model: str, text: str, *, reads: str = "word", **fields: str) -> str:
    """Fill the page in, with what the encoder did and whatever else there is.

    Args:
        found: of the encoder.
        model: the name that the model was given on the command line.
        text: what was looked at.
        reads: what the encoder reads at a time, ``word`` or ``piece``.
        **fields: HTML; ``marked`` the text, ``above`` what stands under it, ``range`` what is
            shown, ``heading`` of the encoder's section, ``before`` and ``after`` the sections
            around it, ``reading`` a list of what the names mean.
    """
    fields = {"heading": "What the cell does"} | fields
    fields |= {
        "title": safe(text[:60]),
        "css": _resource("page.css"),
        "js": _resource("page.js"),
        "model": safe(model),
        "size": "long" if len(text) > _LONG else "",
        "reads": reads,
        "means": _means(found, reads),
        "choices": _choices(found.layers),
        "hidden": "" if found.layers else " hidden",
        "count": str(len(found.words)),
        "longest": str(max(map(len, found.words))),
        "layers": "\n".join(gate_map(found, number) for number in range(len(found.layers))),
        "data": _data(found, reads),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], _resource("page.html"))


def _resource(name: str) -> str:
    return files("seqlab.explain").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


def _range(found: Explanation) -> str:
    view = found.view
    if len(view.shown) == view.total:
        return f"{view.total} word{'s' * (view.total > 1)}."
    return (
        f"Words {view.shown.start + 1:,} to {view.shown.stop:,} of {view.total:,}; choose others "
        f"with --from and --to, up to {view.most:,} at once."
    )


def _means(found: Looked, reads: str) -> str:
    if found.view.unit is not None:
        return f"Unit {found.view.unit} alone at every {reads}."
    return (
        f"One row a gate or state, one column a {reads}: the mean over all units; where the name "
        "stands between bars, without their signs."
    )


def series_names(layers: Sequence[Trace]) -> list[str]:
    """The names of the series of all layers, each once, in the order of the cell."""
    return list(dict.fromkeys(name for trace in layers for name in trace.series))


def _choices(layers: Sequence[Trace]) -> str:
    return "".join(
        f'<button type="button" data-series="{name}" aria-pressed="false">{name}</button>'
        for name in series_names(layers)
    )


def reading(layers: Sequence[Trace]) -> str:
    """Say what the names of gates and states mean."""
    meanings = MEANINGS[layers[0].cell]
    items = "".join(
        f"<dt>{name}</dt><dd>{safe(meanings[name])}</dd>" for name in series_names(layers)
    )
    return f"<dl>{items}</dl>"


def _data(found: Looked, reads: str) -> str:
    """The values of all units for the script, in JSON that cannot end its element."""
    data = {
        "first": found.view.shown.start + 1,
        "reads": reads,
        "words": [safe(word, markup=False) for word in found.words],
        "layers": [
            {
                "unit": found.view.unit,
                "series": [_packed(name, values) for name, values in trace.series.items()],
            }
            for trace in found.layers
        ],
    }
    return json.dumps(data).replace("<", "\\u003c")


def _packed(name: str, values: Tensor) -> dict[str, Any]:
    """One byte a value, unit after unit, between the ends of the range."""
    if name in GATES:
        low, high = 0.0, 1.0
    else:
        high = max(1.0, float(values.abs().max()))
        low = -high
    levels = ((values.double() - low) / (high - low) * 255).round().byte()  # (word, unit)
    return {
        "name": name,
        "units": values.shape[1],
        "low": low,
        "high": high,
        "data": base64.b64encode(levels.t().contiguous().numpy().tobytes()).decode("ascii"),
    }

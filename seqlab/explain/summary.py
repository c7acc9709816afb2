"""Traces summed up to one number a word, and numbers written for people."""

from __future__ import annotations

from typing import NamedTuple

from seqlab.nn.traces import GATES, Trace


class Row(NamedTuple):
    """A row of a heat map; the values are divided by the scale to be coloured, not to be shown."""

    label: str
    values: list[float]
    scale: float


def title_of(trace: Trace, unit: int | None) -> str:
    """Name a layer and direction, as in ``layer 1, forward: lstm, mean of 200 units``."""
    units = max(values.shape[-1] for values in trace.series.values())
    what = f"mean of {units} units" if unit is None else f"unit {unit}"
    return f"layer {trace.layer}, {trace.direction}: {trace.cell}, {what}"


def rows_of(trace: Trace, unit: int | None) -> list[Row]:
    """Sum every series up, one number a word.

    Gates are averaged over the units. Candidate, cell and hidden state have signs that would cancel
    out, so they are averaged without them, and their names stand between bars.
    """
    rows = []
    for name, series in trace.series.items():
        signed = name not in GATES
        if unit is None and signed:
            name, series = f"|{name}|", series.abs()
        values = series.double().mean(1).tolist()
        rows.append(Row(name, values, max(1.0, *map(abs, values)) if signed else 1.0))
    return rows


def figure(value: float) -> str:
    """Write a number in four characters, or a few more where it is large.

    Example:
        >>> [figure(value) for value in (0.0, 0.421, -0.421, 1.0, -1.25, 12.3, -123.4)]
        ['.00', '.42', '-.42', '1.00', '-1.2', '12.3', '-123']
    """
    text = f"{value:.2f}"
    if text in ("-0.00", "0.00"):
        return ".00"
    if abs(value) < 0.995:
        return text.replace("0.", ".", 1)
    texts = [text, f"{value:.1f}", f"{value:.0f}"]
    return next((text for text in texts if len(text) <= 4), texts[-1])

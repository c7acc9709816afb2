"""Which words, layers, directions and units are looked at, and what the encoder does with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from seqlab.errors import UsageError
from seqlab.explain.options import Options
from seqlab.networks.tokens import TokenNetwork, windows
from seqlab.networks.translator import TranslatorNetwork
from seqlab.nn.encoders import Encoder
from seqlab.nn.traces import DIRECTIONS, Trace, trace

MOST_VALUES = 4_000_000  # values of gates and states at once: some 5 MB of a page
WORDS = 200  # shown at once where no --to is given


@dataclass(frozen=True)
class View:
    """What is looked at.

    Args:
        shown: the positions of the words.
        ways: layers, counted from 1, with their directions.
        unit: the only unit, counted from 1, or None for all.
        total: how many words the text has.
        most: how many words can be looked at at once.
        chosen: whether the last word was asked for.
    """

    shown: range
    ways: frozenset[tuple[int, str]]
    unit: int | None
    total: int
    most: int
    chosen: bool

    @property
    def note(self) -> str | None:
        """Say what is left out where nobody asked for that."""
        if self.chosen or self.shown.stop == self.total:
            return None
        return (
            f"words {self.shown.start + 1:,} to {self.shown.stop:,} of {self.total:,} are shown: "
            f"choose others with --from and --to, up to {self.most:,} at once."
        )


def plain_layers(layers: Sequence[Trace]) -> list[dict[str, Any]]:
    """Return traces as plain JSON data; layers are counted from 1."""
    return [
        {
            "layer": found.layer,
            "direction": found.direction,
            "cell": found.cell,
            "series": {name: values.tolist() for name, values in found.series.items()},
        }
        for found in layers
    ]


class Looked(Protocol):
    """What is known of an encoder that was looked at."""

    @property
    def view(self) -> View:
        """What is looked at."""

    @property
    def layers(self) -> list[Trace]:
        """One trace a layer and direction, its series ``(word, unit)``."""

    @property
    def words(self) -> list[str]:
        """What the encoder reads there, as it is shown."""


def view_of(model: TokenNetwork | TranslatorNetwork, x: Tensor, options: Options) -> View:
    """Find out what is looked at, and refuse what is not there.

    Args:
        model: its encoder is tried on one word.
        x: ``(1, time, dim)``, the embedded text.
        options: what was asked for.

    Raises:
        UsageError: there is no such word, layer, direction or unit, or the words are too many.
    """
    probe = trace(model.encoder, x[:, :1], torch.tensor([1])).layers
    units = max(values.shape[-1] for t in probe for values in t.series.values())
    _check("layer", options.layer, max(t.layer for t in probe))
    _check("unit", options.unit, units)
    directions = [d for d in DIRECTIONS if any(t.direction == d for t in probe)]
    if options.direction not in (None, *directions):
        raise UsageError(
            f"--direction {options.direction}: the model reads {' and '.join(directions)}; choose "
            f"{' or '.join(directions)}."
        )
    kept = [
        _cut(t, options.unit)
        for t in probe
        if options.layer in (None, t.layer) and options.direction in (None, t.direction)
    ]
    a_word = sum(values.shape[-1] for t in kept for values in t.series.values())
    most = max(1, MOST_VALUES // a_word)
    return View(
        shown=_range(x.shape[1], most, options),
        ways=frozenset((t.layer, t.direction) for t in kept),
        unit=options.unit,
        total=x.shape[1],
        most=most,
        chosen=options.last is not None,
    )


def _check(name: str, value: int | None, most: int) -> None:
    if value is not None and value > most:
        raise UsageError(
            f"--{name} {value}: the model has {most} {name}{'s' * (most > 1)}; choose from 1 to "
            f"{most}."
        )


def _range(total: int, most: int, options: Options) -> range:
    for name, value in (("from", options.first), ("to", options.last)):
        if value is not None and value > total:
            raise UsageError(
                f"--{name} {value}: the text has {total:,} words; choose from 1 to {total}."
            )
    first = options.first or 1
    if options.last is None:
        return range(first - 1, min(total, first - 1 + min(WORDS, most)))
    if options.last - first >= most:
        raise UsageError(
            f"--from {first} --to {options.last}: that is more of this model than can be shown at "
            f"once; choose at most {most:,} words, or one --layer, --direction or --unit."
        )
    return range(first - 1, options.last)


def _cut(found: Trace, unit: int | None) -> Trace:
    """Keep one unit; a projected hidden state may have fewer units than its gates."""
    if unit is None:
        return found
    series = {n: v[..., unit - 1 : unit] for n, v in found.series.items() if unit <= v.shape[-1]}
    return replace(found, series=series)


def traces_of(model: TokenNetwork, x: Tensor, view: View) -> list[Trace]:
    """Trace the words that are looked at, as the model reads them: long texts in its windows.

    Args:
        model: the model.
        x: ``(1, time, dim)``, the embedded text.
        view: what is looked at.

    Returns:
        one trace a layer and direction, its series ``(word, unit)``.
    """
    return traces_in(model.encoder, x, view, model.window)


def traces_in(encoder: Encoder, x: Tensor, view: View, window: int) -> list[Trace]:
    """Trace the words that are looked at, where an encoder reads at most so many at once.

    Args:
        encoder: that can be traced.
        x: ``(1, time, dim)``, what it reads.
        view: what is looked at.
        window: the most that it reads at once.

    Returns:
        one trace a layer and direction, its series ``(word, unit)``.
    """
    pieces = [
        [_cut(t, view.unit) for t in found if (t.layer, t.direction) in view.ways]
        for found in _pieces(encoder, x, view.shown, window)
    ]
    return [
        replace(
            parts[0],
            series={
                name: torch.cat([part.series[name] for part in parts]) for name in parts[0].series
            },
        )
        for parts in zip(*pieces, strict=True)
    ]


def _pieces(encoder: Encoder, x: Tensor, shown: range, window: int) -> Iterator[list[Trace]]:
    """The traces of each window that has words to be shown, cut to these words."""
    time = x.shape[1]
    window = min(time, window)
    for start, first, end in windows(time, window):
        low, high = max(start, shown.start), min(start + window, shown.stop)
        if low >= high:
            continue
        piece = x[:, first:end]
        found = trace(encoder, piece, torch.tensor([piece.shape[1]])).layers
        yield [
            replace(
                t, series={name: v[0, low - first : high - first] for name, v in t.series.items()}
            )
            for t in found
        ]

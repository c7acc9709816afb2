"""The cells of a comparison's tables, as text: the terminal and the page show the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from seqlab.compare.comparison import Pair, Row

SURE = 0.05
_T = TypeVar("_T")
_Columns = list[tuple[str, Callable[[_T], str]]]  # their names, and the cell of each row
_Table = tuple[list[str], list[list[str]]]


def system_cells(rows: Sequence[Row]) -> _Table:
    """Say of each system how good it is and what it costs.

    Args:
        rows: the systems.

    Returns:
        the names of the columns, without those that would be empty, and the cells of each row.
    """
    columns: _Columns[Row] = [
        ("system", lambda row: row.name),
        ("score", lambda row: f"{row.mean:.2f}"),
        ("sd", lambda row: _number(row.sd, 2)),
        ("seeds", lambda row: ", ".join(map(str, row.seeds))),
        ("ECE", lambda row: _number(row.ece, 4)),
        ("parameters", lambda row: f"{row.price.parameters:,}"),
        ("MB", lambda row: f"{row.price.bundle_mb:,.1f}"),
        ("training", lambda row: f"{row.price.training_seconds:,.0f} s"),
        ("peak MB", lambda row: _number(row.price.peak_memory_mb)),
        *_by_count(rows, "sentences/s", "sentences_per_second", 1),
        *_by_count(rows, "{}/s", "tokens_per_second", 0),
        *_by_count(rows, "J/1000 {}", "joules_per_1000_tokens", 2),
    ]
    return _filled(columns, rows)


def _by_count(rows: Sequence[Row], name: str, field: str, places: int) -> _Columns[Row]:
    """A column for each number of sentences at a time."""
    prices = [row.price for row in rows]

    def column(count: int) -> tuple[str, Callable[[Row], str]]:
        said = f"{name.format(prices[0].unit)} at {count}"
        return said, lambda row: _number(getattr(row.price, field).get(count), places)

    return [column(n) for n in sorted({n for price in prices for n in getattr(price, field)})]


def pair_cells(pairs: Sequence[Pair]) -> _Table:
    """Say how each two systems differ.

    Args:
        pairs: of systems.

    Returns:
        the same as :func:`system_cells`.
    """
    columns: _Columns[Pair] = [
        ("", lambda pair: pair.first),
        ("", lambda pair: f"against {pair.second}"),
        ("difference", lambda pair: f"{pair.difference:+.2f}"),
        ("95 %", lambda pair: f"{pair.low:+.2f} to {pair.high:+.2f}"),
        ("p", lambda pair: f"{pair.p:.4f}" + (" (sure)" if pair.p < SURE else "")),
        ("p over seeds", lambda pair: _number(pair.p_seeds, 4)),
        ("order", lambda pair: _number(pair.order, 2)),
    ]
    return _filled(columns, pairs)


def _filled(columns: _Columns[_T], rows: Sequence[_T]) -> _Table:
    """A table without its empty columns."""
    kept = [(name, cell) for name, cell in columns if any(cell(row) for row in rows)]
    return [name for name, _ in kept], [[cell(row) for _, cell in kept] for row in rows]


def _number(value: float | None, places: int = 0) -> str:
    return "" if value is None else f"{value:,.{places}f}"

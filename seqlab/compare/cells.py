"""The cells of a comparison's tables, as text: the terminal and the page show the same."""

from __future__ import annotations

from collections.abc import Callable

from seqlab.compare.comparison import Comparison, Pair, Row

SURE = 0.05
PAIR_HEAD = ["", "", "difference", "95 %", "p", "p over seeds", "order"]
_Column = tuple[str, Callable[[Row], str]]


def system_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Say of each system how good it is and what it costs.

    Args:
        comparison: of them; a column that would be empty is left out.

    Returns:
        the names of the columns, and the cells of each system.
    """
    rows = comparison.rows
    columns: list[_Column] = [
        ("system", lambda row: row.name),
        ("score", lambda row: f"{row.mean:.2f}"),
        ("sd", lambda row: _number(row.sd, 2)),
        ("seeds", lambda row: ", ".join(map(str, row.seeds))),
    ]
    if any(row.ece is not None for row in rows):
        columns.append(("ECE", lambda row: _number(row.ece, 4)))
    columns += [
        ("parameters", lambda row: f"{row.price.parameters:,}"),
        ("MB", lambda row: f"{row.price.bundle_mb:,.1f}"),
        ("training", lambda row: f"{row.price.training_seconds:,.0f} s"),
        ("peak MB", lambda row: _number(row.price.peak_memory_mb)),
        *_by_count(comparison, "sentences/s", "sentences_per_second", 1),
        *_by_count(comparison, "{}/s", "tokens_per_second", 0),
        *_by_count(comparison, "J/1000 {}", "joules_per_1000_tokens", 2),
    ]
    return [name for name, _ in columns], [[cell(row) for _, cell in columns] for row in rows]


def _by_count(comparison: Comparison, name: str, field: str, places: int) -> list[_Column]:
    """A column for each number of sentences at a time."""
    prices = [row.price for row in comparison.rows]
    counts = sorted({count for price in prices for count in getattr(price, field)})

    def column(count: int) -> _Column:
        said = f"{name.format(prices[0].unit)} at {count}"
        return said, lambda row: _number(getattr(row.price, field).get(count), places)

    return [column(count) for count in counts]


def pair_cells(pair: Pair) -> list[str]:
    """Say how two systems differ, under :data:`PAIR_HEAD`."""
    return [
        pair.first,
        f"against {pair.second}",
        f"{pair.difference:+.2f}",
        f"{pair.low:+.2f} to {pair.high:+.2f}",
        f"{pair.p:.4f}" + (" (sure)" if pair.p < SURE else ""),
        _number(pair.p_seeds, 4),
        _number(pair.order, 2),
    ]


def _number(value: float | None, places: int = 0) -> str:
    return "" if value is None else f"{value:,.{places}f}"

"""A comparison for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from seqlab.compare.cells import pair_cells, system_cells
from seqlab.compare.comparison import Comparison


def table_of(comparison: Comparison) -> str:
    """Lay a comparison out.

    Returns:
        lines without a trailing newline.
    """
    head, body = system_cells(comparison.rows)
    for row, cells in zip(comparison.rows, body, strict=True):
        cells[0] += " *" if row.best_for_its_price else ""
    pair_head, pairs = pair_cells(comparison.pairs)
    lines = [
        f"{comparison.scorer}, {comparison.sentences:,} test sentences",
        "",
        *_aligned([head, *body], 1),
        "",
        "* nothing else scores as much for its price",
        "",
        *_aligned([pair_head, *pairs], 2),
        "",
        "p: over test sentences, by approximate randomisation, corrected for all pairs (Holm); "
        "95 %: paired bootstrap",
    ]
    if any(pair.p_seeds is not None for pair in comparison.pairs):
        lines.append(
            "p over seeds: Mann-Whitney, corrected; order: almost stochastic order, below 0.5 in "
            "favour of the first"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in comparison.notes)])


def _aligned(rows: Sequence[Sequence[str]], named: int) -> list[str]:
    """Some columns of names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < named else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

"""A comparison for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from seqlab.compare.comparison import Comparison, Pair, Row

_SURE = 0.05


def table_of(comparison: Comparison) -> str:
    """Lay a comparison out.

    Returns:
        lines without a trailing newline.
    """
    speeds = sorted({n for row in comparison.rows for n in row.price.tokens_per_second})
    joules = sorted({n for row in comparison.rows for n in row.price.joules_per_1000_tokens})
    head = ["system", "score", "sd", "seeds", "parameters", "MB", "training", "peak MB"]
    head += [f"tokens/s at {n}" for n in speeds] + [f"J/1000 at {n}" for n in joules]
    body = [_cells(row, speeds, joules) for row in comparison.rows]
    lines = [
        f"{comparison.scorer}, {comparison.sentences:,} test sentences",
        "",
        *_aligned([head, *body]),
        "",
        "* nothing else scores as much for its price",
        "",
        *_aligned([_PAIR_HEAD, *(_pair(pair) for pair in comparison.pairs)]),
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


_PAIR_HEAD = ["", "", "difference", "95 %", "p", "p over seeds", "order"]


def _cells(row: Row, speeds: Sequence[int], joules: Sequence[int]) -> list[str]:
    price = row.price
    cells = [
        row.name + (" *" if row.best_for_its_price else ""),
        f"{row.mean:.2f}",
        "" if row.sd is None else f"{row.sd:.2f}",
        str(len(row.seeds)),
        f"{price.parameters:,}",
        f"{price.bundle_mb:,.1f}",
        f"{price.training_seconds:,.0f} s",
        "" if price.peak_memory_mb is None else f"{price.peak_memory_mb:,.0f}",
    ]
    cells += [_number(price.tokens_per_second.get(n)) for n in speeds]
    return [*cells, *(_number(price.joules_per_1000_tokens.get(n), 2) for n in joules)]


def _number(value: float | None, places: int = 0) -> str:
    return "" if value is None else f"{value:,.{places}f}"


def _pair(pair: Pair) -> list[str]:
    sure = " (sure)" if pair.p < _SURE else ""
    return [
        pair.first,
        f"against {pair.second}",
        f"{pair.difference:+.2f}",
        f"{pair.low:+.2f} to {pair.high:+.2f}",
        f"{pair.p:.4f}{sure}",
        "" if pair.p_seeds is None else f"{pair.p_seeds:.4f}",
        "" if pair.order is None else f"{pair.order:.2f}",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    named = 2 if rows[0] == _PAIR_HEAD else 1
    return [
        "  ".join(
            cell.ljust(width) if place < named else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

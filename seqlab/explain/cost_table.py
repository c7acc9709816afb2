"""What a model costs, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from seqlab.explain.cost import ModelCost, PartCost

_PARTS = ("part", "parameters", "bytes", "matrices", "elements", "inference", "training")
_SPEEDS = ("speed", "tokens/s", "runs", "J per 1,000 tokens")


def table_of(cost: ModelCost, model: str) -> str:
    """Lay a model's cost out, in lines of at most 100 columns but for long names.

    Args:
        cost: what was found.
        model: where the model is.

    Returns:
        lines, each ended.
    """
    total = cost.total
    kinds = " and ".join(f"{size:,} bytes of {name}" for name, size in sorted(total.bytes.items()))
    *rows, last = _aligned([_PARTS, *map(_row, cost.parts), _row(total)])
    lines = [f"{model}: {cost.kind}, {total.parameters:,} parameters, {kinds}", ""]
    lines += [*rows, "-" * len(last), last, "", *_notes(cost), ""]
    lines += [*_aligned([_SPEEDS, *_speeds(cost)]), "", *_circumstances(cost)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _row(part: PartCost) -> tuple[str, ...]:
    work = ("unknown", "unknown")
    if part.cost is not None:
        work = (f"{part.cost.matrix:,.0f}", f"{part.cost.element:,.0f}")
    held = (f"{part.inference:,.0f}", f"{part.training:,.0f}")
    return (part.part, f"{part.parameters:,}", f"{sum(part.bytes.values()):,}", *work, *held)


def _speeds(cost: ModelCost) -> list[tuple[str, ...]]:
    return [
        (
            "one sentence at a time"
            if pace.sentences == 1
            else f"{pace.sentences:,} sentences at a time",
            f"{pace.tokens_per_second:,.0f}",
            f"{pace.runs:,}",
            "unknown" if pace.joules is None else f"{pace.joules:.3g}",
        )
        for pace in cost.paces
    ]


def _notes(cost: ModelCost) -> list[str]:
    lines = [
        "matrices, elements: multiply-adds a token, by the formulae of seqlab.nn.costs",
        "inference: bytes of activations a token, the most alive at once, measured on a batch",
        "training: those held for the gradient, measured on a batch",
    ]
    if cost.letters is not None:
        lines.append(f"characters: of a word of {cost.letters:.1f}, once for each distinct word")
    if cost.total.cost is None:
        lines.append("unknown: the equations of an encoder that is not of seqlab")
    return lines


def _circumstances(cost: ModelCost) -> list[str]:
    known = any(pace.joules is not None for pace in cost.paces)
    energy = f"energy: {cost.counter}" + (", all that it uses" if known else "")
    return [
        f"medians; tokens a sentence: {cost.tokens:,}, drawn from the model's vocabulary",
        f"on {cost.device}, {cost.hardware}",
        energy if known else f"energy unknown: {cost.counter}",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Put the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]

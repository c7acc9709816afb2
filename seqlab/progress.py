"""The line on standard error that says how far a command has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

_EVERY = 0.5  # seconds

Result = TypeVar("Result")


def shows_progress(source: str | None, output: str | None) -> bool:
    """Show it where the work may be long and nothing else is written to the terminal.

    Args:
        source: the file that is read; ``-`` or None for what is not one.
        output: the file that is written, None for standard output.
    """
    free = output is not None or not sys.stdout.isatty()
    return source not in (None, "-") and sys.stderr.isatty() and free


def counted(
    results: Iterator[Result], unit: str | None, tokens_of: Callable[[Result], int]
) -> Iterator[Result]:
    """Pass results on, with a line on standard error that counts them.

    Args:
        results: whatever it is.
        unit: what they are called; None to say nothing.
        tokens_of: says how many tokens of work a result was.
    """
    started = said = time.monotonic()
    tokens = 0
    for count, result in enumerate(results, 1):
        yield result
        tokens += tokens_of(result)
        now = time.monotonic()
        if unit and now - said >= _EVERY:
            rate = tokens / (now - started)
            print(f"\r{count:,} {unit}, {rate:,.0f} tokens/s ", end="", file=sys.stderr, flush=True)
            said = now
    if unit and said > started:
        print(file=sys.stderr)

"""The line on standard error that says how far a command has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
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


class RowProgress:
    """A line on standard error with the rows that are done, their rate and the time left.

    Args:
        total: rows that there are.
        shown: whether it is written.
    """

    def __init__(self, total: int, shown: bool) -> None:
        self._total, self._shown = total, shown
        self._rows = 0
        self._started = self._said = time.monotonic()

    def add(self, rows: int) -> None:
        """Count rows; fewer than none where some have to be done again."""
        self._rows += rows
        now = time.monotonic()
        if self._shown and now - self._said >= _EVERY:
            line = self.line(now - self._started)
            print(f"\r{line:<72}", end="", file=sys.stderr, flush=True)
            self._said = now

    def line(self, seconds: float) -> str:
        """Say how far the work is after so many seconds.

        Example:
            >>> progress = RowProgress(10_000, shown=False)
            >>> progress.add(2_500)
            >>> progress.line(5.0)
            '2,500 of 10,000 rows (25%), 500 rows/s, 0:00:15 left'
        """
        rate = self._rows / seconds
        share = self._rows / self._total if self._total else 1.0
        left = (
            f", {timedelta(seconds=round((self._total - self._rows) / rate))} left" if rate else ""
        )
        return f"{self._rows:,} of {self._total:,} rows ({share:.0%}), {rate:,.0f} rows/s{left}"

    def end(self) -> None:
        """End the line, where one was written."""
        if self._shown and self._said > self._started:
            print(file=sys.stderr)

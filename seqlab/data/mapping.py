"""Numbers that stay on disk, mapped into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOKENS = 1 << 18  # that are in memory at a time


class MappedIds:
    """Ids in a file: the kernel keeps in memory what is looked at, and drops it when it must.

    Args:
        file: 32-bit integers, end to end, the lowest byte first.
        numbers: ``(distinct,)`` what stands for each of them; None where they stand for themselves.

    Attributes:
        numbers: as given.
    """

    def __init__(self, file: Path, numbers: NDArray[np.int32] | None = None) -> None:
        self._file = file
        self._ids = mapped(file, "<i4")
        self.numbers = numbers

    def __getitem__(self, where: Any) -> NDArray[np.int32]:
        """Look up some: any index of an array goes; only what it picks is held in memory."""
        found: NDArray[np.int32] = self._ids[where]
        return found if self.numbers is None else self.numbers[found]

    def __len__(self) -> int:
        return len(self._ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedIds, (self._file, self.numbers)  # another process maps the file too

    def standing_for(self, numbers: NDArray[np.int32]) -> MappedIds:
        """Return the same ids with other numbers in their place."""
        return MappedIds(self._file, numbers)


class HeldIds:
    """Ids in memory, with the ways of :class:`MappedIds`.

    Args:
        ids: ``(token,)`` the ids.
    """

    def __init__(self, ids: NDArray[np.int32]) -> None:
        self._ids = ids

    def __getitem__(self, where: Any) -> NDArray[np.int32]:
        """Look up some."""
        found: NDArray[np.int32] = self._ids[where]
        return found

    def __len__(self) -> int:
        return len(self._ids)

    def standing_for(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return other numbers in the place of the ids."""
        found: NDArray[np.int32] = numbers[self._ids]
        return found


def mapped(file: Path, kind: str) -> NDArray[Any]:
    """Map a file of numbers into memory, to be read.

    Args:
        file: the numbers, end to end; none at all are no error.
        kind: of number, such as ``<i8``.
    """
    if not file.stat().st_size:  # which cannot be mapped
        return np.zeros(0, kind)
    return np.asarray(np.memmap(file, kind, "r"))


def stretches(offsets: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Part sequences into stretches of a bounded number of tokens, or of one sequence.

    Args:
        offsets: ``(sequence + 1,)`` where each sequence begins and ends.

    Yields:
        Where each sequence of a stretch begins and ends; empty ones are left out.

    Example:
        >>> [bounds.tolist() for bounds in stretches(np.array([0, 9, 9, 250_000, 900_000]))]
        [[0, 9, 250000], [250000, 900000]]
    """
    start, count = 0, len(offsets) - 1
    while start < count:
        end = int(np.searchsorted(offsets, offsets[start] + _TOKENS, side="right")) - 1
        end = min(max(end, start + 1), count)
        bounds = offsets[start : end + 1]
        real = np.append(True, bounds[1:] > bounds[:-1])
        if real[1:].any():
            yield bounds[real]
        start = end

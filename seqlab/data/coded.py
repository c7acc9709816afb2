"""Columns of strings as numbers on disk: what they hold is counted and numbered only once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from seqlab.caches import cache_folder
from seqlab.data.base import Ints, flat_ids, token_counts
from seqlab.data.cache import cached_files, digest_of, rows_key
from seqlab.data.mapping import HeldIds, MappedIds, mapped

# Part of every key: raise it when other numbers come of the same rows.
_VERSION = 1
Change = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Coded:
    """A column of lists of strings as numbers, all its rows end to end.

    Args:
        key: what the files of the numbers are known by; None where they are in memory.
        values: the distinct strings, in the order in which they first come.
        counts: ``(distinct,)`` how often each comes.
        ids: ``(token,)`` which of them each token is.
        offsets: ``(row + 1,)`` where each row begins and ends.
    """

    key: str | None
    values: list[str]
    counts: Ints
    ids: MappedIds | HeldIds
    offsets: Ints

    def by_value(self) -> dict[str, int]:
        """Return how often each string comes, in the order in which they first come."""
        return dict(zip(self.values, self.counts.tolist(), strict=True))


def coded(rows: Any, name: str, change: Change | None = None, about: object = None) -> Coded:
    """Number the strings of a column, unless that is in the cache.

    Rows that are held in memory, as those of a stream are, leave nothing in the cache.

    Args:
        rows: a split, a ``datasets.Dataset``, mapped from files or in memory.
        name: of the column, whose rows are lists of strings.
        change: what is done to each row before.
        about: what stands for that, as JSON can write it.
    """
    if not rows.cache_files:
        return _held(rows.data.column(name), change)
    names = [f"{name}.{kind}" for kind in ("ids", "offsets", "values")]

    def write(sinks: Mapping[str, IO[bytes]]) -> list[str]:
        _write(_chunks_of(rows.data.column(name), change), *(sinks[file] for file in names))
        return []

    key = digest_of([], "coded", _VERSION, rows_key(rows), name, about)
    entry, _ = cached_files(cache_folder("datasets"), key, names, write)
    ids, offsets, values = (entry / file for file in names)
    known = json.loads(values.read_bytes())
    return Coded(
        key,
        known["values"],
        np.array(known["counts"], np.int64),
        MappedIds(ids),
        mapped(offsets, "<i8"),
    )


def _held(column: Any, change: Change | None) -> Coded:
    """Number the strings of a column in memory."""
    ids, offsets, values = BytesIO(), BytesIO(), BytesIO()
    _write(_chunks_of(column, change), ids, offsets, values)
    known = json.loads(values.getvalue())
    return Coded(
        None,
        known["values"],
        np.array(known["counts"], np.int64),
        HeldIds(np.frombuffer(ids.getbuffer(), "<i4")),
        np.frombuffer(offsets.getbuffer(), "<i8"),
    )


def cached_ids(
    key: str | None, name: str, parts: Callable[[], Iterator[NDArray[np.int32]]]
) -> NDArray[np.int32] | MappedIds:
    """Keep numbers in the cache, unless they are there.

    Args:
        key: hexadecimal digits that stand for what they are made of, and how; None keeps them in
            memory.
        name: of the file.
        parts: makes them, some at a time.
    """
    if key is None:
        return np.concatenate([np.zeros(0, np.int32), *parts()])

    def write(sinks: Mapping[str, IO[bytes]]) -> list[str]:
        for part in parts():
            sinks[name].write(part.astype("<i4").tobytes())
        return []

    entry, _ = cached_files(cache_folder("datasets"), key, [name], write)
    return MappedIds(entry / name)


def _chunks_of(column: Any, change: Change | None) -> Iterator[Any]:
    """Give a column a chunk at a time, each a pyarrow chunked array."""
    import pyarrow as pa

    for chunk in column.chunks:
        if change is not None:
            chunk = pa.array([change(row) for row in chunk.to_pylist()], chunk.type)
        yield pa.chunked_array([chunk])


def _write(chunks: Iterator[Any], ids: IO[bytes], offsets: IO[bytes], values: IO[bytes]) -> None:
    """Number the strings of chunks into three open files."""
    known: dict[str, int] = {}
    counts: Counter[str] = Counter()
    total = 0
    offsets.write(np.zeros(1, "<i8").tobytes())
    for chunk in chunks:
        found, places = flat_ids(
            chunk, lambda strings: [known.setdefault(value, len(known)) for value in strings]
        )
        ids.write(found.astype("<i4").tobytes())
        offsets.write((total + places[1:]).astype("<i8").tobytes())
        total += len(found)
        counts.update(token_counts([chunk]))
    about = {"values": list(known), "counts": [counts[value] for value in known]}
    values.write(json.dumps(about, ensure_ascii=False).encode())

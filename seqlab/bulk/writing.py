"""Where the answers of a shard go: a hidden file, which gets its name once it is whole."""

from __future__ import annotations

import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FORMATS = ("jsonl", "parquet")
_END = ".partial"


class Writer(ABC):
    """Writes answers of consecutive rows."""

    @abstractmethod
    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows.

        Raises:
            OSError: the disk is full.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class _Lines(Writer):
    """JSON lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file.write(b"".join(map(_line, rows)))

    def close(self) -> None:
        self._file.close()


class _Parquet(Writer):
    """Parquet, a group of rows for each call; every shard has the same columns and types."""

    def __init__(self, path: Path, kind: str) -> None:
        import pyarrow.parquet as pq

        self._schema = schema_of(kind)
        self._file = pq.ParquetWriter(path, self._schema)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow as pa

        plain = [_columnar(row) for row in rows]
        self._file.write_table(pa.Table.from_pylist(plain, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a character: JSON can hold it, UTF-8 cannot
        return (json.dumps(row) + "\n").encode()


def _columnar(row: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(row)
    if row.get("id") is not None:
        changed["id"] = str(row["id"])
    if row.get("probabilities") is not None:
        changed["probabilities"] = list(row["probabilities"].items())
    return changed


def schema_of(kind: str) -> Any:
    """Return the columns of parquet with the answers of a model.

    Args:
        kind: ``tagger``, ``classifier`` or ``translator``.

    Returns:
        the schema of pyarrow: ``row``, ``id`` (a text), ``error``, and what the answers hold.
    """
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    texts, numbers = pa.list_(text), pa.list_(number)
    offsets = pa.list_(pa.list_(whole))
    span = {"text": text, "label": text, "start": whole, "end": whole, "confidence": number}
    span |= {"first_token": whole, "last_token": whole}
    hypothesis = {"text": text, "score": number, "log_probability": number, "missing": texts}
    hypothesis |= {"ids": pa.list_(whole), "pieces": texts, "alignments": text}
    hypothesis |= {"alignment": pa.list_(numbers)}
    read = {"text": text, "tokens": texts, "offsets": offsets}
    columns = {
        "tagger": {
            **read,
            "tags": texts,
            "spans": pa.list_(pa.struct(list(span.items()))),
            "confidences": numbers,
        },
        "classifier": {
            **read,
            "label": text,
            "labels": texts,
            "probabilities": pa.map_(text, number),
            "attention": numbers,
        },
        "translator": {
            "text": text,
            "translation": text,
            "score": number,
            "log_probability": number,
            "hypotheses": pa.list_(pa.struct(list(hypothesis.items()))),
            "source_pieces": texts,
            "offsets": offsets,
            "unknown": whole,
        },
    }[kind]
    return pa.schema([("row", whole), ("id", text), ("error", text), *columns.items()])


@contextmanager
def shard_file(path: Path, form: str, kind: str) -> Iterator[Writer]:
    """Write the answers of a shard; the file has its name once the block has ended well.

    Args:
        path: of the file.
        form: one of `FORMATS`.
        kind: of the model.

    Yields:
        what writes.

    Raises:
        OSError: the file cannot be written.
    """
    # Should a worker that was given up for lost still write, it writes to a file of its own.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}{_END}")
    writer = _Lines(partial) if form == "jsonl" else _Parquet(partial, kind)
    try:
        yield writer
        writer.close()
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(Exception):  # the disk is full: what does not fit is lost
            writer.close()
        with suppress(OSError):
            partial.unlink()
        raise


def partials(folder: Path) -> list[Path]:
    """List what shards that were broken off have left in a folder."""
    return [path for path in folder.glob(f".*{_END}") if path.is_file()]

"""Rows on disk as Arrow, to be memory-mapped: written once, checked at every use, safe to race."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from seqlab.data.rows import Dirt, TableRow
from seqlab.errors import DataError

# Part of every key: raise it when a reader, or `words_of`, comes to yield other rows for a file.
READER_VERSION = 1
ROWS = "rows.arrow"
NOTES = "notes.json"
_CHUNK = 1 << 20
_BATCH_ROWS = 1000
_BATCH_TOKENS = 100_000  # documents can be long: a batch is bounded by tokens too
_PATIENCE = 5.0  # seconds without a word on what is going on


def cache_folder() -> Path:
    """Name the folder for corpora that were read.

    Returns:
        ``datasets`` in ``$SEQLAB_CACHE``, else in ``seqlab`` under ``$XDG_CACHE_HOME``, else under
        ``~/.cache``.
    """
    own = os.environ.get("SEQLAB_CACHE")
    if own:
        return Path(own).expanduser() / "datasets"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "seqlab" / "datasets"


def digest_of(chunks: Iterable[bytes], *about: object) -> str:
    """Hash content together with what decides how it is read.

    Args:
        chunks: the content.
        about: further values, as JSON can write them.

    Returns:
        The SHA-256, in hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([READER_VERSION, *about]).encode())
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def chunks_of(path: Path) -> Iterator[bytes]:
    """Read a file's bytes in pieces.

    Args:
        path: the file.

    Yields:
        Its bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error


def cached_rows(
    folder: Path,
    key: str,
    name: str,
    read: Callable[[Dirt], Iterator[TableRow]],
    noun: str = "sentence",
) -> tuple[Path, list[str]]:
    """Read rows into the cache, unless they are there, whole.

    Processes may do this at the same time: each writes files of its own and then puts them in
    place, and all of them hold the same bytes.

    Args:
        folder: the cache.
        key: hexadecimal digits that stand for the content and the way of reading it.
        name: what is read, for the line of progress on stderr.
        read: gives the rows; called only when they are not there or are damaged.
        noun: what a row is, for that line.

    Returns:
        The Arrow file (stream format; the columns of the first row), and the sentences on what was
        skipped.

    Raises:
        DataError: what `read` raises, and where the cache cannot be written.
    """
    entry = folder / key[:40]
    notes = _checked_notes(entry)
    if notes is None:
        dirt = Dirt()
        try:
            entry.mkdir(parents=True, exist_ok=True)
            rows = _announced(read(dirt), name, noun)
            _replace(entry / ROWS, lambda sink: write_rows(rows, sink))
            notes = dirt.sentences()
            about = {"sha256": digest_of(chunks_of(entry / ROWS)), "notes": notes}
            _replace(entry / NOTES, lambda sink: sink.write(json.dumps(about).encode()))
        except OSError as error:
            raise DataError(
                f"cannot write the cache {entry}: {error.strerror}; set SEQLAB_CACHE to a folder "
                "with room that may be written."
            ) from error
    return entry / ROWS, notes


def _checked_notes(entry: Path) -> list[str] | None:
    """Give an entry's notes, or None where it is missing, cut or changed."""
    try:
        about = json.loads((entry / NOTES).read_bytes())
        whole = about["sha256"] == digest_of(chunks_of(entry / ROWS))
        return [str(note) for note in about["notes"]] if whole else None
    except (OSError, DataError, ValueError, KeyError, TypeError):
        return None


def _replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file aside and put it in place whole."""
    aside = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as sink:
            write(sink)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _announced(rows: Iterator[TableRow], name: str, noun: str) -> Iterator[TableRow]:
    """Pass rows on; when it takes long, say on stderr how far it is."""
    said, count = time.monotonic(), 0
    for count, row in enumerate(rows, 1):
        yield row
        if count % _BATCH_ROWS == 0 and time.monotonic() - said >= _PATIENCE:
            print(f"reading {name}: {count:,} {noun}s so far", file=sys.stderr, flush=True)
            said = time.monotonic()
    if not count:
        raise DataError(f"{name} holds no {noun}: leave the split out.")


def write_rows(rows: Iterator[TableRow], sink: IO[bytes]) -> None:
    """Write rows as an Arrow stream, a batch at a time.

    Args:
        rows: at least one row.
        sink: an open binary file.

    Raises:
        DataError: a row has tags where the first has none, or the other way round.
    """
    import pyarrow as pa

    first = next(rows)
    known = {"lines": pa.list_(pa.int32())}
    kinds = {
        name: pa.bool_() if isinstance(value, bool) else known.get(name, pa.list_(pa.string()))
        for name, value in first.columns().items()
    }
    schema = pa.schema(list(kinds.items()))
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in _batches(first, rows):
            columns = [row.columns() for row in batch]
            arrays = [pa.array([row[name] for row in columns], kinds[name]) for name in kinds]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _batches(first: TableRow, rows: Iterator[TableRow]) -> Iterator[list[TableRow]]:
    batch, tokens = [first], len(first.tokens)
    tagged = "tags" in first.columns()
    for row in rows:
        if ("tags" in row.columns()) != tagged:
            raise DataError(
                f"line {row.lines[0]} has {'no ' * tagged}tags, unlike the lines "
                "before it; give tags for all sentences or for none."
            )
        if len(batch) == _BATCH_ROWS or tokens >= _BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += len(row.tokens)
    yield batch

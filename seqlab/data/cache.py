"""Files made of corpora, to be memory-mapped: written once, checked when used, safe to race."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from seqlab.data.rows import Dirt, TableRow
from seqlab.errors import DataError

# Part of every key: raise it when a reader, or `words_of`, comes to yield other rows for a file.
READER_VERSION = 1
ROWS = "rows.arrow"
NOTES = "notes.json"
_CHUNK = 1 << 20
_LARGE = 16 << 20  # bytes; larger files are known again by their size and time of last change
_SETTLED = 2.0  # seconds after which another change of a file gives it another time
_BATCH_ROWS = 1000
_BATCH_TOKENS = 100_000  # documents can be long: a batch is bounded by tokens too
_PATIENCE = 5.0  # seconds without a word on what is going on

Item = TypeVar("Item")


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


def file_digest(cache: Path, file: Path, *about: object) -> str:
    """Hash a file together with what decides how it is read; see `digest_of`.

    A large file is read once: the digest is kept beside the size of the file, its number on the
    disk, and when it and its entry were last changed, and holds until one of these is another.

    Args:
        cache: where that is kept.
        file: the file.
        about: further values, as JSON can write them.

    Raises:
        DataError: the file cannot be read.
    """
    before = _state_of(file)
    if before is None:
        return digest_of(chunks_of(file), *about)
    note = cache / "known" / f"{digest_of([], str(file.absolute()), *about)[:40]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_bytes())
        if known["state"] == before:
            return str(known["digest"])
    digest = digest_of(chunks_of(file), *about)
    settled = time.time() - max(before[-2:]) / 1e9 > _SETTLED  # clocks of files are coarse
    if settled and _state_of(file) == before:
        with suppress(OSError):  # it is hashed again the next time
            note.parent.mkdir(parents=True, exist_ok=True)
            aside = note.with_name(f"{note.name}.{os.getpid()}-{secrets.token_hex(4)}")
            aside.write_text(json.dumps({"state": before, "digest": digest}), encoding="utf-8")
            os.replace(aside, note)
    return digest


def _state_of(file: Path) -> list[int] | None:
    """Return what changes when a large file does; None for other files."""
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from error
    if status.st_size <= _LARGE:
        return None
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


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

    def write(sinks: Mapping[str, IO[bytes]]) -> list[str]:
        dirt = Dirt()
        rows = announced(_some(read(dirt), name, noun), f"reading {name}", f"{noun}s")
        write_rows(rows, sinks[ROWS])
        return dirt.sentences()

    entry, notes = cached_files(folder, key, [ROWS], write)
    return entry / ROWS, notes


def entry_of(rows: Any) -> str:
    """Return the key of the table that rows were mapped from: see `cached_rows`.

    Args:
        rows: a ``datasets.Dataset``, or some rows of one; of several tables in a row it is a key of
            their keys.
    """
    keys = [Path(file["filename"]).parent.name for file in rows.cache_files]
    return keys[0] if len(keys) == 1 else digest_of([], *keys)


def rows_key(rows: Any) -> str:
    """Return what rows are known by that are mapped from files of the cache.

    The names of such files say what is in them, down to the numbers of rows that are held out.

    Args:
        rows: a split, a ``datasets.Dataset``.
    """
    files = [Path(file["filename"]) for file in rows.cache_files]
    return digest_of([], len(rows), *((file.parent.name, file.name) for file in files))


def cached_files(
    folder: Path,
    key: str,
    names: Sequence[str],
    write: Callable[[Mapping[str, IO[bytes]]], list[str]],
) -> tuple[Path, list[str]]:
    """Write files into the cache, unless they are there, whole; see `cached_rows`.

    Args:
        folder: the cache.
        key: hexadecimal digits that stand for what the files are made of, and how.
        names: of the files.
        write: fills them, given an open file for each, and returns what is to be said of that.

    Returns:
        The folder of the files, and what `write` returned, now or when they were written.

    Raises:
        DataError: what `write` raises, and where the cache cannot be written.
    """
    entry = folder / key[:40]
    notes = _checked_notes(entry, names)
    if notes is None:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            notes = _written(entry, names, write)
        except OSError as error:
            raise DataError(
                f"cannot write the cache {entry}: {error.strerror}; set SEQLAB_CACHE to a folder "
                "with room that may be written."
            ) from error
    return entry, notes


def _checked_notes(entry: Path, names: Sequence[str]) -> list[str] | None:
    """Give an entry's notes, or None where a file is missing, cut or changed."""
    try:
        about = json.loads((entry / NOTES).read_bytes())
        digests, stamps = about["sha256"], about.get("stamps", {})
        whole = set(digests) == set(names) and all(
            _is_whole(entry / name, digests[name], stamps.get(name)) for name in names
        )
        return [str(note) for note in about["notes"]] if whole else None
    except (OSError, DataError, ValueError, KeyError, TypeError):
        return None


def _is_whole(file: Path, digest: str, stamp: list[int] | None) -> bool:
    """Whether a file is as it was written: by its stamp where it is large, else by its bytes."""
    now = _stamp(file)
    return (now is not None and now == stamp) or digest_of(chunks_of(file)) == digest


def _stamp(file: Path) -> list[int] | None:
    """Return the size of a large file and when it was last changed; None for other files."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns] if status.st_size > _LARGE else None


def _settle(sink: IO[bytes]) -> None:
    """Bring a large file to the disk: its stamp must not outlive its bytes when power fails."""
    sink.flush()
    if sink.tell() > _LARGE:
        os.fsync(sink.fileno())


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: digest_of(chunks_of(file)) for name, file in files.items()}


def _written(
    entry: Path, names: Sequence[str], write: Callable[[Mapping[str, IO[bytes]]], list[str]]
) -> list[str]:
    """Write files aside and put them in place whole, with their checksums last."""
    with ExitStack() as stack:
        mine = f"{os.getpid()}-{secrets.token_hex(4)}"
        aside = {name: entry / f"{name}.{mine}" for name in (*names, NOTES)}
        for file in aside.values():
            stack.callback(file.unlink, missing_ok=True)
        with ExitStack() as opened:
            sinks = {name: opened.enter_context(aside[name].open("xb")) for name in names}
            notes = write(sinks)
            for sink in sinks.values():
                _settle(sink)
        others = _checked_notes(entry, names)
        if others is not None:  # another process was faster; what it wrote may be in use
            return others
        about = {
            "sha256": _digests({name: aside[name] for name in names}),
            "stamps": {name: _stamp(aside[name]) for name in names},
            "notes": notes,
        }
        aside[NOTES].write_bytes(json.dumps(about).encode())
        for name, file in aside.items():
            os.replace(file, entry / name)
    return notes


def _some(rows: Iterator[Item], name: str, noun: str) -> Iterator[Item]:
    """Pass rows on; that there is none is an error."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError(f"{name} holds no {noun}: leave the split out.")


def announced(
    items: Iterator[Item], doing: str, nouns: str, size: Callable[[Any], int] = lambda item: 1
) -> Iterator[Item]:
    """Pass items on; when it takes long, say on stderr how far it is.

    Args:
        items: what is worked on.
        doing: what is done, such as ``"reading train.tsv"``.
        nouns: what is counted, such as ``"pairs"``.
        size: how many of those an item is.

    Yields:
        The items.
    """
    said, count, looked = time.monotonic(), 0, 0
    for item in items:
        yield item
        count += size(item)
        if count - looked >= _BATCH_ROWS:
            looked = count
            if time.monotonic() - said >= _PATIENCE:
                print(f"{doing}: {count:,} {nouns} so far", file=sys.stderr, flush=True)
                said = time.monotonic()


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

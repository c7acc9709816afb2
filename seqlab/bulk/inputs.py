"""The files of a job, and the shards that they are cut into.

A shard is some consecutive rows of one file. A row of a text file or of JSON lines is a line, a
blank one as well, so that the number of a row is that of its line.
"""

from __future__ import annotations

import glob
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.bulk.rows import Reading
from seqlab.data.formats import opening_of, sniff
from seqlab.data.lines import open_bytes
from seqlab.data.unlabelled import holds_lines
from seqlab.errors import DataError

ROWS = 20_000  # of a shard, at most
_PARQUET = (".parquet", ".pq")
_JSONL = (".jsonl", ".ndjson")
_ENDS = (*_PARQUET, *_JSONL, ".txt")


class Cut(NamedTuple):
    """Where a shard lies in its file: its first row, the row after its last, the first byte.

    The byte counts in what is unpacked; in parquet there is none, and it is 0.
    """

    start: int
    stop: int
    byte: int = 0


@dataclass(frozen=True)
class InputFile:
    """A file as it was when it was cut.

    Args:
        path: absolute.
        name: what its output files begin with.
        form: ``parquet``, ``jsonl`` or ``text``.
        size: in bytes.
        modified: when, in nanoseconds.
        digest: SHA-256 of its bytes.
        cuts: its shards.
    """

    path: str
    name: str
    form: str
    size: int
    modified: int
    digest: str
    cuts: tuple[Cut, ...]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.cuts[-1].stop

    def shards(self, ending: str) -> Iterator[Shard]:
        """Give its shards in order, whose output files end so."""
        for number, cut in enumerate(self.cuts):
            yield Shard(self, cut, f"{self.name}-{number:05d}.{ending}")

    def is_there(self) -> bool:
        """Say whether the file has still the size and the time of its last change."""
        try:
            now = os.stat(self.path)
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns) == (self.size, self.modified)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON data."""
        return {**self.__dict__, "cuts": [list(cut) for cut in self.cuts]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> InputFile:
        """Make it of what :meth:`to_dict` gave."""
        return cls(**{**data, "cuts": tuple(Cut(*cut) for cut in data["cuts"])})


class Shard(NamedTuple):
    """Some consecutive rows of a file, and the name of the file that their answers go to."""

    file: InputFile
    cut: Cut
    output: str

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.cut.stop - self.cut.start


def found(source: str) -> list[str]:
    """Find the files that a folder or a pattern means.

    Args:
        source: a folder, of which the files are taken that end in .parquet, .jsonl, .ndjson or
            .txt, gzipped or not, and are not hidden; or a pattern, in which ``**`` stands for any
            folders.

    Returns:
        absolute paths, sorted.

    Raises:
        DataError: there is no such file.
    """
    if os.path.isdir(source):
        with os.scandir(source) as entries:
            names = [entry.path for entry in entries if _is_usual(entry.name)]
        remedy = "name others by a pattern, such as --input 'DIR/**/*.jsonl'"
        nothing = f"the folder {source} holds no .parquet, .jsonl, .ndjson or .txt file: {remedy}."
    else:
        names = glob.glob(source, recursive=True)
        nothing = (
            f"no file fits --input {source}: mend the pattern, and keep it in quotation marks."
        )
    files = sorted({os.path.abspath(name) for name in names if os.path.isfile(name)})
    if not files:
        raise DataError(nothing)
    return files


def _is_usual(name: str) -> bool:
    return not name.startswith(".") and name.lower().removesuffix(".gz").endswith(_ENDS)


def plain_name(path: str) -> str:
    """Return the name of a file without what says its format.

    Example:
        >>> plain_name("data/part-1.jsonl.gz")
        'part-1'
    """
    name = os.path.basename(path)
    if name.lower().endswith(".gz"):
        name = name[:-3]
    stem, end = os.path.splitext(name)
    return stem if end.lower() in _ENDS and stem else name


def cut_file(path: str, name: str, reading: Reading) -> InputFile:
    """Look a file through and cut it into shards.

    Args:
        path: absolute.
        name: what its output files begin with.
        reading: how rows are read.

    Raises:
        DataError: it cannot be read, or holds nothing of the kind that is wanted.
    """
    try:
        before = os.stat(path)
        digest = digest_of(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    form = _form_of(path, reading)
    cuts = _cuts_of_parquet(path, reading) if form == "parquet" else _cuts_of_lines(path)
    return InputFile(path, name, form, before.st_size, before.st_mtime_ns, digest, tuple(cuts))


def digest_of(*paths: str | Path) -> str:
    """Return the SHA-256 of what files hold, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                total.update(piece)
    return total.hexdigest()


def _form_of(path: str, reading: Reading) -> str:
    """Tell the format by the name, and else as predict does, by what is in the file."""
    if reading.lines:
        return "text"
    name = path.lower().removesuffix(".gz")
    if name.endswith(_PARQUET):
        return "parquet"
    if name.endswith(_JSONL):
        return "jsonl"
    form, _ = opening_of(Path(path))
    if form is not None:
        return form
    if reading.columns:
        raise DataError(
            f"{path} has a text a line, which has no --columns: give JSON lines or parquet."
        )
    if reading.kind == "tagger" and not Path(path).stat().st_size:
        return "text"
    other = {"tagger": lambda: sniff(Path(path)), "classifier": lambda: _table(path)}
    seen = other.get(reading.kind, lambda: "text")()
    if seen != "text":
        raise DataError(
            f"{path} reads like {seen}, and many files at once are JSON lines, parquet or a text a "
            "line: add --lines if each line is a text, or give the file alone."
        )
    return "text"


def _table(path: str) -> str:
    return "text" if holds_lines(Path(path)) else "a table"


def _cuts_of_lines(path: str) -> list[Cut]:
    starts, rows, byte = [(0, 0)], 0, 0
    with open_bytes(Path(path)) as file:
        try:
            for line in file:
                if rows and rows % ROWS == 0:
                    starts.append((rows, byte))
                rows += 1
                byte += len(line)
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(
                f"{path}: the file ends or breaks after line {rows} ({error}); get it anew from "
                "where it came."
            ) from error
    stops = [row for row, _ in starts[1:]] + [rows]
    return [Cut(row, stop, at) for (row, at), stop in zip(starts, stops, strict=True)]


def _cuts_of_parquet(path: str, reading: Reading) -> list[Cut]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            reading.check_schema(file.schema_arrow.names, path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole parquet file ({error}).") from error
    return [Cut(start, min(start + ROWS, rows)) for start in range(0, max(rows, 1), ROWS)]

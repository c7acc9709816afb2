"""The rows of a shard one by one: what is wrong with a row is said of it, and stops nothing."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqlab.data.labelled import TEXT_NAMES
from seqlab.data.lines import open_bytes
from seqlab.data.records import (
    SPAN_KEYS,
    TAG_KEYS,
    TEXT_KEYS,
    TOKEN_KEYS,
    asked_key,
    choose_keys,
    class_names,
    row_of_record,
)
from seqlab.data.rows import Dirt, Place, Row
from seqlab.data.unlabelled import text_of_record
from seqlab.data.untranslated import source_of_record
from seqlab.errors import DataError, SeqlabError
from seqlab.sentence import Sentence

if TYPE_CHECKING:
    from seqlab.bulk.inputs import Shard

_BOM = b"\xef\xbb\xbf"
_BATCH = 1000  # rows of parquet that are turned into Python's objects at once
_PLACE = Place("", "")  # an output row has its number
_SOURCES = {
    "tagger": (*TOKEN_KEYS, *TEXT_KEYS),
    "classifier": TEXT_NAMES,
    "translator": ("translation", "source", "text", "src"),
}
_OTHERS = {
    "tagger": (*TAG_KEYS, *SPAN_KEYS),
    "classifier": (),
    "translator": ("prefix", "require", "ban"),
}
_ROLES = {"tagger": "tokens", "classifier": "text", "translator": "source"}
ID = "id"


class Item(NamedTuple):
    """A row: its number in the file, what is answered, its id, and what is wrong with it.

    What is answered of a bad row is a text without words.
    """

    row: int
    input: Any
    key: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Reading:
    """How rows are read.

    Args:
        kind: of the model: ``tagger``, ``classifier`` or ``translator``.
        columns: which key holds the tokens and each feature, the text, or the source.
        lines: whether each line is a text, whatever it looks like.
        language: of the texts to translate, as records of pairs may name it.
    """

    kind: str
    columns: Mapping[str, int | str]
    lines: bool = False
    language: str | None = None

    def check_schema(self, names: Sequence[str], path: str) -> None:
        """Refuse a parquet file that lacks what is read.

        Args:
            names: of its columns.
            path: for the error.

        Raises:
            DataError: a column is not there.
        """
        record = dict.fromkeys(names)
        place = Place(path, ", row ")
        nested = self.kind == "translator" and "translation" in record
        for role, key in () if nested else self.columns.items():
            asked_key(record, key, role, place, 0)
        if _ROLES[self.kind] not in self.columns and not self._sources(record):
            raise DataError(
                f"{path} has no column of texts: its columns are {', '.join(names)}; say which it "
                f"is, as in `--columns {_ROLES[self.kind]}=COLUMN`."
            )

    def _sources(self, record: Mapping[str, Any]) -> list[str]:
        """Name the keys of a record that may hold its text."""
        asked = self.columns.get(_ROLES[self.kind])
        names = [asked] if asked is not None else [*_SOURCES[self.kind], self.language]
        return [str(name) for name in names if name in record]

    def items(self, shard: Shard) -> Iterator[Item]:
        """Read the rows of a shard, as many as it has.

        Args:
            shard: which.

        Yields:
            The rows in order.

        Raises:
            DataError: the file cannot be read any more, or was changed.
        """
        form, first = shard.file.form, shard.cut.start
        if form == "parquet":
            for number, record in enumerate(self._records(shard), first):
                bad = isinstance(record, str)
                yield self._bad(number, record) if bad else self._of_record(record, number)
            return
        read = self._of_json if form == "jsonl" else self._of_line
        for number, line in enumerate(_lines(shard), first):
            yield read(line, number)

    def _of_line(self, line: bytes, number: int) -> Item:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            return self._bad(number, _not_utf8(error))
        return Item(number, text if self.kind == "translator" else Sentence.of(text))

    def _of_json(self, line: bytes, number: int) -> Item:
        """Read a line of JSON, with the words of :mod:`seqlab.data.records` for what is wrong."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            return self._bad(number, _not_utf8(error))
        if not text or text.isspace():
            return self._bad(number, "no text: the line is blank.")
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
            return self._bad(number, f"not JSON ({reason}).")
        except (ValueError, RecursionError) as error:
            return self._bad(number, f"not JSON ({error}).")
        if not isinstance(record, dict):
            return self._bad(number, "not a JSON object.")
        if "\\u" in text:  # half a surrogate pair may be written so, but is no character
            try:
                json.dumps(record, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                return self._bad(number, f"half a surrogate pair ({error.reason}).")
        return self._of_record(record, number)

    def _of_record(self, record: Mapping[str, Any], number: int) -> Item:
        key = _plain(record.get(ID))
        try:
            return Item(number, self._input(record, number), key)
        except SeqlabError as error:
            return self._bad(number, str(error).removeprefix(f"{number}: "), key)

    def _input(self, record: Mapping[str, Any], number: int) -> Any:
        found = self._sources(record)
        if found and not any(isinstance(record[key], str | list | dict) for key in found):
            known = "null" if record[found[0]] is None else "neither a text nor a list of words"
            raise DataError(f"no text: {found[0]!r} is {known}.")
        if self.kind == "translator":
            return self._source(record, number)
        if self.kind == "classifier":
            row = text_of_record(record, self.columns, _PLACE, number)
        else:
            row = self._tokens(record, number)
        row = row.without_empty(Dirt(), "")
        return Sentence(row.tokens, row.features, row.text, row.offsets)

    def _tokens(self, record: Mapping[str, Any], number: int) -> Row:
        keys = choose_keys(record, self.columns, False, _PLACE, number)
        for key in keys.all():
            if record.get(key) is None:
                raise DataError(f"{key!r} is null.")
        return row_of_record(record, keys, _PLACE, number, {})

    def _source(self, record: Mapping[str, Any], number: int) -> Any:
        from seqlab.wishes import Wishes  # which needs torch

        column = self.columns.get("source")
        row = source_of_record(record, column, self.language, _PLACE, number)
        if not (row.prefix or row.require or row.ban):
            return row.text
        return row.text, Wishes(row.prefix, row.require, row.ban)

    def _bad(self, number: int, reason: str, key: Any = None) -> Item:
        return Item(number, self.nothing(), key, reason)

    def nothing(self) -> Any:
        """Return a text without words, which costs a model nothing."""
        if self.kind == "translator":
            return ""
        features = (name for name in self.columns if name not in ("tokens", "tags", "text"))
        return Sentence([], {name: [] for name in features})

    def _records(self, shard: Shard) -> Iterator[Any]:
        """Read rows of parquet; of what is no record comes the reason."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wanted = {*_SOURCES[self.kind], *_OTHERS[self.kind], *self.columns.values(), ID}
        wanted.add(self.language or ID)
        start, stop, _ = shard.cut
        try:
            with pq.ParquetFile(shard.file.path) as file:
                names = class_names(file.schema_arrow.metadata or {})
                groups, first = _groups(file.metadata, start, stop)
                columns = [name for name in file.schema_arrow.names if name in wanted]
                for batch in file.iter_batches(_BATCH, groups, columns) if groups else ():
                    left = batch.slice(max(0, start - first), max(0, stop - max(first, start)))
                    first += batch.num_rows
                    for record in _objects(left):
                        yield record if isinstance(record, str) else _named(record, names)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shard.file.path}: not a whole parquet file ({error}).") from error


def _groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Choose the groups of rows that a shard lies in, and say which row they begin with."""
    groups: list[int] = []
    first = row = 0
    for number in range(metadata.num_row_groups):
        after = row + metadata.row_group(number).num_rows
        if row < stop and start < after:
            first = first if groups else row
            groups.append(number)
        row = after
    return groups, first


def _objects(batch: Any) -> list[Any]:
    try:
        found: list[Any] = batch.to_pylist()
        return found
    except (UnicodeDecodeError, ValueError, OverflowError):  # of some row: a date of no calendar
        found = []
        for row in range(batch.num_rows):
            try:
                found += batch.slice(row, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                found.append(f"the row cannot be read ({error}).")
        return found


def _named(record: dict[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Put the names of classes in the place of their numbers."""
    for key, known in names.items():
        values = record.get(key)
        if isinstance(values, list) and all(
            isinstance(value, int) and 0 <= value < len(known) for value in values
        ):
            record[key] = [known[value] for value in values]
    return record


def _lines(shard: Shard) -> Iterator[bytes]:
    path = shard.file.path
    with open_bytes(Path(path)) as file:
        try:
            file.seek(shard.cut.byte)
            for number in range(shard.cut.start, shard.cut.stop):
                line = file.readline()
                if not line:
                    raise DataError(f"{path} was changed while it was read: it is shorter now.")
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                yield line if number else line.removeprefix(_BOM)
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{path}: the file breaks ({error}); get it anew.") from error


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 ({error.reason} at byte {error.start + 1} of the line)."


def _plain(key: Any) -> Any:
    """Make plain JSON of an id: what is neither a text nor a number is written as Python does."""
    if key is None or isinstance(key, str | int):
        return key
    if isinstance(key, float) and math.isfinite(key):
        return key
    return str(key)

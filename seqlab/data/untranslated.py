"""Texts to be translated, from any file: a text a line, a column of a table, or records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from seqlab.data.formats import opening_of
from seqlab.data.labelled import likely_separator
from seqlab.data.lines import lines_of
from seqlab.data.records import Record, objects_of, parquet_records
from seqlab.data.rows import Place, find_column
from seqlab.data.tables import open_table, unquoted
from seqlab.errors import DataError, nearest

_NESTED = "translation"
_KEYS = ("source", "text", "src")
_WISHES = ("require", "ban")


class SourceRow(NamedTuple):
    """A text to translate, and what a record says of its translation.

    Attributes:
        text: the text.
        place: where it stands, such as ``file:3``.
        prefix: how the translation begins; empty where nothing is said.
        require: phrases that it contains.
        ban: phrases that it does not contain.
    """

    text: str
    place: str
    prefix: str = ""
    require: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()


def is_records(path: Path) -> bool:
    """Tell whether a file holds records, JSON Lines or parquet.

    Raises:
        DataError: the file cannot be read, or is UTF-16.
    """
    return opening_of(path)[0] is not None


def read_untranslated(
    path: Path, column: int | str | None, language: str | None, lines: bool = False
) -> Iterator[SourceRow]:
    """Read texts in order, blank ones as well.

    Args:
        path: the file, gzipped or not; parquet not.
        column: the key of the text; or its column in a table: its name in a header, or its number,
            from 0, among columns parted by tabs. Without one, all that is no record is a text a
            line.
        language: of the texts, as records of pairs may name it.
        lines: a text a line, whatever it looks like.

    Yields:
        The texts.

    Raises:
        DataError: the file is damaged, or holds no text; with file and line.
    """
    rows: Iterator[SourceRow]
    if lines or not (is_records(path) or column is not None):
        rows = (SourceRow(line, f"{path}:{number}") for number, line in lines_of(path))
    elif is_records(path):
        rows = _of_records(path, column, language)
    else:
        rows = _of_table(path, column)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} holds no text: give a file with a text a line, or JSONL.")
    yield from chain([first], rows)


def _of_records(path: Path, column: int | str | None, language: str | None) -> Iterator[SourceRow]:
    if opening_of(path)[0] == "parquet":
        place = Place(str(path), ", row ")
        records = parquet_records(path, list, {})
    else:
        place = Place(str(path))
        records = objects_of(path, place)
    for number, record in records:
        yield source_of_record(record, column, language, place, number)


def source_of_record(
    record: Record, column: int | str | None, language: str | None, place: Place, number: int
) -> SourceRow:
    """Take the text to translate, and the wishes, from a single record.

    Args:
        record: what it holds.
        column: the key of the text, where it was said.
        language: of the texts, as records of pairs may name it.
        place: where it comes from, for errors.
        number: of the record, for errors.

    Raises:
        DataError: it holds no text, or its wishes are none.
    """
    inner: Any = record.get(_NESTED)
    pair = inner if isinstance(inner, Mapping) else record
    text = pair[_key_of(pair, column, language, place, number)]
    if not isinstance(text, str):
        raise place.error(number, "the source is no text; write it as one.")
    return SourceRow(text, f"{place.file}{place.unit}{number}", *_wishes(record, place, number))


def _key_of(
    record: Record, column: int | str | None, language: str | None, place: Place, number: int
) -> str:
    """Choose the key of the text: that which is asked for, the language, or what is usual."""
    if column is not None:
        if column in record:
            return str(column)
        near = nearest(str(column), record)
        raise place.error(number, f"no {str(column)!r} among {', '.join(record)}.{near}")
    for name in (language, *_KEYS):
        if name is not None and name in record:
            return name
    raise place.error(
        number,
        f"no text: the keys are {', '.join(record)}; say which it is, as in `--columns "
        "source=KEY`.",
    )


def _wishes(
    record: Record, place: Place, number: int
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Read what a record says of its translation."""
    prefix = record.get("prefix") or ""
    if not isinstance(prefix, str):
        raise place.error(number, "'prefix' is no text; write it as one, or leave it out.")
    phrases = []
    for key in _WISHES:
        value = record.get(key) or []
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(phrase, str) for phrase in value):
            raise place.error(number, f"{key!r} is no list of texts; write it as one.")
        phrases.append(tuple(value))
    return prefix, phrases[0], phrases[1]


def _of_table(path: Path, column: int | str | None) -> Iterator[SourceRow]:
    place = Place(str(path))
    if isinstance(column, str):
        if not any(line.strip() for _, line in lines_of(path)):
            return
        header, rows = open_table(path, likely_separator)
        at = find_column(column, header, "source", place)
        for number, cells in rows:
            yield SourceRow(cells[at] if cells else "", f"{path}:{number}")
        return
    for number, line in lines_of(path):
        cells = [unquoted(cell) for cell in line.split("\t")] if line.strip() else []
        known = [str(at) for at in range(len(cells))]
        text = cells[find_column(column or 0, known, "source", place)] if cells else ""
        yield SourceRow(text, f"{path}:{number}")

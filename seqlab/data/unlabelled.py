"""Texts to be classified, from any file of labelled texts; labels are not needed, nor looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from seqlab.data.formats import opening_of
from seqlab.data.labelled import TEXT_NAMES, likely_separator
from seqlab.data.records import (
    TOKEN_KEYS,
    Keys,
    Record,
    asked_key,
    complete_records,
    is_list_of,
    objects_of,
    parquet_records,
)
from seqlab.data.rows import Columns, Dirt, Place, Row, find_column
from seqlab.data.tables import open_table, spaced_parts
from seqlab.data.texts import text_row
from seqlab.errors import DataError

# What is prose has commas too, but blanks after them, and rarely a column's name in between.
_COLUMN_NAME = re.compile(r'"?[^\W_](?:[\w .#/-]{0,38}\w)?"?')


def holds_lines(path: Path) -> bool:
    """Tell whether a file holds a text a line: no records, and no table with a header.

    A header names two columns or more, and one of them as
    :data:`seqlab.data.labelled.TEXT_NAMES` has it.

    Args:
        path: the file, gzipped or not.

    Raises:
        DataError: the file cannot be read, or is UTF-16.
    """
    form, lines = opening_of(path)
    header = next((line for line in lines if line.strip()), "")
    return form is None and _separator_of(header) is None


def read_unlabelled(path: Path, columns: Columns, dirt: Dirt) -> Iterator[Row]:
    """Read the texts of JSONL, parquet, CSV or TSV with a header.

    Args:
        path: the file, gzipped or not; parquet not.
        columns: the key, name or number of the ``text``; else one of
            :data:`seqlab.data.labelled.TEXT_NAMES`.
        dirt: where empty words of lists of words are noted.

    Yields:
        The texts in order, those without a word as well.

    Raises:
        DataError: the file is damaged or inconsistent, or there is no text; with file and line.
    """
    form, _ = opening_of(path)
    rows = _rows(path, form, columns)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} holds no text: give JSONL, CSV or TSV with a header, or parquet.")
    for row in chain([first], rows):
        yield row.without_empty(dirt, path.name)


def _rows(path: Path, form: str | None, columns: Columns) -> Iterator[Row]:
    if form is None:
        yield from _of_table(path, columns)
        return
    place = Place(str(path), ", row ") if form == "parquet" else Place(str(path))

    def choose(record: Record, number: int) -> Keys:
        return Keys(_text_key(record, columns, place, number), None, False, {})

    if form == "parquet":
        records = parquet_records(path, lambda record: choose(record, 1).all(), {})
    else:
        records = objects_of(path, place)
    for number, record, keys in complete_records(records, choose, place):
        yield _of_value(record[keys.source], keys.source, place, number)


def text_of_record(record: Record, columns: Columns, place: Place, number: int) -> Row:
    """Make a row of the text, or the words, of a single record.

    Args:
        record: what it holds.
        columns: as in `read_unlabelled`.
        place: where it comes from, for errors.
        number: of the record, for errors.

    Raises:
        DataError: it holds no text.
    """
    key = _text_key(record, columns, place, number)
    return _of_value(record[key], key, place, number)


def _text_key(record: Record, columns: Columns, place: Place, number: int) -> str:
    """Choose the key of the text as training does: lists of words before texts."""
    if "text" in columns:
        return asked_key(record, columns["text"], "text", place, number)
    for name in TEXT_NAMES:
        if name in record and (name not in TOKEN_KEYS or is_list_of(record[name], (str,))):
            return name
    raise place.error(
        number,
        f"no text: the keys are {', '.join(record)}; say which it is, as in `--columns text=KEY`.",
    )


def _of_value(value: object, key: str, place: Place, number: int) -> Row:
    if isinstance(value, str):
        return text_row(value, None, place, number)
    if isinstance(value, list) and is_list_of(value, (str,)):
        return Row(value, None, [number] * len(value), {})
    raise place.error(number, f"{key!r} is neither a text nor a list of words; write one of them.")


def _of_table(path: Path, columns: Columns) -> Iterator[Row]:
    place = Place(str(path))
    header, rows = open_table(path, lambda line: _separator_of(line) or likely_separator(line))
    lower = [name.strip().lower() for name in header]
    if "text" in columns:
        at = find_column(columns["text"], header, "text", place)
    else:
        at = lower.index(next(name for name in TEXT_NAMES if name in lower))
    for number, cells in rows:
        if cells and lower[at] in TOKEN_KEYS:
            words = spaced_parts(cells[at])
            yield Row(words, None, [number] * len(words), {})
        elif cells:
            yield text_row(cells[at], None, place, number)


def _separator_of(header: str) -> str | None:
    """Tell what parts the columns of a header, one of which holds texts; None for other lines."""
    for separator in "\t,;":
        names = header.split(separator)
        known = {name.strip('"').lower() for name in names} & {*TEXT_NAMES}
        if len(names) > 1 and known and all(map(_COLUMN_NAME.fullmatch, names)):
            return separator
    return None

"""Pairs of sentences in one file: TSV, CSV, JSONL, parquet, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from seqlab.data.formats import opening_of
from seqlab.data.labelled import likely_separator
from seqlab.data.lines import lines_of
from seqlab.data.pair_rows import SIDE_NAMES, Languages, PairRow, is_language, pair_row
from seqlab.data.records import (
    Keys,
    Names,
    Numbered,
    Record,
    asked_key,
    complete_records,
    objects_of,
    parquet_records,
)
from seqlab.data.rows import Columns, Dirt, Place, find_column
from seqlab.data.tables import Cells, open_table, unquoted

ROLES = ("source", "target")
_NESTED = "translation"
_WHOLE = "which every pair needs: fill it in, or leave the pair out."


@dataclass(frozen=True)
class PairReader:
    """Reads pairs of sentences.

    Args:
        columns: names, or numbers in a table, of the ``source`` and the ``target``.
        languages: names of theirs, where `columns` says nothing; else ``source`` and ``target``,
            ``src`` and ``tgt``.
    """

    noun: ClassVar[str] = "pair"
    folders: ClassVar[bool] = False
    columns: Columns
    languages: Languages

    def about(self) -> list[object]:
        """Return what decides how a file is read."""
        return ["pairs", sorted(self.columns.items()), *self.languages]

    def names(self, file: Path) -> tuple[list[str], bool]:
        """Name the columns of a table's header, or the keys of records.

        Returns:
            The names, none for a table without a header; and whether it is a table.
        """
        form, lines = opening_of(file)
        if form is None:
            header = _cells(next((line for line in lines if line.strip()), ""))
            return header if self._is_header(header) else [], True
        place = Place(str(file))
        records = objects_of(file, place) if form == "jsonl" else parquet_records(file, list, {})
        first: Record = next((record for _, record in records), {})
        return list(_opened(first)), False

    def rows(self, file: Path, dirt: Dirt) -> Iterator[PairRow]:
        """Read a file.

        Args:
            file: UTF-8, gzipped or not; parquet not.
            dirt: where pairs with an empty side are noted.

        Yields:
            The pairs with text on both sides, in order.

        Raises:
            DataError: the file is missing, damaged or inconsistent, with file and line; or nothing
                tells source and target.
        """
        form, lines = opening_of(file)
        if form == "parquet":
            place = Place(str(file), ", row ")
            names: Names = {}
            records = parquet_records(file, lambda record: self.keys(record, place), names)
            yield from self.rows_of(records, place, dirt, names)
        elif form == "jsonl":
            place = Place(str(file))
            yield from self.rows_of(objects_of(file, place), place, dirt, {})
        else:
            first = next((line for line in lines if line.strip()), "")
            if first:
                yield from self._table_rows(file, _cells(first), dirt)

    def keys(self, record: Record, place: Place) -> list[str]:
        """Name the keys to read, given the first record of a data set."""
        inner = _opened(record)
        return [_NESTED] if inner is not record else self._keys(inner, place, 1).all()

    def rows_of(
        self, records: Numbered, place: Place, dirt: Dirt, names: Names
    ) -> Iterator[PairRow]:
        """Turn records into pairs; the first decides which keys are read.

        Args:
            records: number and content of each; or of its ``translation``.
            place: where they come from.
            dirt: where pairs with an empty side are noted.
            names: of classes, of which texts have none.

        Yields:
            The pairs with text on both sides.

        Raises:
            DataError: a record lacks a side, or holds no text there; with its number.
        """
        opened = ((number, _opened(record)) for number, record in records)
        whole = complete_records(
            opened, lambda record, at: self._keys(record, place, at), place, _WHOLE
        )
        file = Path(place.file).name
        for number, record, keys in whole:
            for key in keys.all():
                if not isinstance(record[key], str):
                    raise place.error(number, f"{key!r} is no text; write both sides as texts.")
            yield from pair_row(record[keys.source], record[str(keys.target)], number, file, dirt)

    def _keys(self, record: Record, place: Place, number: int) -> Keys:
        chosen = {
            role: asked_key(record, self.columns[role], role, place, number)
            if role in self.columns
            else self._named(role, list(record), place, number)
            for role in ROLES
        }
        _apart(chosen, place, number)
        return Keys(chosen["source"], chosen["target"], True, {})

    def _named(self, role: str, names: Sequence[str], place: Place, number: int) -> str:
        """Find the name of a side: its language, or what sides are called."""
        at = ROLES.index(role)
        wanted = dict.fromkeys([self.languages[at], *(pair[at] for pair in SIDE_NAMES)])
        for name in wanted:
            for known in names:
                if name is not None and known.strip().lower() == name.lower():
                    return known
        say = f"say which it is with data.columns.{role}."
        if self.languages[at] is None:
            say = (
                "say which languages these are with data.source_language and "
                f"data.target_language, or which it is with data.columns.{role}."
            )
        what = self.languages[at] or role
        raise place.error(number, f"no {what!r} among {', '.join(names)}; {say}")

    # Tables

    def _is_header(self, cells: Sequence[str]) -> bool:
        """Whether the first line of a table names its columns, or was told to."""
        if any(isinstance(at, str) for at in self.columns.values()):
            return True
        lower = [cell.strip().lower() for cell in cells]
        codes = {cell for cell in lower if is_language(cell)}
        given = {name.lower() for name in self.languages if name is not None}
        named = any(set(pair) <= set(lower) for pair in SIDE_NAMES)
        return named or len(codes) > 1 or (len(given) == 2 and given <= set(lower))

    def _table_rows(self, file: Path, first: list[str], dirt: Dirt) -> Iterator[PairRow]:
        place, headed = Place(str(file)), self._is_header(first)
        header, rows = self._open(file, headed, place)
        if len(header) < 2:
            raise place.error(
                1,
                "one column, where a pair has two: give TSV (source, tab, target), CSV with a "
                "header, JSONL or parquet; or parallel files, such as data.train: train for "
                "train.de and train.en.",
            )
        at = self._at(header, headed, place)
        for number, cells in rows:
            source, target = (cells[at[role]] if cells else "" for role in ROLES)
            yield from pair_row(source, target, number, file.name, dirt)

    def _open(self, file: Path, headed: bool, place: Place) -> tuple[list[str], Iterator[Cells]]:
        """Open a table: its header, or numbers for one, and its rows."""
        first = next(line for _, line in lines_of(file) if line.strip())
        if "\t" not in first or (headed and first.startswith('"')):
            if not headed and likely_separator(first) in first:
                raise place.error(
                    1,
                    "no header that names two columns, such as source and target or the languages: "
                    "write one, or separate the columns by tabs.",
                )
            return open_table(file, likely_separator)
        rows = _tabbed(file, place)
        if headed:
            return next(cells for _, cells in rows if cells), rows
        start = next(row for row in rows if row[1])
        return [str(number) for number in range(len(start[1]))], chain([start], rows)

    def _at(self, header: list[str], headed: bool, place: Place) -> dict[str, int]:
        """Find the columns of both sides; the first two without a header."""
        at = {}
        for number, role in enumerate(ROLES):
            if role in self.columns:
                at[role] = find_column(self.columns[role], header, role, place)
            else:
                at[role] = header.index(self._named(role, header, place, 1)) if headed else number
        _apart({role: header[column] for role, column in at.items()}, place, 1)
        return at


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(likely_separator(line))]


def _opened(record: Record) -> Record:
    """Give what is in the ``translation`` of a record, as data sets of the hub have it."""
    inner: Any = record.get(_NESTED)
    return inner if isinstance(inner, Mapping) else record


def _apart(chosen: Mapping[str, str], place: Place, number: int) -> None:
    if chosen["source"] == chosen["target"]:
        raise place.error(
            number,
            f"{chosen['source']!r} cannot be both source and target: name two in data.columns.",
        )


def _tabbed(file: Path, place: Place) -> Iterator[Cells]:
    """Read the cells of TSV as they stand; quotation marks are text in most corpora of pairs."""
    width: int | None = None
    for number, line in lines_of(file):
        cells = [unquoted(cell) for cell in line.split("\t")] if line.strip() else []
        if cells and width is not None and len(cells) != width:
            raise place.error(
                number,
                f"{len(cells)} column{'s' if len(cells) > 1 else ''} where the first line has "
                f"{width}; write source and target with one tab between.",
            )
        width = width or len(cells)
        yield number, cells

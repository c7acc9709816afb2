"""Labelled texts: JSONL, parquet, CSV and TSV with a header, and folders of texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from seqlab.data.folders import read_folder
from seqlab.data.formats import opening_of
from seqlab.data.labels import LabelledRow, Labels
from seqlab.data.records import (
    TEXT_KEYS,
    TOKEN_KEYS,
    Keys,
    Names,
    Numbered,
    Record,
    asked_key,
    complete_records,
    is_list_of,
    objects_of,
    parquet_records,
)
from seqlab.data.rows import Columns, Dirt, Place, Row, Unlabelled, find_column
from seqlab.data.tables import open_table, spaced_parts
from seqlab.errors import DataError, nearest
from seqlab.words import words_of

TEXT_NAMES = (*TOKEN_KEYS, *TEXT_KEYS, "content", "document", "review", "utterance")
PLAIN_LABEL_NAMES = ("label", "labels")
LABEL_NAMES = (*PLAIN_LABEL_NAMES, "class", "category", "intent", "sentiment", "topic")
_NAMES = {"text": TEXT_NAMES, "label": LABEL_NAMES}
_LONG = 40  # characters of a name that errors show
_LACKING = (
    "which every row needs; fill it in (with an empty list where none of several labels fits), or "
    "leave the row out."
)


@dataclass(frozen=True)
class LabelledReader:
    """Reads texts with labels.

    Args:
        columns: names, or numbers in a table, of the ``text`` (else one of `TEXT_NAMES`) and of the
            ``label`` (else one of `LABEL_NAMES`).
        several: whether a text may have any number of labels; None lets each file tell.
        separator: what parts the labels in one value.
    """

    noun: ClassVar[str] = "text"
    folders: ClassVar[bool] = True
    columns: Columns
    several: bool | None = None
    separator: str | None = None

    def about(self) -> list[object]:
        """Return what decides how a file is read."""
        return ["labels", sorted(self.columns.items()), self.several, self.separator]

    def rows(self, file: Path, dirt: Dirt) -> Iterator[LabelledRow]:
        """Read a file, or a folder with a folder of texts for each label.

        Args:
            file: UTF-8, gzipped or not; parquet not.
            dirt: where texts without any word are noted.

        Yields:
            The texts that hold a word, in order.

        Raises:
            DataError: the file is missing, damaged or inconsistent, with file and line; a column is
                not there; or it holds no text.
        """
        count = 0
        for row in self._rows(file, dirt):
            count += 1
            yield row
        if not count:
            raise DataError(
                f"{file} holds no text with a word in it: give JSONL, CSV or TSV with a header, "
                "parquet, or a folder of texts for each label."
            )

    def _rows(self, file: Path, dirt: Dirt) -> Iterator[LabelledRow]:
        if file.is_dir():
            yield from read_folder(file, dirt, several=bool(self.several))
            return
        form, lines = opening_of(file)
        if form == "parquet":
            place, names = Place(str(file), ", row "), dict[str, list[str]]()
            records = parquet_records(file, lambda record: self.keys(record, place), names)
            yield from self.rows_of(records, place, dirt, names)
        elif form == "jsonl":
            place = Place(str(file))
            yield from self.rows_of(objects_of(file, place), place, dirt, {})
        elif any(line.strip() for line in lines):
            yield from self._table_rows(file, dirt)

    def keys(self, record: Record, place: Place) -> list[str]:
        """Name the keys to read, given the first record of a data set."""
        return self._keys(record, place, 1).all()

    def rows_of(
        self, records: Numbered, place: Place, dirt: Dirt, names: Names
    ) -> Iterator[LabelledRow]:
        """Turn records into rows; the first decides which keys are read.

        Args:
            records: number and content of each.
            place: where they come from.
            dirt: where texts without any word, and such whose class nobody knows, are noted.
            names: for keys with numbers in place of names, the names.

        Yields:
            The texts that hold a word.

        Raises:
            DataError: a record lacks the text or the label, or holds none there; with its number.
        """
        labels: Labels | None = None
        labelled = False
        whole = complete_records(
            records, lambda record, at: self._keys(record, place, at), place, _LACKING
        )
        for number, record, keys in whole:
            target = str(keys.target)
            labels = labels or self._labels(target, place, names.get(target, ()))
            found = labels.read(record[target], number)
            if found is None:
                dirt.note("without a label (-1)", Path(place.file).name, number)
                continue
            labelled = True
            tokens = _tokens_of(record, keys, place, number)
            yield from _row(tokens, found, labels.several, place, number, dirt)
        if labels is not None and not labelled:
            raise Unlabelled(f"{place.file}: none of its texts has a label (all are -1).")

    def _labels(self, key: str, place: Place, names: Sequence[str] = ()) -> Labels:
        return Labels(key, place, self.several, self.separator, names)

    def _keys(self, record: Record, place: Place, number: int) -> Keys:
        known = [key for key in record if key not in TOKEN_KEYS or _is_words(record[key])]
        chosen = {
            role: asked_key(record, self.columns[role], role, place, number)
            if role in self.columns
            else _chosen(role, known, list(record), place, number)
            for role in _NAMES
        }
        text, label = _apart(chosen, place, number)
        return Keys(text, label, isinstance(record[text], str), {})

    def _table_rows(self, path: Path, dirt: Dirt) -> Iterator[LabelledRow]:
        place = Place(str(path))
        header, rows = open_table(path, likely_separator)
        lower = [name.strip().lower() for name in header]
        named = bool({*TEXT_NAMES, *LABEL_NAMES} & {*lower})
        at = {
            role: find_column(self.columns[role], header, role, place)
            if role in self.columns
            else lower.index(_chosen(role, lower, header, place, 1, named))
            for role in _NAMES
        }
        _apart({role: header[column] for role, column in at.items()}, place, 1)
        labels = self._labels(header[at["label"]], place)
        cut = spaced_parts if lower[at["text"]] in TOKEN_KEYS else _words_in
        for number, cells in rows:
            if cells:
                found = labels.read(cells[at["label"]], number) or []
                tokens = cut(cells[at["text"]])
                yield from _row(tokens, found, labels.several, place, number, dirt)


def _chosen(
    role: str,
    names: Sequence[str],
    known: Sequence[str],
    place: Place,
    number: int,
    named: bool = True,
) -> str:
    """Choose the key or column of a role among names.

    Args:
        role: ``text`` or ``label``.
        names: of the keys or columns.
        known: the same as the file writes them.
        place: the file, for the error.
        number: of the line, for the error.
        named: whether these are names at all, and not the first of texts without a header.
    """
    found = [name for name in _NAMES[role] if name in names]
    plain = [name for name in found if name in PLAIN_LABEL_NAMES] or found
    if not found:
        shown = ", ".join(name if len(name) < _LONG else f"{name[:_LONG]}..." for name in known)
        above = "" if named else "write such a line above the texts, or "
        other = "" if named else " A corpus of tagged sentences is for seqlab.TaggingData."
        raise place.error(
            number,
            f"no {role} among {shown}, which should be names of columns, such as text and label; "
            f"{above}say which is the {role} with data.columns.{role}."
            f"{other or nearest(role, known)}",
        )
    if role == "label" and len(plain) > 1:
        raise place.error(
            number,
            f"{' and '.join(plain)} could all be the label; say which with data.columns.label.",
        )
    return plain[0]


def _apart(chosen: Mapping[str, str], place: Place, number: int) -> tuple[str, str]:
    """Give the names of text and label, which have to be two."""
    text, label = chosen["text"], chosen["label"]
    if text == label:
        raise place.error(
            number, f"{text!r} cannot be both text and label; mend data.columns: name two columns."
        )
    return text, label


def likely_separator(header: str) -> str:
    """Tell what parts the columns: a tab, or else the more frequent of comma and semicolon."""
    return "\t" if "\t" in header else max(",;", key=header.count)


def _is_words(value: object) -> bool:
    return value is None or is_list_of(value, (str,))


def _words_in(text: str) -> list[str]:
    return [word.text for word in words_of(text)]


def _tokens_of(record: Record, keys: Keys, place: Place, number: int) -> list[str]:
    """Take the words of a record, or cut its text into words; as the first record has it."""
    value = record[keys.source]
    if keys.raw and isinstance(value, str):
        return _words_in(value)
    if not keys.raw and is_list_of(value, (str,)):
        return list(value)
    wanted = "a text" if keys.raw else "a list of words"
    raise place.error(
        number,
        f"{keys.source!r} is not {wanted}; write texts, or lists of words, alike in all rows.",
    )


def _row(
    tokens: list[str], labels: list[str], several: bool, place: Place, number: int, dirt: Dirt
) -> Iterator[LabelledRow]:
    """Give the row of a text, unless it holds no word."""
    file = Path(place.file).name
    kept = Row(tokens, None, [number] * len(tokens), {}).without_empty(dirt, file).tokens
    if kept:
        yield LabelledRow(kept, labels, [number], several)
    else:
        dirt.note("without any word", file, number)

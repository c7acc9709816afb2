"""Texts with labels as rows, and what stands under the label of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqlab.data.rows import Place
from seqlab.data.tables import PYTHON_LIST

_NO_CLASS = -1  # what the library datasets writes where nobody knows the class


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One text, as a file holds it.

    Args:
        tokens: its words.
        labels: its labels, each once; exactly one where `several` is false.
        lines: the 1-based line, row or text that it stands in.
        several: whether the file is one whose texts may have any number of labels.
    """

    tokens: list[str]
    labels: list[str]
    lines: list[int]
    several: bool

    def columns(self) -> dict[str, Any]:
        """Return what the cache keeps of the row, by the names of its columns."""
        return {
            "tokens": self.tokens,
            "labels": self.labels,
            "lines": self.lines,
            "several": self.several,
        }


class Labels:
    """Reads the labels of the texts of one file, which are all written alike.

    Args:
        key: the key or column that they stand in, for errors.
        place: the file, for errors.
        several: whether a text may have any number of labels; None lets the file tell: it may where
            labels are lists, or a separator is given.
        separator: what parts the labels in one value.
        names: the names of classes that are numbers.

    Example:
        >>> labels = Labels("label", Place("train.csv"), separator="|")
        >>> labels.read("sports | local", 2), labels.read("", 3), labels.several
        (['sports', 'local'], [], True)
    """

    def __init__(
        self,
        key: str,
        place: Place,
        several: bool | None = None,
        separator: str | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self._key, self._place, self._separator, self._names = key, place, separator, names
        self._asked = several
        self._lists: bool | None = None

    @property
    def several(self) -> bool:
        """Whether a text may have any number of labels; known once the first was read."""
        if self._asked is not None:
            return self._asked
        return bool(self._lists) or self._separator is not None

    def read(self, value: object, number: int) -> list[str] | None:
        """Read the labels of one text.

        Args:
            value: a text, a whole number, a truth value, or a list of such.
            number: of the line or row.

        Returns:
            Its labels, each once; None where its class number says that nobody knows.

        Raises:
            DataError: the value is of another kind than those before, holds something that is no
                label, or not exactly one label where there has to be one; with the line.
        """
        is_list = isinstance(value, list)
        if self._lists is None:
            self._lists = is_list
        elif self._lists != is_list:
            kinds = ("a single value", "a list")
            raise self._place.error(
                number,
                f"{self._key!r} is {kinds[is_list]} here and {kinds[self._lists]} before; write "
                "it alike for all texts.",
            )
        if self._names and value == _NO_CLASS and not isinstance(value, bool):
            return None
        values = value if isinstance(value, list) else self._parts(value, number)
        labels = list(dict.fromkeys(self._label(part, number) for part in values))
        if not self.several and len(labels) != 1:
            raise self._place.error(
                number,
                f"{len(labels)} labels, where a text has one; write one label in {self._key!r}, "
                "or set data.multi_label to true.",
            )
        return labels

    def _parts(self, value: object, number: int) -> list[object]:
        if not isinstance(value, str):
            return [value]
        if PYTHON_LIST.fullmatch(value):
            raise self._place.error(
                number,
                f"{self._key!r} is a list as Python prints it; write JSONL, or labels with "
                "data.label_separator between them.",
            )
        if not self.several:
            return [value]
        parts = [value] if self._separator is None else value.split(self._separator)
        return [part for part in parts if part.strip()]

    def _label(self, value: object, number: int) -> str:
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return self._class(value, number)
        if not isinstance(value, str):
            raise self._place.error(
                number,
                f"{self._key!r} is {value!r}, which is no label; write a text, a whole number, "
                "or true or false.",
            )
        if not value.strip():
            raise self._place.error(
                number, f"{self._key!r} is empty; write the label, or leave the text out."
            )
        return value.strip()

    def _class(self, number: int, line: int) -> str:
        if not self._names:
            return str(number)
        if 0 <= number < len(self._names):
            return self._names[number]
        raise self._place.error(
            line,
            f"{self._key!r} is {number}, but its classes have the numbers 0 to "
            f"{len(self._names) - 1}; mend the number, or the names of the classes.",
        )

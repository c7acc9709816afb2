"""What every reader yields and shares: rows, the notes on dirt, lines of a file and its columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from seqlab.errors import DataError, nearest

_SHOWN = 10  # how many line numbers a note lists before it only counts
_EMPTY = re.compile(r"[\s\x00-\x1f\x7f-\x9f]*")

Columns = Mapping[str, "int | str"]


class TableRow(Protocol):
    """What the rows of all tasks have, and the cache keeps."""

    @property
    def tokens(self) -> list[str]:
        """The words."""

    @property
    def lines(self) -> list[int]:
        """The 1-based lines that the row stands in, the first of them first."""

    def columns(self) -> dict[str, Any]:
        """Return the row by the names of its columns, the same for all rows of a corpus."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence or document, as a file holds it.

    Args:
        tokens: the words, unchanged.
        tags: one tag a token; None where the file has none.
        lines: the 1-based line of every token in its file (the row, in a parquet file).
        features: further columns by name, one value a token.
        text: the raw text, where the file held text and not tokens.
        offsets: ``(start, end)`` characters of every token in ``text``, end exclusive.
    """

    tokens: list[str]
    tags: list[str] | None
    lines: list[int]
    features: dict[str, list[str]]
    text: str | None = None
    offsets: list[tuple[int, int]] | None = None

    def columns(self) -> dict[str, Any]:
        """Return what the cache keeps of the row, by the names of its columns."""
        tags = {} if self.tags is None else {"tags": self.tags}
        return {"tokens": self.tokens, **tags, "lines": self.lines, **self.features}

    def without_empty(self, dirt: Dirt, file: str) -> Row:
        """Leave out empty tokens, with what runs along them.

        Args:
            dirt: where that is noted; also that no token is left.
            file: name of the file, for the note.

        Returns:
            The row, or a shorter one.
        """
        kept = [not is_empty(token) for token in self.tokens]
        if all(kept):
            return self
        dirt.note("with an empty token", file, self.lines[0], "kept without it")
        return Row(
            list(compress(self.tokens, kept)),
            None if self.tags is None else list(compress(self.tags, kept)),
            list(compress(self.lines, kept)),
            {name: list(compress(values, kept)) for name, values in self.features.items()},
            self.text,
            None if self.offsets is None else list(compress(self.offsets, kept)),
        )


class Dirt:
    """Notes on what a reader skipped or mended, told as one sentence a file and kind.

    Example:
        >>> dirt = Dirt()
        >>> for line in (96124, 104085):
        ...     dirt.note("with an empty token", "train.conll", line)
        >>> dirt.sentences()
        ['train.conll: 2 lines with an empty token were skipped (lines 96124, 104085).']
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, str], int] = {}
        self._lines: dict[tuple[str, str, str, str], list[int | str]] = {}

    def note(
        self, kind: str, file: str, line: int | str, outcome: str = "skipped", noun: str = "line"
    ) -> None:
        """Note one line, or one file of a folder.

        Args:
            kind: what is wrong with it, such as ``"with an empty token"``.
            file: name of the file or folder.
            line: its 1-based number, or its name.
            outcome: what was done about it: "lines KIND were OUTCOME".
            noun: what it is.
        """
        key = (file, kind, outcome, noun)
        self._counts[key] = self._counts.get(key, 0) + 1
        lines = self._lines.setdefault(key, [])
        if len(lines) < _SHOWN:
            lines.append(line)

    def sentences(self) -> list[str]:
        """Say what was noted, in the order in which each kind was first met.

        Returns:
            One sentence for every file and kind; empty when all was clean.
        """
        said = []
        for (file, kind, outcome, noun), count in self._counts.items():
            lines = ", ".join(map(str, self._lines[file, kind, outcome, noun]))
            more = f" and {count - _SHOWN:,} more" if count > _SHOWN else ""
            noun, verb = (noun, "was") if count == 1 else (f"{noun}s", "were")
            said.append(f"{file}: {count:,} {noun} {kind} {verb} {outcome} ({noun} {lines}{more}).")
        return said


class Unlabelled(DataError):
    """No text of a file has a label: it can be neither learnt from nor scored."""


class Place(NamedTuple):
    """A file whose lines or rows errors name: ``file:3``, or ``file, row 3``."""

    file: str
    unit: str = ":"

    def error(self, number: int, sentence: str) -> DataError:
        """Make an error about one record."""
        return DataError(f"{self.file}{self.unit}{number}: {sentence}")


def is_empty(token: str) -> bool:
    """Whether a token is nothing but white space and control characters.

    Example:
        >>> is_empty(""), is_empty(" "), is_empty("a")
        (True, True, False)
    """
    return not token.isalnum() and _EMPTY.fullmatch(token) is not None


class Layout(NamedTuple):
    """Which cells of a line hold what."""

    tokens: int
    tags: int | None
    features: dict[str, int]


class SentenceBuilder:
    """Gathers the lines of one sentence, for files with one token a line.

    Args:
        layout: where the token, its tag and its features are in a line's cells.
        path: the file, for errors.
        dirt: where lines with an empty token are noted.
        tagged: whether every token needs a tag.
    """

    def __init__(self, layout: Layout, path: Path, dirt: Dirt, tagged: bool) -> None:
        self._layout, self._path, self._dirt, self._tagged = layout, path, dirt, tagged
        self._open()

    def _open(self) -> None:
        self._tokens: list[str] = []
        self._tags: list[str] = []
        self._lines: list[int] = []
        self._features: dict[str, list[str]] = {name: [] for name in self._layout.features}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, cells: Sequence[str], line: int) -> None:
        """Add one token.

        Args:
            cells: the columns of its line.
            line: 1-based number of the line.

        Raises:
            DataError: its tag is empty though the corpus has to be tagged.
        """
        token_at, tag_at, features = self._layout
        token = cells[token_at]
        if is_empty(token):
            self._dirt.note("with an empty token", self._path.name, line)
            return
        if tag_at is not None:
            tag = cells[tag_at]
            if self._tagged and is_empty(tag):
                raise DataError(
                    f"{self._path}:{line}: the token {token!r} has an empty tag; "
                    "write its tag, or choose another column for the tags."
                )
            self._tags.append(tag)
        self._tokens.append(token)
        self._lines.append(line)
        for name, at in features.items():
            self._features[name].append(cells[at])

    def close(self) -> Iterator[Row]:
        """End the sentence.

        Yields:
            The sentence, or nothing when it holds no token.
        """
        if self._tokens:
            tags = None if self._layout.tags is None else self._tags
            yield Row(self._tokens, tags, self._lines, self._features)
            self._open()


def find_column(wanted: int | str, known: Sequence[str], key: str, place: Place) -> int:
    """Find a column among those that have names.

    Args:
        wanted: its name, or its number (from 0; negative counts from the end).
        known: the names of all columns, in order.
        key: what the column is for, for the error.
        place: the file, for the error.

    Returns:
        Its number from 0.

    Raises:
        DataError: there is no such column; with those that there are.
    """
    if isinstance(wanted, int):
        if -len(known) <= wanted < len(known):
            return wanted % len(known)
    elif wanted in known:
        return known.index(wanted)
    near = nearest(wanted, known) if isinstance(wanted, str) else ""
    raise DataError(
        f"{place.file}: no column {wanted!r} for the {key}; the columns are "
        f"{', '.join(known)}.{near}"
    )

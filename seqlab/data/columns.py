"""Files with one token a line: CoNLL columns and CoNLL-U."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from seqlab.data.lines import lines_of
from seqlab.data.rows import Columns, Dirt, Layout, Place, Row, SentenceBuilder, find_column
from seqlab.errors import DataError

DOCUMENT_START = "-DOCSTART-"
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
# A lone "#" is a token in many corpora, so only what cannot be one counts as a comment.
_COMMENT = re.compile(r"# (?:(?:id|text|sent_id|newdoc|newpar)\b|[\w.:-]+ = )")
_WORD_ID = re.compile(r"[1-9][0-9]*")
_MAIN = ("tokens", "tags")
_OTHER_ID = re.compile(r"[0-9]+[-.][0-9]+")


def is_comment(line: str) -> bool:
    """Whether a line of CoNLL columns that could open a sentence is clearly a comment.

    Example:
        >>> is_comment("# sent_id = 3"), is_comment("# # B-NP"), is_comment("#tag O")
        (True, False, False)
    """
    return _COMMENT.match(line) is not None


def split_spaces(line: str) -> list[str]:
    """Split at runs of plain spaces; other white space, such as no-break spaces, is kept.

    Example:
        >>> split_spaces("Confidence  NN B-NP")
        ['Confidence', 'NN', 'B-NP']
    """
    cells = line.split(" ")
    return [cell for cell in cells if cell] if "" in cells else cells


def split_tabs(line: str) -> list[str]:
    """Split at every tab, so that an empty cell stays one."""
    return line.split("\t")


def read_conll(path: Path, columns: Columns, dirt: Dirt, tagged: bool) -> Iterator[Row]:
    """Read CoNLL columns: one token a line, a blank line after each sentence.

    Columns are separated by tabs, or by runs of spaces where the first token's line has no tab.

    Args:
        path: the file.
        columns: numbers of the columns of ``tokens`` (0 unless given), ``tags`` (-1) and features.
        dirt: where lines with an empty token are noted; such a line does not end its sentence.
        tagged: whether every token needs a tag.

    Yields:
        The sentences.

    Raises:
        DataError: a line has another number of columns than the first, or a column is not there.
    """
    builder: SentenceBuilder | None = None
    split: Callable[[str], list[str]] = split_spaces
    width = 0
    for number, line in lines_of(path):
        if not line or line.isspace() or line.startswith(DOCUMENT_START):
            if builder:
                yield from builder.close()
            continue
        if not builder and is_comment(line):  # none yet, or one without tokens
            continue
        if builder is None:
            split = split_tabs if "\t" in line else split_spaces
            width = len(split(line))
            layout = _conll_layout(columns, width, path, number, tagged)
            builder = SentenceBuilder(layout, path, dirt, tagged)
        cells = split(line)
        if len(cells) != width:
            raise _wrong_width(path, number, len(cells), width, split is split_tabs)
        builder.add(cells, number)
    if builder:
        yield from builder.close()


def _wrong_width(path: Path, line: int, found: int, width: int, tabs: bool) -> DataError:
    noun = "column" if found == 1 else "columns"
    return DataError(
        f"{path}:{line}: {found} {noun} where the lines before have {width}; give every token a "
        f"line of its own with {width} columns separated by {'tabs' if tabs else 'spaces'}, "
        "and every sentence a blank line after it."
    )


def _conll_layout(columns: Columns, width: int, path: Path, line: int, tagged: bool) -> Layout:
    tokens = _column_number(columns.get("tokens", 0), width, "tokens", path, line)
    features = {
        name: _column_number(at, width, name, path, line)
        for name, at in columns.items()
        if name not in _MAIN
    }
    tags: int | None = None
    wanted = columns.get("tags", -1)
    # Without tags the last column is the only one, or the one asked for is not there.
    if tagged or (isinstance(wanted, int) and -width <= wanted < width):
        tags = _column_number(wanted, width, "tags", path, line)
        if tags == tokens:
            if tagged:
                raise DataError(
                    f"{path}:{line}: column {tokens} would be both token and tag, as the lines "
                    f"have {width} column{'s' if width > 1 else ''}; training and scoring need "
                    "a column of tags, such as `London<TAB>B-LOC`."
                )
            tags = None
    return Layout(tokens, tags, features)


def _column_number(wanted: int | str, width: int, key: str, path: Path, line: int) -> int:
    if isinstance(wanted, int) and -width <= wanted < width:
        return wanted % width
    raise DataError(
        f"{path}:{line}: no column {wanted!r} for the {key}; the columns have no names here, only "
        f"numbers from 0 to {width - 1} (or from the end: -1 is the last)."
    )


def read_conllu(path: Path, columns: Columns, dirt: Dirt, tagged: bool) -> Iterator[Row]:
    """Read CoNLL-U: ten columns separated by tabs, comments, a blank line after each sentence.

    Multiword ranges (``1-2``) and empty nodes (``8.1``) are not words, and are left out.

    Args:
        path: the file.
        columns: names or numbers for ``tokens`` (``form`` unless given), ``tags`` (``upos``) and
            features; ``feats.Number`` is one of the morphological features, ``_`` where absent.
        dirt: where words with an empty form are noted.
        tagged: whether every word needs a tag.

    Yields:
        The sentences.

    Raises:
        DataError: a line has not ten columns, or the first is no word's number; or no such column.
    """
    layout, derived = _conllu_layout(columns, path)
    builder = SentenceBuilder(layout, path, dirt, tagged)
    for number, line in lines_of(path):
        if not line or line.isspace():
            yield from builder.close()
        elif not line.startswith("#"):
            cells = line.split("\t")
            if len(cells) != len(CONLLU):
                raise _wrong_width(path, number, len(cells), len(CONLLU), tabs=True)
            if _WORD_ID.fullmatch(cells[0]):
                cells += [feature_value(cells[at], key) for at, key in derived]
                builder.add(cells, number)
            elif not _OTHER_ID.fullmatch(cells[0]):
                raise DataError(
                    f"{path}:{number}: {cells[0]!r} is no word number of CoNLL-U; the first "
                    "column counts the words of a sentence (1, 2, ...)."
                )
    yield from builder.close()


def _conllu_layout(columns: Columns, path: Path) -> tuple[Layout, list[tuple[int, str]]]:
    """Map names to cells; parts of a cell become further cells after the ten."""
    derived: list[tuple[int, str]] = []

    def find(wanted: int | str, key: str) -> int:
        if isinstance(wanted, str) and wanted.startswith(("feats.", "misc.")):
            column, _, part = wanted.partition(".")
            derived.append((CONLLU.index(column), part))
            return len(CONLLU) + len(derived) - 1
        return find_column(wanted, CONLLU, key, Place(str(path)))

    tokens = find(columns.get("tokens", "form"), "tokens")
    tags = find(columns.get("tags", "upos"), "tags")
    features = {name: find(at, name) for name, at in columns.items() if name not in _MAIN}
    return Layout(tokens, tags, features), derived


def feature_value(cell: str, key: str) -> str:
    """Take one feature out of a cell such as ``Number=Sing|Person=3``.

    Args:
        cell: the cell; ``_`` is an empty one.
        key: name of the feature.

    Returns:
        Its value, or ``_`` where the cell has none.

    Example:
        >>> feature_value("Number=Sing|Person=3", "Person"), feature_value("_", "Person")
        ('3', '_')
    """
    for pair in cell.split("|"):
        name, equals, value = pair.partition("=")
        if equals and name == key:
            return value
    return "_"

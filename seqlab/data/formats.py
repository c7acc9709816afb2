"""Corpus files of any format to rows; the format is told by the content, not by the name."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from seqlab.data.columns import (
    CONLLU,
    DOCUMENT_START,
    is_comment,
    read_conll,
    read_conllu,
    split_spaces,
)
from seqlab.data.lines import head_of
from seqlab.data.records import read_jsonl, read_parquet
from seqlab.data.rows import Columns, Dirt, Row
from seqlab.data.tables import header_separator, read_table
from seqlab.data.texts import read_text
from seqlab.errors import DataError

__all__ = ["Dirt", "Row", "read_rows", "sniff"]

_HEAD = 1 << 18  # bytes that are looked at to tell the format
_JSON = re.compile(r'\s*(?:\[\s*)?\{\s*(?:"[^"]*"\s*:|\})')
_WORD_ID = re.compile(r"[0-9]+(?:[-.][0-9]+)?")
_SPAN_TAG = re.compile(r"O|[BIELSU]-\S+")
_LIKELY_TAG = re.compile(r"[A-Z][A-Z0-9]*(?:[-$|_:=]\S*)?|_|[^\w\s]+")
_CLOSED_SENTENCE = re.compile(r".+[.!?…\u3002\uff01\uff1f]")
_LONG_WORD = 20  # characters; half of the lines of a file with a word a line are shorter


def read_rows(
    path: Path,
    columns: Columns | None = None,
    *,
    dirt: Dirt | None = None,
    tagged: bool = True,
) -> Iterator[Row]:
    """Read the sentences of a file one by one, in any of the formats that `sniff` tells apart.

    Args:
        path: the file: UTF-8, gzipped or not.
        columns: number (negative counts from the end) or name of the column with the ``tokens``,
            with the ``tags``, and with each further feature, under the feature's own name.
        dirt: where what is skipped is noted.
        tagged: whether every token needs a tag. Without, rows of files that hold no tags have
            None for them, and raw text is read too, one sequence a line.

    Yields:
        The sentences, in order; tokens and tags as they stand in the file.

    Raises:
        DataError: the file is missing, empty, damaged or inconsistent, with file and line; or a
            column is not there.
    """
    path, columns = Path(path), columns or {}
    form = _sniffed(path, columns, tagged)
    count = 0
    for row in _READERS[form](path, columns, Dirt() if dirt is None else dirt, tagged):
        count += 1
        yield row
    if not count:
        raise DataError(
            f"{path} holds no sentence: give a file with CoNLL columns, CoNLL-U, JSONL, CSV with "
            "a header, or parquet."
        )


_READERS: dict[str, Callable[[Path, Columns, Dirt, bool], Iterator[Row]]] = {
    "conll": read_conll,
    "conllu": read_conllu,
    "jsonl": read_jsonl,
    "csv": read_table,
    "tsv": read_table,
    "parquet": read_parquet,
    "text": read_text,
}


def sniff(path: Path) -> str:
    """Tell the format of a file by what is in it.

    Args:
        path: the file, gzipped or not.

    Returns:
        ``"conll"``, ``"conllu"``, ``"jsonl"``, ``"csv"``, ``"tsv"``, ``"parquet"`` or ``"text"``.

    Raises:
        DataError: the file cannot be read, or is UTF-16.
    """
    return _sniffed(Path(path), {}, tagged=False)


def _sniffed(path: Path, columns: Columns, tagged: bool) -> str:
    """Tell the format, helped by what is asked of the file."""
    form, lines = opening_of(path)
    return form or _form_of_lines(lines, columns, tagged)


def opening_of(path: Path) -> tuple[str | None, list[str]]:
    """Look at the beginning of a file.

    Args:
        path: the file, gzipped or not.

    Returns:
        ``"parquet"``, ``"jsonl"``, or None for other text; and for that its first lines.

    Raises:
        DataError: the file cannot be read, or is UTF-16.
    """
    head = head_of(path, _HEAD)
    if head.startswith(b"PAR1"):
        return "parquet", []
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(
            f"{path}:1: UTF-16, not UTF-8; convert the file, for example with "
            "`iconv -f UTF-16 -t UTF-8`."
        )
    # What is not UTF-8 is reported when it is read, with its line.
    text = head.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="replace")
    if _JSON.match(text):
        return "jsonl", []
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if len(head) == _HEAD and len(lines) > 1:
        lines.pop()  # it may be cut
    return None, lines


def _form_of_lines(lines: list[str], columns: Columns, tagged: bool) -> str:
    data = [line for line in lines if line.strip() and not line.startswith(DOCUMENT_START)]
    words = [line for line in data if not line.startswith("#")]
    if words:
        cells = words[0].split("\t")
        if len(cells) == len(CONLLU) and _WORD_ID.fullmatch(cells[0]):
            return "conllu"
    data = [line for line in data if not is_comment(line)]
    if not data:  # nothing at all, or comments alone
        return "conll" if any(line.strip() for line in lines) else "text"
    names = [name for name in columns.values() if isinstance(name, str)]
    separator = header_separator(data[0], names)
    if separator:
        return "tsv" if separator == "\t" else "csv"
    if "\t" in data[0]:
        return "text" if _is_prose(data) else "conll"
    # Where tags or numbered features are needed, columns are columns whatever they look like.
    features = [at for name, at in columns.items() if name not in ("tokens", "tags")]
    certain = tagged or any(isinstance(at, int) for at in features)
    if _has_tag_column(data, certain) or _is_word_a_line(lines):
        return "conll"
    return "text"


def _is_prose(lines: list[str]) -> bool:
    """Whether the outer columns hold running text, as those of sentence pairs do."""
    cells = [line.split("\t") for line in lines]
    return any(2 * sum(" " in row[at] for row in cells) > len(cells) for at in (0, -1))


def _has_tag_column(lines: list[str], certain: bool) -> bool:
    """Whether lines separated by spaces are columns; if not `certain`, they must end in tags."""
    cells = [split_spaces(line) for line in lines]
    width, usual = Counter(map(len, cells)).most_common(1)[0]
    if width < 2 or usual < 0.6 * len(lines):
        return False
    last = [row[-1] for row in cells]
    spans = sum(_SPAN_TAG.fullmatch(tag) is not None for tag in last)
    if certain or spans >= 0.8 * len(last):
        return True
    if len(lines) < 3:  # too few to tell "NASA" from a tag
        return False
    likely = sum(_LIKELY_TAG.fullmatch(tag) is not None for tag in last)
    return likely >= 0.8 * len(last) or len(set(last)) <= 0.1 * len(last)


def _is_word_a_line(lines: list[str]) -> bool:
    """Whether lines without columns are single words, with blank lines between sentences."""
    words = [line for line in lines if line.strip()]
    single = [word for word in words if " " not in word.strip()]
    short = [word for word in single if len(word) <= _LONG_WORD]
    closed = [word for word in single if _CLOSED_SENTENCE.fullmatch(word)]
    blank = any(not line.strip() for line in lines[:-1])  # the last is what follows the last end
    return (
        blank
        and len(single) >= 0.9 * len(words)
        and 2 * len(short) > len(words)
        and 2 * len(closed) < len(words)
    )

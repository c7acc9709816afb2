"""CSV and TSV with a header: a token a row, or a sentence a row."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from seqlab.data.lines import lines_of
from seqlab.data.records import TAG_KEYS, TEXT_KEYS, TOKEN_KEYS
from seqlab.data.rows import Columns, Dirt, Layout, Place, Row, SentenceBuilder, find_column
from seqlab.data.texts import text_row

TOKEN_NAMES = (*TOKEN_KEYS, "token", "word", "form", *TEXT_KEYS)
PLAIN_TAG_NAMES = ("tags", "tag")
TAG_NAMES = (*PLAIN_TAG_NAMES, *TAG_KEYS[1:], "ner_tag", "label", "bio", "iob")
SENTENCE_NAMES = ("sentence_id", "sentence #", "sentence", "sent_id", "sentence id")
_MAIN = ("tokens", "tags")
_KNOWN = {*TOKEN_NAMES, *TAG_NAMES, *SENTENCE_NAMES, "id"}
_HEAD = 200  # rows that are looked at to tell tokens from sentences
_BLANKS = re.compile(r"[ \t\r\n]+")
PYTHON_LIST = re.compile(r"\[\s*['\"].*\]", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')

Cells = tuple[int, list[str]]  # number of the first line, cells; no cells on a blank line


def header_separator(line: str, names: Collection[str] = ()) -> str | None:
    """Tell what separates the columns of a header.

    Args:
        line: the first line of a file.
        names: names of columns that were asked for.

    Returns:
        A tab, comma or semicolon; or None when the line is no header with a column of tokens and
        a second one that is known.

    Example:
        >>> header_separator("Sentence #,Word,POS,Tag"), header_separator("Well, yes")
        (',', None)
    """
    for separator in "\t,;":
        plain = [cell.strip().strip('"') for cell in line.split(separator)]
        known = {cell.lower() for cell in plain} & _KNOWN
        asked = bool(names) and set(names) <= set(plain)
        if len(plain) > 1 and (asked or (len(known) > 1 and known & {*TOKEN_NAMES})):
            return separator
    return None


def read_table(path: Path, columns: Columns, dirt: Dirt, tagged: bool) -> Iterator[Row]:
    """Read CSV (comma or semicolon) or TSV with a header.

    Rows hold one token each where a column numbers the sentences (a new value starts one, a blank
    one goes on) or blank lines part them; else one sentence each, whose tokens and tags are
    separated by spaces. The first rows decide: tags, or most of the tokens, with spaces in them
    are sentences. A column ``text`` without such tags is raw text, if no tags are needed.

    Args:
        path: the file.
        columns: names or numbers for ``tokens`` (else one of `TOKEN_NAMES`), ``tags`` (else one of
            `TAG_NAMES`) and features; names count in any case unless given.
        dirt: where empty tokens and rows without any are noted.
        tagged: whether every token needs a tag.

    Yields:
        The sentences.

    Raises:
        DataError: a row has not the columns of the header, tokens and tags differ in number, or
            nothing tells where sentences end; with the line.
    """
    place = Place(str(path))
    asked = [name for name in columns.values() if isinstance(name, str)]
    header, rows = open_table(path, lambda line: header_separator(line, asked) or ",")
    layout, sentence, raw = _layout(header, columns, place, tagged)
    head = list(islice(rows, _HEAD))
    rows = chain(head, rows)
    if _holds_sentences(head, layout):
        yield from _sentence_rows(rows, layout, raw and not _is_aligned(head, layout), place, dirt)
    elif sentence is not None or any(not cells for _, cells in head):
        yield from _token_rows(rows, sentence, SentenceBuilder(layout, path, dirt, tagged))
    elif raw or header[layout.tokens].lower() in TOKEN_KEYS:  # a word each, by their name
        yield from _sentence_rows(rows, layout, raw and layout.tags is None, place, dirt)
    elif head:
        raise place.error(
            head[0][0],
            "one token a row, but no column tells the sentence; add a column sentence_id, or "
            "a blank line after every sentence.",
        )


def open_table(path: Path, separator_of: Callable[[str], str]) -> tuple[list[str], Iterator[Cells]]:
    """Open CSV or TSV with a header.

    Args:
        path: the file.
        separator_of: tells what separates the columns, given the first line.

    Returns:
        The header, and the rows as they are read: the number of the first line of each with its
        cells, none on a blank line.

    Raises:
        DataError: a row cannot be parsed, or has not the columns of the header; with the line.
    """
    rows = _cells_of(path, separator_of)
    _, header = next(rows)
    return header, _of_width(rows, len(header), Place(str(path)))


def _cells_of(path: Path, separator_of: Callable[[str], str]) -> Iterator[Cells]:
    """Parse a table, the header first."""
    lines = (f"{line}\n" for _, line in lines_of(path))
    first = next((line for line in lines if line.strip()), "")
    separator = separator_of(first.rstrip("\n"))
    # Tokens are often a lone quotation mark, which many writers of TSV leave as it is: there, only
    # cells that hold doubled quotation marks inside quotation marks are unquoted.
    bare = separator == "\t" and not first.startswith('"')
    csv.field_size_limit(max(csv.field_size_limit(), (1 << 31) - 1))  # documents are long cells
    reader = csv.reader(
        chain([first], lines),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL,
        strict=True,
    )
    number = 1
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                cells = []
            yield number, [unquoted(cell) for cell in cells] if bare else cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise Place(str(path)).error(
            number,
            f"no row of a table ({error}); put cells with quotation marks into quotation marks, "
            'and double those inside: """".',
        ) from error


def unquoted(cell: str) -> str:
    """Take the quotation marks off a cell that doubles those inside."""
    return cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell


def _of_width(rows: Iterator[Cells], width: int, place: Place) -> Iterator[Cells]:
    for number, cells in rows:
        if cells and len(cells) != width:
            raise place.error(
                number,
                f"{len(cells)} column{'s' if len(cells) > 1 else ''} where the header has {width}; "
                "put cells that hold a separator into quotation marks.",
            )
        yield number, cells


def _layout(
    header: list[str], columns: Columns, place: Place, tagged: bool
) -> tuple[Layout, int | None, bool]:
    """Find the columns: those of a token, the one of sentences, and whether tokens are raw text."""
    lower = [name.strip().lower() for name in header]
    features = {
        name: find_column(at, header, name, place)
        for name, at in columns.items()
        if name not in _MAIN
    }
    if "tokens" in columns:
        tokens: int | None = find_column(columns["tokens"], header, "tokens", place)
    else:
        tokens = next((lower.index(name) for name in TOKEN_NAMES if name in lower), None)
    if tokens is None:
        raise place.error(
            1, f"no column of tokens; the columns are {', '.join(header)}: name it in data.columns."
        )
    wanted = columns.get("tags")
    if wanted is not None and (tagged or wanted in header or isinstance(wanted, int)):
        tags: int | None = find_column(wanted, header, "tags", place)
    else:
        tags = _tag_column(lower, {tokens, *features.values()}, place, tagged)
    taken = {tokens, tags, *features.values()}
    numbers = [lower.index(name) for name in SENTENCE_NAMES if name in lower]
    sentence = next((at for at in numbers if at not in taken), None)
    raw = "tokens" not in columns and lower[tokens] in TEXT_KEYS and not tagged
    return Layout(tokens, tags, features), sentence, raw


def _tag_column(lower: list[str], taken: set[int], place: Place, tagged: bool) -> int | None:
    found = [at for at, name in enumerate(lower) if name in TAG_NAMES and at not in taken]
    plain = [at for at in found if lower[at] in PLAIN_TAG_NAMES]
    if len(plain or found) == 1:
        return (plain or found)[0]
    if tagged:
        raise place.error(
            1,
            f"{' and '.join(lower[at] for at in found)} could all be the tags; say which with "
            "data.columns.tags."
            if found
            else f"no column of tags; the columns are {', '.join(lower)}: name it in data.columns.",
        )
    return None


def _holds_sentences(head: Sequence[Cells], layout: Layout) -> bool:
    rows = [cells for _, cells in head if cells]
    tokens = sum(len(spaced_parts(cells[layout.tokens])) > 1 for cells in rows)
    if 2 * tokens > len(rows):
        return True
    tags = layout.tags
    return tags is not None and any(len(spaced_parts(cells[tags])) > 1 for cells in rows)


def _is_aligned(head: Sequence[Cells], layout: Layout) -> bool:
    tags = layout.tags
    return tags is not None and all(
        len(spaced_parts(cells[tags])) == len(spaced_parts(cells[layout.tokens]))
        for _, cells in head
        if cells
    )


def spaced_parts(cell: str) -> list[str]:
    """Split a cell at spaces, tabs and line ends; other white space is kept."""
    return [part for part in _BLANKS.split(cell) if part]


def _token_rows(
    rows: Iterator[Cells], sentence: int | None, builder: SentenceBuilder
) -> Iterator[Row]:
    current = ""
    for number, cells in rows:
        if not cells:
            yield from builder.close()
            continue
        mark = "" if sentence is None else cells[sentence].strip()
        if mark and mark != current:
            yield from builder.close()
            current = mark
        builder.add(cells, number)
    yield from builder.close()


def _sentence_rows(
    rows: Iterator[Cells], layout: Layout, raw: bool, place: Place, dirt: Dirt
) -> Iterator[Row]:
    for number, cells in rows:
        if not cells:
            continue
        text = cells[layout.tokens]
        row = text_row(text, None, place, number) if raw else _spaced(cells, layout, place, number)
        row = row.without_empty(dirt, Path(place.file).name)
        if row.tokens:
            yield row
        else:
            dirt.note("without any token", Path(place.file).name, number)


def _spaced(cells: list[str], layout: Layout, place: Place, number: int) -> Row:
    """Make a row of cells whose values are separated by spaces."""
    if PYTHON_LIST.fullmatch(cells[layout.tokens]):
        raise place.error(
            number, "a list as Python prints it; write JSONL, or tokens separated by spaces."
        )
    tokens = spaced_parts(cells[layout.tokens])

    def along(at: int, name: str) -> list[str]:
        values = spaced_parts(cells[at])
        if len(values) != len(tokens):
            whole = " A label of the whole text is for seqlab.ClassificationData."
            raise place.error(
                number,
                f"{len(tokens)} tokens but {len(values)} {name}; separate both by spaces, one of "
                f"them for every token.{whole if len(values) == 1 else ''}",
            )
        return values

    tags = None if layout.tags is None else along(layout.tags, "tags")
    features = {name: along(at, name) for name, at in layout.features.items()}
    return Row(tokens, tags, [number] * len(tokens), features)

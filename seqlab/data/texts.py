"""Raw text to rows: its words, and spans of its characters as tags."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from seqlab.data.lines import lines_of
from seqlab.data.rows import Columns, Dirt, Place, Row, is_empty
from seqlab.tags import Span, tags_of
from seqlab.words import Word, words_of


class CharacterSpan(NamedTuple):
    """A label over characters of a text, `end` exclusive."""

    start: int
    end: int
    label: str

    def __str__(self) -> str:
        return f"{self.label} {self.start}-{self.end}"


def read_text(path: Path, columns: Columns, dirt: Dirt, tagged: bool) -> Iterator[Row]:
    """Read raw text, one sequence a line; blank lines are skipped.

    Args:
        path: the file.
        columns: must name no feature, as text has none.
        dirt: where lines without any word are noted.
        tagged: must be False, as text has no tags.

    Yields:
        The lines, with their words, text and offsets.

    Raises:
        DataError: tags or features are needed, with the first line.
    """
    place = Place(str(path))
    features = [name for name in columns if name not in ("tokens", "tags")]
    for number, line in lines_of(path):
        if not line or line.isspace():
            continue
        if tagged:
            raise place.error(
                number,
                "no tags: the file reads like raw text, but every token needs a tag here; give "
                "CoNLL columns, CoNLL-U, JSONL, CSV or TSV with a header, or parquet.",
            )
        if features:
            raise place.error(
                number,
                f"raw text has no column for the feature {features[0]!r}; give CoNLL columns, "
                "JSONL, CSV or TSV that have it.",
            )
        row = text_row(line, None, place, number)
        if row.tokens:
            yield row
        else:
            dirt.note("without any word", path.name, number)


def text_row(text: str, spans: list[CharacterSpan] | None, place: Place, number: int) -> Row:
    """Make a row of raw text and the spans in it.

    Args:
        text: the text.
        spans: in any order; None where nothing is known of any.
        place: where the text comes from, for errors.
        number: of its line or row.

    Returns:
        The words, cut at the borders of spans too; the tags are IOB2.

    Raises:
        DataError: a span lies outside the text, overlaps another or holds no word.
    """
    ordered = _checked(text, spans or [], place, number)
    words = cut_words(text, [at for span in ordered for at in span[:2]])
    starts = [word.start for word in words]
    placed = [
        Span(span.label, bisect_left(starts, span.start), bisect_left(starts, span.end))
        for span in ordered
    ]
    for span, whole in zip(placed, ordered, strict=True):
        if span.start == span.end:
            raise place.error(number, f"the span {whole} holds no word; remove it or widen it.")
    return Row(
        [word.text for word in words],
        None if spans is None else tags_of(placed, len(words), "iob2"),
        [number] * len(words),
        {},
        text,
        [(word.start, word.end) for word in words],
    )


def cut_words(text: str, cuts: Iterable[int]) -> list[Word]:
    """Cut a text into words, and words at further places.

    Args:
        text: the text.
        cuts: positions in it, in characters.

    Returns:
        The words, those of white space and control characters alone left out.

    Example:
        >>> [word.text for word in cut_words("in Londoners", [3, 9])]
        ['in', 'London', 'ers']
    """
    inner = sorted(set(cuts))
    words = []
    for word in words_of(text):
        inside = inner[bisect_left(inner, word.start + 1) : bisect_left(inner, word.end)]
        borders = [word.start, *inside, word.end]
        for start, end in zip(borders, borders[1:], strict=False):
            if not is_empty(text[start:end]):
                words.append(Word(text[start:end], start, end))
    return words


def spans_of_values(values: object, place: Place, number: int) -> list[CharacterSpan]:
    """Read the spans of a record.

    Args:
        values: a list of objects with ``start``, ``end`` (or ``start_offset``, ``end_offset``) and
            ``label``, or of lists ``[start, end, label]``; in characters, end exclusive.
        place: where they come from, for errors.
        number: of the line or row.

    Returns:
        The spans, as they come.

    Raises:
        DataError: a value is no such span.
    """
    return [_span(value, place, number) for value in (values if type(values) is list else [values])]


def _span(value: object, place: Place, number: int) -> CharacterSpan:
    parts: list[object] = []
    if isinstance(value, dict):
        parts = [value.get(name, value.get(f"{name}_offset")) for name in ("start", "end")]
        parts.append(value.get("label"))
    elif isinstance(value, list):
        parts = value
    if len(parts) == 3:
        start, end, label = parts
        # A bool is an int too, but no position.
        if type(start) is int and type(end) is int and isinstance(label, str) and label:
            return CharacterSpan(start, end, label)
    raise place.error(
        number,
        f"{value!r} is no span; write each as "
        '{"start": 0, "end": 3, "label": "PER"} or [0, 3, "PER"], in characters.',
    )


def _checked(
    text: str, spans: list[CharacterSpan], place: Place, number: int
) -> list[CharacterSpan]:
    """Order the spans; each must lie inside the text and beside the others."""
    ordered = sorted(spans)
    for at, span in enumerate(ordered):
        if not 0 <= span.start < span.end <= len(text):
            raise place.error(
                number,
                f"the span {span} is empty or lies outside the text, which has {len(text)} "
                "characters; count characters from 0, the end exclusive.",
            )
        if at and span.start < ordered[at - 1].end:
            raise place.error(
                number,
                f"the spans {ordered[at - 1]} and {span} overlap; a tagger learns one label a "
                "word: keep one of the two.",
            )
    return ordered

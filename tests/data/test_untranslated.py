from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqlab.data.untranslated import SourceRow, is_records, read_untranslated
from seqlab.errors import DataError


def texts(
    path: Path, column: int | str | None = None, language: str | None = None, lines: bool = False
) -> list[str]:
    return [row.text for row in read_untranslated(path, column, language, lines)]


def test_every_line_is_a_text_blank_ones_too(tmp_path: Path) -> None:
    content = "\ufeffone, two\n\n\tx\ty\r\n[1]\nlast"
    expected = ["one, two", "", "\tx\ty", "[1]", "last"]
    path = tmp_path / "lines"
    path.write_text(content, encoding="utf-8", newline="")
    assert texts(path) == expected
    packed = tmp_path / "lines.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert texts(packed) == expected
    assert not is_records(path)


def test_records_bring_wishes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"source": "one", "prefix": "p", "require": ["r", "s"], "ban": "b"}\n'
        '\n{"source": "two", "prefix": null}\n'
    )
    assert is_records(path)
    assert list(read_untranslated(path, None, None)) == [
        SourceRow("one", f"{path}:1", "p", ("r", "s"), ("b",)),
        SourceRow("two", f"{path}:3"),
    ]
    assert texts(path, lines=True)[0].startswith("{")


@pytest.mark.parametrize(
    ("line", "column", "language"),
    [
        ('{"text": "one"}', None, None),
        ('{"src": "one"}', None, "en"),
        ('{"en": "one", "fr": "un"}', None, "en"),
        ('{"translation": {"en": "one", "fr": "un"}}', None, "en"),
        ('{"body": "one", "text": "other"}', "body", None),
    ],
)
def test_the_key_of_the_text_is_found(
    tmp_path: Path, line: str, column: str | None, language: str | None
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    assert texts(path, column, language) == ["one"]


def test_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"source": ["one", "two"], "n": [1, 2]}), path)
    assert texts(path) == ["one", "two"]


def test_a_column_of_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('one\tun\n\n"two, ""2"""\tdeux\n')
    assert texts(path, 0) == ["one", "", 'two, "2"']
    assert texts(path, -1) == ["un", "", "deux"]
    path.write_text("fr\ten\nun\tone\n")
    assert texts(path, "en") == ["one"]
    path.write_text('fr,en\n"un, deux","one, two"\n')
    assert texts(path, "en") == ["one, two"]


@pytest.mark.parametrize(
    ("content", "column", "said"),
    [
        ("", None, "holds no text: give a file with a text a line"),
        ("", "en", "holds no text"),
        ("a\tb\n", 2, "no column 2 for the source; the columns are 0, 1"),
        ("en\tfr\n", "eng", "no column 'eng' for the source; .* Did you mean 'en'"),
        ('{"text": 3}\n', None, ":1: the source is no text"),
        ('{"body": "x"}\n', None, ":1: no text: the keys are body; say which"),
        ('{"body": "x"}\n', "boddy", ":1: no 'boddy' among body. Did you mean 'body'"),
        ('{"text": "x", "ban": [1]}\n', None, ":1: 'ban' is no list of texts"),
        ('{"text": "x", "prefix": 1}\n', None, ":1: 'prefix' is no text"),
        ('{"text": "x"}\n{"text"\n', None, ":2: not JSON"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, content: str, column: int | str | None, said: str
) -> None:
    path = tmp_path / "a"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        texts(path, column)

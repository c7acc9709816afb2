from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from seqlab.data.pair_records import PairReader
from seqlab.data.pair_rows import Languages
from seqlab.data.rows import Dirt, Place
from seqlab.errors import DataError

EN_FR = ("en", "fr")


def read(
    file: Path,
    columns: dict[str, int | str] | None = None,
    languages: tuple[str | None, str | None] = (None, None),
) -> list[tuple[str, str]]:
    reader = PairReader(columns or {}, Languages(*languages))
    return [(row.source, row.target) for row in reader.rows(file, Dirt())]


def write(folder: Path, content: str, name: str = "train.tsv") -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("languages", [(None, None), EN_FR])
def test_tsv_without_a_header_has_the_source_first(
    languages: tuple[str | None, str | None], tmp_path: Path
) -> None:
    file = write(tmp_path, 'Hi.\tSalut.\n"Go," he said.\t« Va »\r\nNo "x" y.\t"""n"" on"\n')
    wanted = [("Hi.", "Salut."), ('"Go," he said.', "« Va »"), ('No "x" y.', '"n" on')]
    assert read(file, languages=languages) == wanted
    (tmp_path / "gz").write_bytes(gzip.compress(file.read_bytes()))
    assert read(tmp_path / "gz", languages=languages) == wanted
    turned = [(target, source) for source, target in wanted]
    assert read(file, {"source": 1, "target": 0}, languages) == turned
    assert read(file, {"source": -1, "target": -2}, languages) == turned


@pytest.mark.parametrize(
    ("header", "columns", "languages"),
    [
        ("en\tfr", {}, ("fr", "en")),
        ("EN\tFr", {}, ("fr", "en")),
        ("target\tsource", {}, (None, None)),
        ("tgt\tsrc", {}, EN_FR),
        ("x1\tx2", {}, ("x2", "x1")),
        ("English\tFrench", {"source": "French", "target": "English"}, EN_FR),
        ("en\tfr", {"source": 1, "target": 0}, (None, None)),
        ('"en"\t"fr"', {}, ("fr", "en")),
        ("en,fr", {}, ("fr", "en")),
        ("en;fr", {"source": "fr"}, ("de", "en")),
    ],
)
def test_a_header_names_the_columns(
    header: str,
    columns: dict[str, int | str],
    languages: tuple[str | None, str | None],
    tmp_path: Path,
) -> None:
    mark = "," if "," in header else ";" if ";" in header else "\t"
    file = write(tmp_path, f"{header}\nHi.{mark}Salut.\n\n")
    assert read(file, columns, languages) == [("Salut.", "Hi.")]


def test_further_columns_are_left_alone(tmp_path: Path) -> None:
    file = write(tmp_path, "Hi.\tSalut.\tCC-BY 2.0\nGo.\tVa.\tCC-BY 2.0\n")
    assert read(file) == [("Hi.", "Salut."), ("Go.", "Va.")]
    assert read(file, {"target": 2}) == [("Hi.", "CC-BY 2.0"), ("Go.", "CC-BY 2.0")]
    file = write(tmp_path, 'score,fr,en\n1,"Oui, oui","Yes, ""yes"""\n')
    assert read(file, languages=EN_FR) == [('Yes, "yes"', "Oui, oui")]


@pytest.mark.parametrize(
    "records",
    [
        [{"source": "Hi.", "target": "Salut."}],
        [{"id": 3, "fr": "Salut.", "en": "Hi."}],
        [{"id": "3", "translation": {"fr": "Salut.", "en": "Hi."}}],
        [{"translation": {"source": "Hi.", "target": "Salut."}}],
        [{"src": "Hi.", "tgt": "Salut."}, {"tgt": "\u2028", "src": "Hi."}],
    ],
)
def test_records_are_read_from_json_parquet_and_data_sets(
    records: list[dict[str, Any]], tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = "\n".join(json.dumps(record) for record in records)
    assert read(write(tmp_path, lines), languages=EN_FR) == [("Hi.", "Salut.")]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", languages=EN_FR) == [("Hi.", "Salut.")]
    reader = PairReader({}, Languages(*EN_FR))
    keys = reader.keys(records[0], Place("x"))
    kept = [{key: record[key] for key in keys} for record in records]
    rows = list(reader.rows_of(enumerate(kept, 1), Place("x", ", row "), Dirt(), {}))
    assert [(row.source, row.target, row.line) for row in rows] == [("Hi.", "Salut.", 1)]


def test_columns_name_the_keys(tmp_path: Path) -> None:
    file = write(tmp_path, '{"a": "Hi.", "b": "Salut."}')
    assert read(file, {"source": "b", "target": "a"}, EN_FR) == [("Salut.", "Hi.")]


@pytest.mark.parametrize(
    ("content", "columns", "languages", "error"),
    [
        (
            "Hi.\tSalut.\nGo.\n",
            {},
            EN_FR,
            ":2: 1 column where the first line has 2; write source and target with one tab "
            "between.",
        ),
        (
            "Hi.\tSalut.\nGo.\tVa.\tx\n",
            {},
            EN_FR,
            ":2: 3 columns where the first line has 2; write source and target with one tab "
            "between.",
        ),
        (
            "Hi.\nGo.\n",
            {},
            EN_FR,
            ":1: one column, where a pair has two: give TSV (source, tab, target), CSV with a "
            "header, JSONL or parquet; or parallel files, such as data.train: train for train.de "
            "and train.en.",
        ),
        (
            "Hi, you.\nGo.\n",
            {},
            EN_FR,
            ":1: no header that names two columns, such as source and target or the languages: "
            "write one, or separate the columns by tabs.",
        ),
        (
            "en\tfr\nHi.\tSalut.\n",
            {},
            ("de", "fr"),
            ":1: no 'de' among en, fr; say which it is with data.columns.source.",
        ),
        (
            "en\tfr\tes\nHi.\tSalut.\tHola.\n",
            {},
            (None, None),
            ":1: no 'source' among en, fr, es; say which languages these are with "
            "data.source_language and data.target_language, or which it is with "
            "data.columns.source.",
        ),
        (
            "Hi.\tSalut.\n",
            {"target": 2},
            EN_FR,
            ": no column 2 for the target; the columns are 0, 1.",
        ),
        (
            "Hi.\tSalut.\n",
            {"target": 0},
            EN_FR,
            ":1: '0' cannot be both source and target: name two in data.columns.",
        ),
        (
            "en\tfr\nHi.\tSalut.\n",
            {"source": "eng"},
            EN_FR,
            ": no column 'eng' for the source; the columns are en, fr. Did you mean 'en'?",
        ),
        (
            '{"en": "Hi.", "fr": "Salut."}',
            {},
            (None, None),
            ":1: no 'source' among en, fr; say which languages these are with "
            "data.source_language and data.target_language, or which it is with "
            "data.columns.source.",
        ),
        (
            '{"translation": {"en": "Hi.", "fr": "Salut."}}',
            {},
            ("en", "de"),
            ":1: no 'de' among en, fr; say which it is with data.columns.target.",
        ),
        (
            '{"en": "Hi.", "fr": "Salut."}\n{"en": "Go."}',
            {},
            EN_FR,
            ":2: no 'fr', which every pair needs: fill it in, or leave the pair out.",
        ),
        (
            '{"en": "Hi.", "fr": ["Salut."]}',
            {},
            EN_FR,
            ":1: 'fr' is no text; write both sides as texts.",
        ),
        (
            '{"en": "Hi.", "fr": "Salut."}',
            {"source": "eng"},
            EN_FR,
            ":1: no key 'eng' for the source; the keys are en, fr. Did you mean 'en'?",
        ),
    ],
)
def test_what_is_no_pair_is_refused_with_its_place(
    content: str,
    columns: dict[str, int | str],
    languages: tuple[str | None, str | None],
    error: str,
    tmp_path: Path,
) -> None:
    file = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read(file, columns, languages)
    assert str(caught.value) == f"{file}{error}"


def test_empty_sides_are_noted(tmp_path: Path) -> None:
    dirt = Dirt()
    file = write(tmp_path, "a\tb\n\tx\n \t \n\ny\t\x00\nc\td\n")
    rows = list(PairReader({}, Languages(None, None)).rows(file, dirt))
    assert [row.line for row in rows] == [1, 6]
    assert dirt.sentences() == [
        "train.tsv: 2 lines empty on one side were skipped (lines 2, 5).",
        "train.tsv: 2 lines empty on both sides were skipped (lines 3, 4).",
    ]


def test_a_file_of_nothing_has_no_rows(tmp_path: Path) -> None:
    assert read(write(tmp_path, "\n\n")) == []


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("en\tfr\nHi.\tSalut.\n", (["en", "fr"], True)),
        ("Hi.\tSalut.\n", ([], True)),
        ("", ([], True)),
        ('{"id": 1, "en": "Hi."}', (["id", "en"], False)),
        ('{"translation": {"fr": "Salut.", "en": "Hi."}}', (["fr", "en"], False)),
    ],
)
def test_names_are_those_of_a_header_or_keys(
    content: str, names: tuple[list[str], bool], tmp_path: Path
) -> None:
    reader = PairReader({}, Languages(None, None))
    assert reader.names(write(tmp_path, content)) == names


def test_what_decides_how_a_file_is_read_is_told(tmp_path: Path) -> None:
    readers = [
        PairReader(columns, Languages(*languages))
        for columns in ({}, {"source": 1}, {"source": "1"})
        for languages in ((None, None), EN_FR, ("fr", "en"))
    ]
    assert len({json.dumps(reader.about()) for reader in readers}) == len(readers)

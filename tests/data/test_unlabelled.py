from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seqlab.data.labelled import LabelledReader
from seqlab.data.rows import Columns, Dirt, Row
from seqlab.data.unlabelled import holds_lines, read_unlabelled
from seqlab.errors import DataError

TEXTS = ["Sand, waves; and ice cream!", "It rained.", '"Never" again']


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


def rows_of(file: Path, columns: Columns | None = None) -> list[Row]:
    return list(read_unlabelled(file, columns or {}, Dirt()))


def jsonl(records: Sequence[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def table(separator: str, header: str, rows: Sequence[Sequence[str]]) -> str:
    quoted = [[f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in row] for row in rows]
    lines = [separator.join(row) for row in (quoted if separator != "\t" else rows)]
    return "\n".join([header, *lines]) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.jsonl", jsonl([{"label": "good", "text": text} for text in TEXTS])),
        ("x", jsonl([{"text": text} for text in TEXTS])),
        ("x", jsonl([{"text": text, "labels": []} for text in TEXTS])),
        ("x.jsonl.gz", jsonl([{"id": 3, "review": text} for text in TEXTS])),
        ("x.jsonl", jsonl([{"words": 12, "text": text} for text in TEXTS])),
        ("x.csv", table(",", "label,text", [["good", text] for text in TEXTS])),
        ("x.csv", table(",", '"id","text"', [["3", text] for text in TEXTS])),
        ("x.csv", table(";", "Review;stars", [[text, "3"] for text in TEXTS])),
        ("x.tsv.gz", table("\t", "text\tlabel", [[text, "good"] for text in TEXTS])),
        ("x", table("\t", "\n\ntext\tprobability\tlabel", [[t, "", ""] for t in TEXTS])),
    ],
    ids=[
        "labelled",
        "bare",
        "several",
        "packed",
        "counted",
        "csv",
        "quoted",
        "semicolons",
        "tsv",
        "late",
    ],
)
def test_labels_are_not_needed(tmp_path: Path, name: str, text: str) -> None:
    file = written(tmp_path, name, text)
    assert not holds_lines(file)
    rows = rows_of(file)
    assert [row.text for row in rows] == TEXTS
    for row in rows:
        assert row.text is not None
        assert row.offsets is not None
        assert [row.text[start:end] for start, end in row.offsets] == row.tokens
    assert rows[1].tokens == ["It", "rained", "."]


def test_parquet_is_read_a_text_a_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"label": [0, 1, 1], "content": TEXTS}), file)
    assert not holds_lines(file)
    assert [row.text for row in rows_of(file)] == TEXTS
    pq.write_table(pa.table({"content": ["It rained.", None]}), file)
    with pytest.raises(
        DataError, match=r"x\.parquet, row 2: no 'content', which the records befor"
    ):
        rows_of(file)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.jsonl", jsonl([{"words": text.split(), "text": "x", "label": "a"} for text in TEXTS])),
        ("x.tsv", table("\t", "tokens\tlabel", [[text, "a"] for text in TEXTS])),
    ],
    ids=["jsonl", "tsv"],
)
def test_words_that_are_given_stay_as_they_are(tmp_path: Path, name: str, text: str) -> None:
    file = written(tmp_path, name, text)
    rows = rows_of(file)
    assert [row.tokens for row in rows] == [text.split() for text in TEXTS]
    assert [row.text for row in rows] == [None] * 3


def test_the_words_are_those_that_training_reads(tmp_path: Path) -> None:
    labelled = [[text, "good"] for text in [*TEXTS, "don't", "l'homme U.S. http://x.org."]]
    for name, text in (
        ("x.tsv", table("\t", "text\tlabel", labelled)),
        ("y.tsv", table("\t", "tokens\tlabel", labelled)),
        ("x.jsonl", jsonl([{"text": text, "label": "good"} for text, _ in labelled])),
        ("y.jsonl", jsonl([{"tokens": text.split(), "label": "good"} for text, _ in labelled])),
    ):
        file = written(tmp_path, name, text)
        trained = list(LabelledReader({}).rows(file, Dirt()))
        assert [row.tokens for row in rows_of(file)] == [row.tokens for row in trained]


def test_the_column_of_the_text_may_be_named_or_numbered(tmp_path: Path) -> None:
    records = written(tmp_path, "x", jsonl([{"text": "no", "said": text} for text in TEXTS]))
    assert [row.text for row in rows_of(records, {"text": "said"})] == TEXTS
    file = written(tmp_path, "x.csv", table(",", "who,What", [["no", text] for text in TEXTS]))
    for wanted in ("What", 1, -1):
        assert [row.text for row in rows_of(file, {"text": wanted})] == TEXTS
    single = written(tmp_path, "y.csv", table(",", "What", [[text] for text in TEXTS]))
    assert [row.text for row in rows_of(single, {"text": "What"})] == TEXTS
    with pytest.raises(DataError, match=r"x\.csv: no column 'what' for the text; .* who, What\."):
        rows_of(file, {"text": "what"})
    with pytest.raises(DataError, match=r"x:1: no key 'sad'"):
        rows_of(records, {"text": "sad"})


def test_texts_without_a_word_keep_their_place(tmp_path: Path) -> None:
    texts = ["It rained.", "", " \u0001", "Sun."]
    for name, text in (
        ("x.jsonl", jsonl([{"text": text} for text in texts])),
        ("x.csv", table(",", "label,text", [["a", text] for text in texts])),
    ):
        rows = rows_of(written(tmp_path, name, text))
        assert [len(row.tokens) for row in rows] == [3, 0, 0, 2]
        assert [row.text for row in rows] == texts


def test_empty_words_are_left_out_and_noted(tmp_path: Path) -> None:
    file = written(tmp_path, "x.jsonl", jsonl([{"tokens": ["It", " ", "rained"]}]))
    dirt = Dirt()
    assert [row.tokens for row in read_unlabelled(file, {}, dirt)] == [["It", "rained"]]
    assert dirt.sentences() == ["x.jsonl: 1 line with an empty token was kept without it (line 1)."]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "It rained.\nThe sun, well, shone.\n",
        "text\nlabel\n",
        "Well, text, label\n",
        "Good,really\nbad,really\n",
        "The review; it was, in a word, long\n",
        "Ada\tO\nwas\tO\n",
        "\u0001text,label\n",
        "text,,label\n",
    ],
)
def test_what_is_no_table_is_a_text_a_line(tmp_path: Path, text: str) -> None:
    assert holds_lines(written(tmp_path, "x.csv", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            jsonl([{"label": "a", "said": "It rained."}]),
            r"x:1: no text: the keys are label, said; ",
        ),
        (jsonl([{"text": "a"}, {"label": "b"}]), r"x:2: no 'text', which the records before have"),
        (jsonl([{"text": "a"}, {"text": 3}]), r"x:2: 'text' is neither a text nor a list of words"),
        (jsonl([{"text": "a"}, {"text": ["a", 3]}]), r"x:2: 'text' is neither a text nor a list"),
        ('{"text": "a"}\n{"text"\n', r"x:2: not JSON"),
        ("label,text\na,b\na,b,c\n", r"x:3: 3 columns where the header has 2"),
        ("label,text\n", r"x holds no text: give JSONL, CSV or TSV with a header, or parquet"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of(written(tmp_path, "x", text))


@pytest.mark.real
def test_real_corpora_are_read_as_they_are_trained_on(corpora: Path) -> None:
    for name in ("rotten-tomatoes/dev.tsv", "banking77/dev.jsonl"):
        file = corpora / name
        assert not holds_lines(file)
        trained = [row.tokens for row in LabelledReader({}).rows(file, Dirt())]
        assert len(trained) >= 1_000
        assert [row.tokens for row in rows_of(file)] == trained

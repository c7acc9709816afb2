from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqlab.data.labelled import LabelledReader
from seqlab.data.labels import LabelledRow
from seqlab.data.rows import Dirt, Place, Unlabelled
from seqlab.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(content: str | bytes, name: str = "train") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def jsonl(*records: object) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def rows(
    path: Path,
    columns: dict[str, int | str] | None = None,
    dirt: Dirt | None = None,
    **options: Any,
) -> list[LabelledRow]:
    return list(LabelledReader(columns or {}, **options).rows(path, dirt or Dirt()))


def told(path: Path, columns: dict[str, int | str] | None = None, **options: Any) -> list[tuple]:
    return [(" ".join(row.tokens), row.labels) for row in rows(path, columns, **options)]


def failure(path: Path, columns: dict[str, int | str] | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        rows(path, columns, **options)
    return str(error.value).replace(f"{path.parent}/", "")


# JSONL


def test_jsonl_with_texts_is_cut_into_words_and_keeps_its_lines(file: Write) -> None:
    path = file(
        jsonl({"text": "Don't go!", "label": "neg"}) + "\n" + jsonl({"text": "Go", "label": 1})
    )
    assert rows(path) == [
        LabelledRow(["Do", "n't", "go", "!"], ["neg"], [1], False),
        LabelledRow(["Go"], ["1"], [3], False),
    ]


@pytest.mark.parametrize("key", ["tokens", "words"])
def test_lists_of_words_are_used_as_they_are(file: Write, key: str) -> None:
    path = file(jsonl({key: ["Don't", "go!"], "label": "neg", "text": "other"}))
    assert rows(path) == [LabelledRow(["Don't", "go!"], ["neg"], [1], False)]
    (row,) = rows(file(jsonl({"x": ["a b", "c"], "y": "z"})), {"text": "x", "label": "y"})
    assert row.tokens == ["a b", "c"]


def test_annotations_of_words_are_no_lists_of_words(file: Write) -> None:
    path = file(jsonl({"tokens": [{"id": 0}], "sentence": "Go", "label": "x"}))
    assert told(path) == [("Go", ["x"])]


def test_lists_of_labels_are_several_labels(file: Write) -> None:
    path = file(jsonl({"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}))
    assert rows(path) == [
        LabelledRow(["a"], ["x", "y"], [1], True),
        LabelledRow(["b"], [], [2], True),
    ]


@pytest.mark.parametrize("name", ["class", "category", "intent", "sentiment", "topic"])
def test_other_names_of_labels_are_known_where_the_plain_one_lacks(file: Write, name: str) -> None:
    assert told(file(jsonl({"review": "a", name: "x"}))) == [("a", ["x"])]
    assert told(file(jsonl({"review": "a", name: "x", "label": "y"}))) == [("a", ["y"])]
    assert told(file(f"Review,{name.title()},Label\na,x,y\n")) == [("a", ["y"])]


def test_columns_name_other_keys(file: Write) -> None:
    path = file(jsonl({"text": "a", "label": "x", "title": "b", "stars": 5}))
    assert told(path, {"label": "stars"}) == [("a", ["5"])]
    assert told(path, {"text": "title"}) == [("b", ["x"])]


def test_gzip_and_a_byte_order_mark_change_nothing(file: Write) -> None:
    plain = "\ufefftext\tlabel\r\ngood\tpos\r\n".encode()
    assert told(file(plain)) == told(file(gzip.compress(plain))) == [("good", ["pos"])]


A = {"text": "good", "label": "pos"}


@pytest.mark.parametrize(
    ("records", "columns", "said"),
    [
        (
            [A, {"text": "bad"}],
            {},
            "train:2: no 'label', which every row needs; fill it in (with an empty list where none "
            "of several labels fits), or leave the row out.",
        ),
        ([A, {"text": "bad", "label": None}], {}, "train:2: no 'label', which every row needs;"),
        ([{"text": "bad", "labels": None}], {}, "train:1: no 'labels', which every row needs;"),
        ([{"text": None, "label": "pos"}], {}, "train:1: no 'text', which every row needs;"),
        ([A, {"text": "a", "label": ["x"]}], {}, "train:2: 'label' is a list here and a single"),
        (
            [A, {"text": ["bad"], "label": "neg"}],
            {},
            "train:2: 'text' is not a text; write texts, or lists of words, alike in all rows.",
        ),
        (
            [{"tokens": ["a"], "label": "x"}, {"tokens": "b", "label": "x"}],
            {},
            "train:2: 'tokens' is not a list of words; write texts, or lists of words, alike",
        ),
        ([{"text": 3, "label": "x"}], {}, "train:1: 'text' is not a list of words; write"),
        (
            [{"text": "a", "lable": "x"}],
            {},
            "train:1: no label among text, lable, which should be names of columns, such as text "
            "and label; say which is the label with data.columns.label. Did you mean 'lable'?",
        ),
        (
            [{"txt": "a", "label": "x"}],
            {},
            "train:1: no text among txt, label, which should be names of columns, such as text and "
            "label; say which is the text with data.columns.text. Did you mean 'txt'?",
        ),
        (
            [A],
            {"label": "lable"},
            "train:1: no key 'lable' for the label; the keys are text, label. Did you mean "
            "'label'?",
        ),
        ([A], {"label": 1}, "train:1: no key 1 for the label; the keys are text, label."),
        (
            [{**A, "labels": ["x"]}],
            {},
            "train:1: label and labels could all be the label; say which with data.columns.label.",
        ),
        (
            [{"text": "a", "topic": "x", "intent": "y"}],
            {},
            "train:1: intent and topic could all be the label; say which with data.columns.label.",
        ),
        (
            [A],
            {"text": "label"},
            "train:1: 'label' cannot be both text and label; mend data.columns: name two columns.",
        ),
    ],
    ids=str,
)
def test_records_that_lack_something_are_refused_with_their_line(
    file: Write, records: list[dict[str, Any]], columns: dict[str, int | str], said: str
) -> None:
    assert failure(file(jsonl(*records)), columns).startswith(said)


def test_broken_json_is_refused_with_its_line(file: Write) -> None:
    assert failure(file(jsonl(A) + "{'text'\n")).startswith("train:2: not JSON (")
    assert failure(file(json.dumps([A]))).startswith("train:1: not a JSON object; write one")


# Tables


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_tables_may_be_parted_by_tabs_commas_and_semicolons(file: Write, separator: str) -> None:
    path = file(f"id{separator}Text{separator}Label\n1{separator}So good!{separator} pos \n\n")
    assert rows(path) == [LabelledRow(["So", "good", "!"], ["pos"], [2], False)]


def test_texts_of_csv_may_hold_separators_quotes_and_line_ends(file: Write) -> None:
    path = file('label,text\npos,"Say ""hi"",\nthen go"\nneg,no\n')
    assert rows(path) == [
        LabelledRow(["Say", '"', "hi", '"', ",", "then", "go"], ["pos"], [2], False),
        LabelledRow(["no"], ["neg"], [4], False),
    ]


def test_texts_of_tsv_may_hold_a_lone_quotation_mark(file: Write) -> None:
    assert told(file('text\tlabel\n"so so\tpos\nbad\tneg\n')) == [
        ('" so so', ["pos"]),
        ("bad", ["neg"]),
    ]


def test_a_column_of_tokens_is_split_at_spaces(file: Write) -> None:
    assert told(file("tokens\tlabel\nDon't go.\tneg\n")) == [("Don't go.", ["neg"])]
    assert rows(file("tokens\tlabel\nDon't go.\tneg\n"))[0].tokens == ["Don't", "go."]


def test_columns_of_tables_have_names_and_numbers(file: Write) -> None:
    path = file("id,stars,review_text,stamp\n1,5,good,x\n2,1,bad,x\n")
    expected = [("good", ["5"]), ("bad", ["1"])]
    assert told(path, {"text": "review_text", "label": "stars"}) == expected
    assert told(path, {"text": -2, "label": 1}) == expected


def test_a_separator_parts_the_labels_of_a_cell(file: Write) -> None:
    path = file("text,label\na,x|y\nb,\nc, y |x\n")
    assert rows(path, separator="|") == [
        LabelledRow(["a"], ["x", "y"], [2], True),
        LabelledRow(["b"], [], [3], True),
        LabelledRow(["c"], ["y", "x"], [4], True),
    ]


@pytest.mark.parametrize(
    ("content", "columns", "said"),
    [
        (
            "text\tlabel\ngood\tpos\nbad\n",
            {},
            "train:3: 1 column where the header has 2; put cells that hold a separator into",
        ),
        ("text,label\nbad, so bad,neg\n", {}, "train:2: 3 columns where the header has 2;"),
        ("text,label\ngood,pos\nbad,\n", {}, "train:3: 'label' is empty; write the label, or"),
        (
            "review,stars\ngood,5\n",
            {"label": "star"},
            "train: no column 'star' for the label; the columns are review, stars. Did you mean "
            "'stars'?",
        ),
        (
            "review,stars\ngood,5\n",
            {"label": 2},
            "train: no column 2 for the label; the columns are review, stars.",
        ),
        (
            "good\tpos\nbad\tneg\n",
            {},
            "train:1: no text among good, pos, which should be names of columns, such as text and "
            "label; write such a line above the texts, or say which is the text with "
            "data.columns.text. A corpus of tagged sentences is for seqlab.TaggingData.",
        ),
        (
            "text,stars\ngood,5\n",
            {},
            "train:1: no label among text, stars, which should be names of columns, such as text "
            "and label; say which is the label with data.columns.label.",
        ),
        (
            f"{'long ' * 20}\tpos\n",
            {},
            f"train:1: no text among {'long ' * 8}..., pos, which should be",
        ),
        ("Just a text.\n", {}, "train:1: no text among Just a text., which should be names"),
        ("text,Text,label\na,b,c\n", {"label": "text"}, "train:1: 'text' cannot be both text"),
        ('text,label\n"a,b\n', {}, "train:2: no row of a table ("),
    ],
    ids=str,
)
def test_tables_that_lack_something_are_refused_with_their_line(
    file: Write, content: str, columns: dict[str, int | str], said: str
) -> None:
    assert failure(file(content), columns).startswith(said)


def test_what_is_not_utf8_is_refused_with_its_line(file: Write) -> None:
    assert failure(file(b"text\tlabel\nb\xe9d\tneg\n")).startswith("train:2: not UTF-8 (")
    assert failure(file("text\tlabel\n".encode("utf-16"))).startswith("train:1: UTF-16, not UTF-8;")
    assert failure(file("").parent / "none") == "cannot read none: No such file or directory."


def test_long_texts_are_one_row(file: Write) -> None:
    (row,) = rows(file(f"text\tlabel\n{'word ' * 30_000}\tx\n"))
    assert len(row.tokens) == 30_000


# Dirt


def test_texts_without_a_word_are_skipped_and_said(file: Write) -> None:
    empty = ["", "  ", "\u200b", "\x07"]
    dirt = Dirt()
    path = file(jsonl(A, *({"text": text, "label": "pos"} for text in empty), A))
    assert [row.lines for row in rows(path, dirt=dirt)] == [[1], [6]]
    assert dirt.sentences() == ["train: 4 lines without any word were skipped (lines 2, 3, 4, 5)."]
    dirt = Dirt()
    assert [row.lines for row in rows(file("text,label\n ,x\na,x\n"), dirt=dirt)] == [[3]]
    assert dirt.sentences() == ["train: 1 line without any word was skipped (line 2)."]


def test_empty_tokens_are_left_out_and_said(file: Write) -> None:
    dirt = Dirt()
    path = file(jsonl({"tokens": ["a", "", "b"], "label": "x"}, {"tokens": [], "label": "x"}))
    assert [row.tokens for row in rows(path, dirt=dirt)] == [["a", "b"]]
    assert dirt.sentences() == [
        "train: 1 line with an empty token was kept without it (line 1).",
        "train: 1 line without any word was skipped (line 2).",
    ]


@pytest.mark.parametrize("content", ["", "\n \n", "text\tlabel\n", jsonl({"text": "", "label": 1})])
def test_a_file_without_texts_is_refused(file: Write, content: str) -> None:
    assert failure(file(content)) == (
        "train holds no text with a word in it: give JSONL, CSV or TSV with a header, parquet, or "
        "a folder of texts for each label."
    )


def test_an_empty_text_does_not_hide_a_wrong_label(file: Write) -> None:
    assert failure(file(jsonl({"text": " ", "label": ""}, A))).startswith(
        "train:1: 'label' is empty;"
    )


# Parquet


def parquet(path: Path, columns: dict[str, list[Any]], features: Any = None) -> Path:
    table = pa.table(columns)
    if features:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pq.write_table(table, path)
    return path


CLASSES = {"names": ["neg", "pos"], "_type": "ClassLabel"}


def test_parquet_with_class_labels_gives_their_names(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x", {"text": ["a b", "c"], "label": [1, 0]}, {"label": CLASSES})
    assert rows(path) == [
        LabelledRow(["a", "b"], ["pos"], [1], False),
        LabelledRow(["c"], ["neg"], [2], False),
    ]
    lists = parquet(
        tmp_path / "y", {"text": ["a", "b"], "labels": [[1, 0], []]}, {"labels": [CLASSES]}
    )
    assert told(lists) == [("a", ["pos", "neg"]), ("b", [])]


def test_parquet_with_texts_for_labels_is_read_in_order(tmp_path: Path) -> None:
    texts = [f"w{i}" for i in range(2500)]
    path = parquet(tmp_path / "x", {"text": texts, "label": [f"l{i % 3}" for i in range(2500)]})
    assert [row.tokens[0] for row in rows(path)] == texts
    assert rows(path)[-1].lines == [2500]


def test_texts_whose_class_nobody_knows_are_skipped_and_said(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "x", {"text": ["a", "b", "c"], "label": [-1, 0, -1]}, {"label": CLASSES}
    )
    dirt = Dirt()
    assert [row.tokens for row in rows(path, dirt=dirt)] == [["b"]]
    assert dirt.sentences() == ["x: 2 lines without a label (-1) were skipped (lines 1, 3)."]
    path = parquet(tmp_path / "x", {"text": ["a"], "label": [-1]}, {"label": CLASSES})
    with pytest.raises(Unlabelled, match=r"x: none of its texts has a label \(all are -1\)\."):
        rows(path)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x", {"text": ["a"], "label": ["b"]})
    path.write_bytes(path.read_bytes()[:-20])
    assert failure(path).startswith("x: not a whole parquet file (")
    null = parquet(tmp_path / "y", {"text": ["a", "b"], "label": ["b", None]})
    assert failure(null).startswith("y, row 2: no 'label', which every row needs;")


# The protocol of readers


def test_what_decides_how_files_are_read_is_told_apart() -> None:
    readers = [
        LabelledReader({}),
        LabelledReader({"label": "x"}),
        LabelledReader({}, several=True),
        LabelledReader({}, several=False),
        LabelledReader({}, separator="|"),
    ]
    abouts = [json.dumps(reader.about()) for reader in readers]
    assert len(set(abouts)) == len(abouts)


def test_the_keys_of_a_data_set_are_those_of_text_and_label() -> None:
    record = {"idx": 3, "sentence": "a", "label": 1}
    assert LabelledReader({}).keys(record, Place("org/name train", ", row ")) == [
        "sentence",
        "label",
    ]

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqlab.bulk import inputs
from seqlab.bulk.inputs import cut_file
from seqlab.bulk.rows import Item, Reading
from seqlab.errors import DataError
from seqlab.sentence import Sentence
from seqlab.translation_pipeline import Wishes

TAGGER, CLASSIFIER = Reading("tagger", {}), Reading("classifier", {})
TRANSLATOR = Reading("translator", {}, language="en")


def items(path: Path, reading: Reading) -> list[Item]:
    file = cut_file(str(path), "x", reading)
    return [item for shard in file.shards("jsonl") for item in reading.items(shard)]


def of_json(path: Path, reading: Reading, *values: Any) -> list[Item]:
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return items(path, reading)


def test_rows_of_text_are_lines_whatever_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfAda  slept.\r\n\n\x00\x07\nJos\xe9\nend")
    found = items(path, TAGGER)
    assert [item.row for item in found] == [0, 1, 2, 3, 4]
    assert [list(item.input.tokens) for item in found] == [
        ["Ada", "slept", "."],
        [],
        [],
        [],
        ["end"],
    ]
    assert [item.error for item in found[:3]] == [None] * 3
    assert found[3].error is not None
    assert found[3].error.startswith("not UTF-8 (")


def test_what_is_wrong_with_json_is_said_of_its_row(tmp_path: Path) -> None:
    found = of_json(
        tmp_path / "a.jsonl",
        CLASSIFIER,
        "{",
        {"id": 3, "text": "Ada"},
        "[1]",
        " ",
        {"id": [1], "other": "Ada"},
        {"text": None},
        '{"text": "\\ud800"}',
        {"text": ["Ada", " ", "slept"]},
        "[" * 100_000,
    )
    assert [item.row for item in found] == list(range(9))
    said = [item.error or "" for item in found]
    assert said[0].startswith("not JSON (Expecting property name")
    assert said[2] == "not a JSON object."
    assert said[3] == "no text: the line is blank."
    assert said[4].startswith("no text: the keys are id, other;")
    assert found[4].key == "[1]"
    assert said[5] == "no text: 'text' is null."
    assert said[6].startswith("half a surrogate pair")
    assert said[8].startswith("not JSON (")
    assert found[1] == Item(1, Sentence.of("Ada"), 3)
    assert found[7].input.tokens == ["Ada", "slept"]


def test_taggers_read_tokens_before_texts_and_features(tmp_path: Path) -> None:
    reading = Reading("tagger", {"pos": "xpos"})
    good = {"tokens": ["Ada", "slept"], "xpos": ["N", "V"]}
    found = of_json(tmp_path / "a.jsonl", reading, good, {"tokens": ["Ada"]}, {"text": "Ada"})
    assert found[0].input == Sentence(["Ada", "slept"], {"pos": ["N", "V"]})
    assert found[1].error == "no key 'xpos' for the pos; the keys are tokens."
    assert found[1].input.features == {"pos": []}


def test_translators_read_pairs_and_wishes(tmp_path: Path) -> None:
    found = of_json(
        tmp_path / "a.jsonl",
        TRANSLATOR,
        {"translation": {"en": "a dog", "fr": "un chien"}},
        {"source": "a cat", "require": "chat"},
        {"source": "a cat", "ban": [" "]},
        {"source": ["a"]},
    )
    assert [item.input for item in found[:2]] == ["a dog", ("a cat", Wishes("", ("chat",), ()))]
    assert found[2].error == "a banned phrase is blank: leave it out."
    assert found[3].error == "the source is no text; write it as one."
    assert found[3].input == ""


def test_shards_of_parquet_begin_and_end_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS", 10)
    table = pa.table({"id": range(33), "text": [f"w{n}" for n in range(33)], "x": [b"\xff"] * 33})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    found = items(tmp_path / "a.parquet", TAGGER)
    assert [(item.row, item.key, item.input.text) for item in found] == [
        (n, n, f"w{n}") for n in range(33)
    ]


def test_a_row_of_parquet_that_is_no_utf8_is_set_aside(tmp_path: Path) -> None:
    raw = pa.array([b"Ada", b"Jos\xe9", b"slept"]).view(pa.string())
    pq.write_table(pa.table({"text": raw}), tmp_path / "a.parquet")
    found = items(tmp_path / "a.parquet", TAGGER)
    assert [bool(item.error) for item in found] == [False, True, False]
    assert found[1].error is not None
    assert found[1].error.startswith("the row cannot be read (")


def test_parquet_needs_the_columns_that_are_asked_for(tmp_path: Path) -> None:
    pq.write_table(pa.table({"remark": ["Ada"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"its columns are remark; say .*--columns text=COLUMN"):
        items(tmp_path / "a.parquet", CLASSIFIER)
    (found,) = items(tmp_path / "a.parquet", Reading("classifier", {"text": "remark"}))
    assert found.input.text == "Ada"
    with pytest.raises(DataError, match=r"no key 'remrk' .*Did you mean 'remark'\?"):
        items(tmp_path / "a.parquet", Reading("classifier", {"text": "remrk"}))

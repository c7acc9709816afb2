from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqlab.bulk import inputs
from seqlab.bulk.inputs import Cut, InputFile, cut_file, digest_of, found, plain_name
from seqlab.bulk.rows import Reading
from seqlab.errors import DataError

TAGGER = Reading("tagger", {})


def test_a_folder_is_its_files_of_known_endings(tmp_path: Path) -> None:
    for name in ("b.txt", "a.JSONL.gz", "c.parquet", ".d.txt", "e.csv", "_SUCCESS"):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "folder.txt").mkdir()
    assert [Path(path).name for path in found(str(tmp_path))] == [
        "a.JSONL.gz",
        "b.txt",
        "c.parquet",
    ]
    assert [Path(path).name for path in found(f"{tmp_path}/*.csv")] == ["e.csv"]


def test_names_lose_what_says_their_format() -> None:
    names = ["x/a.b.txt.gz", "a.csv", "a.pq", ".txt", "a.tar.gz"]
    assert list(map(plain_name, names)) == ["a.b", "a.csv", "a", ".txt", "a.tar"]


@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_cut_where_each_shard_begins(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS", 2)
    text = "Ada é\n\nshe slept all day\nsaid\nend".encode()
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(text) if packed else text)
    file = cut_file(str(path), "a", Reading("tagger", {}, lines=True))
    assert file.cuts == (Cut(0, 2, 0), Cut(2, 4, 8), Cut(4, 5, 31))
    assert file.rows == 5
    assert [shard.output for shard in file.shards("parquet")][-1] == "a-00002.parquet"
    assert file.digest == hashlib.sha256(path.read_bytes()).hexdigest() == digest_of(path)
    assert InputFile.from_dict(json.loads(json.dumps(file.to_dict()))) == file
    assert file.is_there()
    path.write_bytes(b"")
    assert not file.is_there()


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_an_empty_file_is_a_shard_without_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    if name == "a.parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert cut_file(str(path), "a", TAGGER).cuts == (Cut(0, 0, 0),)


def test_what_is_no_text_a_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ada\tB-PER\nslept\tO\n\nBob\tB-PER\n" * 5, encoding="utf-8")
    with pytest.raises(DataError, match=r"reads like conll, .*add --lines"):
        cut_file(str(path), "a", TAGGER)
    path.write_text("text,label\nAda,good\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"reads like a table"):
        cut_file(str(path), "a", Reading("classifier", {}))
    assert cut_file(str(path), "a", Reading("translator", {})).rows == 2
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        cut_file(str(tmp_path / "none"), "a", TAGGER)

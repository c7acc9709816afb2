from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqlab.data import coded as coding
from seqlab.data.coded import Coded, cached_ids, coded
from seqlab.data.holding import hold_out
from seqlab.data.sources import load_splits

SENTENCES = [["b", "a", "b"], ["é😀", "a"], ["a"]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))


def split_of(folder: Path, sentences: list[list[str]] = SENTENCES) -> Any:
    text = "\n".join("".join(f"{word}\tO\n" for word in words) for words in sentences)
    (folder / "train.conll").write_text(text, encoding="utf-8")
    return load_splits(str(folder))[0]["train"]


def strings(column: Coded) -> list[list[str]]:
    """The rows of a column, put together again."""
    flat = [column.values[number] for number in column.ids[:]]
    bounds = column.offsets.tolist()
    return [flat[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


def files(tmp_path: Path, name: str) -> list[Path]:
    return sorted((tmp_path / "cache").rglob(name))


def test_strings_are_numbered_as_they_come_and_counted(tmp_path: Path) -> None:
    column = coded(split_of(tmp_path), "tokens")
    assert column.by_value() == {"b": 2, "a": 3, "é😀": 1}
    assert column.values == ["b", "a", "é😀"]
    assert column.ids[:].tolist() == [0, 1, 0, 2, 1, 1]
    assert column.offsets.tolist() == [0, 3, 5, 6]
    assert not column.ids[:].flags.owndata
    assert not column.ids[:].flags.writeable
    assert isinstance(column.offsets.base, np.memmap)


def test_rows_of_several_chunks_are_numbered_in_one(tmp_path: Path) -> None:
    sentences = [[f"w{i * i % 97}", f"w{i % 89}"] for i in range(2500)]
    split = split_of(tmp_path, sentences)
    assert len(split.data.column("tokens").chunks) == 3
    column = coded(split, "tokens")
    assert strings(column) == sentences
    flat = [word for words in sentences for word in words]
    assert column.by_value() == Counter(flat)
    assert column.values == list(dict.fromkeys(flat))


def test_a_column_is_numbered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of(tmp_path)
    first = coded(split, "tokens")
    monkeypatch.setattr(coding, "flat_ids", None)
    assert strings(coded(split, "tokens")) == SENTENCES
    assert coded(split, "tokens").key == first.key
    with pytest.raises(TypeError):
        coded(split, "tags")
    with pytest.raises(TypeError):
        coded(split_of(tmp_path, SENTENCES[1:]), "tokens")


def test_held_out_rows_are_numbered_for_themselves(tmp_path: Path) -> None:
    sentences = [[f"w{i}"] for i in range(40)]
    splits, _ = hold_out({"train": split_of(tmp_path, sentences)}, 0.25, "my")
    columns = {part: coded(rows, "tokens") for part, rows in splits.items()}
    assert len({column.key for column in columns.values()}) == 3
    for part, rows in splits.items():
        assert strings(columns[part]) == list(rows["tokens"])


def test_rows_may_be_changed_before_they_are_numbered(tmp_path: Path) -> None:
    split = split_of(tmp_path)
    changed = coded(split, "tokens", lambda words: [word.upper() for word in words], "upper")
    assert strings(changed) == [["B", "A", "B"], ["É😀", "A"], ["A"]]
    assert strings(coded(split, "tokens")) == SENTENCES


@pytest.mark.parametrize("name", ["tokens.ids", "tokens.offsets", "tokens.values"])
def test_damaged_numbers_are_made_anew(name: str, tmp_path: Path) -> None:
    split = split_of(tmp_path)
    coded(split, "tokens")
    (damaged,) = files(tmp_path, name)
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-4] + b"\x00\x00\x00\x01")
    assert strings(coded(split, "tokens")) == SENTENCES
    assert damaged.read_bytes() == good


def test_ids_are_kept_under_their_key() -> None:
    made = []

    def parts() -> Iterator[Any]:
        made.append(1)
        yield np.array([1, -1], np.int32)
        yield np.array([5], np.int32)

    for _ in range(2):
        assert cached_ids("ab" * 20, "some.ids", parts)[:].tolist() == [1, -1, 5]
    assert len(made) == 1


@pytest.mark.slow
def test_several_processes_may_number_at_once(tmp_path: Path) -> None:
    split_of(tmp_path, [[f"w{i % 1013}", "the"] for i in range(30_000)])
    code = (
        "import sys; from seqlab.data.tagging import TaggingData;"
        "d = TaggingData(sys.argv[1]); e = d.dataset('train', scored=False).encoded;"
        "print(e.forms[:].sum(), e.target[:].sum(), len(d.source_vocab))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=dict(os.environ),
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert said[0] == said[1] != b""
    assert len(files(tmp_path, "target.ids")) == 1

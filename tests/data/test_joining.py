from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from seqlab.data.joining import FILE, load_joined
from seqlab.data.labelled import LabelledReader
from seqlab.data.sources import TaggedReader
from seqlab.errors import DataError

NONE: dict[str, list[str]] = {"train": [], "validation": [], "test": []}


def write(file: Path, *words: str, tag: str = "\tO") -> str:
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(f"{word}{tag}\n" for word in words), encoding="utf-8")
    return str(file)


def test_files_of_a_split_follow_each_other(tmp_path: Path) -> None:
    write(tmp_path / "my/train.conll", "a", "b")
    write(tmp_path / "my/dev.conll", "c")
    other = write(tmp_path / "more.conll", "d", "e", "f")
    files = {**NONE, "train": ["train.conll", other, "dev.conll"]}
    splits, notes = load_joined(str(tmp_path / "my"), files, TaggedReader({}))
    assert [row["tokens"] for row in splits["train"]] == [["a"], ["b"], ["d"], ["e"], ["f"], ["c"]]
    assert splits["train"][FILE] == [0, 0, 1, 1, 1, 2]
    assert [row["tokens"] for row in splits["validation"]] == [["c"]]
    assert FILE not in splits["validation"].column_names
    assert notes == []


def test_without_lists_a_corpus_is_what_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "train.conll", "a", "b")
    for given in ((path, NONE), (None, {**NONE, "train": [path]})):
        splits, _ = load_joined(*given, TaggedReader({}))
        assert splits["train"].column_names == ["tokens", "tags", "lines"]


def test_rows_stay_on_disk(tmp_path: Path) -> None:
    one = write(tmp_path / "a.conll", *"ab" * 500)
    two = write(tmp_path / "b.conll", *"cd" * 500)
    splits, _ = load_joined(None, {**NONE, "train": [one, two]}, TaggedReader({}))
    assert len({file["filename"] for file in splits["train"].cache_files}) == 2


def test_what_is_skipped_is_said_of_every_file(tmp_path: Path) -> None:
    one = write(tmp_path / "a.conll", "a", "")
    two = write(tmp_path / "b.conll", "", "b")
    _, notes = load_joined(None, {**NONE, "train": [one, two]}, TaggedReader({}))
    assert [note.split(":")[0] for note in notes] == ["a.conll", "b.conll"]


def test_files_that_differ_in_their_columns_are_refused(tmp_path: Path) -> None:
    one = tmp_path / "a.jsonl"
    one.write_text('{"tokens": ["a"], "tags": ["O"]}\n')
    two = tmp_path / "b.jsonl"
    two.write_text('{"tokens": ["a"]}\n')
    files = {**NONE, "train": [str(one), str(two)]}
    with pytest.raises(DataError) as error:
        load_joined(None, files, TaggedReader({}, tagged=False))
    assert str(error.value) == (
        f"data.train: {two} has the columns tokens, and the files before it tags, tokens: join "
        "files that have the same."
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_file_without_labels_cannot_be_joined(order: tuple[int, int], tmp_path: Path) -> None:
    pair = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    named = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(2)})
    for file, label in zip(pair, (0, -1), strict=True):
        rows = datasets.Dataset.from_dict({"text": ["a"], "label": [label]}, features=named)
        rows.to_parquet(str(file))
    files = {**NONE, "train": [str(pair[i]) for i in order]}
    with pytest.raises(DataError) as error:
        load_joined(None, files, LabelledReader({}, None, None))
    assert str(error.value) == (
        f"data.train: nothing in {pair[1]} is labelled: take it out of the list."
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    one = write(tmp_path / "a.conll", "a")
    with pytest.raises(DataError, match=r"data.train: no such file or folder: .*nope.conll"):
        load_joined(None, {**NONE, "train": [one, "nope.conll"]}, TaggedReader({}))

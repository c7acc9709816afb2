from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from seqlab.data.folders import content_of, labels_of, read_folder, texts_of
from seqlab.data.labels import LabelledRow
from seqlab.data.rows import Dirt
from seqlab.errors import DataError


def fill(folder: Path, **texts: str | bytes) -> Path:
    """Files by name; ``__`` stands for the slash, ``_`` for the dot."""
    for name, text in texts.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def read(folder: Path, dirt: Dirt | None = None) -> list[LabelledRow]:
    return list(read_folder(folder, dirt or Dirt(), several=False))


def test_every_file_is_a_text_with_the_name_of_its_folder(tmp_path: Path) -> None:
    fill(tmp_path, pos__2_txt="Good film!\n\nSee it.", pos__10_TXT="fine", neg__a_txt="bad")
    (tmp_path / "neg" / "b.txt.gz").write_bytes(gzip.compress(b"worse"))
    assert read(tmp_path) == [
        LabelledRow(["bad"], ["neg"], [1], False),
        LabelledRow(["worse"], ["neg"], [2], False),
        LabelledRow(["fine"], ["pos"], [3], False),
        LabelledRow(["Good", "film", "!", "See", "it", "."], ["pos"], [4], False),
    ]
    assert next(read_folder(tmp_path, Dirt(), several=True)).several


def test_numbers_of_rows_are_places_in_the_list_of_texts(tmp_path: Path) -> None:
    fill(tmp_path, pos__1_txt="good", neg__1_txt="", neg__2_txt="bad", neg__0_md="x")
    rows = read(tmp_path)
    assert [row.lines for row in rows] == [[2], [3]]
    files = [texts_of(tmp_path)[row.lines[0] - 1] for row in rows]
    assert files == [tmp_path / "neg" / "2.txt", tmp_path / "pos" / "1.txt"]


def test_what_is_no_text_is_left_out_and_said(tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "train", pos__1_txt="good", pos__2_txt=" \n", pos__3_txt="", pos__x_md="x"
    )
    fill(folder, pos__sub__1_txt="x", other__x_csv="x", LICENSE_txt="x")
    (folder / "pos" / ".hidden.txt").write_text("x")
    fill(folder / ".git", pos__1_txt="x")
    dirt = Dirt()
    assert [row.tokens for row in read(folder, dirt)] == [["good"]]
    assert dirt.sentences() == [
        "train: 2 files not named *.txt were left out (files other/x.csv, pos/x.md).",
        "train: 2 files without any word were skipped (files pos/2.txt, pos/3.txt).",
    ]


def test_labels_are_the_folders_with_texts(tmp_path: Path) -> None:
    fill(tmp_path, b__1_txt="x", a__1_txt="x", c__1_csv="x", d_txt="x")
    assert labels_of(tmp_path) == ["a", "b"]
    assert labels_of(tmp_path / "d.txt") == labels_of(tmp_path / "none") == []


def test_a_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    fill(tmp_path, pos__1_txt=b"good\nb\xe9d")
    with pytest.raises(DataError, match=rf"^{tmp_path}/pos/1\.txt:2: not UTF-8"):
        read(tmp_path)


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", _txt="x", pos__1_md="x")
    with pytest.raises(DataError) as error:
        read(tmp_path / "train")
    assert str(error.value) == (
        f"{tmp_path}/train holds no text: give it a folder for each label, and in there one file a "
        "text, as in train/positive/1.txt."
    )


@pytest.mark.parametrize(
    "change",
    [
        {"pos__1_txt": "goof"},
        {"pos__2_txt": "good"},
        {"neg__1_txt": ""},
        {"pos__x_md": ""},
        {"pos__1_txt": "go", "pos__2_txt": "od"},
    ],
    ids=str,
)
def test_whatever_changes_the_rows_or_what_is_said_changes_the_content(
    change: dict[str, str], tmp_path: Path
) -> None:
    fill(tmp_path, pos__1_txt="good")
    before = b"".join(content_of(tmp_path))
    assert b"".join(content_of(tmp_path)) == before
    fill(tmp_path, **change)
    assert b"".join(content_of(tmp_path)) != before

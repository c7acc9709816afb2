"""Labelled texts in files of their own: a folder for each label, one text a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from seqlab.data.cache import chunks_of
from seqlab.data.labels import LabelledRow
from seqlab.data.lines import lines_of
from seqlab.data.rows import Dirt
from seqlab.errors import DataError
from seqlab.words import words_of

_TEXT = (".txt", ".txt.gz")


def labels_of(folder: Path) -> list[str]:
    """Name the folders in a folder that hold texts, which are files ``*.txt`` or ``*.txt.gz``.

    Args:
        folder: any path; one that is no folder holds none.

    Returns:
        The names, sorted.
    """
    return list(dict.fromkeys(file.parent.name for file in texts_of(folder)))


def texts_of(folder: Path) -> list[Path]:
    """List the texts of a folder with a folder for each label, in their order as rows.

    Args:
        folder: any path; one that is no folder holds none.

    Returns:
        The files by label and name; the text of row number n, from 1, is the one at n - 1.
    """
    return [file for file in _files_of(folder) if _is_text(file)]


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    inner = [entry.path for entry in _visible(folder) if entry.is_dir()]
    files = [Path(entry.path) for path in inner for entry in _visible(path) if entry.is_file()]
    return sorted(files, key=lambda file: (file.parent.name, file.name))


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.name[0] != "."]


def _is_text(file: Path) -> bool:
    return file.name.lower().endswith(_TEXT)


def content_of(folder: Path) -> Iterator[bytes]:
    """Read all that decides what the rows of a folder are.

    Args:
        folder: as for `texts_of`.

    Yields:
        The label, name and size of each file, and the bytes of the texts.

    Raises:
        DataError: a text cannot be read.
    """
    for file in _files_of(folder):
        yield f"{file.parent.name}/{file.name}\n{file.stat().st_size}\n".encode()
        if _is_text(file):
            yield from chunks_of(file)


def read_folder(folder: Path, dirt: Dirt, several: bool) -> Iterator[LabelledRow]:
    """Read the texts of a folder with a folder for each label.

    Args:
        folder: as for `texts_of`.
        dirt: where texts without any word, and files that are no texts, are noted.
        several: whether the texts of the corpus may have several labels.

    Yields:
        The texts that hold a word; their lines are numbers of texts, from 1.

    Raises:
        DataError: a text is not UTF-8, with file and line; or there is none.
    """
    number = 0
    for file in _files_of(folder):
        name = f"{file.parent.name}/{file.name}"
        if not _is_text(file):
            dirt.note("not named *.txt", folder.name, name, "left out", "file")
            continue
        number += 1
        text = "\n".join(line for _, line in lines_of(file))
        tokens = [word.text for word in words_of(text)]
        if tokens:
            yield LabelledRow(tokens, [file.parent.name], [number], several)
        else:
            dirt.note("without any word", folder.name, name, noun="file")
    if not number:
        raise DataError(
            f"{folder} holds no text: give it a folder for each label, and in there one file a "
            f"text, as in {folder.name}/positive/1.txt."
        )

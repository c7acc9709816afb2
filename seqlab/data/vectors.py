"""Word vectors from text files: GloVe, word2vec and fastText, plain or gzipped."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqlab.data.finding import expanded
from seqlab.errors import DataError
from seqlab.vocabulary import Vocabulary

Floats = NDArray[np.float32]


class Vectors(NamedTuple):
    """Words and their vectors: ``words[i]`` has ``table[i]``; table ``(word, size)`` float32."""

    words: list[str]
    table: Tensor

    def keys(self, lowercase: bool) -> list[str]:
        """Return the words as a vocabulary looks them up; some may then be there twice."""
        return [word.lower() for word in self.words] if lowercase else self.words

    def rows(self, vocab: Vocabulary) -> Tensor:
        """Place the vectors in the rows of a vocabulary that knows all their words.

        Args:
            vocab: a source vocabulary.

        Returns:
            ``(len(vocab), size)``, NaN in rows without a vector; of words that fall together the
            first counts.
        """
        table = torch.full((len(vocab), self.table.shape[1]), torch.nan)
        first: dict[int, int] = {}
        for i, key in enumerate(self.keys(vocab.lowercase)):
            first.setdefault(vocab.id(key), i)
        table[list(first)] = self.table[list(first.values())]
        return table

    def coverage(self, vocab: Vocabulary, counts: Mapping[str, int]) -> str:
        """Say how much of a corpus has a vector.

        Args:
            vocab: a vocabulary whose ``vectors`` are set.
            counts: how often each word form occurs.
        """
        assert vocab.vectors is not None
        lacking = vocab.vectors[:, 0].isnan()
        covered = [word for word in counts if not lacking[vocab.id(word)]]
        share = sum(counts[word] for word in covered) / sum(counts.values())
        return (
            f"vectors: {len(covered):,} of {len(counts):,} word types "
            f"({len(covered) / len(counts):.1%}) and {share:.1%} of the training tokens have "
            f"one of the {len(self.words):,} vectors of size {self.table.shape[1]}"
        )


def read_vectors(path: str | Path) -> Vectors:
    """Read a text file of word vectors, one ``word v1 ... vn`` a line.

    A first line of two numbers (word2vec, fastText) is a header. A word that comes again keeps its
    first vector. Words may hold spaces: the last n fields are the vector.

    Args:
        path: the file; ``.gz`` is unpacked; environment variables and ``~`` are expanded.

    Returns:
        words in the order of the file, and their vectors.

    Raises:
        DataError: the file is missing, empty or damaged, or a line has another width or something
            that is no number; the sentence names file and line.
    """
    file = expanded(str(path), "data.vectors")
    if not file.is_file():
        raise DataError(
            f"no vectors file {str(path)!r}: give data.vectors the path of a GloVe, word2vec or "
            "fastText text file (.gz too), or leave it out."
        )
    try:
        words, rows = _read(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} cannot be unpacked ({error}): get the file again.") from error
    if not rows:
        raise DataError(f"{file} holds no word vectors: one `word v1 v2 ...` a line is expected.")
    return Vectors(words, torch.from_numpy(np.stack(rows)))


def _read(file: Path) -> tuple[list[str], list[Floats]]:
    words: dict[str, int] = {}
    rows: list[Floats] = []
    width = 0
    with _open(file) as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\r\n ").split(" ")
            if number == 1 and len(fields) == 2 and all(f.isdigit() for f in fields):
                width = int(fields[1])
                continue
            if not fields[0] and len(fields) == 1:
                continue
            width = width or len(fields) - 1
            word, vector = _parse(file, number, fields, width)
            if word not in words:
                words[word] = len(rows)
                rows.append(vector)
    return list(words), rows


def _open(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="\n")
    return open(file, encoding="utf-8-sig", errors="replace", newline="\n")


def _parse(file: Path, number: int, fields: list[str], width: int) -> tuple[str, Floats]:
    if width < 1:
        raise DataError(
            f"{file}:{number}: no numbers: the file is cut off or no file of word vectors, "
            "which has one `word v1 v2 ...` a line."
        )
    numbers = sum(1 for _ in itertools.takewhile(_is_number, reversed(fields[1:])))
    if len(fields) <= width or numbers > width:
        raise DataError(
            f"{file}:{number}: {len(fields) - 1} numbers where the lines before have {width}; "
            "the file of vectors is cut off or damaged: mend or remove the line."
        )
    try:
        vector = np.array(fields[-width:], dtype=np.float32)
    except ValueError as error:
        raise DataError(
            f"{file}:{number}: {error}; every line is a word and {width} numbers: "
            "mend or remove the line."
        ) from error
    if not np.isfinite(vector).all():
        raise DataError(
            f"{file}:{number}: a value is infinite or no number at all: mend or remove the line."
        )
    return " ".join(fields[:-width]), vector


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True

"""Texts of pairs as ids on disk: a tokenizer learnt once, and what it makes of every split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqlab.caches import cache_folder
from seqlab.data.base import Ints
from seqlab.data.cache import announced, cached_files, digest_of, rows_key
from seqlab.data.mapping import mapped
from seqlab.subwords import SubwordVocabulary, TokenizerKind, train_tokenizer

# Part of every key: raise it when other ids come of the same texts.
_VERSION = 1
_CHUNK = 4096  # texts that are in memory at a time
_SIDES = ("source", "target")


class TextIds:
    """The ids of texts, end to end.

    Args:
        ids: ``(token,)`` int32; every text ends with the end token.
        offsets: ``(text + 1,)`` int64, where each text begins and ends.
    """

    def __init__(self, ids: NDArray[np.int32], offsets: Ints) -> None:
        self.ids = ids
        self.offsets = offsets

    def batch(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """Look up some texts.

        Args:
            rows: ``(batch,)`` their numbers.

        Returns:
            ``(batch, time)`` int64 ids, padded, and ``(batch,)`` int64 lengths.
        """
        starts = self.offsets[rows]  # (batch,)
        lengths = self.offsets[rows + 1] - starts  # (batch,)
        time = np.arange(lengths.max(initial=0))  # (time,)
        real = time < lengths[:, None]  # (batch, time)
        padded = np.full(real.shape, SubwordVocabulary.PADDING, np.int64)
        padded[real] = self.ids[(starts[:, None] + time)[real]]
        return torch.from_numpy(padded), torch.from_numpy(lengths)


class FlatIds(TextIds):
    """The ids of a side of a split, mapped from disk.

    Args:
        folder: where the files are.
        side: what they are named after.
    """

    def __init__(self, folder: Path, side: str) -> None:
        self._place = (folder, side)
        ids, offsets = _files_of(side)
        super().__init__(mapped(folder / ids, "<i4"), mapped(folder / offsets, "<i8"))

    def __reduce__(self) -> tuple[Any, ...]:
        return FlatIds, self._place  # another process maps the files too


class EncodedPairs:
    """A split of pairs as numbers.

    Args:
        source: its sources.
        target: its translations.
        longest: pairs with more pieces than this on a side, the end token not counted, are left
            out; None keeps all.

    Attributes:
        rows: ``(pair,)`` the rows of the split that its pairs are.
        left_out: ``(pair,)`` those that are too long.
    """

    def __init__(self, source: TextIds, target: TextIds, longest: int | None = None) -> None:
        self.source = source
        self.target = target
        lengths = np.maximum(np.diff(source.offsets), np.diff(target.offsets))  # (row,)
        kept = np.ones(len(lengths), bool) if longest is None else lengths <= longest + 1
        self.rows: Ints = np.flatnonzero(kept)
        self.left_out: Ints = np.flatnonzero(~kept)
        self._lengths: Ints = lengths[kept]

    @property
    def lengths(self) -> Ints:
        """``(pair,)`` tokens of the longer side of each, the end counted in."""
        return self._lengths

    @cached_property
    def sort_key(self) -> Ints:
        """``(pair,)`` the target's length, and among equals the source's, as one number."""
        source, target = (np.diff(side.offsets)[self.rows] for side in (self.source, self.target))
        key: Ints = target * (source.max(initial=0) + 1) + source
        return key

    @cached_property
    def offsets(self) -> Ints:
        """``(pair + 1,)`` where each target begins and ends if they stand end to end."""
        return np.concatenate([[0], np.cumsum(np.diff(self.target.offsets)[self.rows])])


def content_of(split: Any) -> str:
    """Return what the texts of a split are known by: the files they are mapped from, or a hash.

    Args:
        split: a ``datasets.Dataset`` with columns ``source`` and ``target``.
    """
    if split.cache_files:
        return rows_key(split)
    digest = hashlib.sha256()
    for texts in chain.from_iterable(_chunks_of(split, side) for side in _SIDES):
        digest.update("\0".join([*texts, "\0"]).encode())  # no text holds control characters
    return digest.hexdigest()


def learnt_tokenizer(
    split: Any,
    sides: tuple[str, ...],
    kind: TokenizerKind,
    size: int,
    lowercase: bool,
    content: str,
) -> str:
    """Learn a tokenizer from a training split, unless it is in the cache.

    Args:
        split: a ``datasets.Dataset``.
        sides: whose texts: ``source``, ``target`` or both.
        kind: as :func:`seqlab.subwords.train_tokenizer` has it.
        size: likewise.
        lowercase: likewise.
        content: hash of the split, see `content_of`.

    Returns:
        The tokenizer as JSON.
    """
    import tokenizers

    name = "tokenizer.json"
    about = (_VERSION, tokenizers.__version__, sides, kind, size, lowercase)

    def write(sinks: Mapping[str, IO[bytes]]) -> list[str]:
        chunks = (texts for side in sides for texts in _chunks_of(split, side))
        doing = f"learning the {kind} tokenizer"
        texts = chain.from_iterable(announced(chunks, doing, "texts", len))
        sinks[name].write(train_tokenizer(texts, kind, size, lowercase).encode())
        return []

    key = digest_of([content.encode()], "tokenizer", *about)
    entry, _ = cached_files(cache_folder("datasets"), key, [name], write)
    return (entry / name).read_text(encoding="utf-8")


def encoded_ids(
    split: Any, part: str, vocabularies: Mapping[str, SubwordVocabulary], content: str
) -> dict[str, FlatIds]:
    """Encode both sides of a split, unless they are in the cache.

    Args:
        split: a ``datasets.Dataset``.
        part: what it is called, for the line of progress.
        vocabularies: by side.
        content: hash of the split, see `content_of`.

    Returns:
        The ids by side.
    """

    def write(sinks: Mapping[str, IO[bytes]]) -> list[str]:
        for side in _SIDES:
            chunks = announced(_chunks_of(split, side), f"encoding {part}, {side}", "texts", len)
            ids, offsets = (sinks[file] for file in _files_of(side))
            _write_ids(chunks, vocabularies[side], ids, offsets)
        return []

    made = [hashlib.sha256(vocabularies[side].tokenizer_json.encode()) for side in _SIDES]
    about = [digest.hexdigest() for digest in made]
    key = digest_of([content.encode()], "ids", _VERSION, *about)
    names = [name for side in _SIDES for name in _files_of(side)]
    entry, _ = cached_files(cache_folder("datasets"), key, names, write)
    return {side: FlatIds(entry, side) for side in _SIDES}


def held_ids(split: Any, vocabularies: Mapping[str, SubwordVocabulary]) -> dict[str, TextIds]:
    """Encode both sides of a split in memory; see `encoded_ids`."""
    found = {}
    for side in _SIDES:
        ids, offsets = BytesIO(), BytesIO()
        _write_ids(_chunks_of(split, side), vocabularies[side], ids, offsets)
        found[side] = TextIds(
            np.frombuffer(ids.getbuffer(), "<i4"), np.frombuffer(offsets.getbuffer(), "<i8")
        )
    return found


def _files_of(side: str) -> tuple[str, str]:
    return f"{side}.ids", f"{side}.offsets"


def _chunks_of(split: Any, side: str) -> Iterator[list[str]]:
    """Give the texts of a side, some thousand at a time."""
    for chunk in split.data.column(side).chunks:
        for start in range(0, len(chunk), _CHUNK):
            yield chunk.slice(start, _CHUNK).flatten().to_pylist()


def _write_ids(
    chunks: Iterator[list[str]],
    vocabulary: SubwordVocabulary,
    ids: IO[bytes],
    offsets: IO[bytes],
) -> None:
    """Encode texts into two open files."""
    end, total = [vocabulary.END], 0
    offsets.write(np.zeros(1, "<i8").tobytes())
    for texts in chunks:
        encoded = vocabulary.encode(texts)
        flat = chain.from_iterable(chain.from_iterable((text, end) for text in encoded))
        ids.write(np.fromiter(flat, "<i4").tobytes())
        places = total + np.cumsum([len(text) + 1 for text in encoded])
        offsets.write(places.astype("<i8").tobytes())
        total = int(places[-1])

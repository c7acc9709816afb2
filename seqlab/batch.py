"""A batch of sequences, and how it is put together from words.

Shape notation, here and everywhere: words, batch first. ``batch`` counts sequences, ``time``
tokens, ``form`` the distinct word forms of a batch, ``character`` the characters of a form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqlab.vocabulary import PADDING_ID, Vocabulary

CASINGS = 8  # padding, lower, Title, UPPER, miXed, digits, with digits, other
_EDGE = 32  # a word of more than 64 characters is known by its first and last 32
Ints = NDArray[np.int64]


@dataclass
class Batch:
    """What a model sees in one step. Lightning moves it to the device field by field.

    Attributes:
        source: ``(batch, time)`` int64, ids of words; 0 is padding.
        lengths: ``(batch,)`` int64, on the CPU or the device like the rest; every row holds its
            real tokens first.
        forms: ``(batch, time)`` int64, for every token the row of its word form in ``characters``.
        characters: ``(form, character)`` int64, ids of the characters of the distinct word forms;
            0 is padding.
        casing: ``(form,)`` int64, 0 to 7: how the form is written (:func:`casing_of`).
        features: one ``(batch, time)`` int64 tensor for each extra feature column.
        target: ``(batch, time)`` int64 ids of tags, -1 where unknown or padding; for whole texts
            ``(batch,)`` int64 ids of their labels, or ``(batch, label)`` float32, 1 for every
            label that a text has. ``None`` if there is none.
        rows: ``(batch,)`` int64, which rows of the corpus these are.
        gold: the tags or labels of each row as strings, for scoring; ``None`` in training.
    """

    source: Tensor
    lengths: Tensor
    forms: Tensor
    characters: Tensor
    casing: Tensor
    features: tuple[Tensor, ...] = ()
    target: Tensor | None = None
    rows: Tensor | None = None
    gold: list[list[str]] | None = None

    @property
    def mask(self) -> Tensor:
        """``(batch, time)`` bool, True = real token."""
        time = torch.arange(self.source.shape[1], device=self.source.device)
        return time < self.lengths.unsqueeze(1)

    def __len__(self) -> int:
        return self.source.shape[0]


def casing_of(word: str) -> int:
    """Say how a word is written, as a number from 1 to 7.

    Example:
        >>> [casing_of(w) for w in ["dog", "Dog", "DOG", "iDog", "42", "B2B", "..."]]
        [1, 2, 3, 4, 5, 6, 7]
    """
    if word.isdigit():
        return 5
    if any(c.isdigit() for c in word):
        return 6
    if word.islower():
        return 1
    if word.isupper():
        return 3 if len(word) > 1 else 2
    if word[:1].isupper() and not any(c.isupper() for c in word[1:]):
        return 2
    return 4 if any(c.isalpha() for c in word) else 7


class FormTable:
    """The word forms met so far, each with its word id, casing and characters.

    A form is looked up and spelt once, however often it occurs; a batch then is put together by
    array indexing alone. Not safe for use from several threads at once.

    Args:
        vocab: a source vocabulary; without ``characters`` the forms have none.
        bound: forget everything when more than this many forms are held; ``None`` keeps all.
    """

    def __init__(self, vocab: Vocabulary, bound: int | None = None) -> None:
        self.vocab = vocab
        self.bound = bound
        self._clear()

    def _clear(self) -> None:
        self._index: dict[str, int] = {}
        self._words = np.zeros(1024, np.int64)
        self._casing = np.zeros(1024, np.int64)
        self._width = np.zeros(1024, np.int64)
        self._spelling = np.zeros((1024, 16), np.int32)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def words(self) -> Ints:
        """``(form,)`` the word id of every form held."""
        return self._words[: len(self)]

    def make_room(self) -> None:
        """Forget all forms once the bound is passed; this voids the indices given out before."""
        if self.bound is not None and len(self._index) > self.bound:
            self._clear()

    def index(self, words: Sequence[str]) -> Ints:
        """Return the row of every word, adding those that are new.

        Args:
            words: word forms as written, none empty.

        Returns:
            ``(len(words),)`` int64.
        """
        found = self._index
        rows = np.empty(len(words), np.int64)
        for i, word in enumerate(words):
            row = found.get(word)
            rows[i] = self._add(word) if row is None else row
        return rows

    def _add(self, word: str) -> int:
        row = len(self._index)
        if row == len(self._words):
            self._grow(rows=2 * row)
        letters = word if len(word) <= 2 * _EDGE else word[:_EDGE] + word[-_EDGE:]
        if len(letters) > self._spelling.shape[1]:
            self._grow(width=len(letters))
        self._words[row] = self.vocab.id(word)
        self._casing[row] = casing_of(word)
        if self.vocab.characters is not None:
            ids = self.vocab.characters.encode(letters)
            self._spelling[row, : len(ids)] = ids
            self._width[row] = len(ids)
        self._index[word] = row
        return row

    def _grow(self, rows: int | None = None, width: int | None = None) -> None:
        rows = rows or len(self._words)
        width = width or self._spelling.shape[1]
        spelling = np.zeros((rows, width), np.int32)
        spelling[: self._spelling.shape[0], : self._spelling.shape[1]] = self._spelling
        self._spelling = spelling
        for name in ("_words", "_casing", "_width"):
            old = getattr(self, name)
            new = np.zeros(rows, np.int64)
            new[: len(old)] = old
            setattr(self, name, new)

    def batch(
        self,
        rows: Ints,
        lengths: Sequence[int] | Ints,
        features: Sequence[Ints] = (),
        target: Ints | None = None,
    ) -> Batch:
        """Put sequences together, all tokens given end to end.

        Args:
            rows: ``(token,)`` rows from :meth:`index`, sequence after sequence.
            lengths: ``(batch,)`` how many tokens each sequence has.
            features: for each feature column ``(token,)`` ids.
            target: ``(token,)`` ids of tags, or None.

        Returns:
            a batch padded to its longest sequence.
        """
        sizes = np.asarray(lengths, np.int64)
        mask = np.arange(int(sizes.max(initial=0)))[None, :] < sizes[:, None]
        distinct, local = np.unique(rows, return_inverse=True)
        width = max(1, int(self._width[distinct].max(initial=1)))

        def padded(flat: Ints, filler: int) -> Tensor:
            table = np.full(mask.shape, filler, np.int64)  # (batch, time)
            table[mask] = flat
            return torch.from_numpy(table)

        return Batch(
            source=padded(self._words[rows], PADDING_ID),
            lengths=torch.from_numpy(sizes),
            forms=padded(local.reshape(-1), 0),
            characters=torch.from_numpy(self._spelling[distinct, :width].astype(np.int64)),
            casing=torch.from_numpy(self._casing[distinct]),
            features=tuple(padded(feature, PADDING_ID) for feature in features),
            target=None if target is None else padded(target, -1),
        )

"""A batch of sequences, and how it is put together from words.

Shape notation, here and everywhere: words, batch first. ``batch`` counts sequences, ``time``
tokens, ``form`` the distinct word forms of a batch, ``character`` the characters of a form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqlab.vocabulary import PADDING_ID, Vocabulary

CASINGS = 8  # padding, lower, Title, UPPER, miXed, digits, with digits, other
_EDGE = 32  # a word of more than 64 characters is known by its first and last 32
Ints = NDArray[np.int64]
Data = TypeVar("Data", "Batch", "Forms")


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
        vectors: ``(form, dim)``, what the model's embedder makes of every form, where that was
            computed before; ``None`` where it is to be.
        sums: of the first of these vectors; see :meth:`seqlab.nn.encoders.RecurrentEncoder.sums`.
        texts: ``(form,)``, the distinct word forms as written; empty where nobody asks for them.
        repeated: it was seen before in this epoch, and is not to count.
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
    vectors: Tensor | None = None
    sums: Tensor | None = None
    texts: Sequence[str] = ()
    repeated: bool = False

    @property
    def mask(self) -> Tensor:
        """``(batch, time)`` bool, True = real token."""
        time = torch.arange(self.source.shape[1], device=self.source.device)
        return time < self.lengths.unsqueeze(1)

    @property
    def real(self) -> Tensor:
        """How many tokens there are, a scalar; the rest of the :attr:`places` is padding."""
        return self.lengths.sum()

    @property
    def places(self) -> int:
        """Room for how many tokens there is."""
        return self.source.numel()

    def __len__(self) -> int:
        return self.source.shape[0]


def casing_of(word: str) -> int:
    """Say how a word is written, as a number from 1 to 7.

    Example:
        >>> [casing_of(w) for w in ["dog", "Dog", "DOG", "iDog", "42", "B2B", "..."]]
        [1, 2, 3, 4, 5, 6, 7]
    """
    if not word.isalpha():  # letters alone are the common case, and hold no digit
        if word.isdigit():
            return 5
        if any(map(str.isdigit, word)):
            return 6
    if word.islower():
        return 1
    if word.isupper():
        return 3 if len(word) > 1 else 2
    if word[:1].isupper() and not any(map(str.isupper, word[1:])):
        return 2
    return 4 if any(map(str.isalpha, word)) else 7


@dataclass
class Forms:
    """Distinct word forms, of which sequences are put together.

    Attributes:
        words: ``(form,)`` int64, ids of their words.
        characters: ``(form, character)`` int64, ids of their characters; 0 is padding.
        casing: ``(form,)`` int64, how they are written.
        repeated: how many of the first forms come up more than once.
        vectors: ``(form, dim)``, what a model makes of a form by itself, once that is known.
        sums: what the model's encoder makes of the vectors of some of the first forms, once that is
            known and if it can use it.
        texts: ``(form,)``, as written.
    """

    words: Tensor
    characters: Tensor
    casing: Tensor
    repeated: int = 0
    vectors: Tensor | None = None
    sums: Tensor | None = None
    texts: Sequence[str] = ()

    def batch(
        self,
        places: Ints,
        lengths: Sequence[int] | Ints,
        features: Sequence[Ints] = (),
        target: Ints | None = None,
    ) -> Batch:
        """Put sequences together, all tokens given end to end.

        Args:
            places: ``(token,)`` which form each token has, sequence after sequence.
            lengths: ``(batch,)`` how many tokens each sequence has.
            features: for each feature column ``(token,)`` ids.
            target: ``(token,)`` ids of tags, or None.

        Returns:
            a batch padded to its longest sequence.
        """
        sizes = np.asarray(lengths, np.int64)
        mask = np.arange(int(sizes.max(initial=0)))[None, :] < sizes[:, None]

        def padded(flat: Ints, filler: int) -> Tensor:
            table = np.full(mask.shape, filler, np.int64)  # (batch, time)
            table[mask] = flat
            return torch.from_numpy(table)

        return Batch(
            source=padded(self.words.numpy()[places], PADDING_ID),
            lengths=torch.from_numpy(sizes),
            forms=padded(places, 0),
            characters=self.characters,
            casing=self.casing,
            features=tuple(padded(feature, PADDING_ID) for feature in features),
            target=None if target is None else padded(target, -1),
            vectors=self.vectors,
            sums=self.sums,
            texts=self.texts,
        )


def on_device(data: Data, device: torch.device) -> Data:
    """Return a batch, or forms, with every tensor on a device."""
    moved: dict[str, Any] = {}
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device)
        elif field.name == "features":
            moved[field.name] = tuple(column.to(device) for column in value)
    return replace(data, **moved)


class _Rows(dict[str, int]):
    """Gives every new key the next number."""

    def __missing__(self, word: str) -> int:
        self[word] = row = len(self)
        return row


class _Texts(Sequence[str]):
    """Some of many texts, which are looked up when they are asked for: most models never do.

    Args:
        texts: all of them.
        rows: ``(text,)`` which; without them all, so that whoever moves a batch may put its texts
            together again.
    """

    def __init__(self, texts: Sequence[str], rows: Ints | None = None) -> None:
        self._texts = texts
        self._rows = np.arange(len(texts)) if rows is None else rows

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # another process gets these texts, not all of them

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._texts[row] for row in self._rows[index].tolist()]
        return self._texts[int(self._rows[index])]


class _Letters:
    """The ids of characters by their code points, each looked up when it is first met."""

    def __init__(self, vocab: Vocabulary) -> None:
        self._vocab = vocab
        self._ids = np.full(256, -1, np.int32)  # by code point

    def ids(self, text: str) -> NDArray[np.int32]:
        """Return the id of every character of a text."""
        encoded = text.encode("utf-32-le", "surrogatepass")
        points: NDArray[np.uint32] = np.frombuffer(encoded, "<u4")
        largest = int(points.max(initial=0))
        if largest >= len(self._ids):
            longer = np.full(2 * largest, -1, np.int32)
            longer[: len(self._ids)] = self._ids
            self._ids = longer
        found: NDArray[np.int32] = self._ids[points]
        if (found < 0).any():
            for point in np.unique(points[found < 0]).tolist():
                self._ids[point] = self._vocab.id(chr(point))
            found = self._ids[points]
        return found


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
        self._letters = None if vocab.characters is None else _Letters(vocab.characters)
        self._clear()

    def _clear(self) -> None:
        self._index = _Rows()
        self._texts: list[str] = []
        self._spelt = 0  # of how many forms the rest is known
        self._words = np.zeros(1024, np.int64)
        self._casing = np.zeros(1024, np.int64)
        self._width = np.zeros(1024, np.int64)
        self._spelling = np.zeros((1024, 16), np.int32)

    def __len__(self) -> int:
        return self._spelt

    @property
    def words(self) -> Ints:
        """``(form,)`` the word id of every form held."""
        return self._words[: len(self)]

    def make_room(self) -> None:
        """Forget all forms once the bound is passed; this voids the indices given out before."""
        if self.bound is not None and len(self) > self.bound:
            self._clear()

    def index(self, words: Sequence[str]) -> Ints:
        """Return the row of every word, adding those that are new.

        Args:
            words: word forms as written, none empty.

        Returns:
            ``(len(words),)`` int64.
        """
        rows = np.fromiter(map(self._index.__getitem__, words), np.int64, len(words))
        if len(self._index) > self._spelt:
            self._spell()
        return rows

    def _spell(self) -> None:
        """Note what is to be known of the forms that are new, or forget them if that fails."""
        first, last = self._spelt, len(self._index)
        new = list(islice(reversed(self._index), last - first))[::-1]
        try:
            self._note(new, first, last)
        except BaseException:
            for word in reversed(new):
                del self._index[word]
            del self._texts[first:]
            raise
        self._spelt = last

    def _note(self, new: list[str], first: int, last: int) -> None:
        while last > len(self._words):
            self._grow(rows=2 * len(self._words))
        self._texts[first:] = new
        self._words[first:last] = self.vocab.encode(new)
        self._casing[first:last] = list(map(casing_of, new))
        if self._letters is None:
            return
        letters = [w if len(w) <= 2 * _EDGE else w[:_EDGE] + w[-_EDGE:] for w in new]
        widths = np.fromiter(map(len, letters), np.int64, len(new))
        longest = int(widths.max())
        if longest > self._spelling.shape[1]:
            self._grow(width=longest)
        inside = np.arange(longest) < widths[:, None]  # (form, character)
        self._spelling[first:last] = 0  # an interrupt may have left something
        self._spelling[first:last, :longest][inside] = self._letters.ids("".join(letters))
        self._width[first:last] = widths

    def _grow(self, rows: int | None = None, width: int | None = None) -> None:
        rows = rows or len(self._words)
        width = width or self._spelling.shape[1]
        spelling = np.zeros((rows, width), np.int32)
        spelling[: self._spelling.shape[0], : self._spelling.shape[1]] = self._spelling
        self._spelling = spelling
        for name in ("_width", "_casing", "_words"):  # last what says how many rows there are
            old = getattr(self, name)
            new = np.zeros(rows, np.int64)
            new[: len(old)] = old
            setattr(self, name, new)

    def forms(self, rows: Ints, often: bool = False) -> tuple[Forms, Ints]:
        """Pick out the distinct forms of some tokens.

        Args:
            rows: ``(token,)`` rows from :meth:`index`.
            often: put those first that come up most often, and count those that come up again.

        Returns:
            the forms, and ``(token,)`` which of them each token has.
        """
        distinct, places, counts = np.unique(rows, return_inverse=True, return_counts=True)
        if often:
            order = np.argsort(-counts, kind="stable")
            rank = np.empty_like(order)
            rank[order] = np.arange(len(order))
            distinct, places = distinct[order], rank[places]
        width = max(1, int(self._width[distinct].max(initial=1)))
        found = Forms(
            torch.from_numpy(self._words[distinct]),
            torch.from_numpy(self._spelling[distinct, :width].astype(np.int64)),
            torch.from_numpy(self._casing[distinct]),
            int((counts > 1).sum()) if often else 0,
            texts=_Texts(self._texts, distinct),
        )
        return found, places.reshape(-1)

    def batch(
        self,
        rows: Ints,
        lengths: Sequence[int] | Ints,
        features: Sequence[Ints] = (),
        target: Ints | None = None,
    ) -> Batch:
        """Put sequences together from rows of :meth:`index`; see :meth:`Forms.batch`."""
        forms, places = self.forms(rows)
        return forms.batch(places, lengths, features, target)

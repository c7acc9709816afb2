"""Words or texts cut into the pieces that a pretrained encoder reads, in windows that it can hold.

Each word is cut by itself, so that its pieces are known whatever the tokenizer splits, merges or
drops, and a word form is cut once however often it occurs. What a tokenizer makes nothing of, such
as a control character, is read as an unknown piece: no token is lost. A text is cut as a whole, and
its pieces are known by their places in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqlab.errors import SeqlabError

Ints = NDArray[np.int64]
LONGEST = 64  # pieces of a word that are read; of a longer one half of them from either end
_KEPT = 1 << 17  # word forms that are remembered
_CONTEXT = 4  # windows of a long sentence share a quarter of their pieces


@dataclass
class Pieces:
    """The tokens of some sentences as pieces, in windows.

    Attributes:
        ids: ``(window, piece)`` int64; windows of the encoder's own beginning and end, and of the
            pieces of consecutive tokens between.
        lengths: ``(window,)`` int64, pieces that are real; padding follows.
        first: ``(token,)`` int64, all tokens end to end: where the pieces of each begin, counted
            over all windows.
        counts: ``(token,)`` int64, how many pieces each has, at least one.
    """

    ids: Tensor
    lengths: Tensor
    first: Tensor
    counts: Tensor

    def to(self, device: torch.device) -> Pieces:
        """Move all tensors to a device."""
        return Pieces(*(x.to(device) for x in (self.ids, self.lengths, self.first, self.counts)))


class CutText(NamedTuple):
    """A text in pieces, at least one.

    Attributes:
        ids: ``(piece,)`` int64.
        starts: ``(piece,)`` int64, never falling: where in the text each begins, in characters.
        ends: ``(piece,)`` int64, never falling: where each ends, exclusive.
    """

    ids: Ints
    starts: Ints
    ends: Ints

    def within(self, spans: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
        """Find the pieces that have characters in some parts of the text.

        Args:
            spans: ``(start, end)`` of each part in characters, the end exclusive.

        Returns:
            ``(span,)`` int64 the first piece of each, and ``(span,)`` int64 how many follow one
            another from there; where the tokenizer made nothing of a part, the next piece stands
            for it, or the last one.
        """
        wanted = np.asarray(spans, np.int64).reshape(-1, 2)
        first = np.searchsorted(self.ends, wanted[:, 0], side="right")
        counts = np.searchsorted(self.starts, wanted[:, 1], side="left") - first
        return np.minimum(first, len(self.ids) - 1), np.maximum(counts, 1)


class WordPieces:
    """The tokenizer of a pretrained encoder, for words that are known and for texts.

    Args:
        text: the tokenizer as JSON of the library ``tokenizers``.
        capacity: pieces that the encoder reads at once, its own included.
        padding: id of padding.

    Raises:
        SeqlabError: the text is no tokenizer, or the encoder reads too little at once.
    """

    def __init__(self, text: str, capacity: int, padding: int = 0) -> None:
        from tokenizers import Tokenizer

        self.text = text
        try:
            self._tokenizer = Tokenizer.from_str(_standing_alone(text))
        except Exception as error:  # the library raises no narrower class
            raise SeqlabError(f"the tokenizer of the encoder cannot be read ({error}).") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.padding = padding
        self._begin, self._end = self._surroundings()
        self.room = capacity - len(self._begin) - len(self._end)
        if self.room < 2:
            raise SeqlabError(f"an encoder that reads {capacity} pieces at once is of no use.")
        self.longest = min(LONGEST, self.room)
        self._known: dict[str, list[int]] = {}

    def _surroundings(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a sentence."""
        word = self._tokenizer.encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
        whole = self._tokenizer.encode(["a"], is_pretokenized=True).ids
        for start in range(len(whole) - len(word) + 1):
            if word and whole[start : start + len(word)] == word:
                return whole[:start], whole[start + len(word) :]
        return [], []

    def of(self, words: Sequence[str]) -> list[list[int]]:
        """Cut words into pieces.

        Args:
            words: as written.

        Returns:
            the ids of each, at least one and at most ``longest``.
        """
        if len(self._known) > _KEPT:
            self._known = {}
        known = self._known
        new = [word for word in dict.fromkeys(words) if word not in known]
        found = self._tokenizer.encode_batch(
            [[word] for word in new], is_pretokenized=True, add_special_tokens=False
        )
        for word, encoding in zip(new, found, strict=True):
            known[word] = self._bounded(encoding.ids) or [self._stand_in()]
        return [known[word] for word in words]

    def _bounded(self, ids: list[int]) -> list[int]:
        half = self.longest // 2
        return ids if len(ids) <= self.longest else ids[:half] + ids[-half:]

    def _stand_in(self) -> int:
        """What stands for a word that is nothing to the tokenizer."""
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        found = None if unknown is None else self._tokenizer.token_to_id(unknown)
        if found is None:  # of bytes nothing is unknown
            return self._end[0] if self._end else self.padding
        return int(found)

    def of_texts(self, texts: Sequence[str]) -> list[CutText]:
        """Cut whole texts into pieces, however long they are.

        Args:
            texts: as written; one that is nothing to the tokenizer becomes an unknown piece.
        """
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            CutText(
                np.asarray(one.ids or [self._stand_in()], np.int64),
                *np.maximum.accumulate(
                    np.asarray(one.offsets or [(0, len(text))], np.int64), axis=0
                ).T,
            )
            for text, one in zip(texts, found, strict=True)
        ]

    def arrange_pieces(self, ids: Ints, lengths: Sequence[int]) -> Pieces:
        """Lay out texts that are cut already, each piece a token of its own; see :meth:`arrange`.

        Args:
            ids: ``(piece,)``, text after text.
            lengths: ``(text,)``, pieces of each.
        """
        forms, places = np.unique(ids, return_inverse=True)
        return self._laid_out([[piece] for piece in forms.tolist()], places, lengths)

    def arrange(self, words: Sequence[str], places: Ints, lengths: Sequence[int]) -> Pieces:
        """Lay out the pieces of sentences.

        A sentence of more pieces than the encoder holds is read in windows that share a quarter of
        their pieces, and each token in the window where it stands further from an end.

        Args:
            words: distinct word forms.
            places: ``(token,)``, which of them each token is, sentence after sentence.
            lengths: ``(sentence,)``, tokens of each.
        """
        return self._laid_out(self.of(words), places, lengths)

    def _laid_out(self, cut: list[list[int]], places: Ints, lengths: Sequence[int]) -> Pieces:
        """Lay out tokens, given the pieces of their distinct forms."""
        sizes = np.fromiter(map(len, cut), np.int64, len(cut))[places]  # (token,) pieces
        windows: list[list[int]] = []
        first = np.zeros(len(places), np.int64)
        within: list[tuple[slice, int]] = []  # tokens, and the window where they are read
        start = 0
        for length in lengths:
            ends = sizes[start : start + length].cumsum()
            for begin, end, read_from, read_to in _windows(ends, self.room):
                before = int(ends[begin - 1]) if begin else 0
                tokens = slice(start + read_from, start + read_to)
                offset = len(self._begin) - before
                first[tokens] = ends[read_from:read_to] - sizes[tokens] + offset
                within.append((tokens, len(windows)))
                pieces = [i for at in places[start + begin : start + end] for i in cut[at]]
                windows.append([*self._begin, *pieces, *self._end])
            start += length
        width = max(map(len, windows), default=1)
        ids = np.full((len(windows), width), self.padding, np.int64)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = window
        for tokens, row in within:
            first[tokens] += row * width
        real = np.fromiter(map(len, windows), np.int64, len(windows))
        return Pieces(*(torch.from_numpy(x) for x in (ids, real, first, sizes)))


def _windows(ends: Ints, room: int) -> list[tuple[int, int, int, int]]:
    """Cut a sentence into windows of whole tokens.

    Args:
        ends: ``(token,)`` where the pieces of each end.
        room: pieces of a window; no token has more.

    Returns:
        of each window its first token and the one after its last, and the same of the tokens that
        are read there; these follow one another.
    """
    count = len(ends)
    if not count:
        return []
    found: list[list[int]] = []
    begin = 0
    while True:
        before = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, before + room, side="right"))
        found.append([begin, end])
        if end == count:
            break
        # The next begins with some context, if that leaves room to go on by a token at least.
        back = int(np.searchsorted(ends, int(ends[end - 1]) - room // _CONTEXT, side="left")) + 1
        fits = int(np.searchsorted(ends, int(ends[end]) - room, side="left")) + 1
        begin = min(end, max(back, fits, begin + 1))
    limits = [0]
    for (_, end), (begin, _) in zip(found, found[1:], strict=False):
        limits.append((begin + end + 1) // 2)  # the middle of what both hold
    limits.append(count)
    return [
        (begin, end, *limits[at : at + 2])  # type: ignore[misc]
        for at, (begin, end) in enumerate(found)
    ]


def _standing_alone(text: str) -> str:
    """Have a tokenizer of bytes see a space before each word: words are given one by one."""
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise SeqlabError(f"the tokenizer of the encoder is no JSON ({error}).") from error
    stack = [data.get("pre_tokenizer")] if isinstance(data, dict) else []
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if part.get("type") == "ByteLevel":
                part["add_prefix_space"] = True
            stack.extend(part.get("pretokenizers", ()))
    return json.dumps(data, ensure_ascii=False)

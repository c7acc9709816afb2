"""The pieces of a sentence, on one side of a translation, and the words that they make up."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seqlab.subwords import SubwordVocabulary

END = "(end)"
_WORD = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")  # what stands between the blanks of a tokenizer
_CONTINUES, _BLANK = "·", "␣"  # before a piece that goes on with a word; for a lone blank


@dataclass(frozen=True)
class Side:
    """A sentence with its end, as a translator reads or writes it.

    Args:
        pieces: with a blank before those that have one in the text.
        words: what stands between blanks, and the end.
        places: of each piece, the place of its word in `words`.
    """

    pieces: list[str]
    words: list[str]
    places: list[int]

    @property
    def labels(self) -> list[str]:
        """The pieces as they are shown, with a dot before those that go on with a word."""
        before = [None, *self.places]
        return [
            label_of(piece, place == last)
            for piece, place, last in zip(self.pieces, self.places, before, strict=False)
        ]


def label_of(piece: str, continues: bool | None = None) -> str:
    """Write a piece as it is shown.

    Args:
        piece: as the vocabulary spells it, or `END`.
        continues: whether it goes on with a word; None where only its blank tells.

    Example:
        >>> label_of(" Love"), label_of("lace"), label_of("Ada", continues=False), label_of(" ")
        ('Love', '·lace', 'Ada', '␣')
    """
    if piece == END:
        return piece
    if continues is None:
        continues = not piece.startswith(" ") and piece != "<unk>"
    return _CONTINUES * continues + (piece.removeprefix(" ") or _BLANK)


def source_side(vocabulary: SubwordVocabulary, text: str, ids: Sequence[int]) -> Side:
    """Find out which words of a text its pieces belong to.

    Args:
        vocabulary: of the text.
        text: with at least one piece.
        ids: of its pieces, without the end.
    """
    words = [(match.end(), match.group()) for match in _WORD.finditer(text)]
    (spans,) = vocabulary.offsets([text])
    at, found = 0, []
    for start, _ in spans:
        while at < len(words) - 1 and words[at][0] <= start:
            at += 1
        found.append(at)
    used = sorted(set(found))
    places = [used.index(place) for place in found]
    return _ended(vocabulary.pieces(ids), [words[place][1] for place in used], places)


def target_side(vocabulary: SubwordVocabulary, ids: Sequence[int]) -> Side:
    """Put the pieces of a translation together to words.

    Args:
        vocabulary: of the translation.
        ids: of its pieces, without the end.
    """
    pieces = vocabulary.pieces(ids)
    unknown = SubwordVocabulary.UNKNOWN
    begins = [
        at == 0 or piece.startswith(" ") or ids[at] == unknown for at, piece in enumerate(pieces)
    ]
    places = [count - 1 for count in itertools.accumulate(begins)]
    words = []
    for _, some in itertools.groupby(range(len(ids)), key=places.__getitem__):
        word = [ids[i] for i in some]
        spelt = (
            "".join(vocabulary.pieces(word)) if unknown in word else vocabulary.decode([word])[0]
        )
        words.append(spelt.strip(" ") or _BLANK)
    return _ended(pieces, words, places)


def _ended(pieces: list[str], words: list[str], places: list[int]) -> Side:
    return Side([*pieces, END], [*words, END], [*places, len(words)])


def by_words(weights: Tensor, target: Side, source: Side) -> Tensor:
    """Bring attention from pieces to words.

    Args:
        weights: ``(target piece, source piece)``.
        target: the translation.
        source: the text.

    Returns:
        ``(target word, source word)``: what all pieces of the source word have together, in the
        mean over the pieces of the target word, so that the rows of weights that sum to 1 still do.
    """
    rows, columns = torch.tensor(target.places), torch.tensor(source.places)
    summed = weights.new_zeros(len(weights), len(source.words)).index_add_(1, columns, weights)
    total = weights.new_zeros(len(target.words), summed.shape[1]).index_add_(0, rows, summed)
    return total / rows.bincount().unsqueeze(1)

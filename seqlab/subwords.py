"""Texts as pieces of words, by a tokenizer of the library Hugging Face tokenizers, and back.

A blank belongs to the piece that follows it, so that the pieces of a text, put end to end, are the
text again: nothing has to be guessed to detokenise a translation.

Example:
    >>> words = train_tokenizer(iter(["the cat", "the dog"]), "words", 100)
    >>> vocabulary = SubwordVocabulary(words, language="en")
    >>> vocabulary.encode(["the dog", "the bird"])
    [[4, 6], [4, 1]]
    >>> vocabulary.decode([[4, 6]]), vocabulary.pieces([4, 1])
    (['the dog'], [' the', '<unk>'])
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

from seqlab.errors import BundleError
from seqlab.subword_training import SPECIAL, TokenizerKind, train_tokenizer
from seqlab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "SPECIAL",
    "SubwordVocabulary",
    "TokenizerKind",
    "train_tokenizer",
    "vocabulary_from_dict",
    "vocabulary_from_json",
]

_BYTES = 256
_MASK, _CONTINUES = 0xC0, 0x80  # a byte of UTF-8 that goes on with a character


class SubwordVocabulary:
    """The pieces of one side's texts, or of both, with their ids.

    Two are equal when they give the same ids, whatever their languages are: those of a joint
    tokenizer are.

    Args:
        tokenizer_json: a tokenizer as :func:`train_tokenizer` returns it.
        language: of the texts, such as ``de``; None where nobody said.

    Attributes:
        scheme: ``subwords``, where a vocabulary of tags or labels has its scheme.
        features: none; where a vocabulary of words has those of feature columns.

    Raises:
        BundleError: that is no tokenizer, or its first ids are not the special tokens.
    """

    PADDING: ClassVar[int] = 0
    UNKNOWN: ClassVar[int] = 1
    BEGIN: ClassVar[int] = 2
    END: ClassVar[int] = 3
    scheme: ClassVar[str] = "subwords"

    def __init__(self, tokenizer_json: str, *, language: str | None) -> None:
        self._tokenizer = _tokenizer_of(tokenizer_json)
        self._json = (
            self._tokenizer.to_str()
        )  # as the library writes it: one text for each tokenizer
        self.language = language
        self.features: dict[str, Vocabulary] = {}
        self._surfaces = _surfaces_of(self._tokenizer)

    def __len__(self) -> int:
        return len(self._surfaces)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubwordVocabulary) and self._json == other._json

    def __hash__(self) -> int:
        return hash(self._json)

    def __repr__(self) -> str:
        return f"SubwordVocabulary({len(self)} subwords, language={self.language!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return SubwordVocabulary.from_dict, (self.to_dict(),)

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer, as the library writes it."""
        return self._json

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of the pieces of each text, without begin and end.

        A text that spells a special token, such as ``<s>``, is text like any other. White space and
        control characters count as one blank, and not at all around the text.
        """
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """Say where in each text the pieces stand that :meth:`encode` gives ids of.

        Returns:
            ``(start, end)`` of every piece in characters of the text as it was given, the end
            exclusive, without the blank before it. Pieces that are parts of one character all have
            the place of that character; of letters with marks of their own, as Unicode's form NFD
            has them, the last mark may be left out.
        """
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            [self._span(text, *span) for span in zip(encoding.ids, encoding.offsets, strict=True)]
            for text, encoding in zip(texts, found, strict=True)
        ]

    def _span(self, text: str, piece: int, span: tuple[int, int]) -> tuple[int, int]:
        start, end = span
        if self._surfaces[piece] == b" ":  # it may be the blank that is thought before the text
            return start, start
        while start < end and (text[start].isspace() or not text[start].isprintable()):
            start += 1
        return (start, end) if start < end else span

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row of ids; special ones, unknown pieces too, are skipped.

        It is one line without blanks around it or two in a row, whatever the ids are.
        """
        return [self._text(row) for row in ids]

    def _text(self, row: Sequence[int]) -> str:
        surfaces = (self._surfaces[i] for i in row if i >= len(SPECIAL))
        return " ".join(b"".join(surfaces).decode("utf-8", "replace").split())

    def pieces(self, ids: Sequence[int]) -> list[str]:
        r"""Return what each id stands for, as one reads it.

        A piece that begins a word has a blank before it. Bytes that are no whole character are
        written as ``\xe5``; special tokens by their names.
        """
        return [self._surfaces[i].decode("utf-8", "backslashreplace") for i in ids]

    @property
    def spells_all(self) -> bool:
        """Whether no text has a piece that is unknown, as with pieces of bytes."""
        from tokenizers.models import BPE

        return isinstance(self._tokenizer.model, BPE)

    def spelt(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """Return the text that pieces spell, without blanks around it, and where they stand in it.

        Args:
            ids: of the pieces; special ones spell nothing.

        Returns:
            the text, and ``(start, end)`` of each piece in characters of it, the end exclusive.
            Pieces that are parts of one character all have the place of that character.
        """
        surfaces = [self._surfaces[i] if i >= len(SPECIAL) else b"" for i in ids]
        joined = b"".join(surfaces)
        text = joined.decode("utf-8", "replace")
        # How many characters have begun before each byte, and in the end.
        begun = [0, *accumulate(byte & _MASK != _CONTINUES for byte in joined)]
        blanks = len(text) - len(text.lstrip())
        spans, at = [], 0
        for surface in surfaces:
            end = at + len(surface)
            start = begun[at + 1] - 1 if surface else begun[at]
            spans.append((max(0, start - blanks), max(0, begun[end] - blanks)))
            at = end
        return text.strip(), spans

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which :meth:`from_dict` makes the same vocabulary again."""
        return {
            "kind": self.scheme,
            "language": self.language,
            "tokenizer": json.loads(self._json),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SubwordVocabulary:
        """Make a vocabulary from what :meth:`to_dict` returned.

        Raises:
            BundleError: a key is missing or of the wrong kind.
        """
        language, tokenizer = data.get("language"), data.get("tokenizer")
        if not isinstance(tokenizer, dict) or not isinstance(language, str | None):
            key = "language" if isinstance(tokenizer, dict) else "tokenizer"
            raise _damaged(f"it lacks or misuses {key!r}")
        return cls(_written(tokenizer), language=language)

    def to_json(self) -> str:
        """Return the vocabulary as one JSON text."""
        return _written(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> SubwordVocabulary:
        """Read what :meth:`to_json` wrote.

        Raises:
            BundleError: the text is no JSON, or no vocabulary of subwords.
        """
        return cls.from_dict(_object_in(text))


def vocabulary_from_dict(data: Mapping[str, Any]) -> Vocabulary | SubwordVocabulary:
    """Make a vocabulary of either kind from what its ``to_dict`` returned.

    Raises:
        BundleError: a key is missing or of the wrong kind.
    """
    if isinstance(data, Mapping) and data.get("kind") == SubwordVocabulary.scheme:
        return SubwordVocabulary.from_dict(data)
    return Vocabulary.from_dict(data)


def vocabulary_from_json(text: str) -> Vocabulary | SubwordVocabulary:
    """Read a vocabulary of either kind from what its ``to_json`` wrote.

    Raises:
        BundleError: the text is no JSON, or no vocabulary.
    """
    return vocabulary_from_dict(_object_in(text))


def _object_in(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BundleError(
            f"a vocabulary is no valid JSON ({error}): the file is damaged; "
            "train or install the model again."
        ) from error
    if not isinstance(data, dict):
        raise _damaged("it is no object")
    return data


def _tokenizer_of(tokenizer_json: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises nothing narrower
        raise _damaged(str(error)) from error
    if [tokenizer.id_to_token(i) for i in range(len(SPECIAL))] != list(SPECIAL):
        raise _damaged(f"its first tokens are not {', '.join(SPECIAL)}")
    tokenizer.encode_special_tokens = True  # what spells one in a text is text
    return tokenizer


def _surfaces_of(tokenizer: Tokenizer) -> list[bytes]:
    """List what each id stands for, in UTF-8."""
    from tokenizers.models import BPE

    size = tokenizer.get_vocab_size()
    names = [name for i in range(size) if (name := tokenizer.id_to_token(i)) is not None]
    if len(names) < size:
        raise _damaged("its ids have gaps")
    if not isinstance(tokenizer.model, BPE):
        return [name.encode() for name in names]
    table = _bytes_of_glyphs()
    try:
        pieces = [bytes(table[glyph] for glyph in name) for name in names[len(SPECIAL) :]]
    except KeyError as error:
        raise _damaged(f"{error} stands for no byte") from error
    return [*(name.encode() for name in SPECIAL), *pieces]


def _bytes_of_glyphs() -> dict[str, int]:
    """Map the characters by which byte-level tokenizers write bytes to those bytes.

    Printable bytes stand for themselves, the others, in order, for what follows the first 256
    characters (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").
    """
    plain = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), _BYTES),
    ]
    others = [byte for byte in range(_BYTES) if byte not in set(plain)]
    return {chr(b): b for b in plain} | {chr(_BYTES + i): b for i, b in enumerate(others)}


def _written(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


def _damaged(reason: str) -> BundleError:
    return BundleError(
        f"a vocabulary of subwords cannot be read ({reason}): the file is from another version or "
        "damaged; train or install the model again."
    )

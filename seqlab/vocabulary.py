"""Words, characters and labels as numbers, and back.

One class serves every side of every task. A *source* vocabulary has a padding row, one or more rows
for unknown words, and may carry the vocabularies of what a word is made of (``characters``) and of
what comes with it in the corpus (``features``). A *target* vocabulary of tags or labels has neither
padding nor unknown rows: its size is the number of classes.

Example:
    >>> words = Vocabulary(["the", "cat"], padding=True, unknown=1, lowercase=True)
    >>> words.encode(["The", "dog"]), len(words)
    ([2, 1], 4)
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seqlab.errors import BundleError, DataError, nearest

if TYPE_CHECKING:
    from torch import Tensor

PADDING_ID = 0
_DIGIT = re.compile(r"\d")


class Vocabulary:
    """An ordered set of tokens with ids: ``[padding] [unknown ...] token token ...``.

    Args:
        tokens: the tokens in the order of their ids; no duplicates.
        padding: reserve id 0 for padding.
        unknown: how many rows stand for words that are not in the list. With 0 an unknown token is
            an error; with 1 all share a row; with more, a word always falls into the same one of
            them by its CRC-32, so that rare words stay apart (hashed rows).
        lowercase: look words up in lower case.
        zero_digits: look up a word with digits under its pattern (``1987`` as ``0000``) where it is
            not in the list itself.
        characters: the vocabulary of the characters of the words.
        features: the vocabularies of extra feature columns, by column name.
        scheme: how these tags mark spans: ``iob2``, ``bioes`` or ``none`` (see :mod:`seqlab.tags`);
            for labels of whole texts ``label`` where a text has exactly one, and ``labels`` where
            it has any number.
        written: the scheme of the corpus they came from, which predictions are written in.

    Attributes:
        vectors: pretrained vectors ``(len(self), size)`` for the rows, not a number (NaN) in rows
            that have none; they initialise a model and are never saved here. ``None`` without a
            file.
        counts: how many training texts have each label, for the weights of classes; they too
            initialise a model and are never saved. ``None`` where nothing was counted.

    Raises:
        DataError: a token occurs twice.
    """

    def __init__(
        self,
        tokens: Iterable[str],
        *,
        padding: bool = False,
        unknown: int = 0,
        lowercase: bool = False,
        zero_digits: bool = False,
        characters: Vocabulary | None = None,
        features: Mapping[str, Vocabulary] | None = None,
        scheme: str = "none",
        written: str = "none",
    ) -> None:
        self.tokens = tuple(tokens)
        self.padding = padding
        self.unknown = unknown
        self.lowercase = lowercase
        self.zero_digits = zero_digits
        self.characters = characters
        self.features = dict(features or {})
        self.scheme = scheme
        self.written = written
        self.vectors: Tensor | None = None
        self.counts: dict[str, int] | None = None
        self._first = int(padding) + unknown
        self._ids = {token: self._first + i for i, token in enumerate(self.tokens)}
        if len(self._ids) != len(self.tokens):
            twice = next(token for token, n in Counter(self.tokens).items() if n > 1)
            raise DataError(
                f"duplicate label: {twice!r} stands twice in a vocabulary; name it once."
            )

    @property
    def first_unknown(self) -> int:
        """Id of the first unknown row."""
        return int(self.padding)

    def __len__(self) -> int:
        return self._first + len(self.tokens)

    def __contains__(self, token: str) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __repr__(self) -> str:
        return (
            f"Vocabulary({len(self.tokens)} tokens, unknown={self.unknown}, padding={self.padding})"
        )

    def id(self, token: str) -> int:
        """Return the id of one token.

        Args:
            token: a word, character or label, as it stands in the text.

        Returns:
            its id, or that of the unknown row it falls into.

        Raises:
            DataError: the token is not in the list and there is no unknown row.
        """
        key = token.lower() if self.lowercase else token
        found = self._ids.get(key)
        if found is None and self.zero_digits and not key.isalpha():
            found = self._ids.get(_DIGIT.sub("0", key))
        if found is not None:
            return found
        if not self.unknown:
            raise DataError(
                f"{token!r} is not in the vocabulary of {len(self.tokens)} labels."
                f"{nearest(token, self.tokens)}"
            )
        if self.unknown == 1:
            return int(self.padding)
        spread = zlib.crc32(key.encode("utf-8", "surrogatepass")) % self.unknown
        return int(self.padding) + spread

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the ids of several tokens, in order; see :meth:`id`."""
        tokens = list(tokens)
        keys = map(str.lower, tokens) if self.lowercase else tokens
        found = map(self._ids.get, keys)
        return [self.id(token) if i is None else i for token, i in zip(tokens, found, strict=True)]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Return the tokens of ids; padding and unknown rows become ``<pad>`` and ``<unk>``."""
        ids = ids if isinstance(ids, list) else list(ids)
        if not self._first and min(ids, default=0) >= 0:  # the common case, tags
            return list(map(self.tokens.__getitem__, ids))
        return [
            self.tokens[i - self._first]
            if i >= self._first
            else ("<pad>" if self.padding and i == PADDING_ID else "<unk>")
            for i in ids
        ]

    def is_unknown(self, token: str) -> bool:
        """Say whether a word falls into an unknown row."""
        return self.id(token) < self._first

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which :meth:`from_dict` makes the same vocabulary again."""
        data: dict[str, Any] = {
            "tokens": list(self.tokens),
            "padding": self.padding,
            "unknown": self.unknown,
            "lowercase": self.lowercase,
            "zero_digits": self.zero_digits,
            "scheme": self.scheme,
            "written": self.written,
        }
        if self.characters is not None:
            data["characters"] = self.characters.to_dict()
        if self.features:
            data["features"] = {name: v.to_dict() for name, v in self.features.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Make a vocabulary from what :meth:`to_dict` returned.

        Raises:
            BundleError: a key is missing or of the wrong kind.
        """
        try:
            tokens, characters = data["tokens"], data.get("characters")
            if not (isinstance(tokens, list) and all(isinstance(t, str) for t in tokens)):
                raise TypeError("'tokens'")
            return cls(
                tokens,
                padding=data["padding"],
                unknown=data["unknown"],
                lowercase=data["lowercase"],
                zero_digits=data["zero_digits"],
                characters=None if characters is None else cls.from_dict(characters),
                features={k: cls.from_dict(v) for k, v in data.get("features", {}).items()},
                scheme=data["scheme"],
                written=data["written"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"a vocabulary lacks or misuses {error}: the file is from another version or "
                "damaged; train or install the model again."
            ) from error

    def to_json(self) -> str:
        """Return the vocabulary as one JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Read what :meth:`to_json` wrote.

        Raises:
            BundleError: the text is no JSON, or no vocabulary.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BundleError(
                f"a vocabulary is no valid JSON ({error}): the file is damaged; "
                "train or install the model again."
            ) from error
        return cls.from_dict(data)


def ranked(counts: Mapping[str, int], min_count: int = 1) -> list[str]:
    """Order tokens by falling count, then by name, so that every process gets the same ids.

    Args:
        counts: how often each token occurs.
        min_count: leave out tokens that occur less often.

    Example:
        >>> ranked({"b": 2, "a": 2, "c": 5, "d": 1}, min_count=2)
        ['c', 'a', 'b']
    """
    kept = [(token, n) for token, n in counts.items() if n >= min_count]
    return [token for token, _ in sorted(kept, key=lambda item: (-item[1], item[0]))]


def word_vocabulary(
    counts: Mapping[str, int],
    *,
    lowercase: bool = True,
    min_count: int = 1,
    unknown: int = 1,
    vector_words: Sequence[str] = (),
) -> Vocabulary:
    """Build the source vocabulary of words, with the characters they are made of.

    Args:
        counts: how often each word, as written, occurs in the training split.
        lowercase: merge words that differ in case only.
        min_count: rarer words are left to the unknown rows (unless they have a vector).
        unknown: number of rows for unknown words; more than one: hashed.
        vector_words: words of a vectors file; they all get a row, so that words which the training
            split lacks are still known by their vectors.

    Returns:
        a vocabulary with ``characters``.
    """
    merged: Counter[str] = Counter()
    with_vector = set(vector_words)
    by_count: dict[int, list[str]] = {}
    for word, n in counts.items():
        key = word.lower() if lowercase else word
        if key not in with_vector and not key.isalpha() and any(map(str.isdigit, key)):
            key = _DIGIT.sub("0", key)
        merged[key] += n
        by_count.setdefault(n, []).append(word)
    letters: Counter[str] = Counter()
    for n, words in by_count.items():  # most words are rare, and counted at once
        for letter, times in Counter("".join(words)).items():
            letters[letter] += n * times
    tokens = [t for t in ranked(merged, min_count) if t not in with_vector]
    tokens.extend(dict.fromkeys(vector_words))
    return Vocabulary(
        tokens,
        padding=True,
        unknown=unknown,
        lowercase=lowercase,
        zero_digits=True,
        characters=Vocabulary(ranked(letters, 2), padding=True, unknown=1),
    )

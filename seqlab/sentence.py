"""What goes into a pipeline: words with their places in a text, and what else is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from seqlab.errors import DataError, SeqlabError
from seqlab.words import places_of


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sequence to read: its words, and what else the input says of them.

    Args:
        tokens: the words, none empty.
        features: by column name, one value a token, for models that were trained with such columns.
        text: the text that the words were found in; used together with ``offsets`` only.
        offsets: ``(start, end)`` characters of every token in ``text``, end exclusive. Without them
            the text is taken to be the words with a space between each two.
    """

    tokens: Sequence[str]
    features: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text: str | None = None
    offsets: Sequence[tuple[int, int]] | None = None

    @classmethod
    def of(cls, text: str) -> Sentence:
        """Cut a text into words.

        Example:
            >>> Sentence.of("It rains.").tokens
            ['It', 'rains', '.']
        """
        places = places_of(text)
        return cls([text[start:end] for start, end in places], text=text, offsets=places)

    def placed(self) -> tuple[str, list[tuple[int, int]]]:
        """Return the text and the place of every token in it.

        Example:
            >>> Sentence(["It", "rains"]).placed()
            ('It rains', [(0, 2), (3, 8)])
        """
        if self.text is not None and self.offsets is not None:
            return self.text, [(start, end) for start, end in self.offsets]
        return " ".join(self.tokens), places_of_words(self.tokens)


Sentences = Sequence[Sentence]


def places_of_words(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the place of every word in the text that joins them with spaces.

    Example:
        >>> places_of_words(["It", "rains"])
        [(0, 2), (3, 8)]
    """
    sizes = [len(word) for word in words]
    nexts = accumulate(size + 1 for size in sizes)
    return [(after - 1 - size, after - 1) for size, after in zip(sizes, nexts, strict=True)]


def sentence_of(item: object, number: int) -> Sentence:
    """Take a text, which is cut into words, or a list of words.

    Args:
        item: the text or the words.
        number: of the input, for the error.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(item, str):
        return Sentence.of(item)
    if isinstance(item, list | tuple):
        return Sentence(item)
    raise TypeError(
        f"input {number} is of type {type(item).__name__}: each must be a text or a list of words."
    )


def check_sentence(sentence: object, features: Sequence[str], unit: str, number: int) -> None:
    """Refuse what a model could not read, before anything is computed.

    Args:
        sentence: what was given.
        features: the columns that the model needs beside the words.
        unit: what an input is called, such as ``sentence``.
        number: of the input.

    Raises:
        TypeError: it is no sentence, or a word is no string.
        SeqlabError: a word is empty, a column is lacking, or one has another length.
    """
    if not isinstance(sentence, Sentence):
        raise TypeError(f"input {number} is no Sentence but {type(sentence).__name__}.")
    place = f"{unit} {number}"
    _check_words(sentence.tokens, place)
    placed = sentence.text is not None and sentence.offsets is not None
    if not features and not placed:
        return
    columns: dict[str, Sequence[object] | None] = {
        name: sentence.features.get(name) for name in features
    }
    lacking = [name for name, values in columns.items() if values is None]
    if lacking:
        options = " ".join(f"--columns {name}=1" for name in lacking)
        raise SeqlabError(
            f"the model needs the column {' and '.join(lacking)} beside the words, which "
            f"{place} lacks: give a file that has it, as in `--input FILE {options}`."
        )
    if placed:
        columns["offsets"] = sentence.offsets
    for name, values in columns.items():
        if values is not None and len(values) != len(sentence.tokens):
            raise DataError(
                f"{place} has {len(sentence.tokens)} tokens and {len(values)} values of {name}: "
                "give every token one."
            )


def _check_words(tokens: object, place: str) -> None:
    if not isinstance(tokens, list | tuple):
        raise TypeError(f"{place}: its words come as a {type(tokens).__name__}, not a list.")
    if {str}.issuperset(map(type, tokens)) and all(tokens):
        return
    for position, token in enumerate(tokens, 1):
        if not isinstance(token, str):
            raise TypeError(f"{place}: word {position} is a {type(token).__name__}, not a string.")
        if not token:
            raise DataError(f"{place}: word {position} is empty; leave it out.")

"""Corpora of any size that are drawn at random, for measurements of how things grow.

Words are drawn by Zipf's law from a list without end, so that a larger corpus has more of them, as
real ones have. Tags and labels depend on the words, and translations are the words in reverse order
under other names: there is something to learn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

EXPONENT = 1.4  # of Zipf's law: 15 million tokens then have some 150,000 words
LENGTH = 15  # mean number of words in a sentence
LABELS = ("PER", "LOC", "ORG", "MISC")
SCORED = 500  # sentences of the splits that are scored
_CHUNK = 10_000
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]


def word_of(number: int, capital: bool = False) -> str:
    """Spell the word of a number, from 1 on; common ones are short."""
    parts = []
    while number:
        number, rest = divmod(number - 1, len(_SYLLABLES))
        parts.append(_SYLLABLES[rest])
    word = "".join(parts)
    return word.capitalize() if capital else word


def sentences_of(count: int, seed: int) -> Iterator[list[int]]:
    """Draw sentences of word numbers."""
    random = np.random.default_rng(seed)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        lengths = random.integers(LENGTH // 3, 2 * LENGTH - LENGTH // 3, size, endpoint=True)
        numbers = np.minimum(random.zipf(EXPONENT, lengths.sum()), 10**9)
        for sentence in np.split(numbers, np.cumsum(lengths)[:-1]):
            yield sentence.tolist()


def tagged(numbers: list[int]) -> str:
    """Write a sentence in CoNLL columns: every seventh word is a name, of two if it can be."""
    lines, before = [], ""
    for number in numbers:
        label = LABELS[number // 7 % len(LABELS)] if number % 7 == 0 else ""
        prefix = "I" if label == before else "B"
        tag = f"{prefix}-{label}" if label else "O"
        lines.append(f"{word_of(number, bool(label))}\t{tag}\n")
        before = label
    return "".join(lines) + "\n"


def labelled(numbers: list[int]) -> str:
    """Write a text with a label that depends on its words, as a line of JSON."""
    label = LABELS[sum(number % 7 == 0 for number in numbers) % len(LABELS)]
    return json.dumps({"text": " ".join(map(word_of, numbers)), "label": label}) + "\n"


def paired(numbers: list[int]) -> str:
    """Write a sentence and its translation, as a line of JSON."""
    target = " ".join(word_of(3 * number) for number in reversed(numbers))
    return json.dumps({"en": " ".join(map(word_of, numbers)), "xx": target}) + "\n"


TASKS: dict[str, tuple[str, Callable[[list[int]], str]]] = {
    "tagging": ("conll", tagged),
    "classification": ("jsonl", labelled),
    "translation": ("jsonl", paired),
}


def write_corpus(folder: Path, task: str, sentences: int) -> None:
    """Write the three splits of a corpus.

    Args:
        folder: where they go; it is made.
        task: one of `TASKS`.
        sentences: of the training split.
    """
    extension, write = TASKS[task]
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate(
        [("train", sentences), ("dev", SCORED), ("test", SCORED)]
    ):
        with (folder / f"{split}.{extension}").open("w", encoding="utf-8") as file:
            file.writelines(map(write, sentences_of(count, seed)))

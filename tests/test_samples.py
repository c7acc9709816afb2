"""The embedded samples hold what their README says, and no sentence of one part is in another."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from seqlab import samples

SAMPLES = Path(samples.__file__).parent
SENTIMENT = SAMPLES / "sentiment"
SIZES = {"train": 820, "dev": 164, "test": 246}


def lines_of(split: str) -> list[str]:
    """The lines below the header; bytes are decoded here, so that no newline is translated."""
    text = (SENTIMENT / f"{split}.tsv").read_bytes().decode("utf-8")
    return text.removesuffix("\n").split("\n")[1:]


def rows_of(split: str) -> list[list[str]]:
    return [line.split("\t") for line in lines_of(split)]


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def runs_of(split: str, length: int) -> set[tuple[str, ...]]:
    sentences = [words_of(text) for text, _ in rows_of(split)]
    return {tuple(s[i : i + length]) for s in sentences for i in range(len(s) - length + 1)}


@pytest.mark.parametrize("split", SIZES)
def test_half_of_every_sentiment_split_is_positive(split):
    half = SIZES[split] // 2
    assert Counter(label for _, label in rows_of(split)) == {"positive": half, "negative": half}


@pytest.mark.parametrize("split", SIZES)
def test_sentiment_files_begin_with_the_header_and_end_with_one_newline(split):
    content = (SENTIMENT / f"{split}.tsv").read_bytes()
    assert content.startswith(b"text\tlabel\n")
    assert content.endswith(b"e\n")


@pytest.mark.parametrize("split", SIZES)
def test_every_sentiment_line_is_a_clean_sentence_and_a_label(split):
    for number, line in enumerate(lines_of(split), start=2):
        assert line.count("\t") == 1, f"{split}.tsv:{number}"
        text, label = line.split("\t")
        assert label in {"positive", "negative"}, f"{split}.tsv:{number}"
        assert text == " ".join(text.split()), f"{split}.tsv:{number}"
        assert 6 <= len(words_of(text)) <= 30, f"{split}.tsv:{number}"
        # Control, format and unassigned characters; double quotes would be read as csv quoting.
        strange = [c for c in text if unicodedata.category(c).startswith("C") or c == '"']
        assert not strange, f"{split}.tsv:{number}"


@pytest.mark.parametrize("split", SIZES)
def test_the_classes_of_a_sentiment_split_are_mixed(split):
    labels = "".join(label[0] for _, label in rows_of(split))
    assert max(map(len, re.findall("p+|n+", labels))) < 16


def test_no_sentiment_sentence_occurs_twice():
    texts = Counter(text.lower() for split in SIZES for text, _ in rows_of(split))
    assert [text for text, count in texts.items() if count > 1] == []


def test_sentiment_splits_share_no_run_of_six_words():
    for one, other in combinations(SIZES, 2):
        assert runs_of(one, 6) & runs_of(other, 6) == set()


def test_negation_does_not_give_the_sentiment_away():
    rows = [row for split in SIZES for row in rows_of(split)]
    for word in ("not", "never", "no", "but"):
        counts = Counter(label for text, label in rows if word in words_of(text))
        assert min(counts["positive"], counts["negative"]) >= 10, word


def test_the_readme_states_the_true_sentiment_counts():
    sizes = [len(rows_of(split)) for split in SIZES]
    (row,) = re.findall(
        "^.*sample:sentiment.* \\|$", (SAMPLES / "README.md").read_text("utf-8"), re.M
    )
    stated = re.search(r"([\d,]+) English opinions \((\d+) / (\d+) / (\d+)\)", row)
    assert stated is not None
    assert [int(n.replace(",", "")) for n in stated.groups()] == [sum(sizes), *sizes]


# sample:translation

PAIRS = SAMPLES / "translation"
WORD = re.compile(r"\w+")


def pairs_of(split: str) -> list[list[str]]:
    lines = (PAIRS / f"{split}.tsv").read_bytes().decode("utf-8").split("\n")
    pairs = [line.split("\t") for line in lines[1:-1]]
    assert {len(pair) for pair in pairs} == {2}
    return pairs


def spelling(text: str) -> str:
    """Its words, so that sentences which differ in punctuation or case are the same."""
    return " ".join(WORD.findall(text.lower()))


def edits(one: list[str], other: list[str]) -> int:
    """How many words are to be put in, left out or replaced."""
    row = list(range(len(other) + 1))
    for number, word in enumerate(one, start=1):
        above, row = row, [number]
        for column, wanted in enumerate(other, start=1):
            row.append(
                min(above[column] + 1, row[-1] + 1, above[column - 1] + (word != wanted)),
            )
    return row[-1]


@pytest.mark.parametrize("split", SIZES)
def test_translation_files_begin_with_the_header_and_end_with_one_newline(split):
    content = (PAIRS / f"{split}.tsv").read_bytes()
    assert content.startswith(b"en\tfr\n")
    assert content.endswith((b".\n", b"?\n", b"!\n"))
    assert b"\r" not in content


def test_there_are_as_many_pairs_as_the_recipe_of_translation_needs():
    sizes = {split: len(pairs_of(split)) for split in SIZES}
    assert sizes["train"] >= 1500
    assert sizes["dev"] == sizes["test"] == 100
    assert sum(file.stat().st_size for file in PAIRS.iterdir()) < 250_000


@pytest.mark.parametrize("split", SIZES)
def test_every_translation_pair_is_clean(split):
    for pair in pairs_of(split):
        for text in pair:
            assert text == " ".join(text.split()), text
            assert text == unicodedata.normalize("NFC", text), text
            assert 3 <= len(text.split()) <= 16, text
            assert text[0].isupper(), text
            assert text[-1] in ".?!", text
            assert not re.search(r" [.,?!]", text), text
            assert not set(text) & set('"\u2019\u00a0\u202f'), text
        assert (pair[0][-1] == "?") == (pair[1][-1] == "?"), pair


def test_no_sentence_of_either_language_occurs_twice():
    for side in (0, 1):
        texts = Counter(spelling(pair[side]) for split in SIZES for pair in pairs_of(split))
        assert [text for text, count in texts.items() if count > 1] == []


def test_every_word_of_the_translation_dev_and_test_parts_is_known_from_training():
    for side in (0, 1):
        train = Counter(w for pair in pairs_of("train") for w in spelling(pair[side]).split())
        assert len(train) < 650
        for split in ("dev", "test"):
            words = {w for pair in pairs_of(split) for w in spelling(pair[side]).split()}
            assert {w: train[w] for w in words if train[w] < 5} == {}


@pytest.mark.parametrize("split", ["dev", "test"])
def test_few_translation_sentences_are_one_word_away_from_a_sentence_of_training(split):
    train = [spelling(pair[0]).split() for pair in pairs_of("train")]
    near = 0
    for text, _ in pairs_of(split):
        words = spelling(text).split()
        alike = (other for other in train if abs(len(other) - len(words)) <= 1)
        near += any(len(set(words) ^ set(o)) <= 2 and edits(words, o) <= 1 for o in alike)
    assert near <= 33


@pytest.mark.parametrize("split", SIZES)
def test_french_articles_are_elided_and_contracted(split):
    vowel = "[aeiouyàâéèêîôœ]"
    open_article = re.compile(rf"\b(?<![-'])(je|ne|de|que|le|la|me|te|se) {vowel}", re.I)
    contracted = re.compile(r"\b(à|de) les?\b|\b(ma|ta|sa|ce) [aeiouéœ]", re.I)
    closed = re.compile(r"(?<!aujourd)'[bcdfgjklmnpqrstvwxz]", re.I)
    for _, text in pairs_of(split):
        for wrong in (open_article, contracted, closed):
            assert not wrong.search(text), text


def test_the_readme_states_the_true_translation_counts():
    sizes = [len(pairs_of(split)) for split in SIZES]
    (row,) = re.findall(
        "^.*sample:translation.* \\|$", (SAMPLES / "README.md").read_text("utf-8"), re.M
    )
    stated = re.search(r"([\d,]+) English-French pairs \(([\d,]+) / (\d+) / (\d+)\)", row)
    assert stated is not None
    assert [int(n.replace(",", "")) for n in stated.groups()] == [sum(sizes), *sizes]

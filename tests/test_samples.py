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

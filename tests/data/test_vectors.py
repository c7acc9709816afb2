from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from seqlab.data.vectors import Vectors, read_vectors
from seqlab.errors import DataError
from seqlab.vocabulary import Vocabulary, word_vocabulary

GLOVE = "the 0.1 -2 3e-2\ncat 1 2 3\n日本 0 0 1\n"


def write(folder: Path, text: str, name: str = "vectors.txt") -> Path:
    file = folder / name
    file.write_bytes(text.encode())
    return file


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as error:
        read_vectors(file)
    return str(error.value)


def test_glove_has_a_word_and_its_numbers_a_line(tmp_path: Path) -> None:
    words, table = read_vectors(write(tmp_path, GLOVE))
    assert words == ["the", "cat", "日本"]
    assert table.dtype == torch.float32
    torch.testing.assert_close(
        table, torch.tensor([[0.1, -2.0, 0.03], [1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    )


@pytest.mark.parametrize(
    "text",
    [
        "3 3\n" + GLOVE,  # word2vec and fastText
        "3 3\n" + GLOVE.replace("\n", " \n"),  # word2vec ends its lines with a space
        GLOVE.replace("\n", "\r\n"),
        GLOVE.rstrip("\n"),
        GLOVE.replace("\n", "\n\n"),
        "\ufeff" + GLOVE,
    ],
    ids=["header", "trailing space", "CRLF", "no last newline", "empty lines", "byte order mark"],
)
def test_files_of_all_makes_say_the_same(tmp_path: Path, text: str) -> None:
    words, table = read_vectors(write(tmp_path, text))
    expected = read_vectors(write(tmp_path, GLOVE, "plain.txt"))
    assert words == expected.words
    assert torch.equal(table, expected.table)


def test_a_gzipped_file_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt.gz"
    file.write_bytes(gzip.compress(GLOVE.encode()))
    words, table = read_vectors(file)
    assert words == ["the", "cat", "日本"]
    assert table.shape == (3, 3)


def test_a_word_that_comes_again_keeps_its_first_vector(tmp_path: Path) -> None:
    words, table = read_vectors(write(tmp_path, "a 1 1\nb 2 2\na 3 3\nc 4 4\n"))
    assert words == ["a", "b", "c"]
    assert table[:, 0].tolist() == [1, 2, 4]


def test_words_may_hold_spaces_once_the_width_is_known(tmp_path: Path) -> None:
    words, table = read_vectors(write(tmp_path, "a 1 2\nNew York 3 4\n. . . 5 6\n"))
    assert words == ["a", "New York", ". . ."]
    assert table[1:].tolist() == [[3, 4], [5, 6]]


def test_a_header_gives_the_width_to_a_first_word_with_spaces(tmp_path: Path) -> None:
    assert read_vectors(write(tmp_path, "1 2\nNew York 3 4\n")).words == ["New York"]


@pytest.mark.parametrize("space", ["\r", "\x85", "\u2028", "\x0b", "\x1c", "\u00a0", "\u3000"])
def test_only_the_newline_ends_a_line_and_only_the_space_a_field(
    tmp_path: Path, space: str
) -> None:
    assert read_vectors(write(tmp_path, f"a{space}b 1 2\nc 3 4\n")).words == [f"a{space}b", "c"]


def test_a_word_of_broken_bytes_does_not_stop_the_file(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_bytes(b"a 1 2\nb\xff 3 4\n")
    assert read_vectors(file).words == ["a", "b\ufffd"]


def test_variables_and_the_home_folder_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, GLOVE)
    monkeypatch.setenv("CORPORA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert read_vectors("$CORPORA/vectors.txt").words[0] == "the"
    assert read_vectors("~/vectors.txt").words[0] == "the"


def test_a_missing_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    missing = tmp_path / "none.txt"
    assert refusal(missing) == (
        f"no vectors file '{missing}': give data.vectors the path of a GloVe, word2vec or fastText "
        "text file (.gz too), or leave it out."
    )


@pytest.mark.parametrize("text", ["", "\n\n", "400000 300\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    assert refusal(file) == (
        f"{file} holds no word vectors: one `word v1 v2 ...` a line is expected."
    )


@pytest.mark.parametrize(
    ("text", "place", "width"),
    [("a 1 2 3\nb 1 2\n", 2, 3), ("2 3\na 1 2 3\nb 4 5\n", 3, 3), ("a 1 2\n\nb 1\n", 3, 2)],
)
def test_a_line_that_is_too_short_is_named(
    tmp_path: Path, text: str, place: int, width: int
) -> None:
    file = write(tmp_path, text)
    assert refusal(file) == (
        f"{file}:{place}: {width - 1} numbers where the lines before have {width}; the file of "
        "vectors is cut off or damaged: mend or remove the line."
    )


@pytest.mark.parametrize("text", ["word\nother\n", "2 0\na\nb\n"])
def test_a_file_without_numbers_is_named(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)
    assert refusal(file) == (
        f"{file}:{2 if text[0] == '2' else 1}: no numbers: the file is cut off or no file of word "
        "vectors, which has one `word v1 v2 ...` a line."
    )


def test_something_that_is_no_number_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "a 1 2\nb 1 two\n")
    assert refusal(file) == (
        f"{file}:2: could not convert string to float: 'two'; every line is a word and 2 numbers: "
        "mend or remove the line."
    )


@pytest.mark.parametrize("packed", [gzip.compress(GLOVE.encode() * 99)[:60], b"no gzip at all"])
def test_a_damaged_archive_is_named(tmp_path: Path, packed: bytes) -> None:
    file = tmp_path / "vectors.txt.gz"
    file.write_bytes(packed)
    assert refusal(file).startswith(f"{file} cannot be unpacked (")
    assert refusal(file).endswith("): get the file again.")


CASED = Vectors(["The", "the", "Rome"], torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))


def test_words_are_looked_up_as_the_vocabulary_does() -> None:
    assert CASED.keys(lowercase=False) == ["The", "the", "Rome"]
    assert CASED.keys(lowercase=True) == ["the", "the", "rome"]


@pytest.mark.parametrize("lowercase", [False, True])
def test_every_word_with_a_vector_has_it_in_its_row(lowercase: bool) -> None:
    vocab = word_vocabulary(
        {"the": 3, "cat": 2}, lowercase=lowercase, vector_words=CASED.keys(lowercase)
    )
    table = CASED.rows(vocab)
    assert table.shape == (len(vocab), 2)
    assert table[vocab.id("Rome")].tolist() == [3, 3]
    assert table[vocab.id("The")].tolist() == [1, 1]
    assert table[vocab.id("the")].tolist() == ([1, 1] if lowercase else [2, 2])  # the first counts
    without = [vocab.id("cat"), 0, vocab.first_unknown]
    assert table[without].isnan().all()
    assert table.isnan().all(1).sum() == len(without)


def test_coverage_counts_types_and_tokens() -> None:
    vocab = Vocabulary(["the", "cat", "rome"], padding=True, unknown=1, lowercase=True)
    vocab.vectors = torch.tensor([[torch.nan], [torch.nan], [1.0], [torch.nan], [2.0]])
    counts = {"The": 5, "the": 2, "cat": 2, "dog": 1}
    assert CASED.coverage(vocab, counts) == (
        "vectors: 2 of 4 word types (50.0%) and 70.0% of the training tokens have one of the "
        "3 vectors of size 2"
    )

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab.errors import BundleError, DataError
from seqlab.vocabulary import Vocabulary, ranked, word_vocabulary

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LABELS = Vocabulary(["O", "B-PER", "I-PER"], scheme="iob2", written="iob1")
TEXTS = st.text(max_size=6)


def rich() -> Vocabulary:
    """A vocabulary that uses everything there is."""
    return Vocabulary(
        ["der", "Zürich", "0000", "日本"],
        padding=True,
        unknown=3,
        lowercase=True,
        zero_digits=True,
        characters=Vocabulary(["a", "ü"], padding=True, unknown=1),
        features={"pos": Vocabulary(["NN", "VB"], padding=True, unknown=1)},
        scheme="bioes",
        written="iob2",
    )


def test_ids_follow_padding_and_unknown_rows() -> None:
    words = Vocabulary(["the", "cat"], padding=True, unknown=2)
    assert words.encode(["the", "cat"]) == [3, 4]
    assert len(words) == 5
    assert words.decode(range(5)) == ["<pad>", "<unk>", "<unk>", "the", "cat"]


def test_labels_have_neither_padding_nor_unknown_rows() -> None:
    assert len(LABELS) == 3
    assert LABELS.encode(["O", "B-PER", "I-PER"]) == [0, 1, 2]
    assert LABELS.decode([2, 0]) == ["I-PER", "O"]


@pytest.mark.parametrize("padding", [False, True])
def test_the_first_unknown_row_follows_padding(padding: bool) -> None:
    assert Vocabulary(["a"], padding=padding, unknown=2).first_unknown == int(padding)


def test_masked_ids_are_no_token() -> None:
    assert LABELS.decode([-1]) == ["<unk>"]


def test_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(DataError) as error:
        LABELS.id("B-PRE")
    assert str(error.value) == (
        "'B-PRE' is not in the vocabulary of 3 labels. Did you mean 'B-PER'?"
    )


@UNHURRIED
@given(st.lists(TEXTS, unique=True), st.booleans(), st.integers(0, 3))
def test_known_tokens_come_back(tokens: list[str], padding: bool, unknown: int) -> None:
    vocab = Vocabulary(tokens, padding=padding, unknown=unknown)
    assert vocab.decode(vocab.encode(tokens)) == tokens
    assert sorted(vocab.encode(tokens)) == list(range(padding + unknown, len(vocab)))


@UNHURRIED
@given(st.text(st.characters(), max_size=8), st.integers(1, 9), st.booleans())
def test_unknown_words_fall_into_the_row_of_their_hash(word: str, rows: int, padding: bool) -> None:
    vocab = Vocabulary([], padding=padding, unknown=rows)
    expected = zlib.crc32(word.encode("utf-8", "surrogatepass")) % rows
    assert vocab.id(word) == padding + expected
    assert vocab.is_unknown(word)


def test_hashed_rows_are_the_same_on_every_machine() -> None:
    vocab = Vocabulary(["the"], padding=True, unknown=100)
    assert vocab.encode(["Paris", "paris", "Rome", "\ud800"]) == [23, 79, 54, 1]


def test_hashed_rows_do_not_tell_cases_apart_in_lower_case() -> None:
    vocab = Vocabulary([], unknown=1000, lowercase=True)
    assert vocab.id("Paris") == vocab.id("PARIS") == vocab.id("paris")


def test_lower_case_finds_words_however_they_are_written() -> None:
    vocab = Vocabulary(["the"], padding=True, unknown=1, lowercase=True)
    assert vocab.encode(["the", "The", "THE"]) == [2, 2, 2]
    assert not vocab.is_unknown("The")
    assert Vocabulary(["the"], padding=True, unknown=1).encode(["the", "The"]) == [2, 1]


def test_digits_are_looked_up_under_their_pattern() -> None:
    vocab = Vocabulary(["0000", "1984", "0.0%"], unknown=1, zero_digits=True)
    assert vocab.encode(["2024", "1984", "3.5%", "12"]) == [1, 2, 3, 0]
    assert Vocabulary(["0000"], unknown=1).encode(["2024"]) == [0]


def test_membership_means_the_token_as_it_stands() -> None:
    assert "Zürich" in rich()
    assert "<unk>" not in rich()


def test_a_token_that_stands_twice_is_refused() -> None:
    with pytest.raises(DataError) as error:
        Vocabulary(["O", "B-PER", "O", "B-PER"])
    assert str(error.value) == ("duplicate label: 'O' stands twice in a vocabulary; name it once.")


@pytest.mark.parametrize("vocab", [LABELS, rich(), Vocabulary([])], ids=repr)
def test_json_brings_everything_back(vocab: Vocabulary) -> None:
    again = Vocabulary.from_json(vocab.to_json())
    assert again == vocab
    assert hash(again) == hash(vocab)
    assert again.to_dict() == vocab.to_dict() == json.loads(vocab.to_json())


def test_what_words_are_made_of_comes_back_too() -> None:
    again = Vocabulary.from_dict(rich().to_dict())
    assert again.characters is not None
    assert again.characters.encode("aüx") == [2, 3, 1]
    assert again.features["pos"].encode(["VB", "XX"]) == [3, 1]
    assert (again.scheme, again.written) == ("bioes", "iob2")
    words = ["DER", "2024", "zürich", "日本", "neu"]
    assert again.encode(words) == rich().encode(words)


@UNHURRIED
@given(st.lists(TEXTS, unique=True), st.dictionaries(TEXTS, st.lists(TEXTS, unique=True)))
def test_any_tokens_survive_json(tokens: list[str], columns: dict[str, list[str]]) -> None:
    features = {name: Vocabulary(column) for name, column in columns.items()}
    vocab = Vocabulary(tokens, features=features)
    assert Vocabulary.from_json(vocab.to_json()) == vocab


def test_vectors_are_not_saved() -> None:
    vocab = Vocabulary(["a"])
    vocab.vectors = torch.ones(1, 4)
    again = Vocabulary.from_json(vocab.to_json())
    assert again.vectors is None
    assert again == vocab


def test_vocabularies_differ_in_what_changes_ids() -> None:
    assert Vocabulary(["a", "b"]) != Vocabulary(["b", "a"])
    assert Vocabulary(["a"]) != Vocabulary(["a"], lowercase=True)
    assert Vocabulary(["a"]) != ["a"]


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"tokens": ["a"', "[]", "null", "3", '"tokens"', "{}"],
)
def test_text_that_is_no_vocabulary_is_a_damaged_bundle(text: str) -> None:
    with pytest.raises(BundleError, match=r"^a vocabulary .*train or install the model again\.$"):
        Vocabulary.from_json(text)


@pytest.mark.parametrize("key", ["tokens", "padding", "unknown", "lowercase", "scheme", "written"])
def test_a_missing_key_is_named(key: str) -> None:
    data = rich().to_dict()
    del data[key]
    with pytest.raises(BundleError, match=f"^a vocabulary lacks or misuses '{key}': "):
        Vocabulary.from_dict(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens", None),
        ("tokens", "abc"),
        ("tokens", [["a"]]),
        ("tokens", [1, 2]),
        ("unknown", None),
        ("unknown", "1"),
        ("padding", "yes"),
        ("features", ["pos"]),
        ("features", {"pos": None}),
        ("characters", "abc"),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_damaged_bundle(key: str, value: Any) -> None:
    with pytest.raises(BundleError, match="^a vocabulary lacks or misuses "):
        Vocabulary.from_dict({**rich().to_dict(), key: value})


@UNHURRIED
@given(st.dictionaries(TEXTS, st.integers(1, 9)), st.integers(1, 9), st.randoms())
def test_ranking_does_not_depend_on_the_order_of_counting(
    counts: dict[str, int], least: int, random: Any
) -> None:
    items = list(counts.items())
    random.shuffle(items)
    found = ranked(dict(items), least)
    assert found == ranked(counts, least)
    assert set(found) == {token for token, n in counts.items() if n >= least}
    assert sorted(found, key=lambda token: -counts[token]) == found


def test_words_are_merged_by_case_and_by_digits() -> None:
    vocab = word_vocabulary({"The": 1, "the": 2, "1984": 1, "2024": 1, "cat": 2})
    assert vocab.tokens == ("the", "0000", "cat")
    assert vocab.encode(["THE", "1066", "CAT", "dog"]) == [2, 3, 4, 1]


def test_words_keep_their_case_where_that_is_asked_for() -> None:
    vocab = word_vocabulary({"The": 1, "the": 2}, lowercase=False)
    assert vocab.tokens == ("the", "The")


def test_rare_words_are_left_to_the_unknown_rows() -> None:
    vocab = word_vocabulary({"a": 1, "b": 2, "B": 1}, min_count=3, unknown=4)
    assert vocab.tokens == ("b",)
    assert 1 <= vocab.id("a") <= 4


def test_words_with_a_vector_get_a_row_however_rare() -> None:
    vectors = ["rome", "1984", "the", "rome"]
    vocab = word_vocabulary({"the": 3, "1984": 1, "cat": 2}, min_count=2, vector_words=vectors)
    assert vocab.tokens == ("cat", "rome", "1984", "the")
    assert not vocab.is_unknown("1984")
    assert vocab.is_unknown("1985")


def test_numbers_with_a_vector_do_not_count_for_their_pattern() -> None:
    vocab = word_vocabulary({"1984": 9, "2024": 1}, min_count=2, vector_words=["1984"])
    assert vocab.tokens == ("1984",)


def test_characters_are_those_seen_twice_as_written() -> None:
    characters = word_vocabulary({"Ab": 2, "b": 1, "c": 1}).characters
    assert characters is not None
    assert characters.tokens == ("b", "A")
    assert characters.encode("Abc") == [3, 2, 1]
    assert characters.decode([0]) == ["<pad>"]


@given(
    st.lists(st.text("aB1é٤ -", max_size=4)),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.booleans(),
)
def test_several_tokens_are_looked_up_as_each_alone(
    words: list[str], unknown: int, lowercase: bool, zero_digits: bool
) -> None:
    vocab = Vocabulary(
        ["a", "b", "0", "00", "a0", "é"],
        padding=True,
        unknown=unknown,
        lowercase=lowercase,
        zero_digits=zero_digits,
    )
    ids = [vocab.id(word) for word in words]
    assert vocab.encode(words) == vocab.encode(iter(words)) == ids
    known = [word.lower() if lowercase else word for word in words]
    patterns = [re.sub(r"\d", "0", word) if zero_digits else word for word in known]
    for i, word, pattern in zip(ids, known, patterns, strict=True):
        expected = word if word in vocab else pattern
        assert vocab.decode([i]) == [expected if expected in vocab else "<unk>"]


def test_an_unknown_label_among_many_is_named() -> None:
    with pytest.raises(DataError, match="'C' is not in the vocabulary"):
        Vocabulary(["A", "B"]).encode(["A", "C", "B"])

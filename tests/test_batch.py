from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities import move_data_to_device

from seqlab.batch import CASINGS, Batch, FormTable, casing_of
from seqlab.errors import DataError
from seqlab.vocabulary import Vocabulary

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LETTERS = Vocabulary("abcdefghij", padding=True, unknown=1)
WORDS = Vocabulary(
    ["bad", "cab", "0"],
    padding=True,
    unknown=2,
    lowercase=True,
    zero_digits=True,
    characters=LETTERS,
)
FORMS = st.text("abcdefghijABZ7-é", min_size=1, max_size=9)


def batch_of(table: FormTable, sentences: Sequence[Sequence[str]]) -> Batch:
    words = [word for sentence in sentences for word in sentence]
    return table.batch(table.index(words), [len(sentence) for sentence in sentences])


def letters_of(word: str) -> list[int]:
    return LETTERS.encode(word if len(word) <= 64 else word[:32] + word[-32:])


def check(batch: Batch, sentences: Sequence[Sequence[str]]) -> None:
    """Compare every cell of a batch with what its token says by itself."""
    time = max(map(len, sentences), default=0)
    assert batch.source.shape == batch.forms.shape == batch.mask.shape == (len(sentences), time)
    assert batch.lengths.tolist() == [len(sentence) for sentence in sentences]
    distinct = {word for sentence in sentences for word in sentence}
    assert len(batch.characters) == len(batch.casing) == len(distinct)
    assert batch.characters.shape[1] == max([1, *(len(letters_of(word)) for word in distinct)])
    for row, sentence in enumerate(sentences):
        for position in range(time):
            real = position < len(sentence)
            assert bool(batch.mask[row, position]) == real
            if not real:
                assert batch.source[row, position] == 0
                continue
            word = sentence[position]
            form = int(batch.forms[row, position])
            spelling = batch.characters[form].tolist()
            assert batch.source[row, position] == WORDS.id(word)
            assert batch.casing[form] == casing_of(word)
            assert spelling[: len(letters_of(word))] == letters_of(word)
            assert not any(spelling[len(letters_of(word)) :])


@UNHURRIED
@given(st.lists(st.lists(FORMS, max_size=5), max_size=5))
def test_a_batch_is_what_its_tokens_are(sentences: list[list[str]]) -> None:
    check(batch_of(FormTable(WORDS), sentences), sentences)


@settings(UNHURRIED, max_examples=50)
@given(st.lists(st.lists(st.lists(FORMS, min_size=1, max_size=5), min_size=1, max_size=3)))
def test_a_batch_does_not_depend_on_what_was_seen_before(
    batches: list[list[list[str]]],
) -> None:
    table = FormTable(WORDS)
    for sentences in batches:
        check(batch_of(table, sentences), sentences)


@UNHURRIED
@given(st.lists(FORMS))
def test_equal_words_share_a_row(words: list[str]) -> None:
    table = FormTable(WORDS)
    rows = table.index(words)
    first = {word: rows[words.index(word)] for word in words}
    assert rows.tolist() == [first[word] for word in words]
    assert len(table) == len(set(words)) == len(set(rows.tolist()))
    assert table.index(words[::-1]).tolist() == rows[::-1].tolist()


def test_the_table_knows_the_words_of_its_forms() -> None:
    table = FormTable(WORDS)
    table.index(["bad", "Bad", "7", "zzz"])
    assert table.words.tolist() == WORDS.encode(["bad", "Bad", "7", "zzz"])


@pytest.mark.parametrize("count", [1024, 1025, 3000])
def test_the_table_grows_with_the_forms(count: int) -> None:
    words = [f"{'abcdefghij'[i % 10]}{'A' * (i % 7)}{i}" for i in range(count)]
    table = FormTable(WORDS)
    check(batch_of(table, [words[:2]]), [words[:2]])
    table.index(words)
    sample = [words[:3], words[1020:1030], words[-2:]]
    check(batch_of(table, sample), sample)


@pytest.mark.parametrize("length", [15, 16, 17, 33, 63, 64])
def test_the_table_grows_with_the_characters(length: int) -> None:
    long = ("abcdefghij" * 7)[:length]
    sentences = [["bad", long], ["cab"]]
    check(batch_of(FormTable(WORDS), sentences), sentences)


@pytest.mark.parametrize("length", [65, 100, 5000])
def test_a_very_long_word_is_known_by_its_two_ends(length: int) -> None:
    word = "a" * 32 + "x" * (length - 64) + "b" * 32
    batch = batch_of(FormTable(WORDS), [[word, "bad"]])
    check(batch, [[word, "bad"]])
    assert batch.characters[batch.forms[0, 0]].tolist() == LETTERS.encode("a" * 32 + "b" * 32)


def test_long_words_with_equal_ends_stay_different_forms() -> None:
    table = FormTable(WORDS)
    words = ["a" * 32 + middle + "b" * 32 for middle in ("c", "d")]
    assert len(set(table.index(words).tolist())) == 2


def test_padding_is_as_wide_as_the_longest_form_of_the_batch_alone() -> None:
    table = FormTable(WORDS)
    batch_of(table, [["a" * 50]])
    assert batch_of(table, [["bad", "ab"]]).characters.shape == (2, 3)


def test_features_and_targets_are_laid_out_like_the_words() -> None:
    table = FormTable(WORDS)
    rows = table.index(["bad", "cab", "bad"])
    batch = table.batch(rows, [1, 2], [np.array([5, 6, 7])], np.array([0, 1, 2]))
    assert batch.features[0].tolist() == [[5, 0], [6, 7]]
    assert batch.target is not None
    assert batch.target.tolist() == [[0, -1], [1, 2]]
    assert table.batch(rows, [3]).target is None


def test_every_tensor_counts_in_64_bits() -> None:
    table = FormTable(WORDS)
    rows = table.index(["bad"])
    batch = table.batch(rows, [1], [np.array([1], np.int32)], np.array([1], np.int32))
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 6
    assert {t.dtype for t in [*tensors, *batch.features]} == {torch.int64}


def test_without_characters_a_form_is_one_column_of_padding() -> None:
    table = FormTable(Vocabulary(["bad"], padding=True, unknown=1))
    assert batch_of(table, [["bad", "new"]]).characters.tolist() == [[0], [0]]


def test_a_batch_of_nothing_is_empty() -> None:
    batch = FormTable(WORDS).batch(np.zeros(0, np.int64), [])
    assert len(batch) == 0
    assert batch.mask.shape == (0, 0)


def test_an_empty_sentence_has_no_real_token() -> None:
    batch = batch_of(FormTable(WORDS), [[], ["bad"]])
    assert batch.mask.tolist() == [[False], [True]]


def test_a_bounded_table_forgets_once_it_is_asked_to_make_room() -> None:
    table = FormTable(WORDS, bound=3)
    table.index(["a", "b", "c"])
    table.make_room()
    assert len(table) == 3
    table.index(["d" * 40])
    assert len(table) == 4  # a batch in the making keeps its rows
    table.make_room()
    assert len(table) == 0
    check(batch_of(table, [["b", "bad"], ["b"]]), [["b", "bad"], ["b"]])


def test_an_unbounded_table_keeps_all() -> None:
    table = FormTable(WORDS)
    table.index(["a", "b", "c"])
    table.make_room()
    assert len(table) == 3


def test_a_word_that_cannot_be_looked_up_leaves_nothing_behind() -> None:
    table = FormTable(Vocabulary(["bad"], padding=True))
    for _ in range(2):
        with pytest.raises(DataError, match="'new' is not in the vocabulary"):
            table.index(["new"])
    assert len(table) == 0


@pytest.mark.parametrize(
    ("kind", "words"),
    {
        1: ["dog", "été", "don't", "ice-cream"],
        2: ["Dog", "I", "Ice-cream", "Ünder"],
        3: ["DOG", "U.S.", "ÉTÉ"],
        4: ["iDog", "McDonald", "日本"],
        5: ["42", "٤٢"],
        6: ["B2B", "4th", "3.14", "1-2"],
        7: ["...", "-", "€", "🙂"],
    }.items(),
)
def test_casing_tells_how_a_word_is_written(kind: int, words: list[str]) -> None:
    assert [casing_of(word) for word in words] == [kind] * len(words)


@UNHURRIED
@given(st.text(min_size=1, max_size=5))
def test_casing_is_a_row_of_its_embedding_and_never_padding(word: str) -> None:
    assert 1 <= casing_of(word) < CASINGS


def test_lightning_moves_every_tensor_of_a_batch() -> None:
    batch = batch_of(FormTable(WORDS), [["bad"], ["cab", "bad"]])
    batch.gold = [["O"], ["O", "O"]]
    batch.features = (batch.source,)
    moved = move_data_to_device(batch, torch.device("meta"))
    tensors = [v for v in vars(moved).values() if isinstance(v, torch.Tensor)]
    assert {t.device.type for t in [*tensors, *moved.features]} == {"meta"}
    assert moved.gold == batch.gold
    assert batch.source.device.type == "cpu"


@pytest.mark.parametrize(
    "letters", ["a\xffb", "Āa", "a\u0100\u01ff\u0200b", "\ud83d", "\U0010ffff"]
)
def test_letters_of_every_plane_are_spelt(letters: str) -> None:
    vocab = Vocabulary([*dict.fromkeys("ab" + letters)], padding=True, unknown=1)
    table = FormTable(Vocabulary(["x"], padding=True, unknown=1, characters=vocab))
    for word in ("ab", letters, "b" + letters, "\U0001f642", letters):
        batch = batch_of(table, [[word]])
        assert batch.characters.tolist() == [vocab.encode(word)]


def test_an_interrupt_leaves_no_form_half_known(monkeypatch: pytest.MonkeyPatch) -> None:
    table = FormTable(WORDS)
    table.index(["cab"])

    def interrupted(word: str) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seqlab.batch.casing_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table.index(["bad", "cab", "abc"])
    assert len(table) == 1
    sentences = [["abc", "Zé", "bad"], ["cab"]]
    check(batch_of(table, sentences), sentences)


def test_an_interrupt_at_the_very_end_leaves_no_letters_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = FormTable(WORDS)
    note = FormTable._note

    def interrupted(*arguments: Any) -> None:
        note(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FormTable, "_note", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table.index(["abcabcabc", "cabcabcab"])
    sentences = [["a", "b", "abcabcabcab"]]
    check(batch_of(table, sentences), sentences)


def test_words_before_one_that_is_no_word_are_known_next_time() -> None:
    table = FormTable(WORDS)
    wrong: Any = ["abc", ["abc"]]
    with pytest.raises(TypeError):
        table.index(wrong)
    sentences = [["Zé", "abc"], ["bad"]]
    check(batch_of(table, sentences), sentences)


def test_forms_may_come_in_the_order_of_how_often_they_do() -> None:
    table = FormTable(WORDS)
    table.index(["unused", "a"])
    words = ["a", "b", "c", "b", "Zé", "b", "c"]
    forms, places = table.forms(table.index(words), often=True)
    assert forms.repeated == 2
    assert places.tolist() == [2, 0, 1, 0, 3, 0, 1]
    assert forms.words.tolist() == WORDS.encode(["b", "c", "a", "Zé"])
    batch = forms.batch(places, [3, 4])
    check(batch, [words[:3], words[3:]])
    assert batch.vectors is None
    plain, _ = table.forms(table.index(words))
    assert plain.repeated == 0


def test_what_is_known_of_forms_moves_with_them() -> None:
    table = FormTable(WORDS)
    forms, _ = table.forms(table.index(["a", "a", "b"]), often=True)
    forms.vectors = torch.zeros(2, 3)
    moved = move_data_to_device(forms, torch.device("meta"))
    tensors = [v for v in vars(moved).values() if isinstance(v, torch.Tensor)]
    assert [t.device.type for t in tensors] == ["meta"] * 4
    assert moved.repeated == 1

from __future__ import annotations

from typing import Any, cast

import pytest

from seqlab.errors import UsageError
from seqlab.subwords import SubwordVocabulary, TokenizerKind, train_tokenizer
from seqlab.wishes import Wishes, place_of, says, spelling_in

TEXTS = ["the cat sat, a cat (cat) purrs.", "the dogs and cats said: no", "New York. «Non»"] * 3
KINDS: list[TokenizerKind] = ["words", "bpe", "wordpiece", "unigram"]


def vocabulary(kind: TokenizerKind, lowercase: bool = False) -> SubwordVocabulary:
    size = 300 if kind == "bpe" else 60
    return SubwordVocabulary(train_tokenizer(iter(TEXTS), kind, size, lowercase), language="en")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phrase", ["cat", "the cat sat", "New York", ",", "cat ("])
def test_what_is_required_is_spelt_as_inside_of_a_sentence(
    kind: TokenizerKind, phrase: str
) -> None:
    vocab = vocabulary(kind)
    [ids] = Wishes(require=(phrase,)).constraints(vocab).required
    assert vocab.decode([ids]) == [phrase]
    before = vocab.encode(["said"])[0]
    blank = "" if phrase == "," else " "
    assert vocab.decode([[*before, *ids]]) == [f"said{blank}{phrase}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_is_spelt_as_the_beginning_of_a_text(kind: TokenizerKind) -> None:
    vocab = vocabulary(kind)
    found = Wishes(prefix=" the cat ").constraints(vocab)
    assert [list(found.prefix)] == vocab.encode(["the cat"])
    assert (list(found.required), list(found.banned)) == ([], [])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_banned_is_found_however_it_is_spelt(kind: TokenizerKind) -> None:
    vocab = vocabulary(kind)
    [usual] = Wishes(ban=("cat",)).constraints(vocab).banned
    assert [list(usual)] == vocab.encode(["cat"])
    for text in ("the cat sat", "a (cat) purrs", "cat", "the cat"):
        [ids] = vocab.encode([text])
        found = spelling_in(ids, "cat", vocab, [])
        assert found is not None
        assert "cat" in vocab.decode([found])[0]
        assert len(found) <= len(usual) + 1
    assert spelling_in(vocab.encode(["the cats"])[0], "cat", vocab, []) is None


def test_another_cut_of_a_banned_word_is_found() -> None:
    vocab = vocabulary("bpe")
    ids = {vocab.pieces([i])[0]: i for i in range(len(vocab))}
    spelt = [ids[" the"], ids[" "], ids["c"], ids["a"], ids["t"], ids[" s"]]
    assert vocab.decode([spelt]) == ["the cat s"]
    assert spelling_in(spelt, "cat", vocab, []) == spelt[2:5]
    # What is part of something that is asked for is banned with what goes on from there.
    assert spelling_in(spelt, "cat", vocab, [spelt[1:5]]) == spelt[2:6]


def test_a_banned_mark_is_spelt_with_and_without_a_blank() -> None:
    vocab = vocabulary("bpe")
    banned = Wishes(ban=(",",)).constraints(vocab).banned
    assert [vocab.pieces(ids)[-1] for ids in banned][-1] == ","
    [sentence] = vocab.encode(["the cat sat, a"])
    assert any(list(ids) == sentence[i : i + 1] for ids in banned for i in range(len(sentence)))


def test_what_cannot_be_said_anyway_need_not_be_banned() -> None:
    assert Wishes(ban=("zebra",)).constraints(vocabulary("words")).banned == []


@pytest.mark.parametrize("wishes", [{"require": ("zebra",)}, {"prefix": "zebra"}])
def test_what_is_asked_for_must_have_pieces(wishes: Any) -> None:
    with pytest.raises(UsageError, match="'zebra' cannot be written with the model's vocabulary"):
        Wishes(**wishes).constraints(vocabulary("words"))


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"require": ("cat",), "ban": ("cat",)}, "'cat' is the same as the required phrase 'cat'"),
        ({"require": ("a cat sat",), "ban": ("cat",)}, "'cat' is part of the required phrase"),
        ({"prefix": "The cat", "ban": ("cat",)}, "'cat' is part of the prefix 'The cat'"),
        ({"require": (" ",)}, "a required phrase is blank"),
        ({"ban": ("",)}, "a banned phrase is blank"),
    ],
)
def test_contradictions_are_refused_before_any_model_is_there(wishes: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Wishes(**wishes)


def test_a_banned_phrase_that_is_spelt_in_a_required_one_is_refused() -> None:
    vocab = vocabulary("bpe", lowercase=True)
    with pytest.raises(UsageError, match="'CAT' is part of the required phrase 'cat sat'"):
        Wishes(require=("cat sat",), ban=("CAT",)).constraints(vocab)
    Wishes(require=("cat",), ban=("a",))  # a letter of it is no word of it


def test_wishes_are_joined() -> None:
    general = Wishes("The", ("cat",), ("dog",))
    assert general.joined(Wishes()) == general
    assert Wishes().joined(general) == general
    own = Wishes("A", ("mat",), ("rat",))
    assert general.joined(own) == Wishes("A", ("cat", "mat"), ("dog", "rat"))
    with pytest.raises(UsageError, match="'cat' is the same as"):
        general.joined(Wishes(ban=("cat",)))


def test_what_is_missing_is_told_by_the_text() -> None:
    vocab = vocabulary("bpe", lowercase=True)
    wishes = Wishes(require=("The cat", "dogs"))
    assert wishes.missing("so the cat sat", vocab) == ["dogs"]


@pytest.mark.parametrize(
    ("text", "phrase", "place"),
    [
        ("the cat sat", "cat", (4, 7)),
        ("the cats, a (cat)", "cat", (13, 16)),
        ("cats", "cat", None),
        ("no, never", ",", (2, 3)),
        ("我在东京都", "东京", (2, 4)),
        ("l'été", "e\u0301te\u0301", (2, 5)),
        ("a  b", "a b", None),
        ("x", "", None),
    ],
)
def test_a_phrase_is_found_as_words_of_its_own(text: str, phrase: str, place: Any) -> None:
    assert place_of(text, phrase) == place
    assert says(text, phrase) is (cast(object, place) is not None)

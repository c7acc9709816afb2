from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from seqlab.errors import DataError, RecipeError
from seqlab.subword_training import SPECIAL, TokenizerKind, train_tokenizer
from seqlab.subwords import SubwordVocabulary

KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
TEXTS = ["the cat sat on the mat", "the dogs sat", "The cat isn't there, is it?"] * 3


def learnt(kind: Any, size: int = 300, texts: list[str] | None = None, **options: Any) -> Any:
    text = train_tokenizer(iter(TEXTS if texts is None else texts), kind, size, **options)
    return SubwordVocabulary(text, language=None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_special_tokens_come_first_and_all_ids_have_a_piece(kind: TokenizerKind) -> None:
    vocab = learnt(kind)
    assert vocab.pieces([0, 1, 2, 3]) == list(SPECIAL)
    pieces = vocab.pieces(range(len(vocab)))
    assert len(pieces) == len(set(pieces)) == len(vocab)


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_pieces_as_asked_for_are_learnt_and_no_more(kind: TokenizerKind) -> None:
    texts = [" ".join(f"w{i}{i // 7}x" for i in range(400))] * 2
    assert len(learnt(kind, 350, texts)) == 350


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "words"])
def test_other_processes_learn_the_same_tokenizer(kind: str) -> None:
    code = (
        "import sys; from seqlab.subword_training import train_tokenizer as train;"
        "texts = [' '.join(f'ab{i * j % 97}c' for i in range(60)) for j in range(60)];"
        "print(train(iter(texts), sys.argv[1], 400))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, kind], capture_output=True, check=True, timeout=120
        ).stdout
        for _ in range(3)
    }
    assert len(said) == 1


def test_unigram_has_its_ids_in_a_fixed_order() -> None:
    tokenizer = json.loads(train_tokenizer(iter(TEXTS), "unigram", 60))
    pieces = [piece for piece, _ in tokenizer["model"]["vocab"]]
    assert pieces[:4] == list(SPECIAL)
    assert pieces[4:] == sorted(pieces[4:])


def test_pieces_that_occur_often_are_whole_words() -> None:
    for kind in KINDS:
        assert " the" in learnt(kind).pieces(learnt(kind).encode(["on the mat"])[0]), kind


@pytest.mark.parametrize("kind", KINDS)
def test_lower_case_merges_what_differs_in_case(kind: TokenizerKind) -> None:
    cased, lower = learnt(kind), learnt(kind, lowercase=True)
    the, capital = cased.encode(["the cat", "The cat"])
    assert the != capital
    the, capital = lower.encode(["the cat", "THE Cat"])
    assert the == capital
    assert lower.decode([capital]) == ["the cat"]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_read_once_in_a_stream(kind: TokenizerKind) -> None:
    given = []

    def stream() -> Iterator[str]:
        for text in TEXTS:
            given.append(text)
            yield text

    train_tokenizer(stream(), kind, 300)
    assert given == TEXTS


@pytest.mark.parametrize(
    ("kind", "size", "sentence"),
    [
        (
            "bpe",
            100,
            "data.vocabulary_size is 100: too small for the 256 bytes and the 4 special tokens, "
            "which need 260: raise it.",
        ),
        (
            "wordpiece",
            9,
            "data.vocabulary_size is 9: too small for the characters of the texts and the 4 "
            "special tokens, which need 22: raise it; or write data.tokenizer: bpe, which spells "
            "them as bytes.",
        ),
        (
            "unigram",
            9,
            "data.vocabulary_size is 9: too small for the characters of the texts and the 4 "
            "special tokens: raise it; or write data.tokenizer: bpe, which spells them as bytes.",
        ),
    ],
)
def test_a_size_that_cannot_hold_the_characters_is_refused(
    kind: TokenizerKind, size: int, sentence: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        learnt(kind, size)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "words"])
@pytest.mark.parametrize("texts", [[], ["", " \x00"]])
def test_texts_without_a_character_teach_nothing(kind: TokenizerKind, texts: list[str]) -> None:
    with pytest.raises(DataError, match=f"no {kind} tokenizer can be learnt from texts without"):
        learnt(kind, texts=texts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [["a"], ["a a"], ["é" * 900], ["北京"]])
def test_few_texts_teach_little(kind: TokenizerKind, texts: list[str]) -> None:
    vocab = learnt(kind, 300, texts)
    assert vocab.decode(vocab.encode(texts)) == texts


def test_a_word_of_thousands_of_characters_is_unknown_to_wordpiece_alone() -> None:
    for kind in KINDS:
        vocab = learnt(kind, texts=["a" * 3000])
        assert (vocab.encode(["a" * 3000]) == [[vocab.UNKNOWN]]) == (kind == "wordpiece")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_stream_is_the_one_that_comes_out(kind: TokenizerKind) -> None:
    def broken() -> Iterator[str]:
        yield "the cat"
        raise DataError("train.de:2: not UTF-8.")

    with pytest.raises(DataError, match=r"train\.de:2"):
        train_tokenizer(broken(), kind, 300)

from __future__ import annotations

import pytest
import torch

from seqlab.explain.pieces import END, Side, by_words, label_of, source_side, target_side
from seqlab.subwords import SubwordVocabulary, TokenizerKind, train_tokenizer

TEXTS = ["Ada saw Paris.", "naïve 日本 (the dog), the cat", "Lovelace Love lace"]


def vocabulary(kind: TokenizerKind, size: int = 60) -> SubwordVocabulary:
    return SubwordVocabulary(train_tokenizer(iter(TEXTS), kind, size), language=None)


def read(vocab: SubwordVocabulary, text: str) -> Side:
    return source_side(vocab, text, vocab.encode([text])[0])


@pytest.mark.parametrize(
    ("kind", "size"), [("words", 60), ("wordpiece", 60), ("unigram", 60), ("bpe", 270)]
)
def test_words_are_what_stands_between_blanks(kind: TokenizerKind, size: int) -> None:
    vocab = vocabulary(kind, size)
    text = "  Ada saw\nnaïve 日本, \x07 the\tdog  "
    side = read(vocab, text)
    assert side.words == ["Ada", "saw", "naïve", "日本,", "the", "dog", END]
    assert side.places == sorted(side.places)
    assert set(side.places) == set(range(len(side.words)))
    assert len(side.pieces) == len(vocab.encode([text])[0]) + 1
    for place, word in enumerate(side.words[:-1]):
        some = [p for p, at in zip(side.pieces, side.places, strict=True) if at == place]
        if kind == "words":
            assert "".join(some).strip(" ") in (word, "<unk>", "<unk>,")
        assert some[0].startswith(" ") or some[0] == "<unk>" or kind == "unigram"


def test_an_unknown_word_is_shown_as_the_text_has_it() -> None:
    side = read(vocabulary("words"), "Ada met Bo.")
    assert side.words == ["Ada", "met", "Bo.", END]
    assert side.labels == ["Ada", "<unk>", "<unk>", "·.", END]


def test_a_translation_is_put_together_again() -> None:
    vocab = vocabulary("bpe", 270)
    text = "Ada, naïve 日本 (the dog) Lovelace"
    side = target_side(vocab, vocab.encode([text])[0])
    assert " ".join(side.words) == f"{text} {END}"
    assert len(side.pieces) > len(side.words)
    assert side.labels[0] == (side.pieces[0].strip() or "␣")


def test_unknown_pieces_of_a_translation_are_words() -> None:
    vocab = vocabulary("words")
    (saw, dot), unknown = vocab.encode(["saw."])[0], SubwordVocabulary.UNKNOWN
    side = target_side(vocab, [unknown, dot, saw, unknown])
    assert side.words == ["<unk>.", "saw", "<unk>", END]
    assert side.places == [0, 0, 1, 2, 3]


def test_a_translation_may_begin_without_a_blank_or_be_empty() -> None:
    vocab = vocabulary("words")
    saw, dot = vocab.encode(["saw."])[0]
    assert target_side(vocab, [dot, saw]).words == [".", "saw", END]
    assert target_side(vocab, [dot, dot]).words == ["..", END]
    assert target_side(vocab, []) == Side([END], [END], [0])


def test_labels_tell_what_goes_on() -> None:
    assert [label_of(piece) for piece in (" the", ",", "<unk>", END, " ")] == [
        "the",
        "·,",
        "<unk>",
        END,
        "␣",
    ]
    side = Side([" Love", "lace", END], ["Lovelace", END], [0, 0, 1])
    assert side.labels == ["Love", "·lace", END]


def test_weights_are_added_up_over_columns_and_averaged_over_rows() -> None:
    source = Side([" a", "b", " c", END], ["ab", "c", END], [0, 0, 1, 2])
    target = Side([" d", "e", END], ["de", END], [0, 0, 1])
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.4, 0.0], [0.0, 0.0, 0.0, 1.0]])
    found = by_words(weights, target, source)
    torch.testing.assert_close(found, torch.tensor([[0.45, 0.35, 0.2], [0.0, 0.0, 1.0]]))

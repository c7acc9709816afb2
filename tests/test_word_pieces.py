"""Words and their pieces, with tokenizers that split, merge and drop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlab.errors import SeqlabError
from seqlab.word_pieces import WordPieces
from tests.nn.test_bert import TOKENIZERS, wordpiece

WORDS = [
    "dog",
    "dogs",
    "dog.",
    "\U0001f469\u200d\U0001f680",
    "\x07",
    "\u200d",
    "a\u0301",
    "x" * 300,
]


def pieces(kind: str = "wordpiece", capacity: int = 24) -> WordPieces:
    return WordPieces(TOKENIZERS[kind]().to_str(), capacity)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_word_has_pieces(kind: str) -> None:
    own = pieces(kind)
    found = own.of(WORDS)
    assert all(1 <= len(ids) <= own.longest for ids in found)
    assert own.of(["dog"]) == [found[0]]


@pytest.mark.parametrize("kind", ["byte pairs", "unigram"])
def test_words_are_cut_as_after_a_space(kind: str) -> None:
    own = pieces(kind)
    (dog,) = own.of(["dog"])
    assert len(dog) == 1
    name = TOKENIZERS[kind]().id_to_token(dog[0])
    assert name in ("\u0120dog", "\u2581dog")


def test_of_a_long_word_both_ends_are_read() -> None:
    own = pieces()
    (ids,) = own.of(["a" + "b" * 200 + "z"])
    vocabulary = wordpiece().get_vocab()
    # Beyond 100 characters a WordPiece tokenizer says unknown: the word is one piece.
    assert ids == [vocabulary["[UNK]"]]
    (ids,) = own.of(["a" + "b" * 60 + "z"])
    assert len(ids) == own.longest == 22
    assert (ids[0], ids[-1]) == (vocabulary["a"], vocabulary["##z"])


@settings(deadline=None, max_examples=150)
@given(
    sentences=st.lists(
        st.lists(st.sampled_from(["dog", "dogs", "londoners", "\u200b", "abcdefgh"]), max_size=30),
        min_size=1,
        max_size=4,
    ),
    capacity=st.integers(12, 40),
)
def test_each_token_is_read_once_in_its_place(sentences: list[list[str]], capacity: int) -> None:
    own = pieces(capacity=capacity)
    forms = sorted({word for sentence in sentences for word in sentence})
    places = np.array([forms.index(w) for s in sentences for w in s], np.int64)
    found = own.arrange(forms, places, [len(s) for s in sentences])
    flat, cut = found.ids.flatten().tolist(), own.of(forms)
    assert len(found.first) == len(found.counts) == len(places)
    assert found.ids.shape[1] <= capacity
    for place, first, count in zip(
        places.tolist(), found.first.tolist(), found.counts.tolist(), strict=True
    ):
        assert flat[first : first + count] == cut[place]
    window = found.first // max(1, found.ids.shape[1])
    assert (window[1:] >= window[:-1]).all()
    for row, length in zip(found.ids.tolist(), found.lengths.tolist(), strict=True):
        assert (row[0], row[length - 1]) == (2, 3)
        assert not any(row[length:])


def test_tokens_of_long_sentences_have_context_on_both_sides() -> None:
    own = pieces(capacity=22)  # 20 pieces in a window, of which 5 are shared
    words = ["dog"] * 60
    found = own.arrange(["dog"], np.zeros(60, np.int64), [60])
    inside = (found.first % found.ids.shape[1]).tolist()
    room = found.ids.shape[1] - 2
    assert len(found.ids) == 4
    assert all(at > 2 for at in inside[3:])
    assert all(at < room - 1 for at in inside[:-3])
    assert len(words) == len(inside)


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(SeqlabError, match="is no JSON"):
        WordPieces("<html>", 24)
    with pytest.raises(SeqlabError, match="cannot be read"):
        WordPieces("{}", 24)
    with pytest.raises(SeqlabError, match="of no use"):
        pieces(capacity=3)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_texts_are_cut_whole_with_their_places(kind: str) -> None:
    text = "dogs " * 90 + "dog\u200b dogs"
    (cut,) = pieces(kind).of_texts([text])
    assert len(cut.ids) > 90
    assert (np.diff(cut.starts) >= 0).all()
    assert (np.diff(cut.ends) >= 0).all()
    spans = [(at, at + 4) for at in range(0, 450, 5)]
    first, counts = cut.within([*spans, (0, len(text)), (453, 454)])
    for (start, end), at, count in zip(spans, first, counts, strict=False):
        assert cut.starts[at] >= start - 1  # a blank may belong to the piece
        assert cut.ends[at + count - 1] == end
    assert (first[-2], counts[-2]) == (0, len(cut.ids))
    assert counts[-1] == 1 or kind == "byte pairs"  # of bytes, one character has several


def test_a_text_that_is_nothing_is_an_unknown_piece() -> None:
    for cut in pieces().of_texts(["", "\x07"]):
        assert cut.ids.tolist() == [wordpiece().get_vocab()["[UNK]"]]
        assert [x.tolist() for x in cut.within([(0, 0), (0, 1)])] == [[0, 0], [1, 1]]


def test_pieces_are_laid_out_as_words_of_their_own() -> None:
    own = pieces()
    (cut,) = own.of_texts(["the dogs ran to london " * 6])
    found = own.arrange_pieces(cut.ids, [len(cut.ids)])
    assert len(found.ids) > 1
    assert found.ids.flatten()[found.first].tolist() == cut.ids.tolist()
    assert set(found.counts.tolist()) == {1}

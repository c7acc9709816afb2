from __future__ import annotations

from typing import Any

import pytest

from seqlab.errors import DataError, SeqlabError
from seqlab.sentence import Sentence, check_sentence, sentence_of


def test_a_text_keeps_the_places_of_its_words() -> None:
    text = "  It\u00a0rains, too."
    sentence = Sentence.of(text)
    assert sentence.tokens == ["It", "rains", ",", "too", "."]
    assert sentence.placed() == (text, [(2, 4), (5, 10), (10, 11), (12, 15), (15, 16)])


@pytest.mark.parametrize("given", [{}, {"text": "It rains"}, {"offsets": [(0, 1), (1, 2)]}])
def test_words_without_a_text_and_places_are_joined_by_spaces(given: dict[str, Any]) -> None:
    sentence = Sentence(["It", "does", "n't"], **given)
    assert sentence.placed() == ("It does n't", [(0, 2), (3, 7), (8, 11)])
    assert Sentence([]).placed() == ("", [])


def test_a_text_is_cut_and_words_are_kept() -> None:
    assert sentence_of("don't", 1).tokens == ["do", "n't"]
    assert sentence_of(["don't"], 1).tokens == ["don't"]
    with pytest.raises(TypeError, match=r"input 7 is of type bytes: each must be a text or a list"):
        sentence_of(b"don't", 7)


def test_what_cannot_be_read_is_named_by_unit_and_number() -> None:
    wrong: Any = [["Ada", 3]]
    check_sentence(Sentence(["Ada"], {"pos": ["NN"], "odd": []}), ["pos"], "text", 1)
    with pytest.raises(TypeError, match=r"^input 2 is no Sentence but list"):
        check_sentence(wrong, [], "text", 2)
    with pytest.raises(TypeError, match=r"^text 3: word 2 is a int, not a string"):
        check_sentence(Sentence(wrong[0]), [], "text", 3)
    with pytest.raises(DataError, match=r"^text 4: word 1 is empty"):
        check_sentence(Sentence([""]), [], "text", 4)
    with pytest.raises(SeqlabError, match=r"column pos and lemma beside .* sentence 5 lacks"):
        check_sentence(Sentence(["Ada"]), ["pos", "lemma"], "sentence", 5)
    with pytest.raises(DataError, match=r"^text 6 has 1 tokens and 2 values of pos"):
        check_sentence(Sentence(["Ada"], {"pos": ["NN", "NN"]}), ["pos"], "text", 6)

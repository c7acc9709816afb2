from __future__ import annotations

import json
import pickle
import unicodedata
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab.errors import BundleError
from seqlab.subwords import (
    SubwordVocabulary,
    TokenizerKind,
    train_tokenizer,
    vocabulary_from_dict,
    vocabulary_from_json,
)
from seqlab.vocabulary import Vocabulary

KINDS: tuple[TokenizerKind, ...] = get_args(TokenizerKind)
TEXTS = [
    "The naïve cat isn't there, is it?",
    "the café (sad) <s> is naïve </s> & sad!",
    "北京 café 😀 is there",
]
# Made of the words above: no character of theirs is unknown, and no word of theirs.
KNOWN = st.lists(st.sampled_from(" ".join(TEXTS).split()), max_size=9).map(" ".join)
UNHURRIED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
MADE = {
    kind: SubwordVocabulary(train_tokenizer(iter(TEXTS * 3), kind, 400), language="en")
    for kind in KINDS
}
every_kind = pytest.mark.parametrize("vocab", MADE.values(), ids=MADE)


@every_kind
def test_the_special_ids_are_where_models_expect_them(vocab: SubwordVocabulary) -> None:
    assert (vocab.PADDING, vocab.UNKNOWN, vocab.BEGIN, vocab.END) == (0, 1, 2, 3)
    assert (vocab.scheme, vocab.features, vocab.language) == ("subwords", {}, "en")


@UNHURRIED
@given(st.sampled_from(KINDS), KNOWN)
def test_known_texts_come_back(kind: str, text: str) -> None:
    vocab = MADE[kind]
    (ids,) = vocab.encode([text])
    assert vocab.decode([ids]) == [text]
    assert "".join(vocab.pieces(ids)).strip() == text or kind == "bpe"
    assert min(ids, default=4) >= 4


@UNHURRIED
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_merged_bytes_know_every_text(text: str) -> None:
    vocab = MADE["bpe"]
    (ids,) = vocab.encode([text])
    assert vocab.UNKNOWN not in ids
    wanted = "".join(unicodedata.normalize("NFC", text).split())
    found = "".join(vocab.decode([ids])[0].split())
    assert [c for c in found if unicodedata.category(c) != "Cc"] == [
        c for c in wanted if unicodedata.category(c) != "Cc"
    ]


@every_kind
def test_white_space_and_control_characters_are_one_blank(vocab: SubwordVocabulary) -> None:
    plain, spaced = vocab.encode(["the café is", "\u2028 the\t\x00 cafe\u0301\r\n\xa0is \x85"])
    assert plain == spaced


@every_kind
def test_a_text_that_spells_a_special_token_is_text(vocab: SubwordVocabulary) -> None:
    for text in ("<s>", "</s>", "a <pad> b", "x<s>y"):
        (ids,) = vocab.encode([text])
        assert not {vocab.PADDING, vocab.BEGIN, vocab.END} & set(ids)
    assert vocab.decode(vocab.encode(["the <s> is </s>"])) == ["the <s> is </s>"]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "words"])
def test_what_was_never_seen_is_unknown(kind: str) -> None:
    vocab = MADE[kind]
    (ids,) = vocab.encode(["the Ω is"])
    assert vocab.UNKNOWN in ids
    assert vocab.decode([ids]) == ["the is"]
    assert "<unk>" in vocab.pieces(ids)


@every_kind
def test_decoding_skips_special_ids(vocab: SubwordVocabulary) -> None:
    (ids,) = vocab.encode(["the café"])
    assert vocab.decode([[2, *ids, 3, 0, 0], [], [3]]) == ["the café", "", ""]
    assert vocab.encode(["", " "]) == [[], []]


@UNHURRIED
@given(st.sampled_from(KINDS), st.lists(st.integers(0, 400), max_size=12))
def test_whatever_the_ids_are_the_text_is_one_line(kind: str, ids: list[int]) -> None:
    vocab = MADE[kind]
    (text,) = vocab.decode([[i % len(vocab) for i in ids]])
    assert text.splitlines() == [text][: len(text)]
    assert text == " ".join(text.split())


def test_pieces_are_readable_and_begin_words_with_a_blank() -> None:
    assert MADE["bpe"].pieces(MADE["bpe"].encode(["is there"])[0]) == [" is", " there"]
    (ids,) = MADE["bpe"].encode(["Ω"])
    assert "".join(MADE["bpe"].pieces(ids)) == " \\xce\\xa9"
    assert MADE["bpe"].decode([ids, ids[:-1]]) == ["Ω", "�"]


@every_kind
def test_offsets_say_where_the_pieces_stand(vocab: SubwordVocabulary) -> None:
    texts = ["  the café\tisn't\u2028there!", "北京", ""]
    for text, ids, spans in zip(texts, vocab.encode(texts), vocab.offsets(texts), strict=True):
        assert len(ids) == len(spans)
        for piece, (start, end) in zip(vocab.pieces(ids), spans, strict=True):
            part = text[start:end]
            assert part == piece.strip() or piece == "<unk>" or "\\x" in piece
        assert spans == sorted(spans)


def test_bytes_of_one_character_have_its_place() -> None:
    assert MADE["bpe"].offsets(["is Ω!"])[0][-3:] == [(3, 4), (3, 4), (4, 5)]


@every_kind
def test_what_is_written_is_read_again(vocab: SubwordVocabulary) -> None:
    for again in (
        SubwordVocabulary.from_dict(vocab.to_dict()),
        SubwordVocabulary.from_json(vocab.to_json()),
        vocabulary_from_dict(json.loads(json.dumps(vocab.to_dict()))),
        vocabulary_from_json(vocab.to_json()),
        pickle.loads(pickle.dumps(vocab)),
    ):
        assert isinstance(again, SubwordVocabulary)
        assert again == vocab
        assert (hash(again), again.language, len(again)) == (hash(vocab), "en", len(vocab))
        assert again.encode(TEXTS) == vocab.encode(TEXTS)
        assert again.encode(["<s>"]) == vocab.encode(["<s>"])
        assert again.to_json() == vocab.to_json()


def test_equal_are_those_with_the_same_ids_whatever_the_language() -> None:
    bpe = MADE["bpe"]
    assert SubwordVocabulary(bpe.tokenizer_json, language="fr") == bpe
    assert bpe != MADE["words"]
    assert bpe != "bpe"


def test_vocabularies_of_words_are_read_too() -> None:
    words = Vocabulary(["a"], padding=True, unknown=1)
    assert vocabulary_from_dict(words.to_dict()) == words
    assert vocabulary_from_json(words.to_json()) == words


def harmed(harm: Callable[[dict[str, Any]], Any]) -> str:
    data = MADE["bpe"].to_dict()
    harm(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no valid JSON"),
        ("[]", "it is no object"),
        (harmed(lambda d: d.pop("tokenizer")), "it lacks or misuses 'tokenizer'"),
        (harmed(lambda d: d.update(language=3)), "it lacks or misuses 'language'"),
        (harmed(lambda d: d.update(tokenizer={})), r"cannot be read \(.+\): the file is from"),
        (
            harmed(lambda d: d["tokenizer"]["model"].update(vocab={"a": 0}, merges=[])),
            "its first tokens are not <pad>, <unk>, <s>, </s>",
        ),
        (
            harmed(lambda d: d["tokenizer"]["model"]["vocab"].update({"北": 400})),
            "stands for no byte|its ids have gaps",
        ),
    ],
)
def test_what_is_damaged_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        SubwordVocabulary.from_json(text)


def test_merged_bytes_alone_spell_every_text() -> None:
    assert {kind for kind, vocab in MADE.items() if vocab.spells_all} == {"bpe"}


@UNHURRIED
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_spell_their_text_with_places(text: str) -> None:
    vocab = MADE["bpe"]
    (ids,) = vocab.encode([text])
    (whole,) = vocab.decode([ids])
    spelt, spans = vocab.spelt([vocab.BEGIN, *ids, vocab.END])
    assert spelt == whole
    assert spans[0] == (0, 0)
    assert all(a <= b and b <= len(spelt) for a, b in spans)
    assert spans == sorted(spans)
    covered = {at for span in spans for at in range(*span)}
    assert covered == set(range(len(spelt)))
    for piece, (start, end) in zip(vocab.pieces(ids), spans[1:-1], strict=True):
        if "\\x" not in piece:
            assert spelt[start:end] == piece or (start == 0 and spelt[:end] == piece.lstrip())

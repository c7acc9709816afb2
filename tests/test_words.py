from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlab import words as module
from seqlab.words import places_of, words_of

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LENGTH = 200_000
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
THUMB = "\U0001f44d\U0001f3fd"
GERMANY, FRANCE = "\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
HEART = "\u2764\ufe0f"
KEYCAP = "1\ufe0f\u20e3"

PIECES = [
    *(
        "don't",
        "John's",
        "'s",
        "l'",
        "U.S.",
        "a@b.de",
        "http://a.b/(c)",
        "www.",
        "#x",
        "@y",
        "3.14",
    ),
    *(
        "...",
        "--",
        "_",
        "n't",
        "'",
        "’",
        "-",
        ".",
        ",",
        "!",
        "\u00ad",
        "\u200b",
        "\u200d",
        "\ufeff",
    ),
    *(
        FAMILY,
        THUMB,
        GERMANY,
        GERMANY[0],
        ENGLAND,
        HEART,
        KEYCAP,
        "\u0301",
        "é",
        "e\u0301",
        "हिन्दी",
    ),
    *(" ", "\u00a0", "\u2028", "\x00", "\x85", "\ud800", "\ue000", "I. ", "Dr.", "x", "Y", "7"),
]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES), max_size=15).map("".join)


def texts_of(text: str) -> list[str]:
    return [word.text for word in words_of(text)]


def is_unseen(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs") or category[0] in "ZM"


@UNHURRIED
@given(text=TEXTS)
def test_every_word_lies_where_it_says_and_shows_something(text: str) -> None:
    position = 0
    for word in words_of(text):
        assert position <= word.start < word.end <= len(text)
        assert text[word.start : word.end] == word.text
        assert not all(is_unseen(character) for character in word.text)
        assert not any(character.isspace() for character in word.text)
        position = word.end


@UNHURRIED
@given(text=TEXTS)
def test_nothing_visible_is_lost(text: str) -> None:
    covered = {i for word in words_of(text) for i in range(word.start, word.end)}
    assert all(is_unseen(text[i]) for i in range(len(text)) if i not in covered)


@UNHURRIED
@given(left=TEXTS, right=TEXTS)
def test_text_after_a_line_break_changes_nothing_before_it(left: str, right: str) -> None:
    assert words_of(f"{left}\n{right}")[: len(words_of(left))] == words_of(left)


@UNHURRIED
@given(text=TEXTS)
def test_places_are_those_of_the_words(text: str) -> None:
    assert places_of(text) == [(word.start, word.end) for word in words_of(text)]


@settings(UNHURRIED, max_examples=300)
@given(text=TEXTS | st.text("aZ1 .,;!?:)(\"'-&@_\n/Drsetcvw", max_size=20))
def test_what_is_found_first_is_read_in_no_other_way(text: str) -> None:
    found = places_of(text)
    without = module._WORD.pattern.replace(f"(?P<simple>{module._SIMPLE})|", "")
    assert len(without) < len(module._WORD.pattern)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WORD", re.compile(without))
        assert places_of(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't can't DON'T don’t", "Do n't ca n't DO N'T do n’t"),
        ("John's I'll they're we've I'm she'd", "John 's I 'll they 're we 've I 'm she 'd"),
        ("wouldn't've mother-in-law's U.S.'s", "would n't 've mother-in-law 's U.S. 's"),
        ("John 's do n't I 'll", "John 's do n't I 'll"),
        ("dogs' 'quoted' rock'n'roll O'Brien", "dogs ' ' quoted ' rock'n'roll O'Brien"),
        ("l'homme qu'il L'eau dell'arte", "l' homme qu' il L' eau dell' arte"),
        ("D'Amato aujourd'hui", "D'Amato aujourd'hui"),
    ],
)
def test_clitics_and_elisions_are_split(text: str, words: str) -> None:
    assert texts_of(text) == words.split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Hello," he said.', '" Hello , " he said .'),
        ("«Ja», „nein“ (50%) and/or [x]", "« Ja » , „ nein “ ( 50 % ) and / or [ x ]"),
        ("wait...what?! so… -- a–b", "wait ... what ?! so … -- a – b"),
        ("well-known 12-year-old semi- -x", "well-known 12-year-old semi - - x"),
        ("end.Next one,two", "end . Next one , two"),
        ("_this_ snake_case __", "_ this _ snake_case __"),
        ("``x''", "`` x ''"),
    ],
)
def test_punctuation_stands_alone_and_hyphens_hold(text: str, words: str) -> None:
    assert texts_of(text) == words.split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$3.14, 1,000 and 10:30.", "$ 3.14 , 1,000 and 10:30 ."),
        ("v1.2.3 2020-01-01 1/2 3,", "v1.2.3 2020-01-01 1/2 3 ,"),
        ("the U.S., e.g. z.B. p.m.", "the U.S. , e.g. z.B. p.m."),
        ("U.S.-based J. Smith and I. Then", "U.S.-based J. Smith and I . Then"),
        ("Dr. No vs. Mr. AT&T", "Dr. No vs. Mr. AT&T"),
    ],
)
def test_numbers_and_abbreviations_stay_whole(text: str, words: str) -> None:
    assert texts_of(text) == words.split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(see https://a.org/b_(c)?d=1,2).", "( see https://a.org/b_(c)?d=1,2 ) ."),
        ("<http://a.b> www.x.de, example.com/a.", "< http://a.b > www.x.de , example.com/a ."),
        ("mail a.b+c@x-y.co.uk.", "mail a.b+c@x-y.co.uk ."),
        ("@user_1: #Straße!", "@user_1 : #Straße !"),
        ("http:// a@b", "http : / / a @b"),
    ],
)
def test_addresses_mentions_and_hashtags_stay_whole(text: str, words: str) -> None:
    assert texts_of(text) == words.split()


@pytest.mark.parametrize("emoji", [FAMILY, THUMB, GERMANY, ENGLAND, HEART, KEYCAP, "\u263a"])
def test_an_emoji_with_all_that_joins_it_is_one_word(emoji: str) -> None:
    assert texts_of(f"ok {emoji}{FRANCE}.") == ["ok", emoji, FRANCE, "."]


@pytest.mark.parametrize(
    "space", ["\u00a0", "\u202f", "\u2003", "\u2028", "\t", "\u200b", "\ufeff"]
)
def test_white_space_of_every_kind_separates(space: str) -> None:
    assert texts_of(f"{space}one{space}{space}two{space}") == ["one", "two"]


def test_invisible_characters_alone_are_no_words() -> None:
    assert words_of(" \x00\x1f\x7f\u200b\u200d\u2060\ufeff\u00ad\u0301\ud800\ufe0f\U000e0067") == []
    assert words_of("") == []


def test_marks_and_soft_hyphens_belong_to_their_word() -> None:
    assert texts_of("cafe\u0301s Schiff\u00adfahrt हिन्दी") == [
        *("cafe\u0301s", "Schiff\u00adfahrt", "हिन्दी")
    ]


@pytest.mark.parametrize(
    "hard",
    [
        *("a", "a.", "a-", "a'", "a@", "a@a.", "a.a@", "a1-.", "1,", "aa.aa.aa.", "x's", "l'"),
        *(
            "http://",
            "http://.",
            "http://a)",
            "www.",
            "a.com/",
            "a.a.com.",
            "@",
            "#",
            ".",
            "(",
            "_",
        ),
        *("I. ", "Dr.", "\u200d", "a\u200d", "e\u0301", "\u0301", "\x00", FAMILY[:2], GERMANY[0]),
    ],
)
def test_hard_patterns_of_one_long_line_end(hard: str) -> None:
    text = (hard * LENGTH)[:LENGTH]
    assert sum(word.end - word.start for word in words_of(text)) <= LENGTH

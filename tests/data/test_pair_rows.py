from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqlab.data.pair_rows import Languages, PairRow, clean, is_language, pair_row
from seqlab.data.rows import Dirt
from seqlab.errors import RecipeError


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_clean_text_is_one_line_and_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert len(once.splitlines()) == bool(once)
    assert clean(once) == once
    assert "\t" not in once
    assert "\0" not in once


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cafe\u0301", "café"),
        (" a\u2028b\r\n", "a b"),
        ("a\x00b\x85c\xa0!", "a b c !"),
        ("👩‍👩‍👧 n'est-ce pas ?", "👩‍👩‍👧 n'est-ce pas ?"),
        ("\u200e\u3000", "\u200e"),
    ],
)
def test_texts_are_cleaned_of_what_is_no_text(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_a_pair_needs_text_on_both_sides() -> None:
    dirt = Dirt()
    pairs = [("a", "b"), ("", "b"), ("a", " \u2028"), ("\x00", ""), (" c ", "d")]
    rows = [row for n, pair in enumerate(pairs, 1) for row in pair_row(*pair, n, "x.tsv", dirt)]
    assert rows == [PairRow("a", "b", 1), PairRow("c", "d", 5)]
    assert rows[1].columns() == {"source": ["c"], "target": ["d"], "lines": [5]}
    assert dirt.sentences() == [
        "x.tsv: 2 lines empty on one side were skipped (lines 2, 3).",
        "x.tsv: 1 line empty on both sides was skipped (line 4).",
    ]


@pytest.mark.parametrize(
    ("given_languages", "names", "ordered", "told"),
    [
        ((None, None), ["en", "fr"], True, ("en", "fr")),
        ((None, None), ["en", "fr"], False, (None, None)),
        (("fr", None), ["en", "fr"], False, ("fr", "en")),
        ((None, "fr"), ["fr", "en"], True, ("en", "fr")),
        (("fr", "en"), ["en", "fr"], True, ("fr", "en")),
        (("de", None), ["en", "fr"], True, ("de", None)),
        ((None, None), ["en", "fr", "de"], True, (None, None)),
        ((None, None), ["en", "note"], True, (None, None)),
        ((None, None), ["en", "en"], True, (None, None)),
        (("x1", None), ["score", "en", "x1"], False, ("x1", "en")),
        (("de", "en"), ["en", "fr"], True, ("de", "en")),
    ],
)
def test_languages_are_told_from_names(
    given_languages: tuple[str | None, str | None],
    names: list[str],
    ordered: bool,
    told: tuple[str | None, str | None],
) -> None:
    assert Languages(*given_languages).among(names, ordered=ordered) == told


def test_a_language_is_not_translated_into_itself() -> None:
    Languages("de", "en").check()
    Languages(None, None).check()
    with pytest.raises(RecipeError) as caught:
        Languages("de", "de").check()
    assert str(caught.value) == (
        "data.source_language and data.target_language are both de: name two."
    )


def test_languages_have_codes() -> None:
    assert [is_language(name) for name in ("de", "EN", "pt-BR", "zh_Hans", "id")] == [True] * 5
    assert [is_language(name) for name in ("", "d", "tsv", "py", "md", "gz", "e n")] == [False] * 7

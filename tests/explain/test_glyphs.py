from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqlab.explain.glyphs import fitted, shown, width

WOMAN = "\U0001f469\u200d\U0001f680"
FLAG = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("naïve 日本", "naïve 日本"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\ufeffa\u2028b\u00ad", r"\ufeffa\u2028b\xad"),
        ("\x7f\x80", r"\x7f\x80"),
        ("\ud83d", r"\ud83d"),
        (WOMAN, WOMAN),
        (FLAG, FLAG),
    ],
)
def test_what_cannot_be_seen_is_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_what_is_to_be_kept_is_kept() -> None:
    assert shown("a\nb\x07", keep="\n") == "a\nb\\x07"


@given(st.text())
def test_what_is_shown_can_be_written_and_commands_nothing(text: str) -> None:
    found = shown(text)
    found.encode()
    assert {unicodedata.category(c) for c in found} & {"Cc", "Cs", "Zl", "Zp"} == set()
    assert not set(found) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("ｆ", 2), ("\U0001f600", 2), (WOMAN, 4)],
)
def test_width_counts_columns(text: str, expected: int) -> None:
    assert width(text) == expected


@given(st.text("ab日e\u0301\U0001f600"), st.integers(1, 9), st.booleans())
def test_a_fitted_text_takes_its_columns(text: str, columns: int, right: bool) -> None:
    found = fitted(text, columns, right)
    assert width(found) == columns
    if width(text) <= columns:
        assert found.strip(" ") == text
        assert text == "" or (found.endswith(text) if right else found.startswith(text))
    else:
        assert "…" in found

from __future__ import annotations

import re

import pytest

from seqlab.printing import weighed_words


def test_words_stand_in_order_each_above_its_weight() -> None:
    shown = weighed_words(["I", "loved", "every", "minute"], [0.004, 0.7, 0.1, 0.196])
    assert shown == (
        "  I     loved  every  minute\n"
        "  0.00  0.70   0.10   0.20\n"
    )  # fmt: skip
    assert weighed_words([], []) == ""


def test_small_weights_have_as_many_decimals_as_tell_them_apart() -> None:
    for weights, written in (([0.0341, 0.001], "0.034 0.001"), ([1.0, 0.0], "1.00 0.00")):
        assert weighed_words(["a", "b"], weights).split()[2:] == written.split()
    assert weighed_words(["a"], [0.0]) == "  a\n  0.00\n"


def test_long_texts_go_on_in_further_lines_and_lose_nothing() -> None:
    words = [f"{'x' * (i % 13)}{i}" for i in range(200)] + ["y" * 300]
    weights = [i / 1000 for i in range(201)]
    lines = weighed_words(words, weights).splitlines()
    assert " ".join(lines[::2]).split() == words
    assert " ".join(lines[1::2]).split() == [f"{weight:.2f}" for weight in weights]
    assert max(map(len, lines[:-2])) <= 100
    assert min(map(len, lines[:-4:2])) > 70
    assert max(map(len, weighed_words(words[:9], weights[:9], columns=30).splitlines())) <= 30
    starts = [[match.start() for match in re.finditer(r"\S+", line)] for line in lines]
    assert all(above == below for above, below in zip(starts[::2], starts[1::2], strict=True))


def test_paint_gets_each_word_with_its_share_of_the_largest_weight() -> None:
    seen = []

    def paint(share: float, word: str) -> str:
        seen.append((word, share))
        return f"\x1b[48;5;16m{word}\x1b[0m"

    words, weights = ["a", "b\x1b", "c", "d"], [0.0, 0.2, 0.3, 0.4]
    painted = weighed_words(words, weights, paint=paint)
    assert seen == [("a", 0.0), ("b\\x1b", 0.5), ("c", 0.3 / 0.4), ("d", 1.0)]
    assert painted.count("\x1b[0m") == 4
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == weighed_words(words, weights)


def test_wide_and_unseen_characters_keep_the_columns() -> None:
    shown = weighed_words(["映画", "e\u0301te\u0301", "x"], [0.5, 0.3, 0.2])
    assert shown == "  映画  e\u0301te\u0301   x\n  0.50  0.30  0.20\n"


@pytest.mark.parametrize("code", ["\t", "\n", "\x1b", "\u202e", "\ud83d"])
def test_what_would_move_the_cursor_or_cannot_be_written_is_escaped(code: str) -> None:
    above, below = weighed_words([f"a{code}b", "c"], [0.6, 0.4]).splitlines()
    assert above.split() == [f"a{code}b".encode("unicode_escape").decode(), "c"]
    assert above.index("c") == below.index("0.40")

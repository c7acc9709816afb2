from __future__ import annotations

import pytest

from seqlab.compare.options import Options, parse
from seqlab.errors import UsageError


def test_options_are_read() -> None:
    assert parse(["a", "b"]) == Options(runs=("a", "b"))
    words = ["--recipes", "ner", "pos", "--seeds", "5", "--html", "x.html", "--json", "-"]
    words += ["--rounds", "200", "--no-speed", "--data.path", "d", "--trust"]
    assert parse(words) == Options(
        recipes=("ner", "pos"),
        seeds=5,
        html="x.html",
        json="-",
        rounds=200,
        speed=False,
        data="d",
        trust=True,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs runs"),
        (["a", "--recipes", "b"], "not both"),
        (["a", "b", "--seeds", "3"], "--seeds goes with --recipes"),
        (["--recipes", "a", "--seeds", "0"], "--seeds is 0"),
        (["a", "--rounds", "5"], "--rounds is 5"),
        (["a", "--htlm", "x"], "--htlm"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(words)

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from seqlab.explain.colours import in_24_bits, in_256_colours, plain
from seqlab.explain.explanation import Explanation, explain
from seqlab.explain.glyphs import width
from seqlab.explain.options import Options
from seqlab.explain.summary import figure, rows_of
from seqlab.explain.terminal import Look, look, picture_of
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger

TEXT = "Ada saw Paris."
ODD = "Ada \U0001f469\u200d\U0001f680 saw 日本 e\u0301t\u00adé\u202e \x1b[31mParis."


def told(model: Any, text: str = TEXT, **asked: Any) -> Explanation:
    return explain(model, text, Options("m", **asked))


def lines_of(found: Explanation, columns: int = 100) -> list[str]:
    return picture_of(found, Look(columns)).splitlines()


def test_a_picture_of_a_tagger(tagger: Tagger) -> None:
    found = told(tagger)
    lines = lines_of(found)
    assert lines[0] == str(found.prediction)
    assert "words 1 to 4 of 4" in lines
    start = lines.index("layer 1, forward: lstm, mean of 5 units")
    assert lines[start + 1].split() == ["Ada", "saw", "Paris", "."]
    labels = ["input", "forget", "|candidate|", "output", "|cell|", "|hidden|"]
    for row, line in zip(rows_of(found.layers[0], None), lines[start + 2 :], strict=False):
        label, *cells = line.split()
        assert label == row.label == labels.pop(0)
        assert [cell.lstrip("░▒▓█") for cell in cells] == [figure(v) for v in row.values]
    assert "layer 1, backward: lstm, mean of 5 units" in lines


def test_columns_stand_under_their_words(tagger: Tagger) -> None:
    lines = lines_of(told(tagger, ODD))
    start = lines.index("layer 1, forward: lstm, mean of 5 units")
    block = lines[start + 1 : start + 8]
    assert {width(line) for line in block} == {width(block[0])}
    assert r"t\xadé" in "".join(block)


def test_nothing_commands_the_terminal(tagger: Tagger) -> None:
    text = picture_of(told(tagger, ODD), Look())
    assert "\x1b" not in text
    assert r"\x1b" in text
    assert "\u202e" not in text


def test_decisions_are_a_table(tagger: Tagger) -> None:
    found = told(tagger)
    lines = lines_of(found)
    start = lines.index("why these tags")
    heading = "tag prob emission in out rival margin = emission + transition else prob"
    assert lines[start + 1].split() == heading.split()
    assert found.decisions is not None
    for word, decision, line in zip(found.words, found.decisions, lines[start + 2 :], strict=False):
        cells = line.split()
        assert cells[:3] == [word, decision.tag, f"{decision.probability:.2f}"]
        assert cells[3] == f"{decision.emission:.2f}"
        assert (decision.rival or "none") == cells[6]
        if decision.margin is not None:
            assert cells[7] == f"{decision.margin:.2f}"
    assert lines[-1].startswith("none: no other tag is legal between its neighbours.")


@pytest.mark.parametrize("columns", [40, 57, 80, 130])
def test_what_is_too_wide_goes_on_below(tagger: Tagger, columns: int) -> None:
    text = " ".join(["Ada saw Paris and 日本"] * 9)
    lines = lines_of(told(tagger, text), columns)
    title = lines.index("layer 1, forward: lstm, mean of 5 units")
    blocks = "\n".join(lines[title + 1 : lines.index("layer 1, backward: lstm, mean of 5 units")])
    assert max(map(width, blocks.splitlines())) <= columns
    heads = [block.splitlines()[0] for block in blocks.strip("\n").split("\n\n")]
    assert " ".join(" ".join(heads).split()) == text
    assert all(re.search(r"^\|hidden\|", block, re.M) for block in blocks.strip().split("\n\n"))
    table = lines[lines.index("why these tags") : -4]
    assert max(map(width, table)) <= columns


def test_long_words_are_cut_with_an_ellipsis(tagger: Tagger) -> None:
    lines = lines_of(told(tagger, "Ada Donaudampfschifffahrtsgesellschaft"))
    assert "Donaudampfsch…" in "".join(lines[4:])


def test_one_unit_has_a_sign(tagger: Tagger) -> None:
    states = told(tagger).layers[0].series["cell"]
    lowest = int(states.min(0).values.argmin()) + 1
    found = told(tagger, unit=lowest, direction="forward")
    lines = lines_of(found)
    start = lines.index(f"layer 1, forward: lstm, unit {lowest}")
    cells = lines[start + 6].split()
    values = found.layers[0].series["cell"][:, 0].tolist()
    assert min(values) < 0
    assert cells[0] == "cell"
    assert [cell.lstrip("░▒▓█") for cell in cells[1:]] == [figure(value) for value in values]
    assert not any("backward" in line for line in lines)
    assert "gates lie between 0 and 1; candidate, cell and hidden have a sign." in lines


def test_attention_has_a_row_a_head(make_classifier: Callable[..., Classifier]) -> None:
    found = told(make_classifier(heads=2))
    lines = lines_of(found)
    start = lines.index("attention: what share each word has")
    assert found.attention is not None
    for number, line in enumerate(lines[start + 2 : start + 4]):
        assert line.startswith(f"attention {number + 1}")
        weights = [cell.lstrip("░▒▓█") for cell in line.split()[2:]]
        assert weights == [figure(weight) for weight in found.attention[number]]
    assert "why these tags" not in lines
    alone = lines_of(told(make_classifier()))
    assert any(line.startswith("attention  ") for line in alone)


def test_colours_leave_the_figures_alone(tagger: Tagger) -> None:
    found = told(tagger)
    bare = picture_of(found, Look(100, lambda value, text: text))
    for paint in (in_24_bits, in_256_colours):
        coloured = picture_of(found, Look(100, paint))
        assert coloured != bare
        assert re.sub(r"\x1b\[[\d;]+m", "", coloured) == bare


class Terminal:
    def __init__(self, real: bool) -> None:
        self.real = real

    def isatty(self) -> bool:
        return self.real


@pytest.mark.parametrize(
    ("real", "environment", "paint"),
    [
        (True, {}, in_256_colours),
        (True, {"COLORTERM": "truecolor"}, in_24_bits),
        (True, {"COLORTERM": "24bit"}, in_24_bits),
        (True, {"COLORTERM": "truecolor", "NO_COLOR": "1"}, plain),
        (True, {"NO_COLOR": ""}, in_256_colours),
        (True, {"TERM": "dumb"}, plain),
        (False, {"COLORTERM": "truecolor"}, plain),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    real: bool, environment: dict[str, str], paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal(real))
    assert look().paint is paint


@pytest.mark.parametrize(("said", "columns"), [("63", 63), ("7", 40), ("200", 200)])
def test_the_picture_fits_the_terminal(
    said: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", said)
    assert look().columns == columns

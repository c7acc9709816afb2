from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from seqlab.explain.colours import in_24_bits, in_256_colours
from seqlab.explain.glyphs import width
from seqlab.explain.options import Options
from seqlab.explain.summary import figure
from seqlab.explain.terminal import Look
from seqlab.explain.translation import TranslationExplanation, explain_translation
from seqlab.explain.translation_terminal import COVERAGE, translation_picture_of
from seqlab.models.translator import Translator

Make = Callable[..., Translator]
TEXT = "Ada saw Paris, the\tBo."
LONG = "Ada saw 日本, the Donaudampfschifffahrtsgesellschaft and the dog . \x1b[31m\u202e !"
TITLE = "attention (general): what each word said looks at, in shares of 1"
SHADES = "░▒▓█"


def told(model: Translator, text: str = TEXT, **asked: Any) -> TranslationExplanation:
    return explain_translation(model, text, Options("m", **asked))


def lines_of(found: TranslationExplanation, columns: int = 100) -> list[str]:
    return translation_picture_of(found, Look(columns)).splitlines()


def part(lines: list[str], title: str) -> list[str]:
    """The lines under a title, up to the next empty one."""
    start = lines.index(title) + 1
    return lines[start : lines.index("", start)]


def test_text_and_translation_come_first(translator: Translator) -> None:
    found = told(translator, f" {TEXT}\n")
    assert lines_of(found)[:3] == [TEXT, found.prediction.translation, ""]


def test_weights_stand_where_row_and_column_meet(translator: Translator) -> None:
    found = told(translator)
    head, *rows = part(lines_of(found), TITLE)
    assert head.split() == found.columns
    assert len(rows) == len(found.rows)
    ends = [match.end() for match in re.finditer(r"\S+", head)]
    for line, label, weights in zip(rows, found.rows, found.weights, strict=True):
        assert line.startswith(label)
        for end, weight in zip(ends, weights, strict=True):
            cell = line[end - 5 : end].strip().lstrip(SHADES)
            assert cell == ("" if figure(weight) == ".00" else figure(weight))


def test_the_strongest_weight_has_the_full_shade(translator: Translator) -> None:
    found = told(translator)
    text = "\n".join(part(lines_of(found), TITLE))
    most = max(map(max, found.weights))
    assert f"█{figure(most)}" in text


def test_pieces_are_shown_on_demand(translator: Translator) -> None:
    found = told(translator, pieces=True)
    title = TITLE.replace("word", "piece")
    head, *rows = part(lines_of(found), title)
    assert head.split() == ["Ada", "saw", "Paris", "·,", "the", "<unk>", "·.", "(end)"]
    assert len(rows) == len(found.steps)


def test_each_piece_has_its_chances(translator: Translator) -> None:
    found = told(translator)
    head, *rows = part(lines_of(found, 140), "how sure each piece is")
    assert head.split() == ["prob", "entropy", *["else", "prob"] * 4]
    for line, label, step in zip(rows, found.target.labels, found.steps, strict=True):
        expected = [label, f"{step.probability:.2f}", f"{step.entropy:.1f}"]
        for name, value in step.others:
            expected += [name, f"{value:.2f}"]
        assert line.split() == expected


def test_copying_and_coverage_are_shown_where_there_are_any(
    make_translator: Make, translator: Translator
) -> None:
    found = told(make_translator(copy=True, coverage=1.0))
    lines = lines_of(found, 140)
    last = part(lines, TITLE)[-1]
    assert last.startswith(COVERAGE)
    assert found.coverage is not None
    values = [figure(value) for value in found.coverage if figure(value) != ".00"]
    assert last.removeprefix(COVERAGE).split() == values
    head, first, *_ = part(lines, "how sure each piece is")
    assert head.split()[2] == "copy"
    assert first.split()[3] == f"{found.steps[0].copied:.2f}"
    plain = "\n".join(lines_of(told(translator)))
    assert "copy" not in plain
    assert COVERAGE not in plain


def test_the_encoder_is_shown_by_pieces(translator: Translator) -> None:
    lines = lines_of(told(translator), 140)
    head, *rows = part(lines, "encoder, layer 1, backward: lstm, mean of 5 units")
    assert head.split() == told(translator).source.labels
    assert rows[1].startswith("forget ")
    unit = lines_of(told(translator, unit=2, direction="forward"))
    assert "encoder, layer 1, forward: lstm, unit 2" in unit
    assert unit[-1] == "gates lie between 0 and 1; candidate, cell and hidden have a sign."


@pytest.mark.parametrize("columns", [40, 57, 80, 130])
@pytest.mark.parametrize("pieces", [False, True])
def test_every_line_fits(translator: Translator, columns: int, pieces: bool) -> None:
    lines = lines_of(told(translator, LONG, pieces=pieces), columns)
    start = next(i for i, line in enumerate(lines) if line.startswith("attention ("))
    tables = lines[start + 1 : next(i for i, x in enumerate(lines) if x.startswith("prob: of"))]
    assert max(map(width, tables)) <= columns
    assert "\x1b" not in "\n".join(lines)
    assert "\u202e" not in "\n".join(lines)


def test_words_are_cut_before_the_table_is(translator: Translator) -> None:
    text = "Paris " + "Donaudampfschifffahrt " * 4
    wide, narrow, narrower = (
        part(lines_of(told(translator, text), columns), TITLE)[0] for columns in (100, 75, 58)
    )
    assert "Donaudampfsch…" in wide
    assert "Donaudamp…" in narrow
    assert "Donaud…" in narrower
    assert narrower.count("…") == 4
    least = lines_of(told(translator, text), 40)
    assert "Donaudampfsch…" in "".join(least)  # it goes on below, so there is room


def test_wide_characters_keep_columns_in_line(translator: Translator) -> None:
    found = told(translator, "日本 saw Ada 日")
    head, *rows = part(lines_of(found), TITLE)
    full = [line for line, row in zip(rows, found.weights, strict=True) if figure(row[-1]) != ".00"]
    assert {width(line) for line in full} <= {width(head)}


def test_colours_leave_the_figures_alone(translator: Translator) -> None:
    found = told(translator)
    bare = translation_picture_of(found, Look(100, lambda value, text: text))
    for paint in (in_24_bits, in_256_colours):
        coloured = translation_picture_of(found, Look(100, paint))
        assert coloured != bare
        stripped = re.sub(r"\x1b\[[\d;]+m", "", coloured)
        assert [x.rstrip() for x in stripped.splitlines()] == bare.splitlines()

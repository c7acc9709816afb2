from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from seqlab.explain.options import Options
from seqlab.explain.summary import figure
from seqlab.explain.translation import TranslationExplanation, explain_translation
from seqlab.explain.translation_page import alignment_map, step_table, translation_page_of
from seqlab.models.translator import Translator

Make = Callable[..., Translator]
TEXT = "Ada saw Paris, the\tBo."
EVIL = "</script><script>alert('Ada')</script> saw {{css}} \x1b[0m\u202e\ud800 Paris <!-- &amp;"


def told(model: Translator, text: str = TEXT, **asked: Any) -> TranslationExplanation:
    return explain_translation(model, text, Options("m", **asked))


class Table(HTMLParser):
    """The rows of a table: of each cell its text and its weight."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.weights: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
            self.weights.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            if weight := dict(attrs).get("data-w"):
                self.weights[-1].append(weight)

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_page_needs_nothing_from_elsewhere(translator: Translator) -> None:
    page = translation_page_of(told(translator), "m")
    page = re.sub(r'"data": "[^"]+"', "", page)  # base64 may spell anything
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|<iframe|\bsrc=|fetch\(", page)
    assert "{{" not in page


def test_nothing_of_the_text_becomes_markup(translator: Translator) -> None:
    page = translation_page_of(told(translator, EVIL), "<b>model")
    page.encode()
    assert page.count("<script") == page.count("</script>") == 2
    assert "<!--" not in page
    assert "{{css}}" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_text_and_translation_are_told_with_their_languages(translator: Translator) -> None:
    found = told(translator, "Ada saw Paris.")
    page = translation_page_of(found, "m")
    assert '<span lang="en">Ada saw Paris.</span>' in page
    assert f'lang="fr">{found.prediction.translation.replace("<", "&lt;")}</p>' in page
    assert f"4 pieces read, {len(found.steps) - 1} said; log-probability −" in page
    assert "What the encoder does" in page


def test_every_weight_is_in_the_page(translator: Translator) -> None:
    found = told(translator)
    table = Table(alignment_map(found))
    head, *rows = table.rows
    assert head == ["", *found.columns]
    for cells, weights, label, expected in zip(
        rows, table.weights[1:], found.rows, found.weights, strict=True
    ):
        assert cells[0] == label
        texts = [figure(value) for value in expected]
        assert cells[1:] == ["" if text == ".00" else text for text in texts]
        assert weights == [f"{value:.4f}" for value in expected]


def test_copying_and_coverage_have_their_places(
    make_translator: Make, translator: Translator
) -> None:
    found = told(make_translator(copy=True, coverage=1.0))
    *_, last = Table(alignment_map(found)).rows
    assert last == ["coverage", *map(figure, found.coverage or [])]
    head, first, *_ = Table(step_table(found)).rows
    assert head[:5] == ["piece", "prob.", "", "entropy", "copy"]
    assert first[4] == f"{found.steps[0].copied:.3f}"
    page = translation_page_of(found, "m")
    assert "<dt>copy</dt>" in page
    assert "<dt>coverage</dt>" in page
    page = translation_page_of(told(translator), "m")
    assert "<dt>copy</dt>" not in page
    assert "coverage" not in page


def test_every_step_has_its_row(translator: Translator) -> None:
    found = told(translator)
    head, *rows = Table(step_table(found)).rows
    assert head == ["piece", "prob.", "", "entropy", *["else"] * 4]
    assert len({len(row) for row in rows} | {len(head)}) == 1
    for row, label, step in zip(rows, found.target.labels, found.steps, strict=True):
        others = [f"{name} {value:.3f}" for name, value in step.others]
        assert row == [label, f"{step.probability:.3f}", "", f"{step.entropy:.2f}", *others]


def test_pieces_are_named_so(translator: Translator) -> None:
    page = translation_page_of(told(translator, pieces=True), "m")
    assert "A row for each piece of the translation" in page
    assert "<bdi>·,</bdi>" in page
    assert "change from piece to piece" in page


PROBE = """
const shown = [];
const table = document.querySelector(".alignment");
const tip = document.getElementById("tip");
const cell = table.querySelectorAll("tbody tr")[0].cells[2];
const box = cell.getBoundingClientRect();
cell.dispatchEvent(new PointerEvent("pointermove", {
  clientX: box.left + 2, clientY: box.top + 2, pointerType: "mouse", bubbles: true }));
shown.push(tip.textContent, tip.hidden);
shown.push([...table.querySelectorAll("th.at")].map((head) => head.textContent));
table.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
shown.push(tip.textContent);
table.dispatchEvent(new PointerEvent("pointerleave", { pointerType: "mouse" }));
shown.push(tip.hidden);
const map = document.querySelector("canvas");
const at = map.getBoundingClientRect();
map.dispatchEvent(new PointerEvent("pointermove", {
  clientX: at.left + 2, clientY: at.top + 2, pointerType: "mouse" }));
shown.push(tip.textContent);
document.title = "found" + JSON.stringify(shown);
"""


@pytest.mark.slow
def test_the_script_tells_weights(translator: Translator, browse: Callable[[str], Any]) -> None:
    found = told(translator)
    page = translation_page_of(found, "m").replace("</body>", f"<script>{PROBE}</script></body>")
    tip, hidden, lit, beside, gone, unit = browse(page)
    row, weights = found.rows[0], found.weights[0]
    assert tip == f"{row} ← saw: {weights[1]:.4f}"
    assert hidden is False
    assert sorted(lit) == sorted([row, "saw"])
    assert beside == f"{row} ← Paris,: {weights[2]:.4f}"
    assert gone is True
    assert unit.startswith("Ada (piece 1), unit 1: hidden")

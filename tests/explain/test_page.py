from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from seqlab.explain.explanation import Explanation, explain
from seqlab.explain.options import Options
from seqlab.explain.page import page_of, series_names
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.nn.cells import CELLS

EVIL = "</script><script>alert('Ada')</script> saw {{css}} \x1b[0m\u202e\ud800 Paris <!-- &amp;"


def told(model: Any, text: str = "Ada saw Paris.", **asked: Any) -> Explanation:
    return explain(model, text, Options("m", **asked))


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert match
    data: dict[str, Any] = json.loads(match[1])
    return data


def test_a_page_needs_nothing_from_elsewhere(tagger: Tagger) -> None:
    page = page_of(told(tagger), "m")
    page = re.sub(r'"data": "[^"]+"', "", page)  # base64 may spell anything
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|<iframe|\bsrc=|fetch\(", page)
    assert "default-src 'none'" in page
    assert "{{" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_nothing_of_the_text_becomes_markup(tagger: Tagger) -> None:
    page = page_of(told(tagger, EVIL), "<b>model")
    page.encode()
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<!--" not in page
    assert "{{css}}" in page  # of the text: what stands there is never filled in again
    assert "<b>model" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert data_of(page)["words"][:2] == ["<", "/"]
    assert '"words": ["\\u003c", "/"' in page  # nor can the data end their element


def test_the_values_of_all_units_are_in_the_page(tagger: Tagger) -> None:
    found = told(tagger, "Ada saw Paris and Bo.", first=2)
    data = data_of(page_of(found, "m"))
    assert data["first"] == 2
    assert data["words"] == found.words
    assert len(data["layers"]) == 2
    for layer, trace in zip(data["layers"], found.layers, strict=True):
        assert [series["name"] for series in layer["series"]] == list(trace.series)
        for series in layer["series"]:
            values = trace.series[series["name"]]
            raw = torch.frombuffer(bytearray(base64.b64decode(series["data"])), dtype=torch.uint8)
            levels = raw.view(series["units"], len(found.words)).t().double() / 255
            near = (series["high"] - series["low"]) / 255 / 2 + 1e-6
            value = series["low"] + levels * (series["high"] - series["low"])
            torch.testing.assert_close(value, values.double(), rtol=0, atol=near)
            gate = series["name"] in ("input", "forget", "output")
            assert (series["low"] == 0) is gate
            assert series["high"] == max(1.0, values.abs().max().item() if not gate else 0)


def test_the_page_says_which_words_it_shows(tagger: Tagger) -> None:
    assert "4 words." in page_of(told(tagger), "m")
    assert "1 word." in page_of(told(tagger, "Ada"), "m")
    page = page_of(told(tagger, " ".join(["Ada"] * 1500), first=3, last=7), "m")
    assert "Words 3 to 7 of 1,500; choose others with --from and --to, up to " in page


def test_one_unit_alone_is_named(tagger: Tagger) -> None:
    page = page_of(told(tagger, unit=3), "m")
    assert "Unit 3 alone at every word." in page
    layer, _ = data_of(page)["layers"]
    assert layer["unit"] == 3
    assert {series["units"] for series in layer["series"]} == {1}


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_its_choices_and_meanings(
    cell: str, make_tagger: Callable[..., Tagger]
) -> None:
    found = told(make_tagger(cell=cell, num_layers=2))
    page = page_of(found, "m")
    for name in series_names(found.layers):
        assert f'data-series="{name}" aria-pressed="false">{name}</button>' in page
        assert f"<dt>{name}</dt>" in page
    assert page.count("<canvas") == 4


def test_a_page_of_a_classifier_shows_attention_and_labels(
    make_classifier: Callable[..., Classifier],
) -> None:
    page = page_of(told(make_classifier()), "m")
    assert "What the classifier looks at" in page
    assert "Why these tags" not in page
    assert page.count("<li") == 2


PROBE = """
const shown = [];
const first = document.querySelector("canvas");
const box = first.getBoundingClientRect();
const at = (row, word) => {
  first.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + box.width * (word + .5) / first.width,
    clientY: box.top + box.height * (row + .5) / first.height, pointerType: "mouse" }));
  return document.getElementById("tip").textContent;
};
shown.push(at(1, 2));
document.querySelector('[data-series="forget"]').click();
document.querySelector('[data-word="1"]').click();
shown.push(first.units.map((unit) => unit + 1), first.width, first.height, at(0, 1));
document.title = "found" + JSON.stringify(shown);
"""


@pytest.mark.slow
def test_the_script_draws_orders_and_tells(tagger: Tagger, browse: Callable[[str], Any]) -> None:
    found = told(tagger, "Ada saw Paris <.")
    page = page_of(found, "m").replace("</body>", f"<script>{PROBE}</script></body>")
    hidden, order, wide, high, top = browse(page)
    series = found.layers[0].series
    value = f"{series['hidden'][2, 1].item():.1f}".replace("-", "\u2212")
    assert hidden.startswith(f"Paris (word 3), unit 2: hidden {value[:-1]}")
    forget = series["forget"][1]
    assert order == (forget.argsort(descending=True) + 1).tolist()
    assert (wide, high) == (5, 5)
    assert top.startswith(f"saw (word 2), unit {order[0]}: forget {forget.max().item():.1f}"[:-1])

"""The page of a comparison: its sections, and how it looks on a narrow screen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import Any

import pytest

from seqlab.compare.page import page_of
from tests.compare.test_comparison import three


def test_labels_have_bars_of_all_systems() -> None:
    found = three()
    page = page_of(found)
    widths = re.findall(r"<b style='width:([\d.]+)%", page)
    scores = [f"{x:.1f}" for label in found.by_type.values() for x in label.values()]
    assert widths == scores
    assert len(scores) == 6


def test_few_labels_have_a_matrix_for_each_of_the_two_best() -> None:
    found = three()
    assert list(found.confusions) == [row.name for row in found.rows[:2]]
    page = page_of(found)
    assert page.count("<table class='matrix'>") == 2
    for table in found.confusions.values():
        assert sum(sum(row.values()) for row in table.values()) == 300
        for row in table.values():
            assert all(f">{count:,}</td>" in page for count in row.values())
    assert "(none)" not in page


def test_many_labels_have_their_most_confused_pairs() -> None:
    many = {f"<{n}>": {f"<{n}>": 900, f"<{n + 1}>": n + 1} for n in range(12)}
    page = page_of(replace(three(), confusions={"large": many}))
    assert "class='matrix'" not in page
    pair = "<td class='name'>&lt;11&gt;</td><td class='name'>&lt;12&gt;</td><td>12</td>"
    assert pair in page
    few = {f"<{n}>": {"(none)": 1} for n in range(11)}
    page = page_of(replace(three(), confusions={"large": few}))
    assert "class='matrix'" in page
    assert "missed, or invented" in page


def test_energy_and_calibration_are_on_the_page() -> None:
    found = three()
    assert "ECE" not in page_of(found)
    found.rows[0].ece = 0.0125
    found.rows[0].price.joules_per_1000_tokens[32] = 0.25
    page = page_of(found)
    assert ">0.0125</td>" in page
    assert "<th>J/1000 tokens at 32</th>" in page
    assert ">0.25</td>" in page


def test_tags_stand_below_their_words() -> None:
    one = {"sentence": 3, "text": "Ada slept", "gold": ["S-PER", "O"], "better": "large"}
    answers = {"large": ["S-PER", "O"], "small": ["O", "O"], "slow": ["O", "O"]}
    page = page_of(replace(three(), task="tags", differing=[{**one, **answers}]))
    assert "<th>Ada</th><th>slept</th>" in page
    assert "<td class='wrong'>O</td><td class='outside'>O</td>" in page


@pytest.mark.slow
def test_a_narrow_screen_scrolls_tables_and_not_the_page(browse: Callable[[str], Any]) -> None:
    found = three()
    found.pairs[0].second = "a name that is long because of settings=1, other_settings=2"
    page = escape(page_of(replace(found, differing=[])))
    probe = (
        "const page = document.querySelector('iframe').contentDocument;"
        "const boxes = [...page.querySelectorAll('.wide')];"
        "document.title = 'found' + JSON.stringify([page.documentElement.scrollWidth,"
        "page.documentElement.clientWidth,"
        "boxes.filter((x) => x.scrollWidth > x.clientWidth).length]);"
    )
    frame = f"<iframe style='width:390px;border:0' srcdoc='{page}' onload='probe()'></iframe>"
    script = f"<script>function probe() {{ {probe} }}</script>"
    whole, visible, scrolling = browse(script + frame)
    assert whole == visible <= 390
    assert scrolling >= 2

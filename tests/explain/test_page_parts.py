from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from seqlab.explain.explanation import Explanation, explain
from seqlab.explain.options import Options
from seqlab.explain.page_parts import (
    attention_map,
    decision_table,
    gate_map,
    label_bars,
    marked_text,
    safe,
)
from seqlab.explain.summary import figure, rows_of
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.pipeline import Tagged
from seqlab.vocabulary import Vocabulary

MakeClassifier = Callable[..., Classifier]
EVIL = "<script>alert('Ada')</script> & saw \"Paris\" \x1b[0m\u202e!"


def told(model: Any, text: str = "Ada saw Paris.", **asked: Any) -> Explanation:
    return explain(model, text, Options("m", **asked))


class Reader(HTMLParser):
    """Text and tags of a page; every element must be closed in its turn."""

    VOID = ("col", "meta", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def count(reader: Reader, tag: str) -> int:
    return sum(name == tag for name, _ in reader.tags)


def test_all_text_is_safe() -> None:
    assert safe(EVIL) == (
        "&lt;script&gt;alert(&#x27;Ada&#x27;)&lt;/script&gt; &amp; saw &quot;Paris&quot; "
        "\\x1b[0m\\u202e!"
    )
    assert safe("<\x07>", markup=False) == "<\\x07>"


def test_the_text_is_marked_where_something_was_found(tagger: Tagger) -> None:
    found = told(tagger, "Ada saw Paris & Bo saw Ada Paris.")
    assert isinstance(found.prediction, Tagged)
    assert found.prediction.spans
    reader = Reader(marked_text(found))
    assert count(reader, "mark") == len(found.prediction.spans)
    expected, position = "", 0
    for span in found.prediction.spans:
        assert span.confidence is not None
        expected += found.prediction.text[position : span.end]
        expected += f"{span.label} {figure(span.confidence)}"
        position = span.end
    assert reader.text == expected + found.prediction.text[position:]
    hues = {attributes["style"] for tag, attributes in reader.tags if tag == "mark"}
    assert len(hues) == len({span.label for span in found.prediction.spans})


def test_the_text_of_a_classifier_is_tinted_by_attention(make_classifier: MakeClassifier) -> None:
    found = told(make_classifier(heads=2))
    reader = Reader(marked_text(found))
    assert reader.text == found.prediction.text
    shares = [float((a["style"] or "").partition(":")[2]) for t, a in reader.tags if t == "span"]
    assert len(shares) == 4
    assert max(shares) == 1.0
    plain = marked_text(told(make_classifier(pooling="mean")))
    assert plain == "Ada saw Paris."


def test_labels_have_bars_and_the_chosen_one_stands_out(make_classifier: MakeClassifier) -> None:
    found = told(make_classifier(target=Vocabulary(["<b>", "good"], scheme="label")))
    bars = label_bars(found)
    assert Reader(bars).text.count("0.") >= 2
    assert bars.count('class="chosen"') == 1
    assert "&lt;b&gt;" in bars
    assert "<b><b>" not in bars


def test_a_tagger_has_no_bars_and_a_classifier_no_decisions(
    tagger: Tagger, make_classifier: MakeClassifier
) -> None:
    assert label_bars(told(tagger)) == attention_map(told(tagger)) == ""
    assert decision_table(told(make_classifier())) == ""
    assert attention_map(told(make_classifier(pooling="max"))) == ""


def test_a_map_has_a_column_a_word_and_a_row_a_series(tagger: Tagger) -> None:
    found = told(tagger)
    part = gate_map(found, 1)
    reader = Reader(part)
    assert count(reader, "canvas") == 1
    cells = re.findall(r'<td class="v[^"]*" style="--v:([\d.]+)">([^<]+)</td>', part)
    rows = rows_of(found.layers[1], None)
    assert [text for _, text in cells] == [figure(v) for row in rows for v in row.values]
    assert [float(share) for share, _ in cells] == pytest.approx(
        [min(1, abs(v) / row.scale) for row in rows for v in row.values], abs=6e-4
    )
    assert "layer 1, backward" in reader.text
    assert [a["data-word"] for _, a in reader.tags if "data-word" in a] == ["0", "1", "2", "3"]


def test_negative_values_have_the_other_colour(tagger: Tagger) -> None:
    hidden = told(tagger).layers[0].series["hidden"]
    lowest = int(hidden.min(0).values.argmin())
    values = hidden[:, lowest].tolist()
    assert min(values) < 0
    found = told(tagger, unit=lowest + 1)
    row = gate_map(found, 0).split('data-series="hidden"')[1].split("</tr>")[0]
    kinds = ["minus" in kind for kind in re.findall(r'<td class="(v[^"]*)"', row)]
    assert kinds == [value < 0 for value in values]


@pytest.mark.parametrize(("words", "kinds"), [(3, "map few"), (10, "map"), (20, "map tall")])
def test_maps_of_many_words_are_drawn_otherwise(tagger: Tagger, words: int, kinds: str) -> None:
    part = gate_map(told(tagger, " ".join(["Ada"] * words)), 0)
    assert f'<table class="{kinds}" style="--n:{words}">' in part


def test_attention_has_a_bar_a_word_and_head(make_classifier: MakeClassifier) -> None:
    found = told(make_classifier(heads=3), "Ada saw <Paris>.")
    part = attention_map(found)
    reader = Reader(part)
    assert found.attention is not None
    assert part.count("<i style=") == 3 * len(found.words)
    for number in (1, 2, 3):
        assert f"head {number}" in reader.text
    heights = [float(height) for height in re.findall(r"<i style=\"--v:([\d.]+)\"", part)]
    most = max(max(weights) for weights in found.attention)
    assert heights == pytest.approx(
        [0.8 * weight / most for weights in found.attention for weight in weights], abs=1e-3
    )


def test_every_word_has_a_row_of_decisions(tagger: Tagger) -> None:
    found = told(tagger, EVIL)
    part = decision_table(found)
    reader = Reader(part)
    assert "<script" not in part
    assert found.decisions is not None
    rows = part.split("<tbody>")[1].split("</tr>")[:-1]
    assert len(rows) == len(found.words)
    for word, decision, row in zip(found.words, found.decisions, rows, strict=True):
        assert f"<bdi>{safe(word)}</bdi>" in row
        assert f"<td>{decision.emission:.2f}</td>".replace("-", "\u2212") in row
        assert ("no other tag is legal" in row) == (decision.rival is None)
    assert count(reader, "tr") == len(rows) + 1


def test_the_bars_of_a_margin_stay_within_their_ground(tagger: Tagger) -> None:
    found = told(tagger, "Ada saw Paris. Ada Paris saw Bo and Ada.")
    part = decision_table(found)
    bars = re.findall(r'<i class="[et]" style="--a:([\d.-]+);--w:([\d.-]+)">', part)
    assert found.decisions is not None
    assert len(bars) == 2 * sum(d.rival is not None for d in found.decisions)
    for left, size in bars:
        assert float(left) >= 0
        assert float(left) + float(size) <= 1.001

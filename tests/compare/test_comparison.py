"""What is said of systems whose answers are made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqlab.compare.comparison import Comparison, check_alike, compared
from seqlab.compare.outcomes import Outcomes, _of_translations, bleu
from seqlab.compare.page import page_of
from seqlab.compare.price import Price
from seqlab.compare.systems import Run, System
from seqlab.compare.table import table_of
from seqlab.errors import UsageError
from seqlab.significance import accuracy, f1

TAGS = [["S-PER", "O", "S-LOC"], ["O", "O"], ["S-PER", "B-LOC", "E-LOC"]] * 40


def labels(share: float, seed: int, count: int = 300) -> Outcomes:
    """Answers to texts, right with some probability."""
    random = np.random.default_rng(seed)
    right = random.random(count) < share
    gold = [["pos"] if i % 2 else ["neg"] for i in range(count)]
    other = {"pos": "neg", "neg": "pos"}
    answers = [g if hit else [other[g[0]]] for g, hit in zip(gold, right, strict=True)]
    counts = np.stack([right, np.ones(count)], 1).astype(float)
    texts = [f"text <{i}>" for i in range(count)]
    return Outcomes("labels", "accuracy", "same", texts, answers, gold, counts, accuracy)


def system(name: str, seeds: int = 3) -> System:
    runs = [Run(Path(name, str(n)), name, n, {}, {}) for n in range(1, seeds + 1)]
    return System(name, runs)


def price(speed: float = 1000.0, parameters: int = 10) -> Price:
    return Price(parameters, 1.5, 60.0, 500.0, {1: speed / 4, 32: speed}, {}, "a machine")


def three() -> Comparison:
    shares = {"small": 0.75, "large": 0.9, "slow": 0.75}
    systems = [system(name) for name in shares]
    outcomes = {
        name: [labels(share, 10 * n + 100 * i) for n in range(3)]
        for i, (name, share) in enumerate(shares.items())
    }
    prices = {"small": price(9000), "large": price(1000), "slow": price(500)}
    return compared(systems, outcomes, prices, 500)


def test_systems_are_ranked_tested_and_priced() -> None:
    found = three()
    assert found.rows[0].name == "large"
    assert found.rows[0].mean == pytest.approx(90, abs=3)
    assert found.rows[0].sd is not None
    by_name = {row.name: row for row in found.rows}
    assert [by_name[n].best_for_its_price for n in ("large", "small", "slow")] == [
        True,
        True,
        False,
    ]
    pairs = {frozenset((p.first, p.second)): p for p in found.pairs}
    sure = pairs[frozenset(("large", "small"))]
    assert sure.difference > 0
    assert 0 < sure.low < sure.high
    assert sure.p < 0.05
    assert sure.p >= sure.p_alone
    assert sure.p_seeds == pytest.approx(0.3)  # 0.1 is the least of three seeds; of three tests
    assert sure.order == 0.0
    assert pairs[frozenset(("slow", "small"))].p > 0.05
    assert found.notes == []


def test_one_seed_has_no_deviation() -> None:
    outcomes = {"a": [labels(0.9, 1)], "b": [labels(0.8, 2)]}
    prices = {"a": price(), "b": price()}
    found = compared([system("a", 1), system("b", 1)], outcomes, prices, 200)
    assert [row.sd for row in found.rows] == [None, None]
    assert found.pairs[0].p_seeds is None
    assert "one seed only" in found.notes[0]
    assert "note: " in table_of(found)


def test_calibration_errors_are_averaged_over_seeds() -> None:
    first = [labels(0.9, n)._replace(ece=ece) for n, ece in enumerate((0.01, 0.03))]
    second = [labels(0.8, 7)._replace(ece=0.05), labels(0.8, 8)]
    prices = {"a": price(), "b": price()}
    found = compared([system("a", 2), system("b", 2)], {"a": first, "b": second}, prices, 200)
    assert found.rows[0].ece == pytest.approx(0.02)
    assert found.rows[1].ece is None  # not known of every run


def test_the_same_system_twice_does_not_differ() -> None:
    one = labels(0.8, 1)
    prices = {"a": price(), "b": price()}
    found = compared([system("a", 1), system("b", 1)], {"a": [one], "b": [one]}, prices, 200)
    assert found.pairs[0].p == 1.0
    assert found.differing == []
    assert all(row.best_for_its_price for row in found.rows)


def test_what_differs_is_listed_with_both_answers() -> None:
    found = three()
    first, second = (row.name for row in found.rows[:2])
    for one in found.differing:
        assert one["better"] in (first, second)
        assert one[one["better"]] == one["gold"]
        assert one[first] != one[second]
        assert one["text"] == f"text <{one['sentence'] - 1}>"
    assert set(found.by_type) == {"neg", "pos"}


def test_spans_are_scored_by_label() -> None:
    wrong = [list(tags) for tags in TAGS]
    wrong[0] = ["O", "O", "S-LOC"]
    counts = np.array([[2, 2, 2], [0, 0, 0], [2, 2, 2]] * 40, float)
    less = counts.copy()
    less[0] = [1, 1, 2]
    about: tuple[Any, ...] = ("tags", "span F1", "same", ["a b c"] * len(TAGS))
    first = Outcomes(*about, TAGS, TAGS, counts, f1, "bioes")
    second = Outcomes(*about, wrong, TAGS, less, f1, "bioes")
    prices = {"a": price(), "b": price()}
    systems = [system("a", 1), system("b", 1)]
    found = compared(systems, {"a": [first], "b": [second]}, prices, 200)
    assert found.by_type["LOC"] == {"a": 100.0, "b": 100.0}
    assert found.by_type["PER"]["b"] < 100.0
    assert [one["sentence"] for one in found.differing] == [1]


def test_translations_are_tested_by_sacrebleu() -> None:
    gold = [f"the {n} dogs ran to the old house ." for n in range(40)]
    good = [*gold[:30], *(text.replace("old house", "house") for text in gold[30:])]
    poor = [text.replace("ran to", "run at").replace("old", "ancient") for text in gold]
    made = {}
    for name, answers in {"good": good, "poor": poor}.items():
        counts, scorer = _of_translations(answers, gold)
        array = np.asarray(counts, float)
        made[name] = [Outcomes("texts", scorer, "same", gold, answers, gold, array, bleu)]
    prices = {"good": price(), "poor": price()}
    found = compared([system("good", 1), system("poor", 1)], made, prices, 200)
    from sacrebleu.metrics.bleu import BLEU

    assert found.rows[0].mean == pytest.approx(BLEU().corpus_score(good, [gold]).score)
    assert found.pairs[0].p < 0.05
    assert found.pairs[0].low < found.pairs[0].difference < found.pairs[0].high
    assert found.by_type == {}
    assert "nrefs:1|case:mixed" in found.scorer


def test_other_tests_and_scorers_are_refused() -> None:
    one = labels(0.8, 1)
    with pytest.raises(UsageError, match=r"a and b have other test sentences .*300 and 300"):
        check_alike({"a": one, "b": one._replace(digest="other")})
    with pytest.raises(UsageError, match="a is scored by accuracy and c by span F1"):
        check_alike({"a": one, "c": one._replace(scorer="span F1")})
    check_alike({"a": one, "b": one})


def test_the_table_says_all_of_it() -> None:
    text = table_of(three())
    lines = text.splitlines()
    assert lines[0] == "accuracy, 300 test sentences"
    assert lines[2].split()[:3] == ["system", "score", "sd"]
    assert lines[3].startswith("large *")
    assert "(sure)" in text
    assert "almost stochastic order" in text


def test_the_page_stands_alone_and_escapes_what_it_shows(tmp_path: Path) -> None:
    page = page_of(three())
    assert "text &lt;" in page
    assert "<svg" in page
    assert "http" not in page
    assert page.count("<tr") == page.count("</tr>")
    assert page.count("<details") == page.count("</details>") > 0


def test_everything_is_plain_data() -> None:
    found = three()
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["name"] == "large"

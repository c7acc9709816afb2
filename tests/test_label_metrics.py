"""Scores of classifiers against plain counting, other people's code, and any order of batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sklearn.metrics
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed, multiprocessing

from seqlab.label_metrics import (
    LabelScores,
    LabelSetScores,
    best_thresholds,
    calibration_error,
)
from seqlab.metrics import OTHERS, f1_of

UNHURRIED = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
LABELS = ["bad", "good", "so-so"]
Gold = list[list[str]]


def texts(count: int, seed: int = 0, several: bool = False) -> tuple[Tensor, Gold]:
    """Probabilities of few values, so that there are ties, and labels that go with them."""
    rng = random.Random(seed)
    logits = torch.tensor(
        [[rng.choice([-1.0, 0.0, 0.5, 2.0]) for _ in LABELS] for _ in range(count)]
    )
    known = [*LABELS, "new"]
    if several:
        gold = [[x for x in known if rng.random() < 0.4] for _ in range(count)]
        return logits.sigmoid(), gold
    best = [LABELS[i] for i in logits.argmax(1).tolist()]
    return logits.softmax(1), [[x if rng.random() < 0.6 else rng.choice(known)] for x in best]


def scored(metric: Any, probabilities: Tensor, gold: Gold, size: int = 7) -> dict[str, Any]:
    for start in range(0, len(gold), size):
        metric.update(probabilities[start : start + size], gold[start : start + size])
    found: dict[str, Any] = metric.compute()
    return found


def counted(chosen: Sequence[set[str]], gold: Sequence[set[str]]) -> dict[str, Any]:
    """All but calibration, label by label and text by text."""
    per_type = {}
    for label in [*LABELS, OTHERS]:
        ours = [sum(1 for x in c if x == label) for c in chosen]
        theirs = [sum(1 for x in g if (x if x in LABELS else OTHERS) == label) for g in gold]
        both = sum(1 for c, g in zip(chosen, gold, strict=True) if label in c and label in g)
        if label == OTHERS and not sum(theirs):
            continue
        p, r, f = f1_of(sum(ours), sum(theirs), both)
        per_type[label] = {"precision": p, "recall": r, "f1": f}
        per_type[label] |= {"gold": sum(theirs), "predicted": sum(ours), "correct": both}
    met = [row["f1"] for row in per_type.values() if row["gold"] or row["predicted"]]
    totals = [sum(row[k] for row in per_type.values()) for k in ("predicted", "gold", "correct")]
    right = sum(c == g for c, g in zip(chosen, gold, strict=True))
    return {
        "accuracy": right / len(gold),
        "macro_f1": sum(met) / len(met) if met else 0.0,
        "micro_f1": f1_of(*map(int, totals))[2],
        "per_type": per_type,
    }


def ece(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error, bin by bin."""
    total = 0.0
    for i in range(15):
        inside = [
            (p, r)
            for p, r in zip(confidences, right, strict=True)
            if i / 15 <= p < (i + 1) / 15 or (i == 14 and p == 1.0)
        ]
        if inside:
            mean = sum(p for p, _ in inside) / len(inside)
            share = sum(r for _, r in inside) / len(inside)
            total += abs(mean - share) * len(inside) / len(right)
    return total


@UNHURRIED
@given(count=st.integers(1, 40), seed=st.integers(0, 1000))
def test_one_label_a_text_is_scored_as_counted_by_hand(count: int, seed: int) -> None:
    probabilities, gold = texts(count, seed)
    found = scored(LabelScores(LABELS), probabilities, gold)
    chosen = [LABELS[i] for i in probabilities.argmax(1).tolist()]
    for key, value in counted([{x} for x in chosen], [set(x) for x in gold]).items():
        assert found[key] == value, key
    right = [x == y for x, (y,) in zip(chosen, gold, strict=True)]
    assert found["ece"] == pytest.approx(ece(probabilities.amax(1).tolist(), right), abs=1e-6)
    pairs = [(y if y in LABELS else OTHERS, x) for x, (y,) in zip(chosen, gold, strict=True)]
    expected: dict[str, dict[str, int]] = {}
    for wanted, ours in pairs:
        row = expected.setdefault(wanted, {})
        row[ours] = row.get(ours, 0) + 1
    assert found["confusion"] == expected


@UNHURRIED
@given(count=st.integers(1, 40), seed=st.integers(0, 1000))
def test_sets_of_labels_are_scored_as_counted_by_hand(count: int, seed: int) -> None:
    probabilities, gold = texts(count, seed, several=True)
    metric = LabelSetScores(LABELS)
    metric.thresholds = torch.tensor([0.3, 0.5, probabilities[0, 2].item()])
    found = scored(metric, probabilities, gold)
    limits = metric.thresholds.tolist()
    chosen = [
        {label for label, p, limit in zip(LABELS, row, limits, strict=True) if p >= limit}
        for row in probabilities.tolist()
    ]
    for key, value in counted(chosen, [set(x) for x in gold]).items():
        assert found[key] == value, key
    right = [label in labels for labels in gold for label in LABELS]
    assert found["ece"] == pytest.approx(ece(probabilities.flatten().tolist(), right), abs=1e-6)
    assert "confusion" not in found


def test_scores_are_those_of_scikit_learn() -> None:
    probabilities, gold = texts(200)
    known = [i for i, (label,) in enumerate(gold) if label in LABELS]
    probabilities, wanted = probabilities[known], [gold[i][0] for i in known]
    found = scored(LabelScores(LABELS), probabilities, [[x] for x in wanted])
    chosen = [LABELS[i] for i in probabilities.argmax(1).tolist()]
    assert 0.3 < found["accuracy"] < 0.95
    assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(wanted, chosen))
    for average in ("macro", "micro"):
        theirs = sklearn.metrics.f1_score(wanted, chosen, average=average)
        assert found[f"{average}_f1"] == pytest.approx(theirs)
    matrix = sklearn.metrics.confusion_matrix(wanted, chosen, labels=LABELS).tolist()
    assert [[found["confusion"][g].get(p, 0) for p in LABELS] for g in LABELS] == matrix


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_neither_batches_nor_their_order_change_a_bit(several: bool, size: int) -> None:
    probabilities, gold = texts(3000, several=several)
    torch.manual_seed(0)
    probabilities = (probabilities + 0.2 * torch.rand_like(probabilities)).clamp(0, 1)
    kind = LabelSetScores if several else LabelScores
    expected = scored(kind(LABELS), probabilities, gold)
    order = torch.randperm(len(gold))
    shuffled = scored(kind(LABELS), probabilities[order], [gold[i] for i in order], size)
    assert shuffled == expected  # not nearly: exactly


@pytest.mark.parametrize("kind", [LabelScores, LabelSetScores])
def test_labels_that_the_model_does_not_know_count_as_wrong(kind: Any) -> None:
    sure = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])
    found = scored(kind(LABELS), sure, [["good"], ["new"]])
    assert found["accuracy"] == found["micro_f1"] == 0.5
    assert found["per_type"][OTHERS]["gold"] == 1
    assert found["per_type"][OTHERS]["f1"] == 0.0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_several_unknown_labels_of_a_text_are_all_missed() -> None:
    found = scored(LabelSetScores(LABELS), torch.tensor([[0.9, 0.1, 0.1]]), [["bad", "x", "y"]])
    assert found["per_type"][OTHERS]["gold"] == 2
    assert found["micro_f1"] == pytest.approx(2 * 1 / (1 + 3))
    assert found["accuracy"] == 0.0


def test_a_text_without_labels_is_right_where_none_is_found() -> None:
    found = scored(LabelSetScores(LABELS), torch.tensor([[0.1, 0.1, 0.1], [0.9, 0, 0]]), [[], []])
    assert found["accuracy"] == 0.5
    assert found["micro_f1"] == found["macro_f1"] == 0.0


@pytest.mark.parametrize("kind", [LabelScores, LabelSetScores])
def test_no_texts_are_scored_as_nothing(kind: Any) -> None:
    metric = kind(LABELS)
    metric.update(torch.zeros(0, 3), [])
    found = metric.compute()
    assert [found[k] for k in ("accuracy", "macro_f1", "micro_f1", "ece")] == [0.0] * 4
    assert set(found["per_type"]) == set(LABELS)


@pytest.mark.parametrize("kind", [LabelScores, LabelSetScores])
def test_counting_starts_anew(kind: Any) -> None:
    metric = kind(LABELS)
    scored(metric, *texts(20))
    metric.reset()
    assert scored(metric, *texts(9, seed=3)) == scored(kind(LABELS), *texts(9, seed=3))


@pytest.mark.parametrize("gold", [[["bad"]], [["bad"], ["bad", "good"]], [["bad"], []]])
def test_gold_labels_that_do_not_fit_are_refused(gold: Gold) -> None:
    with pytest.raises(ValueError, match="2 texts need one gold label each, not"):
        LabelScores(LABELS).update(torch.zeros(2, 3), gold)


def test_as_many_texts_as_lists_of_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="2 texts for 1 lists of gold labels"):
        LabelSetScores(LABELS).update(torch.zeros(2, 3), [["bad"]])


def test_probabilities_that_are_certain_belong_to_the_last_bin() -> None:
    confidences = [1.0, 0.95, 0.0, 0.05]
    right = [False, True, True, False]
    found = calibration_error(torch.tensor(confidences), torch.tensor(right))
    assert found == pytest.approx(ece(confidences, right), abs=1e-6)
    assert found == pytest.approx(0.475, abs=1e-6)


def test_the_scorer_says_what_is_counted() -> None:
    assert LabelScores(LABELS).scorer.startswith("torchmetrics ")
    assert "one label a text" in LabelScores(LABELS).scorer
    assert "tuned for F1 on the validation split" in LabelSetScores(LABELS).scorer
    for kind in (LabelScores, LabelSetScores):
        assert "15 bins" in kind(LABELS).scorer
        assert "macro F1 over the labels that occur" in kind(LABELS).scorer


# Thresholds.


def f1_at(threshold: float, values: Sequence[float], gold: Sequence[int]) -> float:
    chosen = [v >= threshold for v in values]
    both = sum(c and bool(g) for c, g in zip(chosen, gold, strict=True))
    return f1_of(sum(chosen), sum(gold), both)[2]


@UNHURRIED
@given(data=st.data(), count=st.integers(1, 12))
def test_a_threshold_is_the_best_there_is(data: Any, count: int) -> None:
    grid = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
    values = torch.tensor(data.draw(st.lists(grid, min_size=count, max_size=count)))
    gold = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    found = best_thresholds(values.unsqueeze(1), torch.tensor(gold).unsqueeze(1)).item()
    if not any(gold):
        assert found == 0.5
        return
    best = max(f1_at(t, values.tolist(), gold) for t in [0.0, *values.tolist()])
    assert f1_at(found, values.tolist(), gold) == best
    assert 0.0 <= found <= 1.0


def test_a_threshold_lies_in_the_middle() -> None:
    values = torch.tensor([[0.9], [0.6], [0.2]])
    assert best_thresholds(values, torch.tensor([[1], [0], [0]])).item() == pytest.approx(0.75)
    assert best_thresholds(values, torch.tensor([[1], [1], [0]])).item() == pytest.approx(0.4)
    assert best_thresholds(values, torch.tensor([[1], [1], [1]])).item() == pytest.approx(0.1)


def test_neighbours_in_float32_are_told_apart() -> None:
    low = torch.tensor(0.3)
    high = torch.nextafter(low, torch.tensor(1.0))
    values = torch.stack([high, low]).unsqueeze(1)
    limit = best_thresholds(values, torch.tensor([[1], [0]])).item()
    assert (values.flatten() >= limit).tolist() == [True, False]


def test_of_equally_good_thresholds_that_next_to_one_half_is_taken() -> None:
    values = torch.tensor([[0.9], [0.7], [0.6], [0.45], [0.1]])
    gold = torch.tensor([[1], [0], [0], [1], [0]])  # F1 is 2/3 after one text and after four
    assert f1_at(0.8, values.flatten().tolist(), gold.flatten().tolist()) == pytest.approx(2 / 3)
    assert best_thresholds(values, gold).item() == pytest.approx((0.45 + 0.1) / 2)


def test_each_label_has_its_own_threshold() -> None:
    probabilities, gold = texts(100, several=True)
    metric = LabelSetScores(LABELS)
    scored(metric, probabilities, gold)
    wanted = torch.tensor([[label in labels for label in LABELS] for labels in gold]).long()
    columns = [best_thresholds(probabilities[:, i : i + 1], wanted[:, i : i + 1]) for i in range(3)]
    assert torch.equal(metric.tuned(), torch.cat(columns))
    before = metric.compute()["macro_f1"]
    metric.thresholds = metric.tuned()
    metric.update(probabilities[:0], [])
    assert metric.compute()["macro_f1"] >= before


def on_rank(rank: int, store: str) -> None:
    cases = [(LabelScores, *texts(31)), (LabelSetScores, *texts(31, several=True))]
    expected = [scored(kind(LABELS), *rows) for kind, *rows in cases]
    tuned = best_of_all(*cases[1][1:])
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for (kind, probabilities, gold), wanted in zip(cases, expected, strict=True):
        metric: Any = kind(LABELS)
        metric.update(probabilities[rank::2], gold[rank::2])
        if isinstance(metric, LabelSetScores):
            assert torch.equal(metric.tuned(), tuned)
        assert metric.compute() == wanted
    distributed.destroy_process_group()


def best_of_all(probabilities: Tensor, gold: Gold) -> Tensor:
    metric = LabelSetScores(LABELS)
    metric.update(probabilities, gold)
    return metric.tuned()


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(on_rank, args=(str(tmp_path / "store"),), nprocs=2)

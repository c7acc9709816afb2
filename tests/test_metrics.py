from __future__ import annotations

import itertools
import random
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES
from torch import distributed, multiprocessing

from seqlab.errors import DataError
from seqlab.metrics import OTHERS, SpanF1, TagAccuracy, count_spans, f1_of
from seqlab.tags import convert

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
Corpus = list[list[str]]
LABELS = ("X", "Y-Z")
PREFIXES = {"iob1": "BI", "iob2": "BI", "bioes": "BIES", "bilou": "BILU"}
SEQEVAL = {"iob1": IOB1, "iob2": IOB2, "bioes": IOBES, "bilou": BILOU}


def inventory(scheme: str) -> list[str]:
    return ["O", *(f"{prefix}-{label}" for label in LABELS for prefix in PREFIXES[scheme])]


@st.composite
def corpora(draw: st.DrawFn, scheme: str) -> tuple[Corpus, Corpus]:
    tag = st.sampled_from(inventory(scheme))
    lengths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=5))
    gold = [draw(st.lists(tag, min_size=n, max_size=n)) for n in lengths]
    # Half of the tags are copied, so that spans agree often enough to be told apart.
    copied = st.tuples(st.booleans(), tag)
    ours = [[t if same else other for t, (same, other) in zip_draw(draw, g, copied)] for g in gold]
    return ours, gold


def zip_draw(
    draw: st.DrawFn, tags: list[str], strategy: st.SearchStrategy[tuple[bool, str]]
) -> list[tuple[str, tuple[bool, str]]]:
    return [(tag, draw(strategy)) for tag in tags]


def seqeval_scores(ours: Corpus, gold: Corpus, scheme: str, average: str) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where a score is undefined
        return [
            float(score(gold, ours, mode="strict", scheme=SEQEVAL[scheme], average=average))
            for score in (precision_score, recall_score, f1_score)
        ]


def scored(ours: Corpus, gold: Corpus, scheme: str, repair: str = "strict") -> SpanF1:
    metric = SpanF1(LABELS, scheme, repair)
    metric.update(ours, gold)
    return metric


def assert_equals_seqeval(ours: Corpus, gold: Corpus, scheme: str) -> None:
    metric = scored(ours, gold, scheme)
    exact = f1_of(*metric.counts.sum(dim=0).tolist())
    assert exact == pytest.approx(seqeval_scores(ours, gold, scheme, "micro"), abs=1e-12)
    scores = metric.compute()
    names = ("precision", "recall", "span_f1")
    assert [float(scores[name]) for name in names] == pytest.approx(exact, abs=1e-6)
    macro = seqeval_scores(ours, gold, scheme, "macro")[2] if metric.counts.any() else 0.0
    assert metric.macro_f1() == pytest.approx(macro, abs=1e-12)


def conlleval_counts(ours: Corpus, gold: Corpus) -> tuple[int, int, int]:
    """Count as the script does: in one walk over both columns, chunk by chunk."""
    predicted = found = correct = 0
    for sentence, wanted in zip(ours, gold, strict=True):
        inside = False
        columns = [
            [("O", ""), *(parse(tag) for tag in tags), ("O", "")] for tags in (sentence, wanted)
        ]
        pairs = [list(itertools.pairwise(column)) for column in columns]
        for (before, now), (gold_before, gold_now) in zip(*pairs, strict=True):
            ends = ended(before, now), ended(gold_before, gold_now)
            starts = started(before, now), started(gold_before, gold_now)
            if inside and all(ends):
                correct, inside = correct + 1, False
            elif inside and (any(ends) or now[1] != gold_now[1]):
                inside = False
            inside = inside or (all(starts) and now[1] == gold_now[1])
            predicted += starts[0]
            found += starts[1]
    return predicted, found, correct


def parse(tag: str) -> tuple[str, str]:
    prefix, _, label = tag.partition("-")
    return {"L": "E", "U": "S"}.get(prefix, prefix), label


def ended(before: tuple[str, str], now: tuple[str, str]) -> bool:
    pair = before[0] + now[0]
    by_prefix = pair in ("BB", "BO", "BS", "IB", "IO", "IS") or before[0] in "ES"
    return by_prefix or (before[0] != "O" and before[1] != now[1])


def started(before: tuple[str, str], now: tuple[str, str]) -> bool:
    pair = before[0] + now[0]
    by_prefix = now[0] in "BS" or pair in ("EE", "EI", "SE", "SI", "OE", "OI")
    return by_prefix or (now[0] != "O" and before[1] != now[1])


@pytest.mark.parametrize("scheme", ["iob2", "bioes", "bilou"])
@UNHURRIED
@given(data=st.data())
def test_strict_scores_equal_seqeval_on_any_tags(scheme: str, data: st.DataObject) -> None:
    assert_equals_seqeval(*data.draw(corpora(scheme)), scheme)


@pytest.mark.parametrize("scheme", list(PREFIXES))
@UNHURRIED
@given(data=st.data())
def test_strict_scores_equal_seqeval_on_legal_tags(scheme: str, data: st.DataObject) -> None:
    corpus = data.draw(corpora("bioes"))
    ours, gold = ([convert(tags, "bioes", scheme) for tags in side] for side in corpus)
    assert_equals_seqeval(ours, gold, scheme)


@pytest.mark.parametrize("scheme", list(PREFIXES))
@UNHURRIED
@given(data=st.data())
def test_repaired_scores_equal_conlleval(scheme: str, data: st.DataObject) -> None:
    ours, gold = data.draw(corpora(scheme))
    counts = scored(ours, gold, scheme, "conlleval").counts.sum(dim=0).tolist()
    assert tuple(counts) == conlleval_counts(ours, gold)


@pytest.mark.slow
def test_ten_thousand_random_corpora_equal_seqeval_and_conlleval() -> None:
    rng = random.Random(0)
    for case in range(10_000):
        scheme = ("iob2", "bioes", "bilou")[case % 3]
        tags = inventory(scheme)
        gold = [rng.choices(tags, k=rng.randint(1, 10)) for _ in range(rng.randint(1, 4))]
        ours = [[t if rng.random() < 0.7 else rng.choice(tags) for t in g] for g in gold]
        strict = f1_of(*scored(ours, gold, scheme).counts.sum(dim=0).tolist())
        assert strict == pytest.approx(seqeval_scores(ours, gold, scheme, "micro"), abs=1e-12)
        counts = scored(ours, gold, scheme, "conlleval").counts.sum(dim=0).tolist()
        assert tuple(counts) == conlleval_counts(ours, gold)


@UNHURRIED
@given(corpus=corpora("bioes"), cut=st.integers(0, 5))
def test_merged_states_equal_one_metric_over_all(corpus: tuple[Corpus, Corpus], cut: int) -> None:
    ours, gold = corpus
    for make in (lambda: SpanF1(LABELS, "bioes"), TagAccuracy):
        whole, first, second = make(), make(), make()
        whole.update(ours, gold)
        first.update(ours[:cut], gold[:cut])
        second.update(ours[cut:], gold[cut:])
        first.merge_state(second)
        assert all(torch.equal(first.metric_state[k], v) for k, v in whole.metric_state.items())
        assert first.compute() == whole.compute()


def test_states_are_integers_and_reset_to_zero() -> None:
    for metric in (scored([["B-X"]], [["B-X"]], "iob2"), TagAccuracy()):
        assert all(state.dtype == torch.int64 for state in metric.metric_state.values())
        metric.reset()
        assert not any(state.any() for state in metric.metric_state.values())


def test_labels_outside_the_list_are_missed_or_wrong() -> None:
    metric = scored([["B-X", "O", "B-NEW"]], [["B-X", "B-OLD", "O"]], "iob2")
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores == {"span_f1": 0.5, "precision": 0.5, "recall": 0.5}
    assert metric.per_label()[OTHERS] == {
        **{"precision": 0.0, "recall": 0.0, "f1": 0.0},
        **{"gold": 1, "predicted": 1, "correct": 0},
    }
    assert metric.macro_f1() == 0.5


def test_per_label_scores_count_each_label_alone() -> None:
    metric = scored([["B-X", "I-X", "B-X", "O"]], [["B-X", "I-X", "O", "B-Y-Z"]], "iob2")
    assert metric.per_label() == {
        "X": {
            "precision": 0.5,
            "recall": 1.0,
            "f1": 2 / 3,
            "gold": 1,
            "predicted": 2,
            "correct": 1,
        },
        "Y-Z": {
            "precision": 0.0,
            "recall": 0.0,
            "f1": 0.0,
            "gold": 1,
            "predicted": 0,
            "correct": 0,
        },
    }
    assert metric.sentences.tolist() == [0, 1]


def test_exact_sentences_are_counted() -> None:
    _, exact = count_spans([["B-X"], ["O"], ["B-X"]], [["B-X"], ["O"], ["O"]], LABELS)
    assert exact == 2


def test_nothing_to_find_scores_zero() -> None:
    metric = scored([["O"]], [["O"]], "iob2")
    assert [float(value) for value in metric.compute().values()] == [0.0, 0.0, 0.0]
    assert metric.macro_f1() == 0.0


def test_unknown_gold_tags_are_left_out_of_accuracy() -> None:
    metric = TagAccuracy()
    metric.update([["A", "B"], ["A", "A"], ["A"], []], [["A", "?"], ["B", "A"], ["?"], []])
    assert metric.totals.tolist() == [2, 3, 1, 2]
    assert metric.per_label()[OTHERS]["gold"] == 3
    assert float(metric.compute()["sentence_accuracy"]) == 0.5


@pytest.mark.parametrize("metric", [SpanF1(LABELS), TagAccuracy()])
def test_different_lengths_are_refused_by_index(metric: SpanF1 | TagAccuracy) -> None:
    with pytest.raises(ValueError, match="sentence 1 of the batch has 1 predicted tags for 2 gold"):
        metric.update([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(ValueError, match="1 predicted sentences for 0 gold"):
        metric.update([["O"]], [])
    assert not any(state.any() for state in metric.metric_state.values())


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(DataError, match="TagAccuracy"):
        SpanF1(LABELS, "none")
    with pytest.raises(DataError, match="'bio' is unknown"):
        SpanF1(LABELS, "bio")
    with pytest.raises(DataError, match="'lenient' is unknown"):
        SpanF1(LABELS, repair="lenient")
    with pytest.raises(ValueError, match="only once"):
        SpanF1(["X", "X"])


def test_the_scorer_says_how_it_scores() -> None:
    assert SpanF1(LABELS).scorer == (
        "seqlab SpanF1: exact spans, micro-averaged, repair=strict, scheme=iob2 "
        "(equal to seqeval strict)"
    )
    assert "equal to conlleval" in SpanF1(LABELS, repair="conlleval").scorer
    assert "gold tag is known" in TagAccuracy().scorer


def score_on_rank(rank: int, store: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    ours, gold = [["B-X"], ["B-X"], ["O"]], [["B-X"], ["O"], ["B-X"]]
    metric = SpanF1(LABELS)
    metric.update(ours[rank::2], gold[rank::2])
    assert float(metric.compute()["precision"]) == 0.5
    assert metric.per_label()["X"] == {
        **{"precision": 0.5, "recall": 0.5, "f1": 0.5, "gold": 2, "predicted": 2, "correct": 1},
    }
    assert metric.sentences.tolist() == ([1, 2] if rank == 0 else [0, 1])
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(score_on_rank, args=(str(tmp_path / "store"),), nprocs=2)

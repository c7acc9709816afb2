from __future__ import annotations

import builtins
import importlib.metadata
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import seqlab
from seqlab.report import card, example, hardware, peak_memory_mb, table, versions


def metrics(stage: str = "test") -> dict[str, Any]:
    return {
        f"{stage}/span_f1": 0.91237,
        f"{stage}/precision": 0.9,
        f"{stage}/recall": 0.92508,
        f"{stage}/accuracy": 0.98765,
        f"{stage}/sentence_accuracy": 0.5,
        f"{stage}/per_type": {
            "LOC": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "gold": 1668, "predicted": 1668},
            "PER": {"precision": 0.8, "recall": 0.0, "f1": 0.00004, "gold": 7, "predicted": 12},
        },
        f"{stage}/scorer": "spans, iob2, strict",
        f"{stage}/tokens_per_second": 123456.7,
        "train/seconds": 1234.56,
        "train/tokens_per_second": 9876.5,
        "peak_memory_mb": 1234.5,
        "split": stage,
        "seed": 13,
        "best_epoch": 7,
        "versions": {"python": "3.11.1", "torch": "2.13.0"},
        "hardware": "a machine",
    }


def test_the_table_shows_every_type_and_every_fact() -> None:
    assert table(metrics(), "test").splitlines() == [
        "          precision  recall      F1    gold  found",
        "LOC         100.00% 100.00% 100.00%   1,668  1,668",
        "PER          80.00%   0.00%   0.00%       7     12",
        "overall      90.00%  92.51%  91.24%   1,675  1,680",
        "",
        "span F1           91.24%",
        "token accuracy    98.77%",
        "sentence accuracy 50.00%",
        "training          1,234.6 s",
        "training speed    9,876 tokens/s",
        "scoring speed     123,457 tokens/s",
        "peak memory       1,234 MB",
        "scorer            spans, iob2, strict",
        "split             test",
        "seed              13",
        "best epoch        7",
    ]


def label_metrics(several: bool = False, labels: Sequence[str] = ("neg", "pos")) -> dict[str, Any]:
    row = {"precision": 0.8, "recall": 0.5, "f1": 0.6154, "gold": 8, "predicted": 5, "correct": 4}
    scores: dict[str, Any] = {
        "val/accuracy": 0.75,
        "val/macro_f1": 0.7,
        "val/micro_f1": 0.65,
        "val/ece": 0.01234,
        "val/per_type": {label: row for label in labels},
        "val/scorer": "by label",
        "seed": 1,
    }
    if several:
        return {**scores, "val/thresholds": dict.fromkeys(labels, 0.5)}
    return {**scores, "val/confusion": {}}


def test_the_table_of_a_classifier_has_its_labels_confusions_and_facts() -> None:
    scores = label_metrics()
    scores["val/confusion"] = {"neg": {"neg": 1234, "pos": 3}, "pos": {"pos": 56}}
    assert table(scores, "val").splitlines() == [
        "          precision  recall      F1    gold  found",
        "neg          80.00%  50.00%  61.54%       8      5",
        "pos          80.00%  50.00%  61.54%       8      5",
        "overall      80.00%  50.00%  65.00%      16     10",
        "",
        "gold / found     1    2",
        "1 neg         1234    3",
        "2 pos            0   56",
        "",
        "accuracy          75.00%",
        "macro F1          70.00%",
        "calibration error 0.0123",
        "scorer            by label",
        "seed              1",
    ]


def test_sets_of_labels_have_micro_f1_and_no_confusions() -> None:
    lines = table(label_metrics(several=True), "val").splitlines()
    assert lines[5:9] == [
        "accuracy          75.00%",
        "macro F1          70.00%",
        "micro F1          65.00%",
        "calibration error 0.0123",
    ]


def test_labels_that_the_model_does_not_know_have_a_row_of_confusions() -> None:
    scores = label_metrics(labels=("neg", "pos", "(other labels)"))
    scores["val/confusion"] = {"neg": {"neg": 2}, "(other labels)": {"pos": 1}}
    assert table(scores, "val").splitlines()[6:10] == [
        "gold / found      1 2 3",
        "1 neg             2 0 0",
        "2 pos             0 0 0",
        "3 (other labels)  0 1 0",
    ]


@pytest.mark.parametrize(("count", "matrix"), [(12, True), (13, False)])
def test_of_many_labels_the_most_confused_pairs_are_shown(count: int, matrix: bool) -> None:
    labels = [f"label {i:02}" for i in range(count)]
    scores = label_metrics(labels=labels)
    scores["val/confusion"] = {
        gold: {gold: 100, labels[i - 1]: 1000 + i, labels[i - 2]: 1}
        for i, gold in enumerate(labels)
    }
    lines = table(scores, "val").splitlines()
    at = 3 + count
    if matrix:
        assert lines[at].split() == ["gold", "/", "found", *map(str, range(1, 13))]
        assert lines[at + 12].split()[3:6] == ["0", "0", "0"]
        return
    assert lines[at] == "most confused  gold      found"
    assert lines[at + 1] == "        1,012  label 12  label 11"
    assert lines[at + 10] == "        1,003  label 03  label 02"
    assert lines[at + 11] == ""


def test_without_a_confusion_none_is_shown() -> None:
    labels = [str(i) for i in range(20)]
    scores = label_metrics(labels=labels)
    scores["val/confusion"] = {label: {label: 3} for label in labels}
    assert "confused" not in table(scores, "val")
    scores["val/confusion"]["3"]["4"] = 1
    assert "most confused  gold  found\n            1  3     4\n" in table(scores, "val")


def test_the_card_of_a_classifier_shows_how_to_use_one() -> None:
    text = card(label_metrics(), "")
    assert "classifier = seqlab.load(" in text
    assert f"print(classifier({example(label_metrics(), 'val')!r}))" in text
    assert f"print(tagger({example(metrics(), 'test')!r}))" in card(metrics(), "")


def test_columns_stay_below_their_names_for_long_labels() -> None:
    scores = metrics()
    scores["test/per_type"]["ORGANISATION"] = scores["test/per_type"]["PER"]
    head, *rows = table(scores, "test").splitlines()[:5]
    for row in rows:
        assert len(row) == len(head)
        for name in ("precision", "recall", "F1"):
            assert row[head.index(name) + len(name) - 1] == "%"


def test_without_spans_there_is_no_table_of_types() -> None:
    assert table({"val/accuracy": 0.75, "val/scorer": "tokens", "seed": 0}, "val").splitlines() == [
        "token accuracy    75.00%",
        "scorer            tokens",
        "seed              0",
    ]


def test_a_table_is_of_one_stage() -> None:
    scores = {**metrics("val"), **{k: v for k, v in metrics("test").items() if k != "split"}}
    scores["test/span_f1"] = 0.1
    assert "span F1           91.24%" in table(scores, "val")
    assert "span F1           10.00%" in table(scores, "test")


def test_no_scores_are_an_empty_table() -> None:
    assert table({}, "test") == ""


def test_the_card_holds_scores_recipe_and_origin() -> None:
    text = card(metrics(), "\nseed_everything: 13\n\n")
    assert f"```text\n{table(metrics(), 'test')}\n```" in text
    assert "```yaml\nseed_everything: 13\n```\n" in text
    assert "python 3.11.1, torch 2.13.0; a machine" in text
    assert text.startswith("# A seqlab model\n")
    assert text.count("```") == 6


@pytest.mark.parametrize(("stages", "shown"), [(["val"], "val"), (["val", "test"], "test")])
def test_the_card_shows_the_test_split_once_there_is_one(stages: list[str], shown: str) -> None:
    scores = {key: value for stage in stages for key, value in metrics(stage).items()}
    assert table(scores, shown) in card(scores, "")


def test_the_python_example_of_the_card_is_python() -> None:
    code = card(metrics(), "").split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_versions_are_those_that_are_installed() -> None:
    found = versions()
    assert found["seqlab"] == seqlab.__version__
    assert found["torch"] == importlib.metadata.version("torch")
    assert list(found)[:2] == ["python", "seqlab"]
    assert all(found.values())


def test_the_hardware_has_a_name_and_threads() -> None:
    name, threads = hardware().split(", ")[:2]
    assert name
    assert threads == f"threads: {torch.get_num_threads()}"


def test_the_hardware_has_a_name_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "z80")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(builtins, "open", missing)
    assert hardware() == f"z80, threads: {torch.get_num_threads()}"


def test_the_accelerator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fast 9000")
    assert hardware().endswith(f"threads: {torch.get_num_threads()}, Fast 9000")


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_counted_in_megabytes(
    platform: str, unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        ru_maxrss = 3_000_000

    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("resource.getrusage", lambda who: Usage)
    assert peak_memory_mb() == 3.0 * unit


def test_memory_holds_at_least_what_this_test_holds() -> None:
    held = torch.ones(25_000_000)  # 100 MB
    assert peak_memory_mb() > held.nbytes / 1e6


def translation_metrics() -> dict[str, Any]:
    names = {"bleu": 40.931, "bleu_lowercased": 41.178, "chrf": 59.9, "ter": 42.22}
    return {
        **{f"test/{name}": value for name, value in names.items()},
        "test/perplexity": 5.74,
        "test/scorer": {"bleu": "nrefs:1|case:mixed", "chrf": "nc:6"},
        "test/examples": [{"source": "un, deux", "translation": "one", "reference": "one, two"}],
        "split": "test",
    }


def test_translations_are_shown_with_their_scores_and_signatures() -> None:
    assert table(translation_metrics(), "test").splitlines() == [
        "source       un, deux",
        "translation  one",
        "reference    one, two",
        "",
        "BLEU              40.93",
        "BLEU, lower case  41.18",
        "chrF              59.90",
        "TER               42.22",
        "perplexity        5.74",
        "bleu by           nrefs:1|case:mixed",
        "chrf by           nc:6",
        "split             test",
    ]


def test_the_card_of_a_translator_shows_how_to_use_one() -> None:
    assert "print(translate('un, deux'))" in card(translation_metrics(), "")

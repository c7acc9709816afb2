"""Every script in ``benchmarks/`` runs, and the table of scores says what the results say."""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import seqlab
from seqlab.errors import UsageError
from seqlab.subwords import SubwordVocabulary, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SHARED = {"side_by_side"}  # modules that scripts import, and no scripts themselves
SCRIPTS = sorted(p for p in (ROOT / "benchmarks").glob("*.py") if p.stem not in SHARED)
# What each script is run with, to be done soon; every script must have its words here.
SMOKE = {
    "bert": ["table", "--check"],
    "bulk": ["--rows", "4000", "--files", "2"],
    "cells": ["speed", "coupled", "--rounds", "1", "--hidden", "8", "--threads", "1"],
    "crf": ["speed", "exact", "memory", "--quick", "--contenders", "seqlab plain", "--threads", "1"]
    + ["--results", "{folder}/crf.json"],
    "gpu_cells": ["--results", "{folder}/gpu_cells.json"],
    "memory": ["run", "--task", "adding", "--cells", "rnn", "--lengths", "4", "--seeds", "1"]
    + ["--steps", "2", "--hidden", "2", "--results", "{folder}/memory.json"],
    "recipes": ["speed", "ner"],
    "corpora": ["memory", "--quick"],
    "scale": ["processes", "--quick", "--models", "tagger", "--results", "{folder}/scale.json"],
    "tagger": ["train", "overhead", "predict", "profile", "time-to", "gpu", "--device", "cpu"]
    + ["--quick", "--threads", "1", "--results", "{folder}/tagger.json"],
    "zoo": ["table", "--check"],
    "translate": ["--quick", "--threads", "1", "--results", "{folder}/translate.json"],
}


def raced(part: str) -> list[str]:
    """Plain PyTorch and seqlab, or seqlab alone where there is no pytorch-crf."""
    seqlab = rf"{part} +seqlab +[\d,]+ tokens/s +[\d,]+ MB.*"
    left_out = rf"{part}: plain PyTorch is left out: pytorch-crf is not installed: .*"
    return [rf"{part} +plain PyTorch +[\d,]+ tokens/s .*|{seqlab}", rf"{seqlab}|{left_out}"]


# What it then prints, line by line.
PRINTS = {
    "bert": ["the table fits the results"] * 4,
    "zoo": ["the table fits the results"] * 3,
    "bulk": [
        r"bulk  local, 2 workers, one killed at part-1-00000: 4,000 rows in [\d.]+ s with "
        r"the start, [\d,]+ rows/s; every row once"
    ],
    "cells": [
        r"batch 32, time 25, input 160, hidden 8, directions 2; .*threads: 1.*; medians of 1 .*",
        r"cell +ms +nn\.LSTM ms +speed by nn\.LSTM +tokens/s",
        r"coupled +[\d.]+ +[\d.]+ +[\d.]+ +[\d,]+",
    ],
    "crf": [
        *(
            rf"{what} +2,5,3( ragged)? +seqlab plain +[\d.]+ ms"
            for what in ("nll", "decode", "nll", "decode")
        ),
        r"exact +scale 20 +seqlab plain +\d\.\de-\d+",
        r"memory +32,120,50 +seqlab plain +[\d.]+ MB",
    ],
    "gpu_cells": [r"This measures an NVIDIA GPU, but there is none: try --interpret\."],
    "memory": [r"adding rnn: rate 0\.\d+, mean error [\d.]+"] * 4
    + [r"adding rnn, length 4, seed 1: test error [\d.]+ after 1 evaluations, [\d.]+ s"],
    "recipes": [r"recipe .*", r"ner +[\d,]+ +[\d,]+ +[\d,]+  .*threads: \d+.*"],
    "corpora": [
        r"memory  tagging +300 sentences: first step after [\d.]+ s, again [\d.]+ s \([\d.]+ s of "
        r"a processor\), plus imports of [\d.]+ s; [\d,]+ MB anonymous \(most [\d,]+, first "
        r"[\d,]+\), [\d,]+ MB mapped, [\d,]+ parameters"
    ],
    "scale": [
        rf"processes  tagger  {share} +[\d,]+ tokens/s"
        for share in ("1 process, 1 thread", "1 process, 2 threads", "2 processes, 1 thread each")
    ],
    "tagger": [
        *raced("train"),
        r"overhead seqlab fit [\d.]+ ms a step, a bare loop [\d.]+ ms: [\d.]+×",
        *raced("predict"),
        *(r"profile.* (seqlab|plain PyTorch) .*(batch [\d.]+, .*|is left out: pytorch-crf .*)",)
        * 2,
        r"time-to +0\.0% with cold caches, seed 1: [\d.]+ s \([\d.]+ at [\d.]+ s\)",
        r"gpu +tagger +auto +[\d,]+ tokens/s, the CRF takes [\d.]+% of a step",
    ],
    "translate": [
        r"train +seqlab +[\d,]+ target tokens/s",
        r"weights +greedy BLEU [\d.]+",
        *(
            rf"decode +{search}, batch {batch} +seqlab +[\d,.]+ sentences/s, {n}/{n} as seqlab"
            for batch, n in ((1, 2), (64, 4))
            for search in ("greedy", "beam 5")
        ),
        *[r"profile +seqlab, .* ms a sentence: encoder [\d.]+, decoder steps [\d.]+, .*"] * 4,
        r"profile +seqlab +[\d.]+ ms a step: batch [\d.]+, embeddings, forward [\d.]+, .*",
    ],
}
ENDS = {"gpu_cells": 1}  # exit codes other than 0
METRICS = {
    "monitor": "val/span_f1",
    "val/span_f1": 0.5,
    "train/seconds": 10.0,
    "train/tokens_per_second": 1234.5,
    "test/tokens_per_second": 2345.6,
    "peak_memory_mb": 600.4,
    "hardware": "an abacus, threads: 1",
    "date": "2026-01-31",
    "commit": "abcdef0",
}

pytestmark = pytest.mark.skipif(not SCRIPTS, reason="an installed package carries no benchmarks")


def run(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("SEQLAB_DATA", None)
    command = [sys.executable, str(script), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipes() -> ModuleType:
    return load("recipes")


def test_all_benchmarks_are_found() -> None:
    assert {script.stem for script in SCRIPTS} == set(SMOKE)
    assert len(SCRIPTS) == 12


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_runs(script: Path, tmp_path: Path) -> None:
    done = run(script, *(word.format(folder=tmp_path) for word in SMOKE[script.stem]))
    assert done.returncode == ENDS.get(script.stem, 0), done.stderr
    said = done.stderr if script.stem in ENDS else done.stdout
    lines, wanted = said.splitlines(), PRINTS[script.stem]
    assert len(lines) == len(wanted)
    assert [
        line for line, each in zip(lines, wanted, strict=True) if not re.fullmatch(each, line)
    ] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_explains_itself(script: Path) -> None:
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
    assert f"python benchmarks/{script.name} " in script.read_text(encoding="utf-8")


def test_the_table_of_scores_fits_the_results(recipes: ModuleType) -> None:
    assert recipes.write_table(check=True) == 0


@pytest.fixture
def bert(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("bert")


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("cells")


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("corpora")


def test_the_tables_of_corpora_fit_the_results(corpora: ModuleType) -> None:
    assert corpora.table(argparse.Namespace(check=True)) == 0


@pytest.mark.parametrize("task", ["tagging", "classification", "translation"])
def test_a_drawn_corpus_is_one_that_the_task_reads(
    corpora: ModuleType, tmp_path: Path, task: str
) -> None:
    corpora.write_corpus(tmp_path / "my", task, 60)
    languages = {"source_language": "en", "target_language": "xx"} if task == "translation" else {}
    data: Any = {
        "tagging": seqlab.TaggingData,
        "classification": seqlab.ClassificationData,
        "translation": seqlab.TranslationData,
    }[task](str(tmp_path / "my"), **languages)
    assert {part: len(rows) for part, rows in data.splits.items()} == {
        "train": 60,
        "validation": 500,
        "test": 500,
    }
    data.setup("fit")


def test_the_table_of_cells_fits_the_results(cells: ModuleType) -> None:
    assert run(ROOT / "benchmarks" / "cells.py", "table", "--check").returncode == 0
    assert set(cells.CONTENDERS) >= set(cells.CELLS)


@pytest.mark.slow
def test_what_bert_buys_is_trained_compared_and_laid_out(bert: ModuleType, tmp_path: Path) -> None:
    sample = ROOT / "seqlab" / "samples" / "ner"
    corpora, runs, results = (tmp_path / name for name in ("corpora", "runs", "results"))
    (corpora / "wnut17").mkdir(parents=True)
    for part in ("train", "dev", "test"):
        lines = (sample / f"{part}.conll").read_text(encoding="utf-8").split("\n\n")[:40]
        (corpora / "wnut17" / f"{part}.conll").write_text("\n\n".join(lines) + "\n", "utf-8")
    ways = ["bilstm", "bilstm, constrained softmax"]
    script = ROOT / "benchmarks" / "bert.py"
    shared = ["--corpora", "wnut17", "--runs", str(runs), "--results", str(results)]
    small = ["--trainer.max_epochs", "1", "--data.vectors", "null", "--model.hidden_size", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEQLAB_DATA": str(corpora)}

    def done(*words: str) -> str:
        command = [sys.executable, str(script), *words]
        found = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        return found.stdout

    fit = ["fit", *shared, "--ways", *ways, "--seeds", "1", "--", *small]
    assert len(done(*fit).splitlines()) == 2
    assert done(*fit) == ""  # what is there is not trained again
    assert done("compare", *shared, "--rounds", "100").startswith("wnut17: bilstm")
    both = ["--small", ways[0], "--large", ways[1]]
    assert len(done("cascade", *shared, *both).splitlines()) == 3
    table = bert.scores_table(results)
    assert "**WNUT17, entities**: span F1 on test, 40 sentences." in table
    assert all(f"| {way}" in table for way in ways)
    assert "differing" not in (results / "wnut17.json").read_text(encoding="utf-8")
    assert len(bert.calibration_table(results).splitlines()) == 4
    assert bert.summary_table(results).count(" (1) |") == 2
    assert len(bert.cascades_table(results).splitlines()) == 3
    assert "left out" in run(script, "fit").stderr


def test_cells_are_compared_at_nearly_the_same_size(cells: ModuleType) -> None:
    wanted = cells.encoder_size(30, 20, "lstm")
    for name, options in cells.CONTENDERS.items():
        cell = name.split()[0]
        size = cells.equal_size(30, 20, cell, **options)
        around = [cells.encoder_size(30, size + n, cell, **options) for n in (-1, 0, 1)]
        assert min(around, key=lambda found: abs(found - wanted)) == around[1], name


def test_a_row_of_cells_is_mean_and_deviation(cells: ModuleType) -> None:
    base = {"hidden_size": 20, "encoder_parameters": 1234, "val/accuracy": 0.5, "epochs": 2}
    runs = [
        {**base, "seed": seed, "test/accuracy": score, "train/seconds": seconds}
        | {"train/tokens_per_second": 1000.0}
        for seed, score, seconds in [(2, 0.71, 10.0), (1, 0.69, 14.0), (3, 0.70, 20.0)]
    ]
    row = "| gru | 20 | 1,234 | **70.00** ± 1.00 | 1, 2, 3 | 50.00 | 7.0 | 1,000 |"
    assert cells._row("gru", runs) == row


@pytest.fixture
def page(recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "README.md"
    file.write_text(f"before\n\n{recipes.BEGIN}\n{recipes.END}\n\nafter\n", encoding="utf-8")
    monkeypatch.setattr(recipes, "README", file)
    monkeypatch.setattr(recipes, "RESULTS", tmp_path / "results")
    return file


def keep(page: Path, name: str, scores: dict[int, float], **changes: Any) -> None:
    folder = page.parent / "results" / name
    folder.mkdir(parents=True)
    for seed, score in scores.items():
        metrics = {**METRICS, "seed": seed, "test/span_f1": score, **changes}
        (folder / f"seed-{seed}.json").write_text(json.dumps(metrics), encoding="utf-8")


def test_a_table_without_results_is_empty(recipes: ModuleType, page: Path) -> None:
    assert recipes.write_table(check=False) == 0
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("|")][2:] == []
    assert recipes.write_table(check=True) == 0
    assert (lines[0], lines[-1]) == ("before", "after")


def test_a_row_is_mean_deviation_and_median(recipes: ModuleType, page: Path) -> None:
    keep(page, "ner", {1: 0.70, 2: 0.71, 3: 0.75})
    keep(page, "lone", {5: 0.5})
    recipes.write_table(check=False)
    lone, ner = [x for x in page.read_text(encoding="utf-8").splitlines() if x.startswith("| [")]
    cells = [cell.strip() for cell in ner.strip("|").split("|")]
    assert cells == [
        "[ner](ner.yaml)",
        "span F1",
        "**72.00** ± 2.65",
        "1, 2, 3",
        "50.00",
        "10",
        "1,234",
        "600",
        "an abacus, threads: 1",
        "2026-01-31 abcdef0",
    ]
    assert "| **50.00** | 5 |" in lone  # one run has no deviation


def test_a_table_that_disagrees_is_noticed(
    recipes: ModuleType, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(page, "ner", {1: 0.70})
    assert recipes.write_table(check=True) == 1
    assert "run `python benchmarks/recipes.py table`" in capsys.readouterr().out
    recipes.write_table(check=False)
    assert recipes.write_table(check=True) == 0
    page.write_text(page.read_text(encoding="utf-8").replace("70.00", "71.00"), encoding="utf-8")
    assert recipes.write_table(check=True) == 1


def test_a_recipe_that_is_run_in_two_ways_has_a_row_for_each(
    recipes: ModuleType, page: Path
) -> None:
    folder = page.parent / "results" / "pairs"
    folder.mkdir(parents=True)
    names = {"bleu": 40.0, "bleu_lowercased": 41.0, "chrf": 60.0, "ter": 42.0, "perplexity": 5.0}
    scores = {f"test/{name}": value for name, value in names.items()}
    run = {**METRICS, **scores, "monitor": "val/bleu", "val/bleu": 39.0, "parameters": 1234}
    run["test/scorer"] = {"bleu": "nrefs:1"}
    for stem, seed, bleu in (
        ("de-en-seed-1", 1, 40.0),
        ("de-en-seed-2", 2, 42.0),
        ("en-de-seed-1", 1, 38.0),
    ):
        text = json.dumps({**run, "seed": seed, "test/bleu": bleu})
        (folder / f"{stem}.json").write_text(text, encoding="utf-8")
    rows = recipes.table().splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [
        "[pairs](pairs.yaml) de-en",
        "[pairs](pairs.yaml) en-de",
    ]
    assert "| BLEU | **41.00** ± 1.41 | 1, 2 | 39.00 |" in rows[0]
    lines = recipes.translations().splitlines()
    assert lines[2] == (
        "| pairs de-en | 1, 2 | 41.00 ± 1.41 | 41.00 ± 0.00 | 60.00 ± 0.00 | 42.00 ± 0.00 "
        "| 5.00 ± 0.00 | 1,234 |"
    )
    assert lines[-1] == "sacrebleu: BLEU `nrefs:1`."


def test_recipes_of_real_corpora_are_left_out_by_name(
    recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SEQLAB_DATA", raising=False)
    assert recipes.chosen([]) == ["ner-bert", "ner", "sentiment-bert", "sentiment", "translate"]
    assert "left out, as SEQLAB_DATA is unset: chunk-conll2000, " in capsys.readouterr().err
    monkeypatch.setenv("SEQLAB_DATA", "/corpora")
    assert len(recipes.chosen([])) == 15
    with pytest.raises(SystemExit, match="no recipe nre: there are chunk-conll2000, "):
        recipes.chosen(["nre"])


def test_scores_keep_the_metrics_of_every_seed(
    recipes: ModuleType, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(name: str, *words: str) -> dict[str, Any]:
        assert words[0] == "--seed_everything"
        return {**METRICS, "seed": int(words[1]), "test/span_f1": 0.6}

    monkeypatch.setattr(recipes, "fit", fit)
    recipes.scores(["ner"], [4, 5])
    files = sorted((page.parent / "results" / "ner").iterdir())
    assert [file.name for file in files] == ["seed-4.json", "seed-5.json"]
    kept = json.loads(files[0].read_text(encoding="utf-8"))
    assert kept["seed"] == 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["date"])


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    return load("memory")


def test_the_first_of_many_symbols_is_asked_for_at_the_end(memory: ModuleType) -> None:
    x, first = memory.draw_recall(6, 40, memory.generator_of("testing", 6))
    assert x.shape == (40, 8, 13)
    ids = x.argmax(-1)
    assert x.sum(-1).eq(1).all()
    assert ids[:, 0].tolist() == first.tolist()
    assert set(first.tolist()) == set(range(8))
    assert set(ids[:, 1:-1].flatten().tolist()) == {8, 9, 10, 11}
    assert set(ids[:, -1].tolist()) == {12}


def test_two_numbers_are_marked_one_in_each_half(memory: ModuleType) -> None:
    x, sums = memory.draw_adding(7, 40, memory.generator_of("testing", 7))
    for rows, wanted in zip(x.tolist(), sums[:, 0].tolist(), strict=True):
        marked = [place for place, (_, mark) in enumerate(rows) if mark]
        assert len(marked) == 2
        assert marked[0] < 3 <= marked[1]
        assert sum(rows[place][0] for place in marked) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["recall", "adding"])
def test_a_baseline_is_the_error_of_an_answer_that_looks_at_nothing(
    memory: ModuleType, name: str
) -> None:
    task = memory.TASKS[name]
    _, wanted = task.draw(4, 20_000, memory.generator_of("testing", 4))
    answers = wanted.new_ones(wanted.shape) if name == "adding" else wanted.new_zeros(20_000, 8)
    assert task.error(answers, wanted).item() == pytest.approx(task.baseline, abs=0.01)


def test_every_purpose_and_seed_has_sequences_of_its_own(memory: ModuleType) -> None:
    keys = [(p, length, seed) for p in memory.PURPOSES for length in (5, 6) for seed in (0, 1)]
    drawn = {memory.generator_of(*key).initial_seed() for key in keys}
    assert len(drawn) == len(keys)


def test_cells_have_about_as_many_parameters(memory: ModuleType) -> None:
    for task in memory.TASKS.values():
        counts = [
            memory.parameters_of(memory.Reader(task, name, memory.equal_size(task, name, 32), 9))
            for name in memory.CONTENDERS
        ]
        assert len(counts) == 10
        assert max(counts) < 1.04 * min(counts)


def test_gates_start_open_to_the_past_and_shut_to_the_input(memory: ModuleType) -> None:
    def biases(name: str) -> Any:
        (layer,) = memory.Reader(memory.TASKS["adding"], name, 1, 20).encoder.forward_layers
        weights = dict(layer.named_parameters())
        return weights.get("bias", weights.get("bias_ih_l0")).tolist()

    log = math.log(20)
    for name in ("lstm", "peephole", "layernorm"):
        assert biases(name) == pytest.approx([-log, log, 0, 0])
    for name in ("no-forget", "coupled"):
        assert biases(name) == pytest.approx([-log, 0, 0])
    assert biases("gru") == pytest.approx([0, log, 0])
    assert biases("lstm-bias-1") == [0, 1, 0, 0]
    assert biases("rnn") == [0]


def test_a_gradient_is_measured_by_its_distance_from_the_end(memory: ModuleType) -> None:
    model = memory.Reader(memory.TASKS["adding"], "rnn", 1, 100)
    (layer,) = model.encoder.forward_layers
    for weight, value in ((layer.weight_ih_l0, 1e-3), (layer.weight_hh_l0, 0.25)):
        weight.data.fill_(value)
    model.answer.weight.data.fill_(2.0)
    parts = memory.gradients(model, 100)  # of 100 steps, 3 are in each of the first parts
    assert len(parts) == 40
    step = 2.0 * 1e-3 * 2**0.5  # tanh is all but straight near zero
    assert parts[0] == pytest.approx(step * (1 + 0.25 + 0.0625) / 3, rel=0.01)
    assert parts[1] == pytest.approx(parts[0] / 64, rel=0.02)
    assert 0 < parts[-1] < 1e-45  # too small for 32 bits


@pytest.mark.parametrize(
    ("error", "steps", "errors"), [(0.005, 500, 2), (0.006, 60, 4), (0.006, 75, 4)]
)
def test_a_run_ends_when_it_has_solved_its_task_twice(
    memory: ModuleType, error: float, steps: int, errors: int
) -> None:
    task = memory.TASKS["adding"]._replace(error=lambda *_: torch.tensor(error))
    model, source = memory.Reader(task, "rnn", 1, 4), memory.generator_of("training", 4)
    found, diverged = memory.fit(model, source, 4, 0.0, steps, task.draw(4, 2, source))
    assert found == [error] * errors
    assert memory.to_the_end(found, steps) == [error] * {500: 21, 60: 4, 75: 4}[steps]
    assert not diverged


def test_a_run_ends_when_a_gradient_is_no_number(memory: ModuleType) -> None:
    task = memory.TASKS["adding"]._replace(loss=lambda *x: memory.TASKS["adding"].loss(*x) / 0)
    model, source = memory.Reader(task, "rnn", 1, 4), memory.generator_of("training", 4)
    found, diverged = memory.fit(model, source, 4, 0.1, 50, task.draw(4, 2, source))
    assert diverged
    assert len(found) == 1


WORDS = {"task": ["recall", "adding"], "cells": ["gru", "rnn"], "lengths": [4], "seeds": [1]}


@pytest.fixture(scope="module")
def measured(memory: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("memory")
    args = {**WORDS, "steps": 2, "hidden": 2, "results": folder / "memory.json"}
    assert memory.run(argparse.Namespace(**args)) == 0
    return argparse.Namespace(**args)


def test_runs_are_kept_and_not_made_again(
    memory: ModuleType, measured: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = json.loads(measured.results.read_text(encoding="utf-8"))
    assert [(run["task"], run["cell"]) for run in kept["runs"]] == [
        (task, cell) for task in WORDS["task"] for cell in WORDS["cells"]
    ]
    assert {len(rates) for cells in kept["rates"].values() for rates in cells.values()} == {4}
    for run in kept["runs"]:
        rates = kept["rates"][run["task"]][run["cell"]]
        assert rates[str(run["rate"])] == min(rates.values())
        assert len(run["fresh"]) == len(run["trained"]) == {"recall": 6, "adding": 4}[run["task"]]
    made: list[Any] = []
    monkeypatch.setattr(memory, "measure", lambda kept, *key: made.append(key) or kept.runs[0])
    before = measured.results.read_text(encoding="utf-8")
    memory.run(measured)
    assert made == []
    memory.run(argparse.Namespace(**{**vars(measured), "lengths": [4, 5], "task": ["recall"]}))
    assert made == [("recall", "gru", 5, 1), ("recall", "rnn", 5, 1)]
    measured.results.write_text(before, encoding="utf-8")


def test_the_same_run_gives_the_same_numbers(
    memory: ModuleType, measured: argparse.Namespace
) -> None:
    kept = memory.Kept(measured.results)
    again = memory.measure(kept, "adding", "gru", 4, 1)
    (first,) = kept.find(task="adding", cell="gru")
    assert [again[k] for k in ("errors", "test", "fresh", "trained")] == [
        first[k] for k in ("errors", "test", "fresh", "trained")
    ]


def test_runs_of_other_settings_are_not_mixed(
    memory: ModuleType, measured: argparse.Namespace
) -> None:
    with pytest.raises(UsageError, match=r"memory.json: .* with steps 2, not 3: .*--results"):
        memory.run(argparse.Namespace(**{**vars(measured), "steps": 3}))


@pytest.fixture
def kept(memory: ModuleType, tmp_path: Path) -> Any:
    kept = memory.Kept(tmp_path / "memory.json")
    kept.settings = {"steps": 50}
    for cell, length, seed, test in (
        ("rnn", 5, 1, 0.004),
        ("rnn", 5, 2, 0.005),
        ("rnn", 5, 3, 0.2),
        ("rnn", 10, 1, 0.1),
        ("lstm", 5, 1, 0.001),
    ):
        run = {"task": "adding", "cell": cell, "length": length, "seed": seed, "test": test}
        run |= {"hidden": 7, "parameters": 1234, "rate": 0.01, "seconds": 30.0, "made": "today"}
        run |= {"errors": [0.2, test], "fresh": [0.1, 1e-5, 2e-9], "trained": [1.0, 0.5, 0.25]}
        kept.runs.append({**run, "hardware": "an abacus"})
    return kept


def test_a_table_has_the_middle_of_the_seeds_and_how_many_solved_it(
    memory: ModuleType, kept: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "memory.md"
    page.write_text(f"before\n\n{memory.BEGIN}\n{memory.END}\n\nafter\n", encoding="utf-8")
    assert memory.write_table(kept, page, check=True) == 1
    assert "run `python benchmarks/memory.py table`" in capsys.readouterr().out
    assert memory.write_table(kept, page, check=False) == 0
    assert memory.write_table(kept, page, check=True) == 0
    lines = page.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert [line for line in lines if line.startswith("| ")] == [
        "| cell | units | parameters | rate | length 5 | length 10 |",
        "| --- | --- | --- | --- | --- | --- |",
        "| lstm | 7 | 1,234 | 0.01 | **0.0010** (1/1) |  |",
        "| rnn | 7 | 1,234 | 0.01 | **0.0050** (2/3) | 0.1000 (0/1) |",
        "| *baseline* | | | | 0.1667 | 0.1667 |",
        "| cell | fresh: near | middle | far | trained: near | middle | far |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| rnn | 1e-01 | 1e-05 | 2e-09 | 1e+00 | 5e-01 | 2e-01 |",
    ]
    told = "Seeds 1, 2, 3; 5 runs of at most 50 steps in 2 minutes of one core; an abacus; today."
    assert told in lines


def test_pictures_are_drawn_from_kept_runs(memory: ModuleType, kept: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for draw in (memory.plot_curves, memory.plot_gradients):
        draw(kept, tmp_path / "pictures" / "one.png")
        picture = (tmp_path / "pictures" / "one.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        (tmp_path / "pictures" / "one.png").unlink()


def test_a_missing_matplotlib_is_named_with_its_extra(
    memory: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", ["memory.py", "plot"])
    assert memory.main() == 1
    assert "pip install 'seqlab[plots]'" in capsys.readouterr().err


def test_the_page_on_memory_shows_the_kept_runs(memory: ModuleType) -> None:
    kept = memory.Kept(memory.RESULTS)
    assert memory.write_table(kept, memory.PAGE, check=True) == 0
    keys = {(run["task"], run["cell"], run["length"], run["seed"]) for run in kept.runs}
    assert len(keys) == len(kept.runs) == len(memory.TASKS) * len(memory.CONTENDERS) * 4 * 3
    for name in ("memory.png", "memory-gradients.png"):
        assert f"(pictures/{name})" in memory.PAGE.read_text(encoding="utf-8")
        assert 10_000 < (memory.PICTURES / name).stat().st_size < 200_000


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("side_by_side")


def test_contenders_take_turns_and_the_first_turn_does_not_count(side_by_side: ModuleType) -> None:
    turns: list[tuple[str, int]] = []

    def contender(name: str) -> Any:
        def run(number: int) -> dict[str, Any]:
            turns.append((name, number))
            return {"value": number} if name != "absent" else {}

        return run

    found = side_by_side.rounds_of({n: contender(n) for n in ("a", "absent", "b")}, 2)
    assert found == {"a": [{"value": 1}, {"value": 2}], "b": [{"value": 1}, {"value": 2}]}
    assert turns[3:] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_contender_that_goes_away_is_no_result(side_by_side: ModuleType) -> None:
    with pytest.raises(SystemExit, match="a took part no longer in round 2"):
        side_by_side.rounds_of({"a": lambda number: {"x": 1} if number < 2 else {}}, 2)


def test_a_ratio_is_the_median_of_the_rounds_ratios(side_by_side: ModuleType) -> None:
    measured = {"base": [1.0, 10.0, 4.0], "ours": [2.0, 30.0, 20.0]}
    base, ours = side_by_side.compared(measured, ["base", "absent"], more={"ours": 7})
    assert (ours["median"], ours["ratios"], ours["more"]) == (20.0, {"base": 3.0}, 7)
    assert (base["ratios"], "more" in base) == ({"base": 1.0}, False)


def test_the_newest_results_of_every_part_count(
    side_by_side: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(side_by_side, "RESULTS", tmp_path)
    for day, part, value in (("01", "a", 1), ("01", "b", 2), ("02", "b", 3), ("01", "a", 4)):
        side_by_side.keep("kind", part, {"value": value}, tmp_path / "kind" / f"2026-01-{day}.json")
    assert side_by_side.newest("kind") == {"a": {"value": 4}, "b": {"value": 3}}


def test_facts_say_what_numbers_hold_for(side_by_side: ModuleType) -> None:
    facts = side_by_side.facts(other="1.2")
    assert set(facts) == {"date", "commit", "hardware", "load", "versions"}
    assert facts["versions"]["other"] == "1.2"
    assert facts["versions"]["torch"] == torch.__version__


CONTENDER = """
import sys
sys.path.insert(0, {peers!r})
from worker import SkippedError, serve


class Contender:
    versions = {{"it": "1"}}

    def __init__(self, corpus, threads, skip=False):
        print("noise")
        if skip:
            raise SkippedError("it is not installed.")

    def double(self, value):
        print("more noise")
        return {{"value": 2 * value}}

    def die(self):
        raise RuntimeError("a defect")


serve(Contender)
"""


@pytest.fixture
def worker(side_by_side: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    text = CONTENDER.format(peers=str(ROOT / "benchmarks" / "peers"))
    (tmp_path / "it.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(side_by_side, "PEERS", tmp_path)
    return functools.partial(side_by_side.Worker, "it.py", corpus=tmp_path, threads=1)


def test_a_contender_answers_whatever_its_libraries_print(worker: Any) -> None:
    with worker() as one:
        assert one.ask("double", value=4) == {"value": 8}
        assert one.ask("double", value=5) == {"value": 10}
        assert (one.versions, one.skipped) == ({"it": "1"}, "")
        assert one.peak_memory_mb > 1


def test_a_contender_that_is_not_installed_says_so(worker: Any) -> None:
    with worker(skip=True) as one:
        assert one.ask("double", value=4) == {}
        assert one.skipped == "it is not installed."


def test_a_contender_that_fails_ends_the_benchmark_with_its_traceback(worker: Any) -> None:
    with worker() as one, pytest.raises(SystemExit, match="(?s)code 1:.*RuntimeError: a defect"):
        one.ask("die")


def test_a_python_that_is_not_there_is_named(worker: Any) -> None:
    with pytest.raises(SystemExit, match="cannot start /no/python: No such file"):
        worker(python="/no/python")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = ROOT / "benchmarks" / "peers"
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = [{"words": ["It", "rains", "."], "tags": ["A", "B", "C"]}]
    lines.append({"words": ["Rains"], "tags": ["B"]})
    for split in ("train", "validation", "test"):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


PRINTING = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--config", required=True)
settings = dict(x.split("=") for x in open(parser.parse_args().config).read().split())
assert settings["hidden_dim"] == "200"
assert pathlib.Path(settings["train_dir"]).read_text().startswith("It A\\nrains B\\n. C\\n\\n")
print("Epoch: 0 training finished. Time: 0.50s, speed: 2.00st/s,  total loss: 3.1")
print("Test: time: 0.25s, speed: 8.00st/s; acc: 0.5000")
"""


def test_the_speed_of_a_checkout_of_ncrfpp_is_what_it_prints(
    peers: Path, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(PRINTING, encoding="utf-8")
    contender = load("peers/ncrfpp_tagger").Ncrfpp(str(corpus), 1, checkout=str(tmp_path))
    assert contender.train(seed=1, sentences=2) == {"tokens": 4, "seconds": 1.0}
    assert contender.predict(seed=1) == {"tokens": 4, "seconds": 0.25}


@pytest.mark.parametrize(("name", "package"), [("flair", "flair"), ("spacy", "spacy")])
def test_a_peer_that_is_not_installed_says_what_to_do(
    peers: Path, corpus: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    module = load(f"peers/{name}_tagger")
    with pytest.raises(module.SkippedError, match=f"pip install {package}`.*--peer-python {name}="):
        getattr(module, name.capitalize())(str(corpus), 1)


def test_the_plain_tagger_reads_padded_sentences(peers: Path, corpus: Path) -> None:
    plain = load("peers/plain_tagger")
    sentences = plain.read(str(corpus), "train")
    ids = plain.Ids(sentences)
    batch = plain.Encoded(sentences, ids).batch([1, 0])
    words, letters = ids.words, ids.characters
    assert batch.words.tolist() == [
        [words["rains"], 0, 0],
        [words["it"], words["rains"], words["."]],
    ]
    assert batch.characters[0, 0].tolist() == [letters[c] for c in "Rains"]
    assert batch.characters[1, 2].tolist() == [letters["."], 0, 0, 0, 0]
    assert batch.characters[0, 1:].eq(0).all()
    assert batch.mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.tags[1].tolist() == [0, 1, 2]


class Parts(torch.nn.Module):
    """A model with the parts that are watched."""

    def __init__(self) -> None:
        super().__init__()
        self.embedder, self.encoder = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        self.emit, self.crf = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.crf(self.emit(self.encoder(self.embedder(x)))).sum()


def test_the_parts_of_a_step_are_told_from_one_another(
    peers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = load("peers/steps")
    laps: list[str] = []
    model = Parts()
    watch = steps.Watch(model)
    monkeypatch.setattr(steps.Watch, "lap", lambda self, part: laps.append(part))
    model(torch.ones(3, 2)).backward()
    forward = ["embedder, forward", "rest of forward", "encoder, forward"]
    forward += ["rest of forward", "crf, forward"]
    assert laps[0] == "rest of forward"
    assert laps[1:6] == forward
    assert laps[6:] == ["crf, backward", "rest of backward", "encoder, backward"]
    assert watch.parts == {}


@pytest.fixture
def crf(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("crf")


def test_the_crf_that_others_are_compared_with_is_right(crf: ModuleType) -> None:
    emissions, gold, _ = crf.case((2, 3, 3), ragged=False)
    emissions = emissions.double()
    start, between, end = (torch.randn(n).double() for n in ((3,), (3, 3), (3,)))

    def score(row: int, path: Sequence[int]) -> torch.Tensor:
        steps = sum(between[a, b] for a, b in itertools.pairwise(path))
        seen = sum(emissions[row, t, tag] for t, tag in enumerate(path))
        return start[path[0]] + end[path[-1]] + steps + seen

    paths = list(itertools.product(range(3), repeat=3))
    totals = [torch.stack([score(row, path) for path in paths]).logsumexp(0) for row in range(2)]
    wanted = sum(totals) - sum(score(row, gold[row].tolist()) for row in range(2))
    found = crf.reference(emissions, gold, [start, between, end])
    assert found.item() == pytest.approx(float(wanted))


def test_ragged_sentences_have_all_lengths_from_a_quarter_on(crf: ModuleType) -> None:
    _, _, mask = crf.case((256, 40, 9), ragged=True)
    lengths = mask.sum(1)
    assert (int(lengths.min()), int(lengths.max())) == (10, 40)
    assert crf.case((2, 5, 3), ragged=False)[2].all()


@pytest.fixture
def tagger(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("tagger")


def test_epochs_are_noted_once_and_whole(tagger: ModuleType, tmp_path: Path) -> None:
    history, curve = tmp_path / "history.jsonl", list[dict[str, float]]()
    tagger._follow(history, curve, 0.5)
    line = json.dumps({"epoch": 0, "val/accuracy": 0.5})
    for text, now in ((line, 1.0), (f"{line}\n", 2.0), (f"{line}\n{line}", 3.0)):
        history.write_text(text, encoding="utf-8")
        tagger._follow(history, curve, now)
    assert curve == [{"at": 2.0, "accuracy": 0.5}]


def test_all_contenders_see_the_words_that_seqlab_sees(tagger: ModuleType, tmp_path: Path) -> None:
    folder = tagger.write_corpus("sample:ner", tmp_path)
    first = (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()[0]
    sentence = json.loads(first)
    assert len(sentence["words"]) == len(sentence["tags"]) > 2


@pytest.mark.parametrize("name", ["crf", "scale", "tagger", "translate"])
def test_the_page_on_speed_shows_the_newest_results(name: str) -> None:
    done = run(ROOT / "benchmarks" / f"{name}.py", "table", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        *(
            (name, words, said)
            for name in ("tagger", "translate")
            for words, said in (
                (["train"], "Set SEQLAB_DATA to where your corpora are"),
                (["table", "train"], "`table` stands alone"),
            )
        ),
        ("tagger", ["gpu", "--quick"], "There is no NVIDIA GPU here"),
        ("scale", ["gpu", "--quick"], "There is no NVIDIA GPU here"),
        ("scale", ["processes"], "Set SEQLAB_DATA to where your corpora are"),
        ("tagger", ["--peers", "flair,spacey"], "no peer spacey: choose flair,spacy,ncrfpp"),
        ("tagger", ["--peer-python", "flair"], "write it as flair=ENV/bin/python"),
        ("translate", ["--peers", "joey"], "no peer joey: choose joeynmt,opennmt"),
        ("translate", ["--peer-python", "joeynmt="], "write it as joeynmt=ENV/bin/python"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(name: str, words: list[str], said: str) -> None:
    done = run(ROOT / "benchmarks" / f"{name}.py", *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def pairs(peers: Path) -> ModuleType:
    sys.modules.pop("pairs", None)
    return importlib.import_module("pairs")


@pytest.fixture(scope="module")
def vocabulary() -> SubwordVocabulary:
    texts = ["a dog runs", "ein Hund läuft", "two dogs run", "zwei Hunde laufen"]
    return SubwordVocabulary(train_tokenizer(iter(texts), "words", 100), language=None)


@pytest.fixture
def ids(tmp_path: Path, vocabulary: SubwordVocabulary) -> Path:
    """Two batches to train on, and three sentences to translate."""
    batches = [[[[5, 6, 7], [8]], [[9, 10], [11, 12, 5]]], [[[5]], [[6]]]]
    rows = {"train": batches, "test": [[5, 6], [7, 8, 9, 10], [11]], "size": [len(vocabulary)]}
    for name, some in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "gold.txt").write_text("a dog\ntwo dogs\na dog runs", encoding="utf-8")
    (tmp_path / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
    return tmp_path


def test_all_translators_get_the_same_batches(pairs: ModuleType, ids: Path) -> None:
    corpus = pairs.Corpus(str(ids))
    first, second = corpus.batches(0, 2)
    assert first.source.tolist() == [[5, 6, 7, 3], [8, 3, 0, 0]]
    assert first.source_lengths.tolist() == [4, 2]
    assert first.begun.tolist() == [[2, 9, 10, 3, 0], [2, 11, 12, 5, 3]]
    assert first.target_lengths.tolist() == [3, 4]
    assert second.source.tolist() == [[5, 3]]
    again = [batch.source.tolist() for batch in corpus.batches(1, 1)]
    assert again == [second.source.tolist()]
    assert corpus.size == 16  # twelve words, and what is no word


def test_steps_are_timed_without_what_prepares_them(pairs: ModuleType, ids: Path) -> None:
    done: list[Any] = []
    batches = pairs.Corpus(str(ids)).batches(0, 2)
    answer = pairs.trained(batches, lambda batch: len(batch.source), done.append)
    assert done == [2, 1]
    assert (answer["tokens"], answer["steps"]) == (9, 2)
    assert answer["seconds"] >= 0


def test_translations_are_given_back_in_the_order_of_the_sentences(pairs: ModuleType) -> None:
    seen: list[list[list[int]]] = []

    def echo(source: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
        seen.append(source.tolist())
        rows = [row[:n] for row, n in zip(source.tolist(), lengths.tolist(), strict=True)]
        return [[2, *row, 9, 9] for row in rows]

    sources = [[5, 6], [7, 8, 9, 10], [11]]
    answer = pairs.translated(sources, 2, echo)
    assert answer["found"] == sources
    assert answer["sentences"] == 3
    assert seen == [[[7, 8, 9, 10, 3], [5, 6, 3, 0, 0]], [[11, 3]]]


def test_names_are_numbered_as_the_ids_are(pairs: ModuleType) -> None:
    names = pairs.Names(6, ("<blank>", "<unk>", "<s>", "</s>"))
    assert [names[name] for name in names.ids_to_tokens] == list(range(6))
    assert (names["<blank>"], names["<s>"], names["</s>"]) == (
        pairs.PADDING,
        pairs.BEGIN,
        pairs.END,
    )
    assert names.lookup_token("unheard of") == pairs.UNKNOWN
    assert names.lookup_index(names.lookup("t5")) == "t5"


def test_weights_of_other_names_are_refused(pairs: ModuleType) -> None:
    model = torch.nn.Linear(2, 1)
    pairs.fill(model, {"weight": torch.ones(1, 2), "bias": torch.ones(1)})
    assert model.weight.tolist() == [[1.0, 1.0]]
    with pytest.raises(ValueError, match=r"other parameters: \['bias', 'wait', 'weight'\]"):
        pairs.fill(model, {"wait": torch.ones(1, 2)})


@pytest.mark.parametrize(
    ("name", "contender", "package", "pip"),
    [
        ("joeynmt", "JoeyNMT", "joeynmt", "joeynmt"),
        ("opennmt", "OpenNMT", "onmt", "OpenNMT-py"),
    ],
)
def test_a_translator_that_is_not_installed_says_what_to_do(
    pairs: ModuleType,
    ids: Path,
    name: str,
    contender: str,
    package: str,
    pip: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(pairs, "stand_in", lambda *names, **others: None)
    module = load(f"peers/{name}_translator")
    with pytest.raises(module.SkippedError, match=f"pip install {pip}`.*{name}=ENV/bin/python"):
        getattr(module, contender)(str(ids), 1, dropout=0.0, smoothing=0.0)


def test_untied_and_tied_translators_get_the_same_weights(pairs: ModuleType, ids: Path) -> None:
    made = load("peers/seqlab_translator").Seqlab
    words = {"corpus": str(ids), "threads": 1, "dropout": 0.0, "smoothing": 0.1}
    tied, untied = made(**words), made(**words, tie="none")
    file = str(ids / "weights.pt")
    assert tied.learn(steps=6, file=file) == {"steps": 6}
    for one in (tied, untied):
        one.load(file)
    for beam in (1, 3):
        answers = [
            one.translate(sentences=3, batch=2, beam=beam)["found"] for one in (tied, untied)
        ]
        assert answers[0] == answers[1]
    assert 0 <= tied.bleu()["bleu"] <= 100


def test_the_parts_of_a_translators_step_are_told_from_one_another(
    pairs: ModuleType, ids: Path
) -> None:
    made = load("peers/seqlab_translator")
    contender = made.Seqlab(str(ids), 1, dropout=0.0, smoothing=0.1)
    answer = contender.profile(seed=0, batches=2)
    parts = ("embeddings", "encoder", "bridge and memory", "decoder", "loss")
    ways = {f"{part}, {way}" for part in parts for way in ("forward", "backward")}
    assert set(answer["parts"]) == {*ways, "batch", "clipping", "optimizer"}
    assert answer["steps"] == 2
    search = contender.search_profile(sentences=3, batch=2, beam=2)
    assert set(search["parts"]) == {"encoder", "decoder steps", "search"}
    assert min(search["parts"].values()) > 0


@pytest.fixture
def translate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("translate")


def test_translations_that_depend_on_the_batch_are_counted(translate: ModuleType) -> None:
    found = {"a": [[1], [2]], "b": [[1], [3]]}
    cases = [{"beam": 5, "found": found}, {"beam": 1, "found": {}}]
    cases += [{"beam": 5, "found": {"a": [[1], [2], [4]], "b": [[1], [2], [4]]}}]
    assert translate._alone(cases, 5) == {"a": [2, 2], "b": [1, 2]}


def decoded(title: str, speeds: dict[str, float], alike: dict[str, int]) -> dict[str, Any]:
    rows = [
        {"name": name, "median": speed, "alike": alike[name]}
        | {"ratios": {"OpenNMT-py": speed / speeds["OpenNMT-py"]}}
        for name, speed in speeds.items()
    ]
    return {"title": title, "sentences": 8, "compared_with": "OpenNMT-py", "rows": rows}


def test_tables_of_translation_say_what_the_results_say(
    translate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"date": "2026-01-31", "commit": "abc", "hardware": "an abacus", "versions": {"x": "1"}}
    speeds = {"OpenNMT-py": 10.0, "seqlab": 45.04}
    decoding = {
        "cases": [decoded("greedy, batch 1", speeds, {"OpenNMT-py": 8, "seqlab": 7})],
        "alone": {"greedy": {"OpenNMT-py": [8, 8], "seqlab": [6, 8]}},
        "bleu": 27.25,
    }
    profile = {
        "steps": [{"name": "seqlab", "ms": {"batch": 1.0, "decoder": 2.5}, "together": 3.5}],
        "decoding": [{"name": "seqlab, greedy", "ms": {"search": 0.25}, "together": 0.25}],
    }
    parts = {"decode": decoding, "profile": profile}
    newest = {name: {**made, "rounds": 3, **part} for name, part in parts.items()}
    monkeypatch.setattr(translate.side_by_side, "newest", lambda kind: newest)
    lines = translate.table().splitlines()
    assert [line for line in lines if line.startswith("|") and "---" not in line] == [
        "| sentences/s (against OpenNMT-py) | greedy, batch 1 |",
        "| OpenNMT-py | 10.0 |",
        "| seqlab | 45.0 (4.5×) |",
        "| translated as OpenNMT-py does | greedy, batch 1 | alone as among 64, greedy |",
        "| OpenNMT-py | 8/8 | 8/8 |",
        "| seqlab | 7/8 | 6/8 |",
        "| ms a training step | seqlab |",
        "| batch | 1.00 |",
        "| decoder | 2.50 |",
        "| together | 3.50 |",
        "| ms a sentence | search | together |",
        "| seqlab, greedy | 0.25 | 0.25 |",
    ]
    said = "Medians of 3 rounds; 2026-01-31 abc; an abacus; x 1."
    assert [line for line in lines if "Medians" in line] == [
        f"Greedy BLEU of the weights: 27.2. {said}",
        said,
    ]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load("scale")


def test_tables_of_scale_say_what_the_results_say(
    scale: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"name": name, "median": speed, "ratios": {scale.ONE: speed / 1000}, "step_ms": 20.0}
        | {"tokens_per_step": 500.0, "gradient_bytes": 2e6}
        for name, speed in ((scale.ONE, 1000.0), (scale.TWO_THREADS, 1500.0), (scale.TWO, 1900.0))
    ]
    made = {"date": "2026-01-31", "commit": "abc", "hardware": "an abacus", "versions": {"x": "1"}}
    record = {**made, "rounds": 3, "steps": 9, "note": "Busy.", "models": []}
    record["models"] = [{"model": "tagger", "rows": rows}]
    monkeypatch.setattr(scale.side_by_side, "newest", lambda kind: {"processes": record})
    lines = scale.table().splitlines()
    assert "| tagger | 2 processes, 1 thread each | 1,900 | 1.90× | 20.0 |" in lines
    assert "Medians of 3 rounds of 9 steps; 2026-01-31 abc; an abacus; x 1. Busy." in lines
    assert any(line.startswith("**A calculation, not a measurement.**") for line in lines)
    found = next(line for line in lines if "to send" in line)  # of the faster one of one process
    assert found.startswith("| tagger | 20.0 ms (1 process, 2 threads, this CPU) | 2.0 MB | ")
    monkeypatch.setattr(scale.side_by_side, "newest", lambda kind: {})
    assert scale.table() == "Nothing was measured yet."


def test_rings_send_each_byte_nearly_twice(scale: ModuleType) -> None:
    size = 1e9
    assert scale.all_reduce_seconds(size, 1) == 0
    inside = 2 * 7 / 8 * size / 450e9
    assert scale.all_reduce_seconds(size, 8) == pytest.approx(inside)
    between = 2 * 7 / 8 * (size / 8) / 50e9  # eight machines, each GPU with its eighth
    assert scale.all_reduce_seconds(size, 64) == pytest.approx(inside + between)


def test_a_step_on_many_gpus_waits_for_what_it_cannot_hide(scale: ModuleType) -> None:
    row = {"step_ms": 10.0, "tokens_per_step": 1000.0, "gradient_bytes": 4.5e9}  # 17.5 ms to send
    alone = scale.calculated(row, 1, 0.0)
    assert alone["tokens_per_second"] == pytest.approx(100_000)
    made = scale.calculated(row, 8, 0.5)
    assert made["sent_ms"] == pytest.approx(17.5)
    assert made["step_ms"] == pytest.approx(10 + 17.5 - 5)
    assert made["tokens_per_second"] == pytest.approx(8 * 1000 / 22.5e-3)
    assert scale.calculated({**row, "gradient_bytes": 1e6}, 64, 0.5)["efficiency"] == 1.0

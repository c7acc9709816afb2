"""Every script in ``benchmarks/`` runs, and the table of scores says what the results say."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
# What each script is run with, to be done soon; every script must have its words here.
SMOKE = {"recipes": ["speed", "ner"]}
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("SEQLAB_DATA", None)
    command = [sys.executable, str(script), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def recipes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipes", ROOT / "benchmarks" / "recipes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_benchmarks_are_found() -> None:
    assert {script.stem for script in SCRIPTS} == set(SMOKE)
    assert len(SCRIPTS) == 1


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_runs(script: Path) -> None:
    done = run(script, *SMOKE[script.stem])
    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()
    assert head.split()[0] == "recipe"
    assert re.fullmatch(r"ner +[\d,]+ +[\d,]+ +[\d,]+  .*threads: \d+.*", row)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_explains_itself(script: Path) -> None:
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
    assert f"python benchmarks/{script.name} " in script.read_text(encoding="utf-8")


def test_the_table_of_scores_fits_the_results(recipes: ModuleType) -> None:
    assert recipes.write_table(check=True) == 0


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


def test_recipes_of_real_corpora_are_left_out_by_name(
    recipes: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SEQLAB_DATA", raising=False)
    assert recipes.chosen([]) == ["ner"]
    assert "left out, as SEQLAB_DATA is unset: chunk-conll2000, " in capsys.readouterr().err
    monkeypatch.setenv("SEQLAB_DATA", "/corpora")
    assert len(recipes.chosen([])) == 6
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

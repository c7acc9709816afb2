"""A smoke run of every script in benchmarks/, found by globbing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("*.py"))


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {k: v for k, v in os.environ.items() if k != "SEQLAB_DATA"}
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        env={**known, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_benchmark_has_a_smoke_run_here() -> None:
    assert SCRIPTS == ["recipes.py"]


def test_the_table_of_the_recipes_fits_their_results() -> None:
    done = run("recipes.py", "table", "--check")
    assert (done.returncode, done.stdout) == (0, "the table fits the results\n")


@pytest.mark.slow
def test_the_speed_of_a_recipe_is_printed_and_others_are_left_out_by_name() -> None:
    done = run("recipes.py", "speed", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("left out, as SEQLAB_DATA is unset: chunk-conll2000, ner-btc")
    header, row = done.stdout.splitlines()
    assert header.split() == [
        "recipe",
        "train",
        "tokens/s",
        "test",
        "tokens/s",
        "peak",
        "MB",
        "hardware",
    ]
    name, train, test, memory, *_ = row.split()
    assert name == "ner"
    assert min(float(x.replace(",", "")) for x in (train, test, memory)) > 100


def test_an_unknown_recipe_is_named() -> None:
    done = run("recipes.py", "speed", "nerr")
    assert done.returncode == 1
    assert done.stderr.startswith("no recipe nerr: there are chunk-conll2000, ")

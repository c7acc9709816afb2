"""The largest batches that fit: a line through trials, and a run that finds its number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from seqlab import budget
from seqlab.__main__ import main
from seqlab.budget import SHARE, Found, largest, line, told
from seqlab.errors import TrainingError

TRIALS = [(10, 1300), (20, 1600), (40, 2200)]  # 1000 for all, and 30 a token


def test_a_line_is_laid_through_trials() -> None:
    assert line(TRIALS) == (1000, 30)
    assert line([(10, 5)]) == (5, 0)
    assert line([(10, 100), (20, 90)]) == (95, 0)  # less for more is noise


@pytest.mark.parametrize(
    ("free", "reserved", "limit", "tokens"),
    [(20_000, 0, 10**6, 500), (20_000, 3000, 10**6, 400), (20_000, 0, 499, 499)],
)
def test_the_largest_budget_keeps_to_its_share(
    free: int, reserved: int, limit: int, tokens: int
) -> None:
    found = largest(free, TRIALS, reserved, limit)
    assert found == Found(tokens, 1000 + reserved, 30.0, free, limit)
    assert found.fixed + 30 * found.tokens <= SHARE * free


def test_where_not_even_one_sequence_fits_it_is_said() -> None:
    with pytest.raises(TrainingError, match=r"alone, of 10 tokens, takes 4\.0 GB of the 1\.0 GB"):
        largest(1 << 30, TRIALS, 4 << 30, 10**6)


def test_what_was_found_is_said() -> None:
    said = told(Found(2000, 1 << 30, 10_240.0, 8 << 30, 3000))
    assert said == (
        "a batch has up to 2,000 tokens, at 10 kB each and 1.0 GB for all, of 8.0 GB that are free."
    )
    assert "(all that data.batch_size" in told(Found(3000, 0, 1.0, 8, 3000))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured under Linux")
def test_a_run_ends_as_if_the_number_had_stood_in_its_recipe(
    working_in: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "ner", "--trainer.max_epochs", "1", "--model.hidden_size", "8"]
    words += ["--trainer.accelerator", "cpu", "--data.batch_size", "100"]
    with working_in(tmp_path) as patch:
        patch.setattr(budget, "free_memory", lambda device: 40 << 20)
        patch.setattr(budget, "_trial", lambda trainer, model, batch: _tried(model, batch))
        assert main([*words, "--data.tokens_per_batch", "auto"]) == 0
        said = capsys.readouterr().err
        recipe = yaml.safe_load(Path("runs/ner/1/recipe.yaml").read_text(encoding="utf-8"))
        number = recipe["data"]["init_args"]["tokens_per_batch"]
        assert f"seqlab: a batch has up to {number:,} tokens, at " in said
        metrics = json.loads(Path("runs/ner/1/metrics.json").read_text(encoding="utf-8"))
        assert metrics["budget"]["tokens"] == number < metrics["budget"]["limit"]
        assert main([*words, "--data.tokens_per_batch", str(number)]) == 0
        ends = [
            torch.load(f"runs/ner/{run}/last.ckpt", weights_only=True)["state_dict"]
            for run in (1, 2)
        ]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())


def _tried(model: Any, batch: Any) -> int:
    """Take a step as a trial does, and say of it what no other process disturbs."""
    model.loss(batch).backward()
    model.zero_grad(set_to_none=True)
    return 5_000_000 + 30_000 * batch.places


TRIAL = """
import torch
from seqlab.budget import BudgetFinder
from seqlab.configuration import build
from seqlab.recipe import find_recipe

words = ["--data.tokens_per_batch", "auto", "--data.batch_size", "64"]
cli = build(find_recipe("ner"), [*words, "--trainer.accelerator", "cpu"])
cli.trainer.strategy._lightning_module = cli.model
cli.datamodule.setup("fit")
cli.trainer.datamodule = cli.datamodule
before = {k: v.clone() for k, v in cli.model.state_dict().items()}
state, found = torch.get_rng_state(), []
BudgetFinder(found.append).setup(cli.trainer, cli.model, "fit")
assert torch.equal(torch.get_rng_state(), state)
assert all(torch.equal(v, before[k]) for k, v in cli.model.state_dict().items())
assert all(p.grad is None for p in cli.model.parameters())
assert cli.datamodule.tokens_per_batch == found[0].tokens == found[0].limit
assert found[0].per_token > 100, found
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured under Linux")
def test_a_trial_measures_and_leaves_no_trace(tmp_path: Path) -> None:
    """In a process of its own, which has no memory yet that a trial could use again."""
    paths = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", TRIAL],
        env={**os.environ, **paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

"""Checkpoints within an epoch: when they are due, and what becomes of their numbers."""

from __future__ import annotations

import contextlib
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab import resuming
from seqlab.callbacks import RunKeeper
from seqlab.configuration import build, quiet
from seqlab.errors import RecipeError
from seqlab.recipe import find_recipe
from seqlab.resuming import (
    WITHIN,
    Pace,
    Place,
    fit_to,
    place_of,
    random_state,
    random_state_at,
    restore_random,
    share_of,
)

CPU = torch.device("cpu")


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(resuming, "time", made)
    return made


def due_after(pace: Pace, clock: Clock, step: float = 1.0, most: int = 10_000, **k: Any) -> int:
    """How many steps there are until a checkpoint is due."""
    for number in range(1, most + 1):
        clock.now += step
        if pace.due(**k):
            return number
    return 0


def test_a_checkpoint_is_due_after_so_many_seconds(clock: Clock) -> None:
    pace = Pace(60.0)
    pace.wrote()
    assert due_after(pace, clock) == 60
    pace.wrote(1.0)  # a second to write it: that is to stay a fiftieth of the time
    assert due_after(pace, clock) == 60
    pace.wrote(3.0)
    assert due_after(pace, clock) == 150


def test_none_is_due_where_none_is_wanted(clock: Clock) -> None:
    pace = Pace(0.0)
    pace.wrote()
    assert due_after(pace, clock, most=100) == 0
    assert due_after(pace, clock, most=100, agree=lambda found: found) == 0


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_seconds_below_zero_are_refused(seconds: float) -> None:
    with pytest.raises(RecipeError, match="checkpoint.every_seconds is .*: it must be 0 or more"):
        Pace(seconds)


def test_several_processes_ask_seldom_and_are_not_late(clock: Clock) -> None:
    pace, asked = Pace(60.0), 0

    def agree(found: Any) -> Any:
        nonlocal asked
        asked += 1
        return found

    pace.wrote()
    assert due_after(pace, clock, 0.01, agree=agree) == pytest.approx(6000, abs=2)
    assert asked < 30
    pace.wrote()
    assert due_after(pace, clock, 0.01, agree=agree) == pytest.approx(6000, abs=2)


def test_all_processes_do_what_the_first_says(clock: Clock) -> None:
    said: list[Any] = []
    first, other = Pace(10.0), Pace(10.0)
    first.wrote()
    clock.now -= 500  # the other's clock is another
    other.wrote()
    clock.now += 500
    for _ in range(100):
        clock.now += 0.2
        due = first.due(lambda found: said.append(found) or found)
        clock.now -= 300
        assert other.due(lambda found: said.pop()) is due
        clock.now += 300
        if due:
            return
    raise AssertionError("no checkpoint was due")


# Other processes than there were.


def checkpoint(batches: int, own: int, processes: int) -> dict[str, Any]:
    counts = dict.fromkeys(("ready", "started", "processed", "completed"), own)
    total = {name: count + 100 for name, count in counts.items()}
    return {
        "epoch": 4,
        WITHIN: {"epoch": 4, "batches": batches, "of": 90, "processes": [{}] * processes},
        "loops": {
            "fit_loop": {
                "epoch_loop.batch_progress": {"total": total, "current": counts},
                "state_dict": {
                    "combined_loader": [{"epoch": 4, "batches": batches, "of": 90, "own": own}]
                },
            }
        },
    }


@pytest.mark.parametrize(
    ("batches", "own", "before", "now", "windows", "counted"),
    [
        (10, 5, 2, 2, 1, 5),
        (10, 5, 2, 1, 1, 10),
        (10, 5, 2, 3, 1, 3),
        (10, 10, 1, 2, 1, 5),
        (10, 10, 1, 1, 4, 8),  # whole steps
        (2, 1, 2, 3, 1, 1),  # never none
        (2, 1, 2, 3, 4, 4),
        (14, 4, 3, 3, 2, 4),
    ],
)
def test_batches_are_counted_as_the_processes_do_that_go_on(
    batches: int, own: int, before: int, now: int, windows: int, counted: int
) -> None:
    found = checkpoint(batches, own, before)
    fit_to(found, now, windows)
    loop = found["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    assert set(progress["current"].values()) == {counted}
    assert set(progress["total"].values()) == {counted + 100}
    assert loop["state_dict"]["combined_loader"] == [
        {"epoch": 4, "batches": batches, "of": 90, "own": counted}
    ]


def test_a_checkpoint_says_where_a_run_goes_on() -> None:
    found = checkpoint(10, 5, 2)
    assert place_of(found) == Place(4, 10, 90)
    del found[WITHIN]
    assert place_of(found) == Place(4)


def test_sums_are_shared_out() -> None:
    def state(loss: float, n: int) -> dict[str, Any]:
        counts = {"steps": n, "tokens": 7 * n, "real": 5 * n, "places": 6 * n}
        return {"loss": torch.tensor(loss), **counts}

    states = [{**state(loss, n), "random": {}} for loss, n in ((1.5, 2), (2.0, 3))]
    before = deepcopy(states)
    assert [share_of(states, rank, 2) for rank in (0, 1)] == before
    first, *others = (share_of(states, rank, 3) for rank in range(3))
    assert first == state(3.5, 5)
    assert (
        others == [{"loss": torch.tensor(0.0), "steps": 0, "tokens": 0, "real": 0, "places": 0}] * 2
    )
    assert states == before


def test_the_random_state_is_put_back() -> None:
    torch.manual_seed(5)
    torch.rand(3)
    state = random_state(CPU)
    drawn = torch.rand(4)
    torch.rand(9)
    restore_random(state, CPU)
    assert torch.equal(torch.rand(4), drawn)


def test_other_processes_draw_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for seed, place, rank in (
        ("3", Place(1, 20, 90), 0),
        ("3", Place(1, 20, 90), 0),
        ("4", Place(1, 20, 90), 0),
        ("3", Place(2, 20, 90), 0),
        ("3", Place(1, 21, 90), 0),
        ("3", Place(1, 20, 90), 1),
    ):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        random_state_at(place, rank)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 5


# Other models than taggers, through their recipes.


class Killed(Exception):
    """The process is gone."""


def fit(
    recipe: str, folder: Path, options: list[str], *, dies: int = 0, resume: bool = False
) -> tuple[dict[str, Any], list[Any]]:
    """Train a recipe, or have it killed at a step; gives its last checkpoint and its history."""
    folder.mkdir(exist_ok=True)
    few = ["--trainer.limit_train_batches", "6", "--trainer.limit_val_batches", "1"]
    small = ["--model.hidden_size", "8", "--model.embedding_size", "8"]
    small += ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
    cli = build(find_recipe(recipe), [*few, *small, *options], [keeper := RunKeeper(folder)])
    keeper.pace = Pace(1e-9)
    step, steps = cli.model.training_step, 0

    def mortal(batch: Any, batch_idx: int) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == dies:
            raise Killed
        return step(batch, batch_idx)

    cli.model.training_step = mortal
    checkpoint = keeper.last if resume else None
    with quiet(), pytest.raises(Killed) if dies else contextlib.nullcontext():
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    if dies:
        return {}, []
    lines = (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    history = [{**json.loads(line), "seconds": 0} for line in lines]
    assert steps == 12 or resume
    return torch.load(keeper.last, weights_only=True), history


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("sentiment", ["--data.hide_rare", "0.3", "--model.averaging", "0.9"]),
        ("translate", ["--model.decoder_size", "8", "--model.scheduled_sampling", "0.5"]),
    ],
)
@pytest.mark.parametrize("dies", [4, 11])
def test_other_models_go_on_within_an_epoch(
    recipe: str, options: list[str], dies: int, working_in: Any, tmp_path: Path
) -> None:
    with working_in(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setattr(resuming, "_REST", 0)
        whole, history = fit(recipe, tmp_path / "whole", options)
        fit(recipe, tmp_path / "killed", options, dies=dies)
        state = torch.load(tmp_path / "killed/last.ckpt", weights_only=True)
        assert place_of(state).batches == (dies - 1) % 6
        resumed, other_history = fit(recipe, tmp_path / "killed", options, resume=True)
    for name in ("state_dict", "optimizer_states", "weight_average", "callbacks", "lr_schedulers"):
        found, expected = resumed.get(name), whole.get(name)
        if name == "callbacks":
            for callbacks in (found, expected):
                del callbacks["RunKeeper"]["seconds"]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert other_history == history

"""Training in several processes: they take the steps of one, and end together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab.resuming import place_of

ROOT = Path(__file__).resolve().parent.parent
STILL = ("--model.dropout", "0", "--model.word_dropout", "0")  # nothing is drawn
SMALL = (*STILL, "--model.hidden_size", "8", "--trainer.accelerator", "cpu")
KINDS = {
    "ner": ("--data.hide_rare", "0"),
    "sentiment": ("--data.hide_rare", "0", "--model.embedding_size", "8"),
    "translate": ("--model.embedding_size", "8", "--model.decoder_size", "8"),
}


def command(home: Path, recipe: str, *words: str) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    environment |= {"SEQLAB_RUNS": str(home), "SEQLAB_KERNELS": "plain", "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": "1"}
    options = (*SMALL, *KINDS[recipe], *words)
    return {
        "args": [sys.executable, "-m", "seqlab", "fit", recipe, *options],
        "env": environment,
        "text": True,
    }


def fit(home: Path, recipe: str, *words: str) -> subprocess.CompletedProcess[str]:
    made = command(home, recipe, *words)
    done = subprocess.run(**made, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def state(home: Path, recipe: str) -> tuple[dict[str, torch.Tensor], int, list[dict[str, Any]]]:
    """The weights at the end, the steps, and the history without its clock."""
    run = home / recipe / "1"
    kept = torch.load(run / "last.ckpt", weights_only=True)
    lines = [json.loads(x) for x in (run / "history.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        del line["seconds"]
    return kept["state_dict"], kept["global_step"], lines


def check_same(one: Path, other: Path, recipe: str) -> None:
    (weights, steps, history), (others, other_steps, other_history) = (
        state(home, recipe) for home in (one, other)
    )
    assert steps == other_steps
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-4, atol=1e-4, msg=name)
    for line, other_line in zip(history, other_history, strict=True):
        assert line == pytest.approx(other_line, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "processes"), [("ner", 2), ("ner", 3), ("sentiment", 2), ("translate", 2)]
)
def test_processes_take_the_steps_of_one(recipe: str, processes: int, tmp_path: Path) -> None:
    epochs = ("--trainer.max_epochs", "2" if recipe == "ner" else "1")
    together = fit(tmp_path / "n", recipe, *epochs, "--trainer.devices", str(processes))
    fit(tmp_path / "1", recipe, *epochs, "--trainer.accumulate_grad_batches", str(processes))
    check_same(tmp_path / "n", tmp_path / "1", recipe)
    assert together.stderr.count(f"seqlab: {processes} processes; a step has {processes} ") == 1
    assert together.stderr.count("epoch 0: ") == 1
    assert "Traceback" not in together.stderr
    assert "Warning" not in together.stderr
    kept = [json.loads((tmp_path / x / recipe / "1/metrics.json").read_text()) for x in "n1"]
    assert [metrics["processes"] for metrics in kept] == [processes, 1]
    scores = [{k: v for k, v in m.items() if k.startswith("test/")} for m in kept]
    for found in scores:
        del found["test/tokens_per_second"]
    name = "test/bleu" if recipe == "translate" else "test/accuracy"
    assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-9)


@pytest.mark.slow
def test_sparse_gradients_are_brought_together(tmp_path: Path) -> None:
    options = ("--trainer.max_epochs", "2", "--model.word_rows", "sparse")
    fit(tmp_path / "n", "ner", *options, "--trainer.devices", "3")
    fit(tmp_path / "1", "ner", *options, "--trainer.accumulate_grad_batches", "3")
    check_same(tmp_path / "n", tmp_path / "1", "ner")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [((2, 1), (1, 2)), ((2, 1), (3, 1)), ((1, 2), (2, 1))]
)
def test_a_run_goes_on_with_other_processes(
    before: tuple[int, int], after: tuple[int, int], tmp_path: Path
) -> None:
    def shared(given: tuple[int, int]) -> list[str]:
        processes, windows = map(str, given)
        return ["--trainer.devices", processes, "--trainer.accumulate_grad_batches", windows]

    fit(tmp_path / "two", "ner", "--trainer.max_epochs", "1", *shared(before))
    fit(
        tmp_path / "two",
        "ner",
        *("--trainer.max_epochs", "2", "--ckpt_path", str(tmp_path / "two/ner/1")),
        *shared(after),
    )
    _, _, history = state(tmp_path / "two", "ner")
    assert [line["epoch"] for line in history] == [0, 1]
    if after[0] * after[1] == before[0] * before[1]:  # the same steps, however they are made
        fit(tmp_path / "whole", "ner", "--trainer.max_epochs", "2", *shared(before))
        check_same(tmp_path / "two", tmp_path / "whole", "ner")


def chained(home: Path, words: list[str], chain: tuple[tuple[int, int], ...]) -> None:
    """Train an epoch in several starts, all but the last of which are killed within it."""
    last = home / "ner/1/last.ckpt"
    for number, (processes, windows) in enumerate(chain):
        given = [*words, "--checkpoint.every_seconds", "0.01", *shared(processes, windows)]
        given += ["--ckpt_path", "last"] if number else []
        if number < len(chain) - 1:
            kill_when_written(last, home, given)
            place = place_of(torch.load(last, weights_only=True))
            assert 0 < place.batches < place.of
    done = fit(home, "ner", *given)
    assert f"going on with {last.parent} {place}" in done.stderr


def shared(processes: int, windows: int) -> list[str]:
    words = ["--trainer.devices", str(processes)]
    return [*words, "--trainer.accumulate_grad_batches", str(windows)]


def tokens(home: Path) -> int:
    kept = torch.load(home / "ner/1/last.ckpt", weights_only=True)
    return int(kept["callbacks"]["RunKeeper"]["tokens"])


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_goes_on_with_other_processes(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = ["--trainer.max_epochs", "1", "--data.batch_size", "4"]
    chained(killed, words, ((2, 3), (1, 6), (3, 2)))  # six batches a step, however they are shared
    fit(whole, "ner", *words, *shared(1, 6))
    check_same(killed, whole, "ner")
    assert tokens(killed) == tokens(whole)


@pytest.mark.slow
def test_as_many_processes_go_on_with_the_random_numbers_of_each(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = ["--trainer.max_epochs", "1", "--data.batch_size", "4", "--model.dropout", "0.3"]
    chained(killed, words, ((2, 1), (2, 1)))
    fit(whole, "ner", *words, *shared(2, 1))
    (weights, *others), (expected, *other_others) = (state(x, "ner") for x in (killed, whole))
    torch.testing.assert_close(weights, expected, rtol=0, atol=0)
    assert others == other_others


def kill_when_written(last: Path, home: Path, words: list[str]) -> None:
    """Start a run, and kill all its processes once it has written a checkpoint."""
    before = last.stat().st_mtime_ns if last.exists() else 0

    def ready() -> bool:
        return last.exists() and last.stat().st_mtime_ns > before

    log = home.with_suffix(".log")
    with open(log, "w", encoding="utf-8") as out:
        run = subprocess.Popen(
            **command(home, "ner", *words), stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait(lambda: ready() or run.poll() is not None, 120, 0.01)
        assert run.poll() is None, log.read_text("utf-8")
    finally:
        for pid in session(run.pid):
            os.kill(pid, signal.SIGKILL)
        run.wait(60)


@pytest.mark.slow
def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    made = command(tmp_path, "ner", "--trainer.max_epochs", "1", "--trainer.devices", "2")
    made["args"][1:2] = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"]
    done = subprocess.run(**made, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the run is kept in") == 1
    assert [path.name for path in (tmp_path / "ner").iterdir() if path.name != "latest"] == ["1"]
    assert (tmp_path / "ner/1/metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["other", "interrupt", "terminate"])
def test_what_ends_one_process_ends_all_with_a_reason(how: str, tmp_path: Path) -> None:
    made = command(tmp_path, "ner", "--trainer.max_epochs", "1000", "--trainer.devices", "2")
    log = tmp_path / "log"
    with open(log, "w", encoding="utf-8") as out:
        first = subprocess.Popen(
            **made, stderr=out, stdout=out, start_new_session=True, preexec_fn=heed
        )
    try:
        wait(lambda: "epoch 1: " in log.read_text("utf-8"), 120)
        others = [pid for pid in session(first.pid) if pid != first.pid]
        assert len(others) == 1
        if how == "other":
            os.kill(others[0], signal.SIGKILL)
        elif how == "interrupt":
            os.killpg(first.pid, signal.SIGINT)
        else:
            first.terminate()
        assert first.wait(60) != 0
        wait(lambda: not session(first.pid), 60)
    finally:
        for pid in session(first.pid):
            os.kill(pid, signal.SIGKILL)
    said = log.read_text("utf-8")
    reason = {
        "other": "seqlab: another process of this run has ended",
        "interrupt": "seqlab: stopped by Ctrl-C",
        "terminate": "seqlab: stopped by SIGTERM",
    }[how]
    assert reason in said
    assert re.search(r"--ckpt_path last` goes on after epoch \d+\.", said)
    assert (tmp_path / "ner/1/bundle/model.safetensors").is_file()


@pytest.mark.slow
def test_too_few_sentences_for_the_processes_are_refused(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"{split}.conll").write_text("Ada\tB-PER\n\nBo\tB-PER\n", encoding="utf-8")
    made = command(tmp_path, "ner", "--data.path", str(tmp_path), "--trainer.devices", "3")
    done = subprocess.run(**made, capture_output=True, check=False, timeout=300)
    assert done.returncode == 1
    assert (
        "seqlab: 3 processes cannot share the 2 sequences of the train split out: use "
        "--trainer.devices 2, or fewer." in done.stderr
    )
    assert "Traceback" not in done.stderr


def heed() -> None:
    """Have Ctrl-C act, also where the tests run in the background and it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait(ready: Any, seconds: float, pause: float = 0.2) -> None:
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until
        time.sleep(pause)


def session(pid: int) -> list[int]:
    """The processes of a session that are alive."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-s", str(pid)], capture_output=True, text=True, check=False
    )
    rows = [line.split() for line in found.stdout.splitlines()]
    return [int(row[0]) for row in rows if not row[1].startswith("Z")]

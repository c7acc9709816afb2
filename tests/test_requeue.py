"""Runs of SLURM jobs that are queued again; SLURM is a script here, as no cluster is at hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from seqlab import requeue, runs
from seqlab.errors import TrainingError

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(os.name == "nt", reason="SLURM is not for Windows")


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path / "runs"))


def slurm(folder: Path, code: int = 0) -> Path:
    """Make a folder with a `scontrol` that notes what it is told; returns the note."""
    folder.mkdir()
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/told\necho no >&2\nexit {code}\n')
    script.chmod(0o755)
    return folder / "told"


def test_jobs_have_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert requeue.job() is None
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    assert requeue.job() == "71"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert requeue.job() == "70_3"


def test_a_job_finds_the_run_that_its_command_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert requeue.begun("ner", ["ner"], "last.ckpt") is None  # there is no run at all
    folders = [runs.new_run("ner") for _ in range(4)]
    for folder, words in zip(folders, (["a"], ["a"], ["b"], ["a"]), strict=True):
        requeue.note(folder, words)
        if folder is not folders[-1]:  # was killed before its first checkpoint
            (folder / "last.ckpt").touch()
    assert requeue.begun("ner", ["a"], "last.ckpt") == folders[1]
    assert requeue.begun("ner", ["b"], "last.ckpt") == folders[2]
    assert requeue.begun("ner", ["c"], "last.ckpt") is None
    monkeypatch.setenv("SLURM_JOB_ID", "72")
    assert requeue.begun("ner", ["a"], "last.ckpt") is None
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    monkeypatch.delenv("SLURM_RESTART_COUNT")  # the first turn of the job
    assert requeue.begun("ner", ["a"], "last.ckpt") is None


def test_outside_of_jobs_nothing_is_noted() -> None:
    folder = runs.new_run("ner")
    requeue.note(folder, ["ner"])
    assert list(folder.iterdir()) == []


def test_slurm_is_asked_to_queue_the_job_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = slurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    assert requeue.queue_again() == "71"
    assert told.read_text() == "requeue 71\n"


def test_that_slurm_does_not_do_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    slurm(tmp_path / "bin", code=1)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(TrainingError, match=r"does not queue job 71 again \(no\); submit it"):
        requeue.queue_again()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingError, match=r"does not queue job 71 again \(.*scontrol"):
        requeue.queue_again()


def started(
    home: Path, processes: int, restarts: int = 0, words: tuple[str, ...] = ()
) -> list[subprocess.Popen[str]]:
    """Start the processes of a job, as `srun` does."""
    found = []
    for rank in range(processes):
        settings = {
            "SLURM_JOB_ID": "1071",
            "SLURM_JOB_NAME": "train",
            "SLURM_NTASKS": str(processes),
            "SLURM_NTASKS_PER_NODE": str(processes),
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "SLURM_NODEID": "0",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_RESTART_COUNT": str(restarts),
            "SEQLAB_RUNS": str(home / "runs"),
            "SEQLAB_KERNELS": "plain",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        still = ("--model.dropout", "0", "--data.hide_rare", "0", "--model.hidden_size", "8")
        own = ("--trainer.accelerator", "cpu", "--trainer.devices", str(processes))
        command = [sys.executable, "-m", "seqlab", "fit", "ner", *still, *own, *words]
        found.append(
            subprocess.Popen(
                command,
                env={**os.environ, **settings},
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=home,
            )
        )
    return found


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What the processes of a job said on stderr, once they have ended."""
    return [process.communicate(timeout=240)[1] for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_goes_on_when_its_turn_comes_again(processes: int, tmp_path: Path) -> None:
    told = slurm(tmp_path / "bin")
    words = ("--trainer.max_epochs", "3")
    first = started(tmp_path, processes, words=words)
    until = time.monotonic() + 120
    history = tmp_path / "runs/ner/1/history.jsonl"
    while not history.exists():  # the first epoch is over
        assert all(process.poll() is None for process in first), ended(first)
        assert time.monotonic() < until
        time.sleep(0.05)
    for process in first:  # SLURM tells all of them
        process.send_signal(signal.SIGUSR1)
    said = ended(first)
    assert all("the turn of SLURM job 1071 is over, and it is queued again" in x for x in said)
    assert "Traceback" not in said[0]
    assert told.read_text() == "requeue 1071\n"  # by one of them
    assert not list(tmp_path.glob("hpc_ckpt*"))  # Lightning's own way is left alone
    second = started(tmp_path, processes, restarts=1, words=words)
    said = ended(second)
    assert [process.returncode for process in second] == [0] * processes, said
    assert "going on with" in said[0]
    lines = [json.loads(line)["epoch"] for line in history.read_text().splitlines()]
    assert lines == [0, 1, 2]
    numbers = [path.name for path in (tmp_path / "runs/ner").iterdir() if path.name.isdecimal()]
    assert numbers == ["1"]
    if processes > 1:  # tests/test_processes.py holds several to the weights of one
        return
    whole = tmp_path / "whole"
    whole.mkdir()
    ended(started(whole, processes, words=words))
    states = [
        torch.load(home / "runs/ner/1/last.ckpt", weights_only=True)["state_dict"]
        for home in (tmp_path, whole)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name

"""Runs that break off: killed, stopped by Ctrl-C, out of disk; what is left, and how they go on."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from seqlab.__main__ import main
from seqlab.bundle import load_bundle
from seqlab.callbacks import RunKeeper
from seqlab.errors import BundleError, TrainingError, UsageError
from seqlab.interrupts import find_checkpoint, interruptible, read_checkpoint, what_is_left
from seqlab.resuming import Place, place_of

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--model.hidden_size", "24", "--model.character_size", "20"]
EPOCHS = 4
PATIENCE = 300.0  # seconds until a run that says nothing is taken for hung
WITHIN = r"in epoch \d after \d+ of \d+ batches"
unix = pytest.mark.skipif(os.name == "nt", reason="signals are others there")


@pytest.fixture
def place(working_in: Any, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with working_in(tmp_path) as patch:
        yield patch


class Process:
    """``seqlab`` as a process of its own, on one thread, deaf to no signal."""

    def __init__(self, home: Path, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("SEQLAB_RUNS", None)
        self.files = [home / "stdout.txt", home / "stderr.txt"]
        with open(self.files[0], "wb") as out, open(self.files[1], "wb") as err:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "seqlab", *words],
                cwd=home,
                env=environment,
                stdout=out,
                stderr=err,
                # Where the tests themselves run in the background, Ctrl-C would be ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
            )

    def until(self, beginning: str) -> None:
        """Wait for a line on standard error that begins so."""
        limit = time.monotonic() + PATIENCE
        while f"\n{beginning}" not in "\n" + self.files[1].read_text(encoding="utf-8"):
            assert time.monotonic() < limit
            assert self.running.poll() is None, self.files[1].read_text(encoding="utf-8")
            time.sleep(0.01)

    def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Send a signal, wait for the end, and give the code and what was said."""
        if number is not None:
            self.running.send_signal(number)
        code = self.running.wait(PATIENCE)
        out, said = (file.read_text(encoding="utf-8") for file in self.files)
        return code, out, said


def fit(home: Path, *words: str) -> Process:
    return Process(home, "fit", "ner", "--trainer.max_epochs", str(EPOCHS), *words)


def finished(home: Path, *words: str) -> None:
    code, _, said = fit(home, *words).end()
    assert code == 0, said


def weights(home: Path) -> dict[str, Any]:
    state = torch.load(home / "runs/ner/1/last.ckpt", weights_only=True)
    return {"model": state["state_dict"], "optimizer": state["optimizer_states"]}


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def history(home: Path) -> list[dict[str, Any]]:
    lines = (home / "runs/ner/1/history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing broke off."""
    home = tmp_path_factory.mktemp("straight")
    finished(home, *SMALL)
    return home


def assert_as_if_nothing_had_happened(home: Path, straight: Path) -> None:
    assert same(weights(home), weights(straight))
    assert history(home) == history(straight)
    one, other = (load_bundle(folder / "runs/ner/1").state_dict() for folder in (home, straight))
    assert same(one, other)
    scores = [json.loads((h / "runs/ner/1/metrics.json").read_text()) for h in (home, straight)]
    for key in ("test/span_f1", "val/span_f1", "best_epoch", "epochs", "test/per_type"):
        assert scores[0][key] == scores[1][key]
    assert [p.name for p in (home / "runs/ner").iterdir() if p.name != "latest"] == ["1"]


@unix
@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(straight: Path, tmp_path: Path) -> None:
    process = fit(tmp_path, *SMALL)
    process.until("epoch 1:")
    assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    before = weights(tmp_path)
    finished(tmp_path, "--ckpt_path", "last")
    assert not same(before, weights(tmp_path))
    assert_as_if_nothing_had_happened(tmp_path, straight)


@unix
@pytest.mark.slow
def test_ctrl_c_leaves_a_model_and_a_run_that_goes_on(straight: Path, tmp_path: Path) -> None:
    process = fit(tmp_path, *SMALL)
    process.until("epoch 0:")
    code, out, said = process.end(signal.SIGINT)
    assert (code, out) == (1, "")
    first, *epochs, sentence = said.splitlines()
    assert first.startswith("seqlab: Tagger of")
    assert all(line.startswith("epoch ") for line in epochs), said
    assert re.fullmatch(
        r"seqlab: stopped by Ctrl-C: the best model so far \(epoch \d\) is in runs/ner/1/bundle, "
        rf"and `seqlab fit ner --ckpt_path last` goes on (after epoch \d|{WITHIN})\.",
        sentence,
    )
    tagging = Process(tmp_path, "predict", "runs/ner/latest", "Ada Lovelace was born in London.")
    code, out, said = tagging.end()
    assert (code, said) == (0, "")
    assert "Lovelace" in out
    finished(tmp_path, "--ckpt_path", "last")
    assert_as_if_nothing_had_happened(tmp_path, straight)


@unix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_a_run_that_is_stopped_in_its_first_epoch_has_no_model(
    number: signal.Signals, name: str, tmp_path: Path
) -> None:
    process = fit(tmp_path)
    process.until("seqlab: Tagger of")
    time.sleep(0.3)  # the sentence comes just before the trainer starts
    code, out, said = process.end(number)
    assert (code, out) == (1, "")
    (sentence,) = said.splitlines()[1:]
    assert re.fullmatch(
        rf"seqlab: stopped by {name}: (no epoch was finished, so there is no model yet"
        rf"|`seqlab fit ner --ckpt_path last` goes on {WITHIN})\.",
        sentence,
    )
    assert not (tmp_path / "runs/ner/1/bundle").exists()


@unix
@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_model_or_none(tmp_path: Path) -> None:
    draw = random.Random(20180117)
    wholes = 0
    for number in range(1, 6):
        # Hardly any training, so that the run is most of the time about writing.
        words = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]
        words += ["--trainer.max_epochs", "1000", "--early_stopping.patience", "1000"]
        process = Process(tmp_path, "fit", "ner", *words)
        process.until("seqlab: Tagger of")
        time.sleep(draw.uniform(0.0, 1.0))
        process.end(signal.SIGKILL)
        folder = tmp_path / "runs" / "ner" / str(number)
        if (folder / "bundle").exists() or (folder / ".bundle.old").exists():
            load_bundle(folder)
            wholes += 1
        else:
            with pytest.raises(BundleError, match="holds no model"):
                load_bundle(folder)
        if (folder / "last.ckpt").exists():
            torch.load(folder / "last.ckpt", weights_only=True)
    assert wholes  # else nothing was shown


FORKS = """
import json, os, sys
import seqlab.resuming, seqlab.training  # and with it torch, which takes the time of a start
from seqlab.__main__ import main

seqlab.resuming._REST = 0  # else writing after every step would be against the 2 %
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os._exit(main(json.loads(line)))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forks:
    """Starts ``seqlab`` as often as one likes, each time in a process of its own that is forked."""

    def __init__(self, home: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"SEQLAB_KERNELS": "plain"}
        environment.pop("SEQLAB_RUNS", None)
        self.home = home
        self.parent = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=home,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(self, *words: str) -> int:
        """Start a run and return its number when it has begun to train."""
        assert self.parent.stdin is not None
        (self.home / "stderr.txt").write_text("")
        self.parent.stdin.write(json.dumps(["fit", "ner", *words]) + "\n")
        self.parent.stdin.flush()
        pid = int(self.said())
        self.wait(lambda: "seqlab: Tagger of" in (self.home / "stderr.txt").read_text("utf-8"))
        return pid

    def said(self) -> str:
        assert self.parent.stdout is not None
        return self.parent.stdout.readline()

    def wait(self, ready: Any, pause: float = 0.001) -> None:
        limit = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < limit, (self.home / "stderr.txt").read_text("utf-8")
            time.sleep(pause)

    def finish(self, *words: str) -> float:
        """Run to the end, and return how long training took."""
        self.start(*words)
        start = time.monotonic()
        assert int(self.said()) == 0, (self.home / "stderr.txt").read_text("utf-8")
        return time.monotonic() - start


@unix
@pytest.mark.slow
def test_a_run_killed_ten_times_anywhere_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    homes = [tmp_path / "straight", tmp_path / "killed"]
    for home in homes:
        home.mkdir()
    words = [*SMALL, "--trainer.max_epochs", "12", "--checkpoint.every_seconds"]
    forks = [Forks(home) for home in homes]
    forks[0].finish(*words, "0")
    folder, draw = homes[1] / "runs/ner/1", random.Random(20261130)
    killed = forks[1]
    writing = folder / ".last.ckpt.part"
    places, torn = [], 0
    for number in range(10):
        pid = killed.start(*(("--ckpt_path", "last") if number else (*words, "1e-6")))
        killed.wait((folder / "last.ckpt").exists)
        time.sleep(draw.uniform(0.0, 0.4))
        if number % 3 == 1:
            killed.wait(writing.exists, 0.0)
        os.kill(pid, signal.SIGKILL)
        assert int(killed.said()) == -signal.SIGKILL, "the run was over before it could be killed"
        torn += writing.exists()
        places.append(str(place_of(torch.load(folder / "last.ckpt", weights_only=True))))
    killed.finish("--ckpt_path", "last")
    print("killed", *places, f"{torn} of them while a checkpoint was being written", sep="\n")
    assert torn >= 3
    assert any("of" in place for place in places)
    assert_as_if_nothing_had_happened(homes[1], homes[0])
    for fork in forks:
        fork.parent.communicate()


# A disk that is full.


def full_at(number: int, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Let the disk be full at the n-th time that something is written."""
    count = 0

    def failing(write: Any) -> Any:
        def take(self: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            if what == "checkpoint" or self.name == what:
                count += 1
                if count == number:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0])[:9])
            return write(self, *arguments, **options)

        return take

    if what == "checkpoint":
        save = lightning.Trainer.save_checkpoint
        monkeypatch.setattr(lightning.Trainer, "save_checkpoint", failing(save))
    else:
        method = "write_bytes" if what.endswith("safetensors") else "write_text"
        monkeypatch.setattr(Path, method, failing(getattr(Path, method)))


@pytest.mark.parametrize("what", ["checkpoint", "model.safetensors", "source_vocab.json"])
def test_a_full_disk_leaves_what_was_there(
    what: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full_at(2, place, what)
    assert main(["fit", "ner", "--trainer.max_epochs", "3", *SMALL]) == 1
    *_, sentence = said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["seqlab", "epoch 0", "seqlab"]
    folder = Path("runs/ner/1")
    assert re.fullmatch(
        rf"seqlab: cannot write {folder}: No space left on device; make room there: the best model "
        r"so far \(epoch \d\) is in .*bundle, and `seqlab fit ner --ckpt_path last` goes on "
        r"after epoch 0\.",
        sentence,
    )
    assert load_bundle(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "bundle",
        "history.jsonl",
        "last.ckpt",
        "recipe.yaml",
    ]


def keeper_of(folder: Path, *parts: str) -> RunKeeper:
    keeper = RunKeeper(folder)
    keeper.best_epoch = 3
    if "bundle" in parts:
        (folder / "bundle").mkdir()
    if "last" in parts:
        (folder / "last.ckpt").touch()
    return keeper


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        ((), "no epoch was finished, so there is no model yet"),
        (("bundle",), "the best model so far (epoch 3) is in {}"),
        (("last",), "`seqlab fit my.yaml --ckpt_path last` goes on"),
        (
            ("bundle", "last"),
            "the best model so far (epoch 3) is in {}, and `seqlab fit my.yaml --ckpt_path last` "
            "goes on",
        ),
    ],
)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "stopped by Ctrl-C: {}."),
        (SIGTERMException(), "stopped by SIGTERM: {}."),
        (TrainingError("the loss is gone: mend it."), "the loss is gone: mend it; {}."),
        (
            OSError(errno.ENOSPC, "No space left on device", "/elsewhere/temporary"),
            "cannot write {folder}: No space left on device; make room there: {}.",
        ),
        (OSError("odd"), "cannot write {folder}: odd; make room there: {}."),
    ],
)
def test_what_is_left_is_told(
    error: BaseException, said: str, parts: tuple[str, ...], left: str, tmp_path: Path
) -> None:
    keeper = keeper_of(tmp_path, *parts)
    with pytest.raises(TrainingError) as caught, what_is_left(keeper, "my.yaml"):
        raise error
    left = left.format(tmp_path / "bundle")
    assert str(caught.value) == said.format(left, folder=tmp_path)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("place", "said"),
    [(Place(2), "after epoch 2"), (Place(3, 120, 1393), "in epoch 3 after 120 of 1,393 batches")],
)
def test_where_a_run_would_go_on_is_told(place: Place, said: str, tmp_path: Path) -> None:
    keeper = keeper_of(tmp_path, "last")
    keeper.place = place
    with pytest.raises(TrainingError) as caught, what_is_left(keeper, "ner"):
        raise KeyboardInterrupt
    assert str(caught.value).endswith(f"--ckpt_path last` goes on {said}.")


def test_trouble_with_other_files_is_told_otherwise(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/corpora/train.conll")
    with pytest.raises(PermissionError), what_is_left(keeper_of(tmp_path), "ner"):
        raise error
    inside = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "history.jsonl"))
    with pytest.raises(TrainingError), what_is_left(keeper_of(tmp_path), "ner"):
        raise inside


def test_what_ends_well_says_nothing(tmp_path: Path) -> None:
    trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    with what_is_left(keeper_of(tmp_path), "ner"), interruptible(trainer):
        pass


@pytest.mark.parametrize(
    ("error", "status", "wanted"),
    [
        (SystemExit(1), TrainerStatus.INTERRUPTED, KeyboardInterrupt),
        (SystemExit(1), TrainerStatus.RUNNING, SystemExit),
        (SIGTERMException(), TrainerStatus.INTERRUPTED, SIGTERMException),
        (ValueError(), TrainerStatus.INTERRUPTED, ValueError),
    ],
)
def test_only_ctrl_c_is_given_back(
    error: BaseException, status: TrainerStatus, wanted: type[BaseException]
) -> None:
    trainer = lightning.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.state.status = status
    with pytest.raises(wanted), interruptible(trainer):
        raise error


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_ctrl_c_while_scoring_is_a_sentence(
    stage: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "ner", "--trainer.max_epochs", "1", *SMALL]) == 0
    capsys.readouterr()

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    place.setattr("seqlab.models.tagger.Tagger.score", stop)
    assert main([stage, "ner"]) == 1
    assert capsys.readouterr() == ("", "seqlab: stopped by Ctrl-C.\n")


# Checkpoints.


def test_a_checkpoint_is_found_by_run_file_or_name(place: pytest.MonkeyPatch) -> None:
    folder = Path("runs/ner/2")
    folder.mkdir(parents=True)
    Path("runs/ner/latest").symlink_to("2")
    (folder / "last.ckpt").touch()
    for wanted in ("last", "runs/ner/2", "runs/ner/latest", "runs/ner/2/last.ckpt"):
        assert find_checkpoint(wanted, "ner").resolve() == (folder / "last.ckpt").resolve()


@pytest.mark.parametrize("wanted", ["runs/ner/1", "runs/ner/7", "no.ckpt"])
def test_a_checkpoint_that_is_not_there_is_named(wanted: str, place: pytest.MonkeyPatch) -> None:
    Path("runs/ner/1").mkdir(parents=True)
    with pytest.raises(UsageError, match=f"^no checkpoint {wanted}.*: the run ended before"):
        find_checkpoint(wanted, "ner")


def checkpoint(file: Path, model: nn.Module) -> Path:
    torch.save({"state_dict": model.state_dict()}, file)
    return file


def test_the_weights_of_a_checkpoint_are_read(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    file = checkpoint(tmp_path / "last.ckpt", model)
    found = read_checkpoint(file, nn.Linear(3, 2))["state_dict"]
    assert same(dict(found), dict(model.state_dict()))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Linear(4, 2), r"weight is \(2, 3\) there and \(2, 4\) here"),
        (nn.Linear(3, 2, bias=False), r"bias is \(2,\) there and missing here"),
        (nn.Bilinear(2, 3, 2), r"weight is \(2, 3\) there and \(2, 2, 3\) here"),
        (nn.PReLU(), r"bias is \(2,\) there and missing here"),
    ],
)
def test_weights_of_another_model_are_refused(model: nn.Module, said: str, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "last.ckpt", nn.Linear(3, 2))
    with pytest.raises(UsageError, match=rf"last.ckpt does not fit the model: {said}; go on with"):
        read_checkpoint(file, model)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04", b"\x80\x02}q\x00.", None])
def test_a_damaged_checkpoint_is_a_sentence(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    if content is None:  # cut off in the middle
        content = checkpoint(file, nn.Linear(30, 20)).read_bytes()[:1000]
    file.write_bytes(content)
    with pytest.raises(TrainingError, match="is damaged or no checkpoint of seqlab: leave --ckpt"):
        read_checkpoint(file, nn.Linear(3, 2))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "harm"),))

    torch.save({"state_dict": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match="is damaged or no checkpoint"):
        read_checkpoint(tmp_path / "last.ckpt", nn.Linear(3, 2))
    assert not (tmp_path / "harm").exists()

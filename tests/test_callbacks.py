"""The run folder, on a tiny tagger whose validation score of every epoch is scripted."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from safetensors.torch import load_file
from torch import Tensor

from seqlab import callbacks
from seqlab.bundle import load_bundle
from seqlab.callbacks import LAST, RunKeeper
from seqlab.configuration import quiet
from seqlab.data.tagging import TaggingData
from seqlab.early_stopping import EarlyStop
from seqlab.errors import BundleError
from seqlab.models.tagger import Tagger
from seqlab.resuming import Pace, Place

RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
UNEVEN = [0.3, 0.2, 0.5, 0.4, 0.6, 0.1]  # better in epochs 0, 2 and 4


class Killed(Exception):
    """The process is gone: nothing that comes after takes place."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, rng = tmp_path_factory.mktemp("corpus"), random.Random(0)
    words = [("Ada", "B-PER"), ("Bo", "B-PER"), ("runs", "O"), (".", "O"), ("in", "O")]
    for name, count in (("train", 40), ("dev", 6)):
        rows = [rng.choices(words, k=rng.randint(1, 6)) for _ in range(count)]
        rows.append([(f"rare{name}", "O")])
        text = "\n".join("".join(f"{w}\t{t}\n" for w, t in row) for row in rows)
        (folder / f"{name}.conll").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")


class Copies(Checkpoint):
    """Copies the run folder as it is after every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        copy = self.folder.with_name(f"{self.folder.name}-{trainer.current_epoch}")
        shutil.copytree(self.folder, copy)


class Run:
    """One process of training: new data, model and trainer, as after a start from the shell."""

    def __init__(
        self,
        corpus: str,
        folder: Path,
        script: list[float] | None = None,
        patience: int = 99,
        keeper: RunKeeper | None = None,
        **options: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(1)
        self.data = TaggingData(corpus, batch_size=8)
        self.model = Tagger(
            self.data.source_vocab,
            self.data.target_vocab,
            hidden_size=4,
            embedding_size=4,
            character_size=4,
            casing_size=2,
            word_dropout=0.1,
            learning_rate=0.01,
            **options,
        )
        self.script = script or RISING
        self.model.scores = self.scores  # type: ignore[method-assign]
        self.keeper = RunKeeper() if keeper is None else keeper
        self.keeper.folder = folder
        self.stop = EarlyStop(patience)
        self.seen: list[tuple[int, int]] = []  # epochs and batches

    def scores(self, stage: str) -> dict[str, Any]:
        return {"val/span_f1": self.script[self.model.current_epoch], "val/scorer": "a script"}

    def fit(
        self, epochs: int = 6, *more: lightning.Callback, resume: bool = False, **k: Any
    ) -> Run:
        self.trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[self.stop, self.keeper, *more],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **k,
        )
        with quiet():
            path = self.keeper.last if resume else None
            self.trainer.fit(self.model, self.data, ckpt_path=path, weights_only=True)
        return self

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    @property
    def bundled(self) -> dict[str, Tensor]:
        return load_file(self.keeper.bundle / "model.safetensors")

    @property
    def history(self) -> list[dict[str, Any]]:
        text = (self.keeper.folder / "history.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    torch.testing.assert_close(dict(found), dict(expected), rtol=0, atol=0)


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]


def test_every_epoch_is_kept(corpus: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = Run(corpus, folder, UNEVEN).fit(4)
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "history.jsonl", LAST]
    assert [line["epoch"] for line in run.history] == [0, 1, 2, 3]
    assert [line["val/span_f1"] for line in run.history] == pytest.approx(UNEVEN[:4])
    assert all(line["train/loss"] > 0 and line["seconds"] > 0 for line in run.history)
    state = torch.load(run.keeper.last, weights_only=True)
    assert state["epoch"] == 3
    assert_same(state["state_dict"], run.weights)


def test_the_bundle_is_that_of_the_best_epoch(corpus: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    keeper = RunKeeper(
        recipe="model: mine\n",
        card=lambda metrics: f"# best of epoch {metrics['best_epoch']}\n",
        facts={"seed": 3},
    )
    run = Run(corpus, folder, UNEVEN, keeper=keeper).fit(6, Copies(folder))
    assert keeper.best_epoch == 4
    assert keeper.best_score == pytest.approx(0.6)
    epochs = [torch.load(f"{folder}-{n}/{LAST}", weights_only=True) for n in range(6)]
    assert_same(run.bundled, epochs[4]["state_dict"])
    assert any(not torch.equal(run.bundled[k], v) for k, v in run.weights.items())
    for n, best in enumerate([0, 0, 2, 2, 4, 4]):
        kept = load_file(f"{folder}-{n}/bundle/model.safetensors")
        assert_same(kept, epochs[best]["state_dict"])
    metrics = json.loads((keeper.bundle / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == {"seed": 3, "val/span_f1": 0.6, "val/scorer": "a script", "best_epoch": 4}
    assert (keeper.bundle / "recipe.yaml").read_text(encoding="utf-8") == "model: mine\n"
    assert (keeper.bundle / "README.md").read_text(encoding="utf-8") == "# best of epoch 4\n"
    assert_same(load_bundle(folder).state_dict(), run.bundled)


def test_an_epoch_as_good_as_the_best_does_not_replace_it(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run", [0.5, 0.5, 0.5]).fit(3)
    assert run.keeper.best_epoch == 0


def test_without_a_validation_split_the_last_epoch_is_the_best(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run").fit(2, limit_val_batches=0)
    assert run.keeper.best_epoch == 1
    assert_same(run.bundled, run.weights)


def test_the_best_epoch_can_be_put_back(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run", UNEVEN).fit(2)
    last = run.weights
    run.keeper.restore_best(run.model)
    assert_same(run.weights, run.bundled)
    assert not torch.equal(last["emit.weight"], run.weights["emit.weight"])


def test_a_run_without_a_whole_epoch_has_no_best(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run")
    with pytest.raises(BundleError) as error:
        run.keeper.restore_best(run.model)
    assert str(error.value) == (
        f"{tmp_path}/run has no bundle yet: no epoch was finished and validated."
    )


def test_the_bundle_holds_the_average_and_training_goes_on_without(
    corpus: str, tmp_path: Path
) -> None:
    plain = Run(corpus, tmp_path / "plain").fit(3)
    moving = Run(corpus, tmp_path / "moving", averaging=0.9).fit(3)
    assert_same(moving.weights, plain.weights)
    assert_same(plain.bundled, plain.weights)
    assert not torch.equal(moving.bundled["emit.weight"], moving.weights["emit.weight"])
    with moving.model.averaged():
        assert_same(moving.bundled, moving.weights)


def test_every_epoch_is_told_in_a_line(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(corpus, tmp_path / "run", [0.25, 0.125]).fit(2)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    losses = [line["train/loss"] for line in run.history]
    assert said[0].startswith(f"epoch 0: loss {losses[0]:.3f}, val/span_f1 0.2500 (best), ")
    assert said[1].startswith(f"epoch 1: loss {losses[1]:.3f}, val/span_f1 0.1250, ")
    assert all(line.endswith(" tokens/s") for line in said)


class Clock:
    """A clock that goes on by 1 in every training step and by 100 in every validation step."""

    def __init__(self, model: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: self.now))
        for name, seconds in (("training_step", 1.0), ("validation_step", 100.0)):
            monkeypatch.setattr(model, name, self.slow(getattr(model, name), seconds))

    def slow(self, step: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def take(batch: Any, batch_idx: int) -> Any:
            self.now += seconds
            return step(batch, batch_idx)

        return take


@pytest.mark.parametrize(
    "options", [{}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 0.34}], ids=str
)
def test_only_training_is_timed(
    options: dict[str, Any], corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(corpus, tmp_path / "run")
    Clock(run.model, monkeypatch)
    run.fit(4, **options)
    steps = len(run.data.train_dataloader())
    tokens = int(run.data.dataset("train", scored=False).encoded.offsets[-1])
    assert [line["seconds"] for line in run.history] == [steps] * 4
    assert (run.keeper.seconds, run.keeper.tokens) == (4 * steps, 4 * tokens)


VARIANTS: list[dict[str, Any]] = [
    {"schedule": "plateau", "plateau_patience": 0, "averaging": 0.9, "warmup_steps": 8},
    {"schedule": "cosine", "optimizer": "adamw", "word_rows": "sparse"},
    {"optimizer": "sgd", "momentum": 0.9, "locked_dropout": 0.2, "averaging": 0.5},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_a_resumed_run_ends_with_the_weights_of_one_never_stopped(
    epoch: int, options: dict[str, Any], corpus: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    whole = Run(corpus, folder, UNEVEN, patience=4, **options).fit(6, Copies(folder))
    resumed = Run(corpus, tmp_path / f"run-{epoch}", UNEVEN, patience=4, **options)
    resumed.fit(6, resume=True)
    assert_same(resumed.weights, whole.weights)
    assert_same(resumed.bundled, whole.bundled)
    assert without_times(resumed.history) == without_times(whole.history)
    assert resumed.stop.wait_count == whole.stop.wait_count == 1
    for name in ("best_score", "best_epoch", "tokens"):
        assert getattr(resumed.keeper, name) == getattr(whole.keeper, name)
    mine, others = (torch.load(run.keeper.last, weights_only=True) for run in (resumed, whole))
    for key in ("optimizer_states", "weight_average", "global_step", "epoch"):
        torch.testing.assert_close(mine.get(key), others.get(key), rtol=0, atol=0)
    assert mine["lr_schedulers"] == others["lr_schedulers"]


def test_a_resumed_run_takes_no_epoch_without_a_score_for_the_best(
    corpus: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    options: dict[str, Any] = {"schedule": "plateau", "plateau_patience": 0}
    script = [0.0, 0.5, 0.0, 0.4, 0.0, 0.3]
    whole = Run(corpus, folder, script, **options)
    whole.fit(6, Copies(folder), check_val_every_n_epoch=2)
    resumed = Run(corpus, tmp_path / "run-1", script, **options)
    resumed.fit(6, resume=True, check_val_every_n_epoch=2)
    assert whole.keeper.best_epoch == resumed.keeper.best_epoch == 1
    assert_same(resumed.weights, whole.weights)
    assert_same(resumed.bundled, whole.bundled)
    assert without_times(resumed.history) == without_times(whole.history)
    assert ["val/span_f1" in line for line in whole.history] == [False, True] * 3


def mortal(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, after: bool = False
) -> None:
    """Let the process die in the n-th call of a function: before it does anything, or after."""
    step, calls = getattr(owner, name), 0

    def take(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Killed
        done = step(*arguments, **options)
        if calls == call:
            raise Killed
        return done

    monkeypatch.setattr(owner, name, take)


MOMENTS: list[tuple[Callable[[Run], Any], str, int, bool]] = [
    (lambda run: run.model, "training_step", 15, False),
    (lambda run: run.model, "validation_step", 3, False),
    (lambda run: run.keeper, "_write_history", 3, False),
    (lambda run: run.keeper, "_write_history", 3, True),
    (lambda run: callbacks, "save_bundle", 2, False),  # the bundle of epoch 2 is the second
    (lambda run: callbacks, "save_bundle", 2, True),
    (lambda run: run.keeper, "_write_checkpoint", 3, False),
    (lambda run: run.keeper, "_write_checkpoint", 3, True),
]


@pytest.mark.parametrize(("owner", "name", "call", "after"), MOMENTS)
def test_a_run_killed_at_any_moment_goes_on_as_if_it_never_was(
    owner: Callable[[Run], Any], name: str, call: int, after: bool, corpus: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"schedule": "plateau", "plateau_patience": 0, "averaging": 0.9}
    whole = Run(corpus, tmp_path / "whole", UNEVEN, **options).fit(5)
    run = Run(corpus, tmp_path / "run", UNEVEN, **options)
    with pytest.MonkeyPatch.context() as patch:
        mortal(patch, owner(run), name, call, after)
        with pytest.raises(Killed):
            run.fit(5)
    assert load_bundle(tmp_path / "run") is not None
    assert len(run.history) < 5
    resumed = Run(corpus, tmp_path / "run", UNEVEN, **options).fit(5, resume=True)
    assert_same(resumed.weights, whole.weights)
    assert_same(resumed.bundled, whole.bundled)
    assert without_times(resumed.history) == without_times(whole.history)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["bundle", "history.jsonl", LAST]


# Within an epoch, which has six batches.


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], Run]:
    """Have a run write a checkpoint after every step, and tell which batches it has trained on."""
    monkeypatch.setattr("seqlab.resuming._REST", 0)

    def prepare(run: Run) -> Run:
        run.keeper.pace = Pace(1e-9)
        step = run.model.training_step
        run.seen = []

        def noting(batch: Any, batch_idx: int) -> Tensor:
            run.seen.append((run.model.current_epoch, batch_idx))
            return step(batch, batch_idx)

        run.model.training_step = noting  # type: ignore[method-assign]
        return run

    return prepare


WAYS: list[Any] = [  # arguments of the model and of the trainer, and the step that is the last one
    ({"averaging": 0.9, "schedule": "plateau", "plateau_patience": 0}, {}, 14),
    ({"schedule": "cosine", "warmup_steps": 4}, {"accumulate_grad_batches": 4}, 12),
    ({}, {"val_check_interval": 0.5, "reload_dataloaders_every_n_epochs": 1}, 18),
    pytest.param({}, {"accumulate_grad_batches": 2}, 3, marks=pytest.mark.slow),
    pytest.param({"optimizer": "sgd"}, {"limit_train_batches": 5}, 3, marks=pytest.mark.slow),
    pytest.param({}, {"check_val_every_n_epoch": 2}, 14, marks=pytest.mark.slow),
    pytest.param({}, {"limit_val_batches": 0}, 18, marks=pytest.mark.slow),
    pytest.param({"schedule": "linear"}, {"max_steps": 20}, 18, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("options", "trainer", "killed"), WAYS)
def test_a_run_killed_within_an_epoch_goes_on_with_the_next_step(
    options: dict[str, Any],
    trainer: dict[str, Any],
    killed: int,
    corpus: str,
    tmp_path: Path,
    often: Callable[[Run], Run],
) -> None:
    whole = often(Run(corpus, tmp_path / "whole", UNEVEN, **options)).fit(4, **trainer)
    run = often(Run(corpus, tmp_path / "run", UNEVEN, **options))
    with pytest.MonkeyPatch.context() as patch:
        mortal(patch, run.model, "training_step", killed)
        with pytest.raises(Killed):
            run.fit(4, **trainer)
    resumed = often(Run(corpus, tmp_path / "run", UNEVEN, **options))
    resumed.fit(4, resume=True, **trainer)
    assert_same(resumed.weights, whole.weights)
    assert_same(resumed.bundled, whole.bundled)
    assert without_times(resumed.history) == without_times(whole.history)
    window = trainer.get("accumulate_grad_batches", 1)
    again = len(run.seen) + len(resumed.seen) - len(whole.seen)
    assert again < window  # batches of a step that was not whole
    assert run.seen[: len(run.seen) - again] + resumed.seen == whole.seen
    states = [torch.load(x.keeper.last, weights_only=True) for x in (resumed, whole)]
    for name in ("optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert str(states[0][name]) == str(states[1][name])
    assert resumed.keeper.tokens == whole.keeper.tokens


def test_a_checkpoint_of_an_older_version_is_gone_on_from(corpus: str, tmp_path: Path) -> None:
    whole = Run(corpus, tmp_path / "whole").fit(3)
    run = Run(corpus, tmp_path / "run").fit(2)
    state = torch.load(run.keeper.last, weights_only=True)
    del state["loops"]["fit_loop"]["state_dict"]["combined_loader"]  # knew no place in an epoch
    torch.save(state, run.keeper.last)
    resumed = Run(corpus, tmp_path / "run").fit(3, resume=True)
    assert_same(resumed.weights, whole.weights)
    assert without_times(resumed.history) == without_times(whole.history)


def test_no_checkpoint_is_written_within_an_epoch_where_none_is_wanted(
    corpus: str, tmp_path: Path, often: Callable[[Run], Run]
) -> None:
    for name, pace, written in (("none", Pace(0), 2), ("some", Pace(1e-9), 2 + 2 * 5)):
        run = often(Run(corpus, tmp_path / name))
        run.keeper.pace = pace
        with pytest.MonkeyPatch.context() as patch:
            calls = counted(patch, run.keeper, "_write_checkpoint")
            run.fit(2)
        assert len(calls) == written


def counted(patch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Note the calls of a function."""
    step, calls = getattr(owner, name), []

    def take(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return step(*arguments, **options)

    patch.setattr(owner, name, take)
    return calls


def test_weights_that_are_no_numbers_are_no_place_to_go_on_from(
    corpus: str, tmp_path: Path, often: Callable[[Run], Run]
) -> None:
    run = often(Run(corpus, tmp_path / "run"))
    step = run.model.training_step

    def spoilt(batch: Any, batch_idx: int) -> Tensor:
        if batch_idx == 3:  # a step that spoils weights which are not used any more
            run.model.register_parameter("spoilt", torch.nn.Parameter(torch.tensor(torch.nan)))
        if batch_idx == 5:
            raise Killed
        return step(batch, batch_idx)

    run.model.training_step = spoilt  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run.fit(1)
    assert run.keeper.place == Place(0, 3, 6)
    assert "spoilt" not in torch.load(run.keeper.last, weights_only=True)["state_dict"]


@pytest.mark.parametrize("windows", [1, 2])
def test_ctrl_c_has_the_last_whole_step_written(
    windows: int, corpus: str, tmp_path: Path, often: Callable[[Run], Run]
) -> None:
    whole = often(Run(corpus, tmp_path / "whole")).fit(2, accumulate_grad_batches=windows)
    run = often(Run(corpus, tmp_path / "run"))
    run.keeper.pace = Pace()  # in a minute
    step = run.model.training_step

    def interrupted(batch: Any, batch_idx: int) -> Tensor:
        if (run.model.current_epoch, batch_idx) == (1, 2):
            signal.raise_signal(signal.SIGINT)
        return step(batch, batch_idx)

    run.model.training_step = interrupted  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit):  # the trainer's own way
            run.fit(2, accumulate_grad_batches=windows)
    finally:
        signal.signal(signal.SIGINT, before)
    done = 3 if windows == 1 else 4
    assert run.keeper.place == Place(1, done, 6)
    resumed = often(Run(corpus, tmp_path / "run"))
    resumed.fit(2, resume=True, accumulate_grad_batches=windows)
    assert [(1, n) for n in range(done, 6)] == resumed.seen
    assert_same(resumed.weights, whole.weights)
    assert without_times(resumed.history) == without_times(whole.history)


def test_a_checkpoint_is_written_whole_or_not_at_all(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(corpus, tmp_path / "run").fit(1)
    before = run.keeper.last.read_bytes()

    def torn(path: Path) -> None:
        Path(path).write_bytes(b"half of a check")
        raise Killed

    monkeypatch.setattr(run.trainer, "save_checkpoint", torn)
    with pytest.raises(Killed):
        run.keeper._write_checkpoint(run.trainer)
    assert run.keeper.last.read_bytes() == before
    resumed = Run(corpus, tmp_path / "run").fit(2, resume=True)
    assert torch.load(resumed.keeper.last, weights_only=True)["epoch"] == 1
    assert not list((tmp_path / "run").glob(".last*"))


def test_a_line_of_the_history_that_was_cut_off_is_forgotten(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run").fit(2)
    with open(tmp_path / "run" / "history.jsonl", "a", encoding="utf-8") as file:
        file.write('{"epoch": 2, "train/lo')
    resumed = Run(corpus, tmp_path / "run").fit(4, resume=True)
    assert [line["epoch"] for line in resumed.history] == [0, 1, 2, 3]
    assert resumed.history[:2] == run.history[:2]


def test_the_random_state_of_an_epoch_is_that_of_its_number_and_the_seed(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_losses(name: str) -> list[float]:
        run = Run(corpus, tmp_path / name, optimizer="sgd")
        run.model.learning_rate = 0.0
        run.fit(2)
        return [line["train/loss"] for line in run.history]

    one, same = first_losses("a"), first_losses("b")
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    other = first_losses("c")
    assert one == same
    assert one[0] != one[1]
    assert one != other


def test_training_stops_once_patience_is_at_an_end(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run", [0.4, 0.5, 0.5, 0.4, 0.9, 0.9], patience=2).fit(6)
    assert len(run.history) == 4
    assert (run.keeper.best_epoch, run.stop.wait_count) == (1, 2)


def test_a_rise_smaller_than_what_counts_is_none(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run", [0.4, 0.405, 0.409, 0.9])
    run.stop = EarlyStop(patience=2, min_delta=0.01)
    run.fit(4)
    assert len(run.history) == 3
    assert run.keeper.best_epoch == 2


def test_a_run_that_was_stopped_for_good_is_not_trained_on(corpus: str, tmp_path: Path) -> None:
    script = [0.4, 0.5, 0.5, 0.4, 0.9, 0.9]
    run = Run(corpus, tmp_path / "run", script, patience=2).fit(6)
    again = Run(corpus, tmp_path / "run", script, patience=2).fit(6, resume=True)
    assert again.history == run.history
    assert_same(again.weights, run.weights)
    assert again.keeper.best_epoch == 1


def test_a_run_that_was_stopped_goes_on_with_more_patience(corpus: str, tmp_path: Path) -> None:
    script = [0.4, 0.5, 0.5, 0.4, 0.9, 0.9]
    Run(corpus, tmp_path / "run", script, patience=2).fit(6)
    again = Run(corpus, tmp_path / "run", script, patience=3).fit(6, resume=True)
    assert len(again.history) == 6
    assert again.keeper.best_epoch == 4


def test_the_score_that_is_watched_is_the_models_own(corpus: str, tmp_path: Path) -> None:
    run = Run(corpus, tmp_path / "run").fit(1)
    assert run.stop.monitor == run.model.monitor == "val/span_f1"

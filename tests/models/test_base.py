"""The base class on the smallest model there is: a learned point that is drawn to its batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from seqlab.configuration import quiet
from seqlab.errors import TrainingError
from seqlab.models.base import SequenceModel
from seqlab.nn.optimizers import OptimizerName, ScheduleName, schedule_factor
from seqlab.vocabulary import Vocabulary

WORDS = Vocabulary(["a"], padding=True, unknown=1)
TAGS = Vocabulary(["O", "X"])
STEPS = 4  # batches of an epoch


class Point(SequenceModel):
    """A point that is drawn to its batches, and rows; the score of an epoch is scripted."""

    def __init__(self, script: list[float] | None = None, sparse: bool = False, **k: Any) -> None:
        super().__init__(WORDS, TAGS, **k)
        torch.manual_seed(0)
        self.point = nn.Parameter(torch.zeros(3))
        self.rows = nn.Embedding(5, 3, sparse=sparse)
        self.script = script or [0.0] * 100
        self.scored: list[Tensor] = []

    def loss(self, batch: Any) -> Tensor:
        distance: Tensor = (self.point - batch).square().sum()
        size: Tensor = self.rows(torch.tensor([1, 3])).square().sum()
        return distance + size

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        self.scored.append(self.point.detach().clone())

    def on_validation_epoch_end(self) -> None:
        self.log(self.monitor, self.script[self.current_epoch])


class Watch(lightning.Callback):
    """Notes the learning rate that every step takes, and the gradients that it is taken by."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.gradients: list[list[Tensor]] = []
        self.weights: list[Tensor] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        trainer.optimizers[0].register_step_post_hook(self._note)

    def _note(self, optimizer: Optimizer, *_: Any) -> None:
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        self.rates.append(float(rate))
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradients.append([p.grad.to_dense().clone() for p in parameters])

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.weights.append(pl_module.point.detach().clone())


class Killed(Exception):
    """The process is gone."""


class Kill(Checkpoint):
    """Saves the state at the end of an epoch, and ends the process there."""

    def __init__(self, epoch: int, file: Path) -> None:
        self.epoch = epoch
        self.file = file

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.file)
            raise Killed


def trained(
    model: SequenceModel,
    epochs: int = 1,
    checkpoint: Path | None = None,
    end: Kill | None = None,
    **options: Any,
) -> tuple[lightning.Trainer, Watch]:
    """Train in a plain trainer on four batches an epoch."""
    watch = Watch()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[watch] if end is None else [watch, end],
        logger=False,
        enable_checkpointing=end is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    batches = [torch.full((3,), float(i + 1)) for i in range(STEPS)]
    loader = DataLoader(cast(Any, batches), batch_size=None)
    with quiet():
        trainer.fit(model, loader, loader, ckpt_path=checkpoint, weights_only=True)
    return trainer, watch


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_learns_all_parameters(optimizer: OptimizerName, sparse: bool) -> None:
    model = Point(sparse=sparse, optimizer=optimizer, learning_rate=0.05)
    before = model.rows.weight.detach().clone()
    trainer, watch = trained(model, epochs=20)
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[optimizer]
    main = getattr(trainer.optimizers[0], "optimizers", trainer.optimizers)[0]
    assert type(main).__name__ == name
    assert (model.point.detach() - 2.5).abs().max() < 1.0
    changed = (model.rows.weight != before).any(1).tolist()
    assert changed == [False, True, False, True, False]
    assert set(watch.rates) == {0.05}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("warmup", [0, 3, 6])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "plateau"])
def test_every_step_has_the_learning_rate_of_its_schedule(
    schedule: ScheduleName, warmup: int, sparse: bool
) -> None:
    model = Point(sparse=sparse, schedule=schedule, warmup_steps=warmup, learning_rate=0.5)
    _, watch = trained(model, epochs=3)
    total = 3 * STEPS
    expected = [0.5 * schedule_factor(schedule, step, warmup, total) for step in range(total)]
    assert watch.rates == pytest.approx(expected)


SCRIPT = [0.5, 0.6, 0.6, 0.5, 0.6, 0.7, 0.6, 0.6, 0.6]
#         best best  1    2->   1  best   1    2->   1
FACTORS = [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_a_plateau_lowers_the_rate_after_more_epochs_without_a_rise_than_its_patience() -> None:
    model = Point(SCRIPT, schedule="plateau", plateau_patience=1, learning_rate=0.5)
    _, watch = trained(model, epochs=len(SCRIPT))
    assert watch.rates[::STEPS] == pytest.approx([0.5 * factor for factor in FACTORS])


def test_a_warm_up_ends_where_a_plateau_has_lowered_the_rate() -> None:
    script = [0.5, 0.4, 0.3, 0.2]
    model = Point(script, schedule="plateau", plateau_patience=0, warmup_steps=2 * STEPS)
    _, watch = trained(model, epochs=4)
    assert watch.rates[-1] == pytest.approx(0.25 * 2e-3)
    assert max(watch.rates[: 2 * STEPS]) == pytest.approx(2e-3)


def test_a_plateau_counts_only_epochs_that_were_scored() -> None:
    script = [0.0, 0.5, 0.0, 0.6, 0.0, 0.7]  # of the even epochs nothing is known
    model = Point(script, schedule="plateau", plateau_patience=0, learning_rate=0.5)
    _, watch = trained(model, epochs=6, check_val_every_n_epoch=2)
    assert set(watch.rates) == {0.5}


def test_without_a_validation_split_a_plateau_is_constant() -> None:
    model = Point(schedule="plateau", plateau_patience=0, learning_rate=0.5)
    _, watch = trained(model, epochs=3, limit_val_batches=0)
    assert set(watch.rates) == {0.5}


def norms(watch: Watch) -> list[float]:
    return [torch.cat([g.flatten() for g in step]).norm().item() for step in watch.gradients]


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_clipped_by_their_joint_norm(sparse: bool) -> None:
    _, free = trained(Point(sparse=sparse))
    assert min(norms(free)) > 1.0
    _, clipped = trained(Point(sparse=sparse), gradient_clip_val=0.5)
    assert norms(clipped) == pytest.approx([0.5] * STEPS, rel=1e-4)
    _, wide = trained(Point(sparse=sparse), gradient_clip_val=1e6)
    assert norms(wide) == pytest.approx(norms(free))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_clipped_after_the_scale_of_float16_is_taken_out(
    optimizer: OptimizerName, sparse: bool
) -> None:
    def clipped(**options: Any) -> Watch:
        model = Counted(sparse=sparse, optimizer=optimizer)
        return trained(model, gradient_clip_val=0.5, accumulate_grad_batches=2, **options)[1]

    scaling = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    found, wanted = clipped(plugins=[scaling]), clipped()
    assert norms(found) == pytest.approx([0.5, 0.5], rel=1e-4)
    torch.testing.assert_close(found.gradients, wanted.gradients)
    torch.testing.assert_close(found.weights, wanted.weights)


class Many(Point):
    """A model whose batches count a hundred thousand things."""

    def count(self, batch: Any) -> int:
        return 100_000


def test_a_loss_is_not_multiplied_out_of_the_range_of_float16() -> None:
    seen: list[Tensor] = []
    model = Many()
    model.rows.weight.register_hook(lambda gradient: seen.append(gradient.abs().max()))
    trained(model, accumulate_grad_batches=2)
    assert max(seen) < 10


def test_gradients_are_clipped_by_value_where_that_is_asked_for() -> None:
    _, watch = trained(Point(), gradient_clip_val=0.5, gradient_clip_algorithm="value")
    assert all(g.abs().max() <= 0.5 for step in watch.gradients for g in step)
    assert max(norms(watch)) > 0.5


class Broken(Point):
    """A model whose loss stops being a number in its second epoch."""

    value = math.nan

    def loss(self, batch: Any) -> Tensor:
        return super().loss(batch) * (self.value if self.global_step == STEPS + 2 else 1.0)


SENTENCE = (
    "the loss is not a number any more in epoch {} at step {}: lower model.learning_rate (now {}) "
    "or trainer.gradient_clip_val."
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_at_its_step(value: float) -> None:
    model = Broken(learning_rate=0.25)
    model.value = value
    with pytest.raises(TrainingError) as error:
        trained(model, epochs=3)
    assert str(error.value) == SENTENCE.format(1, STEPS + 2, 0.25)


def test_a_loss_that_is_no_number_stops_at_the_end_of_its_epoch_on_other_devices() -> None:
    model = Point()
    model._loss_sum, model._loss_steps = torch.tensor(math.nan), 3
    with pytest.raises(TrainingError) as error:
        model.on_train_epoch_end()
    assert str(error.value) == SENTENCE.format(0, 0, 0.002)


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps() -> None:
    model = Point(optimizer="sgd", learning_rate=0.0)
    trainer, _ = trained(model, epochs=2)
    rows = model.rows.weight[[1, 3]].square().sum().item()
    mean = sum(3.0 * (i + 1) ** 2 for i in range(STEPS)) / STEPS + rows
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(mean, rel=1e-5)


def averaged(weights: list[Tensor], decay: float) -> Tensor:
    """The moving average by its definition, from weights of 0 on."""
    mean = torch.zeros(3)
    for step, value in enumerate(weights, 1):
        share = min(decay, (1 + step) / (10 + step))
        mean = share * mean + (1 - share) * value
    return mean


def test_the_average_is_scored_and_the_weights_are_trained() -> None:
    plain, moving = Point(learning_rate=0.1), Point(learning_rate=0.1, averaging=0.9)
    _, watch = trained(plain, epochs=3)
    _, same = trained(moving, epochs=3)
    torch.testing.assert_close(same.weights, watch.weights, rtol=0, atol=0)
    assert torch.equal(plain.scored[-1], watch.weights[-1])
    expected = [averaged(watch.weights[: e * STEPS], 0.9) for e in (1, 2, 3)]
    torch.testing.assert_close(moving.scored[STEPS - 1 :: STEPS], expected)
    assert torch.equal(moving.point, watch.weights[-1])


def test_the_average_is_in_place_only_while_it_is_asked_for() -> None:
    model = Point(learning_rate=0.1, averaging=0.9)
    _, watch = trained(model)
    raw, mean = watch.weights[-1], averaged(watch.weights, 0.9)
    with model.averaged():
        torch.testing.assert_close(model.point.detach(), mean)
    assert torch.equal(model.point, raw)
    with pytest.raises(Killed), model.averaged():
        raise Killed
    assert torch.equal(model.point, raw)
    plain = Point()
    before = plain.point.detach().clone()
    with plain.averaged():
        assert torch.equal(plain.point, before)


def test_scoring_a_finished_model_scores_its_weights() -> None:
    model = Point(learning_rate=0.1, averaging=0.9)
    trainer, watch = trained(model)
    batches = [torch.zeros(3)]
    with quiet():
        trainer.validate(model, DataLoader(cast(Any, batches), batch_size=None), verbose=False)
    assert torch.equal(model.scored[-1], watch.weights[-1])


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "schedule": "plateau", "plateau_patience": 0, "warmup_steps": 6},
        {"optimizer": "adamw", "schedule": "cosine", "warmup_steps": 6, "averaging": 0.9},
        {"optimizer": "sgd", "momentum": 0.9, "schedule": "linear", "sparse": True},
        {"optimizer": "adam", "sparse": True, "averaging": 0.5},
    ],
    ids=str,
)
def test_a_checkpoint_holds_all_that_the_next_step_needs(
    options: dict[str, Any], tmp_path: Path
) -> None:
    script = [0.5, 0.4, 0.6, 0.5, 0.4]
    whole, resumed = Point(script, **options), Point(script, **options)
    _, watch = trained(whole, epochs=5)
    with pytest.raises(Killed):
        trained(Point(script, **options), epochs=5, end=Kill(2, tmp_path / "last.ckpt"))
    with torch.no_grad():  # a new process begins with other weights
        resumed.point.add_(9.0)
    _, rest = trained(resumed, epochs=5, checkpoint=tmp_path / "last.ckpt")
    assert rest.rates == watch.rates[3 * STEPS :]
    torch.testing.assert_close(rest.weights, watch.weights[3 * STEPS :], rtol=0, atol=0)
    assert torch.equal(resumed.scored[-1], whole.scored[-1])


def test_an_average_is_taken_up_where_the_weights_are(tmp_path: Path) -> None:
    script = [0.0, 0.0]
    options: dict[str, Any] = {"averaging": 0.9, "learning_rate": 0.1}
    with pytest.raises(Killed):
        trained(Point(script, **options), epochs=2, end=Kill(0, tmp_path / "last.ckpt"))
    resumed = Point(script, **options)  # read in float32, then moved, as to a GPU
    trained(resumed, epochs=2, checkpoint=tmp_path / "last.ckpt", precision="64-true")
    assert resumed.scored[-1].dtype == torch.float64


class Counted(Point):
    """A model whose batches count as much as they say."""

    def count(self, batch: Any) -> int:
        return int(batch[0])


@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_of_several_batches_weighs_each_by_what_it_counts(sparse: bool) -> None:
    model = Counted(sparse=sparse, optimizer="sgd", learning_rate=0.0)
    _, watch = trained(model, accumulate_grad_batches=3)  # 1, 2, 3 in the first step; 4 in the next
    steps = [next(g for g in both if g.shape == (3,)) for both in watch.gradients]
    mean = -2 * (1 * 1 + 2 * 2 + 3 * 3) / (1 + 2 + 3)
    assert [step.tolist() for step in steps] == [pytest.approx([x] * 3) for x in (mean, -8.0)]
    rows = 2 * model.rows.weight[[1, 3]].detach()
    for both in watch.gradients:
        found = next(g for g in both if g.shape == (5, 3))
        torch.testing.assert_close(found[[1, 3]], rows)


def test_the_average_takes_in_a_step_once_however_many_batches_it_has() -> None:
    model = Point(optimizer="sgd", averaging=0.9, learning_rate=0.1)
    _, watch = trained(model, epochs=2, accumulate_grad_batches=2)
    with model.averaged():
        found = model.point.detach().clone()
    torch.testing.assert_close(found, averaged(watch.weights[1::2], 0.9))

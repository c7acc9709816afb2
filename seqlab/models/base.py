"""What all models share: optimizers, schedules, gradient clipping and a watch over the loss."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import lightning.pytorch as lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torchmetrics import Metric

from seqlab.errors import RecipeError, TrainingError
from seqlab.hub_model import HubModel
from seqlab.networks.base import Network
from seqlab.nn.averaging import WeightAverage
from seqlab.nn.optimizers import clip_gradients_, make_optimizer, schedule_factor
from seqlab.nn.precision import using
from seqlab.nn.sparse_rows import mean_over_processes, sparse_rows
from seqlab.subwords import SubwordVocabulary
from seqlab.vocabulary import Vocabulary

Stage = Literal["val", "test"]


class SequenceModel(Network, lightning.LightningModule, HubModel):
    """Base of the task models; works in anybody's ``Trainer``.

    Args:
        source_vocab: what goes in.
        target_vocab: what comes out.
        **options: see :class:`seqlab.networks.base.Network`.

    Attributes:
        monitor: name of the validation score that chooses the best epoch; larger is better.
        scorers: the metrics of a stage, under names that begin with it.
        last_scores: what :meth:`scores` said last.
        scored_epoch: the last epoch after which the validation split was scored; -1 before.
    """

    monitor = "val/accuracy"

    def __init__(
        self,
        source_vocab: Vocabulary | SubwordVocabulary,
        target_vocab: Vocabulary | SubwordVocabulary,
        **options: Any,
    ) -> None:
        super().__init__(source_vocab, target_vocab, **options)
        self.scorers = nn.ModuleDict()
        self.last_scores: dict[str, Any] = {}
        self.scored_epoch = -1
        self._average: WeightAverage | None = None
        self._averaged_steps = 0
        self._loss_sum: Tensor | None = None
        self._loss_steps = 0
        self._counted: Tensor | int = 0  # what the losses since the last step are means of
        self._unit = 0.0  # what they are counted in; the same in all processes

    def loss(self, batch: Any) -> Tensor:
        """Return the training loss of a batch, a scalar."""
        raise TypeError(f"{type(self).__name__} has no loss.")

    def count(self, batch: Any) -> Tensor | int:
        """Say of how many things the loss of a batch is the mean: sequences, here."""
        return len(batch)

    def score(self, batch: Any, stage: Stage) -> None:
        """Count a batch of the validation or test split."""
        raise TypeError(f"{type(self).__name__} has no scores.")

    def scores(self, stage: Stage) -> dict[str, Any]:
        """Return what has been counted so far, as plain JSON data under ``{stage}/...``."""
        raise TypeError(f"{type(self).__name__} has no scores.")

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Score a batch of the validation split."""
        with using(self.precision, self.device):
            self.score(batch, "val")

    def test_step(self, batch: Any, batch_index: int) -> None:
        """Score a batch of the test split."""
        with using(self.precision, self.device):
            self.score(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation split, and keep what was worked out for it."""
        self._log_scores("val")
        self.flush()

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test split, and keep what was worked out for it."""
        self._log_scores("test")
        self.flush()

    def _log_scores(self, stage: Stage) -> None:
        self.last_scores = self.scores(stage)
        for name, value in self.last_scores.items():
            if isinstance(value, float):
                self.log(name, value, prog_bar=name == self.monitor)
        for name, scorer in self.scorers.items():
            if name.startswith(stage):
                assert isinstance(scorer, Metric)
                scorer.reset()

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Return the loss; it is summed here and logged once an epoch, as logging costs time."""
        with using(self.precision, self.device):
            loss = self.loss(batch)
        if loss.device.type == "cpu" and not math.isfinite(loss.item()):
            raise self._not_finite(batch)
        if self._gathers and not self._unit:
            self._unit = self._unit_of(batch)
        if getattr(batch, "repeated", False):  # of a loader of one's own it may be anything
            return loss * 0.0
        detached = loss.detach()
        self._loss_sum = detached if self._loss_sum is None else self._loss_sum + detached
        self._loss_steps += 1
        if not self._gathers:
            return loss
        count = self.count(batch)
        self._counted = self._counted + count
        return loss * (count / self._unit)

    def _unit_of(self, batch: Any) -> float:
        """Find what to count in, so that gradients stay about as large as those of a mean.

        Those of a sum over thousands of subwords leave the range of float16. A power of two changes
        no digit of them, whichever it is.
        """
        count = torch.as_tensor(self.count(batch), dtype=torch.float32, device=self.device)
        most = self.trainer.strategy.reduce(count, reduce_op="max")
        return 2.0 ** math.floor(math.log2(max(1.0, float(most))))

    @property
    def _gathers(self) -> bool:
        """Whether a step is made of several batches, of this process or of others."""
        trainer = self._trainer  # there is none where the step is taken by hand
        return trainer is not None and trainer.world_size * trainer.accumulate_grad_batches > 1

    @property
    def _scaled(self) -> bool:
        """Whether the trainer scales the loss, as it does where gradients are of float16."""
        trainer = self._trainer
        return trainer is not None and getattr(trainer.precision_plugin, "scaler", None) is not None

    def _level(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients of a step by all that its batches counted, wherever they were.

        Otherwise a short batch would weigh as much as a long one, and `n` processes would not take
        the step that one takes with all their batches.
        """
        trainer = self.trainer
        counted = torch.as_tensor(self._counted, dtype=torch.float64, device=self.device)
        self._counted = 0
        total = trainer.strategy.reduce(counted, reduce_op="sum")
        if trainer.world_size > 1:
            for parameter in sparse_rows(self).values():
                if parameter.grad is not None:
                    parameter.grad = mean_over_processes(parameter.grad)
        # The trainer has divided by the first, and the processes have averaged over the second.
        factor = self._unit * trainer.accumulate_grad_batches * trainer.world_size / total
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor.to(parameter.grad.dtype))

    def setup(self, stage: str) -> None:
        """Compile parts, and keep sparse gradients from being brought together as dense ones."""
        if stage == "fit":
            self.compile_parts()
        self._ddp_params_and_buffers_to_ignore = list(sparse_rows(self))

    def on_fit_start(self) -> None:
        """Begin the average of the weights, or go on with that of a checkpoint."""
        self._unit = 0.0
        if self.trainer.world_size > 1:
            for parameter in sparse_rows(self).values():  # as is done for all others
                torch.distributed.broadcast(parameter.detach(), 0)
        self._averaged_steps = self.global_step
        if self.averaging and self._average is None:
            self._average = WeightAverage(self, self.averaging)
        if self._average is not None:  # read on the CPU, before the weights were moved
            self._average.follow()

    def on_train_start(self) -> None:
        """Refuse a schedule that ends when training does, where nobody knows when that is.

        Raises:
            RecipeError: the schedule needs the total of steps, and an epoch is a stream.
        """
        endless = math.isinf(self.trainer.num_training_batches) and self.trainer.max_steps < 0
        if endless and self.schedule in ("cosine", "linear"):
            raise RecipeError(
                f"model.schedule is {self.schedule}, which falls to the last step, and how many "
                "steps a stream has is not known: give trainer.max_steps."
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take a step, once all its batches are through, into the average of the weights."""
        if self._average is not None and self.global_step > self._averaged_steps:
            self._averaged_steps = self.global_step
            self._average.update()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the averaged weights in place, where there are any."""
        if self._average is None:
            yield
            return
        self._average.swap()
        try:
            yield
        finally:
            self._average.swap()

    def on_validation_start(self) -> None:
        """Score the averaged weights while training."""
        if self._average is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._average.swap()

    def on_validation_end(self) -> None:
        """Go on with the weights themselves."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        self.scored_epoch = self.current_epoch
        if self._average is not None:
            self._average.swap()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the average of the weights."""
        if self._average is not None:
            checkpoint["weight_average"] = self._average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the average of the weights."""
        if self.averaging and "weight_average" in checkpoint:
            self._average = WeightAverage(self, self.averaging)
            self._average.load_state_dict(checkpoint["weight_average"])

    def epoch_state(self) -> dict[str, Any]:
        """Return what this process has summed up of an epoch, between two of its steps."""
        loss = torch.zeros(()) if self._loss_sum is None else self._loss_sum.cpu()
        return {"loss": loss, "steps": self._loss_steps}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`epoch_state` returned."""
        self._loss_sum, self._loss_steps = state["loss"].to(self.device), state["steps"]

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch, stop where it is not a number, and step a plateau."""
        if self._loss_sum is not None:
            steps = torch.tensor(float(self._loss_steps), device=self.device)
            sums = torch.stack([self._loss_sum.float(), steps])
            if self._gathers:  # so that all processes learn of a loss that is no number
                sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
            mean = sums[0] / sums[1]
            if not math.isfinite(mean.item()):
                raise self._not_finite()
            self.log("train/loss", mean, prog_bar=True)
            self._loss_sum, self._loss_steps = None, 0
        score = self.trainer.callback_metrics.get(self.monitor)
        fresh = self.scored_epoch == self.current_epoch  # not the score of an earlier epoch
        if self.schedule == "plateau" and fresh and score is not None:
            plateau = self.lr_schedulers()
            assert isinstance(plateau, ReduceLROnPlateau)
            plateau.step(score)
        self.flush()

    def _not_finite(self, batch: Any = None) -> TrainingError:
        place = f"in epoch {self.current_epoch} at step {self.global_step}"
        begins = None if batch is None else self.beginning(batch)
        if begins is not None:
            place += f", in the batch whose first sentence begins {begins!r}"
        return TrainingError(
            f"the loss is not a number any more {place}: lower model.learning_rate (now "
            f"{self.learning_rate:g}) or trainer.gradient_clip_val."
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its schedule; see the class arguments."""
        apart, rate = self.tuned_apart()
        optimizer = make_optimizer(
            self.optimizer_name,
            self,
            self.learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            betas=self.betas,
            apart=apart,
            apart_rate=rate,
            by_row=self._trainer is None or self._trainer.world_size == 1,
            fused=not self._scaled,
        )
        if self.schedule == "plateau":
            plateau = ReduceLROnPlateau(
                optimizer, "max", factor=self.plateau_factor, patience=self.plateau_patience
            )
            return {
                "optimizer": optimizer,
                # Never stepped by the trainer, which would forget the step of the last epoch in
                # the checkpoint of that epoch; `on_train_epoch_end` does it before.
                "lr_scheduler": {
                    "scheduler": plateau,
                    "monitor": self.monitor,
                    "strict": False,
                    "frequency": sys.maxsize,
                },
            }
        if self.schedule == "constant" and not self.warmup_steps:
            return optimizer
        by_step = LambdaLR(optimizer, self._factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": by_step, "interval": "step"},
        }

    def _factor(self, step: int) -> float:
        """Say by what the schedule multiplies the learning rate at a step."""
        # The trainer counts its steps by opening the training data. Before the first step that is
        # too early: a resumed run would open it on the order of epoch 0.
        total = int(self.trainer.estimated_stepping_batches) if step else 0
        return schedule_factor(self.schedule, step, self.warmup_steps, total)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Level the gradients, and raise the learning rate of a plateau schedule with a warm-up."""
        if self._gathers:
            self._level(optimizer)
        if self.schedule == "plateau" and self.global_step < self.warmup_steps:
            factor = schedule_factor("plateau", self.global_step, self.warmup_steps, 0)
            for group in optimizer.param_groups:
                group["lr"] = group.get("initial_lr", self.learning_rate) * factor

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the joint norm, sparse word rows counted in; by value as Lightning does."""
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm not in (None, "norm"):
            for parameter in self.parameters():
                if parameter.grad is not None and parameter.grad.is_sparse:
                    parameter.grad = parameter.grad.to_dense()
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        clip_gradients_(
            [p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val
        )

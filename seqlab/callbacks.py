"""What happens round an epoch: the run is kept, the best model is bundled, training stops."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from seqlab import requeue
from seqlab.batch import Batch
from seqlab.bundle import find_bundle, save_bundle
from seqlab.errors import BundleError, TrainingError
from seqlab.models.base import SequenceModel
from seqlab.resuming import (
    WITHIN,
    Pace,
    Place,
    fit_to,
    is_sound,
    loader_of,
    place_of,
    random_state,
    random_state_at,
    record,
    restore_random,
    share_of,
)
from seqlab.stopping import Stop

LAST = "last.ckpt"


class RunKeeper(Checkpoint):
    """Keep a run folder such that nothing computed is lost, whenever the run ends.

    After every epoch, and within one between steps now and then, the whole state goes to
    ``last.ckpt``; after every epoch a line goes to ``history.jsonl``, and after one that is better
    than all before, the model to ``bundle/``. Each is written in one step, so that a kill leaves
    the one before.

    Every epoch starts from a random state that its number and the seed fix, and a checkpoint within
    it keeps that state, so that a run which was killed and resumed ends with the weights of one
    that never was.

    Args:
        folder: the run folder; it may be set later, before training starts.
        recipe: the text of the resolved recipe, to go into the bundle.
        card: makes the text of the bundle's README.md from its metrics.
        facts: what else belongs into the bundle's metrics (seed, versions).

    Attributes:
        pace: when a checkpoint within an epoch is due.
        place: where a run goes on from ``last.ckpt``, as far as this process knows.
    """

    def __init__(
        self,
        folder: Path = Path(),
        recipe: str = "",
        card: Callable[[Mapping[str, Any]], str] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.recipe = recipe
        self.card = card
        self.facts = dict(facts or {})
        self.best_score: float | None = None
        self.best_epoch = -1
        self.epochs = 0
        self.processes = 1
        self.tokens = 0
        self.seconds = 0.0
        self.real = 0  # places of training batches that hold tokens, on all sides
        self.places = 0
        self._epoch_real: int | Tensor = 0
        self._epoch_places = 0
        self._epoch_tokens: int | Tensor = 0  # on the device while an epoch runs
        self._epoch_seconds = 0.0
        self._started = 0.0
        self.pace = Pace()
        self.place: Place | None = None
        self._stop = Stop()
        self._within = False  # whether the checkpoint that is being written is within an epoch
        self._place_within: Place | None = None
        self._resumed: dict[str, Any] | None = None  # what one had, until the first batch is there

    @property
    def last(self) -> Path:
        """The checkpoint from which a run goes on."""
        return self.folder / LAST

    @property
    def bundle(self) -> Path:
        """The best model so far."""
        return self.folder / "bundle"

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "padding": [self.real, self.places],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self.tokens = state_dict["tokens"]
        self.seconds = state_dict["seconds"]
        self.real, self.places = state_dict.get("padding", [0, 0])

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Add what an epoch that is under way has summed up."""
        if not self._within:
            return
        own = {
            **pl_module.epoch_state(),
            "tokens": int(self._epoch_tokens),
            "real": int(self._epoch_real),
            "places": self._epoch_places,
            "random": random_state(pl_module.device),
        }
        within = record(checkpoint, trainer, own)
        self._place_within = place_of(checkpoint)
        within["seconds"] = self._epoch_seconds + time.perf_counter() - self._started
        if pl_module.scored_epoch == trainer.current_epoch:  # validated within the epoch
            within["scores"] = {k: float(v) for k, v in trainer.callback_metrics.items()}
            within["last_scores"] = json.dumps(pl_module.last_scores)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Have the trainer go on within the epoch, with the processes that there are now."""
        self._resumed = checkpoint.get(WITHIN)
        if self._resumed is not None:
            fit_to(checkpoint, trainer.world_size, trainer.accumulate_grad_batches)

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Learn from the first process where the run is kept."""
        if stage == "fit":
            self.processes = trainer.world_size
            self.folder = Path(trainer.strategy.broadcast(str(self.folder)))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Forget lines of the history that a resumed run writes anew, and heed signals."""
        self._stop.listen(trainer)
        self._started = time.perf_counter()
        self.pace.wrote()
        if self._resumed is not None:
            self._take_up(trainer, pl_module, self._resumed)
        history = self.folder / "history.jsonl"
        if trainer.is_global_zero and history.exists():
            lines = history.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [x for x in lines if x.endswith("\n")]  # the last may be cut off by a kill
            kept = [x for x in kept if json.loads(x)["epoch"] < trainer.current_epoch]
            partial = history.with_name(f".{history.name}.part")
            partial.write_text("".join(kept), encoding="utf-8")
            os.replace(partial, history)

    def _take_up(
        self, trainer: lightning.Trainer, model: SequenceModel, within: Mapping[str, Any]
    ) -> None:
        """Take up the sums of an epoch; its start was in another process."""
        own = share_of(within["processes"], trainer.global_rank, trainer.world_size)
        model.load_epoch_state(own)
        self._epoch_tokens, self._epoch_seconds = own["tokens"], within["seconds"]
        self._epoch_real, self._epoch_places = own["real"], own["places"]
        if "scores" in within:
            model.scored_epoch = within["epoch"]
            model.last_scores = json.loads(within["last_scores"])
            scores = {k: torch.tensor(v) for k, v in within["scores"].items()}
            trainer.callback_metrics.update(scores)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self._epoch_tokens, self._epoch_real, self._epoch_places = 0, 0, 0
        self._epoch_seconds = 0.0
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fix the random state of the epoch, after the loader has drawn its own number.

        Between two steps all that belongs to the one before is done: there a checkpoint can be.
        """
        if self._resumed is not None:
            self._draw_on(trainer, pl_module, self._resumed)
            self._resumed = None
        elif batch_idx == 0:
            seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
            torch.manual_seed(1_000_003 * seed + 1009 * trainer.current_epoch + trainer.global_rank)
        elif batch_idx % trainer.accumulate_grad_batches == 0:
            self._between_steps(trainer)
        self._stop.hold()

    def _between_steps(self, trainer: lightning.Trainer) -> None:
        agree = trainer.strategy.broadcast if trainer.world_size > 1 else None
        patience = math.inf if requeue.job() is None else requeue.INTERVAL
        if self.pace.due(agree, self._stop.asks_for_checkpoint, patience):
            self._write_within(trainer)
            self._queue_again(trainer)
        if self._stop.wanted is not None:
            self._stop.release()

    def _queue_again(self, trainer: lightning.Trainer) -> None:
        """Have SLURM queue the job again, if it has told the first process that its turn is over.

        Raises:
            TrainingError: it is queued again; training goes on where SLURM does not do that.
        """
        if requeue.job() is None:
            return
        name = ""
        if trainer.is_global_zero and self._stop.turn_is_over:
            try:
                name = requeue.queue_again()
            except TrainingError as error:
                self._stop.turn_is_over = False
                print(f"seqlab: {error}", file=sys.stderr, flush=True)
        name = trainer.strategy.broadcast(name)
        if name:
            raise TrainingError(f"the turn of SLURM job {name} is over, and it is queued again.")

    def _draw_on(
        self, trainer: lightning.Trainer, model: SequenceModel, within: Mapping[str, Any]
    ) -> None:
        own = share_of(within["processes"], trainer.global_rank, trainer.world_size)
        if "random" in own:
            restore_random(own["random"], model.device)
        else:
            random_state_at(place_of({WITHIN: within}), trainer.global_rank)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count tokens, without waiting for a GPU."""
        if not getattr(batch, "repeated", False):
            self._epoch_tokens = batch.lengths.sum() + self._epoch_tokens
            if hasattr(batch, "places"):
                self._epoch_real = batch.real + self._epoch_real
                self._epoch_places += batch.places

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Stop the clock: validation is no training."""
        self._stop.release()
        self._epoch_seconds += time.perf_counter() - self._started

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Go on with the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write history, bundle and checkpoint."""
        assert isinstance(pl_module, SequenceModel)
        self._stop.hold()
        counts = (self._epoch_tokens, self._epoch_real, self._epoch_places)
        sums = torch.stack([torch.as_tensor(count, device=pl_module.device) for count in counts])
        sums = trainer.strategy.reduce(sums, reduce_op="sum")
        tokens, real, places = (int(x) for x in sums)  # a GPU is done with the epoch after this
        self._epoch_tokens, self.real, self.places = tokens, self.real + real, self.places + places
        self._epoch_seconds += time.perf_counter() - self._started
        self.tokens += tokens
        self.seconds += self._epoch_seconds
        scores = {k: float(v) for k, v in trainer.callback_metrics.items()}
        if pl_module.scored_epoch != trainer.current_epoch:  # those are of an earlier epoch
            scores = {k: v for k, v in scores.items() if not k.startswith("val/")}
        score = scores.get(pl_module.monitor)
        better = self.best_score is None or (score is not None and score > self.best_score)
        if better:
            self.best_score, self.best_epoch = score, trainer.current_epoch
        if trainer.is_global_zero:
            self._write_history(trainer.current_epoch, scores)
            if better:
                self._write_bundle(pl_module)
        self._write_checkpoint(trainer)
        self.place = Place(trainer.current_epoch)
        if trainer.is_global_zero:  # only now, as what was said is kept whatever comes
            self._say(trainer.current_epoch, scores, pl_module.monitor, better)
        self.pace.wrote()
        self._queue_again(trainer)
        self._stop.release()

    def _write_bundle(self, model: SequenceModel) -> None:
        metrics = {**self.facts, **getattr(model, "last_scores", {}), "best_epoch": self.best_epoch}
        card = None if self.card is None else self.card(metrics)
        with model.averaged():
            save_bundle(model, self.bundle, metrics=metrics, recipe=self.recipe, card=card)

    def _write_within(self, trainer: lightning.Trainer) -> None:
        """Write a checkpoint between two steps of an epoch."""
        if loader_of(trainer) is None:  # a loader of one's own begins at its beginning
            return
        if not is_sound(trainer.lightning_module):  # the checkpoint before is a better place
            self.pace.wrote()
            return
        start = time.perf_counter()
        self._within = True
        try:
            self._write_checkpoint(trainer)
        finally:
            self._within = False
        self.place = self._place_within
        self.pace.wrote(time.perf_counter() - start)

    def _write_checkpoint(self, trainer: lightning.Trainer) -> None:
        partial = self.folder / f".{LAST}.part"
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                os.replace(partial, self.last)
        except OSError:
            partial.unlink(missing_ok=True)  # a full disk has no room for half a checkpoint
            raise

    def _write_history(self, epoch: int, scores: Mapping[str, float]) -> None:
        line = {"epoch": epoch, **scores, "seconds": round(self._epoch_seconds, 3)}
        with open(self.folder / "history.jsonl", "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def _say(self, epoch: int, scores: Mapping[str, float], monitor: str, better: bool) -> None:
        speed = self._epoch_tokens / max(self._epoch_seconds, 1e-9)
        shown = [f"loss {scores['train/loss']:.3f}"] if "train/loss" in scores else []
        if monitor in scores:
            shown.append(f"{monitor} {scores[monitor]:.4f}{' (best)' if better else ''}")
        shown.append(f"{speed:,.0f} tokens/s")
        if self.processes > 1:
            shown[-1] += f" ({speed / self.processes:,.0f} in each process)"
        print(f"epoch {epoch}: {', '.join(shown)}", file=sys.stderr, flush=True)

    def keep(self, model: SequenceModel, metrics: Mapping[str, Any]) -> None:
        """Write the bundle anew, after something was found out about the best model.

        Args:
            model: with the weights of the best epoch.
            metrics: to keep beside it.
        """
        card = None if self.card is None else self.card(metrics)
        save_bundle(model, self.bundle, metrics=metrics, recipe=self.recipe, card=card)

    def restore_best(self, model: SequenceModel) -> None:
        """Put the weights of the best epoch into a model."""
        from safetensors.torch import load_file

        try:
            model.load_state_dict(load_file(find_bundle(self.bundle) / "model.safetensors"))
        except BundleError as error:
            raise BundleError(
                f"{self.folder} has no bundle yet: no epoch was finished and validated."
            ) from error

"""seqlab as a contender: `seqlab fit`'s own path, the same steps in a bare loop, the pipeline.

Takes orders as `worker.py` says. Which kernels it uses, SEQLAB_KERNELS says.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from steps import Watch
from worker import count, read, serve

from seqlab import report
from seqlab.bundle import load_bundle, save_bundle
from seqlab.callbacks import RunKeeper
from seqlab.configuration import SeqlabCLI, build, quiet
from seqlab.errors import SeqlabError
from seqlab.interrupts import interruptible
from seqlab.nn.optimizers import clip_gradients_
from seqlab.pipeline import Pipeline

CLIP = 5.0  # what `seqlab fit` clips gradients to, unless the recipe says otherwise


class Seqlab:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the splits as words and tags, for what is predicted.
        threads: of torch.
        recipe: file of the recipe.
        overrides: of the recipe, as on the command line.
    """

    def __init__(
        self, corpus: str, threads: int, recipe: str, overrides: list[str] | None = None
    ) -> None:
        torch.set_num_threads(threads)
        self.versions = report.versions()
        self.recipe = Path(recipe)
        self.corpus = corpus
        self.overrides = overrides or []

    def _built(self, seed: int, batches: int, keeper: RunKeeper | None = None) -> SeqlabCLI:
        words = ["--seed_everything", str(seed), "--trainer.max_epochs", "1"]
        words += ["--trainer.limit_train_batches", str(batches), "--trainer.limit_val_batches", "0"]
        return build(self.recipe, [*self.overrides, *words], [keeper] if keeper else [])

    def train(self, seed: int, batches: int) -> dict[str, Any]:
        """Train on some batches of an epoch as `seqlab fit` does, and count as it counts.

        Args:
            seed: of the weights and of the order of the sentences.
            batches: how many of them.
        """
        with tempfile.TemporaryDirectory() as folder:
            keeper = RunKeeper(Path(folder))
            cli = self._built(seed, batches, keeper)
            keeper.recipe = cli.recipe
            keeper.card = lambda metrics: report.card(metrics, keeper.recipe)
            with quiet(), interruptible(cli.trainer):
                cli.trainer.fit(cli.model, cli.datamodule)
        return {
            "tokens": keeper.tokens,
            "seconds": keeper.seconds,
            "steps": cli.trainer.global_step,
        }

    def bare(self, seed: int, batches: int, watched: bool = False) -> dict[str, Any]:
        """Take the same steps in a bare loop.

        Args:
            seed: of the weights and of the order of the sentences.
            batches: how many of them.
            watched: time the parts of a step too.
        """
        cli = self._built(seed, batches)
        cli.datamodule.setup("fit")
        model = cli.model.train()
        optimizer = model.configure_optimizers()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        loader = cli.datamodule.train_dataloader()
        watch = Watch(model if watched else None)
        tokens, steps, start = 0, 0, time.perf_counter()
        for batch in islice(loader, batches):
            watch.lap("batch")
            with precision_of(model):
                loss = model.loss(batch)
            watch.lap("rest of forward")
            optimizer.zero_grad()
            watch.lap("optimizer")
            loss.backward()
            watch.lap("embedder, backward")
            clip_gradients_(parameters, CLIP)
            watch.lap("clipping")
            optimizer.step()
            watch.lap("optimizer")
            tokens, steps = tokens + int(batch.lengths.sum()), steps + 1
        seconds = time.perf_counter() - start
        return {"tokens": tokens, "seconds": seconds, "steps": steps, "parts": watch.parts}

    def predict(self, seed: int) -> dict[str, Any]:
        """Tag the test split, from words to tags, with a new pipeline and then with the same."""
        sentences = read(self.corpus, "test")
        words = [sentence.words for sentence in sentences]
        with tempfile.TemporaryDirectory() as folder:
            model = self._built(seed, 1).model
            save_bundle(model, Path(folder) / "bundle")
            read_back = load_bundle(Path(folder) / "bundle")
        precision = getattr(model, "precision", "exact")
        pipeline = Pipeline(read_back, confidence=False, precision=precision)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            found = [result.tags for result in pipeline(words)]
            times.append(time.perf_counter() - start)
        assert [len(tags) for tags in found] == [len(sentence) for sentence in words]
        return {"tokens": count(sentences), "seconds": times[0], "warm_seconds": times[1]}

    def share_of_crf(self, seed: int, batches: int) -> dict[str, Any]:
        """Time whole steps, and the CRF alone on what they gave it, forwards and backwards."""
        cli = self._built(seed, batches)
        cli.datamodule.setup("fit")
        device = cli.trainer.strategy.root_device
        model = cli.model.to(device).train()
        optimizer = model.configure_optimizers()
        step, crf = 0.0, 0.0
        for batch in islice(cli.datamodule.train_dataloader(), batches):
            moved = model.transfer_batch_to_device(batch, device, 0)
            start = _now(device)
            optimizer.zero_grad()
            model.loss(moved).backward()
            optimizer.step()
            step += _now(device) - start
            given = model.emissions(moved).detach().requires_grad_()
            start = _now(device)
            model.crf(given, moved.target, moved.mask).backward()
            crf += _now(device) - start
        return {"step_seconds": step, "crf_seconds": crf}


def precision_of(model: Any) -> contextlib.AbstractContextManager[object]:
    """Compute as the model's recipe says; an earlier seqlab had nothing to say."""
    if getattr(model, "precision", "exact") == "exact":
        return contextlib.nullcontext()
    from seqlab.nn.precision import using

    return using(model.precision, model.device)


def _now(device: torch.device) -> float:
    """Read the clock when the device has done what was ordered."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    serve(Seqlab, SeqlabError)

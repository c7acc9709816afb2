"""fit, validate and test: train a recipe into a run folder, score a model."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from seqlab import report, requeue, runs
from seqlab.abstention import curve_of, points, wished, wished_lines
from seqlab.budget import find_budget
from seqlab.bundle import write_json
from seqlab.calibration import (
    calibration_of,
    diagram_lines,
    fit_temperature,
    is_calibrated,
    scored,
)
from seqlab.callbacks import LAST, RunKeeper
from seqlab.configuration import SeqlabCLI, build, check_processes, leave_others, quiet
from seqlab.data.sampling import is_first
from seqlab.errors import SeqlabError, UsageError
from seqlab.interrupts import find_checkpoint, interruptible, read_checkpoint, what_is_left
from seqlab.nn import kernels
from seqlab.recipe import find_recipe
from seqlab.restoring import restored
from seqlab.resuming import place_of
from seqlab.strategies import shared_out
from seqlab.zoo import model_folder


def fit(argv: Sequence[str]) -> int:
    """Train a recipe, restore its best epoch, test it, and leave a run folder.

    Args:
        argv: ``RECIPE [--key value ...]``; ``--ckpt_path last`` goes on with the newest run.

    Returns:
        0.
    """
    recipe, overrides = _split(argv, "fit")
    overrides, checkpoint = _taken(overrides, "--ckpt_path")
    config = find_recipe(recipe)
    if any(word.startswith("--print_config") for word in overrides):
        build(config, overrides)  # prints and exits
    name, folder = config.stem, None
    if checkpoint is None:
        begun = requeue.begun(name, argv, LAST)
        checkpoint = None if begun is None else str(begun)
    if checkpoint is not None:
        checkpoint, folder, config = _resumed(config, checkpoint)
    kernels.wanted()  # a wrong switch is no run either
    keeper = RunKeeper()
    cli = build(config, overrides, [keeper])
    if checkpoint is not None:
        # Here, where what does not fit is a sentence.
        keeper.place = place_of(read_checkpoint(Path(checkpoint), cli.model))
        _say(f"going on with {folder} {keeper.place}")
    check_processes(cli)
    if cli.trainer.is_global_zero:  # the others learn it from the first
        if folder is None:
            folder = runs.new_run(name)  # only now, as a wrong recipe is no run
            requeue.note(folder, argv)
        keeper.folder = folder
    keeper.recipe, keeper.pace = cli.recipe, cli.pace
    keeper.facts = _facts(cli)
    keeper.card = lambda metrics: report.card(metrics, keeper.recipe)
    with what_is_left(keeper, shlex.quote(recipe)):
        _begin(cli, keeper)
        find_budget(cli, keeper)
        with quiet(), interruptible(cli.trainer):
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint, weights_only=True)
        keeper.epochs = cli.trainer.current_epoch
        if not leave_others(cli):
            return 0
        keeper.restore_best(cli.model)
        _calibrate(cli, keeper)
        metrics = _final_metrics(cli, keeper)
        _leave(keeper.folder, keeper, metrics, cli)
    return 0


def _begin(cli: SeqlabCLI, keeper: RunKeeper) -> None:
    """Keep the recipe, and say what is trained, and on how many processes."""
    if not cli.trainer.is_global_zero:
        return
    (keeper.folder / "recipe.yaml").write_text(keeper.recipe, encoding="utf-8")
    size = sum(p.numel() for p in cli.model.parameters())
    _say(f"{type(cli.model).__name__} of {size:,} parameters; the run is kept in {keeper.folder}")
    if shared := shared_out(cli.trainer, cli.datamodule):
        _say(shared)


def _calibrate(cli: SeqlabCLI, keeper: RunKeeper) -> None:
    """Fit the temperature of confidences on the validation split."""
    model = cli.model
    if not is_calibrated(model):
        return
    kept, whole = scored(model, cli.datamodule.val_dataloader())
    if not whole:
        _say(
            "the temperature of confidences is fitted on the longest sentences of the validation "
            "split, which are as many as fit into memory."
        )
    model.cool(fit_temperature(model, kept))
    found = calibration_of(model, kept)
    model.measure([list(point) for point in curve_of(found.sure, found.right)])
    keeper.keep(model, keeper.facts)


def _calibrated(cli: SeqlabCLI, stage: str) -> dict[str, Any]:
    """Say how far confidences can be believed."""
    model = cli.model
    if not is_calibrated(model):
        return {}
    loader = cli.datamodule.val_dataloader if stage == "val" else cli.datamodule.test_dataloader
    found = calibration_of(model, scored(model, loader())[0])
    return {
        f"{stage}/ece": found.error,
        f"{stage}/ece_uncalibrated": found.before,
        f"{stage}/reliability": found.bins,
        f"{stage}/temperature": model.temperature,
        f"{stage}/abstention": wished(points(model.precision_curve), found.sure, found.right),
    }


def _final_metrics(cli: SeqlabCLI, keeper: RunKeeper) -> dict[str, Any]:
    """Score the best epoch on both splits that are scored."""
    model, data = cli.model, cli.datamodule
    metrics: dict[str, Any] = dict(keeper.facts)
    metrics.update(_scored(cli, "val"))
    metrics["split"] = "validation"
    if "test" in getattr(data, "splits", {}):
        metrics.update(_scored(cli, "test"))
        metrics["split"] = "test"
    else:
        _say("there is no test split: the scores are those of the validation split.")
    metrics["monitor"] = model.monitor
    metrics["best_epoch"] = keeper.best_epoch
    metrics["epochs"] = keeper.epochs
    metrics["processes"] = keeper.processes
    metrics["parameters"] = sum(p.numel() for p in model.parameters())
    metrics["train/seconds"] = round(keeper.seconds, 3)
    metrics["train/tokens_per_second"] = round(keeper.tokens / max(keeper.seconds, 1e-9), 1)
    if keeper.places:
        metrics["train/padding"] = round(1.0 - keeper.real / keeper.places, 4)
        _say(f"{metrics['train/padding']:.1%} of the places in training batches were padding.")
    metrics["peak_memory_mb"] = report.peak_memory_mb()
    return metrics


def _scored(cli: SeqlabCLI, stage: str) -> dict[str, Any]:
    """Score one split with the model as it is; returns the scores and the speed."""
    loader = cli.datamodule.val_dataloader if stage == "val" else cli.datamodule.test_dataloader
    batches = loader()
    run = cli.trainer.validate if stage == "val" else cli.trainer.test
    cli.model.last_scores = {}  # there are none of a split without batches
    start = time.perf_counter()
    with quiet(), interruptible(cli.trainer):
        run(cli.model, dataloaders=batches, verbose=False)
    seconds = time.perf_counter() - start
    tokens = int(batches.dataset.encoded.offsets[-1])
    speed = {f"{stage}/tokens_per_second": round(tokens / seconds, 1)}
    scores: dict[str, Any] = cli.model.last_scores
    return {**scores, **speed, **_calibrated(cli, stage)}


def _leave(folder: Path, keeper: RunKeeper, metrics: dict[str, Any], cli: SeqlabCLI) -> None:
    """Write what the run found, and print it with the next commands."""
    write_json(folder / "metrics.json", metrics)
    write_json(keeper.bundle / "metrics.json", metrics)
    text = report.card(metrics, keeper.recipe)
    (keeper.bundle / "README.md").write_text(text, encoding="utf-8")
    stage = "test" if metrics["split"] == "test" else "val"
    name = folder.parent / "latest" if folder.parent.joinpath("latest").exists() else folder
    print(f"\n{report.table(metrics, stage)}\n")
    print("next:")
    print(f"  seqlab predict {shlex.quote(str(name))} {_example(cli, metrics, stage)}")
    path = getattr(cli.datamodule, "path", None)
    other = f" --data.path {shlex.quote(path)}" if path else ""
    print(f"  seqlab {'test' if stage == 'test' else 'validate'} {shlex.quote(str(name))}{other}")


def _example(cli: SeqlabCLI, metrics: dict[str, Any], stage: str) -> str:
    """A command line's input that this model can read."""
    if not cli.model.source_vocab.features:
        text = report.example(metrics, stage)
        return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'
    columns = getattr(cli.datamodule, "columns", None) or {}
    given = [f"--columns {shlex.quote(f'{k}={v}')}" for k, v in columns.items() if k != "tags"]
    return " ".join(["--input FILE", *given])


def score(stage: str, argv: Sequence[str]) -> int:
    """Score a trained model: ``validate`` and ``test``.

    Args:
        stage: ``val`` or ``test``.
        argv: ``MODEL [--data.path DIR ...] [--json] [--trust]``, where MODEL is a run folder, a
            bundle, or a recipe, which means its newest run.

    Returns:
        0.
    """
    verb = "validate" if stage == "val" else "test"
    target, overrides = _split(argv, verb)
    as_json, trust = "--json" in overrides, "--trust" in overrides
    overrides = [word for word in overrides if word not in ("--json", "--trust")]
    overrides, checkpoint = _taken(overrides, "--ckpt_path")
    folder = model_folder(target)
    cli = restored(folder, overrides, trust=trust)
    if checkpoint is not None:
        wanted = str(folder.parent) if checkpoint == "last" else checkpoint
        state = read_checkpoint(find_checkpoint(wanted, Path(target).stem), cli.model)
        cli.model.load_state_dict(state["state_dict"])
        cli.model.on_load_checkpoint(state)  # the average of its weights, which is what counts
    with cli.model.averaged():
        metrics = {**_facts(cli), **_scored(cli, stage), "model": str(folder)}
    metrics["split"] = "validation" if stage == "val" else "test"
    metrics["peak_memory_mb"] = report.peak_memory_mb()
    if as_json:
        print(json.dumps(metrics, indent=2, ensure_ascii=False))
        return 0
    print(report.table(metrics, stage))
    for key, laid_out in (("reliability", diagram_lines), ("abstention", wished_lines)):
        if lines := laid_out(metrics.get(f"{stage}/{key}", [])):
            print("", *lines, sep="\n")
    return 0


def score_bundle(folder: Path, overrides: Sequence[str], stage: str) -> dict[str, Any]:
    """Score a bundle on the data of its recipe.

    Args:
        folder: the bundle.
        overrides: ``--key value ...`` of the command line.
        stage: ``val`` or ``test``.

    Returns:
        the scores, as in ``metrics.json``.
    """
    return _scored(restored(folder, overrides), stage)


def _split(argv: Sequence[str], verb: str) -> tuple[str, list[str]]:
    if not argv or argv[0].startswith("-"):
        what = "a recipe" if verb == "fit" else "a model or a recipe"
        raise UsageError(f"`seqlab {verb}` needs {what} first, as in `seqlab {verb} ner`.")
    return argv[0], list(argv[1:])


def _taken(words: Sequence[str], key: str) -> tuple[list[str], str | None]:
    """Take an option and its value out of a command line."""
    rest, value, i = [], None, 0
    while i < len(words):
        if words[i] == key:
            if i + 1 == len(words):
                raise UsageError(f"{key} needs a value, such as `{key} last`.")
            value, i = words[i + 1], i + 2
        elif words[i].startswith(f"{key}="):
            value, i = words[i].split("=", 1)[1], i + 1
        else:
            rest.append(words[i])
            i += 1
    return rest, value


def _resumed(config: Path, checkpoint: str) -> tuple[str, Path, Path]:
    """Find the checkpoint a run goes on from, the folder of that run, and its own recipe."""
    file = find_checkpoint(checkpoint, config.stem)
    saved = file.parent / "recipe.yaml"
    if file.name != LAST or not saved.is_file():  # the run would be kept beside it
        raise UsageError(
            f"{file} is not the checkpoint of a run: name its folder, as in `--ckpt_path "
            f"runs/{config.stem}/1`, or write `--ckpt_path last`."
        )
    return str(file), file.parent, saved


def _facts(cli: SeqlabCLI) -> dict[str, Any]:
    """What belongs beside every score: seed, versions, hardware, data."""
    return {
        "seed": cli.config["seed_everything"],
        "data": getattr(cli.datamodule, "path", None),
        "data_digests": getattr(cli.datamodule, "digests", {}),
        "commit": report.commit(),
        "versions": report.versions(),
        "hardware": report.hardware(),
    }


def _say(sentence: str) -> None:
    if is_first():
        print(f"seqlab: {sentence}", file=sys.stderr, flush=True)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "fit": fit,
    "validate": lambda argv: score("val", argv),
    "test": lambda argv: score("test", argv),
}


def run(verb: str, argv: Sequence[str]) -> int:
    """Run a verb of the command line.

    Args:
        verb: ``fit``, ``validate`` or ``test``.
        argv: what follows it.

    Returns:
        the exit code.

    Raises:
        SeqlabError: what the user can mend.
    """
    try:
        return VERBS[verb](argv)
    except RuntimeError as error:  # torch has a class of its own for CUDA only
        words = re.search("allocate memory|not enough memory", str(error))
        if not (words or isinstance(error, torch.OutOfMemoryError)):
            raise
        raise SeqlabError(
            "the memory is full: lower data.tokens_per_batch or model.hidden_size."
        ) from error

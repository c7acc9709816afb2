"""How a run breaks off and goes on: Ctrl-C, a full disk, checkpoints that do not fit."""

from __future__ import annotations

import errno
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from seqlab import runs
from seqlab.callbacks import LAST, RunKeeper
from seqlab.errors import TrainingError, UsageError

# What a process says that waits for one which is gone.
_ALONE = re.compile(r"gloo|nccl|connection (reset|closed|refused)|processgroup", re.IGNORECASE)


@contextmanager
def interruptible(trainer: lightning.Trainer) -> Iterator[None]:
    """Give Ctrl-C back as ``KeyboardInterrupt``: the trainer makes an end of the process of it.

    Args:
        trainer: what runs inside the block.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    try:
        yield
    except SIGTERMException:
        raise
    except SystemExit as error:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        raise KeyboardInterrupt from error


@contextmanager
def what_is_left(keeper: RunKeeper, recipe: str) -> Iterator[None]:
    """Where a run breaks off, say which model is there and how to go on.

    Args:
        keeper: keeps the run.
        recipe: as it was given on the command line.

    Raises:
        TrainingError: Ctrl-C or SIGTERM came, the loss is not a number, another process of the run
            is gone, or the run folder cannot be written.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise TrainingError(f"stopped by Ctrl-C: {_left(keeper, recipe)}.") from error
    except SIGTERMException as error:
        raise TrainingError(f"stopped by SIGTERM: {_left(keeper, recipe)}.") from error
    except TrainingError as error:
        raise TrainingError(f"{str(error).removesuffix('.')}; {_left(keeper, recipe)}.") from error
    except RuntimeError as error:
        if keeper.processes == 1 or not _ALONE.search(str(error)):
            raise
        raise TrainingError(
            "another process of this run has ended (what it said stands above, unless it was "
            f"killed): {_left(keeper, recipe)}."
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and error.filename and keeper.folder not in Path(error.filename).parents:
            raise  # another file than those of the run
        raise TrainingError(
            f"cannot write {keeper.folder}: {error.strerror or error}; make room there: "
            f"{_left(keeper, recipe)}."
        ) from error


def _left(keeper: RunKeeper, recipe: str) -> str:
    if not (keeper.bundle.exists() or keeper.last.exists()):
        return "no epoch was finished, so there is no model yet"
    found = []
    if keeper.bundle.exists():
        found.append(f"the best model so far (epoch {keeper.best_epoch}) is in {keeper.bundle}")
    if keeper.last.exists():
        place = "" if keeper.place is None else f" {keeper.place}"
        found.append(f"`seqlab fit {recipe} --ckpt_path last` goes on{place}")
    return ", and ".join(found)


def find_checkpoint(wanted: str, recipe: str) -> Path:
    """Find the checkpoint that is meant.

    Args:
        wanted: ``last``, which is the newest run of the recipe; a run folder; or a file.
        recipe: name of the recipe.

    Raises:
        UsageError: there is none.
    """
    folder = runs.latest_run(recipe) if wanted == "last" else Path(wanted)
    file = folder / LAST if folder.is_dir() else folder
    if file.is_file():
        return file
    raise UsageError(
        f"no checkpoint {file}: the run ended before it had written one; leave --ckpt_path out "
        "to start anew."
    )


def read_checkpoint(file: Path, model: nn.Module) -> dict[str, Any]:
    """Read the weights of a checkpoint and check that they fit a model.

    Args:
        file: the checkpoint.
        model: which they are for.

    Returns:
        the checkpoint, on the CPU; the state of the model is its ``state_dict``.

    Raises:
        TrainingError: the file is damaged or no checkpoint.
        UsageError: the weights are those of another model.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        saved = {name: tuple(x.shape) for name, x in checkpoint["state_dict"].items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as error:
        raise TrainingError(
            f"{file} is damaged or no checkpoint of seqlab: leave --ckpt_path out to start anew."
        ) from error
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in sorted(shapes | saved):
        if shapes.get(name) != saved.get(name):
            raise UsageError(
                f"{file} does not fit the model: {name} is {saved.get(name, 'missing')} there and "
                f"{shapes.get(name, 'missing')} here; go on with the data and the model that the "
                "run began with, or leave --ckpt_path out to start anew."
            )
    return checkpoint

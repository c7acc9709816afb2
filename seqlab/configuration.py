"""From a recipe to trainer, model and data: LightningCLI, with sentences for errors."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from seqlab.data.base import SequenceDataModule
from seqlab.early_stopping import EarlyStop
from seqlab.errors import DataError, RecipeError, SeqlabError, TrainingError
from seqlab.models.base import SequenceModel
from seqlab.nn import kernels
from seqlab.nn.kernels.allocator import keep_memory, keep_products
from seqlab.recipe_check import check_overrides, explain, read_recipe
from seqlab.resuming import Pace
from seqlab.strategies import check_precision, check_strategy

_SHAPES = 256  # of products that are kept: training meets few of its shapes again
_ADVICE = (
    ".*num_workers.*",
    ".*LightningCLI's args.*",
    ".*`isinstance.*LeafSpec.*",
    ".*sync_dist=True.*",  # the metrics are the same in all processes before they are logged
)
_SECTIONS: dict[str, type | None] = {
    "seed_everything": None,
    "model": SequenceModel,
    "data": SequenceDataModule,
    "trainer": lightning.Trainer,
    "early_stopping": EarlyStop,
    "checkpoint": Pace,
    "ckpt_path": None,
}


class SeqlabCLI(LightningCLI):
    """LightningCLI with the vocabularies linked from the data into the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the links, early stopping, and checkpoints: when, and from which to go on."""
        for side in ("source_vocab", "target_vocab"):
            parser.link_arguments(f"data.{side}", f"model.init_args.{side}", apply_on="instantiate")
        parser.add_lightning_class_args(EarlyStop, "early_stopping")
        parser.add_class_arguments(Pace, "checkpoint")
        parser.add_argument("--ckpt_path", default=None)

    def before_instantiate_classes(self) -> None:
        """Refuse what training does not keep its promises with."""
        asked = self.config.trainer
        check_precision(asked.precision, asked.accelerator)
        check_strategy(asked.strategy)

    @property
    def pace(self) -> Pace:
        """When checkpoints within an epoch are due."""
        found: Pace = self.config_init["checkpoint"]
        return found

    @property
    def recipe(self) -> str:
        """The whole configuration as YAML, without what the links fill in."""
        text: str = self.parser.dump(self.config, skip_validation=True)
        return text


def build(config: Path, overrides: Sequence[str], callbacks: Iterable[Any] = ()) -> SeqlabCLI:
    """Make trainer, model and data from a recipe.

    Args:
        config: the recipe.
        overrides: ``--key value ...`` from the command line.
        callbacks: to be added to those of the recipe.

    Returns:
        the CLI, which holds ``trainer``, ``model``, ``datamodule`` and ``config``.

    Raises:
        RecipeError: a key or a value is wrong.
        TrainingError: the device that is asked for is not there.
    """
    keep_memory()
    keep_products(_SHAPES)
    check_overrides(overrides, _SECTIONS, read_recipe(config, _SECTIONS))
    kernels.prepare()  # the compiler works while the corpus is read
    defaults = {
        "logger": False,
        "enable_progress_bar": sys.stderr.isatty(),
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "devices": 1,
        "use_distributed_sampler": False,  # the data modules share batches out themselves
        # Batches of similar length may be fewer or more in another epoch: the trainer has to count
        # them anew, or it leaves some out, or leaves out the validation.
        "reload_dataloaders_every_n_epochs": 1,
        "gradient_clip_val": 5.0,
        "callbacks": list(callbacks),
    }
    usage = io.StringIO()
    try:
        with quiet(), contextlib.redirect_stderr(_Tee(usage)):
            cli = SeqlabCLI(
                SequenceModel,
                SequenceDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,
                seed_everything_default=0,
                trainer_defaults=defaults,
                parser_kwargs={"exit_on_error": False},
                args=["--config", str(config), *overrides],
                run=False,
            )
    except ArgumentError as error:
        raise RecipeError(explain(str(error))) from error
    except (ValueError, TypeError) as error:  # how the parser wraps what a constructor raises
        raise _cause(error) from error
    except RuntimeError as error:
        if "SLURM" not in str(error):
            raise
        raise TrainingError(" ".join(str(error).split())) from error
    except MisconfigurationException as error:
        if "No supported gpu" in str(error) or "can not run on your system" in str(error):
            raise TrainingError(
                "trainer.accelerator asks for a device that this machine does not have "
                f"({str(error).splitlines()[0]}): use --trainer.accelerator cpu, or auto."
            ) from error
        raise RecipeError(f"trainer: {' '.join(str(error).split())}") from error
    # Its own way of queueing a job again writes a checkpoint wherever the signal finds a step.
    environment = cli.trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False
    return cli


def check_processes(cli: SeqlabCLI) -> None:
    """Refuse more processes than there are sequences, before any of them is started.

    Raises:
        DataError: a split that they would share has too few.
    """
    processes = cli.trainer.world_size
    for split, rows in getattr(cli.datamodule, "splits", {}).items():
        if split != "test" and len(rows) < processes:
            raise DataError(
                f"{processes} processes cannot share the {len(rows)} sequences of the {split} "
                f"split out: use --trainer.devices {len(rows)}, or fewer."
            )


def leave_others(cli: SeqlabCLI) -> bool:
    """End the work of several processes, and have the first go on alone.

    What is left to do is scored by one process with a trainer of its own, as it is after training
    in one: nothing has to be put together again.

    Args:
        cli: of a training that is over; its trainer is replaced.

    Returns:
        whether this is the process that goes on.
    """
    trainer = cli.trainer
    if trainer.world_size == 1:
        return True
    trainer.strategy.barrier("seqlab: the end of training")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if trainer.is_global_zero:
        with quiet():
            cli.trainer = lightning.Trainer(
                accelerator="cpu" if trainer.strategy.root_device.type == "cpu" else "auto",
                devices=1,
                precision=trainer.precision,
                logger=False,
                enable_progress_bar=trainer.progress_bar_callback is not None,
                enable_model_summary=False,
                enable_checkpointing=False,
                use_distributed_sampler=False,
            )
    return trainer.is_global_zero


def _cause(error: Exception) -> BaseException:
    """Find what a constructor said, in an error that the parser raised for it."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    ours = next((cause for cause in chain if isinstance(cause, SeqlabError)), None)
    if ours is None and isinstance(chain[-1], ValueError):
        cls = re.search(r"class_path='([^']+)'", str(error))
        return RecipeError(f"{cls[1] if cls else 'the recipe'}: {explain(str(chain[-1]))}")
    return ours or chain[-1]  # a defect is not the user's: it keeps its traceback


class _Tee(io.TextIOBase):
    """Pass stderr on, but for the parser's usage text, which `explain` replaces."""

    def __init__(self, kept: io.StringIO) -> None:
        self.kept = kept
        self.real = sys.stderr

    def write(self, text: str) -> int:
        if text.startswith(("usage:", "error:")):
            return self.kept.write(text)
        return self.real.write(text)

    def flush(self) -> None:
        self.real.flush()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advertisements and its advice about other people's loops off the screen."""
    loggers = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # What the libraries tell one another, even where all warnings are asked for.
            warnings.simplefilter("ignore", DeprecationWarning)
            for text in _ADVICE:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""A trained model with the data of its recipe, to be scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from seqlab.bundle import check_classes, load_bundle
from seqlab.configuration import SeqlabCLI, build
from seqlab.errors import BundleError, UsageError
from seqlab.networks.tokens import TokenNetwork
from seqlab.strategies import precision_here


def restored(folder: Path, overrides: Sequence[str], *, trust: bool = False) -> SeqlabCLI:
    """Build a trained model, and the data of its recipe as it reads them.

    Args:
        folder: a bundle with its recipe.
        overrides: ``--key value ...`` of the command line.
        trust: allow the model and its recipe to name classes outside seqlab.

    Raises:
        BundleError: there is no recipe, or the model is damaged or not trusted.
    """
    config = folder / "recipe.yaml"
    if not config.is_file():
        raise BundleError(f"{folder} has no recipe.yaml, so its data cannot be read; give a run.")
    trained = load_bundle(folder, trust=trust)
    if not trust:
        _check_recipe(folder, config)
    if any(word.split("=")[0] in ("--data.path", "--data") for word in overrides):
        # Other data: a lone file there is the test split and not one to hold parts of out from.
        overrides = ["--data.hold_out", "0", *_no_files(overrides), *overrides]
    if trained.config.get("embedder"):  # as in the bundle, which needs no pretrained files
        overrides = ["--model.embedder.bundle", str(folder.resolve()), *overrides]
    if isinstance(trained, TokenNetwork):  # word vectors decided, which are not read again
        size = ["--model.embedding_size", str(trained.config["embedding_size"])]
        overrides = [*size, *overrides]
    alone = ["--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto"]
    alone += precision_here(config)
    cli = build(config, ["--data.vocabularies_from", str(folder), *alone, *overrides])
    if cli.trainer.world_size > 1:
        raise UsageError(
            "a model is scored in one process, however many it was trained in: leave out "
            "--trainer.devices, --trainer.num_nodes and --trainer.strategy."
        )
    cli.model.load_state_dict(trained.state_dict())
    if isinstance(trained, TokenNetwork) and isinstance(cli.model, TokenNetwork):
        cli.model.cool(trained.temperature)
        cli.model.measure(trained.precision_curve)
    cli.datamodule.setup("test")
    return cli


def _check_recipe(folder: Path, config: Path) -> None:
    """Refuse a recipe in a bundle that asks for code of others, which the parser would import."""
    try:
        recipe = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return  # the parser refuses it too, and says where
    if isinstance(recipe, dict):
        # The parts of a trainer may also be named by a string alone.
        words = [
            x for x in _strings(recipe.get("trainer")) if re.fullmatch(r"[^\W\d]\w*(\.\w+)+", x)
        ]
        check_classes(folder, {**recipe, "trainer parts": [{"class_path": x} for x in words]})


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _no_files(overrides: Sequence[str]) -> list[str]:
    """Drop files that the training recipe named for single splits, unless they are given again."""
    given = {word.split("=")[0] for word in overrides}
    keys = [f"--data.{part}" for part in ("train", "validation", "test")]
    return [word for key in keys if key not in given for word in (key, "null")]

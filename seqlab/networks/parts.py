"""Parts of a model that its recipe or its vocabulary decides about."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from seqlab.errors import RecipeError
from seqlab.nn.encoders import NoEncoder, RecurrentEncoder

_SIZES = {"hidden_size", "num_layers", "dropout", "locked_dropout"}  # of the model as a whole


def import_name(path: str) -> Any:
    """Import what a path such as ``seqlab.nn.encoders.BiLSTM`` names.

    Raises:
        ImportError: there is no such module, or no such name in it.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (AttributeError, ValueError) as error:  # ValueError: there is no dot in it
        raise ImportError(str(error)) from error


def make_encoder(
    part: Mapping[str, Any] | None, input_size: int, settings: Mapping[str, Any]
) -> Any:
    """Build the encoder that a recipe names, or the recurrent one.

    Args:
        part: ``{class_path: ..., init_args: {...}}`` or None.
        input_size: what the embedder gives.
        settings: of the recurrent encoder.

    Raises:
        RecipeError: the class does not exist, refuses its arguments, or is no encoder.
    """
    if part is None and settings["num_layers"] == 0:
        _check_unused(settings, "model.num_layers: 0 leaves out: leave it out too")
        return NoEncoder(input_size)
    if part is None:
        return RecurrentEncoder(input_size, **settings)
    _check_unused(
        settings, "model.encoder replaces: write it under model.encoder.init_args, or leave it out"
    )
    path = str(part.get("class_path", ""))
    try:
        cls = import_name(path)
    except ImportError as error:
        raise RecipeError(
            f"model.encoder: no class {path!r} can be imported ({error}); write its full "
            "import path."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise RecipeError(f"model.encoder: {path!r} is no torch module.")
    try:
        built: Any = cls(input_size, **part.get("init_args", {}))
    except TypeError as error:
        raise RecipeError(f"model.encoder: {path}: {error}.") from error
    if not isinstance(getattr(built, "output_size", None), int):
        raise RecipeError(
            f"model.encoder: {path} has no output_size: it must be an encoder as described in "
            "seqlab.nn.encoders.Encoder."
        )
    return built


def _check_unused(settings: Mapping[str, Any], why: str) -> None:
    """Refuse what is said of the recurrent encoder where there is none."""
    parameters = inspect.signature(RecurrentEncoder).parameters
    for name, value in settings.items():
        if name not in _SIZES and value != parameters[name].default:
            raise RecipeError(
                f"model.{name} is {value!r}, but belongs to the recurrent encoder that {why}."
            )

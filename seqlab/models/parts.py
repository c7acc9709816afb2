"""Parts of a model that its recipe or its vocabulary decides about."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from seqlab.errors import RecipeError
from seqlab.metrics import SpanF1, TagAccuracy
from seqlab.nn.encoders import BiLSTM
from seqlab.tags import split_tag
from seqlab.vocabulary import Vocabulary


def make_scorers(target_vocab: Vocabulary) -> nn.ModuleDict:
    """Build the scorers of a tagger: ``{val,test}_accuracy`` and, with spans, ``{val,test}_spans``.

    Args:
        target_vocab: the tags, with their scheme.
    """
    scheme = target_vocab.scheme
    scorers: dict[str, nn.Module] = {}
    for stage in ("val", "test"):
        scorers[f"{stage}_accuracy"] = TagAccuracy(target_vocab.tokens)
        if scheme != "none":
            labels = sorted({split_tag(tag)[1] for tag in target_vocab.tokens if tag != "O"})
            scorers[f"{stage}_spans"] = SpanF1(labels, scheme=scheme)
    return nn.ModuleDict(scorers)


def make_encoder(
    part: Mapping[str, Any] | None,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    dropout: float,
) -> Any:
    """Build the encoder that a recipe names, or the bidirectional LSTM.

    Args:
        part: ``{class_path: ..., init_args: {...}}`` or None.
        input_size: what the embedder gives.
        hidden_size: of the LSTM.
        num_layers: of the LSTM.
        dropout: of the LSTM, between layers.

    Raises:
        RecipeError: the class does not exist, refuses its arguments, or is no encoder.
    """
    if part is None:
        return BiLSTM(input_size, hidden_size, num_layers, dropout)
    path = str(part.get("class_path", ""))
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
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

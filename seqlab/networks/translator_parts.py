"""Parts of a translator that its arguments or its vocabularies decide about."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqlab.errors import RecipeError, check_range, nearest
from seqlab.networks.translator_source import check_source
from seqlab.nn.attention import Attention, make_attention
from seqlab.nn.decoder_steps import DecoderSteps
from seqlab.nn.encoders import RecurrentEncoder
from seqlab.subwords import SubwordVocabulary

if TYPE_CHECKING:
    from seqlab.networks.translator import TranslatorNetwork

_SIZES = ("hidden_size", "num_layers", "embedding_size", "decoder_size", "decoder_layers")
_SHARES = ("dropout", "locked_dropout", "word_dropout", "label_smoothing", "scheduled_sampling")
LOSSES = ("minimum_risk", "self_critical")  # of whole translations
REWARDS = ("bleu", "chrf")
_CHOICES = {
    "tie": ("auto", "all", "decoder", "none"),
    "sequence_loss": ("none", *LOSSES),
    "sequence_reward": REWARDS,
}
_SWITCHED = {
    "scheduled_sampling": ("scheduled_sampling_steps",),
    "sequence_loss": (
        "sequence_after",
        "sequence_candidates",
        "sequence_reward",
        "sequence_smoothness",
        "likelihood_share",
    ),
}


def make_embedding(rows: int, size: int) -> nn.Embedding:
    """Rows of about unit length; padding is zero and stays so."""
    embedding = nn.Embedding(rows, size, padding_idx=SubwordVocabulary.PADDING)
    nn.init.normal_(embedding.weight, 0.0, size**-0.5)
    with torch.no_grad():
        embedding.weight[SubwordVocabulary.PADDING] = 0
    return embedding


def encoder_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what is said of the recurrent encoder out of a translator's arguments."""
    names = tuple(inspect.signature(RecurrentEncoder).parameters)[1:]  # all but its input's size
    options = {name: arguments[name] for name in names}
    if not arguments["num_layers"]:
        del options["initialisation"]  # it is the decoder's alone
    return options


def attention_of(arguments: Mapping[str, Any], memory_size: int) -> Attention:
    """Make the attention that a translator's arguments ask for.

    Args:
        arguments: of its constructor.
        memory_size: of the states that are attended to.

    Raises:
        RecipeError: the kind is unknown, or an argument does not fit it.
    """
    size = arguments["decoder_size"]
    return make_attention(
        arguments["attention"],
        size,
        memory_size,
        size,
        heads=arguments["heads"],
        window=arguments["window"],
        coverage=arguments["coverage"] > 0,
    )


def versions_of(model: TranslatorNetwork) -> tuple[int, ...]:
    """Tell by numbers whether the weights that are laid out for search are still the same."""
    return tuple(
        number
        for part in (model.decoder, model.target_embedding, model.output)
        for p in part.parameters()
        for number in (p.data_ptr(), p._version)
    )


def laid_out(model: TranslatorNetwork, rows: int, rounded: bool) -> DecoderSteps:
    """Lay a model's decoder out for search among about so many hypotheses at once."""
    output = model.output
    return DecoderSteps(
        model.decoder,
        model.target_embedding.weight,
        model.scale,
        None if output.project is None else output.project.weight,
        output.weight,
        output.bias,
        rows=rows,
        rounded=rounded,
    )


def copies_of(source: SubwordVocabulary, target: SubwordVocabulary) -> Tensor:
    """Say as which target subword each source subword is copied; unknown where there is none."""
    if source == target:
        return torch.arange(len(source))
    ids = {piece: i for i, piece in enumerate(target.pieces(range(len(target))))}
    pieces = source.pieces(range(len(source)))
    return torch.tensor([ids.get(piece, SubwordVocabulary.UNKNOWN) for piece in pieces])


def check_arguments(
    cls: type, arguments: Mapping[str, Any], source: SubwordVocabulary, target: SubwordVocabulary
) -> None:
    """Refuse what makes no translator.

    Args:
        cls: the translator's.
        arguments: of its constructor.
        source: the vocabulary of the source.
        target: that of the target.

    Raises:
        RecipeError: a value is unknown or out of range, or does not fit the others.
    """
    given: Any
    for given in (source, target):
        if not isinstance(given, SubwordVocabulary):
            raise RecipeError(
                "model: a Translator maps text to text, but the data tags words or labels texts: "
                "use data.class_path seqlab.TranslationData."
            )
    for name in _SIZES:
        least = 0 if name == "num_layers" and arguments["embedder"] is not None else 1
        check_range(f"model.{name}", arguments[name], least)
    for name in _SHARES:
        check_range(f"model.{name}", arguments[name], 0, 1)
    for name, lowest in (
        ("beam", 1),
        ("validation_beam", 1),
        ("max_extra", 1),
        ("coverage", 0),
        ("scheduled_sampling_steps", 0),
    ):
        check_range(f"model.{name}", arguments[name], lowest)
    _check_choices(cls, arguments)
    if arguments["embedder"] is not None:
        check_source(arguments, source)
    if arguments["tie"] == "all" and source != target:
        raise RecipeError(
            "model.tie all needs one vocabulary for both sides: set data.joint to true, or tie "
            "decoder."
        )


def _check_choices(cls: type, arguments: Mapping[str, Any]) -> None:
    """Refuse unknown choices, and options of what is switched off."""
    parameters = inspect.signature(cls).parameters
    for name, known in _CHOICES.items():
        if arguments[name] not in known:
            raise RecipeError(
                f"model.{name} is {arguments[name]!r}: choose one of {', '.join(known)}."
                f"{nearest(str(arguments[name]), known)}"
            )
    for switch, names in _SWITCHED.items():
        for name in names:
            changed = arguments[name] != parameters[name].default
            if changed and arguments[switch] == parameters[switch].default:
                raise RecipeError(
                    f"model.{name} is {arguments[name]!r}, but model.{switch} is "
                    f"{arguments[switch]!r}: switch that on, or leave {name} out."
                )

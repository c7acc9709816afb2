"""How a translator reads its source with a pretrained encoder, subword by subword.

The encoder reads the text that the source's subwords spell, whole and in pieces of its own, and
each subword becomes the mean of those that have characters in it. So the units of the source stay
the same: lengths, attention, alignments, copying and ensembles know nothing of the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqlab.errors import RecipeError
from seqlab.nn.decoders import ends_of
from seqlab.nn.encoders import NoEncoder
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary

if TYPE_CHECKING:
    from seqlab.networks.contextual import ContextualEmbedder
    from seqlab.networks.translator import TranslatorNetwork


def check_source(arguments: Mapping[str, Any], source: SubwordVocabulary) -> None:
    """Refuse what does not go together with a pretrained encoder of the source.

    Args:
        arguments: of the translator's constructor, with ``embedder``.
        source: the vocabulary of the source.

    Raises:
        RecipeError: the subwords do not spell every text, or an argument is about something that is
            not there.
    """
    embedder = arguments["embedder"]
    if not isinstance(embedder, Mapping):
        raise RecipeError(
            f"model.embedder is {embedder!r}: write its name as --model.embedder.name minilm, or "
            "in a recipe `embedder: {name: minilm}`."
        )
    if "pooling" in embedder:
        raise RecipeError(
            "model.embedder.pooling is about words, and a translator takes the mean of the pieces "
            "in each subword: leave it out."
        )
    if not source.spells_all:
        raise RecipeError(
            "model.embedder reads the text that the subwords spell, and these leave parts of it "
            "unknown: set data.tokenizer to bpe, whose bytes spell every text."
        )
    if arguments["tie"] == "all" and not embedder.get("words"):
        raise RecipeError(
            "model.tie all needs a table of embeddings of the source, which model.embedder takes "
            "the place of: set model.embedder.words to true, or tie decoder."
        )
    if arguments["bridge"] == "copy" and not arguments["num_layers"]:
        raise RecipeError(
            "model.bridge copy hands over the end of a recurrent encoder, which model.num_layers: "
            "0 leaves out: use linear or zero, or set model.num_layers to 1."
        )


def subword_vectors(
    contextual: ContextualEmbedder,
    vocabulary: SubwordVocabulary,
    batch: PairBatch,
    keep: bool = False,
) -> Tensor:
    """Read the source with a pretrained encoder.

    Args:
        contextual: the encoder.
        vocabulary: of the source; it spells every text.
        batch: source sentences.
        keep: whether states of a frozen encoder are looked for on disk, and kept there.

    Returns:
        ``(batch, source, output_size)``, zero at padding: of each subword the mean of the pieces
        that have characters in it; of the end the mean of all pieces.
    """
    texts, spans = [], []
    for row, length in zip(batch.source.tolist(), batch.source_lengths.tolist(), strict=True):
        text, places = vocabulary.spelt(row[: length - 1])
        texts.append(text)
        spans.append([*places, (0, len(text))])
    found = contextual.of_spans(texts, spans, keep)
    x = found.new_zeros(*batch.source.shape, contextual.output_size)
    return x.masked_scatter(source_mask(batch).unsqueeze(-1), found)


def source_mask(batch: PairBatch) -> Tensor:
    """Tell real tokens of the source from padding: ``(batch, source)`` bool, True = real."""
    time = torch.arange(batch.source.shape[1], device=batch.source.device)
    return time < batch.source_lengths.unsqueeze(1)


def ends_for(model: TranslatorNetwork, states: Tensor, batch: PairBatch) -> Tensor:
    """Say what the bridge hands to the decoder.

    Args:
        model: the translator.
        states: ``(batch, source, size)`` of its encoder.
        batch: source sentences.

    Returns:
        ``(batch, size)``: what a recurrent encoder ends with; without one the mean of the states.
    """
    if isinstance(model.encoder, NoEncoder):
        kept = states.masked_fill(~source_mask(batch).unsqueeze(-1), 0.0)
        return kept.sum(1) / batch.source_lengths.unsqueeze(1)
    return ends_of(states, batch.source_lengths, model.encoder.forward_size)

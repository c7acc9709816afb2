"""Fewer words in a trained model: those that were rarest become unknown words."""

from __future__ import annotations

from typing import cast

from seqlab.errors import UsageError
from seqlab.networks.base import Network
from seqlab.networks.tokens import TokenNetwork
from seqlab.vocabulary import Vocabulary

_ROWS = "embedder.words.weight"


def pruned(model: Network, words: int) -> Network:
    """Return a model that knows fewer words, and is otherwise the same.

    A word that is left out is read by its characters and casing, and as unknown: what the model
    learnt of it is gone. Words stand in their vocabulary by falling count, and behind them those
    that only a file of vectors has, so the rarest go first.

    Args:
        model: a tagger or a classifier; it is not changed.
        words: how many words are kept.

    Raises:
        UsageError: the model has no vocabulary of words, or not more than so many.
    """
    if not isinstance(model, TokenNetwork) or model.embedder is None:
        raise UsageError(
            "--words: this model has no vocabulary of words, as it reads subwords or a pretrained "
            "encoder: leave it out."
        )
    source = cast(Vocabulary, model.source_vocab)
    if not 0 < words < len(source.tokens):
        raise UsageError(
            f"--words {words}: the model knows {len(source.tokens):,} words; give a number from 1 "
            "to less than that."
        )
    data = source.to_dict()
    data["tokens"] = data["tokens"][:words]
    vocabulary = Vocabulary.from_dict(data)
    small = type(model)(vocabulary, model.target_vocab, **model.config)
    state = model.state_dict()
    state[_ROWS] = state[_ROWS][: len(vocabulary)]
    small.load_state_dict(state)
    return small.eval()

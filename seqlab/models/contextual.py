"""A pretrained encoder as the embedder of a model: from a recipe, with words in and vectors out."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqlab.batch import Batch
from seqlab.caches import cache_folder
from seqlab.embedding_cache import EmbeddingCache, key_of
from seqlab.errors import RecipeError, check_range, nearest
from seqlab.nn.bert import BertEmbedder, capacity_of, find_pretrained
from seqlab.word_pieces import Pieces, WordPieces

_OPTIONS = tuple(inspect.signature(BertEmbedder).parameters)[1:]  # all but the configuration
_OWN = ("name", "revision", "words", "learning_rate", "cache")
_FOUND = ("config", "tokenizer")  # of a bundle, which needs no pretrained files
_AT_ONCE = 1 << 14  # pieces that are read together when nothing is trained


def settle(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Complete what a recipe says of its pretrained encoder, so that a bundle needs no more.

    Args:
        asked: ``model.embedder``.

    Returns:
        the same, with the encoder's configuration and tokenizer.

    Raises:
        RecipeError: a key is unknown or missing, or the encoder is not found.
        MissingExtraError: it is a package that is not installed.
    """
    known = (*_OWN, *_OPTIONS)
    for key in asked:
        if key not in (*known, *_FOUND):
            raise RecipeError(
                f"model.embedder.{key} is unknown: there are {', '.join(known)}."
                f"{nearest(str(key), known)}"
            )
    name = asked.get("name")
    if not isinstance(name, str) or not name:
        raise RecipeError(
            "model.embedder.name is missing: write minilm, a folder, or a name of the hub."
        )
    if asked.get("learning_rate") is not None:
        check_range("model.embedder.learning_rate", asked["learning_rate"], 0)
    if all(key in asked for key in _FOUND):
        return dict(asked)
    found = find_pretrained(name, asked.get("revision"))
    return {**asked, "config": found.config, "tokenizer": found.tokenizer}


class ContextualEmbedder(nn.Module):
    """A pretrained encoder with its tokenizer.

    Args:
        settled: of :func:`settle`.
        pretrained: take up the pretrained weights; a bundle brings its own.

    Attributes:
        output_size: of a token.
        learning_rate: of the encoder itself; None for that of the model.
    """

    def __init__(self, settled: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__()
        config = settled["config"]
        self.bert = BertEmbedder(config, **{k: settled[k] for k in _OPTIONS if k in settled})
        if pretrained:
            found = find_pretrained(settled["name"], settled.get("revision"))
            self.bert.load_pretrained(found.folder)
        padding = int(config.get("pad_token_id") or 0)
        self.pieces = WordPieces(settled["tokenizer"], capacity_of(config), padding)
        self.output_size = self.bert.output_size
        self.learning_rate: float | None = settled.get("learning_rate")
        self._cached = bool(settled.get("cache", True)) and self.bert.tune == "frozen"
        self._cache: EmbeddingCache | None = None

    def forward(self, batch: Batch, keep: bool = False) -> Tensor:
        """Embed a batch.

        Args:
            batch: with its words as written.
            keep: whether states of a frozen encoder are looked for on disk, and kept there.

        Returns:
            ``(batch, time, output_size)``, zero at padding.
        """
        mask = batch.mask
        places = batch.forms[mask].cpu().numpy()
        lengths = batch.lengths.tolist()
        if keep and self._cached:
            states = self._kept(batch, places, lengths)
        else:
            states = self._states(self.pieces.arrange(batch.texts, places, lengths))
        tokens = self.bert.mixed(states)
        x = tokens.new_zeros(*mask.shape, self.output_size)
        return x.masked_scatter(mask.unsqueeze(-1), tokens)

    def _states(self, pieces: Pieces) -> Tensor:
        """Read pieces, some windows at a time unless it is trained: ``(token, layer, size)``."""
        pieces = pieces.to(next(self.bert.parameters()).device)
        width = pieces.ids.shape[1]
        step = max(1, _AT_ONCE // width)
        if len(pieces.ids) <= step or (torch.is_grad_enabled() and self.bert.tune != "frozen"):
            return self.bert.states(pieces.ids, pieces.lengths, pieces.first, pieces.counts)
        parts = []
        window = pieces.first // width  # (token,), ascending
        for start in range(0, len(pieces.ids), step):
            tokens = (window >= start) & (window < start + step)
            some = slice(start, start + step)
            longest = int(pieces.lengths[some].max())
            first = pieces.first[tokens] - start * width
            first = first // width * longest + first % width
            ids = pieces.ids[some, :longest]
            parts.append(self.bert.states(ids, pieces.lengths[some], first, pieces.counts[tokens]))
        return torch.cat(parts)

    def _kept(self, batch: Batch, places: Any, lengths: list[int]) -> Tensor:
        """Look up the states of sentences, and work out those that are not there."""
        cache = self._open()
        words = [batch.texts[at] for at in places]
        ends = np.cumsum([0, *lengths])
        spans = [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        keys = [key_of(words[span]) for span in spans]
        new = [row for row, key in enumerate(keys) if cache.get(key) is None]
        if new:
            some = np.concatenate([places[spans[row]] for row in new])
            found = self._states(
                self.pieces.arrange(batch.texts, some, [lengths[row] for row in new])
            )
            halves = found.flatten(1).to(torch.float16).cpu().numpy()
            start = 0
            for row in new:
                cache.add(keys[row], halves[start : start + lengths[row]].copy())
                start += lengths[row]
        states = [kept for key in keys if (kept := cache.get(key)) is not None]
        flat = torch.from_numpy(np.concatenate(states).astype(np.float32))
        device = next(self.bert.parameters()).device
        return flat.view(len(flat), -1, self.output_size).to(device)

    def _open(self) -> EmbeddingCache:
        if self._cache is None:
            layers = 1 if self.bert.mixture is None else len(self.bert.mixture)
            folder = cache_folder("embeddings") / self._digest()
            self._cache = EmbeddingCache(folder, layers * self.output_size)
        return self._cache

    def _digest(self) -> str:
        """Hash all that decides about the states of a sentence."""
        about = (self.bert.pooling, self.bert.layers, self.pieces.text)
        digest = hashlib.sha256(json.dumps(about).encode())
        for name, value in self.bert.bert.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def flush(self) -> None:
        """Write what was worked out to the disk."""
        if self._cache is not None:
            self._cache.flush()

    def own_parameters(self) -> Iterator[nn.Parameter]:
        """Give the parameters of the encoder itself that are trained."""
        return (p for p in self.bert.bert.parameters() if p.requires_grad)

"""A pretrained encoder as the embedder of a model: from a recipe, with words or texts in."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqlab.batch import Batch
from seqlab.caches import cache_folder
from seqlab.embedding_cache import EmbeddingCache, key_of
from seqlab.errors import RecipeError, TrainingError, check_range, nearest
from seqlab.networks.base import Network
from seqlab.nn.bert import BertEmbedder, capacity_of, find_pretrained, mean_of_runs
from seqlab.word_pieces import Ints, Pieces, WordPieces

_OPTIONS = tuple(inspect.signature(BertEmbedder).parameters)[1:]  # all but the configuration
_OWN = ("name", "revision", "words", "learning_rate", "cache", "compile")
_FOUND = ("config", "tokenizer")  # of a bundle, which needs no pretrained files
_BUNDLE = "bundle"  # a folder that has these: no parser of recipes hands them on unchanged
_VERSION = 2  # of what is kept on disk: raise it when other states come of the same sentences
_AT_ONCE = 1 << 14  # pieces that are read together when nothing is trained
_Lay = Callable[[Ints, Sequence[int]], Pieces]  # lays tokens out, given the tokens of each sequence


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
        if key not in (*known, *_FOUND, _BUNDLE):
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
    if _BUNDLE in asked:
        text = Path(asked[_BUNDLE], "config.json").read_text(encoding="utf-8")
        kept = json.loads(text)["arguments"]["embedder"]
        given = {key: value for key, value in asked.items() if key != _BUNDLE}
        return {**given, **{key: kept[key] for key in _FOUND}}
    found = find_pretrained(name, asked.get("revision"))
    return {**asked, "config": found.config, "tokenizer": found.tokenizer}


class ContextualEmbedder(nn.Module):
    """A pretrained encoder with its tokenizer.

    Args:
        settled: of :func:`settle`.
        pretrained: take up the pretrained weights; a bundle brings its own.
        texts: it reads whole texts, and not words.

    Attributes:
        output_size: of a token.
        learning_rate: of the encoder itself; None for that of the model.
    """

    def __init__(
        self, settled: Mapping[str, Any], *, pretrained: bool, texts: bool = False
    ) -> None:
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
        self._compiled = bool(settled.get("compile", False))
        self._cached = bool(settled.get("cache", True)) and self.bert.tune == "frozen"
        self._cache: EmbeddingCache | None = None
        self._unit = "pieces" if texts else self.bert.pooling  # what a state stands for

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

        def lay(places: Ints, lengths: Sequence[int]) -> Pieces:
            return self.pieces.arrange(batch.texts, places, lengths)

        if keep and self._cached:
            keys = [key_of([batch.texts[at] for at in some]) for some in _split(places, lengths)]
            states = self._kept(keys, lay, places, lengths)
        else:
            states = self._states(lay(places, lengths))
        tokens = self.bert.mixed(states)
        x = tokens.new_zeros(*mask.shape, self.output_size)
        return x.masked_scatter(mask.unsqueeze(-1), tokens)

    def of_spans(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        keep: bool = False,
    ) -> Tensor:
        """Read texts whole, and embed parts of them.

        Args:
            texts: as written.
            spans: of each text ``(start, end)`` of its parts in characters, the end exclusive.
            keep: as for :meth:`forward`.

        Returns:
            ``(span, output_size)``, those of all texts end to end: the mean of the pieces that have
            characters in the part, or the next piece where the tokenizer made nothing of it.
        """
        cut = self.pieces.of_texts(texts)
        ids, lengths = np.concatenate([one.ids for one in cut]), [len(one.ids) for one in cut]
        lay = self.pieces.arrange_pieces
        if keep and self._cached:
            states = self._kept([key_of([text]) for text in texts], lay, ids, lengths)
        else:
            states = self._states(lay(ids, lengths))
        found = [one.within(some) for one, some in zip(cut, spans, strict=True)]
        before = np.cumsum([0, *lengths])  # (text + 1,) pieces of those before
        first = np.concatenate([at + start for (at, _), start in zip(found, before, strict=False)])
        counts = np.concatenate([counts for _, counts in found])
        runs = (torch.from_numpy(x).to(states.device) for x in (first, counts))
        return mean_of_runs(self.bert.mixed(states), *runs)

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

    def _kept(
        self, keys: Sequence[bytes], lay: _Lay, places: Ints, lengths: Sequence[int]
    ) -> Tensor:
        """Look up the states of sequences, and work out those that are not there."""
        cache = self._open()
        new = [row for row, key in enumerate(keys) if cache.get(key) is None]
        if new:
            parts = _split(places, lengths)
            sizes = [lengths[row] for row in new]
            found = self._states(lay(np.concatenate([parts[row] for row in new]), sizes))
            halves = found.flatten(1).to(torch.float16).cpu().numpy()
            for row, some in zip(new, _split(halves, sizes), strict=True):
                cache.add(keys[row], some.copy())
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
        about = (_VERSION, self._unit, self.bert.layers, self.pieces.text)
        digest = hashlib.sha256(json.dumps(about).encode())
        for name, value in self.bert.bert.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    def flush(self) -> None:
        """Write what was worked out to the disk."""
        if self._cache is not None:
            self._cache.flush()

    def compile_encoder(self) -> None:
        """Have torch compile the encoder, for all lengths at once, where the recipe asks for it.

        The weights keep their names. It is for training: what is loaded to predict is not compiled,
        as nobody wants to wait for that.

        Raises:
            TrainingError: there is no compiler.
        """
        if not self._compiled:
            return
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise TrainingError(
                f"model.embedder.compile needs a C++ compiler, and there is no {compiler}: install "
                "one, name another in the environment variable CXX, or leave the key out."
            )
        self.bert.bert.compile(dynamic=True)

    def own_parameters(self) -> Iterator[nn.Parameter]:
        """Give the parameters of the encoder itself that are trained."""
        return (p for p in self.bert.bert.parameters() if p.requires_grad)


def contextual_of(
    asked: Mapping[str, Any], *, texts: bool = False
) -> tuple[dict[str, Any], ContextualEmbedder]:
    """Make the pretrained encoder of a model.

    Args:
        asked: ``model.embedder`` of a recipe or a bundle; of a recipe the pretrained weights are
            taken up.
        texts: it reads whole texts, and not words.

    Returns:
        what :func:`settle` makes of it, and the encoder.

    Raises:
        RecipeError: see :func:`settle` and :class:`seqlab.nn.bert.BertEmbedder`.
        MissingExtraError: likewise.
    """
    settled = settle(asked)
    pretrained = not any(key in asked for key in (*_FOUND, _BUNDLE))
    return settled, ContextualEmbedder(settled, pretrained=pretrained, texts=texts)


class ContextualNetwork(Network):
    """Base of the networks that may read with a pretrained encoder.

    Attributes:
        contextual: that encoder; None where there is none.
    """

    contextual: ContextualEmbedder | None

    @property
    def in_trainer(self) -> bool:
        """Whether a trainer has it, so that the same sentences will come again."""
        return getattr(self, "_trainer", None) is not None

    def tuned_apart(self) -> tuple[Iterable[nn.Parameter], float | None]:
        """Give the pretrained encoder its own learning rate, where it has one."""
        if self.contextual is None:
            return (), None
        return self.contextual.own_parameters(), self.contextual.learning_rate

    def compile_parts(self) -> None:
        """Have torch compile the pretrained encoder, where the recipe asks for it."""
        if self.contextual is not None:
            self.contextual.compile_encoder()

    def flush(self) -> None:
        """Keep on disk what a frozen encoder made of sentences."""
        if self.contextual is not None:
            self.contextual.flush()


def _split(rows: Any, lengths: Sequence[int]) -> list[Any]:
    """Cut an array into the parts of each sequence."""
    return np.split(rows, np.cumsum(lengths)[:-1])

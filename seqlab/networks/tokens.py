"""What models of words share: embedder -> encoder, with long documents read in windows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqlab.batch import CASINGS, Batch, Forms
from seqlab.errors import check_range
from seqlab.networks.base import own_arguments
from seqlab.networks.contextual import ContextualNetwork, contextual_of
from seqlab.networks.parts import make_encoder
from seqlab.nn.cells import CellName
from seqlab.nn.dropout import Dropout, LockedDropout, WordDropout
from seqlab.nn.embedders import WordEmbedder
from seqlab.nn.encoders import ConnectionName, Lookup, MergeName, RecurrentEncoder
from seqlab.nn.gru_scan import Nonlinearity
from seqlab.nn.initialisation import Initialisation
from seqlab.vocabulary import Vocabulary

_LAYERS = ("hidden_size", "num_layers", "window")
_EMBEDDINGS = ("embedding_size", "character_embedding_size", "character_size", "feature_size")
_SHARES = ("dropout", "locked_dropout", "word_dropout", "character_dropout")
_ENCODER = tuple(inspect.signature(RecurrentEncoder).parameters)[1:]  # all but its input's size
_MARGIN = 128
_FEW = 32  # word forms for which preparing more than their vectors does not pay
_WORDS_SHOWN = 8  # of a sentence, in a message


class TokenNetwork(ContextualNetwork):
    """Base of the networks that read words: a state for every token, seen in its context.

    Args:
        source_vocab: words, with characters and feature columns.
        target_vocab: what comes out.
        hidden_size: size of each direction of the encoder: the one dial.
        num_layers: layers of the encoder; 0 for none, beside ``embedder``.
        embedding_size: size of the word embedding; vectors of the vocabulary set it themselves.
        characters: encoder of the characters of a word: ``cnn``, ``lstm`` or ``none``.
        character_embedding_size: size of a character's embedding.
        character_size: size of what the characters of a word become.
        casing_size: size of the casing embedding; 0 leaves casing out.
        feature_size: size of the embedding of each feature column.
        word_rows: ``dense``; ``sparse`` (each step updates only the rows of its words: faster with
            large vocabularies, and another Adam); ``frozen`` (rows stay as they came).
        dropout: on the embedder's and the encoder's output.
        locked_dropout: the same, whole dimensions for all time steps.
        word_dropout: probability that a whole token is hidden.
        character_dropout: on the characters' embeddings.
        window: documents of more tokens are encoded in overlapping windows when predicting, so that
            memory stays bounded.
        cell: recurrent cell of the encoder: ``lstm``, ``gru``, ``rnn``, ``peephole``, ``coupled``,
            ``layernorm``, ``no-forget`` or ``sru`` (see :mod:`seqlab.nn.cells`).
        nonlinearity: ``tanh`` or ``relu``; cell ``rnn`` only.
        proj_size: size that the hidden state is projected to; cell ``lstm`` only, 0 for none.
        bidirectional: read in both directions.
        merge: how the directions come together: ``concat``, ``sum``, ``mean`` or ``product``.
        connection: what goes past a layer, from the second on: ``none``, ``residual`` or
            ``highway``.
        recurrent_dropout: share of the hidden state that the next step does not see.
        zoneout: share of the state that keeps its value at a step.
        learned_state: learn the state before the first token.
        forget_bias: what is added at the start to the bias of the gate that keeps the state.
        initialisation: ``orthogonal``; ``glorot``; or ``uniform`` as torch does it.
        embedder: a pretrained encoder such as BERT, whose vectors stand beside those of the words
            or in their place: ``{name: minilm}``, a folder, or a name of the hub with its
            ``revision``. Further keys: ``words`` (true: keep the word embedding, the characters and
            the casing beside it; false by default), ``cache`` (true by default: what a frozen
            encoder makes of a sentence is kept on disk), ``learning_rate`` of the encoder itself,
            and those of :class:`seqlab.nn.bert.BertEmbedder`: ``pooling``, ``layers``, ``tune``,
            ``frozen_layers``, ``checkpointing``, ``rank``; ``compile``. With ``num_layers: 0``
            there is no encoder after it.
        encoder: another encoder, as ``{class_path: ..., init_args: {...}}``; it is called with the
            input size first and must be an :class:`seqlab.nn.encoders.Encoder`.
        temperature: what scores are divided by before they become confidences; `seqlab fit` fits it
            on the validation split in the end (see :mod:`seqlab.calibration`). No answer depends on
            it.
        precision_curve: how right answers are by how sure they are: the fields of
            :class:`seqlab.abstention.Point` of each point. `seqlab fit` measures it there too.
        **options: see :class:`seqlab.networks.base.Network`.
    """

    def __init__(
        self,
        source_vocab: Vocabulary,
        target_vocab: Vocabulary,
        *,
        hidden_size: int = 200,
        num_layers: int = 1,
        embedding_size: int = 100,
        characters: Literal["cnn", "lstm", "none"] = "cnn",
        character_embedding_size: int = 30,
        character_size: int = 50,
        casing_size: int = 8,
        feature_size: int = 20,
        word_rows: Literal["dense", "sparse", "frozen"] = "dense",
        dropout: float = 0.5,
        locked_dropout: float = 0.0,
        word_dropout: float = 0.0,
        character_dropout: float = 0.0,
        window: int = 2048,
        cell: CellName = "lstm",
        nonlinearity: Nonlinearity = "tanh",
        proj_size: int = 0,
        bidirectional: bool = True,
        merge: MergeName = "concat",
        connection: ConnectionName = "none",
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        learned_state: bool = False,
        forget_bias: float = 1.0,
        initialisation: Initialisation = "orthogonal",
        embedder: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        temperature: float = 1.0,
        precision_curve: list[list[float]] | None = None,
        **options: Any,
    ) -> None:
        arguments = own_arguments(locals())
        super().__init__(source_vocab, target_vocab, **options)
        _check_sizes(arguments)
        self.contextual = None
        if embedder is not None:
            arguments["embedder"], self.contextual = contextual_of(embedder)
        if source_vocab.vectors is not None:
            arguments["embedding_size"] = source_vocab.vectors.shape[1]
        self._config = {**arguments, **self._config}
        check_range("model.temperature", temperature, 1e-3)
        self.window = window
        self.temperature = temperature
        self.precision_curve = precision_curve or []
        self.embedder: WordEmbedder | None = None
        if embedder is None or embedder.get("words"):
            self.embedder = _make_embedder(source_vocab, arguments)
        size = sum(part.output_size for part in (self.embedder, self.contextual) if part)
        self.encoder = make_encoder(encoder, size, {name: arguments[name] for name in _ENCODER})
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = nn.Sequential(LockedDropout(locked_dropout), Dropout(dropout))

    def cool(self, temperature: float) -> None:
        """Divide scores by another temperature from now on; bundles keep it."""
        self.temperature = self._config["temperature"] = temperature

    def measure(self, precision_curve: list[list[float]]) -> None:
        """Keep how right answers are by how sure they are; bundles keep it too."""
        self.precision_curve = self._config["precision_curve"] = precision_curve

    def beginning(self, batch: Batch) -> str:
        """Return the first words of a batch, as the vocabulary holds them."""
        shown = min(_WORDS_SHOWN, int(batch.lengths[0]))
        return " ".join(self.source_vocab.decode(batch.source[0, :shown].tolist()))

    def embed(self, batch: Batch) -> Tensor:
        """Look the tokens of a batch up, each by itself.

        Returns:
            ``(batch, time, dim)``, with dropout while training.
        """
        parts: list[Tensor] = []
        if self.embedder is not None and batch.vectors is not None:
            parts.append(self.embedder.look_up(batch.vectors, batch.forms, batch.features))
        elif self.embedder is not None:
            parts.append(
                self.embedder(
                    batch.source, batch.forms, batch.characters, batch.casing, batch.features
                )
            )
        if self.contextual is not None:
            parts.append(self.contextual(batch, keep=self.in_trainer))
        return self.disturb(parts[0] if len(parts) == 1 else torch.cat(parts, -1))

    def disturb(self, x: Tensor) -> Tensor:
        """Drop parts of embedded tokens while training; otherwise return ``x`` itself."""
        return self.dropout(self.word_dropout(x))  # type: ignore[no-any-return]

    def prepare(self, forms: Forms) -> None:
        """Work out what depends on word forms alone, so that no batch of them needs to.

        Nothing is worked out while training, as dropout is drawn for each batch. What is, holds for
        as long as the weights stay as they are.

        Args:
            forms: on the device of the model; get their ``vectors``, and ``sums`` where these save
                work.
        """
        if self.training or self.embedder is None:
            return
        forms.vectors = self.embedder.of_forms(forms.words, forms.characters, forms.casing)
        if forms.repeated >= _FEW and self._looks_up():
            forms.sums = self.encoder.sums(forms.vectors[: forms.repeated])

    def _looks_up(self) -> bool:
        """Whether the encoder gets the vectors of forms, unchanged, and can make use of that."""
        return (
            self.embedder is not None
            and self.contextual is None
            and not len(self.embedder.features)
            and type(self).embed is TokenNetwork.embed
            and isinstance(self.encoder, RecurrentEncoder)
            and type(self.encoder).forward is RecurrentEncoder.forward
        )

    def encode(self, batch: Batch) -> Tensor:
        """Read every token in its context.

        Args:
            batch: sequences; when not training, those of more than ``window`` tokens are read in
                windows of that many, with some context on either side.

        Returns:
            ``(batch, time, dim)``, with dropout while training; what stands at padding has no
            meaning.
        """
        return self.in_windows(batch, lambda states: states)

    def in_windows(self, batch: Batch, use: Callable[[Tensor], Tensor]) -> Tensor:
        """Read every token in its context, and use the states window by window.

        Args:
            batch: see :meth:`encode`.
            use: maps states ``(batch, time, dim)`` to what is made of each of them; of a long
                document all states are never in memory at once.

        Returns:
            ``(batch, time, ...)``.
        """
        x: Tensor | Lookup
        if batch.vectors is not None and batch.sums is not None:
            x = Lookup(batch.vectors, batch.forms, batch.sums)
        else:
            x = self.embed(batch)
        time = batch.source.shape[1]
        if self.training or time <= self.window:
            return use(self._read(x, batch.lengths))
        parts = []
        for start, first, end in windows(time, self.window):
            piece = x.cut(first, end) if isinstance(x, Lookup) else x[:, first:end]
            lengths = (batch.lengths - first).clamp(min=0, max=end - first)
            states = self._read(piece, lengths)
            parts.append(use(states[:, start - first : start - first + self.window]))
        return torch.cat(parts, 1)

    def _read(self, x: Tensor | Lookup, lengths: Tensor) -> Tensor:
        return self.dropout(self.encoder(x, lengths))  # type: ignore[no-any-return]


def windows(time: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Cut a long document into windows that see some tokens of context on either side.

    Args:
        time: tokens of the document.
        size: tokens of a window.

    Yields:
        where the window begins, and where what is read for it begins and ends.

    Example:
        >>> list(windows(500, 300))
        [(0, 0, 428), (300, 172, 500)]
    """
    for start in range(0, time, size):
        yield start, max(0, start - _MARGIN), min(time, start + size + _MARGIN)


def _check_sizes(arguments: Mapping[str, Any]) -> None:
    """Refuse sizes and shares that make no model."""
    for name in (*_LAYERS, *_EMBEDDINGS):
        least = 0 if name == "num_layers" and arguments["embedder"] is not None else 1
        check_range(f"model.{name}", arguments[name], least)
    for name in ("casing_size", "proj_size"):
        check_range(f"model.{name}", arguments[name], 0)
    for name in _SHARES:
        check_range(f"model.{name}", arguments[name], 0, 1)


def _make_embedder(source_vocab: Vocabulary, arguments: Mapping[str, Any]) -> WordEmbedder:
    """Build the embedder, with the vectors of the vocabulary in its rows."""
    letters = source_vocab.characters
    embedder = WordEmbedder(
        len(source_vocab),
        arguments["embedding_size"],
        num_characters=0 if letters is None else len(letters),
        characters=arguments["characters"],
        character_embedding_size=arguments["character_embedding_size"],
        character_size=arguments["character_size"],
        character_dropout=arguments["character_dropout"],
        casing_size=arguments["casing_size"],
        num_casings=CASINGS,
        num_features=[len(v) for v in source_vocab.features.values()],
        feature_size=arguments["feature_size"],
        sparse=arguments["word_rows"] == "sparse",
    )
    if source_vocab.vectors is not None:
        embedder.set_vectors(source_vocab.vectors)
    embedder.words.weight.requires_grad_(arguments["word_rows"] != "frozen")
    return embedder

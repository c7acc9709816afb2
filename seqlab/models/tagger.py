"""Tagger: embedder -> encoder -> emissions -> decoder, as a LightningModule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqlab.batch import CASINGS, Batch
from seqlab.errors import check_range
from seqlab.metrics import SpanF1, TagAccuracy
from seqlab.models.base import SequenceModel, Stage
from seqlab.models.parts import make_encoder, make_scorers
from seqlab.nn.crf import CRF
from seqlab.nn.dropout import Dropout, LockedDropout, WordDropout
from seqlab.nn.embedders import WordEmbedder
from seqlab.nn.optimizers import OptimizerName, ScheduleName
from seqlab.tags import Grammar, convert
from seqlab.vocabulary import Vocabulary

DecoderName = Literal["crf", "constrained", "softmax"]
_LAYERS = ("hidden_size", "num_layers", "window")
_EMBEDDINGS = ("embedding_size", "character_embedding_size", "character_size", "feature_size")
_SHARES = ("dropout", "locked_dropout", "word_dropout", "character_dropout")
_MARGIN = 128  # tokens of context that a window of a long document sees on either side


class Tagger(SequenceModel):
    """A tag for every token (Huang et al., 2015; Lample et al., 2016; Ma and Hovy, 2016).

    Args:
        source_vocab: words, with characters and feature columns.
        target_vocab: tags, with their scheme.
        hidden_size: size of each direction of the encoder: the one dial.
        num_layers: layers of the encoder.
        embedding_size: size of the word embedding; vectors of the vocabulary set it themselves.
        characters: encoder of the characters of a word: ``cnn``, ``lstm`` or ``none``.
        character_embedding_size: size of a character's embedding.
        character_size: size of what the characters of a word become.
        casing_size: size of the casing embedding; 0 leaves casing out.
        feature_size: size of the embedding of each feature column.
        word_rows: ``dense``; ``sparse`` (each step updates only the rows of its words: faster with
            large vocabularies, and another Adam); ``frozen`` (rows stay as they came).
        decoder: ``crf``; ``constrained`` (softmax in training, and the best *legal* sequence when
            decoding); ``softmax`` (each token by itself, illegal spans repaired as conlleval reads
            them).
        dropout: on the embedder's and the encoder's output.
        locked_dropout: the same, whole dimensions for all time steps.
        word_dropout: probability that a whole token is hidden.
        character_dropout: on the characters' embeddings.
        window: documents of more tokens are encoded in overlapping windows when predicting, so that
            memory stays bounded; the decoder still sees the whole document.
        encoder: another encoder, as ``{class_path: ..., init_args: {...}}``; it is called with the
            input size first and must be an :class:`seqlab.nn.encoders.Encoder`.
        optimizer: see :class:`SequenceModel`, as for the rest.
        learning_rate: see :class:`SequenceModel`.
        weight_decay: see :class:`SequenceModel`.
        momentum: see :class:`SequenceModel`.
        schedule: see :class:`SequenceModel`.
        warmup_steps: see :class:`SequenceModel`.
        plateau_factor: see :class:`SequenceModel`.
        plateau_patience: see :class:`SequenceModel`.
        averaging: see :class:`SequenceModel`.
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
        decoder: DecoderName = "crf",
        dropout: float = 0.5,
        locked_dropout: float = 0.0,
        word_dropout: float = 0.0,
        character_dropout: float = 0.0,
        window: int = 2048,
        encoder: dict[str, Any] | None = None,
        optimizer: OptimizerName = "adam",
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        schedule: ScheduleName = "constant",
        warmup_steps: int = 0,
        plateau_factor: float = 0.5,
        plateau_patience: int = 3,
        averaging: float = 0.0,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in _NOT_CONFIG}
        super().__init__(
            source_vocab,
            target_vocab,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            momentum=momentum,
            schedule=schedule,
            warmup_steps=warmup_steps,
            plateau_factor=plateau_factor,
            plateau_patience=plateau_patience,
            averaging=averaging,
        )
        _check_sizes(arguments)
        if source_vocab.vectors is not None:
            arguments["embedding_size"] = source_vocab.vectors.shape[1]
        self._config = arguments
        self.decoder: DecoderName = decoder
        self.window = window
        self.embedder = _make_embedder(source_vocab, arguments)
        self.encoder = make_encoder(
            encoder, self.embedder.output_size, hidden_size, num_layers, dropout
        )
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = nn.Sequential(LockedDropout(locked_dropout), Dropout(dropout))
        self.emit = nn.Linear(self.encoder.output_size, len(target_vocab))
        nn.init.xavier_uniform_(self.emit.weight)
        nn.init.zeros_(self.emit.bias)
        self.crf = CRF(
            len(target_vocab),
            batch_first=True,
            grammar=None
            if decoder == "softmax"
            else Grammar.of(target_vocab.tokens, target_vocab.scheme),
            learn=decoder == "crf",
        )
        self.has_spans = target_vocab.scheme != "none"
        self.monitor = "val/span_f1" if self.has_spans else "val/accuracy"
        self.scorers = make_scorers(target_vocab)
        self.labels = list(self._spans("val").labels) if self.has_spans else []

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments but for the vocabularies, as plain JSON data."""
        return dict(self._config)

    def emissions(self, batch: Batch) -> Tensor:
        """Score every tag at every token.

        Args:
            batch: sequences.

        Returns:
            ``(batch, time, tag)``, log scale; what stands at padding has no meaning.
        """
        x = self.embedder(
            batch.source, batch.forms, batch.characters, batch.casing, batch.features
        )  # (batch, time, dim)
        x = self.dropout(self.word_dropout(x))
        time = x.shape[1]
        if self.training or time <= self.window:
            return self._emit(x, batch.lengths)
        parts = []
        for start in range(0, time, self.window):
            first = max(0, start - _MARGIN)
            piece = x[:, first : start + self.window + _MARGIN]
            lengths = (batch.lengths - first).clamp(min=0, max=piece.shape[1])
            emitted = self._emit(piece, lengths)
            parts.append(emitted[:, start - first : start - first + self.window])
        return torch.cat(parts, 1)

    def _emit(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.emit(self.dropout(self.encoder(x, lengths)))  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the tags of a sentence, a scalar."""
        assert batch.target is not None
        emissions = self.emissions(batch)
        if self.decoder == "crf":
            likelihood: Tensor = self.crf(emissions, batch.target, batch.mask)
            return -likelihood / len(batch)
        flat = functional.cross_entropy(
            emissions.flatten(0, 1).float(),
            batch.target.flatten(),
            ignore_index=-1,
            reduction="sum",
        )
        return flat / len(batch)

    def decode(self, emissions: Tensor, mask: Tensor) -> list[list[str]]:
        """Find the best tags; they are always legal in the scheme of the target vocabulary.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` bool, True = real token.

        Returns:
            the tags of each sentence.
        """
        scheme = self.target_vocab.scheme
        if self.decoder == "softmax":
            best = [
                row[: sum(kept)]
                for row, kept in zip(emissions.argmax(-1).tolist(), mask.tolist(), strict=True)
            ]
            tags = [self.target_vocab.decode(row) for row in best]
            return [convert(row, scheme, scheme) for row in tags] if self.has_spans else tags
        return [self.target_vocab.decode(row) for row in self.crf.decode(emissions, mask)]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Score a batch of the validation split."""
        self._score(batch, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Score a batch of the test split."""
        self._score(batch, "test")

    def _score(self, batch: Batch, stage: Stage) -> None:
        assert batch.gold is not None
        predicted = self.decode(self.emissions(batch), batch.mask)
        self._accuracy(stage).update(predicted, batch.gold)
        if self.has_spans:
            self._spans(stage).update(predicted, batch.gold)

    def _accuracy(self, stage: Stage) -> TagAccuracy:
        scorer = self.scorers[f"{stage}_accuracy"]
        assert isinstance(scorer, TagAccuracy)
        return scorer

    def _spans(self, stage: Stage) -> SpanF1:
        scorer = self.scorers[f"{stage}_spans"]
        assert isinstance(scorer, SpanF1)
        return scorer

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation split."""
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test split."""
        self._log_scores("test")

    def _log_scores(self, stage: Stage) -> None:
        scores = self.scores(stage)
        self.last_scores = scores
        for name, value in scores.items():
            if isinstance(value, float):
                self.log(name, value, prog_bar=name == self.monitor)
        self._accuracy(stage).reset()
        if self.has_spans:
            self._spans(stage).reset()

    def scores(self, stage: Stage) -> dict[str, Any]:
        """Return what the scorers of a stage have counted so far.

        Args:
            stage: ``val`` or ``test``.

        Returns:
            ``{stage}/accuracy``, ``{stage}/sentence_accuracy`` and, with spans,
            ``{stage}/span_f1``, ``precision``, ``recall``, ``macro_f1`` (all 0 to 1), ``per_type``
            and ``scorer``.
        """
        accuracy = self._accuracy(stage)
        found = accuracy.compute()
        result: dict[str, Any] = {
            f"{stage}/accuracy": float(found["token_accuracy"]),
            f"{stage}/sentence_accuracy": float(found["sentence_accuracy"]),
            f"{stage}/per_type": accuracy.per_label(),
            f"{stage}/scorer": accuracy.scorer,
        }
        if self.has_spans:
            spans = self._spans(stage)
            result.update({f"{stage}/{k}": float(v) for k, v in spans.compute().items()})
            result[f"{stage}/macro_f1"] = float(spans.macro_f1())
            result[f"{stage}/per_type"] = spans.per_label()
            result[f"{stage}/scorer"] = spans.scorer
        return result


_NOT_CONFIG = {"self", "source_vocab", "target_vocab", "__class__"}


def _check_sizes(arguments: Mapping[str, Any]) -> None:
    """Refuse sizes and shares that make no model."""
    for name in (*_LAYERS, *_EMBEDDINGS):
        check_range(f"model.{name}", arguments[name], 1)
    check_range("model.casing_size", arguments["casing_size"], 0)
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

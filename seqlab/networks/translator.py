"""The network of a translator: an encoder, and a decoder that attends to what it read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from seqlab.networks.base import own_arguments
from seqlab.networks.contextual import ContextualNetwork, contextual_of
from seqlab.networks.parts import make_encoder
from seqlab.networks.search import searched
from seqlab.networks.translator_parts import (
    attention_of,
    check_arguments,
    copies_of,
    encoder_options,
    laid_out,
    make_embedding,
    versions_of,
)
from seqlab.networks.translator_source import ends_for, subword_vectors
from seqlab.nn.attention import Memory
from seqlab.nn.cells import CellName
from seqlab.nn.decoder_steps import DecoderSteps, Kept
from seqlab.nn.decoders import Bridge, Decoder, Start
from seqlab.nn.dropout import Dropout, LockedDropout, WordDropout
from seqlab.nn.encoders import ConnectionName, MergeName
from seqlab.nn.gru_scan import Nonlinearity
from seqlab.nn.initialisation import Initialisation
from seqlab.nn.outputs import CopyGate, TokenOutput
from seqlab.nn.search import Constraints, Hypothesis, SearchOptions
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary

if TYPE_CHECKING:
    from typing_extensions import Self

_SHOWN = 12  # pieces of a sentence, in a message


class TranslatorNetwork(ContextualNetwork):
    """An encoder, and a decoder that attends to it (Bahdanau et al., 2015; Luong et al., 2015).

    Args:
        source_vocab: the subwords of the source language.
        target_vocab: those of the target language; the same where they were learnt jointly.
        hidden_size: size of each direction of the encoder.
        num_layers: layers of the encoder; 0 for none, beside ``embedder``: the decoder attends to
            what that gives, and starts from its mean.
        embedding_size: of the subwords of both sides.
        cell: recurrent cell of the encoder (see :mod:`seqlab.nn.cells`).
        nonlinearity: ``tanh`` or ``relu``; cell ``rnn`` only.
        proj_size: size that the encoder's hidden state is projected to; cell ``lstm`` only.
        bidirectional: whether the encoder reads in both directions.
        merge: how the directions come together: ``concat``, ``sum``, ``mean`` or ``product``.
        connection: what goes past a layer of the encoder, from the second on.
        recurrent_dropout: share of the encoder's state that the next step does not see.
        zoneout: share of the encoder's state that keeps its value at a step.
        learned_state: learn the encoder's state before the first subword.
        forget_bias: of the encoder's cells, at the start.
        initialisation: of the recurrent layers of both: ``glorot``; ``orthogonal``; or ``uniform``
            as torch does it.
        embedder: a pretrained encoder such as BERT that reads the source below the encoder or in
            its place, as :class:`seqlab.networks.tokens.TokenNetwork` has it; of each subword it
            gives the mean of its pieces in it, so there is no ``pooling``. With ``words`` the
            embeddings of the subwords stand beside it.
        decoder_size: size of the decoder, an LSTM.
        decoder_layers: layers of the decoder; they need not be as many as the encoder's.
        bridge: from the encoder's end to the decoder's start: ``linear``, ``copy`` or ``zero``.
        attention: ``dot``, ``general``, ``additive``, ``multi-head`` or ``local``.
        heads: of ``multi-head``; 8 unless given.
        window: of ``local``: so many subwords on either side of the place it predicts; 10 unless
            given.
        input_feeding: whether a step reads what the step before made of its context. Without it
            training is faster, as all steps of a target are computed at once.
        coverage: whether the attention sees how much every subword was attended to before (Tu et
            al., 2016), with the loss of See et al. (2017) in this share; 0 leaves it out.
        copy: whether subwords of the source can be copied (See et al., 2017).
        tie: ``all``: one table of embeddings for both sides and the output, which a joint
            vocabulary allows; ``decoder``: one for the target side and the output; ``none``;
            ``auto``: ``all`` where the vocabulary is joint, otherwise ``decoder``.
        label_smoothing: share of the target spread over all subwords (Szegedy et al., 2016).
        dropout: on embeddings, the encoder's output, between layers, and on features.
        locked_dropout: on embeddings, whole dimensions for all steps.
        word_dropout: probability that a subword is hidden, on both sides.
        scheduled_sampling: probability that the decoder reads its own word in place of the right
            one while training (Bengio et al., 2015), reached in even steps.
        scheduled_sampling_steps: over how many steps it is reached; 0 has it from the start.
        sequence_loss: ``none``; ``minimum_risk`` (Shen et al., 2016); ``self_critical`` (Rennie et
            al., 2017): whole translations are drawn, and what they are worth is the loss.
        sequence_after: epochs that are trained on likelihood before.
        sequence_candidates: translations that are drawn for a sentence.
        sequence_reward: what they are worth: ``bleu`` (smoothed) or ``chrf``, of a sentence.
        sequence_smoothness: of ``minimum_risk``, the exponent of its distribution.
        likelihood_share: share of the likelihood that stays in the loss beside ``sequence_loss``.
        beam: hypotheses kept in the search, where it is tested and when it predicts.
        validation_beam: the same for validation.
        length_penalty: how hypotheses of different length compare: ``average``, ``wu``, ``none``.
        max_ratio: a translation has at most so many subwords for each of the source ...
        max_extra: ... and so many more.
        **options: see :class:`seqlab.networks.base.Network`.

    Raises:
        RecipeError: an argument does not fit the others.
    """

    source_vocab: SubwordVocabulary
    target_vocab: SubwordVocabulary

    def __init__(
        self,
        source_vocab: SubwordVocabulary,
        target_vocab: SubwordVocabulary,
        *,
        hidden_size: int = 256,
        num_layers: int = 1,
        embedding_size: int = 256,
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
        initialisation: Initialisation = "glorot",
        embedder: dict[str, Any] | None = None,
        decoder_size: int = 512,
        decoder_layers: int = 1,
        bridge: Literal["linear", "copy", "zero"] = "linear",
        attention: Literal["dot", "general", "additive", "multi-head", "local"] = "general",
        heads: int | None = None,
        window: int | None = None,
        input_feeding: bool = True,
        coverage: float = 0.0,
        copy: bool = False,
        tie: Literal["auto", "all", "decoder", "none"] = "auto",
        label_smoothing: float = 0.1,
        dropout: float = 0.3,
        locked_dropout: float = 0.0,
        word_dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
        scheduled_sampling_steps: int = 0,
        sequence_loss: Literal["none", "minimum_risk", "self_critical"] = "none",
        sequence_after: int = 0,
        sequence_candidates: int = 8,
        sequence_reward: Literal["bleu", "chrf"] = "bleu",
        sequence_smoothness: float = 0.005,
        likelihood_share: float = 0.0,
        beam: int = 5,
        validation_beam: int = 1,
        length_penalty: Literal["average", "wu", "none"] = "average",
        max_ratio: float = 2.0,
        max_extra: int = 10,
        **options: Any,
    ) -> None:
        arguments = own_arguments(locals())
        super().__init__(source_vocab, target_vocab, **options)
        check_arguments(TranslatorNetwork, arguments, source_vocab, target_vocab)
        self.contextual = None
        if embedder is not None:
            arguments["embedder"], self.contextual = contextual_of(embedder, texts=True)
        self._config = {**arguments, **self._config}
        words = embedder is None or bool(embedder.get("words"))
        self.source_embedding = make_embedding(len(source_vocab), embedding_size) if words else None
        one = tie == "all" or (tie == "auto" and words and source_vocab == target_vocab)
        # One table is registered once: a bundle keeps no tensor under two names.
        self.own_target_embedding = (
            None if one else make_embedding(len(target_vocab), embedding_size)
        )
        self.scale = math.sqrt(embedding_size)
        size = embedding_size * words + (self.contextual.output_size if self.contextual else 0)
        self.encoder = make_encoder(None, size, encoder_options(arguments))
        memory_size = self.encoder.output_size
        self.bridge = Bridge(bridge, memory_size, decoder_size, decoder_layers)
        self.decoder = Decoder(
            embedding_size,
            decoder_size,
            attention_of(arguments, memory_size),
            num_layers=decoder_layers,
            input_feeding=input_feeding,
            coverage=coverage > 0,
            dropout=dropout,
            initialisation=initialisation,
        )
        tied = None if tie == "none" else self.target_embedding
        self.output = TokenOutput(decoder_size, len(target_vocab), tied)
        self.copy = CopyGate(decoder_size, copies_of(source_vocab, target_vocab)) if copy else None
        self.coverage_share = coverage
        self.label_smoothing = label_smoothing
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = nn.Sequential(LockedDropout(locked_dropout), Dropout(dropout))
        self.states_dropout = Dropout(dropout)
        self.scheduled_sampling = scheduled_sampling
        self.scheduled_sampling_steps = scheduled_sampling_steps
        self.validation_beam = validation_beam
        self.searching = SearchOptions(
            beam=beam, length_penalty=length_penalty, max_ratio=max_ratio, max_extra=max_extra
        )
        self._steps = Kept()

    def train(self, mode: bool = True) -> Self:
        """Begin or end training; what was laid out for search before does not outlive it."""
        if mode or self.training:  # the fused optimizers change weights without a trace
            self._steps = Kept()
        return super().train(mode)

    def beginning(self, batch: PairBatch) -> str:
        """Return how the first source text of a batch begins."""
        length = int(batch.source_lengths[0]) - 1
        return self.source_vocab.decode([batch.source[0, : min(_SHOWN, length)].tolist()])[0]

    @property
    def target_embedding(self) -> nn.Embedding:
        """The subwords that the decoder reads, which may be those of the source."""
        table = self.own_target_embedding or self.source_embedding
        assert table is not None
        return table

    def embed(self, embedding: nn.Embedding, ids: Tensor) -> Tensor:
        """Look subwords up, each dimension of about unit variance, with dropout while training."""
        x: Tensor = embedding(ids) * self.scale
        return self.dropout(self.word_dropout(x))  # type: ignore[no-any-return]

    def embed_source(self, batch: PairBatch) -> Tensor:
        """Return what the encoder reads ``(batch, source, dim)``, with dropout while training."""
        if self.contextual is None:
            assert self.source_embedding is not None
            return self.embed(self.source_embedding, batch.source)
        x = subword_vectors(self.contextual, self.source_vocab, batch, self.in_trainer)
        if self.source_embedding is not None:
            x = torch.cat([self.source_embedding(batch.source) * self.scale, x], -1)
        return self.dropout(self.word_dropout(x))  # type: ignore[no-any-return]

    def encode(self, batch: PairBatch) -> tuple[Memory, Start]:
        """Read the source.

        Returns:
            what the decoder attends to, and the state in which it begins.
        """
        states = self.encoder(self.embed_source(batch), batch.source_lengths)
        start = self.bridge(ends_for(self, states, batch))
        memory = self.decoder.attention.memory(self.states_dropout(states), batch.source_lengths)
        return memory, start

    def before(self, target: Tensor) -> Tensor:
        """Return what the decoder reads before each subword of ``target (batch, time)``."""
        begin = target.new_full((len(target), 1), SubwordVocabulary.BEGIN)
        return torch.cat([begin, target[:, :-1]], 1)

    def log_probabilities(
        self, features: Tensor, attention: Tensor | None, source: Tensor
    ) -> Tensor:
        """Return ``(batch, time, vocabulary)`` float32, of what is said and what is copied."""
        logits: Tensor = self.output(features)
        if self.copy is None:
            return logits.float().log_softmax(-1)
        assert attention is not None
        found: Tensor = self.copy(logits, features, attention, source)
        return found

    def steps(self, rows: int, rounded: bool) -> DecoderSteps:
        """Return the decoder laid out for search; see :class:`DecoderSteps`."""
        return self._steps.get(
            rows, rounded, versions_of(self), lambda count: laid_out(self, count, rounded)
        )

    def translate(
        self,
        batch: PairBatch,
        options: SearchOptions | None = None,
        constraints: Sequence[Constraints | None] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """Search for the best translations; see :func:`seqlab.nn.search.search`.

        Args:
            batch: source sentences.
            options: how to search; as the model was told, unless given.
            constraints: of each sentence, where it has any.
            numbers: of each sentence, what samples of it depend on besides the seed.

        Returns:
            for each sentence its hypotheses, the best first.
        """
        return searched([self], batch, options or self.searching, constraints, numbers)

"""The network of a tagger: embedder -> encoder -> emissions -> decoder."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqlab.batch import Batch
from seqlab.errors import RecipeError
from seqlab.networks.base import own_arguments
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn.crf import CRF
from seqlab.tags import Grammar, convert, split_tag
from seqlab.vocabulary import Vocabulary

DecoderName = Literal["crf", "constrained", "softmax"]
# Tags for which a CPU is faster with rounded factors: their kernels are made anew for each shape.
_MANY = 64


class TaggerNetwork(TokenNetwork):
    """A tag for every token (Huang et al., 2015; Lample et al., 2016; Ma and Hovy, 2016).

    In documents that are encoded in windows, the decoder still sees the whole document.

    Args:
        source_vocab: words, with characters and feature columns.
        target_vocab: tags, with their scheme.
        decoder: ``crf``; ``constrained`` (softmax in training, and the best *legal* sequence when
            decoding); ``softmax`` (each token by itself, illegal spans repaired as conlleval reads
            them).
        **options: see :class:`seqlab.networks.tokens.TokenNetwork`.

    Attributes:
        has_spans: whether the tags mark spans.
        labels: the types of the spans, sorted.

    Raises:
        RecipeError: the data labels whole texts.
    """

    def __init__(
        self,
        source_vocab: Vocabulary,
        target_vocab: Vocabulary,
        *,
        decoder: DecoderName = "crf",
        **options: Any,
    ) -> None:
        arguments = own_arguments(locals())
        if target_vocab.scheme in ("label", "labels"):
            raise RecipeError(
                "model: a Tagger tags tokens, but the data labels whole texts: use "
                "model.class_path seqlab.Classifier, or data.class_path seqlab.TaggingData."
            )
        super().__init__(source_vocab, target_vocab, **options)
        self._config = {**arguments, **self._config}
        self.decoder: DecoderName = decoder
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
        spans = [tag for tag in target_vocab.tokens if tag != "O"] if self.has_spans else []
        self.labels = sorted({split_tag(tag)[1] for tag in spans})

    def tempered(self, temperature: float) -> CRF:
        """Return the distribution whose scores, but for the emissions, are divided.

        Args:
            temperature: what they are divided by; emissions are to be divided by the same.
        """
        if temperature == 1.0:
            return self.crf
        crf = copy.deepcopy(self.crf)
        with torch.no_grad():
            for parameter in crf.parameters():
                parameter.div_(temperature)
        return crf

    def emissions(self, batch: Batch) -> Tensor:
        """Score every tag at every token.

        Args:
            batch: sequences.

        Returns:
            ``(batch, time, tag)``, log scale; what stands at padding has no meaning.
        """
        return self.in_windows(batch, self._emit)

    def _emit(self, states: Tensor) -> Tensor:
        if not states.is_cpu or self.emit.out_features >= _MANY:
            return self.emit(states)  # type: ignore[no-any-return]
        with torch.autocast("cpu", enabled=False):
            return self.emit(states.float())  # type: ignore[no-any-return]

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

"""From a decoder's features to words: tied or free output layers, and copying from the source."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqlab.nn.products import linear


class TokenOutput(nn.Module):
    """Logits of all tokens of a vocabulary.

    Args:
        input_size: of the features.
        vocabulary: how many tokens there are.
        embedding: its rows are the weights of the output too (Press and Wolf, 2017), behind a
            learned map of the features to their size; None for weights of its own.
    """

    def __init__(
        self, input_size: int, vocabulary: int, embedding: nn.Embedding | None = None
    ) -> None:
        super().__init__()
        self.project: nn.Linear | None = None
        self.free: nn.Linear | None = None
        self._tied = [] if embedding is None else [embedding]  # in a list: registered once, outside
        if embedding is not None:
            self.project = nn.Linear(input_size, embedding.embedding_dim, bias=False)
            nn.init.xavier_uniform_(self.project.weight)
        else:
            self.free = nn.Linear(input_size, vocabulary, bias=False)
            nn.init.xavier_uniform_(self.free.weight)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    @property
    def weight(self) -> Tensor:
        """``(vocabulary, size)``."""
        return self._tied[0].weight if self.free is None else self.free.weight

    def narrowed(self, features: Tensor) -> Tensor:
        """Map features ``(..., input)`` to what the weights are multiplied by."""
        return features if self.project is None else linear(features, self.project.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(..., vocabulary)`` of features ``(..., input)``."""
        return linear(self.narrowed(features), self.weight, self.bias)


class CopyGate(nn.Module):
    """Mixes what the decoder would say with what stands in the source (See et al., 2017).

    A token's probability is ``(1 - g) * said + g * attended``, where ``attended`` is the attention
    that all its occurrences in the source get, and the gate ``g`` is told from the feature.

    Args:
        input_size: of the features.
        copies: ``(source vocabulary,)`` int64: as which target token each source token is copied.
    """

    copies: Tensor

    def __init__(self, input_size: int, copies: Tensor) -> None:
        super().__init__()
        self.gate = nn.Linear(input_size, 1)
        nn.init.xavier_uniform_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -2.0)  # at first little is copied
        self.register_buffer("copies", copies, persistent=False)

    def forward(
        self, logits: Tensor, features: Tensor, attention: Tensor, source: Tensor
    ) -> Tensor:
        """Return log probabilities.

        Args:
            logits: ``(batch, time, vocabulary)``.
            features: ``(batch, time, input)``.
            attention: ``(batch, time, source)``, which sums to 1.
            source: ``(batch, source)`` int64 ids.

        Returns:
            ``(batch, time, vocabulary)`` float32; the probabilities sum to 1.
        """
        gate = self.gate(features).float()  # (batch, time, 1)
        said = logits.float().log_softmax(-1) + nn.functional.logsigmoid(-gate)
        places = self.copies[source].unsqueeze(1).expand(attention.shape)
        copied = torch.zeros_like(said).scatter_add(-1, places, attention.float())
        # The smallest number that float32 divides by: its logarithm has a gradient that is finite.
        least = torch.finfo(torch.float32).tiny
        return torch.logaddexp(said, copied.clamp(min=least).log() + nn.functional.logsigmoid(gate))

"""A batch of sentence pairs as ids, for models that map text to text.

Shape notation: ``batch`` counts sentences, ``source`` and ``target`` their tokens on either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class PairBatch:
    """What a translator sees in one step. Lightning moves it to the device field by field.

    Attributes:
        source: ``(batch, source)`` int64 ids; every sentence ends with the end token, then padding
            (0).
        source_lengths: ``(batch,)`` int64, tokens of each, the end counted in.
        target: ``(batch, target)`` int64, likewise; a decoder reads the begin token and all but the
            last of these. None where there is nothing to learn from.
        target_lengths: ``(batch,)`` int64, the end counted in.
        gold: the translations as text, for scoring; None in training.
        texts: the source as text, where it is at hand.
        repeated: it was seen before in this epoch, and is not to count.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor | None = None
    target_lengths: Tensor | None = None
    gold: list[str] | None = None
    texts: list[str] | None = None
    repeated: bool = False

    @property
    def lengths(self) -> Tensor:
        """``(batch,)`` tokens of each sentence that count as work: the target's if there is one."""
        return self.source_lengths if self.target_lengths is None else self.target_lengths

    @property
    def target_mask(self) -> Tensor:
        """``(batch, target)`` bool, True = real token."""
        assert self.target is not None
        assert self.target_lengths is not None
        time = torch.arange(self.target.shape[1], device=self.target.device)
        return time < self.target_lengths.unsqueeze(1)

    @property
    def real(self) -> Tensor:
        """How many tokens both sides have, a scalar; the rest of the :attr:`places` is padding."""
        total = self.source_lengths.sum()
        return total if self.target_lengths is None else total + self.target_lengths.sum()

    @property
    def places(self) -> int:
        """Room for how many tokens there is, on both sides."""
        return self.source.numel() + (0 if self.target is None else self.target.numel())

    def __len__(self) -> int:
        return self.source.shape[0]

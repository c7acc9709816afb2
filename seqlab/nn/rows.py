"""Embeddings of words whose gradient is that of the rows that a batch looks up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seqlab.nn.kernels import chosen, rows_native


class WordEmbedding(nn.Embedding):
    """An ``nn.Embedding`` that may give its gradient row by row.

    A batch looks up some hundred rows of many thousand. A dense gradient of all of them is written,
    measured and read in every step, and is zero but for those.

    Attributes:
        by_row: on a CPU with compiled kernels, let the gradient be a sparse tensor of the rows that
            were looked up. The optimizer has to know what to do with it:
            :func:`seqlab.nn.optimizers.make_optimizer` sets this where the one it makes does.
    """

    by_row = False

    def forward(self, ids: Tensor) -> Tensor:
        """Map ``ids`` of any shape to ``(..., size)``."""
        weight = self.weight
        if not (
            self.by_row
            and weight.requires_grad
            and torch.is_grad_enabled()
            and weight.dtype == torch.float32
            and not torch.compiler.is_compiling()
            and chosen(weight) == "native"
        ):
            return super().forward(ids)
        padding = -1 if self.padding_idx is None else self.padding_idx
        found: Tensor = _Rows.apply(weight, ids, padding)  # type: ignore[no-untyped-call]
        return found


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.padding = weight.shape, padding
        return functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        rows, size = ctx.shape
        flat = gradient.reshape(-1, size).float().contiguous()  # (token, size)
        found, sums = rows_native.row_sums(ids.reshape(-1).contiguous(), flat, rows, ctx.padding)
        whole = torch.sparse_coo_tensor(
            found.unsqueeze(0), sums, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return whole, None, None


def coalesced(gradient: Tensor) -> Tensor:
    """Return a sparse gradient with every row once, rows rising; sorts only if it has to.

    Autograd forgets of a gradient that it is so.

    Args:
        gradient: a sparse tensor of rows.
    """
    if not gradient.is_coalesced():
        rows = gradient._indices()[0]
        if bool((rows[1:] > rows[:-1]).all()):
            return gradient._coalesced_(True)
    return gradient.coalesce()

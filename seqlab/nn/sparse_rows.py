"""Sparse gradients of word rows, added up over processes by what they hold and not by all rows.

NCCL adds up no sparse tensors, and a dense gradient of a large vocabulary takes longer on its way
than all else of a step (docs/scale.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed import all_gather, get_world_size


def sparse_rows(module: nn.Module) -> dict[str, nn.Parameter]:
    """Find the trainable parameters whose gradients are sparse, by name."""
    some = (
        (f"{name}.weight" if name else "weight", part.weight)
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding) and part.sparse
    )
    return {
        name: weight
        for name, weight in some
        if isinstance(weight, nn.Parameter) and weight.requires_grad
    }


def mean_over_processes(gradient: Tensor) -> Tensor:
    """Take the mean of a sparse gradient over all processes, as of a dense one.

    Rows of zeros are left out: they are of a batch that does not count, and a sparse Adam would
    move them.

    Args:
        gradient: ``(row, size)``, sparse in its rows.

    Returns:
        the same shape, coalesced; the same bits in all processes.
    """
    gradient = gradient.coalesce()
    rows, values = gradient.indices()[0], gradient.values()
    real = values.any(1)
    rows, values = rows[real], values[real]
    counts = [int(count) for count in _gathered(torch.tensor([len(rows)], device=rows.device))]
    most = max(counts)  # all processes must send as much
    spare = most - len(rows)
    some = _gathered(nn.functional.pad(rows, (0, spare)))
    parts = _gathered(nn.functional.pad(values, (0, 0, 0, spare)))
    together = torch.sparse_coo_tensor(
        torch.cat([x[:n] for x, n in zip(some, counts, strict=True)]).unsqueeze(0),
        torch.cat([x[:n] for x, n in zip(parts, counts, strict=True)]) / len(counts),
        gradient.shape,
        check_invariants=False,
    )
    return together.coalesce()


def _gathered(x: Tensor) -> list[Tensor]:
    """The tensors of all processes, in their order."""
    found = [torch.empty_like(x) for _ in range(get_world_size())]
    all_gather(found, x.contiguous())
    return found

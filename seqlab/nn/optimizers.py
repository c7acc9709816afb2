"""Optimizers and learning-rate schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, SparseAdam

from seqlab.nn.adam import Adam, AdamW
from seqlab.nn.rows import WordEmbedding, coalesced

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["constant", "plateau", "cosine", "linear"]


class JointOptimizer(Optimizer):
    """Several optimizers that step as one, for models whose word rows have sparse gradients.

    Args:
        optimizers: each with parameters of its own.
    """

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers = optimizers
        super().__init__([p for o in optimizers for g in o.param_groups for p in g["params"]], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Use the parts' own groups, so that a schedule which sets ``lr`` here sets it there."""
        self.param_groups = [group for part in self.optimizers for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with every part; returns what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.optimizers:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the parts, in order."""
        return {"parts": [part.state_dict() for part in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for part, state in zip(self.optimizers, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def make_optimizer(
    name: OptimizerName,
    module: nn.Module,
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    apart: Iterable[nn.Parameter] = (),
    apart_rate: float | None = None,
    by_row: bool = False,
    fused: bool = True,
) -> Optimizer:
    """Build the optimizer of a module's trainable parameters.

    Args:
        name: ``sgd``, ``adam`` or ``adamw`` (Loshchilov and Hutter, 2019).
        module: embeddings in it with ``sparse=True`` are updated row by row (``SparseAdam`` with
            the Adams: rows that a batch does not touch keep their moments as they are; no weight
            decay).
        learning_rate: step size at the start.
        weight_decay: per step; for matrices only, as biases and vectors need none.
        momentum: of SGD.
        betas: decay of Adam's two moments.
        apart: parameters with a step size of their own.
        apart_rate: their step size at the start; None for that of the others.
        by_row: have embeddings of words give their gradients row by row, where the optimizer takes
            steps as from dense ones: see :class:`seqlab.nn.rows.WordEmbedding`.
        fused: take the steps of the Adams in one kernel, which is faster. Such a step takes the
            scale of gradients out by itself, after they were clipped: not for where they are
            scaled.

    Returns:
        one optimizer over everything.
    """
    sparse = [
        m.weight
        for m in module.modules()
        if isinstance(m, nn.Embedding) and m.sparse and m.weight.requires_grad
    ]
    taken = {id(p) for p in sparse}
    dense = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
    own = set() if apart_rate is None else {id(p) for p in apart}
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in dense if (p.ndim > 1) == matrix and (id(p) in own) == other],
            "weight_decay": weight_decay if matrix else 0.0,
            **({"lr": apart_rate, "initial_lr": apart_rate} if other else {}),
        }
        for other in (False, True)
        for matrix in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    for embedding in module.modules():
        if isinstance(embedding, WordEmbedding):
            embedding.by_row = by_row and name != "sgd" and not embedding.sparse
    main: Optimizer
    if name == "sgd":
        main = SGD(groups, lr=learning_rate, momentum=momentum)
    elif name == "adam":
        main = Adam(groups, lr=learning_rate, betas=betas, fused=fused)
    else:
        main = AdamW(groups, lr=learning_rate, betas=betas, fused=fused)
    if not sparse:
        return main
    rows = SGD(sparse, lr=learning_rate) if name == "sgd" else SparseAdam(sparse, lr=learning_rate)
    return JointOptimizer([main, rows])


def schedule_factor(name: ScheduleName, step: int, warmup: int, total: int) -> float:
    """Say by what the learning rate is multiplied at a step.

    Args:
        name: ``constant`` and ``plateau`` stay at 1 after the warm-up; ``cosine`` falls to 0 along
            half a cosine (Loshchilov and Hutter, 2017), ``linear`` along a line.
        step: from 0.
        warmup: steps over which the factor rises linearly to 1.
        total: steps of the whole training.

    Returns:
        a factor in [0, 1].

    Example:
        >>> [schedule_factor("linear", s, 2, 6) for s in (0, 1, 2, 4, 6)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    if name in ("constant", "plateau"):
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1.0 - done if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def clip_gradients_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients down together where their joint norm exceeds a limit.

    Like ``torch.nn.utils.clip_grad_norm_``, for sparse gradients too (Pascanu et al., 2013).

    Args:
        parameters: tensors with gradients.
        max_norm: the limit, positive.

    Returns:
        the norm before, a scalar.
    """
    values: list[Tensor] = []
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            gradient = parameter.grad = coalesced(gradient)
            gradient = gradient.values()
        values.append(gradient)
    if not values:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(values)))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    if norm.device.type != "cpu":  # where the host would have to wait to learn the factor
        torch._foreach_mul_(values, factor)
    elif not norm.item() <= max_norm:
        torch._foreach_mul_(values, factor.item())  # a number takes a tenth of a tensor's time
    return norm

"""Adam and AdamW in one compiled pass on a CPU, for gradients of single rows too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim

from seqlab.nn.kernels import chosen, rows_native
from seqlab.nn.rows import coalesced


class Adam(optim.Adam):
    """Torch's fused Adam (Kingma and Ba, 2015), with the same steps and the same state.

    On a CPU with compiled kernels a step is one pass over the weights. A sparse gradient, as of
    :class:`seqlab.nn.rows.WordEmbedding`, is that of a dense one which is zero elsewhere: rows that
    a batch does not touch go on by their moments, unlike in ``torch.optim.SparseAdam``.
    """

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._reached: dict[Tensor, Tensor] = {}  # rows; not of the state, which tells it

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; returns what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(p, g) for g in self.param_groups for p in g["params"] if p.grad is not None]
        if moving and all(map(_plain, self.param_groups)) and _compiled([p for p, _ in moving]):
            states = [self._state(parameter) for parameter, _ in moving]
            torch._foreach_add_([state["step"] for state in states], 1.0)
            rows_native.adam_(
                [self._move(*pair, state) for pair, state in zip(moving, states, strict=True)]
            )
            return loss
        for parameter, _ in moving:
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
        super().step()
        return loss

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the state of a parameter, which is like that of torch."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _move(
        self, parameter: Tensor, group: dict[str, Any], state: dict[str, Tensor]
    ) -> rows_native.Move:
        """Put together what the pass needs of a parameter."""
        gradient, rows = parameter.grad, None
        assert gradient is not None
        if gradient.is_sparse:
            gradient = coalesced(gradient)
            rows = gradient._indices()[0], self._reached_of(parameter, state)
            gradient = gradient._values()
        numbers = _numbers(group, state["step"].item())
        gradient = gradient.contiguous()
        return parameter, gradient, rows, state["exp_avg"], state["exp_avg_sq"], numbers

    def _reached_of(self, parameter: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Say which rows have ever had a gradient; the pass brings it up to date."""
        kept = self._reached.get(parameter)
        if kept is None:
            rows = [state[name].flatten(1).any(1) for name in ("exp_avg", "exp_avg_sq")]
            kept = self._reached[parameter] = (rows[0] | rows[1]).to(torch.uint8)
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a state, in a copy or from a checkpoint, this one's or torch's."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._reached = {}


def _plain(group: dict[str, Any]) -> bool:
    """Whether the compiled pass does what a group asks for."""
    other = ("amsgrad", "maximize", "differentiable", "capturable")
    return not any(group[name] for name in other)


def _compiled(parameters: list[Tensor]) -> bool:
    """Whether there are compiled kernels for all of these tensors."""
    return chosen(parameters[0]) == "native" and all(
        p.is_cpu and p.dtype == torch.float32 and p.is_contiguous() for p in parameters
    )


def _numbers(group: dict[str, Any], step: float) -> tuple[float, ...]:
    """Return the numbers of :class:`seqlab.nn.kernels.rows_native.Move`."""
    first, second = group["betas"]
    rate, decay, apart = float(group["lr"]), group["weight_decay"], group["decoupled_weight_decay"]
    return (
        rate / (1.0 - first**step),
        rate * decay if apart else decay,
        float(apart),
        1.0 - first,
        1.0 - second,
        (1.0 - second**step) ** -0.5,
        group["eps"],
    )


class AdamW(Adam, optim.AdamW):
    """The same, where weights shrink apart from the gradient (Loshchilov and Hutter, 2019)."""

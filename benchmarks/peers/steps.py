"""Where the time of a training step goes: laps between its parts, and hooks inside of them."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from torch import Tensor, nn

PARTS = ("embedder", "encoder", "crf")


class Watch:
    """Adds up the seconds of the parts of training steps.

    The parts of the forward pass are told by hooks on the modules ``embedder``, ``encoder`` and
    ``crf``; those of the backward pass by hooks on the tensors between them, whose gradients are
    ready when the part above them is done. On a CPU, where work is done when it is ordered.

    Args:
        model: has these modules; None watches nothing and costs nothing.

    Attributes:
        parts: seconds of each part so far.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self.on = model is not None
        self.parts: dict[str, float] = defaultdict(float)
        self._before = time.perf_counter()
        for name in PARTS if model is not None else ():
            module = getattr(model, name)
            module.register_forward_pre_hook(lambda m, args, n=name: self._entered(n, args))
            module.register_forward_hook(lambda m, args, out, n=name: self._left(n, out))

    def lap(self, part: str) -> None:
        """Count the time since the last lap to a part."""
        if self.on:
            now = time.perf_counter()
            self.parts[part] += now - self._before
            self._before = now

    def _entered(self, name: str, args: tuple[Any, ...]) -> None:
        self.lap("rest of forward")
        if name != "embedder":
            self._when_ready(args[0], f"{name}, backward")

    def _left(self, name: str, out: Any) -> None:
        self.lap(f"{name}, forward")
        if name == "encoder":  # what is above it and below the CRF: the linear layer
            self._when_ready(out, "rest of backward")

    def _when_ready(self, value: Any, part: str) -> None:
        """Count what has been going on when the gradient of a tensor is there."""
        if isinstance(value, Tensor) and value.requires_grad:
            value.register_hook(lambda gradient: self.lap(part))

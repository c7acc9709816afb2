"""A moving average of a module's weights, which scores better than the weights themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of the trainable parameters (Polyak and Juditsky, 1992).

    Args:
        module: whose parameters are averaged.
        decay: share of the old average in the new one, in (0, 1); smaller in the first steps, so
            that the random start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.steps = 0

    def update(self) -> None:
        """Take the parameters of one more step into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = [p.detach() for p in self.parameters]
        torch._foreach_lerp_(self.average, current, 1.0 - decay)

    def follow(self) -> None:
        """Bring the average to the device and the type that the parameters have by now."""
        self.average = [a.to(p) for a, p in zip(self.average, self.parameters, strict=True)]

    def swap(self) -> None:
        """Exchange the parameters and their average; a second call puts them back."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average, strict=True):
                held = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(held)

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """Return what a resumed run needs."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, int | list[Tensor]]) -> None:
        """Take up what :meth:`state_dict` returned."""
        steps, average = state["steps"], state["average"]
        assert isinstance(steps, int)
        assert isinstance(average, list)
        self.steps = steps
        for own, saved in zip(self.average, average, strict=True):
            own.copy_(saved)

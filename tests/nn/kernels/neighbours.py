"""Run the kernels with all programs at work at once, one process each, and compare with plain.

Triton's interpreter runs one program of a launch after the other, so in it nobody ever waits. Here
every program is a process that runs the interpreter, and they share the memory of the tensors.
"""

from __future__ import annotations

import os
import signal
from itertools import product
from types import SimpleNamespace
from typing import Any

LONGEST = 300  # seconds, after which programs that wait for ever are ended


class AtOnce:
    """A kernel of the interpreter whose programs are processes."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        return lambda *args, **options: self.launch(grid, args, options)

    def launch(self, grid: tuple[int, int, int], args: Any, options: dict[str, Any]) -> None:
        import torch

        given = [x for x in args if isinstance(x, torch.Tensor)]
        shared = {id(x): x.clone().share_memory_() for x in given}
        copies = [shared.get(id(x), x) for x in args]
        started = []
        for place in product(*map(range, grid)):
            child = os.fork()
            if not child:
                self.run(grid, place, copies, options)
            started.append(child)
        failed = [child for child in started if os.waitpid(child, 0)[1]]
        assert not failed, f"{len(failed)} of {len(started)} programs failed or waited too long"
        for x in given:
            x.copy_(shared[id(x)])
        print(f"{len(started)} programs: ", end="")

    def run(self, grid: Any, place: Any, args: Any, options: dict[str, Any]) -> None:
        """Be one program, and end."""
        from triton.runtime import interpreter

        signal.alarm(LONGEST)
        builder = interpreter.interpreter_builder
        builder.set_grid_dim = lambda *_: setattr(builder, "grid_dim", grid)
        builder.set_grid_idx = lambda *_: setattr(builder, "grid_idx", place)
        # What this process has read must not be written back over what others have written since.
        interpreter.GridExecutor._restore_args_dev = lambda *_: None
        code = 1
        try:
            self.kernel[(1, 1, 1)](*args, **options)
            code = 0
        finally:
            os._exit(code)


def main() -> None:
    import torch

    from seqlab.nn.kernels import lstm, lstm_backward, lstm_forward
    from seqlab.nn.lstm_scan import LSTMWeights, lstm_scan

    torch.manual_seed(0)
    directions, time, batch, size = 2, 4, 3, 40  # three programs share the units of a direction
    values = [
        torch.randn(directions, time, batch, 4 * size, dtype=torch.float64),
        torch.randn(directions, batch, size, dtype=torch.float64),
        torch.randn(directions, batch, size, dtype=torch.float64),
        torch.randn(directions, size, 4 * size, dtype=torch.float64) / 6,
        torch.randn(directions, 3, size, dtype=torch.float64),
    ]
    options = lstm._options
    lstm._options = lambda *a, **b: options(*a, **b) | {"TOGETHER": True}  # type: ignore[assignment]
    lstm_forward.forward_kernel = AtOnce(lstm_forward.forward_kernel)
    lstm_backward.backward_kernel = AtOnce(lstm_backward.backward_kernel)
    found: dict[str, SimpleNamespace] = {}
    for kernels in ("plain", "triton"):
        os.environ["SEQLAB_KERNELS"] = kernels
        own = [value.clone().requires_grad_() for value in values]
        out, _ = lstm_scan(*own[:3], LSTMWeights(own[3], "gate", own[4]))
        found[kernels] = SimpleNamespace(out=out.detach(), own=own)
        if kernels == "triton":
            torch.testing.assert_close(out, found["plain"].out)
            print("the same")
        out.square().sum().backward()
    for ours, theirs in zip(found["triton"].own, found["plain"].own, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    print("the same")


if __name__ == "__main__":
    main()

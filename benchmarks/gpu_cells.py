"""The LSTM family on a GPU: are the Triton kernels right, and how fast are they?

    python benchmarks/gpu_cells.py                   # both; prints a table, keeps every number
    python benchmarks/gpu_cells.py --only check      # or: --only speed
    python benchmarks/gpu_cells.py --interpret       # no GPU: small sizes, Triton's interpreter

Right: outputs and gradients are compared with plain PyTorch in float64, whose own error in the same
precision stands beside. Fast: a training step (forwards and backwards) of one layer in both
directions is timed by CUDA events, round by round beside `torch.nn.LSTM` (cuDNN) and plain PyTorch.
The bar: a peephole or coupled layer trains at 0.7 of the speed of `nn.LSTM` or better.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import recipes
from seqlab.nn.cells import make_layer, read
from seqlab.nn.kernels import VARIABLE, installed, obstacle
from seqlab.nn.kernels.lstm import supports
from seqlab.nn.lstm_scan import Forget, LSTMWeights, Noise, lstm_scan

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gpu_cells.json"
KINDS: dict[str, tuple[Forget, bool]] = {
    "lstm": ("gate", False),
    "peephole": ("gate", True),
    "coupled": ("coupled", False),
    "no-forget": ("none", False),
}
NOISES = ("none", "dropout", "zoneout")
CHECKED = [(2, 7, 3, 5), (1, 30, 33, 200), (2, 40, 64, 256), (2, 12, 700, 256), (2, 12, 40, 600)]
CHECKED_SMALL = [(2, 7, 3, 5), (1, 2, 3, 17), (2, 2, 17, 40)]  # directions, time, batch, hidden
TIMED = [(32, 50, 200), (64, 50, 200), (64, 100, 256), (256, 50, 256), (64, 100, 512)]
# Of tensors, and of float32 products outside of the cells: torch's default, and that of the cells.
PRECISIONS = {
    "float32": (torch.float32, "ieee"),
    "float32 tf32": (torch.float32, "tf32"),
    "bfloat16": (torch.bfloat16, "ieee"),
}
BAR = 0.7
PATIENCE = 600  # seconds for one line of a table; programs that wait for ever are ended, and said
# Of the greatest relative error of an output or gradient; bfloat16 is held to plain PyTorch's.
LIMITS = {"float64": 1e-10, "float32": 1e-4, "float32 tf32": 2e-2, "float16": 2e-2}


@contextlib.contextmanager
def setting(kernels: str, cells: str = "tf32", products: str = "ieee") -> Iterator[None]:
    """Choose kernels, and the precision of float32 products in them and outside; torch's defaults.

    Args:
        kernels: value of the switch.
        cells: precision of cuDNN's recurrent layers and of our kernels.
        products: precision of other matrix products.
    """
    backends = {torch.backends.cudnn.rnn: cells, torch.backends.cuda.matmul: products}
    before = [(backend, backend.fp32_precision) for backend in backends]
    os.environ[VARIABLE] = kernels
    try:
        for backend, precision in backends.items():
            backend.fp32_precision = precision
        yield
    finally:
        os.environ.pop(VARIABLE)
        for backend, precision in before:
            backend.fp32_precision = precision


def case(kind: str, shape: tuple[int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """Gates, first hidden state and cell, recurrent and peephole weights, rounded to a type."""
    directions, steps, batch, size = shape
    forget, peephole = KINDS[kind]
    width = (4 if forget == "gate" else 3) * size
    shapes = [(steps, batch, width), (batch, size), (batch, size), (size, width), (3, size)]
    generator = torch.Generator().manual_seed(size)
    values = [torch.randn(directions, *s, generator=generator).double() for s in shapes]
    values[3] /= size**0.5
    return [value.to(dtype).double() for value in values[: 4 + peephole]]


def drawn(noise: str, shape: tuple[int, int, int, int], device: str) -> Noise:
    """Noise that is the same each time."""
    directions, steps, batch, size = shape
    generator = torch.Generator().manual_seed(1)
    found = Noise()
    if noise == "dropout":
        kept = torch.rand(directions, batch, size, generator=generator) < 0.75
        found.mask = kept.to(device) / 0.75
    if noise == "zoneout":
        holds = torch.rand(2, steps, directions, batch, size, generator=generator) < 0.2
        found.hold_hidden, found.hold_cell = holds.to(device, torch.float32)
    return found


def results(
    kind: str, values: list[Tensor], noise: Noise, dtype: torch.dtype, device: str
) -> list[Tensor]:
    """Outputs, last cell and gradients, in float64."""
    own = [value.to(device, dtype, copy=True).requires_grad_() for value in values]
    weights = LSTMWeights(own[3], KINDS[kind][0], own[4] if len(own) > 4 else None)
    hidden, cells = lstm_scan(own[0], own[1], own[2], weights, noise)
    generator = torch.Generator().manual_seed(2)
    outside = torch.randn(hidden.shape, generator=generator).to(device, dtype)
    (hidden * outside).sum().add(cells[:, -1].square().sum()).backward()
    found = [hidden, cells[:, -1], *(value.grad for value in own)]
    return [x.detach().double() for x in found if x is not None]


def error(found: list[Tensor], truth: list[Tensor]) -> float:
    """The greatest relative error, by norms; not a number counts as infinite."""
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True)]
    return max(x if x == x else float("inf") for x in errors)


def check(small: bool, device: str) -> list[dict[str, Any]]:
    rows = []
    precisions = ["float32", "float64", "float16"] if small else ["float32", "float32 tf32"]
    precisions += [] if small else ["float16", "bfloat16"]
    print(f"{'cell':11}{'sizes':20}{'noise':9}{'precision':14}{'error':>9}{'plain':>9}")
    for kind in KINDS:
        for at, shape in enumerate(CHECKED_SMALL if small else CHECKED):
            for precision in precisions:
                faulthandler.dump_traceback_later(PATIENCE, exit=True)
                noise = NOISES[at % len(NOISES)]
                rows.append(_check_one(kind, shape, noise, precision, device))
                print(_shown(rows[-1]), flush=True)
    faulthandler.cancel_dump_traceback_later()
    return rows


def _check_one(
    kind: str, shape: tuple[int, int, int, int], noise: str, precision: str, device: str
) -> dict[str, Any]:
    dtype = getattr(torch, precision.split()[0])
    mode = "tf32" if precision.endswith("tf32") else "ieee"
    values, disturbed = case(kind, shape, dtype), drawn(noise, shape, device)
    with setting("plain", "ieee", "ieee"):
        truth = results(kind, values, disturbed, torch.float64, device)
    with setting("plain", mode, mode):
        plain = error(results(kind, values, disturbed, dtype, device), truth)
    with setting("triton", mode, mode):
        ours = error(results(kind, values, disturbed, dtype, device), truth)
        used = supports(values[0].to(device, dtype), LSTMWeights(values[3], KINDS[kind][0]))
    limit = LIMITS.get(precision, 1.5 * plain)
    row = {"cell": kind, "sizes": shape, "noise": noise, "precision": precision, "used": used}
    return {**row, "error": ours, "plain_error": plain, "right": ours <= limit}


def _shown(row: dict[str, Any]) -> str:
    sizes = " x ".join(map(str, row["sizes"]))
    words = f"{row['cell']:11}{sizes:20}{row['noise']:9}{row['precision']:14}"
    remark = "" if row["right"] else "  WRONG"
    remark += "" if row["used"] else "  (plain PyTorch: too large for this GPU)"
    return f"{words}{row['error']:9.1e}{row['plain_error']:9.1e}{remark}"


def step(layers: list[nn.Module], x: Tensor, kernels: str, products: str) -> Callable[[], None]:
    """Make a function that runs a layer forwards and backwards."""
    leaves = [x, *(weight for layer in layers for weight in layer.parameters())]

    def run() -> None:
        with setting(kernels, products=products):
            if isinstance(layers[0], nn.LSTM) and layers[0].bidirectional:
                out = layers[0](x)[0]
            else:  # with noise, if it is none, nn.LSTM's weights go through our kernels, too
                out = torch.cat([way for way, _ in read(layers, [x, x], None, Noise())], -1)
            torch.autograd.grad(out.float().sum(), leaves)

    return run


def milliseconds(run: Callable[[], None]) -> float:
    """Time a function on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def speed(rounds: int) -> list[dict[str, Any]]:
    rows = []
    print("\nms for a training step of one layer, both directions; speed: nn.LSTM's ms by Triton's")
    heads = ("nn.LSTM", "plain", "triton", "speed", "tokens/s")
    columns = "".join(f"{head:>11}" for head in heads)
    print(f"{'cell':11}{'batch x time x hidden':23}{'precision':14}{columns}")
    for batch, steps, size in TIMED:
        for precision in PRECISIONS:
            for kind in KINDS:
                faulthandler.dump_traceback_later(PATIENCE, exit=True)
                rows.append(_time_one(kind, (batch, steps, size), precision, rounds))
                print(_timed(rows[-1]), flush=True)
    faulthandler.cancel_dump_traceback_later()
    return rows


def _time_one(
    kind: str, shape: tuple[int, int, int], precision: str, rounds: int
) -> dict[str, Any]:
    batch, steps, size = shape
    dtype, products = PRECISIONS[precision]
    torch.manual_seed(0)
    x = torch.randn(batch, steps, size, device="cuda", dtype=dtype, requires_grad=True)
    theirs: list[nn.Module] = [nn.LSTM(size, size, batch_first=True, bidirectional=True)]
    ours = [make_layer(kind, size, size) for _ in range(2)]
    for layer in theirs + ours:
        layer.to("cuda", dtype)
    runs = {"nn.LSTM": step(theirs, x, "auto", products)}
    runs |= {kernels: step(ours, x, kernels, products) for kernels in ("plain", "triton")}
    for run in [*runs.values()] * 3:
        run()
    torch.cuda.synchronize()
    times = [{name: milliseconds(run) for name, run in runs.items()} for _ in range(rounds)]
    row: dict[str, Any] = {name: statistics.median(t[name] for t in times) for name in runs}
    row["speed"] = statistics.median(t["nn.LSTM"] / t["triton"] for t in times)
    row["tokens_per_second"] = batch * steps / row["triton"] * 1e3
    return {"cell": kind, "sizes": shape, "precision": precision, **row}


def _timed(row: dict[str, Any]) -> str:
    sizes = " x ".join(map(str, row["sizes"]))
    numbers = "".join(f"{row[name]:11.3f}" for name in ("nn.LSTM", "plain", "triton"))
    under = "" if row["speed"] >= BAR else f"  under the bar of {BAR}"
    tail = f"{row['speed']:11.2f}{row['tokens_per_second']:11,.0f}{under}"
    return f"{row['cell']:11}{sizes:23}{row['precision']:14}{numbers}{tail}"


def machine() -> dict[str, str]:
    """What the numbers hold for."""
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()[0]
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "triton": version("triton"),
        "date": time.strftime("%Y-%m-%d"),
        "commit": recipes.commit(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("check", "speed"), help="both by default")
    parser.add_argument("--rounds", type=int, default=31, help="timed steps of each layer")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where numbers are kept")
    parser.add_argument("--interpret", action="store_true", help="check small sizes on the CPU")
    args = parser.parse_args()
    if args.interpret:
        if not installed() or tuple(map(int, version("triton").split(".")[:2])) < (3, 7):
            raise SystemExit("There is no Triton 3.7 or newer: run `pip install 'triton>=3.7'`.")
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
        return 0 if all(row["right"] for row in check(small=True, device="cpu")) else 1
    problem = "there is none" if not torch.cuda.is_available() else obstacle(torch.device("cuda:0"))
    if problem:
        raise SystemExit(f"This measures an NVIDIA GPU, but {problem}: try --interpret.")
    kept: dict[str, Any] = machine()
    print(", ".join(f"{name} {value}" for name, value in kept.items()))
    checks = [] if args.only == "speed" else check(small=False, device="cuda")
    times = [] if args.only == "check" else speed(args.rounds)
    kept |= {"bar": BAR, "rounds": args.rounds, "checks": checks, "times": times}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    wrong = sum(not row["right"] for row in checks)
    under = sum(row["speed"] < BAR for row in times)
    print(f"{wrong} of {len(checks)} checks wrong; {under} of {len(times)} times under the bar")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

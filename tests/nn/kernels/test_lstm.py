"""The Triton kernels against plain PyTorch: on a GPU, or without one in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.nn.gated import CoupledLSTM, LayerNormLSTM, OwnLayer, PeepholeLSTM
from seqlab.nn.kernels import lstm
from seqlab.nn.kernels.lstm import Plan, plan, supports
from seqlab.nn.lstm_scan import Forget, LSTMWeights, Noise, lstm_scan

ROOT = Path(__file__).resolve().parents[3]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WHY_NOT = WHY_NOT_INTERPRETED = ""
if find_spec("triton") is None:
    WHY_NOT = WHY_NOT_INTERPRETED = "Triton is not installed: it comes with the CUDA build of torch"
elif tuple(map(int, version("triton").split(".")[:2])) < (3, 7):
    WHY_NOT_INTERPRETED = "the interpreter of Triton before 3.7 does not work with today's numpy"
if DEVICE == "cpu" and WHY_NOT_INTERPRETED:
    WHY_NOT = WHY_NOT_INTERPRETED
elif DEVICE == "cpu" and "triton" in sys.modules and "TRITON_INTERPRET" not in os.environ:
    WHY_NOT = "Triton was imported before TRITON_INTERPRET=1 was set: run this file alone"
elif DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # must be there before Triton is imported
runs_triton = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
interprets = pytest.mark.skipif(bool(WHY_NOT_INTERPRETED), reason=WHY_NOT_INTERPRETED)
compiles = pytest.mark.skipif(find_spec("triton") is None, reason=WHY_NOT_INTERPRETED)

Case = tuple[Forget, bool]
KINDS: list[Case] = [("gate", False), ("gate", True), ("coupled", False), ("none", False)]
DTYPE = torch.float32 if DEVICE == "cuda" else torch.float64
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 2e-2}


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """On a GPU, TF32 would hide what these tests look for."""
    before = torch.backends.cudnn.rnn.fp32_precision
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.rnn.fp32_precision = before


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(DEVICE, dtype)


def leaves(
    kind: Case, directions: int, time: int, batch: int, size: int, dtype: torch.dtype
) -> list[Tensor]:
    """Gates, hidden state, cell, recurrent and perhaps peephole weights."""
    forget, peephole = kind
    width = (4 if forget == "gate" else 3) * size
    shapes = [(time, batch, width), (batch, size), (batch, size), (size, width), (3, size)]
    torch.manual_seed(size)
    values = [drawn(directions, *shape, dtype=dtype) for shape in shapes[: 4 + peephole]]
    values[3] /= size**0.5
    return values


def results(
    kernel: str,
    values: list[Tensor],
    kind: Case,
    noise: Noise | None,
    monkeypatch: pytest.MonkeyPatch,
    asked: str = "both",
) -> list[Tensor]:
    """Outputs and gradients as one choice of kernels computes them."""
    monkeypatch.setenv("SEQLAB_KERNELS", kernel)
    own = [value.clone().requires_grad_() for value in values]
    weights = LSTMWeights(own[3], kind[0], own[4] if kind[1] else None)
    hidden, cells = lstm_scan(own[0], own[1], own[2], weights, noise)
    torch.manual_seed(0)
    by_hidden, by_cells = drawn(*hidden.shape, dtype=hidden.dtype), drawn(1, dtype=cells.dtype)
    total = {
        "hidden": (hidden * by_hidden).sum(),
        "cells": (cells * by_cells).sum(),
        "both": (hidden * by_hidden).sum() + (cells[:, -1] * by_cells).sum(),
    }
    total[asked].backward()
    return [hidden, cells, *(value.grad for value in own if value.grad is not None)]


def check(
    monkeypatch: pytest.MonkeyPatch,
    kind: Case,
    shape: tuple[int, int, int, int],
    noise: Noise | None = None,
    dtype: torch.dtype = DTYPE,
    asked: str = "both",
) -> None:
    """Hold the kernels to plain PyTorch; shape is directions, time, batch, size."""
    values = leaves(kind, *shape, dtype)
    launched: list[int] = []
    launch = lstm._Layer.launch

    def counted(self: Any, *arguments: Any) -> None:
        launched.append(1)
        launch(self, *arguments)

    monkeypatch.setattr(lstm._Layer, "launch", counted)
    found = results("triton", values, kind, noise, monkeypatch, asked)
    assert len(launched) == 2, "the kernels were not used"
    expected = results("plain", values, kind, noise, monkeypatch, asked)
    assert len(launched) == 2
    assert len(found) == len(expected) == 2 + len(values)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=CLOSE[dtype], atol=CLOSE[dtype])


@runs_triton
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("directions", "time", "size"), [(2, 7, 5), (1, 1, 17), (2, 2, 40)])
def test_outputs_and_gradients_are_those_of_plain_pytorch(
    kind: Case, directions: int, time: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(monkeypatch, kind, (directions, time, 3, size))


@runs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("kind", "time", "size"), [*product(KINDS, [1, 7], [5, 17, 40])])
def test_every_size_and_precision(
    kind: Case, time: int, size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(monkeypatch, kind, (2, time, 3, size), dtype=dtype)


@runs_triton
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("kind", [("gate", True), ("coupled", False)])
def test_rows_multiplied_in_pieces_or_whole_give_the_same(
    kind: Case, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.backends.cudnn.rnn.fp32_precision = precision
    if DEVICE == "cuda" and precision == "tf32":
        monkeypatch.setitem(CLOSE, torch.float32, 2e-2)  # TF32 has 10 bits
    check(monkeypatch, kind, (2, 2, 3, 70), dtype=torch.float32)


@runs_triton
@pytest.mark.parametrize("asked", ["hidden", "cells"])
def test_gradients_come_through_either_output(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch, ("gate", True), (1, 3, 2, 5), asked=asked)


@runs_triton
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("disturbed", ["dropout", "zoneout", "both", "evaluation"])
def test_noise_is_that_of_plain_pytorch(
    kind: Case, disturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directions, time, batch, size = shape = (2, 3, 3, 17)
    torch.manual_seed(1)
    noise = Noise()
    if disturbed in ("dropout", "both"):
        noise.mask = (torch.rand(directions, batch, size) < 0.7).to(DEVICE, DTYPE) / 0.7
    if disturbed in ("zoneout", "both"):
        holds = (torch.rand(2, time, directions, batch, size) < 0.3).to(DEVICE, DTYPE)
        noise.hold_hidden, noise.hold_cell = holds.unbind(0)
    if disturbed == "evaluation":
        noise.hold_hidden, noise.hold_cell = 0.2, 0.1
    check(monkeypatch, kind, shape, noise)


@runs_triton
def test_a_batch_too_large_for_one_launch_takes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles: list[int] = []

    def small(device: torch.device, batch: int, size: int, directions: int) -> Plan | None:
        found = plan(batch, size, directions, processors=4)
        assert found is not None
        tiles.extend([found.tiles, found.at_once])
        return found

    monkeypatch.setattr(lstm, "_plan_on", small)
    check(monkeypatch, ("gate", True), (2, 2, 150, 17))
    assert tiles[:2] == [3, 1]


@runs_triton
@pytest.mark.parametrize("cell", [PeepholeLSTM, CoupledLSTM, LayerNormLSTM])
def test_layers_give_the_same_with_either_kernels(
    cell: type[OwnLayer], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer, x = cell(3, 5).to(DEVICE), drawn(2, 4, 3, dtype=torch.float32)
    found = []
    for choice in ("triton", "plain"):
        monkeypatch.setenv("SEQLAB_KERNELS", choice)
        layer.zero_grad()
        out, (hidden, _) = layer(x)
        assert torch.equal(out[:, -1], hidden)
        out.square().sum().backward()
        found.append([out, *(weight.grad for weight in layer.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_not_computed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lstm, "interpreted", lambda: True)
    gates, w, some = torch.zeros(1, 2, 3, 20), torch.zeros(1, 5, 20), torch.zeros(1, 20)
    assert supports(gates, LSTMWeights(w))
    assert supports(gates, LSTMWeights(w, "gate", peephole=torch.zeros(1, 3, 5)))
    assert supports(gates.double(), LSTMWeights(w.double()))
    assert not supports(gates.bfloat16(), LSTMWeights(w))  # numpy does not know it
    assert not supports(gates, LSTMWeights(w, gate_gain=some))
    assert not supports(gates, LSTMWeights(w, cell_gain=some))
    assert not supports(gates, LSTMWeights(w, projection=some))
    assert not supports(gates[:, :0], LSTMWeights(w))
    assert not supports(gates[:, :, :0], LSTMWeights(w))


def test_a_gpu_computes_what_fits_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lstm, "interpreted", lambda: False)
    gpu = SimpleNamespace(multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    gates, w = torch.zeros(2, 1, 3, 512), LSTMWeights(torch.zeros(2, 128, 512))
    assert supports(gates, w)
    assert supports(gates.bfloat16(), w)
    assert not supports(gates.double(), w)
    assert not supports(torch.zeros(2, 1, 3, 516), LSTMWeights(torch.zeros(2, 129, 516)))


@pytest.mark.parametrize("directions", [1, 2])
def test_all_programs_of_a_launch_have_a_processor_and_the_smallest_share(directions: int) -> None:
    for batch, size, processors in product([1, 16, 33, 64, 500], [1, 17, 200, 1024], [1, 28, 132]):
        found = plan(batch, size, directions, processors)
        if found is None:
            assert -(-size // 64) * directions > processors
            continue
        rows, units, slices, tiles, at_once = found
        assert slices * units >= size > (slices - 1) * units
        assert tiles * rows >= batch > (tiles - 1) * rows
        assert 1 <= at_once <= tiles
        assert at_once * slices * directions <= processors
        if at_once < tiles:
            assert rows == 64


def test_weights_are_kept_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cudnn.rnn.fp32_precision = "tf32"
    monkeypatch.setattr(lstm, "interpreted", lambda: False)
    h200 = SimpleNamespace(shared_memory_per_multiprocessor=228 << 10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: h200)
    shares = plan(64, 200, 2, processors=132)
    assert shares is not None

    def options(length: int, columns: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        return lstm._options(torch.zeros(1, dtype=dtype), shares, length, columns)

    assert options(200, 4)["CHUNK"] == 256
    assert options(800, 1)["CHUNK"] == 1024
    assert options(1600, 1)["CHUNK"] == 64  # 2048 numbers for each of 16 rows and columns: 256 KB
    assert options(1600, 1, torch.bfloat16)["CHUNK"] == 2048
    assert options(200, 4)["PRECISION"] == "tf32"
    assert options(200, 4)["launch_cooperative_grid"]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    assert options(200, 4)["PRECISION"] == "ieee"
    assert options(200, 4)["CHUNK"] == 64
    assert options(200, 4, torch.float16)["CHUNK"] == 256


def run(program: str, **environment: str) -> list[str]:
    """Run a program of this folder in a process of its own, as Triton is imported otherwise."""
    script = Path(__file__).with_name(program)
    full = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, str(script)], env=full, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@interprets
@pytest.mark.slow
def test_programs_that_wait_for_one_another_give_the_same() -> None:
    assert run("neighbours.py", TRITON_INTERPRET="1") == ["6 programs: the same"] * 2


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_for_a_gpu_that_is_not_here(architecture: int) -> None:
    lines = run("compiled.py", TRITON_INTERPRET="0", ARCHITECTURE=str(architecture))
    assert len(lines) == 8
    for line in lines:
        # Stores are followed by a barrier and the release; the acquire by one, and then loads.
        assert line.split(": ")[1] == "store barrier release acquire barrier load"

"""The LSTM family over time on a GPU, forwards and backwards in one launch each.

A step of an LSTM is a small matrix product and a little arithmetic: for 64 rows and 200 units in
both directions, 20 million multiply-adds, which take the tensor cores of an H200 a tenth of a
microsecond, while a kernel takes two to five to start and plain PyTorch starts ten of them a step.
So here one kernel goes through all steps. The units are shared out among programs, each of which
keeps its slice of the recurrent weights in the shared memory of its multiprocessor from the first
step to the last, so that a step moves only the hidden state and the gates; between steps the
programs wait for one another (`.lstm_forward`), as persistent RNN kernels do (Diamos et al., 2016).
That needs all programs of a launch to be at work at once, which a cooperative launch ensures;
batches too large for that take several launches.

Products of float32 follow ``torch.backends.cudnn.rnn.fp32_precision``, as `torch.nn.LSTM` does:
TF32 unless that is switched off. Sums, gates and cells are float32 whatever the tensors are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqlab.nn.kernels import interpreted
from seqlab.nn.lstm_scan import Forget, LSTMWeights, Noise, over_time

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
DTYPES_INTERPRETED = (torch.float64, torch.float32, torch.float16)  # numpy has no bfloat16
LEAST = 16  # rows and columns that a tensor core multiplies at least
MOST = 64  # rows, or units, of a program whose numbers still fit into registers
STREAMED = 64  # how many numbers of a row are multiplied at once where weights are not kept
MOST_BYTES = 1 << 16  # of a matrix on its way through the registers of a program
SPARED = 9 << 10  # bytes of shared memory that the driver and the compiler take for themselves
LARGEST_ROOM = 219 << 10  # what is left on an H200, taken for the interpreter too


class Plan(NamedTuple):
    """How a layer is shared out among programs.

    Attributes:
        rows: rows of the batch for each program.
        units: hidden units for each program.
        slices: how many programs share the units.
        tiles: how many programs share the batch.
        at_once: how many of ``tiles`` one launch takes.
    """

    rows: int
    units: int
    slices: int
    tiles: int
    at_once: int


def plan(batch: int, size: int, directions: int, processors: int) -> Plan | None:
    """Share a layer out so that all programs of a launch are at work at once.

    Args:
        batch: number of rows.
        size: number of hidden units.
        directions: 1 or 2.
        processors: multiprocessors of the GPU, each of which surely takes one program.

    Returns:
        small programs, as the work of one is what a step takes; None where the layer is too large.

    Example:
        >>> plan(64, 200, 2, processors=132)
        Plan(rows=16, units=16, slices=13, tiles=4, at_once=4)
        >>> plan(64, 1024, 2, processors=132)
        Plan(rows=64, units=16, slices=64, tiles=1, at_once=1)
    """
    several = None
    for units in _doubled(LEAST, MOST):
        slices = -(-size // units)
        at_once = processors // (slices * directions)
        for rows in _doubled(LEAST, MOST):
            tiles = -(-batch // rows)
            if tiles <= at_once:
                return Plan(rows, units, slices, tiles, tiles)
        if several is None and at_once:
            several = Plan(MOST, units, slices, -(-batch // MOST), at_once)
    return several


def _doubled(low: int, high: int) -> Iterator[int]:
    while low <= high:
        yield low
        low *= 2


def supports(gates: Tensor, weights: LSTMWeights) -> bool:
    """Say whether the kernels compute a layer; plain PyTorch does the others.

    Not computed are layer normalisation and projection, whose steps need all units of a row at
    once; float64; and layers whose units do not fit on the GPU all at once.

    Args:
        gates: as for `seqlab.nn.lstm_scan.lstm_scan`.
        weights: likewise.
    """
    others = (weights.gate_gain, weights.cell_gain, weights.projection)
    if any(weight is not None for weight in others) or gates.numel() == 0:
        return False
    if gates.dtype not in (DTYPES_INTERPRETED if interpreted() else DTYPES):
        return False
    directions, _, batch, _ = gates.shape
    return _plan_on(gates.device, batch, weights.recurrent.shape[1], directions) is not None


def _plan_on(device: torch.device, batch: int, size: int, directions: int) -> Plan | None:
    if interpreted():  # one program after the other, however many
        return plan(batch, size, directions, processors=1 << 30)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return plan(batch, size, directions, processors)


def scan(
    gates: Tensor, hidden: Tensor, cell: Tensor, weights: LSTMWeights, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Run a layer over whole sequences; see `seqlab.nn.lstm_scan.lstm_scan`.

    Args:
        gates: ``(direction, time, batch, gate)``.
        hidden: ``(direction, batch, hidden)``.
        cell: likewise.
        weights: such as :func:`supports` accepts.
        noise: recurrent dropout and zoneout.

    Returns:
        hidden states and cells, ``(direction, time, batch, hidden)``.
    """
    like = gates.dtype
    w, peephole = weights.recurrent.to(like), weights.peephole
    looks = None if peephole is None else peephole.to(like)
    result: tuple[Tensor, Tensor] = _Scan.apply(  # type: ignore[no-untyped-call]
        gates, hidden.to(like), cell.to(like), w, looks, weights.forget, noise.to(like)
    )
    return result


class _Scan(torch.autograd.Function):
    """See :func:`scan`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        w: Tensor,
        peephole: Tensor | None,
        forget: Forget,
        noise: Noise,
    ) -> tuple[Tensor, Tensor]:
        directions, time, batch, _ = x.shape
        size = hidden.shape[-1]
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        states = x.new_empty(directions, time + 1, batch, size)
        cells = x.new_empty(directions, time + 1, batch, size, dtype=exact)
        states[:, 0], cells[:, 0] = hidden, cell
        gates = torch.empty_like(x, memory_format=torch.contiguous_format)  # as computed
        x, w, peephole = x.contiguous(), w.contiguous(), _contiguous(peephole)
        layer = _Layer(x, w, peephole, forget, *_drawn(noise, states))
        layer.forward(states, cells, gates)
        ctx.save_for_backward(states, cells, gates, *layer.tensors)
        ctx.forget = forget
        ctx.set_materialize_grads(False)
        return states[:, 1:], cells[:, 1:].to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: Tensor | None, d_cells: Tensor | None) -> Any:
        states, cells, gates, w, peephole, dropped, hold_hidden, hold_cell = ctx.saved_tensors
        layer = _Layer(gates, w, peephole, ctx.forget, dropped, hold_hidden, hold_cell)
        d_gates, d_hidden, d_cell, d_peephole = layer.backward(
            cells, _contiguous(d_states), _contiguous(d_cells)
        )
        seen, d_start = states[:, :-1], torch.bmm(d_gates[:, 0], w.transpose(1, 2))
        if dropped is not None:
            seen, d_start = seen * dropped.unsqueeze(1), d_start * dropped
        if d_hidden is not None:
            d_start = d_start + d_hidden.to(d_start.dtype)
        d_w = over_time(seen.transpose(0, 1), d_gates.transpose(0, 1))
        like = gates.dtype
        looks = None if d_peephole is None else d_peephole.sum(0).to(like)
        return d_gates, d_start, d_cell.to(like), d_w, looks, None, None


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _drawn(noise: Noise, states: Tensor) -> Iterator[Tensor | None]:
    """The noise as tensors: recurrent dropout, zoneout of the hidden state and of the cell."""
    directions, time, batch, size = states.shape
    shares = (noise.hold_hidden, noise.hold_cell)
    some = any(isinstance(share, Tensor) or share for share in shares)
    yield None if noise.mask is None else noise.mask.contiguous()
    for share in shares:
        if not some:
            yield None
        elif isinstance(share, Tensor):
            yield share.contiguous()
        else:
            yield states.new_full((time - 1, directions, batch, size), share)


class _Layer:
    """What both kernels are told, and their launches.

    Args:
        gates: ``(direction, time, batch, gate)``, or others of the same shape and device.
        w: ``(direction, hidden, gate)``.
        peephole: ``(direction, 3, hidden)``.
        forget: see `seqlab.nn.lstm_scan.LSTMWeights`.
        dropped: ``(direction, batch, hidden)``, recurrent dropout.
        hold_hidden: ``(time, direction, batch, hidden)``, zoneout; None together with the next.
        hold_cell: likewise.
    """

    def __init__(
        self,
        gates: Tensor,
        w: Tensor,
        peephole: Tensor | None,
        forget: Forget,
        dropped: Tensor | None,
        hold_hidden: Tensor | None,
        hold_cell: Tensor | None,
    ) -> None:
        self.gates, self.forget = gates, forget
        self.tensors = (w, peephole, dropped, hold_hidden, hold_cell)
        self.size, self.width = w.shape[1:]
        shares = _plan_on(gates.device, gates.shape[2], self.size, gates.shape[0])
        assert shares is not None  # as `supports` has said
        self.shares = shares

    def forward(self, states: Tensor, cells: Tensor, gates: Tensor) -> None:
        """Fill ``states``, ``cells`` and ``gates``, see `.lstm_forward`."""
        from seqlab.nn.kernels.lstm_forward import forward_kernel

        options = _options(gates, self.shares, self.size, columns=4)
        pointers = (self.gates, *self.tensors, states, cells, gates)
        self.launch(forward_kernel, pointers, options, range(gates.shape[1]))

    def backward(
        self, cells: Tensor, d_states: Tensor | None, d_cells: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Return the gradients of gates, first hidden state and cell, and peephole by tile.

        That of the hidden state is the part that went past the recurrent weights.
        """
        from seqlab.nn.kernels.lstm_backward import backward_kernel

        _, peephole, _, hold_hidden, _ = self.tensors
        gates = self.gates
        d_gates, d_cell = torch.empty_like(gates), torch.zeros_like(cells[:, 0])
        d_hidden = None if hold_hidden is None else torch.zeros_like(d_cell)
        d_peephole = None
        if peephole is not None:
            d_peephole = cells.new_zeros(self.shares.tiles, *peephole.shape)
        given = (d_states, d_cells, d_gates, d_hidden, d_cell, d_peephole)
        pointers = (*self.tensors, cells, gates, *given)
        options = _options(gates, self.shares, self.width, columns=1)
        self.launch(backward_kernel, pointers, options, range(gates.shape[1] - 1, -1, -1))
        return d_gates, d_hidden, d_cell, d_peephole

    def launch(
        self,
        kernel: Any,
        pointers: tuple[Tensor | None, ...],
        options: dict[str, Any],
        steps: range,
    ) -> None:
        """Run a kernel over all steps.

        Args:
            kernel: a Triton kernel.
            pointers: its first arguments.
            options: how the kernel is compiled.
            steps: in the order in which they are computed.
        """
        shares, (directions, time, batch, _) = self.shares, self.gates.shape
        counters = self.gates.new_zeros(shares.tiles * directions, dtype=torch.int32)
        layer = {"HIDDEN": self.size, "FORGET": self.forget}
        options = options | layer | {"ROWS": shares.rows, "UNITS": shares.units}
        spans = [(0, time)] if options["TOGETHER"] else [(t, t + 1) for t in steps]
        with torch.cuda.device_of(self.gates):  # type: ignore[no-untyped-call]
            for tile in range(0, shares.tiles, shares.at_once):
                grid = (shares.slices, min(shares.at_once, shares.tiles - tile), directions)
                for first, last in spans:
                    kernel[grid](*pointers, counters, first, last, time, batch, tile, **options)


def _options(gates: Tensor, shares: Plan, length: int, columns: int) -> dict[str, Any]:
    """How a kernel is compiled: what it keeps in shared memory, how exactly it multiplies.

    Args:
        gates: whose device and type the kernel works on.
        shares: how the layer is shared out.
        length: of the sum of a step.
        columns: how many columns of weights a unit has in it.
    """
    tf32 = torch.backends.cudnn.rnn.fp32_precision == "tf32"  # type: ignore[attr-defined]
    cores = tf32 or gates.dtype != torch.float32  # whether tensor cores multiply
    options: dict[str, Any] = {"PRECISION": "tf32" if tf32 else "ieee", "TOGETHER": False}
    room = LARGEST_ROOM
    if not interpreted():
        properties = torch.cuda.get_device_properties(gates.device)
        room = properties.shared_memory_per_multiprocessor - SPARED
        warps = 4 if shares.rows == shares.units == LEAST else 8
        options |= {"TOGETHER": True, "launch_cooperative_grid": True}
        options |= {"num_warps": warps, "enable_fp_fusion": True}
    whole = max(LEAST, 1 << (length - 1).bit_length())
    numbers, weights = shares.rows * whole, shares.units * columns * whole
    fits = (numbers + weights) * gates.element_size() <= room
    # Without tensor cores, whole rows would be unrolled into a hundred thousand instructions.
    kept = cores and fits and numbers * gates.element_size() <= MOST_BYTES
    return options | {"CHUNK": whole if kept else STREAMED}

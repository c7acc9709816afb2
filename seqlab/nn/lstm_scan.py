"""The LSTM family over time, forwards and backwards by hand: one matrix product a step.

What a step needs of the input is computed for the whole sequence before, what the weights'
gradients need of all steps after, and both directions of a layer go through the steps together.
Autograd sees one operation. `seqlab.nn.traces` computes the same step by step, in plain PyTorch;
on a GPU, `seqlab.nn.kernels.lstm` computes all steps at once where it can.

Shapes: ``direction`` is 1 or 2, ``gate`` counts gates times hidden units in the order input,
forget, candidate, output (the order of torch; without forget gate: input, candidate, output),
``state`` is the size of the hidden state: the projection's, or that of the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from seqlab.nn import kernels

Forget = Literal["gate", "coupled", "none"]
EPSILON = 1e-5  # of layer normalisation


@dataclass
class LSTMWeights:
    """What one layer of the LSTM family works with, its directions stacked.

    Attributes:
        recurrent: ``(direction, state, gate)``.
        forget: ``gate``: a gate of its own; ``coupled``: one minus the input gate (CIFG); ``none``:
            nothing is forgotten.
        peephole: ``(direction, 3, hidden)``, from the cell to the input, forget and output gates.
        gate_gain: ``(direction, gate)``; with it, the recurrent part of the gates is normalised.
        cell_gain: ``(direction, hidden)``; with it, the cell is normalised on its way out.
        cell_shift: ``(direction, hidden)``, goes with ``cell_gain``.
        projection: ``(direction, hidden, state)``, from the gated cell to the hidden state.
    """

    recurrent: Tensor
    forget: Forget = "gate"
    peephole: Tensor | None = None
    gate_gain: Tensor | None = None
    cell_gain: Tensor | None = None
    cell_shift: Tensor | None = None
    projection: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All tensors, in a fixed order."""
        norms = (self.gate_gain, self.cell_gain, self.cell_shift)
        return (self.recurrent, self.peephole, *norms, self.projection)


@dataclass
class Noise:
    """What a layer's steps are disturbed with, all of it drawn before.

    Attributes:
        mask: ``(direction, batch, state)``, by which the previous hidden state is multiplied before
            it meets the recurrent weights (Gal and Ghahramani, 2016); the same at every step.
        hold_hidden: ``(time, direction, batch, state)`` or a number, the share of the previous
            hidden state that stays (zoneout; Krueger et al., 2017).
        hold_cell: ``(time, direction, batch, hidden)`` or a number, likewise.
    """

    mask: Tensor | None = None
    hold_hidden: Tensor | float = 0.0
    hold_cell: Tensor | float = 0.0

    def to(self, dtype: torch.dtype) -> Noise:
        """Give the noise in the precision of the steps, which mixed precision decides."""
        mask = None if self.mask is None else self.mask.to(dtype)
        hidden, cell = (
            hold.to(dtype) if isinstance(hold, Tensor) else hold
            for hold in (self.hold_hidden, self.hold_cell)
        )
        return Noise(mask, hidden, cell)


def lstm_scan(
    gates: Tensor, hidden: Tensor, cell: Tensor, weights: LSTMWeights, noise: Noise | None = None
) -> tuple[Tensor, Tensor]:
    """Run a layer of the LSTM family over whole sequences.

    Args:
        gates: ``(direction, time, batch, gate)``, the input's part of the gates, biases included.
        hidden: ``(direction, batch, state)``, the hidden state before the first step.
        cell: ``(direction, batch, hidden)``, the cell before the first step.
        weights: the recurrent part.
        noise: recurrent dropout and zoneout.

    Returns:
        the hidden states ``(direction, time, batch, state)`` and the cells ``(direction, time,
        batch, hidden)`` after every step.
    """
    if kernels.chosen(gates) == "triton":
        from seqlab.nn.kernels import lstm

        if lstm.supports(gates, weights):
            return lstm.scan(gates, hidden, cell, weights, noise or Noise())
    like = gates.dtype
    tensors = [None if w is None else w.to(like) for w in weights.tensors]
    result: tuple[Tensor, Tensor] = _LSTMScan.apply(  # type: ignore[no-untyped-call]
        gates, hidden.to(like), cell.to(like), weights.forget, (noise or Noise()).to(like), *tensors
    )
    return result


def held(share: Tensor | float, time: int) -> list[Tensor | float] | None:
    """Give every step its share that stays, None where nothing does."""
    if isinstance(share, Tensor):
        return list(share.unbind(0))
    return [share] * time if share else None


def parts(x: Tensor, size: int) -> list[tuple[Tensor, ...]]:
    """Cut the last dimension into pieces of a size, each as a tuple over the first dimension."""
    return [piece.unbind(0) for piece in torch.split(x, size, -1)]


class _LSTMScan(torch.autograd.Function):
    """See :func:`lstm_scan`; the gradients are those of the equations in `seqlab.nn.cells`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        forget: Forget,
        noise: Noise,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        w, peephole, gate_gain, cell_gain, cell_shift, projection = tensors
        assert w is not None
        directions, time, batch, width = x.shape
        size = cell.shape[-1]
        gates = x.new_empty(time, directions, batch, width)
        cells = x.new_empty(time + 1, directions, batch, size)
        states = x.new_empty(time + 1, directions, batch, hidden.shape[-1])
        outs = x.new_empty(time, directions, batch, size)  # what the output gate lets through
        cells[0], states[0] = cell, hidden
        # Zoneout tells the cell that was computed from the one that was kept.
        keep_c, keep_h = held(noise.hold_cell, time), held(noise.hold_hidden, time)
        fresh = x.new_empty(time, directions, batch, size) if keep_c else cells[1:]
        masked = torch.empty_like(states[:-1]) if noise.mask is not None else states[:-1]
        gated = x.new_empty(time, directions, batch, size) if projection is not None else None
        raw = torch.empty_like(gates) if gate_gain is not None else None
        raw_norms: list[tuple[Tensor, Tensor]] = []
        cell_norms: list[tuple[Tensor, Tensor]] = []

        has_forget = forget == "gate"
        pieces = parts(gates, size)
        i_gate, candidate, o_gate = pieces[0], pieces[-2], pieces[-1]
        f_gate = pieces[1]  # with a forget gate only
        early = gates[..., : (2 if has_forget else 1) * size].unbind(0)  # gates before the cell
        looks = None if peephole is None else peephole.unsqueeze(2).unbind(1)  # (direction, 1, h)
        gains = None if gate_gain is None else gate_gain.unsqueeze(1)  # (direction, 1, gate)
        xs, gs, cs, hs = x.unbind(1), gates.unbind(0), cells.unbind(0), states.unbind(0)
        news, ms, qs = fresh.unbind(0), masked.unbind(0), outs.unbind(0)
        for t in range(time):
            g, before, new = gs[t], cs[t], news[t]
            if noise.mask is not None:
                torch.mul(hs[t], noise.mask, out=ms[t])
            if raw is None or gains is None:
                torch.baddbmm(xs[t], ms[t], w, out=g)
            else:
                torch.bmm(ms[t], w, out=raw[t])
                normal, *moments = torch.native_layer_norm(raw[t], (width,), None, None, EPSILON)
                raw_norms.append((moments[0], moments[1]))
                torch.addcmul(xs[t], normal, gains, out=g)
            if looks is not None:
                i_gate[t].addcmul_(before, looks[0])
                f_gate[t].addcmul_(before, looks[1])
            early[t].sigmoid_()
            candidate[t].tanh_()
            if has_forget:
                torch.mul(before, f_gate[t], out=new).addcmul_(i_gate[t], candidate[t])
            elif forget == "coupled":
                torch.lerp(before, candidate[t], i_gate[t], out=new)
            else:
                torch.addcmul(before, i_gate[t], candidate[t], out=new)
            if looks is not None:
                o_gate[t].addcmul_(new, looks[2])
            o_gate[t].sigmoid_()
            if cell_gain is None or cell_shift is None:
                torch.tanh(new, out=qs[t])
            else:
                normal, *moments = torch.native_layer_norm(new, (size,), None, None, EPSILON)
                cell_norms.append((moments[0], moments[1]))
                shifted = torch.addcmul(cell_shift.unsqueeze(1), normal, cell_gain.unsqueeze(1))
                torch.tanh(shifted, out=qs[t])
            if gated is None or projection is None:
                torch.mul(o_gate[t], qs[t], out=hs[t + 1])
            else:
                torch.mul(o_gate[t], qs[t], out=gated[t])
                torch.bmm(gated[t], projection, out=hs[t + 1])
            if keep_h is not None:
                hs[t + 1].lerp_(hs[t], keep_h[t])
            if keep_c is not None:
                torch.lerp(new, before, keep_c[t], out=cs[t + 1])
        ctx.save_for_backward(gates, cells, fresh, states, masked, outs, gated, raw, *tensors)
        ctx.forget, ctx.noise = forget, noise
        ctx.norms = raw_norms, cell_norms
        ctx.set_materialize_grads(False)
        return states[1:].transpose(0, 1), cells[1:].transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, d_states: Tensor | None, d_cells: Tensor | None) -> Any:
        gates, cells, fresh, states, masked, outs, gated, raw, *tensors = ctx.saved_tensors
        w, peephole, gate_gain, cell_gain, cell_shift, projection = tensors
        noise, (raw_norms, cell_norms) = ctx.noise, ctx.norms
        time, directions, batch, width = gates.shape
        size = cells.shape[-1]
        has_forget = ctx.forget == "gate"
        slopes, through = _slopes(gates, cells[:-1], outs, ctx.forget)
        d_gates = torch.empty_like(gates)
        d_raw = torch.empty_like(gates) if raw is not None else d_gates
        d_outs = torch.empty_like(outs) if cell_gain is not None else None
        d_gated = torch.empty_like(states[1:]) if gated is not None else None
        inner = width - size  # all gates but the output gate share a factor, the cell's gradient
        s_inner = torch.unflatten(slopes[..., :inner], -1, (-1, size)).unbind(0)
        d_inner = torch.unflatten(d_gates[..., :inner], -1, (-1, size)).unbind(0)
        s_out = slopes[..., inner:].unbind(0)
        pieces = parts(d_gates, size)
        d_i, d_f, d_o = pieces[0], pieces[1], pieces[-1]
        i_gate, f_gate, *_ = parts(gates, size)
        looks = None if peephole is None else peephole.unsqueeze(2).unbind(1)
        gains = None if gate_gain is None else gate_gain.unsqueeze(1)
        keep_c, keep_h = held(noise.hold_cell, time), held(noise.hold_hidden, time)
        w_back, p_back = w.transpose(1, 2), None
        if projection is not None:
            p_back = projection.transpose(1, 2)
        given = _given(d_states, states[1:])
        given_c = None if d_cells is None else _given(d_cells, cells[1:])
        dh: Tensor = torch.zeros_like(states[0])
        dc = torch.zeros_like(cells[0])
        for t in range(time - 1, -1, -1):
            dh = dh + given[t]
            if given_c is not None:
                dc = dc + given_c[t]
            from_h = from_c = None  # what zoneout passes on to the step before
            if keep_h is not None:
                from_h = dh * keep_h[t]
                dh = dh - from_h
            if keep_c is not None:
                from_c = dc * keep_c[t]
                dc = dc - from_c
            dm = dh
            if d_gated is not None and p_back is not None:
                d_gated[t] = dh
                dm = torch.bmm(dh, p_back)
            torch.mul(dm, s_out[t], out=d_o[t])
            if d_outs is None or cell_gain is None:
                dc = torch.addcmul(dc, dm, through[t])
            else:
                torch.mul(dm, through[t], out=d_outs[t])
                normed = d_outs[t] * cell_gain.unsqueeze(1)
                dc = dc + _norm_back(normed, fresh[t], size, cell_norms[t])
            if looks is not None:
                dc.addcmul_(d_o[t], looks[2])
            torch.mul(dc.unsqueeze(2), s_inner[t], out=d_inner[t])
            if has_forget:
                dc = dc * f_gate[t]
            elif ctx.forget == "coupled":
                dc = torch.addcmul(dc, dc, i_gate[t], value=-1)
            if looks is not None:
                dc.addcmul_(d_i[t], looks[0]).addcmul_(d_f[t], looks[1])
            if from_c is not None:
                dc = dc + from_c
            if gains is not None and raw is not None:
                d_raw[t] = _norm_back(d_gates[t] * gains, raw[t], width, raw_norms[t])
            dh = torch.bmm(d_raw[t], w_back)
            if noise.mask is not None:
                dh.mul_(noise.mask)
            if from_h is not None:
                dh = dh + from_h
        grads = _weight_grads(
            ctx, d_gates, d_raw, d_outs, d_gated, (cells, fresh, masked, gated, raw)
        )
        return d_gates.transpose(0, 1), dh, dc, None, None, *grads


def _given(grad: Tensor | None, like: Tensor) -> Sequence[Tensor]:
    """The gradient that comes from outside, step by step."""
    if grad is None:
        return torch.zeros_like(like[0]).expand_as(like).unbind(0)
    return grad.transpose(0, 1).contiguous().unbind(0)


def _slopes(
    gates: Tensor, before: Tensor, outs: Tensor, forget: Forget
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Derivatives of all steps at once.

    Args:
        gates: ``(time, direction, batch, gate)``, after their nonlinearities.
        before: ``(time, direction, batch, hidden)``, the cells that each step started from.
        outs: likewise, what the output gate lets through.
        forget: as in :class:`LSTMWeights`.

    Returns:
        ``(time, direction, batch, gate)``: of the cell by each gate's input, and of the hidden
        state by the output gate's; and of the hidden state by the squashed cell, step by step.
    """
    size = outs.shape[-1]
    slopes = torch.empty_like(gates)
    values, found = torch.split(gates, size, -1), torch.split(slopes, size, -1)
    i_gate, candidate, o_gate = values[0], values[-2], values[-1]
    torch.mul(i_gate, 1 - i_gate, out=found[0])
    found[0].mul_(candidate - before if forget == "coupled" else candidate)
    if forget == "gate":
        torch.mul(values[1], 1 - values[1], out=found[1])
        found[1].mul_(before)
    torch.mul(1 - candidate * candidate, i_gate, out=found[-2])
    torch.mul(o_gate, 1 - o_gate, out=found[-1])
    found[-1].mul_(outs)
    return slopes, (o_gate * (1 - outs * outs)).unbind(0)


def _norm_back(grad: Tensor, x: Tensor, size: int, moments: tuple[Tensor, Tensor]) -> Tensor:
    """Gradient of layer normalisation without gain and shift by its input."""
    found = torch.ops.aten.native_layer_norm_backward(
        grad, x, (size,), *moments, None, None, [True, False, False]
    )
    return found[0]  # type: ignore[no-any-return]


def _weight_grads(
    ctx: Any,
    d_gates: Tensor,
    d_raw: Tensor,
    d_outs: Tensor | None,
    d_gated: Tensor | None,
    saved: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None],
) -> list[Tensor | None]:
    """Gradients of the weights, from all steps at once, in the order of `LSTMWeights.tensors`."""
    cells, fresh, masked, gated, raw = saved
    raw_norms, cell_norms = ctx.norms
    size = cells.shape[-1]
    peephole = gate_gain = cell_gain = cell_shift = projection = None
    if ctx.needs_input_grad[6]:
        d_i, d_f, _, d_o = torch.split(d_gates, size, -1)
        seen = [d_i * cells[:-1], d_f * cells[:-1], d_o * fresh]
        peephole = torch.stack([x.sum((0, 2)) for x in seen], 1)
    if raw is not None:
        normal = _normalised(raw, raw_norms)
        gate_gain = (d_gates * normal).sum((0, 2))
    if d_outs is not None:
        cell_gain = (d_outs * _normalised(fresh, cell_norms)).sum((0, 2))
        cell_shift = d_outs.sum((0, 2))
    if gated is not None and d_gated is not None:
        projection = over_time(gated, d_gated)
    recurrent = over_time(masked, d_raw)
    return [recurrent, peephole, gate_gain, cell_gain, cell_shift, projection]


def _normalised(x: Tensor, norms: list[tuple[Tensor, Tensor]]) -> Tensor:
    means, scales = (torch.stack(values) for values in zip(*norms, strict=True))
    return (x - means) * scales


def over_time(left: Tensor, right: Tensor) -> Tensor:
    """Sum of outer products over time and batch, one matrix product a direction.

    Args:
        left: ``(time, direction, batch, a)``.
        right: ``(time, direction, batch, b)``.

    Returns:
        ``(direction, a, b)``.
    """
    rows, columns = (x.transpose(0, 1).flatten(1, 2) for x in (left, right))
    return torch.bmm(rows.transpose(1, 2), columns)

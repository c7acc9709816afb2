"""GRU and the plain recurrence over time with recurrent dropout and zoneout, gradients by hand.

Without either, torch's own kernels are used; these are for what those do not offer. Shapes and
words as in `seqlab.nn.lstm_scan`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from seqlab.nn.lstm_scan import Noise, held, over_time, parts

Nonlinearity = Literal["tanh", "relu"]


def gru_scan(
    gates: Tensor, hidden: Tensor, recurrent: Tensor, bias: Tensor, noise: Noise
) -> Tensor:
    """Run a GRU layer over whole sequences.

    Args:
        gates: ``(direction, time, batch, gate)``, the input's part of the reset, update and
            candidate gates, with the input's biases.
        hidden: ``(direction, batch, hidden)``, the state before the first step.
        recurrent: ``(direction, hidden, gate)``.
        bias: ``(direction, gate)``, the recurrent biases; that of the candidate is inside the reset
            gate, as in torch.
        noise: recurrent dropout and zoneout.

    Returns:
        ``(direction, time, batch, hidden)``.
    """
    like = gates.dtype
    result: Tensor = _GRUScan.apply(  # type: ignore[no-untyped-call]
        gates, hidden.to(like), recurrent.to(like), bias.to(like), noise.to(like)
    )
    return result


def rnn_scan(
    x: Tensor, hidden: Tensor, recurrent: Tensor, nonlinearity: Nonlinearity, noise: Noise
) -> Tensor:
    """Run a plain recurrent layer over whole sequences.

    Args:
        x: ``(direction, time, batch, hidden)``, the input's part, all biases included.
        hidden: ``(direction, batch, hidden)``, the state before the first step.
        recurrent: ``(direction, hidden, hidden)``.
        nonlinearity: ``tanh`` or ``relu``.
        noise: recurrent dropout and zoneout.

    Returns:
        ``(direction, time, batch, hidden)``.
    """
    like = x.dtype
    result: Tensor = _RNNScan.apply(  # type: ignore[no-untyped-call]
        x, hidden.to(like), recurrent.to(like), nonlinearity, noise.to(like)
    )
    return result


def _arriving(grad: Tensor, keep: Tensor | float | None) -> tuple[Tensor, Tensor | None]:
    """Part what arrives at a state into what goes into its step and what zoneout passes back."""
    if keep is None:
        return grad, None
    passed = grad * keep
    return grad - passed, passed


class _GRUScan(torch.autograd.Function):
    """r, z = sigmoid(x + Uh + b); n = tanh(x + r * (Uh + b)); h = (1 - z) * n + z * h."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, hidden: Tensor, w: Tensor, bias: Tensor, noise: Noise
    ) -> Tensor:
        directions, time, batch, width = x.shape
        size = hidden.shape[-1]
        gates = x.new_empty(time, directions, batch, width)
        inner = x.new_empty(time, directions, batch, width)  # the recurrent part
        states = x.new_empty(time + 1, directions, batch, size)
        masked = torch.empty_like(states[:-1]) if noise.mask is not None else states[:-1]
        states[0] = hidden
        keep = held(noise.hold_hidden, time)
        offset = bias.unsqueeze(1)  # (direction, 1, gate)
        xs, us, hs, ms = x.unbind(1), inner.unbind(0), states.unbind(0), masked.unbind(0)
        early = gates[..., : 2 * size].unbind(0)
        _, z_gate, candidate = parts(gates, size)
        r_gate = parts(gates, size)[0]
        for t in range(time):
            if noise.mask is not None:
                torch.mul(hs[t], noise.mask, out=ms[t])
            torch.baddbmm(offset, ms[t], w, out=us[t])
            torch.add(xs[t][..., : 2 * size], us[t][..., : 2 * size], out=early[t]).sigmoid_()
            torch.addcmul(
                xs[t][..., 2 * size :], r_gate[t], us[t][..., 2 * size :], out=candidate[t]
            )
            candidate[t].tanh_()
            torch.lerp(candidate[t], hs[t], z_gate[t], out=hs[t + 1])
            if keep is not None:
                hs[t + 1].lerp_(hs[t], keep[t])
        ctx.save_for_backward(gates, inner, states, masked, w)
        ctx.noise = noise
        return states[1:].transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        gates, inner, states, masked, w = ctx.saved_tensors
        noise: Noise = ctx.noise
        time, size = gates.shape[0], states.shape[-1]
        keep = held(noise.hold_hidden, time)
        d_inner, d_x = torch.empty_like(inner), torch.empty_like(gates)
        r_gate, z_gate, candidate = torch.split(gates, size, -1)
        # Factors of all steps at once.
        by_z = (states[:-1] - candidate) * z_gate * (1 - z_gate)
        by_n = (1 - z_gate) * (1 - candidate * candidate)
        by_r = inner[..., 2 * size :] * r_gate * (1 - r_gate)
        stays = z_gate.unbind(0)
        r_x, z_x, n_x = parts(d_x, size)
        w_back = w.transpose(1, 2)
        given = grad.transpose(0, 1).contiguous().unbind(0)
        dh = torch.zeros_like(states[0])
        for t in range(time - 1, -1, -1):
            dh, from_h = _arriving(dh + given[t], None if keep is None else keep[t])
            torch.mul(dh, by_z[t], out=z_x[t])
            torch.mul(dh, by_n[t], out=n_x[t])
            torch.mul(n_x[t], by_r[t], out=r_x[t])
            d_inner[t, ..., : 2 * size] = d_x[t, ..., : 2 * size]
            torch.mul(n_x[t], r_gate[t], out=d_inner[t, ..., 2 * size :])
            back = torch.bmm(d_inner[t], w_back)
            if noise.mask is not None:
                back.mul_(noise.mask)
            dh = back.addcmul_(dh, stays[t])
            if from_h is not None:
                dh = dh + from_h
        weights = over_time(masked, d_inner)
        return d_x.transpose(0, 1), dh, weights, d_inner.sum((0, 2)), None


class _RNNScan(torch.autograd.Function):
    """h = act(x + U h)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, hidden: Tensor, w: Tensor, nonlinearity: Nonlinearity, noise: Noise
    ) -> Tensor:
        directions, time, batch, size = x.shape
        states = x.new_empty(time + 1, directions, batch, size)
        states[0] = hidden
        keep = held(noise.hold_hidden, time)
        masked = torch.empty_like(states[:-1]) if noise.mask is not None else states[:-1]
        fresh = torch.empty_like(states[1:]) if keep is not None else states[1:]
        xs, hs, ms, news = x.unbind(1), states.unbind(0), masked.unbind(0), fresh.unbind(0)
        for t in range(time):
            if noise.mask is not None:
                torch.mul(hs[t], noise.mask, out=ms[t])
            torch.baddbmm(xs[t], ms[t], w, out=news[t])
            if nonlinearity == "tanh":
                news[t].tanh_()
            else:
                news[t].relu_()
            if keep is not None:
                torch.lerp(news[t], hs[t], keep[t], out=hs[t + 1])
        ctx.save_for_backward(fresh, masked, w)
        ctx.noise, ctx.nonlinearity = noise, nonlinearity
        return states[1:].transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        fresh, masked, w = ctx.saved_tensors
        noise: Noise = ctx.noise
        time = fresh.shape[0]
        keep = held(noise.hold_hidden, time)
        slopes = 1 - fresh * fresh if ctx.nonlinearity == "tanh" else (fresh > 0).to(fresh)
        d_x = torch.empty_like(fresh)
        w_back = w.transpose(1, 2)
        given = grad.transpose(0, 1).contiguous().unbind(0)
        dh = torch.zeros_like(fresh[0])
        for t in range(time - 1, -1, -1):
            dh, from_h = _arriving(dh + given[t], None if keep is None else keep[t])
            torch.mul(dh, slopes[t], out=d_x[t])
            dh = torch.bmm(d_x[t], w_back)
            if noise.mask is not None:
                dh.mul_(noise.mask)
            if from_h is not None:
                dh = dh + from_h
        return d_x.transpose(0, 1), dh, over_time(masked, d_x), None, None

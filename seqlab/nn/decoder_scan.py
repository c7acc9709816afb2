"""A decoder with input feeding through time, forwards and backwards by hand.

With input feeding (Luong et al., 2015) every step needs the one before: what the last step made of
the state and the context goes into the next. An autograd loop keeps dozens of small tensors a step
and multiplies for the gradient of every weight at every step. Here a step keeps what its gradient
needs in tensors that hold all steps, and the gradients of weights are one product each after the
loop. The scores of the attention are products of the state and the keys (`dot`, `general`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqlab.nn.products import factor, product, rounds

ORDER = (0, 1, 3, 2)  # torch keeps i, f, g, o; here the three sigmoid gates stand together


@dataclass
class ScanInputs:
    """What a decoder gives to :func:`feeding_scan`.

    Attributes:
        gates: ``(time, batch, 4 * hidden)``, what the embedded tokens add to the gates of the first
            layer, its biases included; torch's order of gates.
        keys: ``(batch, source, hidden)``.
        values: ``(batch, source, hidden)``, as the output adds them up.
        mask: ``(batch, source)`` bool, True = real token.
        weights: for each layer ``(4 * hidden, 2 * hidden)``: what its input (the fed-back feature,
            or the state of the layer below) and its own state are multiplied by.
        biases: for each layer but the first ``(4 * hidden,)``.
        output: ``(hidden, hidden)``, what the state is multiplied by in the output.
        hidden: ``(layer, batch, hidden)`` before the first step.
        cell: likewise.
        kept: ``(time, batch, hidden)``, the dropout of the features as factors; None without.
        between: for each layer but the last, the dropout of its states as factors; or empty.
    """

    gates: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    output: Tensor
    hidden: Tensor
    cell: Tensor
    kept: Tensor | None = None
    between: Sequence[Tensor] = ()


def feeding_scan(inputs: ScanInputs) -> Tensor:
    """Decode all steps, each of which sees the feature of the one before.

    Under autocast to bfloat16 the factors of products with weights are rounded to it; states,
    attention and all sums stay in float32.

    Args:
        inputs: see :class:`ScanInputs`.

    Returns:
        ``(time, batch, hidden)`` float32, the features after dropout: ``tanh(context + output @
        state)``. Differentiable once in all tensors but the dropouts.
    """
    return cast(
        Tensor,
        _Scan.apply(  # type: ignore[no-untyped-call]
            rounds(inputs.gates),
            inputs.mask,
            inputs.kept,
            tuple(inputs.between),
            len(inputs.weights),
            inputs.gates.float(),
            inputs.keys.float(),
            inputs.values.float(),
            inputs.output,
            inputs.hidden.float(),
            inputs.cell.float(),
            *inputs.weights,
            *inputs.biases,
        ),
    )


def ordered(weight: Tensor) -> Tensor:
    """Put the gates along the first dimension from torch's order into ours, or back."""
    blocks = weight.chunk(4)
    return torch.cat([blocks[i] for i in ORDER])


class _Layer:
    """What one layer keeps of all steps."""

    def __init__(self, like: Tensor, time: int, rounded: bool) -> None:
        batch, hidden = like.shape
        kind = torch.bfloat16 if rounded else torch.float32
        self.inputs = like.new_empty(time, batch, 2 * hidden, dtype=kind)
        self.gates = like.new_empty(time, batch, 4, hidden)
        self.cells = like.new_empty(time, batch, hidden)
        self.tanh = like.new_empty(time, batch, hidden)

    def step(self, at: int, sums: Tensor, before: Tensor) -> Tensor:
        """Turn the sums of the gates ``(batch, 4 * hidden)`` into the new state."""
        gates, cell, tanh = self.gates[at], self.cells[at], self.tanh[at]
        sums = sums.view(gates.shape)
        torch.sigmoid(sums[:, :3], out=gates[:, :3])
        torch.tanh(sums[:, 3], out=gates[:, 3])
        torch.mul(gates[:, 1], before, out=cell)
        cell.addcmul_(gates[:, 0], gates[:, 3])
        torch.tanh(cell, out=tanh)
        return gates[:, 2] * tanh


class _Scan(torch.autograd.Function):
    """See :func:`feeding_scan`."""

    @staticmethod
    def forward(
        ctx: Any,
        rounded: bool,
        mask: Tensor,
        kept: Tensor | None,
        between: tuple[Tensor, ...],
        depth: int,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        output: Tensor,
        hidden: Tensor,
        cell: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        time, batch, size = x.shape[0], x.shape[1], x.shape[2] // 4
        x = x.view(time, batch, 4, size)[:, :, list(ORDER)].view(time, batch, 4 * size)
        own, biases = weights[:depth], [ordered(b) for b in weights[depth:]]
        products = [factor(ordered(weight), batch, rounded) for weight in own]
        onto = factor(output, batch, rounded)
        layers = [_Layer(hidden[0], time, rounded) for _ in own]
        tops = x.new_empty(time, batch, size)  # states of the last layer
        probabilities = x.new_empty(time, batch, keys.shape[1])
        raw, features = x.new_empty(time, batch, size), x.new_empty(time, batch, size)
        states, cells = list(hidden.unbind(0)), list(cell.unbind(0))
        turned = keys.transpose(1, 2)
        hide = x.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf).unsqueeze(1)
        fed = x.new_zeros(batch, size)
        for at in range(time):
            below = fed
            for level, layer in enumerate(layers):
                read = layer.inputs[at]
                read[:, :size] = below
                read[:, size:] = states[level]
                sums = products[level](read).add_(biases[level - 1] if level else x[at])
                states[level] = layer.step(at, sums, cells[level])
                cells[level] = layer.cells[at]
                below = states[level]
                if level < len(between):
                    below = below * between[level][at]
            top = tops[at]
            top.copy_(states[-1])
            weight = torch.softmax(torch.baddbmm(hide, top.unsqueeze(1), turned), -1)
            probabilities[at] = weight[:, 0]
            torch.tanh(onto(top).add_(torch.bmm(weight, values)[:, 0]), out=raw[at])
            fed = features[at].copy_(raw[at])
            if kept is not None:
                fed.mul_(kept[at])
        ctx.rounded, ctx.layers, ctx.between, ctx.depth = rounded, layers, between, depth
        ctx.save_for_backward(
            keys, values, output, hidden, cell, *own, tops, probabilities, raw, kept
        )
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Backward(ctx, gradient.contiguous()).run()


class _Backward:
    """The way back: one step after the other, then the gradients of the weights."""

    def __init__(self, ctx: Any, gradient: Tensor) -> None:
        saved = ctx.saved_tensors
        depth = ctx.depth
        self.keys, self.values, self.output, self.hidden, self.cell = saved[:5]
        self.own = saved[5 : 5 + depth]
        self.tops, self.probabilities, raw, kept = saved[5 + depth :]
        self.layers: list[_Layer] = ctx.layers
        self.between, self.rounded = ctx.between, ctx.rounded
        self.gradient = gradient
        self.time, self.batch, self.size = gradient.shape
        slope = torch.addcmul(raw.new_ones(()), raw, raw, value=-1)  # of the tanh of the output
        self.slope = slope if kept is None else slope.mul_(kept)
        self.slopes = [self._slopes(level) for level in range(depth)]

    def _slopes(self, level: int) -> tuple[Tensor, Tensor]:
        """Derivatives of a layer that no later step decides about, for all steps at once.

        Returns:
            of the cell by the sums of the gates i, f and g, and of the state by that of o ``(time,
            batch, 4, hidden)``; and of the state by the cell ``(time, batch, hidden)``.
        """
        layer = self.layers[level]
        i, f, o, g = layer.gates.unbind(2)
        before = torch.cat([self.cell[level].unsqueeze(0), layer.cells[:-1]])
        of_gates = torch.empty_like(layer.gates)
        torch.mul(g * i, 1 - i, out=of_gates[:, :, 0])
        torch.mul(before * f, 1 - f, out=of_gates[:, :, 1])
        torch.mul(layer.tanh * o, 1 - o, out=of_gates[:, :, 2])
        torch.mul(i, torch.addcmul(i.new_ones(()), g, g, value=-1), out=of_gates[:, :, 3])
        return of_gates, o * torch.addcmul(o.new_ones(()), layer.tanh, layer.tanh, value=-1)

    def run(self) -> tuple[Any, ...]:
        size, rounded = self.size, self.rounded
        back = [factor(ordered(weight).t(), self.batch, rounded) for weight in self.own]
        onto = factor(self.output.t(), self.batch, rounded)
        kind = torch.bfloat16 if rounded else torch.float32
        sums = [torch.empty_like(layer.gates, dtype=kind) for layer in self.layers]
        outputs = torch.empty_like(self.gradient)
        scores = torch.empty_like(self.probabilities)
        turned = self.values.transpose(1, 2)
        zero = torch.zeros_like(self.tops[0])
        fed, d_hidden = zero, [zero] * len(back)
        d_cell = [zero] * len(back)
        for at in reversed(range(self.time)):
            d_out = torch.mul(self.gradient[at] + fed, self.slope[at], out=outputs[at])
            weight = self.probabilities[at]
            d_weight = torch.bmm(d_out.unsqueeze(1), turned)[:, 0]
            d_score = scores[at]
            mean = (weight * d_weight).sum(1, keepdim=True)
            torch.mul(weight, d_weight - mean, out=d_score)
            above = onto(d_out).add_(torch.bmm(d_score.unsqueeze(1), self.keys)[:, 0])
            for level in reversed(range(len(back))):
                above = above + d_hidden[level]
                of_gates, of_cell = (part[at] for part in self.slopes[level])
                change = torch.addcmul(d_cell[level], above, of_cell)
                d_sums = of_gates.clone()
                d_sums[:, :2].mul_(change.unsqueeze(1))
                d_sums[:, 2].mul_(above)
                d_sums[:, 3].mul_(change)
                sums[level][at] = d_sums
                d_cell[level] = change.mul_(self.layers[level].gates[at][:, 1])
                both = back[level](sums[level][at].view(self.batch, 4 * size))
                above, d_hidden[level] = both[:, :size], both[:, size:]
                if level and level - 1 < len(self.between):
                    above = above * self.between[level - 1][at]
            fed = above
        return self._results(sums, outputs, scores, d_hidden, d_cell)

    def _results(
        self,
        sums: list[Tensor],
        outputs: Tensor,
        scores: Tensor,
        d_hidden: list[Tensor],
        d_cell: list[Tensor],
    ) -> tuple[Any, ...]:
        rows, size = self.time * self.batch, self.size
        flat = [part.view(rows, 4 * size) for part in sums]
        d_own = [
            ordered(product(part.t(), layer.inputs.view(rows, 2 * size), self.rounded))
            for part, layer in zip(flat, self.layers, strict=True)
        ]
        d_output = product(outputs.view(rows, size).t(), self.tops.view(rows, size), self.rounded)
        d_keys = torch.bmm(scores.permute(1, 2, 0), self.tops.transpose(0, 1))
        d_values = torch.bmm(self.probabilities.permute(1, 2, 0), outputs.transpose(0, 1))
        d_x = sums[0].float()[:, :, list(ORDER)].view(self.time, self.batch, 4 * size)
        d_biases = [ordered(part.float().sum(0)) for part in flat[1:]]
        nothing = (None,) * 5
        states = (torch.stack(d_hidden), torch.stack(d_cell))
        return (*nothing, d_x, d_keys, d_values, d_output, *states, *d_own, *d_biases)

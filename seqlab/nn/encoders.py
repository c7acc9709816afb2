"""Encoders: ``(batch, time, input)`` -> ``(batch, time, output_size)``, padding without effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqlab.errors import RecipeError, check_range, nearest
from seqlab.nn.cells import cell_size_of, draw_noise, make_layer, read, state_sizes
from seqlab.nn.dropout import Dropout, LockedDropout
from seqlab.nn.gated import State
from seqlab.nn.initialisation import Initialisation, initialise
from seqlab.nn.kernels import chosen, lstm_native

MergeName = Literal["concat", "sum", "mean", "product"]
ConnectionName = Literal["none", "residual", "highway"]
_SUMS = 1 << 23  # numbers; more of them are not found in the caches when they are looked up


class Encoder(Protocol):
    """What a model asks of an encoder: to be called, and to know its output size."""

    output_size: int

    def __call__(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Map ``x (batch, time, input)`` with ``lengths`` to ``(batch, time, output_size)``."""


class NoEncoder(nn.Module):
    """Hands on what it gets: for embedders that know the context already.

    Args:
        input_size: of a token.
    """

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.output_size = input_size

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return ``x (batch, time, input)``."""
        return x


class Lookup(NamedTuple):
    """Sequences of vectors that stand in a table, as those of words do."""

    table: Tensor  # (row, dim)
    rows: Tensor  # (batch, time) int64: the row of every token
    sums: Tensor  # of the first rows: RecurrentEncoder.sums

    def cut(self, first: int, end: int) -> Lookup:
        """Keep the tokens from one place to another."""
        return self._replace(rows=self.rows[:, first:end])


# Reads with the directions of a layer, given its depth and (batch, time, input).
Reader = Callable[[int, "Tensor | Lookup"], list[Tensor]]


def reversal(lengths: Tensor, time: int) -> Tensor:
    """Index that turns every sequence round inside its own length and leaves the padding in place.

    Args:
        lengths: ``(batch,)`` int64.
        time: padded length.

    Returns:
        ``(batch, time)`` int64; it is its own inverse.

    Example:
        >>> reversal(torch.tensor([3, 1]), 3).tolist()
        [[2, 1, 0], [0, 1, 2]]
    """
    step = torch.arange(time, device=lengths.device)
    ends = lengths.unsqueeze(1)
    return torch.where(step < ends, ends - 1 - step, step)  # (batch, time)


def turn(x: Tensor, index: Tensor) -> Tensor:
    """Reorder ``x (batch, time, dim)`` along time by ``index (batch, time)``, its own inverse."""
    batch, time = index.shape
    sequence = torch.arange(batch, device=index.device).unsqueeze(1)
    rows = (index + time * sequence).flatten()  # (batch * time,)
    turned: Tensor = _Turn.apply(x, rows)  # type: ignore[no-untyped-call]
    return turned


class _Turn(torch.autograd.Function):
    """Reorders whole rows; what turns them round turns their gradient back, without adding up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return x.flatten(0, 1).index_select(0, rows).view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return _Turn.apply(gradient, rows), None  # type: ignore[no-untyped-call]


class RecurrentEncoder(nn.Module):
    """Layers of recurrent cells over right-padded sequences, in one or both directions.

    The backward direction (Schuster and Paliwal, 1997; Graves and Schmidhuber, 2005) reads every
    sequence turned round inside its own length. That gives the very results of packed sequences,
    but keeps the padded layout for which torch has its fast CPU kernel, and lets both directions of
    our own cells go through time together. Our own compiled kernel for the LSTM
    (`seqlab.nn.kernels.lstm_native`) turns nothing round.

    Args:
        input_size: size of the input.
        hidden_size: size of each direction.
        num_layers: number of layers.
        dropout: probability of dropping an element between layers.
        forget_bias: what is added at the start to the bias of the gate that keeps the state (forget
            gate; update gate of a GRU; taken from the input gate where that is coupled), so that
            the cell remembers before it has learnt what to forget (Jozefowicz et al., 2015).
        cell: one of `seqlab.nn.cells.CELLS`.
        nonlinearity: ``tanh`` or ``relu``; cell `rnn` only.
        proj_size: size that the hidden state is projected to; cell `lstm` only, 0 for none.
        bidirectional: read in both directions.
        merge: how the directions come together: ``concat``, ``sum``, ``mean`` or ``product``.
        connection: what goes past a layer, from the second on: ``none``; ``residual``, its input
            is added; ``highway``, a learned gate mixes its input and its output (Srivastava et
            al., 2015).
        locked_dropout: probability of dropping a dimension between layers, for all time steps.
        recurrent_dropout: share of the hidden state's units that the next step does not see, the
            same ones at all steps of a sequence (Gal and Ghahramani, 2016).
        zoneout: share of units of hidden state and cell that keep their value at a step (Krueger
            et al., 2017).
        learned_state: learn the state before the first step, which is zero otherwise.
        initialisation: ``orthogonal`` (recurrent blocks orthogonal, others Glorot, biases zero),
            ``glorot`` (whole matrices, biases zero) or ``uniform`` (as torch does it).

    Attributes:
        output_size: size of the output.
        forward_size: the first so many dimensions of the output were read from left to right, the
            rest from right to left; None where the directions are merged into one.

    Raises:
        RecipeError: a choice is unknown, or does nothing beside the others.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 200,
        num_layers: int = 1,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
        *,
        cell: str = "lstm",
        nonlinearity: str = "tanh",
        proj_size: int = 0,
        bidirectional: bool = True,
        merge: str = "concat",
        connection: str = "none",
        locked_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        learned_state: bool = False,
        initialisation: str = "orthogonal",
    ) -> None:
        super().__init__()
        _check_choices(merge, connection, initialisation, bidirectional, num_layers)
        shares = {"dropout": dropout, "locked_dropout": locked_dropout, "zoneout": zoneout}
        for key, share in {**shares, "recurrent_dropout": recurrent_dropout}.items():
            check_range(f"model.{key}", share, 0, 1)
        for key, size in {"hidden_size": hidden_size, "num_layers": num_layers}.items():
            check_range(f"model.{key}", size, 1)
        if recurrent_dropout and cell == "sru":
            raise RecipeError(
                "model.recurrent_dropout has nothing to drop in cell sru, whose steps have no "
                "recurrent weights: leave it out, or use model.zoneout."
            )
        self.merge, self.connection = merge, connection
        self.recurrent_dropout, self.zoneout = recurrent_dropout, zoneout
        one_way = proj_size or hidden_size
        both = bidirectional and merge == "concat"
        self.output_size = 2 * one_way if both else one_way
        self.forward_size = one_way if both or not bidirectional else None
        sizes = [input_size] + [self.output_size] * (num_layers - 1)

        def layers() -> nn.ModuleList:
            options = {"proj_size": proj_size, "nonlinearity": nonlinearity}
            return nn.ModuleList(make_layer(cell, size, hidden_size, **options) for size in sizes)  # type: ignore[arg-type]

        self.forward_layers = layers()
        self.backward_layers = layers() if bidirectional else nn.ModuleList()
        self.dropout = nn.Sequential(LockedDropout(locked_dropout), Dropout(dropout))
        for layer in [*self.forward_layers, *self.backward_layers]:
            initialise(layer, initialisation, forget_bias)
        self.starts = nn.ParameterList()
        if learned_state:
            widths = state_sizes(self.forward_layers[0])
            count = num_layers * (1 + bidirectional)
            self.starts.extend(torch.zeros(width) for _ in range(count) for width in widths)
        self.highways = nn.ModuleList()
        if connection == "highway":
            self.highways.extend(_highway(self.output_size) for _ in range(num_layers - 1))

    def forward(self, x: Tensor | Lookup, lengths: Tensor) -> Tensor:
        """Read sequences.

        Args:
            x: ``(batch, time, input_size)``, or a :class:`Lookup` with the sums that :meth:`sums`
                gave, which are used where no gradient is wanted.
            lengths: ``(batch,)`` int64 on the device of ``x``.

        Returns:
            ``(batch, time, output_size)``; what stands at padding has no meaning.
        """
        read = self._reader(x, lengths)
        for depth in range(len(self.forward_layers)):
            x = self.step(depth, x, read)
        assert isinstance(x, Tensor)
        return x

    def step(self, depth: int, x: Tensor | Lookup, read: Reader) -> Tensor:
        """Read with one layer.

        Args:
            depth: which, from 0.
            x: ``(batch, time, input)``; a :class:`Lookup` for the first layer alone.
            read: reads with the directions of a layer.

        Returns:
            ``(batch, time, output_size)``.
        """
        if isinstance(x, Lookup):
            return self.join(depth, x.table, read(depth, x))
        x = self.dropout(x) if depth else x
        return self.join(depth, x, read(depth, x))

    def sums(self, rows: Tensor) -> Tensor | None:
        """Multiply the first rows of a table by the weights of the first layer, once for all.

        Args:
            rows: ``(row, input_size)``, those of a :class:`Lookup` that come up again and again.

        Returns:
            ``(direction, some rows, 4 * hidden)``, of as many of the rows as take up 32 MB; None
            where no kernel reads the layers that can do with it.
        """
        layers = self.layers(0)
        numbers = len(layers) * 4 * cell_size_of(layers[0])
        some = rows[: max(1, _SUMS // numbers)]
        return lstm_native.sums(layers, some) if self._compiled(rows) else None

    def layers(self, depth: int) -> list[nn.Module]:
        """Return the one or two directions of a layer, forward first."""
        return [stack[depth] for stack in (self.forward_layers, self.backward_layers) if len(stack)]

    def states(self, depth: int, batch: int) -> list[State] | None:
        """Return the learned states before the first step of a layer, one for each direction.

        Args:
            depth: which layer, from 0.
            batch: how many sequences.

        Returns:
            each a tuple of ``(batch, size)``; None where they are zero.
        """
        if not len(self.starts):
            return None
        ways = len(self.layers(depth))
        each = len(self.starts) // (len(self.forward_layers) * ways)
        first = depth * ways * each
        return [
            tuple(
                part.expand(batch, -1)
                for part in list(self.starts)[first + way * each : first + (way + 1) * each]
            )
            for way in range(ways)
        ]

    def _compiled(self, x: Tensor) -> bool:
        """Whether our own compiled kernel reads: without noise, from a state of zeros."""
        noisy = self.zoneout or (self.training and self.recurrent_dropout)
        layers = [*self.forward_layers, *self.backward_layers]
        plain = not noisy and not len(self.starts)
        return plain and lstm_native.supports(layers, x) and chosen(x) == "native"

    def _reader(self, x: Tensor | Lookup, lengths: Tensor) -> Reader:
        """Choose the kernel that reads sequences."""
        if self._compiled(x.table if isinstance(x, Lookup) else x):
            return lambda depth, x: self._read_compiled(depth, x, lengths)
        time = (x.rows if isinstance(x, Lookup) else x).shape[1]
        index = reversal(lengths, time) if len(self.backward_layers) else None

        def read(depth: int, x: Tensor | Lookup) -> list[Tensor]:
            if isinstance(x, Lookup):
                x = functional.embedding(x.rows, x.table)
            if not depth and torch.is_grad_enabled():
                # Backwards, what is no number at padding would spread.
                step = torch.arange(time, device=x.device)
                x = x.masked_fill((step >= lengths.unsqueeze(1)).unsqueeze(-1), 0)
            return self._read(depth, x, index)

        return read

    def _read_compiled(self, depth: int, x: Tensor | Lookup, lengths: Tensor) -> list[Tensor]:
        """What the directions of a layer give, side by side in one tensor if that is wanted."""
        layers = self.layers(depth)
        if isinstance(x, Lookup) and torch.is_grad_enabled():  # which sums do not lead back
            x = functional.embedding(x.rows, x.table)
        if isinstance(x, Lookup):
            out = lstm_native.look_up(layers, x.table, x.rows, lengths, x.sums)
        else:
            out = lstm_native.read(layers, x, lengths)
        return [out] if self.merge == "concat" else list(out.chunk(2, -1))

    def _read(self, depth: int, x: Tensor, index: Tensor | None) -> list[Tensor]:
        """What the directions of a layer give, each ``(batch, time, size)``, as the text goes."""
        layers = self.layers(depth)
        noise = draw_noise(
            layers,
            (x.shape[0], x.shape[1]),
            x,
            recurrent_dropout=self.recurrent_dropout,
            zoneout=self.zoneout,
            training=self.training,
        )
        xs = [x] if index is None else [x, turn(x, index)]
        found = read(layers, xs, self.states(depth, x.shape[0]), noise)
        ways = [out for out, _ in found]
        return ways if index is None else [ways[0], turn(ways[1], index)]

    def join(self, depth: int, x: Tensor, ways: Sequence[Tensor]) -> Tensor:
        """Merge the directions of a layer and lead its input past it.

        Args:
            depth: which layer, from 0.
            x: ``(batch, time, input)``, the layer's input.
            ways: what its directions give, ``(batch, time, size)``, in the order of the text; a
                single tensor is taken to hold all directions side by side.

        Returns:
            ``(batch, time, output_size)``.
        """
        out = ways[0] if len(ways) == 1 else MERGES[self.merge](ways[0], ways[1])
        if depth and self.connection == "residual":
            return x + out
        if depth and self.connection == "highway":
            gate = torch.sigmoid(self.highways[depth - 1](x))
            return x + gate * (out - x)  # lerp does not take several precisions
        return out


BiLSTM = RecurrentEncoder  # by default that is what it is (Graves and Schmidhuber, 2005)


MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda left, right: torch.cat([left, right], -1),
    "sum": torch.add,
    "mean": lambda left, right: (left + right) / 2,
    "product": torch.mul,
}


def _check_choices(
    merge: str, connection: str, initialisation: str, bidirectional: bool, num_layers: int
) -> None:
    for key, value, known in (
        ("merge", merge, tuple(MERGES)),
        ("connection", connection, get_args(ConnectionName)),
        ("initialisation", initialisation, get_args(Initialisation)),
    ):
        if value not in known:
            raise RecipeError(
                f"model.{key} is {value!r}: choose one of {', '.join(known)}."
                f"{nearest(value, known)}"
            )
    if merge != "concat" and not bidirectional:
        raise RecipeError(
            f"model.merge is {merge}, but with model.bidirectional false there is nothing to "
            "merge: leave one of them out."
        )
    if connection != "none" and num_layers < 2:
        raise RecipeError(
            f"model.connection is {connection}, which goes past the second layer and those above: "
            "set model.num_layers to 2 or more, or leave it out."
        )


def _highway(size: int) -> nn.Linear:
    """The gate of a highway connection; at first it lets most of the input past."""
    gate = nn.Linear(size, size)
    nn.init.xavier_uniform_(gate.weight)
    nn.init.constant_(gate.bias, -1.0)
    return gate

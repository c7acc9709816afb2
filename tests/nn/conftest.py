"""Every recurrent cell once more: numpy, double precision, one token at a time.

Written from the papers and from the equations in the classes' docstrings, not from the code that is
tested against it. Tests get it as the fixture ``reference``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]
Weights = dict[str, Array]
EPSILON = 1e-5


class Reading(NamedTuple):
    """The states after every token, each ``(batch, time, size)``; None where the cell has none."""

    hidden: Array
    cell: Array | None


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def normalised(x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)


def lstm(w: Weights, x: Array, seen: Array, c: Array) -> tuple[Array, Array]:
    total = x @ w["weight_ih"].T + w["bias_ih"] + seen @ w["weight_hh"].T + w["bias_hh"]
    i, f, g, o = np.split(total, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h @ w["weight_hr"].T if "weight_hr" in w else h), c


def peephole(w: Weights, x: Array, seen: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(x @ w["weight_ih"].T + seen @ w["weight_hh"].T + w["bias"], 4, -1)
    to_input, to_forget, to_output = w["peephole"]
    new = sigmoid(f + to_forget * c) * c + sigmoid(i + to_input * c) * np.tanh(g)
    return sigmoid(o + to_output * new) * np.tanh(new), new


def coupled(w: Weights, x: Array, seen: Array, c: Array) -> tuple[Array, Array]:
    i, g, o = np.split(x @ w["weight_ih"].T + seen @ w["weight_hh"].T + w["bias"], 3, -1)
    c = (1 - sigmoid(i)) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def no_forget(w: Weights, x: Array, seen: Array, c: Array) -> tuple[Array, Array]:
    i, g, o = np.split(x @ w["weight_ih"].T + seen @ w["weight_hh"].T + w["bias"], 3, -1)
    c = c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def layernorm(w: Weights, x: Array, seen: Array, c: Array) -> tuple[Array, Array]:
    of_input = normalised(x @ w["weight_ih"].T) * w["input_gain"]
    of_hidden = normalised(seen @ w["weight_hh"].T) * w["hidden_gain"]
    i, f, g, o = np.split(of_input + of_hidden + w["bias"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(normalised(c) * w["cell_gain"] + w["cell_bias"]), c


def gru(w: Weights, x: Array, seen: Array, h: Array) -> Array:
    x_r, x_z, x_n = np.split(x @ w["weight_ih"].T + w["bias_ih"], 3, -1)
    h_r, h_z, h_n = np.split(seen @ w["weight_hh"].T + w["bias_hh"], 3, -1)
    z = sigmoid(x_z + h_z)
    return (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h


def plain(w: Weights, x: Array, seen: Array, nonlinearity: str) -> Array:
    total = x @ w["weight_ih"].T + w["bias_ih"] + seen @ w["weight_hh"].T + w["bias_hh"]
    return np.tanh(total) if nonlinearity == "tanh" else np.maximum(total, 0)


def sru(w: Weights, x: Array, c: Array, hold: Array | float) -> tuple[Array, Array]:
    blocks = np.split(w["weight_ih"], len(w["weight_ih"]) // c.shape[-1])
    b_f, b_r = np.split(w["bias"], 2)
    f, r = sigmoid(x @ blocks[1].T + b_f), sigmoid(x @ blocks[2].T + b_r)
    c = hold * c + (1 - hold) * (f * c + (1 - f) * (x @ blocks[0].T))
    way_round = x @ blocks[3].T if len(blocks) == 4 else x
    return r * np.tanh(c) + (1 - r) * way_round, c


GATED: dict[str, Callable[[Weights, Array, Array, Array], tuple[Array, Array]]] = {
    "lstm": lstm,
    "peephole": peephole,
    "coupled": coupled,
    "no-forget": no_forget,
    "layernorm": layernorm,
}


def read_plainly(
    cell: str,
    layer: nn.Module,
    x: Any,
    state: Any = None,
    *,
    mask: Any = 1.0,
    hold_hidden: Any = 0.0,
    hold_cell: Any = 0.0,
) -> Reading:
    """Let a cell read ``x (batch, time, input)`` from left to right.

    ``mask (batch, hidden)`` is what recurrent dropout leaves of the hidden state; of the hold,
    each a number or ``(time, batch, size)``, zoneout keeps its share of the value of before.
    """
    w = {name.removesuffix("_l0"): array_of(value) for name, value in layer.named_parameters()}
    x, mask = array_of(x), array_of(mask)
    size = int(layer.hidden_size)  # type: ignore[arg-type]
    batch, time, _ = x.shape
    out = w["weight_hr"].shape[0] if "weight_hr" in w else size
    before = [np.zeros((batch, out)), np.zeros((batch, size))]
    if state is not None:
        given = [array_of(part) for part in state]
        before = [before[0], *given] if cell == "sru" else [*given, *before[len(given) :]]
    h, c = before
    holds = [
        np.broadcast_to(array_of(hold), (time, batch, width))
        if np.ndim(hold) == 0
        else array_of(hold)
        for hold, width in ((hold_hidden, out), (hold_cell, size))
    ]
    hidden, cells = [], []
    for t in range(time):
        keep_h, keep_c = holds[0][t], holds[1][t]
        if cell == "sru":
            h, c = sru(w, x[:, t], c, keep_c)
        elif cell in GATED:
            new_h, new_c = GATED[cell](w, x[:, t], h * mask, c)
            h, c = keep_h * h + (1 - keep_h) * new_h, keep_c * c + (1 - keep_c) * new_c
        else:
            new_h = (
                gru(w, x[:, t], h * mask, h)
                if cell == "gru"
                else plain(w, x[:, t], h * mask, str(layer.nonlinearity))
            )
            h = keep_h * h + (1 - keep_h) * new_h
        hidden.append(h)
        cells.append(c)
    with_cell = cell == "sru" or cell in GATED
    return Reading(np.stack(hidden, 1), np.stack(cells, 1) if with_cell else None)


def array_of(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().double().numpy()
    return np.asarray(value, dtype=np.float64)


@pytest.fixture(scope="session")
def reference() -> Callable[..., Reading]:
    return read_plainly

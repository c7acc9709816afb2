"""What recurrent layers start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from seqlab.nn.gated import GatedLayer
from seqlab.nn.sru import SRU

Initialisation = Literal["orthogonal", "glorot", "uniform"]


def initialise(layer: nn.Module, how: str, forget_bias: float) -> None:
    """Set the weights of a recurrent layer.

    Args:
        layer: one of `seqlab.nn.cells`.
        how: ``orthogonal``: orthogonal recurrent blocks, one a gate (Saxe et al., 2014), Glorot
            blocks for the input and the projection, zero biases; ``glorot``: whole matrices as
            Glorot and Bengio (2010) draw them, all gates together, so that they are smaller; zero
            biases; ``uniform``: as the layer came.
        forget_bias: added to the bias of the gate that keeps the state.
    """
    with torch.no_grad():
        if how == "orthogonal":
            _orthogonal(layer)
        elif how == "glorot":
            _whole(layer)
        _keep_state(layer, forget_bias)


def _orthogonal(layer: nn.Module) -> None:
    weights = dict(layer.named_parameters())
    size = int(layer.hidden_size)  # type: ignore[arg-type]
    inputs = weights.pop("weight_ih_l0" if isinstance(layer, nn.RNNBase) else "weight_ih")
    for name in ("weight_hh_l0", "weight_hh"):
        for block in _blocks(weights.pop(name, None), size):
            nn.init.orthogonal_(block)
    for block in _blocks(inputs, size):
        nn.init.xavier_uniform_(block)
    for name, weight in weights.items():
        if name == "weight_hr_l0":
            nn.init.xavier_uniform_(weight)
        elif name.startswith("bias"):
            weight.zero_()


def _whole(layer: nn.Module) -> None:
    for name, weight in layer.named_parameters():
        if weight.ndim > 1:
            nn.init.xavier_uniform_(weight)
        elif name.startswith("bias"):
            weight.zero_()


def _blocks(weight: Tensor | None, size: int) -> Sequence[Tensor]:
    """The rows of each gate."""
    return () if weight is None else weight.split(size)  # type: ignore[no-untyped-call]


def _keep_state(layer: nn.Module, forget_bias: float) -> None:
    """Add to the bias of the gate that keeps the state, where there is one."""
    size = int(layer.hidden_size)  # type: ignore[arg-type]
    if isinstance(layer, nn.LSTM | nn.GRU):  # second are the forget and the update gate
        bias = layer.bias_ih_l0
        assert isinstance(bias, Tensor)
        bias[size : 2 * size] += forget_bias
    elif isinstance(layer, SRU):
        layer.bias[:size] += forget_bias
    elif isinstance(layer, GatedLayer) and layer.forget == "gate":
        layer.bias[size : 2 * size] += forget_bias
    elif isinstance(layer, GatedLayer) and layer.forget == "coupled":
        layer.bias[:size] -= forget_bias

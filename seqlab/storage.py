"""Weights in less space: half precision, or eight bits with a scale for every row.

Only files become smaller: a model that is loaded again holds and computes float32, as fast as ever,
with weights that were rounded once. What is small or no matrix keeps its precision. Rows of eight
bits are symmetric, ``weight = scale * integer``, the scale such that the largest weight of a row is
127 (Jacob et al., 2018, without zero points).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from seqlab.errors import BundleError, UsageError, nearest

Storage = Literal["float32", "float16", "int8"]
_SCALE = ":scale"  # behind the name of a tensor whose rows it belongs to
_SMALL = 1024  # numbers, from which on rounding saves anything worth having
_LARGEST = 65504.0  # of float16


def check_storage(name: str, option: str) -> None:
    """Refuse a way of storing weights that there is not.

    Args:
        name: as given.
        option: what it was given for, for the message.

    Raises:
        UsageError: it is unknown.
    """
    known = get_args(Storage)
    if name not in known:
        raise UsageError(
            f"{option} is {name!r}: choose one of {', '.join(known)}.{nearest(name, known)}"
        )


def packed(state: Mapping[str, Tensor], storage: Storage) -> dict[str, Tensor]:
    """Round weights for a file.

    Args:
        state: tensors by name, of a model.
        storage: ``float32`` changes nothing; ``float16`` halves what is a matrix of 1,024 numbers
            or more; ``int8`` makes a quarter of it, with a float32 scale a row.

    Returns:
        tensors by name, from which :func:`unpacked` makes the model's again.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        fits = tensor.dtype == torch.float32 and tensor.dim() > 1 and tensor.numel() >= _SMALL
        if not fits or storage == "float32" or not bool(tensor.isfinite().all()):
            found[name] = tensor
        elif storage == "float16":
            found[name] = tensor.half() if float(tensor.abs().max()) < _LARGEST else tensor
        else:
            rows = tensor.flatten(1)  # (row, the rest)
            scale = rows.abs().amax(1) / 127.0
            divisor = torch.where(scale > 0, scale, torch.ones_like(scale)).unsqueeze(1)
            found[name] = (rows / divisor).round().to(torch.int8).view(tensor.shape)
            found[name + _SCALE] = scale
    return found


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`packed`, but for what rounding has lost.

    Args:
        state: tensors by name, of a file.

    Returns:
        the model's tensors: float32 where they were rounded.

    Raises:
        BundleError: a scale and its rows do not fit together.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(_SCALE):
            continue
        scale = state.get(name + _SCALE)
        if scale is not None:
            if scale.shape != tensor.shape[:1]:
                raise BundleError(
                    f"the weights {name} are damaged: their scales do not fit; get the model again."
                )
            shape = (-1, *(1,) * (tensor.dim() - 1))
            found[name] = tensor.float() * scale.float().view(shape)
        else:
            found[name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return found

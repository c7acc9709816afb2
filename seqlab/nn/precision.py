"""How exactly a model computes: float32 throughout, or bfloat16 where that is faster.

``exact`` leaves every product in float32. ``fast`` rounds the factors of the matrix products that
torch's autocast covers to bfloat16, 8 bits of mantissa in place of 24, and adds up in float32. So
does the compiled LSTM on a CPU that multiplies bfloat16 itself (AVX512_BF16); on another, torch's
LSTM reads. Weights, gradients of weights, optimizers, the CRF and other compiled layers stay in
float32 in both.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch

from seqlab.errors import RecipeError, nearest

Precision = Literal["exact", "fast"]


def check_precision(name: str, key: str) -> None:
    """Refuse what is no precision.

    Args:
        name: what was given.
        key: what it was given as, for the message.

    Raises:
        RecipeError: it is neither ``exact`` nor ``fast``.
    """
    known = get_args(Precision)
    if name not in known:
        raise RecipeError(
            f"{key} is {name!r}: choose {' or '.join(known)}.{nearest(str(name), known)}"
        )


def using(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a model computes.

    The backward pass computes as the forward pass did, inside of this context or not. ``exact``
    changes nothing, so that an autocast round it, as of Lightning's ``trainer.precision``, holds.

    Args:
        precision: ``exact`` or ``fast``.
        device: where the model is.

    Example:
        >>> a = torch.tensor([[1.0 + 2**-10]])
        >>> for name in ("exact", "fast"):
        ...     with using(name, a.device):
        ...         print((a @ a.new_ones(1, 1)).item())
        1.0009765625
        1.0
    """
    if precision == "exact":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)

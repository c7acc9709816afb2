"""GPU kernels, and the one switch that says whether they are used: ``SEQLAB_KERNELS``.

==========  =====================================================================================
value       meaning
==========  =====================================================================================
``auto``    Triton kernels for tensors on an NVIDIA GPU that can run them, else plain PyTorch
``triton``  Triton kernels wherever there is one for the layer; an error where they cannot run
``plain``   plain PyTorch everywhere
==========  =====================================================================================

Unset means ``plain`` for as long as the Triton kernels have not run on a GPU: so far they were
checked in Triton's interpreter alone, and `benchmarks/gpu_cells.py` is what checks and times them.
With ``TRITON_INTERPRET=1`` (read by Triton when it is imported), ``triton`` also runs on a CPU,
slowly, in that interpreter: that is how the tests do without a GPU.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from seqlab.errors import UsageError, nearest

VARIABLE = "SEQLAB_KERNELS"
Choice = Literal["auto", "triton", "plain"]
Kernels = Literal["triton", "plain"]
OLDEST = (8, 0)  # compute capability of Ampere, the first GPUs that multiply TF32 and bfloat16


def chosen(x: Tensor) -> Kernels:
    """Say which kernels work on a tensor.

    Args:
        x: the tensor.

    Raises:
        UsageError: the switch has a wrong value, or asks for Triton where that cannot run.

    Example:
        >>> chosen(torch.zeros(1))
        'plain'
    """
    switch = wanted()
    if switch == "plain" or (switch == "auto" and x.device.type != "cuda"):
        return "plain"
    problem = obstacle(x.device)
    if problem and switch == "triton":
        raise UsageError(f"{VARIABLE} is triton, but {problem}: set it to auto or plain.")
    return "plain" if problem else "triton"


def wanted() -> Choice:
    """Read the switch.

    Raises:
        UsageError: it has a wrong value.
    """
    value = os.environ.get(VARIABLE) or "plain"
    if value not in get_args(Choice):
        raise UsageError(
            f"{VARIABLE} is {value!r}: set it to auto, triton or plain."
            f"{nearest(value, get_args(Choice))}"
        )
    return cast(Choice, value)


def obstacle(device: torch.device) -> str | None:
    """Say why Triton cannot run on a device, None where it can.

    Args:
        device: any.
    """
    if not installed():
        return "Triton is not installed, which comes with the CUDA build of torch"
    if device.type == "cuda":
        return _obstacle_of_gpu(device)
    if device.type == "cpu" and interpreted():
        return None
    return f"the tensors are on the device {device}, not on a CUDA GPU"


def interpreted() -> bool:
    """Whether Triton's interpreter is to run the kernels, in Triton's own spelling."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in {"1", "true", "on"}


@cache
def installed() -> bool:
    """Whether Triton can be imported."""
    return find_spec("triton") is not None


@cache
def _obstacle_of_gpu(device: torch.device) -> str | None:
    if torch.version.cuda is None:
        return f"{torch.cuda.get_device_name(device)} is no NVIDIA GPU"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        found, least = (".".join(map(str, pair)) for pair in (capability, OLDEST))
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {found}, and the kernels "
            f"need {least} or more"
        )
    return None

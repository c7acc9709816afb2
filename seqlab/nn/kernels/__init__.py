"""Kernels of our own, and the one switch that says which are used: ``SEQLAB_KERNELS``.

==========  =====================================================================================
value       meaning
==========  =====================================================================================
``auto``    the same as unset: compiled C++ for tensors on a CPU, where there is a compiler or a
            library that it has built, else plain PyTorch, with one line on stderr that says why
``native``  as ``auto``, but an error where the compiled kernels cannot be had
``triton``  Triton kernels wherever there is one for the layer; an error where they cannot run
``plain``   plain PyTorch everywhere
==========  =====================================================================================

On a GPU ``auto`` and ``native`` mean plain PyTorch for as long as the Triton kernels have not run
on one: so far they were checked in Triton's interpreter alone, and `benchmarks/gpu_cells.py` is
what checks and times them. With ``TRITON_INTERPRET=1`` (read by Triton when it is imported),
``triton`` also runs on a CPU, slowly, in that interpreter: that is how the tests do without a GPU.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from importlib.util import find_spec
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from seqlab.errors import UsageError, nearest
from seqlab.nn.kernels import library

VARIABLE = "SEQLAB_KERNELS"
Choice = Literal["auto", "native", "triton", "plain"]
_CHOICES = get_args(Choice)
Kernels = Literal["native", "triton", "plain"]
OLDEST = (8, 0)  # compute capability of Ampere, the first GPUs that multiply TF32 and bfloat16


def chosen(x: Tensor) -> Kernels:
    """Say which kernels work on a tensor.

    Args:
        x: the tensor.

    Raises:
        UsageError: the switch has a wrong value, or asks for kernels that cannot run here.

    Example:
        >>> chosen(torch.zeros(1, device="meta"))
        'plain'
    """
    switch = wanted()
    if switch == "triton":
        problem = obstacle(x.device)
        if problem:
            raise UsageError(f"{VARIABLE} is triton, but {problem}: set it to auto or plain.")
        return "triton"
    if switch == "plain" or not x.is_cpu:
        return "plain"
    problem = library.obstacle()
    if problem is None:
        return "native"
    if switch == "native":
        raise UsageError(
            f"{VARIABLE} is native, but {problem}: install g++, or set it to auto or plain."
        )
    library.say(
        f"{problem}, so plain PyTorch computes, which is slower: install g++, or set "
        f"{VARIABLE}=plain to hear no more of it."
    )
    return "plain"


def prepare() -> None:
    """Begin to build or load the compiled kernels, if they will be used, while other work goes on.

    An end of the process waits for the compiler: what it builds is kept for the next one.
    """
    if wanted() in ("auto", "native") and not torch.cuda.is_available():
        threading.Thread(target=library.obstacle, name="seqlab: building kernels").start()


def wanted() -> Choice:
    """Read the switch.

    Raises:
        UsageError: it has a wrong value.
    """
    value = os.environ.get(VARIABLE) or "auto"
    if value not in _CHOICES:
        raise UsageError(
            f"{VARIABLE} is {value!r}: set it to auto, native, triton or plain."
            f"{nearest(value, _CHOICES)}"
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

"""How much memory a process takes and how much is left to it: on a GPU, and under Linux."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from seqlab.errors import TrainingError

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_LIMITS = (  # of version 2 and of version 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def check_measurable(device: torch.device) -> None:
    """Refuse machines on which memory is not measured.

    Args:
        device: where a model is trained.

    Raises:
        TrainingError: it is neither a GPU of CUDA nor the CPU of a machine under Linux.
    """
    if device.type != "cuda" and not (device.type == "cpu" and (_PROC / "meminfo").is_file()):
        raise TrainingError(
            "data.tokens_per_batch is auto, and memory is measured on GPUs of CUDA and on CPUs "
            "under Linux only: give a number, such as 4096."
        )


def free_memory(device: torch.device) -> int:
    """Say how many bytes this process may still take.

    Args:
        device: such as :func:`check_measurable` accepts.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    free = _kilobytes(_PROC / "meminfo", "MemAvailable")
    for limit, used in _LIMITS:
        with suppress(OSError, ValueError):  # there is no such group, or its limit is "max"
            most = int((_GROUPS / limit).read_text(encoding="ascii"))
            free = min(free, most - int((_GROUPS / used).read_text(encoding="ascii")))
    return max(0, free)


def begin_peak(device: torch.device) -> int:
    """Forget the peak so far; returns how many bytes are taken now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):  # not allowed everywhere; the peak is then that of the whole process
        (_PROC / "self/clear_refs").write_text("5", encoding="ascii")
    return _kilobytes(_PROC / "self/status", "VmRSS")


def peak(device: torch.device) -> int:
    """Say how many bytes were taken at most since :func:`begin_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kilobytes(_PROC / "self/status", "VmHWM")


def _kilobytes(file: Path, name: str) -> int:
    """Read a line such as ``VmRSS:  1024 kB``, as bytes."""
    for line in file.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(0, f"there is no {name}", str(file))

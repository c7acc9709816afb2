"""Energy counters of the machine: RAPL for processors, NVML for NVIDIA GPUs.

Both count all that the processor or GPU uses, whoever it works for, so that a reading means
something only on a machine that does nothing else. Where there is no counter, or it may not be
read, a reason takes its place: a made-up number would be worse than none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
_MICRO, _MILLI = 1e-6, 1e-3


class Unreadable(Exception):
    """Why no energy can be told."""


class Meter(Protocol):
    """A counter of energy.

    Attributes:
        source: what is counted, in words.
    """

    source: str

    def joules(self) -> float:
        """Return the energy used since the counter was made; ask more often than it wraps round."""


class Rapl:
    """The counters that Linux keeps of a processor (Running Average Power Limit).

    Counted are the packages and, where it is apart, their memory; a package's cores and graphics
    are in it already, and the platform's own counter (``psys``) would count everything twice.

    Args:
        folder: where the kernel shows them.

    Raises:
        Unreadable: there are none, or they may not be read.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if _is_counted(zone)]
        if not self._zones:
            raise Unreadable(f"there is no counter {folder}/intel-rapl*")
        self._last = [_number(zone / "energy_uj") for zone in self._zones]
        self._wraps = [_number(zone / "max_energy_range_uj") for zone in self._zones]
        self._used = 0
        names = sorted({_text(zone / "name") for zone in self._zones})
        self.source = f"RAPL, {' and '.join(names)}"

    def joules(self) -> float:
        """Return the energy used since the counter was made; see :class:`Meter`."""
        for i, zone in enumerate(self._zones):
            now = _number(zone / "energy_uj")
            used = now - self._last[i]
            self._used += used if used >= 0 else used + self._wraps[i]  # it began anew
            self._last[i] = now
        return self._used * _MICRO


class Nvml:
    """The counter of an NVIDIA GPU (Volta and later).

    Args:
        index: which GPU.

    Raises:
        Unreadable: NVML is not installed, or the GPU has no counter.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError as error:
            raise Unreadable("pynvml, which reads the counter of the GPU, is missing") from error
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            self._read: Callable[[Any], int] = pynvml.nvmlDeviceGetTotalEnergyConsumption
            self._handle = handle
            self._start = self._read(handle)
        except pynvml.NVMLError as error:
            raise Unreadable(f"NVML says of the GPU: {error}") from error
        self.source = f"NVML, GPU {index} alone"

    def joules(self) -> float:
        """Return the energy used since the counter was made; see :class:`Meter`."""
        used: int = self._read(self._handle) - self._start
        return used * _MILLI


def meter_of(device: str, index: int = 0) -> Meter:
    """Find the counter of what a model runs on.

    Args:
        device: ``cpu`` or ``cuda``.
        index: which GPU.

    Raises:
        Unreadable: there is none, or it may not be read.
    """
    if device == "cuda":
        return Nvml(index)
    if device == "cpu":
        return Rapl()
    raise Unreadable(f"no counter is known for {device}")


def _is_counted(zone: Path) -> bool:
    name = _text(zone / "name")
    return name.startswith("package") or name == "dram"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except PermissionError as error:
        raise Unreadable(f"{file} may be read by the administrator only") from error
    except OSError as error:
        raise Unreadable(f"{file} cannot be read: {error.strerror}") from error


def _number(file: Path) -> int:
    text = _text(file)
    if not text.isdigit():
        raise Unreadable(f"{file} holds {text!r}, which is no number")
    return int(text)

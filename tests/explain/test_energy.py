from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seqlab.explain.energy import Nvml, Rapl, Unreadable, meter_of

RANGE = 1_000_000_000


def zone(folder: Path, place: str, name: str, energy: int) -> Path:
    made = folder / f"intel-rapl:{place}"
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "energy_uj").write_text(f"{energy}\n")
    (made / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return made


def add(made: Path, energy: int) -> None:
    (made / "energy_uj").write_text(f"{energy}\n")


def test_packages_and_memory_are_added_up_and_nothing_twice(tmp_path: Path) -> None:
    zones = [
        zone(tmp_path, place, name, 500)
        for place, name in [
            ("0", "package-0"),
            ("0:0", "core"),
            ("0:1", "uncore"),
            ("0:2", "dram"),
            ("1", "package-1"),
            ("2", "psys"),
        ]
    ]
    meter = Rapl(tmp_path)
    assert meter.joules() == 0
    for made in zones:
        add(made, 2_000_500)
    assert meter.joules() == pytest.approx(6.0)
    assert meter.joules() == pytest.approx(6.0)
    assert meter.source == "RAPL, dram and package-0 and package-1"


def test_a_counter_that_wraps_round_goes_on(tmp_path: Path) -> None:
    made = zone(tmp_path, "0", "package-0", RANGE - 1_000_000)
    meter = Rapl(tmp_path)
    add(made, 2_000_000)
    assert meter.joules() == pytest.approx(3.0)
    add(made, 1_000_000)  # once more
    assert meter.joules() == pytest.approx(3.0 + 999.0)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=f"there is no counter {tmp_path}/intel-rapl"):
        Rapl(tmp_path)
    zone(tmp_path, "0", "psys", 1)
    with pytest.raises(Unreadable, match="there is no counter"):
        Rapl(tmp_path)


def test_a_counter_that_may_not_be_read_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "0", "package-0", 1)
    whole = Path.read_text

    def refuse(self: Path, *args: Any, **options: Any) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return whole(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(Unreadable, match="energy_uj may be read by the administrator only"):
        Rapl(tmp_path)


def test_a_counter_that_is_broken_says_so(tmp_path: Path) -> None:
    made = zone(tmp_path, "0", "package-0", 1)
    (made / "energy_uj").write_text("much\n")
    with pytest.raises(Unreadable, match="energy_uj holds 'much', which is no number"):
        Rapl(tmp_path)
    (made / "energy_uj").unlink()
    with pytest.raises(Unreadable, match="energy_uj cannot be read: No such file"):
        Rapl(tmp_path)


class NVMLError(Exception):
    pass


def nvml(*energies: int | Exception) -> Any:
    """A stand-in for the package that reads the counters of GPUs, in thousandths of a joule."""
    left = list(energies)

    def total(handle: int) -> int:
        now = left.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=total,
    )


def test_a_gpu_is_counted_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(1000, 3500))
    meter = meter_of("cuda", 1)
    assert isinstance(meter, Nvml)
    assert meter.source == "NVML, GPU 1 alone"
    assert meter.joules() == pytest.approx(2.5)


def test_a_gpu_that_counts_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(NVMLError("Not Supported")))
    with pytest.raises(Unreadable, match="NVML says of the GPU: Not Supported"):
        meter_of("cuda")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(Unreadable, match="pynvml, .* is missing"):
        meter_of("cuda")


def test_other_devices_have_no_counter() -> None:
    with pytest.raises(Unreadable, match="no counter is known for mps"):
        meter_of("mps")

"""What is free and what is taken, by files as Linux has them and by this process itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from seqlab import memory
from seqlab.errors import TrainingError

CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured under Linux")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   50 kB\n", encoding="ascii")
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "wanted"), [(None, 50), ("max", 50), (str(40 << 10), 30), (str(5 << 10), 0)]
)
@pytest.mark.parametrize("version", [0, 1])
def test_what_is_free_is_within_the_limit_of_the_group(
    limit: str | None, wanted: int, version: int, files: Path
) -> None:
    names = [files / name for name in memory._LIMITS[version]]
    names[0].parent.mkdir(exist_ok=True)
    if limit is not None:
        names[0].write_text(f"{limit}\n", encoding="ascii")
        names[1].write_text(f"{10 << 10}\n", encoding="ascii")
    assert memory.free_memory(CPU) == wanted << 10


def test_where_memory_is_not_measured_a_number_is_asked_for(files: Path) -> None:
    memory.check_measurable(CPU)
    memory.check_measurable(torch.device("cuda"))
    (files / "meminfo").unlink()
    for device in (CPU, torch.device("mps")):
        with pytest.raises(TrainingError, match="under Linux only: give a number"):
            memory.check_measurable(device)


@linux
def test_the_peak_is_of_what_was_there_at_once() -> None:
    size = 1 << 28
    before = memory.begin_peak(CPU)
    held = torch.ones(size, dtype=torch.uint8)
    assert held[-1] == 1
    del held
    assert memory.peak(CPU) - before > 0.9 * size
    assert memory.free_memory(CPU) > 0

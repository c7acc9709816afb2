from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# How many pages a step faults that makes a large block and frees it.
PROGRAM = """
import resource, sys, torch
from seqlab.nn.kernels.allocator import keep_memory
print(keep_memory(), file=sys.stderr)
def step():
    blocks = [torch.ones(1 << 21) for _ in range(3)]  # of 8 MB
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
before = faults()
for _ in range(10):
    step()
print((faults() - before) / 10)
"""


def run() -> tuple[float, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    return float(done.stdout), done.stderr.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_blocks_are_used_again() -> None:
    kept, said = run()
    assert said.endswith("True")
    assert kept < 100  # three blocks are 6144 pages, and two or none are kept as it comes


def test_what_the_environment_says_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert run()[1].endswith("False")

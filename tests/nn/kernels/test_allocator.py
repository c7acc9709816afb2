from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from seqlab.nn import products
from seqlab.nn.kernels.allocator import _CAPACITIES

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


# How many MB a process grows by through products of many shapes.
SHAPES = """
import re, sys, torch
from seqlab.nn.kernels.allocator import keep_products
from seqlab.nn.products import product
if sys.argv[1] != "as it comes":
    keep_products(int(sys.argv[1]))
right = torch.randn(256, 2000)
product(torch.randn(1000, 256), right, False)
def held():  # now: the most that was held would be that of the parent
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = held()
for rows in range(400, 1000, 6):
    product(torch.randn(rows, 256), right, False)
print((held() - before) / 1024)
"""


def grown(shapes: str, *, environment: dict[str, str] | None = None) -> float:
    # Whoever has trained in this process has said it in its environment.
    own = {name: value for name, value in os.environ.items() if name not in _CAPACITIES}
    done = subprocess.run(
        [sys.executable, "-c", SHAPES, shapes],
        capture_output=True,
        text=True,
        check=True,
        env={**own, **(environment or {})},
    )
    return float(done.stdout)


@pytest.mark.skipif(
    not products._has_onednn() or sys.platform != "linux", reason="oneDNN or /proc is not there"
)
def test_shapes_that_do_not_come_again_are_forgotten() -> None:
    few, many = grown("16"), grown("as it comes")
    assert few < many / 2
    said = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}
    assert grown("16", environment=said) > 2 * few

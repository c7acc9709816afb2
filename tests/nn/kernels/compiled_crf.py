"""Compile the CRF's kernels for a GPU that need not be there, and say what they take.

Prints a line a kernel and number of tags: registers of a thread, bytes of them that are spilt to
memory, bytes of shared memory, and how often the code waits for all threads of the program.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

TAGS = (5, 17, 75, 512)
POINTERS = {
    "lengths": "*i64",
    "tags": "*i64",
    "doubtful": "*i32",
    "value": "*fp64",
    "forward": "*fp64",
    "wide": "*fp64",
}
COUNTS = ("batch", "time", "each")


def resources(cubin: bytes) -> str:
    """Registers and stack as the disassembler names them."""
    import triton

    nvidia = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(nvidia / "cuobjdump"), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK):(\d+)", text))
    return f"{found['REG']} registers, {found['STACK']} spilt"


def compile_kernel(kernel: Any, fixed: dict[str, Any], warps: int, architecture: int) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = {key: POINTERS.get(key, "*fp32") for key in kernel.arg_names}
    kinds |= {key: "i32" for key in COUNTS if key in kinds}
    if kernel.__name__ == "logs_kernel":
        kinds["right"] = "*fp64"
    kinds |= {key: "constexpr" for key in fixed}
    places = {key: (place,) for place, key in enumerate(kernel.arg_names)}
    aligned = {places[key]: [["tt.divisibility", 16]] for key in kinds if kinds[key][0] == "*"}
    source = ASTSource(kernel, kinds, {places[key]: fixed[key] for key in fixed}, aligned)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    waits = len(re.findall(r"bar(?:rier)?\.sync", str(compiled.asm["ptx"])))
    shared = compiled.metadata.shared
    return f"{resources(compiled.asm['cubin'])}, {shared} shared, {waits} barriers"


def kernels(size: int) -> Iterator[tuple[Any, dict[str, Any], int]]:
    from seqlab.nn.kernels import crf_triton
    from seqlab.nn.kernels.crf_triton_best import best_kernel
    from seqlab.nn.kernels.crf_triton_logs import logs_kernel
    from seqlab.nn.kernels.crf_triton_pairs import pairs_kernel
    from seqlab.nn.kernels.crf_triton_sums import sums_kernel

    how = crf_triton.layout(size)
    common = {"TAGS": size, "PADDED": how.padded, "SPAN": crf_triton.SPAN}
    for unlabelled in ({}, {"tags": None}):
        yield (
            sums_kernel,
            {**common, "BLOCK": how.block, "CHUNK": how.chunk, **unlabelled},
            how.warps,
        )
        yield logs_kernel, {**common, "BLOCK": how.chunk, **unlabelled}, how.warps
        tile = min(crf_triton.TILE, how.padded)
        yield pairs_kernel, {"TAGS": size, "TILE": tile, "SPAN": 32, "BLOCK": 16, **unlabelled}, 4
    yield best_kernel, {**common, "BLOCK": how.block, "SETTLE_EVERY": 16}, how.warps


def main() -> None:
    architecture = int(os.environ["ARCHITECTURE"])
    for size in TAGS:
        for kernel, fixed, warps in kernels(size):
            what = "unlabelled" if "tags" in fixed else "labelled"
            taken = compile_kernel(kernel, fixed, warps, architecture)
            print(f"{kernel.__name__} {size} {what}: {taken}", flush=True)


if __name__ == "__main__":
    main()

"""Compile the kernels for a GPU that need not be there, and say how their programs wait.

Prints a line a kernel: what it computes, and in which order the machine code of the GPU stores,
releases, acquires and loads what programs hand to one another.
"""

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import Any
from unittest import mock

SHARED_MEMORY = {80: 164 << 10, 90: 228 << 10}  # bytes of a multiprocessor
POINTS = {
    "store": r"st\.global",
    "barrier": r"bar(rier)?\.sync",
    "release": r"(red|atom)\.\S*release",
    "acquire": r"(atom|ld)\.\S*acquire",
    "load": r"(ld\.global\.\S*cg|cp\.async\.cg)",
}


def order(ptx: str) -> str:
    """Name what stands next to the release and to the acquire."""
    found = []
    for line in ptx.splitlines():
        for name, pattern in POINTS.items():
            if re.search(pattern, line) and found[-1:] != [name]:
                found.append(name)
    released, acquired = found.index("release"), found.index("acquire")
    after = found[acquired:]
    first = next(i for i, name in enumerate(after) if name == "load")
    # The scratch memory of a barrier's own answer is no store that others read.
    return " ".join([*found[released - 2 : released + 1], *after[:2], after[first]])


def compile_kernel(
    kernel: Any, forget: str, dtype: Any, options: dict[str, Any], architecture: int
) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    name = {"torch.float32": "*fp32", "torch.bfloat16": "*bf16"}[str(dtype)]
    kinds = dict.fromkeys(kernel.arg_names, name)
    kinds |= dict.fromkeys(("cells", "d_hidden", "d_cell", "d_peephole"), "*fp32")
    kinds |= {"counters": "*i32"}
    kinds |= dict.fromkeys(("first", "last", "time", "batch", "tile_from"), "i32")
    names = ("num_warps", "launch_cooperative_grid", "enable_fp_fusion")
    how = {key: options.pop(key) for key in names}
    fixed = {"HIDDEN": 200, "FORGET": forget, "ROWS": 16, "UNITS": 16, **options}
    missing = ["dropped", "hold_hidden", "hold_cell", "d_hidden", "d_cells"]
    missing += ["peephole", "d_peephole"] * (forget != "gate")
    fixed |= {key: None for key in missing if key in kernel.arg_names}
    kinds = {key: "constexpr" if key in fixed else kinds[key] for key in kernel.arg_names}
    places = {key: (place,) for place, key in enumerate(kernel.arg_names)}
    aligned = {places[key]: [["tt.divisibility", 16]] for key in kinds if kinds[key][0] == "*"}
    source = ASTSource(kernel, kinds, {places[key]: fixed[key] for key in fixed}, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=how)
    assert compiled.asm["cubin"]
    return str(compiled.asm["ptx"])


def main() -> None:
    import torch

    from seqlab.nn.kernels import lstm
    from seqlab.nn.kernels.lstm_backward import backward_kernel
    from seqlab.nn.kernels.lstm_forward import forward_kernel

    architecture = int(os.environ["ARCHITECTURE"])
    gpu = SimpleNamespace(shared_memory_per_multiprocessor=SHARED_MEMORY[architecture])
    shares = lstm.plan(64, 200, 2, processors=132)
    assert shares is not None
    for kernel, columns in ((forward_kernel, 4), (backward_kernel, 1)):
        for forget, gates in (("gate", 4), ("coupled", 3)):
            for dtype in (torch.float32, torch.bfloat16):
                length = 200 if columns == 4 else 200 * gates
                with mock.patch.object(torch.cuda, "get_device_properties", return_value=gpu):
                    like = torch.zeros(1, dtype=dtype)
                    options = lstm._options(like, shares, length, columns)
                ptx = compile_kernel(kernel, forget, dtype, options, architecture)
                print(f"{kernel.__name__} {forget} {dtype}: {order(ptx)}")


if __name__ == "__main__":
    main()

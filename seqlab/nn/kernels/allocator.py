"""How glibc's malloc deals with large tensors: whether it keeps their memory for the next one.

As it comes, it hands large blocks back to the system as soon as they are free, and each page of the
next one is a page fault and a page full of zeros. Gradients of embeddings and the states of layers
are such blocks, made anew at every step.

OneDNN, which multiplies matrices for torch, goes the other way: it keeps what it has worked out for
each shape that it meets, several hundred kilobytes each, for 1024 shapes in two places. Sentences
of a corpus come in more shapes than that.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
_KEPT = 256 << 20  # bytes that may lie free at the end of the heap
_LARGEST = 32 << 20  # bytes of a block that is taken from the heap, the most that glibc takes
_CAPACITIES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # oneDNN's, and torch's


@cache
def keep_memory() -> bool:
    """Let this process keep up to 256 MB of freed memory, for blocks of up to 32 MB.

    Returns:
        whether it does so now: not where the C library is another one, nor where the environment
        says what malloc is to do (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``,
        ``GLIBC_TUNABLES``).
    """
    said = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in said):
        return False
    adjust = ctypes.CDLL(None).mallopt
    return bool(adjust(_TRIM, _KEPT)) and bool(adjust(_MAP, _LARGEST))


def keep_products(shapes: int) -> None:
    """Have oneDNN keep what it knows of so many shapes of products, unless the environment says it.

    It is read at the first product of a process, and has no effect later.

    Args:
        shapes: how many.
    """
    for name in _CAPACITIES:
        os.environ.setdefault(name, str(shapes))

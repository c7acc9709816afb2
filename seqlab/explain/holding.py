"""How many bytes of tensors are alive while a model runs, and which part of it made them."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Holding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made inside it, from when they are made until they are gone.

    What a kernel needs for itself while it runs is not seen; what it hands on for the backward pass
    is. A view holds what it is a view of.

    Attributes:
        part: the name under which what is made now is counted.
        now: bytes alive, by part.
        peak: the most bytes that were alive at once, by part.
        total: the most bytes that were alive at once, of all parts.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = ""
        self.now: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.total = 0

    def enter(self, part: str) -> None:
        """Count what is made from now on for another part."""
        self.part = part

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation of torch and note what it made."""
        out = func(*args, **(kwargs or {}))
        known = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                known.add(storage._cdata)
                self._made(storage)
        return out

    def _made(self, storage: Any) -> None:
        part, size = self.part, storage.nbytes()
        self.now[part] += size
        self.peak[part] = max(self.peak[part], self.now[part])
        self.total = max(self.total, self.now.total())
        weakref.finalize(storage, self._gone, part, size).atexit = False

    def _gone(self, part: str, size: int) -> None:
        self.now[part] -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

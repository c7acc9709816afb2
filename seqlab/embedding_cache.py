"""What a frozen encoder makes of sentences, kept on disk: Arrow files of float16 in memory maps.

A sentence is known by its words, and the folder by all that decides about its states, so that
nothing that is found here was made by anything else. Files are written whole and renamed; several
processes may add to one folder, at worst the same sentences twice.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Halves = NDArray[np.float16]
_HELD = 64 << 20  # bytes that wait in memory before they are written


def key_of(words: Sequence[str]) -> bytes:
    """Make the key of a sentence from its words.

    Example:
        >>> key_of(["a", "b"]) == key_of(["a b"])
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for word in words:
        encoded = word.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


class EmbeddingCache:
    """States of sentences, each ``(token, size)``.

    Args:
        folder: of one encoder with its options; made when something is written.
        size: numbers of a token.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self._known: dict[bytes, Halves] = {}
        self._new: dict[bytes, Halves] = {}
        self._bytes = 0
        self._maps: list[Any] = []  # memory that arrays look into
        for file in sorted(folder.glob("*.arrow")):
            self._open(file)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: bytes) -> Halves | None:
        """Return the states of a sentence ``(token, size)``, or None."""
        return self._known.get(key)

    def add(self, key: bytes, states: Halves) -> None:
        """Keep the states of a sentence ``(token, size)``."""
        if key in self._known:
            return
        self._known[key] = self._new[key] = states
        self._bytes += states.nbytes
        if self._bytes >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Write what is new, and look into the file for it from now on.

        Raises:
            OSError: it cannot be written; what is new is still held in memory.
        """
        if not self._new:
            return
        import pyarrow as pa

        keys, states = list(self._new), list(self._new.values())
        ends = np.cumsum([0, *(x.size for x in states)], dtype=np.int64)
        values = pa.array(np.concatenate([x.reshape(-1) for x in states]), pa.float16())
        lists = pa.LargeListArray.from_arrays(pa.array(ends), values)
        table = pa.table({"key": pa.array(keys, pa.binary(16)), "states": lists})
        self.folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        fresh, file = self.folder / f".{name}.new", self.folder / f"{name}.arrow"
        try:
            with pa.OSFile(str(fresh), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            os.replace(fresh, file)
        finally:
            fresh.unlink(missing_ok=True)
        self._new, self._bytes = {}, 0
        self._open(file)

    def _open(self, file: Path) -> None:
        import pyarrow as pa

        memory = pa.memory_map(str(file))
        self._maps.append(memory)
        for batch in pa.ipc.open_file(memory).read_all().to_batches():
            column = batch.column("states")
            values = column.values.to_numpy(zero_copy_only=True)
            starts = column.offsets.to_numpy()
            for row, key in enumerate(batch.column("key").to_pylist()):
                self._known[key] = values[starts[row] : starts[row + 1]].reshape(-1, self.size)

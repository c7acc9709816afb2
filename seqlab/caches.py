"""Where seqlab keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Name a folder for things of one kind, which need not be there yet.

    Args:
        kind: ``datasets``, ``kernels`` or ``embeddings``.

    Returns:
        The folder of that name in ``$SEQLAB_CACHE``, else in ``seqlab`` under ``$XDG_CACHE_HOME``,
        else under ``~/.cache``.

    Raises:
        RuntimeError: no home folder is known.
    """
    own = os.environ.get("SEQLAB_CACHE")
    if own:
        return Path(own).expanduser() / kind
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "seqlab" / kind

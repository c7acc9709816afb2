"""Run folders: ``runs/<recipe>/<n>/``, with ``latest`` beside them. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

from seqlab.errors import SeqlabError, UsageError

_POINTER = "latest"


def new_run(name: str, root: Path | None = None) -> Path:
    """Create the folder of a new run.

    Args:
        name: of the recipe.
        root: the folder of all runs; ``runs`` here, or what ``SEQLAB_RUNS`` says.

    Returns:
        ``root/name/n`` with the next free number; ``root/name/latest`` points to it.

    Raises:
        SeqlabError: the folder cannot be made.
    """
    try:
        return _made(_root(root) / name)
    except OSError as error:
        raise SeqlabError(
            f"cannot keep a run in {_root(root)} ({error.strerror}): go to a folder that may be "
            "written, or name one in SEQLAB_RUNS."
        ) from error


def _made(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    number = max([int(p.name) for p in home.iterdir() if p.name.isdecimal()], default=0) + 1
    while True:
        folder = home / str(number)
        try:
            folder.mkdir()
            break
        except FileExistsError:  # another process was faster
            number += 1
    _point(home / _POINTER, folder.name)
    return folder


def latest_run(name: str, root: Path | None = None) -> Path:
    """Return the newest run of a recipe.

    Raises:
        UsageError: the recipe was never run here.
    """
    home = _root(root) / name
    pointer = home / _POINTER
    if pointer.is_file():  # where links cannot be made, a file holds the number
        return home / pointer.read_text(encoding="utf-8").strip()
    if pointer.is_dir():
        return home / os.readlink(pointer) if pointer.is_symlink() else pointer
    raise UsageError(
        f"no run of {name!r} in {_root(root)}: train it first with `seqlab fit {name}`, or "
        "give the folder of a model."
    )


def home(name: str, root: Path | None = None) -> Path:
    """Name the folder of all runs of a recipe, which need not be there.

    Args:
        name: of the recipe.
        root: see :func:`new_run`.
    """
    return _root(root) / name


def _root(root: Path | None) -> Path:
    return root if root is not None else Path(os.environ.get("SEQLAB_RUNS", "runs"))


def _point(pointer: Path, name: str) -> None:
    """Let ``latest`` mean a run, in one step."""
    partial = pointer.with_name(f".{_POINTER}.{name}")  # the number of a run is its maker's alone
    partial.unlink(missing_ok=True)
    try:
        partial.symlink_to(name, target_is_directory=True)
    except OSError:  # no right to make links, as on many Windows machines
        partial.write_text(name, encoding="utf-8")
    os.replace(partial, pointer)

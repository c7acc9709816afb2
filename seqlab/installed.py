"""The models that pip has installed, found by the metadata of their wheels.

Nothing of them is imported. An entry point of the group ``seqlab.models`` is a name and a place,
and is believed only where both are what :mod:`seqlab.wheels` would have written.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from seqlab.errors import BundleError

_NONE = (
    "no models are installed: install one with pip, as in "
    "`pip install en_pos-1.0.0-py3-none-any.whl`."
)


@dataclass(frozen=True)
class Installed:
    """A model that pip has installed, as its metadata describe it.

    Args:
        name: normalised; what it is loaded by.
        version: of the model.
        folder: that holds it, which need not be there if there is a problem.
        distribution: what ``pip uninstall`` knows it by.
        summary: one line.
        license: an SPDX expression, or an empty text.
        size_bytes: of all files in the folder.
        requires: what it asks for, such as ``("seqlab>=0.1,<0.2",)``.
        site: the folder that pip has installed it to.
        task: the class of the model in small letters, such as ``tagger``.
        misfit: if it was made for another seqlab, a sentence which says so; else empty.
        problem: if it cannot be used as it is, a sentence which says why; else empty.
    """

    name: str
    version: str
    folder: Path
    distribution: str
    summary: str
    license: str
    size_bytes: int
    requires: tuple[str, ...]
    site: Path
    task: str = ""
    misfit: str = ""
    problem: str = ""

    @property
    def fits(self) -> bool:
        """Whether this seqlab is one that the model was made for."""
        return not self.misfit


class _Wrong(Exception):
    """What is wrong with an installed model; its message becomes part of a sentence."""


def installed_models(path: list[str] | None = None) -> list[Installed]:
    """List the installed models, those that are broken as well.

    What pip calls invalid distributions, the remains (``~n_pos``) of an update that was stopped,
    is not installed for pip, nor here.

    Args:
        path: the folders to look in; those that Python imports from, if left out.

    Returns:
        the models by name.
    """
    folders = dict.fromkeys(os.path.realpath(folder) for folder in path or sys.path)
    found = [
        _installed(distribution, name, value)
        for distribution in distributions(path=list(folders))
        for name, value in _entry_points(distribution)
    ]
    times = Counter(model.name for model in found)
    unique = [model if times[model.name] == 1 else _rival(model, found) for model in found]
    return sorted(unique, key=lambda model: (model.name, str(model.site), model.version))


def find_installed(name: str, path: list[str] | None = None) -> Installed | None:
    """Find an installed model by its name.

    Args:
        name: in any spelling that pip takes for the same.
        path: as for :func:`installed_models`.

    Returns:
        the model, or None if there is none of that name. Whether it ``fits`` this seqlab is for the
        caller to judge, and whether its files are whole for
        :func:`seqlab.receipts.check_receipt`.

    Raises:
        BundleError: two distributions offer the name, or what is installed under it is broken.
    """
    for model in installed_models(path):
        if model.name == canonicalize_name(name):
            if model.problem:
                raise BundleError(model.problem)
            return model
    return None


def as_table(models: Sequence[Installed]) -> str:
    """Lay installed models out for a terminal.

    Args:
        models: as :func:`installed_models` returns them.

    Returns:
        a line a model, then a sentence for each that is broken or was made for another seqlab,
        without a trailing newline.
    """
    if not models:
        return _NONE
    models = sorted(models, key=lambda model: model.name)
    rows = [("name", "version", "size", "licence", "task", "summary")]
    for model in models:
        size = f"{model.size_bytes / 1e6:.1f} MB" if model.size_bytes else "-"
        task = "broken" if model.problem else model.task
        row = (model.name, model.version, size, model.license, task, model.summary)
        rows.append((*(cell or "-" for cell in row[:5]), row[5]))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        cells[2] = row[2].rjust(widths[2])
        lines.append("  ".join(cells).rstrip())
    said = [model.problem or model.misfit for model in models]
    notes = dict.fromkeys(sentence for sentence in said if sentence)
    return "\n".join([*lines, *([""] if notes else []), *notes])


def as_json(models: Sequence[Installed]) -> str:
    """Write installed models for programs.

    Args:
        models: as :func:`installed_models` returns them.

    Returns:
        a JSON list of objects with the fields of :class:`Installed` and ``fits``, by name.
    """
    rows = [
        {**asdict(model), "fits": model.fits, "folder": str(model.folder), "site": str(model.site)}
        for model in sorted(models, key=lambda model: model.name)
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)

"""The models that pip has installed, found by the metadata of their wheels.

Nothing of them is imported. An entry point of the group ``seqlab.models`` is a name and a place,
and is believed only where both are what :mod:`seqlab.wheels` would have written.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidName, canonicalize_name

import seqlab
from seqlab.errors import BundleError
from seqlab.receipts import RECEIPT

GROUP = "seqlab.models"  # of entry points
NAMESPACE = "seqlab_models"  # the folder that all installed models stand in
_CONFIG = "config.json"
_AGAIN = "install its wheel again (`pip install --force-reinstall WHEEL`)"
_EMBEDDED = Path(__file__).resolve().parent / "_models"
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


def installed_models(path: list[str] | None = None) -> list[Installed]:
    """List the installed models, those that are broken as well.

    What pip calls invalid distributions, the remains (``~n_pos``) of an update that was stopped,
    is not installed for pip, nor here.

    Args:
        path: the folders to look in; those that Python imports from, if left out, and then also
            what seqlab itself brings, unless pip has installed a model of that name.

    Returns:
        the models by name.
    """
    folders = [os.path.realpath(folder) for folder in (sys.path if path is None else path)]
    found = [
        model
        for distribution in distributions(path=list(dict.fromkeys(folders)))
        for model in _models_of(distribution)
    ]
    times = Counter(model.name for model in found)
    if path is None:
        found += [model for model in embedded_models() if model.name not in times]
        times.update(model.name for model in found if model.name not in times)
    unique = [model if times[model.name] == 1 else _rival(model, found) for model in found]
    return sorted(unique, key=lambda model: (model.name, str(model.site), model.version))


def embedded_models() -> list[Installed]:
    """List the models that are part of seqlab's own wheel."""
    found = []
    for folder in sorted(_EMBEDDED.glob("*")):
        if not (folder / RECEIPT).is_file():
            continue
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        found.append(
            Installed(
                name=receipt["name"],
                version=receipt["version"],
                folder=folder,
                distribution="seqlab",
                summary=receipt["made"]["summary"],
                license=receipt["made"]["license"] or "",
                size_bytes=_size(folder),
                requires=(),
                site=_EMBEDDED.parent.parent,
                task=_task(folder),
            )
        )
    return found


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
    rows = [["name", "version", "size", "licence", "task", "summary"]]
    for model in models:
        size = f"{model.size_bytes / 1e6:.1f} MB" if model.size_bytes else ""
        task = "broken" if model.problem else model.task
        cells = [model.name, model.version, size, model.license, task, model.summary]
        rows.append([cell or "-" for cell in cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
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


class _Wrong(Exception):
    """What is wrong with an installed model, and the remedy: the end of a sentence."""


def _models_of(distribution: Distribution) -> Iterator[Installed]:
    """Describe the models that a distribution offers: none, for most."""
    # There is no public way to the name of its folder; pip reads the same attribute.
    if Path(str(getattr(distribution, "_path", ""))).name.startswith("~"):
        return
    try:
        if GROUP not in (distribution.read_text("entry_points.txt") or ""):
            return
        points = [(p.name, p.value) for p in distribution.entry_points if p.group == GROUP]
    except (OSError, TypeError, ValueError):  # TypeError: a line without an equals sign
        points = [("", "")]
    for name, value in points:
        yield _described(distribution, name, value)


def _described(distribution: Distribution, name: str, value: str) -> Installed:
    """Describe one entry point, and say what is wrong with it."""
    fields = _metadata(distribution)
    own_name = _own_name(fields)
    normal = canonicalize_name(name or own_name)
    site = Path(str(distribution.locate_file("")))
    model = Installed(
        name=_plain(normal),
        version=_plain(fields.get("Version", "")),
        folder=site / NAMESPACE / normal.replace("-", "_"),
        distribution=own_name,
        summary=_plain(fields.get("Summary", "")),
        license=_plain(fields.get("License-Expression", fields.get("License", ""))),
        size_bytes=0,
        requires=tuple(_plain(text) for text in fields.get_all("Requires-Dist", [])),
        site=site,
    )
    try:
        _check_entry_point(model, name, value)
        _check_folder(model, distribution)
        size, task = _size(model.folder), _task(model.folder)
    except _Wrong as error:
        return replace(model, problem=f"{_place(model)} {error}.")
    except OSError as error:
        return replace(model, problem=f"{_place(model)} cannot be read ({error}); {_AGAIN}.")
    return replace(model, size_bytes=size, task=task, misfit=_misfit(model))


def _metadata(distribution: Distribution) -> Message:
    """Read the fields of METADATA; there are none where it is missing or no text."""
    try:
        text = distribution.read_text("METADATA") or ""
    except (OSError, ValueError):
        text = ""  # whoever needs a field says that it is missing
    return HeaderParser().parsestr(text)


def _own_name(fields: Message) -> str:
    """Return the name that pip knows a distribution by; empty if its METADATA gives none."""
    name = _plain(fields.get("Name", ""))
    try:
        canonicalize_name(name, validate=True)
    except InvalidName:
        return ""
    return name


def _check_entry_point(model: Installed, name: str, value: str) -> None:
    """Refuse an entry point that means anything but the folder of its own distribution.

    Raises:
        _Wrong: it does, or it cannot be told.
    """
    if not model.distribution:
        raise _Wrong(
            "is half removed: its METADATA is missing, or gives no name; remove by hand what is "
            "left of it"
        )
    if not value:
        raise _Wrong(f"is damaged: its entry_points.txt cannot be read; {_AGAIN}")
    place = f"{NAMESPACE}.{model.name.replace('-', '_')}"
    if value != place:
        lie = f"{name!r} is {value!r}, where a model names its folder in {NAMESPACE}"
    elif canonicalize_name(model.distribution) != model.name:  # nor then any name that pip refuses
        lie = f"it offers {model.name}, which only a distribution of that name may"
    else:
        return
    remedy = f"`pip uninstall {model.distribution}`"
    raise _Wrong(f"is refused, since its entry point lies: {lie}; {remedy}")


def _check_folder(model: Installed, distribution: Distribution) -> None:
    """Refuse a folder that is missing, incomplete, or elsewhere.

    Raises:
        _Wrong: it is.
    """
    inside = model.folder.relative_to(model.site).as_posix()
    if not os.path.lexists(model.folder):
        if _is_editable(distribution):
            raise _Wrong(
                "is installed in editable mode, in which no model can be read: "
                f"`pip uninstall {model.distribution}`, and install its wheel"
            )
        raise _Wrong(f"is half removed: its folder {inside} is missing; {_AGAIN}")
    own = os.path.join(os.path.realpath(model.site), NAMESPACE, model.folder.name)
    if model.folder.is_symlink() or os.path.realpath(model.folder) != own:
        raise _Wrong(f"is refused: its folder {inside} is a link; {_AGAIN}")
    for file in (_CONFIG, RECEIPT):
        path = model.folder / file
        if path.is_symlink() or not path.is_file():
            raise _Wrong(f"is damaged: {inside}/{file} is missing, or no plain file; {_AGAIN}")


def _is_editable(distribution: Distribution) -> bool:
    """Say whether pip has noted that a distribution stands elsewhere (PEP 610)."""
    try:
        noted = json.loads(distribution.read_text("direct_url.json") or "{}")
        return bool(noted["dir_info"]["editable"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError, IndexError):
        return False  # not noted


def _size(folder: Path) -> int:
    """Add up the sizes of all files, in bytes, without following links."""
    files = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(file).st_size for file in files)


def _task(folder: Path) -> str:
    """Read the class of a model, in small letters and without its module.

    Raises:
        _Wrong: the configuration does not say.
    """
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        name = config["class"].rpartition(".")[2]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise _Wrong(f"is damaged: its {_CONFIG} does not name its class; {_AGAIN}") from error
    return _plain(name.lower())


def _misfit(model: Installed) -> str:
    """Say that a model was made for another seqlab; nothing, if it was made for this one."""
    for text in model.requires:
        try:
            wanted = Requirement(text)
            if canonicalize_name(wanted.name) != "seqlab":
                continue
            if wanted.marker is not None and not wanted.marker.evaluate():
                continue
            fits = wanted.specifier.contains(seqlab.__version__, prereleases=True)
        except ValueError:  # what packaging raises for all that it cannot read
            fits = False
        if not fits:
            return (
                f"{model.name} {model.version} asks for {text}, and this is seqlab "
                f"{seqlab.__version__}: install the version of either that fits the other."
            )
    return ""


def _rival(model: Installed, found: Sequence[Installed]) -> Installed:
    """Describe a model whose name is offered more than once: nobody can tell which is meant."""
    rivals = [other for other in found if other.name == model.name]
    places = " and by ".join(sorted(map(_place, rivals)))
    names = sorted({rival.distribution for rival in rivals if rival.distribution})
    commands = " or ".join(f"`pip uninstall {name}`" for name in names)
    remedy = f"with {commands}" if commands else "by hand"
    times = len(rivals)
    return replace(
        model,
        problem=f"{model.name} is offered {times} times, by {places}: keep one, and remove the "
        f"rest {remedy}.",
    )


def _place(model: Installed) -> str:
    """Say which distribution offers a model, and where it stands."""
    name = model.distribution or "a distribution without a name"
    return f"{f'{name} {model.version}'.strip()} in {model.site}"


def _plain(text: str) -> str:
    """Bring foreign text into one line without anything that a terminal would obey."""
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())
    )

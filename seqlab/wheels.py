"""A model's folder as a wheel and as a source distribution: data only, the same bytes every time.

The wheel of ``en-pos`` holds ``seqlab_models/en_pos/`` (a namespace folder without any code), and
one entry point of the group ``seqlab.models``, which names that place. Building twice gives the
same bytes as long as zlib is the same, which compresses them. Formats: PEP 427, core metadata 2.4.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
import tarfile
import unicodedata
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.metadata import ExceptionGroup, Metadata
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

import seqlab
from seqlab.archives import add_to_tar, add_to_zip, replacing, source_date
from seqlab.errors import BundleError, UsageError
from seqlab.installed import GROUP, NAMESPACE
from seqlab.receipts import RECEIPT, check_receipt

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 100  # characters of a name; file systems allow 255 bytes, versions and endings included
_DATA = (".json", ".md", ".safetensors", ".txt", ".yaml")
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_DATA_FILE = re.compile(rf"(?:{_PART}/)*{_PART}(?:{'|'.join(map(re.escape, _DATA))})")
_WHEEL = f"""Wheel-Version: 1.0
Generator: seqlab ({seqlab.__version__})
Root-Is-Purelib: true
Tag: py3-none-any
"""


@dataclass(frozen=True)
class WheelMeta:
    """What a wheel says of itself.

    Args:
        name: normalised, as :func:`check_name` returns it; what ``pip install`` takes.
        version: PEP 440.
        summary: one line.
        license: an SPDX expression, or None where no licence is given.
        requires: what pip installs with it, such as ``("seqlab>=0.1,<0.2",)``.
        description: the model's card, in Markdown.
        keywords: words for those who search, without commas.
        requires_python: versions of Python.
    """

    name: str
    version: str
    summary: str
    license: str | None
    requires: tuple[str, ...]
    description: str
    keywords: tuple[str, ...] = ()
    requires_python: str = ">=3.10"

    @property
    def module(self) -> str:
        """The name as wheels write it in names of files: with underscores."""
        return self.name.replace("-", "_")

    @property
    def stem(self) -> str:
        """What the names of all files of this version begin with: ``en_pos-1.0.0``."""
        return f"{self.module}-{self.version}"


def check_name(name: str) -> str:
    """Check that a model can have a name, which is then its name for pip as well.

    Args:
        name: as somebody typed it.

    Returns:
        the name.

    Raises:
        UsageError: pip would refuse it or know it by another name; the message proposes that.

    Example:
        >>> check_name("en-pos")
        'en-pos'
        >>> check_name("En POS!")
        Traceback (most recent call last):
            ...
        seqlab.errors.UsageError: 'En POS!' cannot be the name of a model: try en-pos.
    """
    if canonicalize_name(name) == "seqlab":
        raise UsageError(
            f"{name!r} cannot be the name of a model, since pip knows seqlab itself by it: try "
            "one that says language and task, such as en-pos."
        )
    if len(name) > _LONGEST:
        raise UsageError(
            f"the name of the model has {len(name)} characters: it may have {_LONGEST}; try one "
            "that says language and task, such as en-pos."
        )
    if _NAME.fullmatch(name):
        return name
    letters = unicodedata.normalize("NFKD", name).casefold()
    unaccented = "".join(letter for letter in letters if not unicodedata.combining(letter))
    proposal = re.sub(r"[^a-z0-9]+", "-", unaccented).lstrip("-0123456789").rstrip("-")
    remedy = f"try {proposal}"
    if not proposal or proposal == "seqlab":
        remedy = "use letters, digits and hyphens, a letter first, as in en-pos"
    raise UsageError(f"{name!r} cannot be the name of a model: {remedy}.")


def check_version(version: str) -> str:
    """Check the version of a model.

    Args:
        version: as somebody typed it.

    Returns:
        the version in the normal form of PEP 440.

    Raises:
        UsageError: it is none, or a local one (``1.0+x``).

    Example:
        >>> check_version("1.0.0-RC1")
        '1.0.0rc1'
    """
    try:
        found = Version(version)
    except InvalidVersion as error:
        raise UsageError(
            f"{version!r} is no version: write numbers with dots (PEP 440), such as 1.0.0, or "
            "1.1.0rc1 for a trial."
        ) from error
    if found.local:
        raise UsageError(
            f"{version!r} is a local version, which package indexes refuse: leave out what follows "
            f"the plus, as in {found.public}."
        )
    return str(found)


def check_license(text: str) -> str:
    """Check a licence.

    Args:
        text: an SPDX expression, in any case.

    Returns:
        the expression in its normal form.

    Raises:
        UsageError: it is none.

    Example:
        >>> check_license("cc-by-sa-4.0 or mit")
        'CC-BY-SA-4.0 OR MIT'
    """
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression as error:
        raise UsageError(
            f"{text!r} is no licence that pip knows: write its SPDX name, such as CC-BY-SA-4.0 "
            "(https://spdx.org/licenses), or LicenseRef-NAME for one of your own."
        ) from error


def write_wheel(
    folder: str | Path, out: str | Path, meta: WheelMeta, *, overwrite: bool = False
) -> Path:
    """Write the wheel of a model.

    Args:
        folder: of the model, with the receipt of this name and version.
        out: the folder to write to, which is made where it is missing.
        meta: what the wheel says of itself.
        overwrite: replace a wheel of this version, whatever it holds.

    Returns:
        the wheel; it is whole, or not there.

    Raises:
        BundleError: the folder does not hold what its receipt says, or holds other files than data.
        UsageError: ``meta`` is wrong, or this version stands there with another content.
        SeqlabError: the wheel cannot be written.
    """
    meta, date = _checked(meta), source_date()
    files = _data_files(folder, meta)
    information = f"{meta.stem}.dist-info"
    contents: dict[str, bytes | Path] = {
        **files,
        f"{information}/METADATA": _metadata(meta).encode(),
        f"{information}/WHEEL": _WHEEL.encode(),
        f"{information}/entry_points.txt": _entry_points(meta).encode(),
    }
    target = Path(out) / f"{meta.stem}-py3-none-any.whl"
    with replacing(target, overwrite=overwrite) as file, zipfile.ZipFile(file, "w") as archive:
        rows: list[tuple[str, str, int | str]] = []
        for name, content in contents.items():
            written = add_to_zip(archive, name, content, date)
            digest = base64.urlsafe_b64encode(written.digest).rstrip(b"=").decode()
            rows.append((name, f"sha256={digest}", written.size))
        record = io.StringIO()
        rows.append((f"{information}/RECORD", "", ""))
        csv.writer(record, lineterminator="\n").writerows(rows)
        add_to_zip(archive, f"{information}/RECORD", record.getvalue().encode(), date)
    return target


def write_sdist(
    folder: str | Path, out: str | Path, meta: WheelMeta, *, overwrite: bool = False
) -> Path:
    """Write the source distribution of a model, of which pip builds a wheel with the same files.

    Args:
        folder: as for :func:`write_wheel`, and likewise the rest.
        out: the folder to write to, which is made where it is missing.
        meta: what the distribution says of itself.
        overwrite: replace one of this version, whatever it holds.

    Returns:
        the file, ``en_pos-1.0.0.tar.gz``.

    Raises:
        BundleError: the folder does not hold what its receipt says, or holds other files than data.
        UsageError: ``meta`` is wrong, or this version stands there with another content.
        SeqlabError: it cannot be written.
    """
    meta, date = _checked(meta), source_date()
    files = _data_files(folder, meta)
    contents: dict[str, bytes | Path] = {
        "PKG-INFO": _metadata(meta).encode(),
        "README.md": meta.description.encode(),
        "pyproject.toml": _pyproject(meta).encode(),
        **files,
    }
    target = Path(out) / f"{meta.stem}.tar.gz"
    with (
        replacing(target, overwrite=overwrite) as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in contents.items():
            add_to_tar(archive, f"{meta.stem}/{name}", content, date)
    return target


def _checked(meta: WheelMeta) -> WheelMeta:
    """Return what a wheel says of itself in its normal form.

    Raises:
        UsageError: something of it is wrong.
    """
    lines = {
        "summary": [meta.summary],
        "keywords": meta.keywords,
        "requires": meta.requires,
        "requires_python": [meta.requires_python],
    }
    for field, texts in lines.items():
        for text in texts:
            if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in text):
                raise UsageError(
                    f"the {field} of {meta.name} must be plain text in one line: {text!r} has "
                    "line breaks or control characters; take them out."
                )
            if field == "keywords" and "," in text:
                raise UsageError(f"the keyword {text!r} has a comma: give two keywords.")
    return replace(
        meta,
        name=check_name(meta.name),
        version=check_version(meta.version),
        license=None if meta.license is None else check_license(meta.license),
    )


def _data_files(folder: str | Path, meta: WheelMeta) -> dict[str, bytes | Path]:
    """Find the files of a model by their names in the archives, sorted.

    Raises:
        BundleError: they are not those of the receipt, or not data.
    """
    receipt = check_receipt(folder)
    of = (receipt["name"], receipt["version"])
    if of != (meta.name, meta.version):
        raise BundleError(
            f"{folder} has the receipt of {of[0]!r} {of[1]!r}, and {meta.name} {meta.version} is "
            "to be written: write the receipt again."
        )
    names = sorted([*receipt["files"], RECEIPT])
    for name in names:
        if not _DATA_FILE.fullmatch(name):
            raise BundleError(
                f"{folder} holds {name!r}, and a wheel takes data only ({', '.join(_DATA)}, named "
                "in plain letters): take the file out, and write the receipt again."
            )
    return {f"{NAMESPACE}/{meta.module}/{name}": Path(folder, name) for name in names}


def _entry_points(meta: WheelMeta) -> str:
    return f"[{GROUP}]\n{meta.name} = {NAMESPACE}.{meta.module}\n"


def _metadata(meta: WheelMeta) -> str:
    """Write core metadata (https://packaging.python.org/specifications/core-metadata).

    Raises:
        UsageError: ``packaging`` finds a field that is wrong.
    """
    fields = [
        ("Metadata-Version", "2.4"),
        ("Name", meta.name),
        ("Version", meta.version),
        ("Summary", meta.summary),
        *([("Keywords", ",".join(meta.keywords))] if meta.keywords else []),
        *([("License-Expression", meta.license)] if meta.license else []),
        ("Requires-Python", meta.requires_python),
        *(("Requires-Dist", requirement) for requirement in meta.requires),
        ("Description-Content-Type", "text/markdown"),
    ]
    text = "".join(f"{key}: {value}\n" for key, value in fields) + f"\n{meta.description}"
    try:
        Metadata.from_email(text.encode(), validate=True)
    except ExceptionGroup as error:
        raise UsageError(
            f"the wheel of {meta.name} would be refused: {'; '.join(map(str, error.exceptions))}; "
            "correct what was given for it."
        ) from error
    return text


def _pyproject(meta: WheelMeta) -> str:
    """Tell hatchling how to build the same wheel; JSON's texts and lists are TOML's as well."""

    def toml(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    fields = {
        "name": meta.name,
        "version": meta.version,
        "description": meta.summary,
        "readme": "README.md",
        **({"license": meta.license} if meta.license else {}),
        "requires-python": meta.requires_python,
        "keywords": meta.keywords,
        "dependencies": meta.requires,
    }
    project = "".join(f"{key} = {toml(value)}\n" for key, value in fields.items())
    return f"""[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
{project}
[project.entry-points."{GROUP}"]
{meta.name} = {toml(f"{NAMESPACE}.{meta.module}")}

[tool.hatch.build]
ignore-vcs = true

[tool.hatch.build.targets.wheel]
only-include = ["{NAMESPACE}"]
"""

"""The receipt of a model: the SHA-256 of every file beside it, and what the model was made from.

``receipt.json`` stands in the model's folder. To check it, files are hashed and nothing else is
done with them: no weights are parsed, nothing is imported, and links are not followed.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from seqlab.errors import BundleError

FORMAT = 1
RECEIPT = "receipt.json"
_PARTIAL = f".{RECEIPT}.part"
_PIECE = 1 << 20  # bytes
_KINDS = {"name": str, "version": str, "files": dict, "made": dict}


def write_receipt(folder: str | Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Hash every file of a model and write its ``receipt.json``, in place of an older one.

    Args:
        folder: of the model, complete but for the receipt.
        about: ``name`` and ``version``; ``made``, an object with whatever tells where the model
            comes from (hashes of data and recipe, seeds, versions, commit, metrics); and ``probe``,
            which may be left out. All of it plain JSON data.

    Returns:
        the receipt, as :func:`check_receipt` will return it.

    Raises:
        BundleError: the folder holds a link, a device or a file whose name is not the same on every
            system, cannot be read or written, or ``about`` cannot be kept as JSON.
    """
    folder = Path(folder)
    try:
        unknown = sorted(set(about) - {"name", "version", "made", "probe"})
        if unknown:
            raise _Wrong(f"a receipt has no key {unknown[0]!r}; what is free goes into 'made'")
        (folder / _PARTIAL).unlink(missing_ok=True)  # of a writer that was killed
        inside = list(_inside(folder))
        names = [name for name in inside if not name.endswith("/") and name != RECEIPT]
        _check_names(names)
        empty = sorted(set(inside) - {*names, *_folders(names), RECEIPT})
        if empty:
            raise _Wrong(f"{empty[0]!r} is an empty folder")
        digests = {name: _digest(folder / name) for name in names}
        receipt = {"probe": None, **about, "format": FORMAT, "files": digests}
        text = json.dumps(receipt, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        written: dict[str, Any] = json.loads(text)
        _check_types(written)
        _replace(folder, f"{text}\n".encode())
    except _Wrong as error:
        raise BundleError(
            f"no receipt can be written for {folder}: {error}; correct that and try again."
        ) from error
    except OSError as error:
        raise BundleError(
            f"no receipt can be written for {folder} ({error}): give the complete folder of a "
            "model, which may be read and written."
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(
            f"the receipt of {folder} cannot be kept as JSON ({error}): give plain objects, lists, "
            "texts and finite numbers."
        ) from error
    return written


def check_receipt(folder: str | Path) -> dict[str, Any]:
    """Check that a model's folder holds the files of its receipt, as they were, and no others.

    Args:
        folder: of the model.

    Returns:
        the receipt: ``format``, ``name``, ``version``, ``files`` (SHA-256 by relative name),
        ``made`` and ``probe``.

    Raises:
        BundleError: a file is missing, changed, additional or a link, or the receipt itself is
            missing, damaged or of a newer format. The message names the file.
    """
    folder = Path(folder)
    try:
        inside = list(_inside(folder))
        if RECEIPT not in inside:
            raise _Wrong(f"{RECEIPT} is missing")
        receipt = _read(folder)
        files: dict[str, str] = receipt["files"]
        missing = sorted(set(files) - set(inside))
        if missing:
            raise _Wrong(f"{missing[0]!r} is missing")
        extra = sorted(set(inside) - {*files, *_folders(files), RECEIPT})
        if extra:
            raise _Wrong(f"{extra[0]!r} is not in its receipt")
        for name in sorted(files):
            if _digest(folder / name) != files[name]:
                raise _Wrong(f"{name!r} does not have the SHA-256 of its receipt")
    except _Wrong as error:
        raise BundleError(
            f"{folder} is damaged or was changed: {error}; get the model again."
        ) from error
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be read ({error}): give the folder of a model, which may be read."
        ) from error
    return receipt


def _replace(folder: Path, content: bytes) -> None:
    """Put a receipt in the place of another, so that there is a whole one at any moment."""
    try:
        (folder / _PARTIAL).write_bytes(content)
        os.replace(folder / _PARTIAL, folder / RECEIPT)
    finally:
        (folder / _PARTIAL).unlink(missing_ok=True)


class _Wrong(Exception):
    """What is wrong with a folder or its receipt; whoever asked for it adds the remedy."""


def _inside(folder: Path) -> Iterator[str]:
    """Name all that a folder holds, at any depth, in POSIX form; folders end in a slash.

    Raises:
        _Wrong: something is neither a file nor a folder: a link, a pipe, a device.
    """
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(folder / above) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = above + entry.name
                # Windows has a second kind of link, which Python 3.12 and newer can tell.
                if entry.is_symlink() or getattr(entry, "is_junction", bool)():
                    raise _Wrong(f"{name!r} is a link, which no model may hold")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{name}/")
                    yield f"{name}/"
                elif entry.is_file(follow_symlinks=False):
                    yield name
                else:
                    raise _Wrong(f"{name!r} is no plain file")


def _folders(names: Iterable[str]) -> set[str]:
    """The folders that files stand in, each with a slash at its end."""
    parents = {parent for name in names for parent in PurePosixPath(name).parents}
    return {f"{parent}/" for parent in parents if parent.name}


def _digest(file: Path) -> str:
    total = hashlib.sha256()
    with open(file, "rb") as data:
        while piece := data.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    """Read a receipt and check everything of it that others rely on."""
    try:
        receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"{RECEIPT} cannot be read ({error})") from error
    if not isinstance(receipt, dict):
        raise _Wrong(f"{RECEIPT} holds no JSON object")
    number = receipt.get("format")
    if type(number) is not int or number < 1:
        raise _Wrong(f"the 'format' of {RECEIPT} is no positive number")
    if number > FORMAT:
        raise BundleError(
            f"{folder} has a receipt of format {number}, and this seqlab reads format {FORMAT}: "
            "upgrade with `pip install --upgrade seqlab`."
        )
    _check_types(receipt)
    _check_names(receipt["files"])
    return receipt


def _check_types(receipt: Mapping[str, Any]) -> None:
    for key, kind in _KINDS.items():
        if not isinstance(receipt.get(key), kind):
            raise _Wrong(f"{key!r} of {RECEIPT} is missing or no {kind.__name__}")
    for name, digest in receipt["files"].items():
        hexadecimal = isinstance(digest, str) and set(digest) <= set("0123456789abcdef")
        if not hexadecimal or len(digest) != 64:
            raise _Wrong(f"{RECEIPT} gives no SHA-256 for {name!r}")


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that lead out of the folder, or that two systems would read differently."""
    seen = {RECEIPT}
    for name in names:
        if not _is_plain(name):
            raise _Wrong(f"{name!r} is no plain relative name of a file")
        same = unicodedata.normalize("NFC", name).casefold()  # as disks of macOS and Windows see it
        if same in seen:
            raise _Wrong(f"{name!r} is, but for case, the name of another file")
        seen.add(same)


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        name.isprintable()  # no NUL, no line break, no half of a character
        and not set("\\:") & set(name)
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name != "."
    )

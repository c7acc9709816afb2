"""Zip and tar archives that come out the same every time, and are whole or not there.

Owners, modes and times are fixed, so that neither the machine nor the moment shows. Files are
copied in pieces, whatever their size.
"""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import io
import os
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from seqlab.errors import SeqlabError, UsageError

_EARLIEST, _LATEST = 315_532_800, 4_354_819_199  # what zip can date: 1980 to 2107
_MODE = 0o644
_PIECE = 1 << 20  # bytes


class Written(NamedTuple):
    """What was put into an archive: its SHA-256 and its size in bytes."""

    digest: bytes
    size: int


def source_date() -> int:
    """Return the time that archives give to their files, in seconds since 1970.

    Returns:
        what ``SOURCE_DATE_EPOCH`` says (https://reproducible-builds.org/specs/source-date-epoch),
        else the beginning of 1980, which is the earliest that zip can write.

    Raises:
        UsageError: ``SOURCE_DATE_EPOCH`` is no number of seconds, or after 2107.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", str(_EARLIEST))
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _LATEST):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text!r}: give whole seconds since 1970, up to the year 2107, "
            "or unset it."
        )
    return max(int(text), _EARLIEST)


@contextlib.contextmanager
def replacing(target: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """Write a file under another name, and give it its own once it is whole.

    Args:
        target: the file; its folder is made where it is missing.
        overwrite: replace a file of that name which holds something else.

    Yields:
        the file to write to.

    Raises:
        UsageError: a file of that name holds something else.
        SeqlabError: the disk is full, or the folder may not be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.*.part"):  # by a process that was killed
            left.unlink()
        try:
            with open(partial, "wb") as file:
                yield file
            if (
                not overwrite
                and target.exists()
                and not filecmp.cmp(partial, target, shallow=False)
            ):
                raise UsageError(
                    f"{target} is there already, with another content: raise the version, or "
                    "remove the file if nobody has installed it yet."
                )
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SeqlabError(
            f"cannot write {target} ({error}): free some space there, or choose another folder "
            "which may be written."
        ) from error


def add_to_zip(archive: zipfile.ZipFile, name: str, content: bytes | Path, date: int) -> Written:
    """Compress a file or some bytes into a zip archive.

    Args:
        archive: open for writing.
        name: inside the archive.
        content: the bytes, or the file that holds them.
        date: see :func:`source_date`.

    Returns:
        what was written.
    """
    entry = zipfile.ZipInfo(name, time.gmtime(date)[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, on Windows too
    entry.external_attr = (0o100000 | _MODE) << 16  # a plain file
    total, written = hashlib.sha256(), 0
    with _reading(content) as (data, size):
        entry.file_size = size  # tells zipfile whether it needs zip64
        with archive.open(entry, "w") as packed:
            while piece := data.read(_PIECE):
                total.update(piece)
                written += packed.write(piece)
    return Written(total.digest(), written)


def add_to_tar(archive: tarfile.TarFile, name: str, content: bytes | Path, date: int) -> None:
    """Put a file or some bytes into a tar archive.

    Args:
        archive: open for writing.
        name: inside the archive.
        content: the bytes, or the file that holds them.
        date: see :func:`source_date`.
    """
    entry = tarfile.TarInfo(name)  # of user and group 0, without names
    entry.mtime, entry.mode = date, _MODE
    with _reading(content) as (data, size):
        entry.size = size
        archive.addfile(entry, data)


@contextlib.contextmanager
def _reading(content: bytes | Path) -> Iterator[tuple[IO[bytes], int]]:
    """Open bytes or a file for reading, and tell the size in bytes."""
    if isinstance(content, bytes):
        yield io.BytesIO(content), len(content)
        return
    with open(content, "rb") as data:
        yield data, os.fstat(data.fileno()).st_size

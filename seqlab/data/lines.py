"""The bytes and lines of a file, gzipped or not."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from seqlab.errors import DataError

_GZIP = b"\x1f\x8b"


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file to read its bytes, unpacked where it is gzipped, whatever its name.

    Args:
        path: the file.

    Returns:
        The open file.

    Raises:
        DataError: it is missing, a folder, or may not be read.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
        return gzip.open(path, "rb") if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error


def head_of(path: Path, size: int) -> bytes:
    """Read the first bytes of a file, unpacked.

    Args:
        path: the file.
        size: how many bytes at most.

    Returns:
        The bytes.

    Raises:
        DataError: the file cannot be read or is damaged gzip.
    """
    with open_bytes(path) as file:
        try:
            return file.read(size)
        except (EOFError, zlib.error, OSError) as error:
            raise _broken(path, 0, error) from error


def _broken(path: Path, line: int, error: Exception) -> DataError:
    return DataError(
        f"{path}: the file ends or breaks after line {line} ({error}); "
        "get it anew from where it came."
    )


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    r"""Read a text file line by line.

    Only ``\n`` and ``\r\n`` end a line: other separators of Unicode occur inside tokens.

    Args:
        path: the file; UTF-8, with or without a byte order mark, gzipped or not.

    Yields:
        The 1-based number of a line and the line without its end.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or is damaged gzip; with the line.
    """
    number = 0
    with open_bytes(path) as file:
        try:
            for number, raw in enumerate(file, 1):
                if number == 1:
                    raw = raw.removeprefix(codecs.BOM_UTF8)
                yield number, raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start + 1} of the "
                "line); convert the file, for example with `iconv -f LATIN1 -t UTF-8`."
            ) from error
        except (EOFError, zlib.error, OSError) as error:
            raise _broken(path, number, error) from error

"""Where the results of a command go: standard output, or a file that is there once it is whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

from seqlab.errors import SeqlabError, UsageError


def partial_of(path: Path) -> Path:
    """Return the name that a file has while it is being written."""
    return path.with_name(path.name + ".partial")


@contextmanager
def destination(output: str | None) -> Iterator[Callable[[bytes], None]]:
    """Open where the results go to.

    A file is written under its partial name (:func:`partial_of`) and gets its own when all is done;
    where the work is broken off, by an error, Ctrl-C or a kill, the partial file stays and a
    sentence on standard error says so. Where the reader of standard output stops reading, as
    ``head`` does, the ``with`` block ends early and quietly.

    Args:
        output: the path of a file, or None for standard output.

    Yields:
        The function that writes bytes there.

    Raises:
        UsageError: the file cannot be opened for writing.
        SeqlabError: it cannot be written to the end, as when the disk is full.
    """
    if output is None:
        with suppress(BrokenPipeError):
            yield _to_stdout
        return
    path = Path(os.path.realpath(output))  # a link is written through
    special = path.exists() and not path.is_file() and not path.is_dir()  # such as /dev/null
    with _direct(path, output) if special else _finished(path, output) as file:

        def write(data: bytes) -> None:
            with _explained(output):
                file.write(data)

        yield write


def _to_stdout(data: bytes) -> None:
    binary = getattr(sys.stdout, "buffer", None)
    try:
        if binary is None:  # replaced by an object that takes text only
            sys.stdout.write(data.decode())
        else:
            binary.write(data)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        raise
    except OSError as error:
        _silence_stdout()
        raise SeqlabError(f"cannot write to standard output: {error.strerror}.") from error


def _silence_stdout() -> None:
    """Send what is left in memory nowhere: else Python complains when it ends."""
    with suppress(OSError):  # not a real file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _opened(path: Path, output: str) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise UsageError(
            f"cannot write {output}: {error.strerror}; name a file in a folder that exists and may "
            "be written."
        ) from error


@contextmanager
def _explained(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SeqlabError(
            f"cannot write {output}: {error.strerror}; make room, or name a file elsewhere."
        ) from error


@contextmanager
def _direct(path: Path, output: str) -> Iterator[BinaryIO]:
    """A device or pipe, which cannot be replaced by a finished file."""
    file = _opened(path, output)
    try:
        yield file
        with _explained(output):
            file.flush()
    finally:
        with suppress(OSError):  # what goes wrong was said before
            file.close()


@contextmanager
def _finished(path: Path, output: str) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends well."""
    if path.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder; give a file.")
    partial = partial_of(path)
    file = _opened(partial, output)
    try:
        with _ended_by_kill():
            yield file
            with _explained(output):
                file.close()
                os.replace(partial, path)
    except BaseException:
        with suppress(OSError):  # the disk is full: what does not fit is lost
            file.close()
        if partial.stat().st_size:
            print(f"not finished: what was written so far is in {partial}.", file=sys.stderr)
        else:
            partial.unlink()
        raise


@contextmanager
def _ended_by_kill() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, so that what is in memory is written to the file."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

"""A job: which files it is of, what is done of it, and what is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import seqlab
from seqlab.bulk.inputs import InputFile, Shard, cut_file, digest_of, plain_name
from seqlab.bulk.rows import Reading
from seqlab.bulk.writing import partials
from seqlab.bundle import write_json
from seqlab.errors import DataError, UsageError

FILE = "job.json"
_LOCK = ".lock"
_FORMAT = 1
_OTHER = "name another output folder, or give the first command again"


@dataclass
class Job:
    """The output folder, and what it is of.

    Args:
        folder: of the answers.
        identity: of model and options: what all answers in the folder have in common.
        files: that were cut, by path.
    """

    folder: Path
    identity: Mapping[str, Any]
    files: dict[str, InputFile] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, identity: Mapping[str, Any]) -> Job:
        """Go on with the job of a folder, or begin one in an empty folder.

        Args:
            folder: of the answers; it is made where there is none.
            identity: ``model`` and ``options``, as plain JSON data.

        Raises:
            UsageError: the folder is of another model or other options, or holds something else.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot write to {folder}: {error.strerror}; give --output a folder."
            ) from error
        file = folder / FILE
        if not file.exists():
            if any(not path.name.startswith(".") for path in folder.iterdir()):
                raise UsageError(
                    f"{folder} holds files that are of no job: give --output a new folder or an "
                    "empty one."
                )
            return cls(folder, identity)
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            files = [InputFile.from_dict(one) for one in data["files"]]
            before = {"model": data["model"], "options": data["options"]}
            known = data["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is damaged: name another output folder.") from error
        if not known:
            raise UsageError(f"{file} was written by another seqlab: {_OTHER}.")
        _check_same(folder, before, json.loads(json.dumps(identity)))
        return cls(folder, identity, {one.path: one for one in files})

    def take_in(
        self, paths: Iterable[str], reading: Reading, ending: str, say: Callable[[str], None]
    ) -> tuple[list[Shard], list[str]]:
        """Cut files that are new or have changed, and forget the answers to the latter.

        Args:
            paths: absolute.
            reading: how rows are read.
            ending: of the output files.
            say: is told of files that have changed.

        Returns:
            all shards of these files, and what is wrong with files that cannot be read.
        """
        shards: list[Shard] = []
        wrong: list[str] = []
        for path in paths:
            known = self.files.get(path)
            try:
                same = known and _as_it_is(known)
                if same is None:
                    name = known.name if known else self._free_name(path)
                    same = cut_file(path, name, reading)
                    if known is not None:
                        say(f"{path} has changed: its rows are answered again.")
                        self._forget(known, ending)
                self.files[path] = same
            except DataError as error:
                wrong.append(str(error))
                continue
            shards += self.files[path].shards(ending)
        self.save()
        return shards, wrong

    def _free_name(self, path: str) -> str:
        taken = {file.name.casefold() for file in self.files.values()}
        whole = os.path.basename(path)
        names = [plain_name(path), whole]
        names += [f"{whole}-{number}" for number in range(2, len(taken) + 3)]
        return next(name for name in names if name.casefold() not in taken)

    def _forget(self, file: InputFile, ending: str) -> None:
        """Remove the answers to what a file was, before the job says that it is another."""
        for shard in file.shards(ending):
            (self.folder / shard.output).unlink(missing_ok=True)

    def is_done(self, shard: Shard) -> bool:
        """Say whether a shard has its output file, which is whole if it is there."""
        return (self.folder / shard.output).exists()

    def save(self) -> None:
        """Write what the job is of."""
        write_json(
            self.folder / FILE,
            {
                "format": _FORMAT,
                "seqlab": seqlab.__version__,
                **self.identity,
                "files": [file.to_dict() for file in self.files.values()],
            },
        )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands out of the folder, and clear away what was broken off.

        Raises:
            UsageError: another command works there.
        """
        lock = (self.folder / _LOCK).open("w")
        try:
            _lock(lock, self.folder)
            self._clear()
            try:
                yield
            finally:
                self._clear()
        finally:
            lock.close()

    def _clear(self) -> None:
        for path in partials(self.folder):
            with suppress(OSError):
                path.unlink()


def _lock(file: Any, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(
            f"another command writes to {folder}: wait until it is done, or name another folder."
        ) from error
    except OSError:  # a file system without locks
        return


def _as_it_is(known: InputFile) -> InputFile | None:
    """Return a file with the time of its last change; None where it holds something else now."""
    if known.is_there():
        return known
    try:
        now = os.stat(known.path)
        if now.st_size != known.size or digest_of(known.path) != known.digest:
            return None
    except OSError:
        return None
    return replace(known, modified=now.st_mtime_ns)


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if before["model"]["sha256"] != now["model"]["sha256"]:
        raise UsageError(
            f"{folder} holds the answers of another model ({before['model']['name']}): {_OTHER}."
        )
    old, new = before["options"], now["options"]
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            raise UsageError(
                f"{folder} holds answers with other options ({name}: {old.get(name)}, and now "
                f"{new.get(name)}): {_OTHER}."
            )

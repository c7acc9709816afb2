from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from seqlab.data import cache
from seqlab.data.cache import cached_files, chunks_of, digest_of, file_digest
from seqlab.errors import DataError


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files of more than 10 bytes are large; which were read through."""
    files: list[Path] = []

    def watched(path: Path) -> Any:
        files.append(path)
        return chunks_of(path)

    monkeypatch.setattr(cache, "_LARGE", 10)
    monkeypatch.setattr(cache, "chunks_of", watched)
    return files


def old_file(folder: Path, content: bytes, age: float = 3600.0) -> Path:
    file = folder / "corpus.conll"
    file.write_bytes(content)
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_a_large_file_is_hashed_once(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SETTLED", -1.0)
    file = old_file(tmp_path, b"a large corpus")
    wanted = digest_of([b"a large corpus"], "x")
    for _ in range(3):
        assert file_digest(tmp_path / "cache", file, "x") == wanted
    assert read == [file]
    assert file_digest(tmp_path / "cache", file, "y") == digest_of([b"a large corpus"], "y")
    assert read == [file] * 2


def test_a_large_file_that_changed_is_hashed_again(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SETTLED", -1.0)
    file = old_file(tmp_path, b"a large corpus")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file_digest(tmp_path / "cache", file)
    file.write_bytes(b"another corpus")
    os.utime(file, ns=times)  # as copying does; when the entry was changed tells
    assert file_digest(tmp_path / "cache", file) == digest_of([b"another corpus"])
    assert len(read) == 2


@pytest.mark.parametrize("content", [b"small", b"a large corpus"])
def test_files_that_are_small_or_were_just_changed_are_always_hashed(
    tmp_path: Path, read: list[Path], content: bytes
) -> None:
    file = old_file(tmp_path, content, age=0.0)
    for _ in range(2):
        file_digest(tmp_path / "cache", file)
    assert len(read) == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("harm", ["", "{}", "[]", '{"state": null}'])
def test_a_damaged_note_on_a_file_is_written_anew(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(cache, "_SETTLED", -1.0)
    file = old_file(tmp_path, b"a large corpus")
    file_digest(tmp_path / "cache", file)
    (note,) = (tmp_path / "cache" / "known").iterdir()
    note.write_text(harm)
    for _ in range(2):
        assert file_digest(tmp_path / "cache", file) == digest_of([b"a large corpus"])
    assert len(read) == 2


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read .*corpus.conll: No such file"):
        file_digest(tmp_path, tmp_path / "corpus.conll")


def entry(folder: Path, content: bytes, made: list[bytes]) -> Path:
    def write(sinks: Any) -> list[str]:
        made.append(content)
        sinks["ids"].write(content)
        return []

    return cached_files(folder, "ab" * 20, ["ids"], write)[0] / "ids"


def test_a_large_cached_file_is_known_by_its_stamp(tmp_path: Path, read: list[Path]) -> None:
    made: list[bytes] = []
    for _ in range(3):
        file = entry(tmp_path, b"many many ids", made)
    assert len(made) == 1
    assert len(read) == 1  # when it was written
    os.utime(file)  # a copy, or a change
    entry(tmp_path, b"many many ids", made)
    assert len(made) == 1
    assert len(read) == 2


@pytest.mark.parametrize("harm", [b"many", b"many many idz", b""])
def test_a_large_cached_file_that_was_damaged_is_made_anew(
    tmp_path: Path, read: list[Path], harm: bytes
) -> None:
    made: list[bytes] = []
    file = entry(tmp_path, b"many many ids", made)
    file.write_bytes(harm)
    os.utime(file)
    assert entry(tmp_path, b"many many ids", made).read_bytes() == b"many many ids"
    assert len(made) == 2


def test_a_small_cached_file_is_always_read_through(tmp_path: Path, read: list[Path]) -> None:
    made: list[bytes] = []
    file = entry(tmp_path, b"few ids", made)
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"few idz")
    os.utime(file, ns=times)
    assert entry(tmp_path, b"few ids", made).read_bytes() == b"few ids"


def test_a_large_file_is_on_the_disk_before_its_stamp_is(
    tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    entry(tmp_path / "small", b"few ids", [])
    assert synced == []
    entry(tmp_path / "large", b"many many ids", [])
    assert len(synced) == 1

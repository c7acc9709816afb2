from __future__ import annotations

import datetime
import errno
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from seqlab import archives
from seqlab.archives import add_to_tar, add_to_zip, replacing, source_date
from seqlab.errors import SeqlabError, UsageError

DATE = 1_700_000_000
LARGE = bytes(range(256)) * 5000  # more than one piece of a MiB


def zipped(date: int = DATE, content: bytes | Path = LARGE) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        add_to_zip(archive, "a/large.bin", content, date)
    return file.getvalue()


def write(
    target: Path, content: bytes, failure: BaseException | None = None, *, overwrite: bool = False
) -> None:
    with replacing(target, overwrite=overwrite) as file:
        file.write(content)
        if failure is not None:
            raise failure


def test_archives_begin_in_1980_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    start = datetime.datetime(1980, 1, 1, tzinfo=datetime.timezone.utc)
    assert source_date() == start.timestamp()
    for said, expected in {"0": start.timestamp(), str(DATE): DATE}.items():
        monkeypatch.setenv("SOURCE_DATE_EPOCH", said)
        assert source_date() == expected


def test_the_latest_date_is_one_that_zip_can_write(monkeypatch: pytest.MonkeyPatch) -> None:
    latest = datetime.datetime(2107, 12, 31, 23, 59, 59, tzinfo=datetime.timezone.utc)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(latest.timestamp())))
    with zipfile.ZipFile(io.BytesIO(zipped(source_date()))) as archive:
        assert archive.infolist()[0].date_time == (2107, 12, 31, 23, 59, 58)  # in steps of two


@pytest.mark.parametrize("said", ["", "now", "-1", "1.5", "1e9", "4354819200", "9" * 5000, "１"])
def test_what_is_no_time_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", said)
    with pytest.raises(UsageError, match=r"^SOURCE_DATE_EPOCH is .*give whole seconds since 1970"):
        source_date()


def test_a_zip_holds_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(LARGE)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        written = [
            add_to_zip(archive, "bytes", LARGE, DATE),
            add_to_zip(archive, "a/file", tmp_path / "large.bin", DATE),
            add_to_zip(archive, "empty", b"", DATE),
        ]
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["bytes", "a/file", "empty"]
        contents = [archive.read(name) for name in archive.namelist()]
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_DEFLATED
            assert entry.external_attr >> 16 == 0o100644
            assert entry.create_system == 3
            assert entry.date_time == (2023, 11, 14, 22, 13, 20)
    assert contents == [LARGE, LARGE, b""]
    assert written == [(hashlib.sha256(c).digest(), len(c)) for c in contents]


def test_a_file_and_its_bytes_give_the_same_zip(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    (tmp_path / "x").chmod(0o600)
    os.utime(tmp_path / "x", (1, 1))
    assert zipped(content=tmp_path / "x") == zipped()


def test_files_too_large_for_plain_zip_are_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # in place of 2 GiB
    content = zipped()
    monkeypatch.undo()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.infolist()[0].extract_version == zipfile.ZIP64_VERSION
        assert archive.read("a/large.bin") == LARGE


def test_a_tar_holds_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(LARGE)
    (tmp_path / "large.bin").chmod(0o700)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        add_to_tar(archive, "bytes", LARGE, DATE)
        add_to_tar(archive, "a/file", tmp_path / "large.bin", DATE)
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        for entry in archive.getmembers():
            data = archive.extractfile(entry)
            assert data is not None
            assert data.read() == LARGE
            assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", "")
            assert (entry.mode, entry.mtime, entry.type) == (0o644, DATE, tarfile.REGTYPE)
        assert archive.getnames() == ["bytes", "a/file"]


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    target = tmp_path / "new" / "dist" / "x.whl"
    with replacing(target, overwrite=False) as file:
        file.write(b"half")
        file.flush()
        assert not target.exists()
        file.write(b" and half")
    assert target.read_bytes() == b"half and half"
    assert os.listdir(target.parent) == ["x.whl"]


def test_another_content_is_not_written_over(tmp_path: Path) -> None:
    target = tmp_path / "x.whl"
    write(target, b"old")
    write(target, b"old")  # the same is no change
    with pytest.raises(UsageError) as error:
        write(target, b"new")
    assert str(error.value) == (
        f"{target} is there already, with another content: raise the version, or remove the file "
        "if nobody has installed it yet."
    )
    assert target.read_bytes() == b"old"
    write(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x.whl"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError(), MemoryError()])
def test_a_failure_leaves_what_was_there(failure: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "x.whl"
    write(target, b"old")
    with pytest.raises(type(failure)):
        write(target, b"new", failure, overwrite=True)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.whl"]


def test_a_disk_that_is_full_is_one_sentence(tmp_path: Path) -> None:
    target = tmp_path / "x.whl"
    with pytest.raises(SeqlabError) as error:
        write(target, b"new", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(error.value).startswith(f"cannot write {target} (")
    assert os.strerror(errno.ENOSPC) in str(error.value)
    assert str(error.value).endswith(
        "free some space there, or choose another folder which may be written."
    )
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SeqlabError, match="cannot write .*choose another folder"):
        write(tmp_path / "file" / "x.whl", b"")
    (tmp_path / "x.whl").mkdir()
    with pytest.raises(SeqlabError, match="cannot write .*choose another folder"):
        write(tmp_path / "x.whl", b"", overwrite=True)
    with pytest.raises(UsageError, match="is there already"):
        write(tmp_path / "x.whl", b"")
    assert sorted(os.listdir(tmp_path)) == ["file", "x.whl"]


KILLED = """
import os, sys
from pathlib import Path
from seqlab.archives import replacing
with replacing(Path(sys.argv[1]), overwrite=True) as file:
    file.write(b"half")
    file.flush()
    os._exit(9)
"""


def test_a_kill_leaves_no_half_file_and_its_remains_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "x.whl"
    write(target, b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert done.returncode == 9
    assert target.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # the old one, and the partial file
    write(target, b"new", overwrite=True)
    assert os.listdir(tmp_path) == ["x.whl"]


def test_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(LARGE)
    sizes = []

    class Spy(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size)
            return super().read(size)

    monkeypatch.setattr("builtins.open", lambda path, mode: Spy(io.FileIO(path, mode)))
    content = zipped(content=tmp_path / "x")
    monkeypatch.undo()
    assert content == zipped()
    assert set(sizes) == {archives._PIECE}
    assert len(sizes) == 3  # two pieces and the end

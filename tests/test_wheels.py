from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.metadata import Metadata
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

from seqlab.errors import BundleError, SeqlabError, UsageError
from seqlab.receipts import RECEIPT, write_receipt
from seqlab.wheels import (
    WheelMeta,
    check_license,
    check_name,
    check_version,
    write_sdist,
    write_wheel,
)

FILES: dict[str, bytes] = {
    "config.json": b'{"class": "seqlab.models.tagger.Tagger", "arguments": {}}\n',
    "source_vocab.json": b"[]\n",
    "target_vocab.json": b"[]\n",
    "model.safetensors": hashlib.sha256(b"weights").digest() * 1000,
    "metrics.json": b"{}\n",
    "recipe.yaml": b"seed: 1\n",
    "README.md": "# en-pos\n\nÉtiquettes \U0001f642\n".encode(),
    "probe.json": b"[]\n",
}
META = WheelMeta(
    name="en-pos",
    version="1.0.0",
    summary='Parts of "speech": d\u2019un \\ mot \U0001f642',
    license="CC-BY-SA-4.0",
    requires=("seqlab>=0.1,<0.2",),
    description=FILES["README.md"].decode(),
    keywords=("nlp", "part of speech"),
)
WHEEL = "en_pos-1.0.0-py3-none-any.whl"
NAMES = sorted(f"seqlab_models/en_pos/{name}" for name in [*FILES, RECEIPT])


def make_model(
    folder: Path,
    files: Mapping[str, bytes] = FILES,
    *,
    name: str = "en-pos",
    version: str = "1.0.0",
) -> Path:
    """Write the folder of a model whose files are whole and mean little."""
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    write_receipt(folder, {"name": name, "version": version, "made": {"seeds": [1]}})
    return folder


def run_python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "bundle")


@pytest.fixture
def wheel(folder: Path, tmp_path: Path) -> Path:
    return write_wheel(folder, tmp_path / "dist", META)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize(
    "name", ["en-pos", "x", "fr2en", "a-1", "en-pos-2", "seqlab-en", "x" * 100]
)
def test_a_normal_name_is_kept(name: str) -> None:
    assert check_name(name) == name == canonicalize_name(name, validate=True)


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("En POS!", "en-pos"),
        ("EN_pos", "en-pos"),
        ("en.pos", "en-pos"),
        ("en--pos", "en-pos"),
        ("-en-pos-", "en-pos"),
        ("en-pos\n", "en-pos"),
        (" en-pos", "en-pos"),
        ("1-en-pos", "en-pos"),
        ("2en", "en"),
        ("Straße", "strasse"),
        ("français→anglais", "francais-anglais"),
        ("../en/pos", "en-pos"),
        ("en-po\u017f", "en-pos"),  # a long s, which is an s to careless patterns
        ("Seqlab models", "seqlab-models"),
    ],
)
def test_a_name_that_pip_would_not_keep_gets_a_proposal(name: str, proposal: str) -> None:
    with pytest.raises(UsageError) as error:
        check_name(name)
    assert str(error.value) == f"{name!r} cannot be the name of a model: try {proposal}."
    assert check_name(proposal) == proposal


@pytest.mark.parametrize("name", ["", "!", "123", "日本語", "-", "\0", "12 seqlab"])
def test_a_name_without_letters_gets_an_example(name: str) -> None:
    with pytest.raises(UsageError) as error:
        check_name(name)
    assert str(error.value) == (
        f"{name!r} cannot be the name of a model: use letters, digits and hyphens, a letter first, "
        "as in en-pos."
    )


@pytest.mark.parametrize("name", ["seqlab", "SeqLab", "SEQLAB"])
def test_a_model_cannot_be_called_seqlab(name: str) -> None:
    with pytest.raises(UsageError, match=f"^'{name}' cannot .* seqlab itself .* such as en-pos.$"):
        check_name(name)


def test_a_name_too_long_for_a_file_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has 101 characters: it may have 100; try one that says"):
        check_name("x" * 101)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.0.0", "1.0.0"),
        ("1", "1"),
        ("v1.0", "1.0"),
        (" 1.0 ", "1.0"),
        ("1.0.0-RC1", "1.0.0rc1"),
        ("2026.01.02", "2026.1.2"),
        ("1!2.0.post3.dev4", "1!2.0.post3.dev4"),
    ],
)
def test_a_version_is_brought_to_its_normal_form(version: str, expected: str) -> None:
    assert check_version(version) == expected


@pytest.mark.parametrize("version", ["", "one", "1.0.x", "1..0", "latest", "../1", "1.0\x00"])
def test_what_is_no_version_gets_an_example(version: str) -> None:
    with pytest.raises(UsageError) as error:
        check_version(version)
    assert str(error.value) == (
        f"{version!r} is no version: write numbers with dots (PEP 440), such as 1.0.0, or 1.1.0rc1 "
        "for a trial."
    )


def test_a_local_version_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError) as error:
        check_version("1.0+cpu")
    assert str(error.value) == (
        "'1.0+cpu' is a local version, which package indexes refuse: leave out what follows the "
        "plus, as in 1.0."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
        ("MIT or (apache-2.0 and cc0-1.0)", "MIT OR (Apache-2.0 AND CC0-1.0)"),
        ("LicenseRef-mine", "LicenseRef-mine"),
    ],
)
def test_a_license_is_brought_to_its_normal_form(text: str, expected: str) -> None:
    assert check_license(text) == expected


@pytest.mark.parametrize("text", ["", "CC BY-SA", "free", "MIT AND", "GPL"])
def test_what_is_no_license_gets_an_example(text: str) -> None:
    with pytest.raises(UsageError) as error:
        check_license(text)
    assert str(error.value).startswith(
        f"{text!r} is no licence that pip knows: write its SPDX name"
    )
    assert "CC-BY-SA-4.0" in str(error.value)


def test_a_wheel_holds_the_model_and_no_code(wheel: Path) -> None:
    assert wheel.name == WHEEL
    found = contents(wheel)
    information = [
        f"en_pos-1.0.0.dist-info/{name}"
        for name in ("METADATA", "WHEEL", "entry_points.txt", "RECORD")
    ]
    assert list(found) == [*NAMES, *information]
    for name, content in FILES.items():
        assert found[f"seqlab_models/en_pos/{name}"] == content
    entry_points = found["en_pos-1.0.0.dist-info/entry_points.txt"]
    assert entry_points == b"[seqlab.models]\nen-pos = seqlab_models.en_pos\n"
    tags = found["en_pos-1.0.0.dist-info/WHEEL"].decode().splitlines()
    assert tags[0] == "Wheel-Version: 1.0"
    assert tags[2:] == ["Root-Is-Purelib: true", "Tag: py3-none-any"]
    name, version, _, _ = parse_wheel_filename(wheel.name)
    assert (name, str(version)) == ("en-pos", "1.0.0")
    run_python("-m", "zipfile", "-t", str(wheel))


def test_the_record_tells_size_and_digest_of_every_file(wheel: Path) -> None:
    found = contents(wheel)
    rows = list(csv.reader(io.StringIO(found["en_pos-1.0.0.dist-info/RECORD"].decode())))
    assert [row[0] for row in rows] == list(found)
    assert rows[-1] == ["en_pos-1.0.0.dist-info/RECORD", "", ""]
    for name, digest, size in rows[:-1]:
        expected = base64.urlsafe_b64encode(hashlib.sha256(found[name]).digest()).decode()
        assert digest == f"sha256={expected.rstrip('=')}"
        assert int(size) == len(found[name])


def test_the_metadata_are_read_by_packaging(wheel: Path) -> None:
    text = contents(wheel)["en_pos-1.0.0.dist-info/METADATA"]
    found = Metadata.from_email(text, validate=True)
    assert found.metadata_version == "2.4"
    assert (found.name, str(found.version)) == (META.name, META.version)
    assert found.summary == META.summary
    assert found.license_expression == "CC-BY-SA-4.0"
    assert [str(requirement) for requirement in found.requires_dist or []] == ["seqlab<0.2,>=0.1"]
    assert str(found.requires_python) == ">=3.10"
    assert found.keywords == ["nlp", "part of speech"]
    assert found.description_content_type == "text/markdown"
    assert found.description == META.description


def test_what_is_not_known_is_left_out(folder: Path, tmp_path: Path) -> None:
    bare = replace(META, license=None, keywords=(), requires=())
    text = contents(write_wheel(folder, tmp_path, bare))["en_pos-1.0.0.dist-info/METADATA"]
    head = text.decode().split("\n\n")[0]
    assert [line.split(":")[0] for line in head.splitlines()] == [
        "Metadata-Version",
        "Name",
        "Version",
        "Summary",
        "Requires-Python",
        "Description-Content-Type",
    ]


def test_version_and_license_are_written_in_normal_form(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "bundle", version="1.0.0rc1")
    wheel = write_wheel(folder, tmp_path, replace(META, version="1.0.0-RC1", license="mit"))
    assert wheel.name == "en_pos-1.0.0rc1-py3-none-any.whl"
    assert b"License-Expression: MIT\n" in contents(wheel)["en_pos-1.0.0rc1.dist-info/METADATA"]
    assert write_sdist(folder, tmp_path, replace(META, version="1.0.0-RC1")).name == (
        "en_pos-1.0.0rc1.tar.gz"
    )


BUILD = """
import os, sys
from dataclasses import replace
from pathlib import Path
os.umask(int(sys.argv[1], 8))
from seqlab.wheels import write_sdist, write_wheel
from tests.test_wheels import FILES, META, make_model
files = {name: FILES[name] for name in sorted(FILES, reverse=sys.argv[2] == "reverse")}
folder = make_model(Path("bundle"), files)
for file in folder.iterdir():
    os.utime(file, (int(sys.argv[3]),) * 2)
write_wheel(folder, "dist", META)
write_sdist(folder.resolve(), "dist", META)
"""


def build(home: Path, umask: str, order: str, time: int, **environment: str) -> dict[str, bytes]:
    """Build in another process, and return both files."""
    home.mkdir(parents=True)
    root = str(Path(__file__).resolve().parents[1])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    variables = {k: v for k, v in os.environ.items() if k not in {"SOURCE_DATE_EPOCH", "TZ"}}
    variables |= {"PYTHONPATH": search, **environment}
    run_python("-c", BUILD, umask, order, str(time), cwd=home, env=variables)
    return {file.name: file.read_bytes() for file in (home / "dist").iterdir()}


def test_a_model_gives_the_same_bytes_anywhere_and_at_any_time(tmp_path: Path) -> None:
    one = build(tmp_path / "a", "022", "forward", 1_700_000_000, TZ="UTC", PYTHONHASHSEED="1")
    other = build(
        tmp_path / "b" / "deep",
        "077",
        "reverse",
        1_000_000_001,
        TZ="Pacific/Kiritimati",
        PYTHONHASHSEED="2",
        LC_ALL="C",
    )
    assert sorted(one) == [WHEEL, "en_pos-1.0.0.tar.gz"]
    assert one == other
    dated = build(tmp_path / "c", "022", "forward", 0, SOURCE_DATE_EPOCH="1700000000", TZ="UTC")
    again = build(
        tmp_path / "d", "022", "forward", 0, SOURCE_DATE_EPOCH="1700000000", TZ="Asia/Tokyo"
    )
    assert dated == again
    assert all(dated[name] != one[name] for name in one)


def test_times_are_fixed(wheel: Path, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    sdist = write_sdist(folder, tmp_path, META)
    assert sdist.read_bytes()[:9] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02"  # no name, no time
    with tarfile.open(sdist) as archive:
        assert {entry.mtime for entry in archive.getmembers()} == {315_532_800}
        assert {(entry.uid, entry.gid, entry.mode) for entry in archive.getmembers()} == {
            (0, 0, 0o644)
        }


def test_a_version_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", {**FILES, "metrics.json": b'{"a": 1}\n'})
    for write in (write_wheel, write_sdist):
        target = write(folder, tmp_path, META)
        before = target.read_bytes()
        assert write(folder, tmp_path, META) == target
        with pytest.raises(UsageError, match="is there already, .*: raise the version"):
            write(other, tmp_path, META)
        assert target.read_bytes() == before
        write(other, tmp_path, META, overwrite=True)
        assert target.read_bytes() != before


@pytest.mark.parametrize("write", [write_wheel, write_sdist])
def test_a_failure_leaves_no_half_file(
    write: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seqlab.wheels.add_to_zip", full)
    monkeypatch.setattr("seqlab.wheels.add_to_tar", full)
    with pytest.raises(SeqlabError, match="cannot write .*No space left on device"):
        write(folder, tmp_path / "dist", META)
    assert os.listdir(tmp_path / "dist") == []


@pytest.mark.parametrize("write", [write_wheel, write_sdist])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "EN_pos"}, "try en-pos"),
        ({"version": "x"}, "is no version"),
        ({"license": "free"}, "is no licence"),
        ({"summary": "a\nAuthor: me"}, "the summary of en-pos must be plain text in one line"),
        ({"summary": "a\x1b[2J"}, "the summary of en-pos must be plain text in one line"),
        ({"requires": ("seqlab\nName: x",)}, "the requires of en-pos must be plain text"),
        ({"requires": ("not a requirement!",)}, "would be refused: .*requires"),
        ({"requires_python": ">=3.10\nX: y"}, "the requires_python of en-pos must be"),
        ({"requires_python": "3 or so"}, "would be refused: .*requires-python"),
        ({"keywords": ("a", "b\r\n")}, "the keywords of en-pos must be plain text"),
        ({"keywords": ("a,b",)}, "the keyword 'a,b' has a comma: give two keywords"),
    ],
    ids=str,
)
def test_wrong_facts_are_refused_before_anything_is_written(
    write: Any, changes: dict[str, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        write(folder, tmp_path / "dist", replace(META, **changes))
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("write", [write_wheel, write_sdist])
@pytest.mark.parametrize("name", ["weights.pkl", "model.bin", "__init__.py", "x.so", "LICENSE"])
def test_only_data_go_into_a_wheel(write: Any, name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "bundle", {**FILES, name: b""})
    with pytest.raises(BundleError) as error:
        write(folder, tmp_path / "dist", META)
    assert str(error.value).startswith(f"{folder} holds {name!r}, and a wheel takes data only (")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    "name", [".hidden.json", "__pycache__/x.json", "sub/.git/x.json", "é.json"]
)
def test_odd_names_do_not_go_into_a_wheel(name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "bundle", {**FILES, name: b"{}"})
    with pytest.raises(BundleError, match="a wheel takes data only"):
        write_wheel(folder, tmp_path, META)


def test_folders_inside_a_model_are_kept(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "bundle", {**FILES, "more/deep/x.json": b"{}"})
    found = contents(write_wheel(folder, tmp_path, META))
    assert found["seqlab_models/en_pos/more/deep/x.json"] == b"{}"


@pytest.mark.parametrize("write", [write_wheel, write_sdist])
def test_a_folder_that_is_not_what_its_receipt_says_is_refused(
    write: Any, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError) as error:
        write(folder, tmp_path / "dist", replace(META, version="1.0.1"))
    assert str(error.value) == (
        f"{folder} has the receipt of 'en-pos' '1.0.0', and en-pos 1.0.1 is to be written: write "
        "the receipt again."
    )
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"'metrics.json' does not have the SHA-256"):
        write(folder, tmp_path / "dist", META)
    (folder / RECEIPT).unlink()
    with pytest.raises(BundleError, match=r"receipt.json is missing"):
        write(folder, tmp_path / "dist", META)
    assert not (tmp_path / "dist").exists()


def test_a_source_distribution_tells_how_to_build_it(folder: Path, tmp_path: Path) -> None:
    sdist = write_sdist(folder, tmp_path / "dist", META)
    assert [str(part) for part in parse_sdist_filename(sdist.name)] == ["en-pos", "1.0.0"]
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        found = {}
        for name in names:
            data = archive.extractfile(name)
            assert data is not None
            found[name.removeprefix("en_pos-1.0.0/")] = data.read()
    assert all(name.startswith("en_pos-1.0.0/") for name in names)
    assert list(found) == ["PKG-INFO", "README.md", "pyproject.toml", *NAMES]
    for name, content in FILES.items():
        assert found[f"seqlab_models/en_pos/{name}"] == content
    wheel = contents(write_wheel(folder, tmp_path / "dist", META))
    assert found["PKG-INFO"] == wheel["en_pos-1.0.0.dist-info/METADATA"]
    if sys.version_info >= (3, 11):
        import tomllib

        project = tomllib.loads(found["pyproject.toml"].decode())["project"]
        assert project["description"] == META.summary
        assert project["keywords"] == list(META.keywords)
        assert project["dependencies"] == list(META.requires)
        assert project["entry-points"] == {"seqlab.models": {"en-pos": "seqlab_models.en_pos"}}


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None,
    reason="hatchling is not installed, which builds source distributions",
)
def test_pip_builds_the_same_wheel_of_a_source_distribution(tmp_path: Path) -> None:
    files = {**FILES, "more/deep/x.json": b"{}", "license.txt": b"Free."}
    folder = make_model(tmp_path / "bundle", files)
    sdist = write_sdist(folder, tmp_path / "dist", META)
    (tmp_path / ".gitignore").write_text("*.json\n", encoding="utf-8")  # which must not be heard
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(tmp_path)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # pip unpacks beside the .gitignore
    run_python("-m", "pip", "wheel", *options, str(sdist), env=environment)
    ours = contents(write_wheel(folder, tmp_path / "dist", META))
    theirs = contents(tmp_path / WHEEL)
    data = {name for name in ours if name.startswith("seqlab_models/")}
    assert {name for name in theirs if ".dist-info/" not in name} == data
    assert all(theirs[name] == ours[name] for name in data)
    place = "en_pos-1.0.0.dist-info"
    entry_points = theirs[f"{place}/entry_points.txt"].decode().strip()
    assert entry_points == ours[f"{place}/entry_points.txt"].decode().strip()
    tags = theirs[f"{place}/WHEEL"].decode().splitlines()
    assert {"Root-Is-Purelib: true", "Tag: py3-none-any"} <= set(tags)
    read = [Metadata.from_email(x[f"{place}/METADATA"], validate=True) for x in (ours, theirs)]
    for field in ("name", "version", "summary", "license_expression", "requires_dist", "keywords"):
        assert getattr(read[0], field) == getattr(read[1], field), field
    assert str(read[0].description).strip() == str(read[1].description).strip()


def test_the_receipt_travels_unchanged(wheel: Path, folder: Path) -> None:
    inside = contents(wheel)[f"seqlab_models/en_pos/{RECEIPT}"]
    assert inside == (folder / RECEIPT).read_bytes()
    assert set(json.loads(inside)["files"]) == set(FILES)

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqlab import receipts
from seqlab.errors import BundleError
from seqlab.receipts import RECEIPT, check_receipt, write_receipt

ABOUT: dict[str, Any] = {
    "name": "en-pos",
    "version": "1.0.0",
    "made": {"seeds": [1, 2, 3], "data": {"train": "0" * 64}, "metrics": {"test/accuracy": 0.9}},
    "probe": [{"source": "Zürich wins", "target": ["PROPN", "VERB"]}],
}
FILES = {
    "config.json": b'{"class": "seqlab.models.tagger.Tagger"}\n',
    "target_vocab.json": b'["NOUN", "VERB"]\n',
    "model.safetensors": bytes(range(256)) * 9,
    "README.md": b"",
    "extra/deep/more.json": b"{}",
}
AGAIN = "; get the model again."
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "en_pos"
    for name, content in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    write_receipt(home, ABOUT)
    return home


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as error:
        check_receipt(folder)
    return str(error.value)


def damaged(folder: Path, what: str) -> bool:
    return refusal(folder) == f"{folder} is damaged or was changed: {what}{AGAIN}"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a receipt by hand, as someone who knows its form."""
    receipt = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
    change(receipt)
    (folder / RECEIPT).write_text(json.dumps(receipt), encoding="utf-8")


def test_a_receipt_hashes_every_other_file(folder: Path) -> None:
    receipt = check_receipt(folder)
    assert receipt == {
        **ABOUT,
        "format": 1,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
    }
    assert write_receipt(folder, ABOUT) == receipt


def test_a_file_of_several_pieces_is_hashed_whole(folder: Path) -> None:
    content = bytearray(2 * receipts._PIECE + 1)
    (folder / "model.safetensors").write_bytes(content)
    receipt = write_receipt(folder, ABOUT)
    assert receipt["files"]["model.safetensors"] == hashlib.sha256(content).hexdigest()
    content[-1] = 1
    (folder / "model.safetensors").write_bytes(content)
    assert damaged(folder, "'model.safetensors' does not have the SHA-256 of its receipt")


def test_the_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name, content in reversed(FILES.items()):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(content)
    write_receipt(other, dict(reversed(ABOUT.items())))
    text = (folder / RECEIPT).read_bytes()
    assert (other / RECEIPT).read_bytes() == text
    assert text.endswith(b"}\n")
    assert b"\r" not in text
    assert "Zürich".encode() in text
    keys = list(json.loads(text))
    assert keys == sorted(keys)


def test_an_older_receipt_is_replaced_and_a_half_written_one_removed(folder: Path) -> None:
    (folder / "README.md").write_text("# New", encoding="utf-8")
    (folder / receipts._PARTIAL).write_text("{", encoding="utf-8")
    write_receipt(folder, {**ABOUT, "version": "1.1.0"})
    assert check_receipt(folder)["version"] == "1.1.0"
    assert receipts._PARTIAL not in os.listdir(folder)


def test_a_disk_that_is_full_leaves_the_old_receipt(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / RECEIPT).read_bytes()

    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BundleError, match="no receipt can be written for .*No space left"):
        write_receipt(folder, {**ABOUT, "version": "2"})
    assert (folder / RECEIPT).read_bytes() == before
    assert check_receipt(folder)["version"] == "1.0.0"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert damaged(folder, f"{name!r} is missing")


@pytest.mark.parametrize("name", [name for name, content in FILES.items() if content])
def test_a_flipped_bit_is_noticed(name: str, folder: Path) -> None:
    for position in (0, len(FILES[name]) // 2, len(FILES[name]) - 1):
        content = bytearray(FILES[name])
        content[position] ^= 1
        (folder / name).write_bytes(content)
        assert damaged(folder, f"{name!r} does not have the SHA-256 of its receipt")
    (folder / name).write_bytes(FILES[name])
    check_receipt(folder)


def test_a_byte_more_or_less_is_noticed(folder: Path) -> None:
    (folder / "README.md").write_bytes(b"\n")
    assert damaged(folder, "'README.md' does not have the SHA-256 of its receipt")
    (folder / "README.md").write_bytes(b"")
    (folder / "model.safetensors").write_bytes(FILES["model.safetensors"][:-1])
    assert damaged(folder, "'model.safetensors' does not have the SHA-256 of its receipt")


@pytest.mark.parametrize(
    "name",
    [
        "weights.pkl",
        ".hidden",
        "__init__.py",
        "__pycache__/x.pyc",
        "extra/.more.json",
        "extra/deep/receipt.json",
        "receipt.json.bak",
    ],
)
def test_an_additional_file_is_named(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x", encoding="utf-8")
    first = name if (folder / name).parent.name != "__pycache__" else "__pycache__/"
    assert damaged(folder, f"{first!r} is not in its receipt")


@pytest.mark.parametrize("name", ["__pycache__", ".git", "extra/empty"])
def test_an_additional_folder_is_named_even_when_it_is_empty(name: str, folder: Path) -> None:
    (folder / name).mkdir()
    assert damaged(folder, f"'{name}/' is not in its receipt")


def test_a_folder_in_the_place_of_a_file_is_noticed(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    assert damaged(folder, "'README.md' is missing")
    (folder / RECEIPT).unlink()
    (folder / RECEIPT).mkdir()
    assert damaged(folder, "receipt.json is missing")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_malicious_pickle_is_refused_and_never_opened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    harmful = pickle.dumps(Malicious(marker))
    pickle.loads(harmful)
    assert marker.exists()  # it is harmful indeed
    marker.unlink()
    (folder / "pytorch_model.bin").write_bytes(harmful)
    opened: list[str] = []
    monkeypatch.setattr(receipts, "_digest", lambda file: opened.append(file.name))
    assert damaged(folder, "'pytorch_model.bin' is not in its receipt")
    assert opened == []
    assert not marker.exists()
    monkeypatch.undo()
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    assert damaged(folder, "'model.safetensors' does not have the SHA-256 of its receipt")
    assert not marker.exists()


def test_code_in_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (folder / "__init__.py").write_text(f"open({str(marker)!r}, 'w')", encoding="utf-8")
    assert damaged(folder, "'__init__.py' is not in its receipt")
    write_receipt(folder, ABOUT)
    check_receipt(folder)  # what a receipt vouches for is not run either
    assert not marker.exists()


@posix
@pytest.mark.parametrize("name", ["README.md", "more.json", "extra/deep/x", RECEIPT])
def test_a_link_is_refused_even_to_the_right_content(
    name: str, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    assert damaged(folder, f"{name!r} is a link, which no model may hold")
    with pytest.raises(BundleError, match=r"no receipt can be written for .* is a link"):
        write_receipt(folder, ABOUT)


@posix
@pytest.mark.parametrize("target", ["..", "deep", "/nowhere", "."])
def test_a_link_to_a_folder_is_refused_and_not_followed(target: str, folder: Path) -> None:
    (folder / "extra" / "up").symlink_to(target)
    assert damaged(folder, "'extra/up' is a link, which no model may hold")


@posix
def test_a_pipe_is_refused_and_not_read(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    assert damaged(folder, "'README.md' is no plain file")


@posix
def test_a_folder_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(folder)
    assert check_receipt(tmp_path / "latest") == check_receipt(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "../en_pos/README.md",
        "extra/../README.md",
        "..",
        ".",
        "",
        "/etc/passwd",
        "//host/share/x",
        "C:/x",
        "C:x",
        "x.json:stream",
        "extra\\deep\\more.json",
        "..\\x",
        "./README.md",
        "extra//more.json",
        "extra/",
        "a\0b",
        "a\nb",
        "a\x1b[2Jb",
        "\ud800",
    ],
)
def test_a_name_that_is_not_plain_is_refused(name: str, folder: Path) -> None:
    digest = hashlib.sha256(b"").hexdigest()
    edit(folder, lambda receipt: receipt["files"].update({name: digest}))
    message = refusal(folder)
    assert message == (
        f"{folder} is damaged or was changed: {name!r} is no plain relative name of a file{AGAIN}"
    )
    assert message.isprintable()  # nothing that a terminal would obey


def test_a_file_outside_is_not_taken_for_one_inside(folder: Path) -> None:
    (folder.parent / "x").write_bytes(b"")
    digest = hashlib.sha256(b"").hexdigest()
    edit(folder, lambda receipt: receipt["files"].update({"../x": digest}))
    assert "'../x' is no plain relative name" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["readme.MD", "Receipt.json", RECEIPT, "EXTRA/deep/more.json", "CONFIG.json"]
)
def test_a_name_that_differs_by_case_only_is_refused(name: str, folder: Path) -> None:
    edit(folder, lambda receipt: receipt["files"].update({name: "0" * 64}))
    assert damaged(folder, f"{name!r} is, but for case, the name of another file")


def test_one_name_composed_in_two_ways_is_refused(folder: Path) -> None:
    names = {"\u00fc.json": "0" * 64, "u\u0308.json": "0" * 64}
    edit(folder, lambda receipt: receipt["files"].update(names))
    assert "is, but for case, the name of another file" in refusal(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"a": 1} x', b"[" * 100_000])
def test_a_receipt_that_is_no_json_is_named(text: bytes, folder: Path) -> None:
    (folder / RECEIPT).write_bytes(text)
    message = refusal(folder)
    assert f"{folder} is damaged or was changed: receipt.json cannot be read (" in message
    assert message.endswith(f"){AGAIN}")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_a_receipt_that_is_no_object_is_named(text: str, folder: Path) -> None:
    (folder / RECEIPT).write_text(text, encoding="utf-8")
    assert damaged(folder, "receipt.json holds no JSON object")


@pytest.mark.parametrize(
    ("key", "kind"), [("name", "str"), ("version", "str"), ("files", "dict"), ("made", "dict")]
)
@pytest.mark.parametrize("value", [None, 3, ["a"], "missing"])
def test_a_key_that_is_missing_or_of_another_type_is_named(
    key: str, kind: str, value: object, folder: Path
) -> None:
    edit(folder, lambda r: r.pop(key) if value == "missing" else r.update({key: value}))
    assert damaged(folder, f"{key!r} of receipt.json is missing or no {kind}")


@pytest.mark.parametrize(
    "digest", [None, 3, "", "0" * 63, "0" * 65, "G" * 64, "A" * 64, ["0"] * 64, "０" * 64]
)
def test_what_is_no_digest_is_refused(digest: object, folder: Path) -> None:
    edit(folder, lambda receipt: receipt["files"].update({"README.md": digest}))
    assert damaged(folder, "receipt.json gives no SHA-256 for 'README.md'")


@pytest.mark.parametrize("number", [None, "1", 0, -1, 1.0, True, []])
def test_a_format_that_is_no_number_is_refused(number: object, folder: Path) -> None:
    edit(folder, lambda receipt: receipt.update(format=number))
    assert damaged(folder, "the 'format' of receipt.json is no positive number")


def test_a_newer_format_says_to_upgrade_whatever_else_it_holds(folder: Path) -> None:
    edit(folder, lambda receipt: (receipt.clear(), receipt.update(format=2)))
    assert refusal(folder) == (
        f"{folder} has a receipt of format 2, and this seqlab reads format 1: upgrade with "
        "`pip install --upgrade seqlab`."
    )


def test_a_folder_without_a_receipt_is_refused(folder: Path) -> None:
    (folder / RECEIPT).unlink()
    assert damaged(folder, "receipt.json is missing")


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    assert "nowhere" in refusal(tmp_path / "nowhere")
    assert refusal(tmp_path / "nowhere").endswith("give the folder of a model, which may be read.")
    with pytest.raises(BundleError, match="give the complete folder of a model"):
        write_receipt(tmp_path / "nowhere", ABOUT)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"files": {}}, "no key 'files'"),
        ({"sizes": {}}, "no key 'sizes'"),
        ({"name": None}, "'name' of receipt.json is missing or no str"),
        ({"made": [1]}, "'made' of receipt.json is missing or no dict"),
        ({"made": {"loss": float("nan")}}, "cannot be kept as JSON"),
        ({"made": {"path": Path("x")}}, "cannot be kept as JSON"),
        ({"made": {1: 2, "a": 3}}, "cannot be kept as JSON"),
        ({"probe": "\ud800"}, "cannot be kept as JSON"),
    ],
    ids=str,
)
def test_facts_that_cannot_be_kept_leave_the_old_receipt(
    about: dict[str, Any], words: str, folder: Path
) -> None:
    before = (folder / RECEIPT).read_bytes()
    with pytest.raises(BundleError) as error:
        write_receipt(folder, {**ABOUT, **about})
    assert words in str(error.value)
    assert (folder / RECEIPT).read_bytes() == before


@posix
@pytest.mark.parametrize(
    "name", ["a:b.json", "a\\b.json", "a\nb.json", "README.MD", "Receipt.json"]
)
def test_files_that_another_system_would_misread_get_no_receipt(name: str, folder: Path) -> None:
    if (folder / name).exists():
        pytest.skip("this disk takes both names for one")
    (folder / name).touch()
    with pytest.raises(BundleError) as error:
        write_receipt(folder, ABOUT)
    assert repr(name) in str(error.value) or "README.md" in str(error.value)


def test_an_empty_folder_gets_no_receipt(folder: Path) -> None:
    (folder / "extra" / "empty").mkdir()
    with pytest.raises(BundleError, match="'extra/empty/' is an empty folder; correct that"):
        write_receipt(folder, ABOUT)

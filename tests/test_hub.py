from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from seqlab.bundle import load_bundle, save_bundle
from seqlab.errors import BundleError
from seqlab.hub import BUNDLE_FILES, damaged_files, download, is_hub_id, split_id
from tests.hub_server import TOKEN, HubServer, running_hub
from tests.test_bundle import CHECKED, assert_same, tagger

NAME = "ada/en-ner"
ABSENT = "0" * 40
ELSEWHERE = "give the path of a folder with the model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with running_hub(tmp_path / "home", monkeypatch) as server:
        yield server


@pytest.fixture
def files_of(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """Make the files of a bundle."""

    def make(seed: int = 0, **options: Any) -> dict[str, bytes]:
        folder = save_bundle(tagger(seed), tmp_path / f"bundle{seed}", **options)
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    return make


@pytest.fixture
def commit(hub: HubServer, files_of: Callable[..., dict[str, bytes]]) -> str:
    """The one commit of a model on the hub."""
    return hub.add(NAME, files_of())


def refusal(repo_id: str, *arguments: Any, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        download(repo_id, *arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("text", [NAME, "a/b", "ada/en-ner@v1.0", f"a/b@{ABSENT}", "a/b@refs/pr/1"])
def test_a_name_on_the_hub_has_an_owner(text: str) -> None:
    assert is_hub_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "en-ner",
        "runs/ner/latest",
        "./ner",
        "../ner",
        "/ner",
        "~/ner",
        "a/",
        "a/b@",
        "a/b c",
        "a--b/c",
    ]
    + ["a/b.git", "@", "", "a@b/c", "sample:a/b", "a/" + "b" * 97],
)
def test_other_texts_are_none(text: str) -> None:
    assert not is_hub_id(text)


@pytest.mark.parametrize("text", ["runs/ner", "runs/ner@2"])
def test_what_exists_as_a_path_is_no_name_on_the_hub(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(text)
    Path(text).mkdir(parents=True)
    assert not is_hub_id(text)


def test_without_the_client_only_names_on_the_hub_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert not is_hub_id("runs/ner/latest")
    for ask in (is_hub_id, download):
        with pytest.raises(BundleError) as error:
            ask(NAME)
        message = str(error.value)
        assert message.startswith(f"{NAME} is no path here, and the hub cannot be asked for it (")
        assert message.endswith("): install the client with `pip install huggingface-hub`.")


def test_what_comes_from_the_hub_is_what_was_put_there(hub: HubServer, commit: str) -> None:
    folder = download(NAME)
    assert folder.name == commit
    assert str(folder).startswith(constants.HF_HUB_CACHE)
    assert (folder / "model.safetensors").is_symlink()
    assert_same(load_bundle(folder), tagger())


def test_a_cache_of_ones_own(hub: HubServer, commit: str, tmp_path: Path) -> None:
    assert str(download(NAME, cache_dir=tmp_path / "own")).startswith(str(tmp_path / "own"))
    assert not Path(constants.HF_HUB_CACHE).exists()


class Malice:
    """A pickle that writes a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_nothing_but_the_files_of_a_bundle_is_fetched(
    hub: HubServer, files_of: Callable[..., dict[str, bytes]], tmp_path: Path
) -> None:
    bundle = files_of(metrics={"test/span_f1": 0.5}, recipe="model: {}\n", card="# NER\n")
    bundle |= {"receipt.json": b"{}", "probe.json": b"[]"}
    assert set(bundle) == set(BUNDLE_FILES)
    evil = pickle.dumps(Malice(tmp_path / "opened"))
    others = {
        "pytorch_model.bin": evil,
        "config.json.pkl": evil,
        "model.onnx": bytes(50_000_000),
        "modeling.py": b"raise SystemExit",
        "deep/config.json": b"{}",
        "deep/model.safetensors": b"",
    }
    hub.add(NAME, {**others, **bundle})
    folder = download(NAME)
    assert hub.fetched() == sorted(BUNDLE_FILES)
    assert not [request for request in hub.requests if any(name in request for name in others)]
    assert {path.name for path in folder.rglob("*")} == set(BUNDLE_FILES)
    assert {name: (folder / name).read_bytes() for name in bundle} == bundle
    assert_same(load_bundle(folder), tagger())
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("config", [b'{"model_type": "bert", "format": 1}', b"[]", b"\xff", b"{"])
def test_a_model_of_another_library_is_refused_before_its_weights(
    config: bytes, hub: HubServer
) -> None:
    hub.add(NAME, {"config.json": config, "model.safetensors": b"weights", "README.md": b"# Bert"})
    assert refusal(NAME) == (
        f"{NAME} is no seqlab model: its config.json is not that of a bundle; see its page on the "
        "hub for how it is loaded."
    )
    assert hub.fetched() == ["config.json"]


def test_a_repository_without_a_configuration_is_refused(
    hub: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(NAME, {"model.safetensors": b"weights", "deep/config.json": b"{}"})
    assert refusal(f"{NAME}@main") == (
        f"{NAME}@main is no seqlab model: it has no config.json; see its page on the hub for how "
        "it is loaded."
    )
    assert hub.fetched() == []
    assert caplog.messages == []  # the client has a complaint of its own


def test_a_newer_format_is_refused_before_its_weights(
    hub: HubServer, files_of: Callable[..., dict[str, bytes]]
) -> None:
    files = files_of()
    config = {**json.loads(files["config.json"]), "format": 99, "seqlab": "9.9.9"}
    hub.add(NAME, {**files, "config.json": json.dumps(config).encode()})
    assert refusal(NAME).endswith("install the seqlab that wrote it (9.9.9).")
    assert hub.fetched() == ["config.json"]


@pytest.mark.parametrize("network", [True, False])
def test_a_pinned_commit_is_asked_for_once(
    network: bool, hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = download(NAME, commit)
    assert hub.requests
    hub.requests.clear()
    if not network:
        hub.stop()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(NAME, commit) == download(f"{NAME}@{commit}") == first
    assert hub.requests == []
    assert_same(load_bundle(first), tagger())


def test_a_pinned_commit_stays_when_the_branch_goes_on(
    hub: HubServer, files_of: Callable[..., dict[str, bytes]], commit: str
) -> None:
    repository = hub.repositories[NAME]
    repository.references["v1"] = commit
    assert_same(load_bundle(download(NAME)), tagger(0))
    new = repository.commit(files_of(1), "better")
    for revision in (None, "main", new):
        assert_same(load_bundle(download(NAME, revision)), tagger(1))
    for revision in ("v1", commit):
        assert_same(load_bundle(download(f"{NAME}@{revision}")), tagger(0))


@pytest.mark.parametrize("gone", ["stopped", "offline", "unwell"])
def test_a_branch_in_the_cache_does_when_the_hub_is_gone(
    gone: str, hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = download(NAME)
    if gone == "stopped":
        hub.stop()
    hub.status = 503 if gone == "unwell" else 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", gone == "offline")
    assert download(NAME) == download(NAME, "main") == first


def test_who_does_not_pin_is_told_the_commit_once(
    hub: HubServer, commit: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seqlab")

    def said(revision: str | None) -> list[tuple[str, str]]:
        caplog.clear()
        download(NAME, revision)
        return [(line.levelname, line.message) for line in caplog.records]

    hub.repositories[NAME].references["v1"] = commit
    assert said("v1") == [("INFO", f"{NAME}@v1 is the commit {commit}")]
    assert said(commit) == []
    advice = f"{NAME} may change on the hub: pin it with @{commit}"
    assert said(None) == [("WARNING", advice)]
    assert said(None) == [("INFO", f"{NAME}@main is the commit {commit}")]


def test_a_revision_stands_in_the_name_or_apart() -> None:
    assert split_id("a/b") == ("a/b", None)
    assert split_id("a/b@v1") == split_id("a/b", "v1") == split_id("a/b@v1", "v1") == ("a/b", "v1")
    assert refusal("a/b@v1", "v2") == "a/b@v1 has a revision, and 'v2' is another: give one."


@pytest.mark.parametrize("name", ["en-ner", "a/b/c", "a b/c", "a/b@", "", "../b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    assert refusal(name) == (
        f"{name!r} names no model of the hub: write owner/name, or owner/name@revision."
    )


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_model_that_is_not_there(token: str | None, hub: HubServer) -> None:
    assert refusal(NAME, token=token) == (
        f"{NAME} is no path here, and no model of the hub that you may see (Repository not found): "
        "check the name; if it is private, log in with `hf auth login` or give a token that is "
        "valid."
    )


def test_a_private_model_needs_a_token(
    hub: HubServer, files_of: Callable[..., dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files_of(), private=True)
    assert "no model of the hub that you may see (Repository not found)" in refusal(NAME)
    message = refusal(NAME, token="hf_wrong")
    assert "that you may see (Invalid credentials in Authorization header)" in message
    assert "or give a token that is valid" in message
    assert_same(load_bundle(download(NAME, token=TOKEN)), tagger())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert download(NAME)


def test_a_gated_model_says_where_to_ask(
    hub: HubServer, files_of: Callable[..., dict[str, bytes]]
) -> None:
    hub.add(NAME, files_of(), gated=True)
    assert refusal(NAME) == (
        f"{NAME} is gated: ask for access on its page on the hub, and log in with `hf auth login`."
    )


@pytest.mark.parametrize("revision", ["v9", ABSENT])
def test_a_revision_that_is_not_there(revision: str, hub: HubServer, commit: str) -> None:
    assert refusal(NAME, revision) == (
        f"{NAME} has no revision {revision!r} on the hub: name a branch, a tag or the full hash of "
        "a commit."
    )


@pytest.mark.parametrize("shown", [NAME, f"{NAME}@v1", f"{NAME}@{ABSENT}"])
def test_who_forbids_the_network_is_told_so(
    shown: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(shown) == (
        f"{shown} is no path here and not whole in the cache, and HF_HUB_OFFLINE forbids to ask "
        f"the hub for it: unset HF_HUB_OFFLINE, or {ELSEWHERE}."
    )
    assert hub.requests == []


@pytest.mark.parametrize("shown", [NAME, f"{NAME}@{ABSENT}"])
def test_without_a_network_a_folder_is_named(
    shown: str, hub: HubServer, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.stop()
    started = time.monotonic()
    message = refusal(shown)
    assert time.monotonic() - started < 10  # the client alone would try again for 23 seconds
    assert message.startswith(f"{shown} is no path here, and cannot be had from the hub (")
    assert "Connection refused" in message
    assert message.endswith(
        f"): try again with a network, or {ELSEWHERE}; HF_HUB_OFFLINE=1 keeps to the cache."
    )
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_is_not_well_is_as_good_as_none(hub: HubServer, commit: str) -> None:
    hub.status = 503
    assert "cannot be had from the hub (the hub is not well): try again" in refusal(NAME)


@pytest.mark.parametrize("name", CHECKED)
def test_what_is_damaged_on_the_hub_is_refused_by_name(
    name: str, hub: HubServer, files_of: Callable[..., dict[str, bytes]]
) -> None:
    files = files_of()
    damaged = bytearray(files[name])
    damaged[len(damaged) // 2] ^= 1
    commit = hub.add(NAME, {**files, name: bytes(damaged)})
    assert refusal(NAME) == (
        f"{NAME}@{commit} is damaged on the hub: {name} does not have the checksum that it was "
        "saved with; tell its owner, or name another commit."
    )
    without = {key: value for key, value in files.items() if key != name}
    hub.add("ada/other", without)
    assert f"is damaged on the hub: {name} does not have the checksum" in refusal("ada/other")


@pytest.mark.parametrize("name", CHECKED)
def test_what_is_damaged_in_the_cache_is_fetched_again(
    name: str, hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = download(NAME, commit)
    whole = (folder / name).read_bytes()
    for damage in (b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        (folder / name).resolve().write_bytes(damage)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE forbids to ask" in refusal(NAME, commit)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub.requests.clear()
        assert download(NAME, commit) == folder
        assert hub.fetched() == [name]
        assert_same(load_bundle(folder), tagger())


@pytest.mark.parametrize("name", [*CHECKED, "metrics.json"])
def test_a_download_that_was_broken_off_is_completed(
    name: str, hub: HubServer, commit: str
) -> None:
    folder = download(NAME, commit)
    (folder / name).resolve().unlink()
    (folder / name).unlink()
    hub.requests.clear()
    assert download(NAME, commit) == folder
    assert hub.fetched() == [name]
    assert_same(load_bundle(folder), tagger())


def test_a_configuration_cannot_name_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    bundle = save_bundle(tagger(), tmp_path / "bundle")
    assert damaged_files(bundle, {"sha256": {"../secret": "0", "/etc/passwd": "0"}}) == []
    assert damaged_files(bundle, {"sha256": {"metrics.json": "0", "probe.json": "0"}}) == [
        "metrics.json",
        "probe.json",
    ]


def test_other_files_in_the_cache_are_no_model(hub: HubServer, commit: str) -> None:
    huggingface_hub.hf_hub_download(NAME, "metrics.json", revision=commit)
    assert_same(load_bundle(download(NAME, commit)), tagger())


@pytest.mark.slow
def test_the_next_process_asks_nothing(hub: HubServer, commit: str) -> None:
    folder = download(NAME, commit)
    hub.requests.clear()
    script = f"from seqlab.hub import download; print(download('{NAME}@{commit}'))"
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **settings, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (str(folder), "")
    assert hub.requests == []

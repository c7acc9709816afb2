"""Models from the Hugging Face hub: a bundle, whole, from one commit.

Only the files of a bundle are fetched, its configuration before all others; none is a pickle. The
package `huggingface_hub` is imported when a function needs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import seqlab
from seqlab.bundle import read_config
from seqlab.errors import BundleError

BUNDLE_FILES = (
    "config.json",
    "source_vocab.json",
    "target_vocab.json",
    "model.safetensors",
    "metrics.json",
    "recipe.yaml",
    "README.md",
    "receipt.json",
    "probe.json",
)
_CONFIG = "config.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OURS = ("format", "seqlab")  # keys that the configuration of a bundle has in every format
_LOG = logging.getLogger(__name__)
_told: set[str] = set()  # models that were said to be not pinned


def is_hub_id(text: str) -> bool:
    """Say whether a text names a model of the hub: ``owner/name`` or ``owner/name@revision``.

    What exists as a path does not.

    Args:
        text: what a user gave.

    Raises:
        BundleError: it may name one, but `huggingface_hub` is not installed.

    Example:
        >>> [is_hub_id(text) for text in ("ada/en-ner", "ada/en-ner@v1", "en-ner", "a/b/c")]
        [True, True, False, False]
    """
    name, at, revision = text.partition("@")
    if name.count("/") != 1 or (at and not revision) or os.path.exists(os.path.expanduser(text)):
        return False
    need_library(text)
    return _is_repo_id(name)


def _is_repo_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def download(
    repo_id: str,
    revision: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
) -> Path:
    """Fetch a bundle into the cache of `huggingface_hub`.

    Args:
        repo_id: ``owner/name`` or ``owner/name@revision``.
        revision: a full commit hash, for which no request is made once it is in the cache; or a
            branch or tag, whose commit is looked up each time, and logged. Without one it is the
            main branch, with the advice to pin it.
        cache_dir: the cache, in place of the usual one.
        token: in place of the one that `hf auth login` has kept; False sends none.

    Returns:
        the folder; its name is the commit, and its files fit their checksums.

    Raises:
        BundleError: the model cannot be had, is no bundle, or is damaged.
    """
    name, revision = split_id(repo_id, revision)
    shown = f"{name}@{revision}" if revision else name
    need_library(shown)
    with one_sentence(lambda error: _why_not(error, name, revision, shown)):
        source = _Source(name, cache_dir, token)
        folder = source.find(revision, shown)
        config = _configuration(folder, shown)
        if wrong := damaged_files(folder, config):  # on the way, or since it was cached
            source.fetch(folder.name, wrong, force_download=True)
            wrong = damaged_files(folder, config)
    if wrong:
        raise BundleError(
            f"{name}@{folder.name} is damaged on the hub: {wrong[0]} does not have the checksum "
            "that it was saved with; tell its owner, or name another commit."
        )
    _tell_commit(name, revision, folder.name)
    return folder


class _Source:
    """A repository on the hub, and what the cache has of it."""

    def __init__(self, name: str, cache_dir: str | Path | None, token: str | bool | None) -> None:
        self.name, self.cache_dir = name, cache_dir
        self.ours: dict[str, Any] = {
            "token": token,
            "library_name": "seqlab",
            "library_version": seqlab.__version__,
        }

    def fetch(self, revision: str | None, files: Sequence[str], **options: Any) -> Path:
        """Have these files of a revision in the cache, and nothing else."""
        from huggingface_hub import snapshot_download

        options = {"tqdm_class": _bar(shown=len(files) > 1), **self.ours, **options}
        found: str = snapshot_download(
            self.name,
            revision=revision,
            allow_patterns=list(files),
            cache_dir=self.cache_dir,
            **options,
        )
        return Path(found)

    def cached(self, commit: str) -> Path | None:
        """Find a bundle in the cache, without any request."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            found = self.fetch(commit, BUNDLE_FILES, local_files_only=True)
        except LocalEntryNotFoundError:
            return None
        return found if (found / _CONFIG).is_file() else None

    def find(self, revision: str | None, shown: str) -> Path:
        """Have all files of a bundle in the cache, once its configuration says that it is one."""
        from huggingface_hub import HfApi

        if revision and _COMMIT.fullmatch(revision):
            if found := self.cached(revision):
                return found
            # The next request would be made again and again where there is no network.
            HfApi(**self.ours).model_info(self.name, revision=revision)
        folder = self.fetch(revision, [_CONFIG])
        _configuration(folder, shown)
        return self.cached(folder.name) or self.fetch(folder.name, BUNDLE_FILES)


def split_id(repo_id: str, revision: str | None = None) -> tuple[str, str | None]:
    """Take the revision out of ``owner/name@revision``.

    Args:
        repo_id: with a revision or without.
        revision: one that was given apart from it.

    Returns:
        ``owner/name`` and the revision, if there is one.

    Raises:
        BundleError: the name is none, or two revisions are given.
    """
    need_library(repo_id)
    name, at, own = repo_id.partition("@")
    if not _is_repo_id(name) or bool(own) != bool(at):
        raise BundleError(
            f"{repo_id!r} names no model of the hub: write owner/name, or owner/name@revision."
        )
    if own and revision and own != revision:
        raise BundleError(f"{repo_id} has a revision, and {revision!r} is another: give one.")
    return name, own or revision or None


def need_library(shown: str) -> None:
    """Make sure that `huggingface_hub` is installed.

    Args:
        shown: what the hub is needed for.

    Raises:
        BundleError: it is not.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise BundleError(
            f"{shown} is no path here, and the hub cannot be asked for it ({error}): install the "
            "client with `pip install huggingface-hub`."
        ) from error


@contextlib.contextmanager
def one_sentence(why: Callable[[Exception], str]) -> Iterator[None]:
    """Do what asks the hub; what fails is said once, and not by the client's log too.

    Args:
        why: makes a sentence of an error.

    Raises:
        BundleError: something failed.
    """
    log = logging.getLogger("huggingface_hub")
    level = log.level
    if level == logging.WARNING:  # the usual one: whoever asked for more gets it
        log.setLevel(logging.ERROR)
    try:
        yield
    except BundleError:
        raise
    except Exception as error:  # of the hub, of the network, of the disk
        raise BundleError(why(error)) from error
    finally:
        log.setLevel(level)


def _why_not(error: Exception, name: str, revision: str | None, shown: str) -> str:
    """Say why a model cannot be had, and what to do."""
    from huggingface_hub import errors

    if in_chain(error, errors.OfflineModeIsEnabled):
        return (
            f"{shown} is no path here and not whole in the cache, and HF_HUB_OFFLINE forbids to "
            "ask the hub for it: unset HF_HUB_OFFLINE, or give the path of a folder with the model."
        )
    if in_chain(error, errors.RevisionNotFoundError):
        return (
            f"{name} has no revision {revision!r} on the hub: name a branch, a tag or the full "
            "hash of a commit."
        )
    if in_chain(error, errors.GatedRepoError):  # which is a RepositoryNotFoundError too
        return (
            f"{name} is gated: ask for access on its page on the hub, and log in with "
            "`hf auth login`."
        )
    if in_chain(error, errors.RepositoryNotFoundError) or status_of(error) in (401, 404):
        return (
            f"{name} is no path here, and no model of the hub that you may see ({reason(error)}): "
            "check the name; if it is private, log in with `hf auth login` or give a token that "
            "is valid."
        )
    return (
        f"{shown} is no path here, and cannot be had from the hub ({reason(error)}): try again "
        "with a network, or give the path of a folder with the model; HF_HUB_OFFLINE=1 keeps to "
        "the cache."
    )


def in_chain(error: BaseException, kind: type[BaseException]) -> bool:
    """Say whether an error, or one that it came of, is of a kind.

    Args:
        error: the error.
        kind: the class.
    """
    return any(isinstance(link, kind) for link in _chain(error))


def status_of(error: BaseException) -> int | None:
    """Return the status with which the hub refused, if that is what an error came of.

    Args:
        error: the error.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for link in _chain(error):
        if isinstance(link, HfHubHTTPError):
            return int(link.response.status_code)
    return None


def reason(error: BaseException) -> str:
    """Return what an error came of, in one line.

    Args:
        error: the error.
    """
    *_, first = _chain(error)
    server: str | None = None
    for link in _chain(error):
        server = server or getattr(link, "server_message", None)
    lines = [line.strip() for line in (server or str(first)).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(first).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to the one that it came of first."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _bar(*, shown: bool) -> Any:
    """Make a class of progress bars that nobody sees, or whoever sits before a terminal."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options["disable"] = None if shown else True  # None: unless it is a terminal
            super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]

    return Bar


def _configuration(folder: Path, shown: str) -> dict[str, Any]:
    """Read a configuration, if it is that of a bundle."""
    file = folder / _CONFIG
    if not file.is_file():
        raise BundleError(
            f"{shown} is no seqlab model: it has no {_CONFIG}; see its page on the hub for how it "
            "is loaded."
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not (isinstance(found, dict) and all(key in found for key in _OURS)):
        raise BundleError(
            f"{shown} is no seqlab model: its {_CONFIG} is not that of a bundle; see its page on "
            "the hub for how it is loaded."
        )
    return read_config(folder)


def damaged_files(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Name the files of a bundle that are missing, or do not have their checksum.

    Args:
        folder: the bundle.
        config: its configuration.
    """
    wrong = []
    for name in BUNDLE_FILES:  # never a path that the configuration makes up
        if name in config["sha256"]:
            file = folder / name
            total = hashlib.sha256()
            if file.is_file():
                with open(file, "rb") as data:
                    while piece := data.read(1 << 20):
                        total.update(piece)
            if not file.is_file() or total.hexdigest() != config["sha256"][name]:
                wrong.append(name)
    return wrong


def _tell_commit(name: str, revision: str | None, commit: str) -> None:
    """Log what a branch or tag was resolved to; where none was given, with some advice, once."""
    if revision is None and name not in _told:
        _told.add(name)
        _LOG.warning("%s may change on the hub: pin it with @%s", name, commit)
    elif revision != commit:
        _LOG.info("%s@%s is the commit %s", name, revision or "main", commit)

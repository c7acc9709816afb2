"""Fixtures shared by all tests: caches and runs go to temporary folders, never to the user's."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

# Before torch is there: with models this small, several threads only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_REASON = "SEQLAB_DATA is unset: it names the folder with the real corpora"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("SEQLAB_CACHE")
    os.environ["SEQLAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("SEQLAB_CACHE")
    if before is not None:
        os.environ["SEQLAB_CACHE"] = before


@contextmanager
def _working_in(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SEQLAB_RUNS", raising=False)
        yield patch
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    signal.signal(signal.SIGINT, handler)  # the trainer ignores Ctrl-C once it has had one


@pytest.fixture(scope="session")
def working_in() -> Callable[[Path], AbstractContextManager[pytest.MonkeyPatch]]:
    """Run commands in a folder; what they leave in the process is undone."""
    return _working_in


@pytest.fixture(scope="session")
def make_translator() -> Callable[..., Any]:
    """Make small translators by hand, between two languages of the same few words."""
    import torch

    from seqlab.models.translator import Translator
    from seqlab.subwords import SubwordVocabulary, train_tokenizer

    sentences = [
        "the cat sat on the mat.",
        "a dog (brown) runs, he said.",
        "I see the cats and the dogs",
        "cat, dog and mat",
    ]
    small = {"hidden_size": 6, "embedding_size": 5, "decoder_size": 8, "dropout": 0.0}

    def make(
        kind: Any = "words", size: int = 300, cls: Any = Translator, seed: int = 1, **options: Any
    ) -> Any:
        tokenizer = train_tokenizer(iter(sentences), kind, size)
        source, target = (SubwordVocabulary(tokenizer, language=name) for name in ("en", "fr"))
        torch.manual_seed(seed)
        model = cls(source, target, **{**small, **options})
        for parameter in model.parameters():  # away from zero, lest all hypotheses be alike
            parameter.data.mul_(2.0).add_(torch.randn_like(parameter) * 0.1)
        return model

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "SEQLAB_DATA" in os.environ:
        return
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason=REAL_REASON))


@pytest.fixture
def corpora() -> Path:
    if "SEQLAB_DATA" not in os.environ:
        pytest.skip(REAL_REASON)
    return Path(os.environ["SEQLAB_DATA"])


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], Any]:
    """Open a page in headless Chromium; its script leaves "found" and JSON as the title."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    options += " --disable-background-networking --disable-component-update --disable-sync"

    def found(page: str) -> Any:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        command = [browser, *options.split(), f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [*command, "--dump-dom", file.as_uri()],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        match = re.search(r"<title>found(.*?)</title>", done.stdout)
        assert match, done.stderr[-2000:]
        return json.loads(html.unescape(match[1]))

    return found

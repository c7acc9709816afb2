"""Fixtures shared by all tests: caches and runs go to temporary folders, never to the user's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

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

"""Fixtures shared by all tests: caches and runs go to temporary folders, never to the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REAL_REASON = "SEQLAB_DATA is unset: it names the folder with the real corpora"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("SEQLAB_CACHE")
    os.environ["SEQLAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("SEQLAB_CACHE")
    if before is not None:
        os.environ["SEQLAB_CACHE"] = before


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

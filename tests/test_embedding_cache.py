from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqlab import embedding_cache
from seqlab.embedding_cache import EmbeddingCache, key_of


def states(tokens: int, seed: int) -> embedding_cache.Halves:
    return np.random.default_rng(seed).normal(size=(tokens, 3)).astype(np.float16)


def test_what_was_kept_is_found_again_by_another_process(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "one", 3)
    given = {key_of(["a"] * n): states(n, n) for n in range(1, 6)}
    for key, value in given.items():
        cache.add(key, value)
    assert cache.get(key_of(["b"])) is None
    cache.flush()
    cache.flush()  # nothing is new
    again = EmbeddingCache(tmp_path / "one", 3)
    assert len(again) == 5
    for key, value in given.items():
        for one in (cache, again):
            found = one.get(key)
            assert found is not None
            assert found.dtype == np.float16
            assert np.array_equal(found, value)
    assert len(list((tmp_path / "one").iterdir())) == 1


def test_much_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "_HELD", 100)
    cache = EmbeddingCache(tmp_path, 3)
    for n in range(1, 30):
        cache.add(key_of(["a"] * n), states(n, n))
    assert len(list(tmp_path.glob("*.arrow"))) > 1
    assert len(EmbeddingCache(tmp_path, 3)) >= 28


def test_two_processes_may_write_the_same(tmp_path: Path) -> None:
    for _ in range(2):
        cache = EmbeddingCache(tmp_path, 3)
        cache._known.clear()  # as if it had been opened before the other wrote
        cache.add(key_of(["a"]), states(1, 0))
        cache.flush()
    assert len(EmbeddingCache(tmp_path, 3)) == 1


def test_what_cannot_be_written_is_still_held(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    cache = EmbeddingCache(tmp_path / "file" / "folder", 3)
    cache.add(key_of(["a"]), states(1, 0))
    with pytest.raises(OSError, match="file"):
        cache.flush()
    assert cache.get(key_of(["a"])) is not None


def test_sentences_are_known_by_their_words() -> None:
    assert key_of(["a", "bc"]) != key_of(["ab", "c"])
    assert key_of([]) != key_of([""])
    assert key_of(["\ud800"]) == key_of(["\ud800"])

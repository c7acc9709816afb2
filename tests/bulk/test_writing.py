from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from seqlab.bulk.writing import partials, shard_file


def test_a_file_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a-00000.jsonl"
    with shard_file(path, "jsonl", "tagger") as writer:
        writer.write([{"row": 0, "text": "é"}, {"row": 1, "text": "\ud800"}])
        assert len(partials(tmp_path)) == 1
        assert not path.exists()
    assert path.read_text(encoding="utf-8").splitlines() == [
        '{"row": 0, "text": "é"}',
        '{"row": 1, "text": "\\ud800"}',
    ]
    assert partials(tmp_path) == []


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_broken_off_leaves_nothing(tmp_path: Path, form: str) -> None:
    def broken_off() -> None:
        with shard_file(tmp_path / f"a-00000.{form}", form, "classifier") as writer:
            writer.write([{"row": 0, "error": "bad"}])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert list(tmp_path.iterdir()) == []


def test_a_shard_without_rows_has_all_columns(tmp_path: Path) -> None:
    path = tmp_path / "a-00000.parquet"
    with shard_file(path, "parquet", "translator"):
        pass
    assert pq.read_table(path).column_names[:5] == ["row", "id", "error", "text", "translation"]

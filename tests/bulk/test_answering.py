from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab.bulk import answering
from seqlab.bulk.answering import Answerer, Setup, Unwritable, model_digest
from seqlab.bulk.inputs import Shard, cut_file
from seqlab.bulk.rows import Reading
from seqlab.errors import BundleError, DataError
from tests.test_bulk import bundles, read

__all__ = ["bundles"]  # a fixture


def setup_of(folder: Path, out: Path, kind: str = "translator") -> Setup:
    threads = torch.get_num_threads()
    reading = Reading(kind, {})
    return Setup(
        str(folder), model_digest(folder), str(out), "jsonl", reading, "cpu", False, threads
    )


def shard_of(path: Path, text: str, setup: Setup) -> Shard:
    path.write_text(text, encoding="utf-8")
    return next(cut_file(str(path), "a", setup.reading).shards("jsonl"))


def test_a_text_that_the_model_refuses_is_a_bad_row(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_BLOCK", 3)
    setup = setup_of(bundles / "translator", tmp_path)
    records: list[dict[str, Any]] = [{"source": f"cat {row}"} for row in range(7)]
    records[4] |= {"prefix": "the cat", "ban": ["the cat"]}
    records[5] |= {"require": ["\U0001f600"]}
    text = "".join(json.dumps(record) + "\n" for record in records)
    told: list[int] = []
    done = Answerer(setup).answer(shard_of(tmp_path / "in.jsonl", text, setup), told.append)
    assert told == [3, 3, 1]
    answers = read(tmp_path, "a-")
    bad = [answer for answer in answers if "error" in answer]
    assert [answer["row"] for answer in answers] == list(range(7))
    assert done.rows == 7
    assert done.bad == len(bad) > 0
    assert done.first == (bad[0]["row"], bad[0]["error"])


def test_a_file_that_changes_while_it_is_read_has_no_answers(bundles: Path, tmp_path: Path) -> None:
    setup = setup_of(bundles / "tagger", tmp_path, "tagger")
    shard = shard_of(tmp_path / "in.txt", "Ada\n", setup)
    (tmp_path / "in.txt").write_text("Ada\nLondon\n", encoding="utf-8")
    answerer = Answerer(setup)
    with pytest.raises(DataError, match="was changed while it was read: give the command again"):
        answerer.answer(shard, lambda rows: None)
    (tmp_path / "in.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="it is shorter now"):
        answerer.answer(shard, lambda rows: None)
    (tmp_path / "in.txt").unlink()
    with pytest.raises(DataError, match="cannot read"):
        answerer.answer(shard, lambda rows: None)
    assert read(tmp_path, "a-") == []


def test_a_place_that_cannot_be_written_is_no_fault_of_the_shard(
    bundles: Path, tmp_path: Path
) -> None:
    setup = setup_of(bundles / "tagger", tmp_path / "none", "tagger")
    with pytest.raises(Unwritable, match=r"cannot write .*No such file or directory; make room"):
        Answerer(setup).answer(shard_of(tmp_path / "in.txt", "Ada\n", setup), lambda rows: None)


def test_another_model_than_the_job_began_with_is_refused(bundles: Path, tmp_path: Path) -> None:
    setup = replace(setup_of(bundles / "tagger", tmp_path, "tagger"), digest="0")
    with pytest.raises(BundleError, match="is not the model that the job began with"):
        Answerer(setup)

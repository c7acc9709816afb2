from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from seqlab.bulk.job import FILE, Job
from seqlab.bulk.rows import Reading
from seqlab.errors import UsageError

IDENTITY = {"model": {"name": "m", "sha256": "1"}, "options": {"format": "jsonl"}}
TAGGER = Reading("tagger", {})


def take_in(job: Job, *paths: Path) -> tuple[list[str], list[str], list[str]]:
    said: list[str] = []
    shards, wrong = job.take_in(map(str, paths), TAGGER, "jsonl", said.append)
    return [shard.output for shard in shards], wrong, said


def test_files_keep_their_names_and_others_come_beside_them(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.txt", "A.jsonl", "x/a.txt")]
    (tmp_path / "x").mkdir()
    for path in paths:
        path.write_text("Ada\n", encoding="utf-8")
    job = Job.open(tmp_path / "out", IDENTITY)
    assert take_in(job, paths[0])[0] == ["a-00000.jsonl"]
    again = Job.open(tmp_path / "out", IDENTITY)
    names = ["a-00000.jsonl", "A.jsonl-00000.jsonl", "a.txt-00000.jsonl"]
    assert take_in(again, *paths) == (names, [], [])
    assert Job.open(tmp_path / "out", IDENTITY).files == again.files


def test_a_changed_file_loses_its_answers_and_a_touched_one_does_not(tmp_path: Path) -> None:
    path, out = tmp_path / "a.txt", tmp_path / "out"
    path.write_text("Ada\n", encoding="utf-8")
    (shard,) = Job.open(out, IDENTITY).take_in([str(path)], TAGGER, "jsonl", print)[0]
    (out / shard.output).write_text("answers", encoding="utf-8")
    os.utime(path, ns=(1, 1))
    job = Job.open(out, IDENTITY)
    assert take_in(job, path)[2] == []
    assert job.files[str(path)].is_there()
    assert job.is_done(shard)
    path.write_text("Bob\n", encoding="utf-8")
    job = Job.open(out, IDENTITY)
    assert take_in(job, path)[2] == [f"{path} has changed: its rows are answered again."]
    assert not job.is_done(shard)


def test_a_folder_is_for_one_command_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    job = Job.open(tmp_path / "out", IDENTITY)
    with (
        job.alone(),
        pytest.raises(UsageError, match="another command writes to"),
        Job.open(tmp_path / "out", IDENTITY).alone(),
    ):
        pass
    with job.alone():
        pass


def damaged(data: dict[str, Any]) -> str:
    return json.dumps(data)[:-5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "job.json is damaged: name another"),
        (lambda data: "[]", "job.json is damaged"),
        (lambda data: json.dumps({**data, "format": 2}), "was written by another seqlab"),
        (lambda data: json.dumps({**data, "options": {}}), r"\(format: None, and now jsonl\)"),
    ],
)
def test_what_a_folder_is_of_has_to_be_known(tmp_path: Path, change: Any, message: str) -> None:
    Job.open(tmp_path, IDENTITY).save()
    file = tmp_path / FILE
    file.write_text(change(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        Job.open(tmp_path, IDENTITY)

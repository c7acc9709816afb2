from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seqlab.bulk.answering import Done, Unwritable
from seqlab.bulk.engines import Crew, Event, Message, reply, work
from seqlab.bulk.inputs import Cut, InputFile, Shard
from seqlab.errors import DataError, SeqlabError

FILE = InputFile("/in/a.txt", "a", "text", 1, 1, "", (Cut(0, 10), Cut(10, 20), Cut(20, 30)))
SHARDS = list(FILE.shards("jsonl"))
Behaviour = Callable[[int, Shard], list[tuple[str, Any]]]


def done(worker: int, shard: Shard) -> list[tuple[str, Any]]:
    return [("rows", 4), ("done", Done(shard.rows))]


class Paper(Crew):
    """Workers that say what they are told to say."""

    def __init__(
        self, does: Behaviour, born: Callable[[int], str] = lambda number: "ready"
    ) -> None:
        self.does, self.born = does, born
        self.said: list[Message] = []
        self.started: list[int] = []
        self.given: list[str] = []

    def start(self, worker: int) -> None:
        self.started.append(worker)
        self.said.append(Message(worker, self.born(len(self.started)), "how"))

    def give(self, worker: int, shard: Shard) -> None:
        self.given.append(shard.output)
        self.said += [Message(worker, *one) for one in self.does(worker, shard)]

    def hear(self) -> list[Message]:
        return [self.said.pop(0)]

    def stop(self) -> None:
        self.said.clear()


def rows(events: list[Event]) -> int:
    return sum(event.rows for event in events)


def test_every_shard_is_done_once() -> None:
    crew = Paper(done)
    events = list(work(crew, SHARDS, 2))
    assert crew.started == [0, 1]
    assert [event.shard for event in events if event.done] == SHARDS
    assert rows(events) == 30
    assert list(work(Paper(done), [], 2)) == []


def test_the_shard_of_a_killed_worker_is_next() -> None:
    seen: list[Shard] = []

    def does(worker: int, shard: Shard) -> list[tuple[str, Any]]:
        seen.append(shard)
        return done(worker, shard) if len(seen) != 2 else [("rows", 4), ("killed", "signal 9")]

    crew = Paper(does)
    events = list(work(crew, SHARDS, 1))
    assert [shard.cut.start for shard in seen] == [0, 10, 10, 20]
    assert crew.started == [0, 0]
    assert rows(events) == 30


def test_a_shard_that_kills_three_is_set_aside() -> None:
    def does(worker: int, shard: Shard) -> list[tuple[str, Any]]:
        return [("killed", "signal 9")] if shard.cut.start == 10 else done(worker, shard)

    events = list(work(Paper(does), SHARDS, 1))
    assert [event.shard.cut.start for event in events if event.done] == [0, 20]
    (reason,) = [event.reason for event in events if event.reason]
    assert reason == "3 workers were killed while they read it (signal 9)."
    assert rows(events) == 30


def test_a_shard_that_cannot_be_read_is_set_aside() -> None:
    events = list(work(Paper(lambda worker, shard: [("failed", "why")]), SHARDS, 2))
    assert [event.reason for event in events] == ["why"] * 3
    assert rows(events) == 30


def test_workers_that_die_before_they_load_end_the_job() -> None:
    with pytest.raises(SeqlabError, match=r"3 workers in a row were killed .* \(how\): give fewer"):
        list(work(Paper(done, lambda number: "killed"), SHARDS, 2))
    often = Paper(done, lambda number: "ready" if number % 3 == 0 else "killed")
    assert rows(list(work(often, SHARDS, 1))) == 30
    with pytest.raises(SeqlabError, match="how"):
        list(work(Paper(done, lambda number: "broken"), SHARDS, 2))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (DataError("gone"), ("failed", "gone")),
        (Unwritable("full"), ("broken", "full")),
        (ZeroDivisionError("oh"), ("failed", "ZeroDivisionError: oh")),
    ],
)
def test_errors_are_put_into_words(error: Exception, wanted: tuple[str, str]) -> None:
    class Answerer:
        def answer(self, shard: Shard, tell: Any) -> Done:
            raise error

    assert reply(Answerer(), SHARDS[0], None) == wanted  # type: ignore[arg-type]

"""Who does the work: processes of this machine, and what is done when one of them is killed.

A crew has workers that answer one shard at a time. It only carries messages; which worker gets
which shard, and how often a shard is tried, is decided in :func:`work` for every crew alike.
"""

from __future__ import annotations

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from seqlab.bulk.answering import Answerer, Done, Setup, Unwritable
from seqlab.bulk.inputs import Shard
from seqlab.errors import SeqlabError

_TRIES = 3  # how many workers one shard may kill, and how many may die in a row before any loads


class Event(NamedTuple):
    """What happened to a shard: rows were answered, it is done, or it is set aside.

    Where the worker was killed, the rows that it had answered are taken back.
    """

    shard: Shard
    rows: int = 0
    done: Done | None = None
    reason: str | None = None


class Message(NamedTuple):
    """What a worker says: ``ready``, ``rows``, ``done``, ``failed``, ``broken`` or ``killed``."""

    worker: int
    kind: str
    value: Any = None


class Crew(ABC):
    """Workers by number."""

    @abstractmethod
    def start(self, worker: int) -> None:
        """Start a worker, which says that it is ready once it has loaded the model."""

    @abstractmethod
    def give(self, worker: int, shard: Shard) -> None:
        """Give a shard to a worker that has none."""

    @abstractmethod
    def hear(self) -> list[Message]:
        """Wait until a worker says something."""

    @abstractmethod
    def stop(self) -> None:
        """End all workers, whatever they do."""


def work(crew: Crew, shards: Sequence[Shard], workers: int) -> Iterator[Event]:
    """Have shards answered.

    Args:
        crew: by whom.
        shards: which, in the order in which they are begun.
        workers: how many work at once.

    Yields:
        what happens; every shard is done or set aside once.

    Raises:
        SeqlabError: no worker can load the model, or the answers cannot be written.
    """
    yield from _Work(crew, shards).events(workers)


class _Work:
    """Which worker has which shard, and which shards are left."""

    def __init__(self, crew: Crew, shards: Sequence[Shard]) -> None:
        self._crew = crew
        self._waiting = deque(shards)
        self._idle: list[int] = []
        self._busy: dict[int, tuple[Shard, int]] = {}  # with the rows that were told
        self._kills: Counter[str] = Counter()
        self._stillborn = 0  # workers in a row

    def events(self, workers: int) -> Iterator[Event]:
        for worker in range(min(workers, len(self._waiting))):
            self._crew.start(worker)
        while self._busy or self._waiting:
            while self._idle and self._waiting:
                worker = self._idle.pop()
                self._busy[worker] = self._waiting.popleft(), 0
                self._crew.give(worker, self._busy[worker][0])
            for message in self._crew.hear():
                event = self._heard(*message)
                if event is not None:
                    yield event

    def _heard(self, worker: int, kind: str, value: Any) -> Event | None:
        if kind == "broken":
            raise SeqlabError(value)
        if kind == "killed":
            return self._killed(worker, value)
        if kind == "ready":
            self._stillborn = 0
            self._idle.append(worker)
            return None
        shard, told = self._busy[worker]
        if kind == "rows":
            self._busy[worker] = shard, told + value
            return Event(shard, value)
        del self._busy[worker]
        self._idle.append(worker)
        if kind == "done":
            return Event(shard, shard.rows - told, done=value)
        return Event(shard, shard.rows - told, reason=value)

    def _killed(self, worker: int, how: str) -> Event | None:
        """Give the shard of a dead worker to another, and start one in its place."""
        event = None
        if worker in self._busy:
            shard, told = self._busy.pop(worker)
            self._kills[shard.output] += 1
            if self._kills[shard.output] < _TRIES:
                self._waiting.appendleft(shard)
                event = Event(shard, -told)
            else:
                reason = f"{_TRIES} workers were killed while they read it ({how})."
                event = Event(shard, shard.rows - told, reason=reason)
        elif worker in self._idle:
            self._idle.remove(worker)
        else:
            self._stillborn += 1
            if self._stillborn >= _TRIES:
                raise SeqlabError(
                    f"{_TRIES} workers in a row were killed before they had loaded the model "
                    f"({how}): give fewer --workers if memory is short."
                )
        if self._waiting:
            self._crew.start(worker)
        return event


class LocalCrew(Crew):
    """Processes of this machine.

    Each has a pipe of its own: a lock that all share, as a queue has, would be held for ever by a
    worker that is killed while it holds it.

    Args:
        setup: what the workers have to know.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._context = multiprocessing.get_context("spawn")  # torch's threads do not survive fork
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def start(self, worker: int) -> None:
        """Start a process."""
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._setup, worker)
        process = self._context.Process(target=_serve, args=arguments, daemon=True)
        with _without_interrupts():
            process.start()
        theirs.close()  # so that ours ends when the process does
        self._workers[worker] = process, ours

    def give(self, worker: int, shard: Shard) -> None:
        """Send a shard through the pipe; that a worker is dead is heard later."""
        with suppress(OSError):
            self._workers[worker][1].send(shard)

    def hear(self) -> list[Message]:
        """Wait for the pipes."""
        numbers = {pipe: worker for worker, (_, pipe) in self._workers.items()}
        said = []
        for pipe in wait(list(numbers)):
            assert isinstance(pipe, Connection)
            try:
                said.append(Message(numbers[pipe], *pipe.recv()))
            except (EOFError, OSError):
                said.append(self._buried(numbers[pipe]))
        return said

    def _buried(self, worker: int) -> Message:
        process, pipe = self._workers.pop(worker)
        pipe.close()
        process.join()
        code = process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        process.close()
        return Message(worker, "killed", how)

    def stop(self) -> None:
        """Kill the processes: what they write has no name before it is whole."""
        for process, _ in self._workers.values():
            process.kill()
        for process, pipe in self._workers.values():
            process.join()
            process.close()
            pipe.close()
        self._workers.clear()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let what is started here never hear Ctrl-C, which is for the process that leads."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, setup: Setup, worker: int) -> None:
    """Answer the shards that come through a pipe until its other end is closed."""
    with suppress(EOFError, OSError):
        try:
            answerer = Answerer(setup.on_device(worker))
        except SeqlabError as error:
            pipe.send(("broken", str(error)))
            return
        pipe.send(("ready", None))
        while True:
            shard: Shard = pipe.recv()
            pipe.send(reply(answerer, shard, lambda rows: pipe.send(("rows", rows))))


def reply(answerer: Answerer, shard: Shard, tell: Any) -> tuple[str, Any]:
    """Answer a shard, and put into words what goes wrong with it.

    Args:
        answerer: by what.
        shard: which.
        tell: see :meth:`seqlab.bulk.answering.Answerer.answer`.

    Returns:
        the kind of a message and its value.
    """
    try:
        return "done", answerer.answer(shard, tell)
    except Unwritable as error:
        return "broken", str(error)
    except SeqlabError as error:
        return "failed", str(error)
    except Exception as error:  # of one shard; the others may be well
        return "failed", f"{type(error).__name__}: {error}"

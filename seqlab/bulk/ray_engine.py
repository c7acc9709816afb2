"""Workers on a cluster of Ray, or on a local one.

The workers are plain actors, and not Ray Data's ``map_batches`` with a class: its pool of actors
restarts whatever dies and tries a block again without end, or fails the whole data set, so that one
shard that kills its workers could not be set aside; and it merges and splits blocks as it likes,
where a shard has to be answered as a whole to be written once. Actors that Ray neither restarts nor
asks twice leave both to :func:`seqlab.bulk.engines.work`.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
from contextlib import suppress
from typing import Any

from seqlab.bulk.answering import Answerer, Setup
from seqlab.bulk.engines import Crew, Message, reply
from seqlab.bulk.inputs import Shard
from seqlab.errors import MissingExtraError, SeqlabError

_PATIENCE = 10.0  # seconds after which it is asked whether the cluster still lives
_STORE = 80 << 20  # bytes of shared memory of a local cluster; only short messages travel


def the_ray() -> Any:
    """Import Ray.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a warning of the future
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error


class Cluster:
    """A connection to Ray: to the cluster that ``RAY_ADDRESS`` or Ray itself names, else a new one.

    Args:
        cpus: how many a local one is given.

    Raises:
        MissingExtraError: Ray is not installed.
        SeqlabError: there is no cluster at ``RAY_ADDRESS``.
    """

    def __init__(self, cpus: int) -> None:
        self.ray = the_ray()
        self._own = not self.ray.is_initialized()
        self._ends_by = signal.getsignal(signal.SIGTERM)  # Ray puts a handler of its own in place
        if self._own:
            self._connect(cpus)
        self._resources: dict[str, float] = self.ray.cluster_resources()

    def _connect(self, cpus: int) -> None:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            self.ray.init(address="auto", **quiet)
        except ConnectionError as error:
            if address := os.environ.get("RAY_ADDRESS"):
                raise SeqlabError(
                    f"no cluster of Ray answers at {address}: mend RAY_ADDRESS, or leave it out "
                    "for a local one."
                ) from error
            local = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE}
            self.ray.init(**local, **quiet)

    @property
    def cpus(self) -> int:
        """How many CPUs there are."""
        return max(1, int(self._resources.get("CPU", 1)))

    def gpus(self, workers: int) -> int:
        """Say how many GPUs each of so many workers can have: one or none."""
        return int(self._resources.get("GPU", 0) >= workers)

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self._own:
            self.ray.shutdown()
            here = threading.current_thread() is threading.main_thread()
            if here and self._ends_by is not None:
                signal.signal(signal.SIGTERM, self._ends_by)


class Worker:
    """An actor: a model in a process somewhere.

    Args:
        setup: what it has to know.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._answerer: Answerer | None = None

    def load(self) -> tuple[str, Any]:
        """Load the model, and say that it is ready or what is wrong."""
        try:
            self._answerer = Answerer(self._setup)
        except SeqlabError as error:
            return "broken", str(error)
        return "ready", None

    def answer(self, shard: Shard) -> tuple[str, Any]:
        """Answer a shard."""
        assert self._answerer is not None
        return reply(self._answerer, shard, lambda rows: None)


class RayCrew(Crew):
    """Actors. They tell of a shard when it is done, and not of its rows.

    Args:
        cluster: where they are.
        setup: what they have to know. The model, the input and the output are seen by all of them
            under the same paths.
        workers: how many there will be.
    """

    def __init__(self, cluster: Cluster, setup: Setup, workers: int) -> None:
        self._ray, self._setup = cluster.ray, setup
        few = workers <= cluster.cpus
        gpu = 0 if setup.device == "cpu" else cluster.gpus(workers)
        options = {"num_cpus": 1 if few else 0, "num_gpus": gpu}
        self._class = self._ray.remote(max_restarts=0, max_task_retries=0, **options)(Worker)
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, int] = {}  # what will be said, and by whom

    def start(self, worker: int) -> None:
        """Start an actor."""
        self._actors[worker] = actor = self._class.remote(self._setup)
        self._asked[actor.load.remote()] = worker

    def give(self, worker: int, shard: Shard) -> None:
        """Ask an actor to answer a shard."""
        self._asked[self._actors[worker].answer.remote(shard)] = worker

    def hear(self) -> list[Message]:
        """Wait for any actor.

        Raises:
            SeqlabError: the cluster has died, of which Ray's own wait never comes back.
        """
        ready: list[Any] = []
        while not ready:
            try:
                ready, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=_PATIENCE)
                alive = bool(ready) or any(node["Alive"] for node in self._ray.nodes())
            except self._ray.exceptions.RaySystemError:
                alive = False
            if not alive:
                raise SeqlabError(
                    "the cluster of Ray has died: what is done is kept, and the same command goes "
                    "on; a busy machine may be too slow for --engine ray."
                )
        return [self._said(one) for one in ready]

    def _said(self, one: Any) -> Message:
        worker = self._asked.pop(one)
        try:
            return Message(worker, *self._ray.get(one))
        except self._ray.exceptions.RayActorError:
            del self._actors[worker]
            return Message(worker, "killed", "its actor died")

    def stop(self) -> None:
        """Kill the actors."""
        for actor in self._actors.values():
            with suppress(Exception):  # the cluster may be gone
                self._ray.kill(actor)
        self._actors.clear()
        self._asked.clear()

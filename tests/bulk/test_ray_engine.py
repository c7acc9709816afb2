from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seqlab.bulk import inputs
from seqlab.bulk.answering import Setup
from seqlab.bulk.ray_engine import Cluster, RayCrew, the_ray
from seqlab.bulk.rows import Reading
from seqlab.bulk.writing import partials
from seqlab.errors import MissingExtraError, SeqlabError
from tests.test_bulk import bundles, killing, predict, read, records, write

__all__ = ["bundles", "predict"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]


def test_without_ray_it_is_said_what_brings_it(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write(tmp_path / "in", a_jsonl=records(1))
    with pytest.raises(MissingExtraError, match=r"pip install 'seqlab\[ray\]'"):
        predict("--engine", "ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A local cluster, which all tests share."""
    pytest.importorskip("ray")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ.pop("RAY_ADDRESS", None)
    ends_by = signal.getsignal(signal.SIGTERM)
    found = Cluster(2)
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before
    yield found
    found.close()
    assert signal.getsignal(signal.SIGTERM) is ends_by


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Ray are not ours
def test_actors_answer_as_processes_do_and_one_may_be_killed(
    predict: Any, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS", 6000)
    write(tmp_path / "in", a_jsonl=records(10_000), b_jsonl=[*records(5), {"text": None}])
    with killing(tmp_path / "out", "a-00000", 1) as killed:
        said = predict("--engine", "ray", "--workers", "2")
    assert len(killed) == 1
    assert "10,006 rows in " in said
    assert "1 of them bad" in said
    answers = read(tmp_path / "out", "a")
    assert [answer["id"] for answer in answers] == [one["id"] for one in records(10_000)]
    assert partials(tmp_path / "out") == []
    (tmp_path / "out" / "b-00000.jsonl").unlink()
    assert "2 shards done before" in predict("--engine", "local")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = the_ray() if pytest.importorskip("ray") else None

    def init(**options: Any) -> None:
        raise ConnectionError("nobody")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(SeqlabError, match=r"no cluster of Ray answers at 10\.0\.0\.1:6379"):
        Cluster(1)


def test_a_cluster_that_dies_ends_the_job() -> None:
    class Ray:
        """A cluster whose only machine is gone."""

        class exceptions:
            RaySystemError = OSError

        def remote(self, **options: Any) -> Any:
            return lambda cls: cls

        def wait(self, asked: list[Any], **options: Any) -> Any:
            return [], asked

        def nodes(self) -> list[dict[str, bool]]:
            return [{"Alive": False}]

    class Dead:
        ray, cpus = Ray(), 2

    setup = Setup("m", "0", "out", "jsonl", Reading("tagger", {}), device="cpu")
    crew = RayCrew(Dead(), setup, 1)  # type: ignore[arg-type]
    with pytest.raises(SeqlabError, match="the cluster of Ray has died: what is done is kept"):
        crew.hear()

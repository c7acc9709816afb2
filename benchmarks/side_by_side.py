"""What the benchmarks of speed share: contenders in turns, medians and ratios, dated results.

Not a benchmark itself: `benchmarks/crf.py`, `tagger.py` and `translate.py` import it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import recipes
from seqlab.report import hardware, versions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
PEERS = ROOT / "benchmarks" / "peers"
Timed = Callable[[int], dict[str, Any]]  # a contender: what it measures in a round


def facts(**more: str) -> dict[str, Any]:
    """Say what numbers hold for: machine, versions, commit, day, and how busy the machine was.

    Args:
        more: versions of what else took part.
    """
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "seqlab", "benchmarks/*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": recipes.commit() + ("+" if changed else ""),
        "hardware": hardware(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {**versions(), **more},
    }


class Worker:
    """A contender in a process of its own, started once and given orders; use it in a ``with``.

    Args:
        script: in ``benchmarks/peers``.
        python: of the contender.
        threads: that it may use.
        environment: variables for it alone.
        words: what else it is made from.

    Attributes:
        skipped: why it does not take part; empty where it does.
        versions: of what it is made of.
        peak_memory_mb: the most that it has held so far.
    """

    def __init__(
        self,
        script: str,
        *,
        corpus: Path,
        threads: int,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        **words: Any,
    ) -> None:
        self.skipped = ""
        self.versions: dict[str, str] = {}
        self.peak_memory_mb = 0.0
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        try:
            self._process = subprocess.Popen(
                [python, str(PEERS / script)],
                env={**os.environ, **own, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
            )
        except OSError as error:
            self._said.close()
            raise SystemExit(f"cannot start {python}: {error.strerror}.") from error
        self._script = script
        self._write({"corpus": str(corpus), "threads": threads, **words})
        self._started = False

    def start(self) -> None:
        """Wait until it is ready; others get ready meanwhile."""
        if not self._started:
            self._started = True
            self.versions = self._read().get("versions", {})

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Give an order and wait for the answer; nothing where the contender does not take part."""
        self.start()
        if self.skipped:
            return {}
        self._write({"do": do, **order})
        answer = self._read()
        return {} if self.skipped else answer

    def _write(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        answer: dict[str, Any] = json.loads(line)
        self.skipped = answer.get("skipped", "")
        self.peak_memory_mb = answer.pop("peak_memory_mb") or 0.0
        return answer

    def _fail(self) -> NoReturn:
        self._said.seek(0)
        tail = "".join(self._said.readlines()[-15:])
        raise SystemExit(f"{self._script} ended with code {self._process.wait()}:\n{tail}")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._said.close()


@contextlib.contextmanager
def started(
    made: Mapping[str, contextlib.AbstractContextManager[Worker]],
) -> Iterator[dict[str, Worker]]:
    """Wait until all are ready, which they get at the same time."""
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(worker) for name, worker in made.items()}
        for worker in workers.values():
            worker.start()
        yield workers


def python_of(known: Iterable[str], word: str) -> tuple[str, str]:
    """Read which Python a peer runs under, from the command line.

    Args:
        known: the peers.
        word: such as ``flair=ENV/bin/python``.
    """
    name, _, python = word.partition("=")
    if name not in known or not python:
        example = next(iter(known))
        raise argparse.ArgumentTypeError(f"write it as {example}=ENV/bin/python, not {word!r}")
    return name, python


def peers_of(known: Iterable[str], word: str) -> list[str]:
    """Read names of peers, parted by commas, from the command line."""
    names = [name for name in word.split(",") if name]
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(f"no peer {', '.join(unknown)}: choose {','.join(known)}")
    return names


def rounds_of(contenders: Mapping[str, Timed], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Let contenders measure in turns, so that a busy moment of the machine falls on all of them.

    Args:
        contenders: each measures once a round; what it returns first, in round 0, is warm-up, and
            one that returns nothing then does not take part.
        rounds: that count.

    Returns:
        what each measured, a round each.
    """
    taking_part = {name: run for name, run in contenders.items() if run(0)}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in taking_part}
    for number in range(1, rounds + 1):
        for name, run in taking_part.items():
            measured = run(number)
            if not measured:
                raise SystemExit(f"{name} took part no longer in round {number}.")
            found[name].append(measured)
    return found


def ratios(values: Sequence[float], base: Sequence[float] | None) -> float | None:
    """The median of the ratios of two contenders, round by round; None without the second."""
    if not base:
        return None
    return statistics.median(a / b for a, b in zip(values, base, strict=True))


def compared(
    measured: Mapping[str, list[float]], bases: Sequence[str], **columns: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Make the rows of a table: medians, and how many times as much as each of some others.

    Args:
        measured: for each contender a value a round, of which more is better.
        bases: the contenders that all are compared with; those that took no part are left out.
        columns: further values for each contender.
    """
    return [
        {
            "name": name,
            "median": statistics.median(values),
            "rounds": values,
            "ratios": {b: ratios(values, measured[b]) for b in bases if b in measured},
            **{key: column[name] for key, column in columns.items() if name in column},
        }
        for name, values in measured.items()
    ]


def keep(kind: str, part: str, record: Mapping[str, Any], file: Path | None = None) -> None:
    """Write a part's results into the file of the day; what is there of the same part goes.

    Args:
        kind: the benchmark, which is the folder of its files.
        part: of the benchmark.
        record: results with the facts they hold for.
        file: another file.
    """
    file = file or RESULTS / kind / f"{time.strftime('%Y-%m-%d')}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    kept[part] = record
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def newest(kind: str) -> dict[str, Any]:
    """Return the newest results of each part of a benchmark."""
    parts: dict[str, Any] = {}
    for file in sorted((RESULTS / kind).glob("*.json")):
        parts |= json.loads(file.read_text(encoding="utf-8"))
    return parts


def made_on(record: Mapping[str, Any]) -> str:
    """Say in a line what results hold for."""
    names = record["versions"].items()
    packages = ", ".join(f"{k} {v}" for k, v in names if k not in ("python", "seqlab"))
    return f"{record['date']} {record['commit']}; {record['hardware']}; {packages}."


def lines_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lay a table out in Markdown."""
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(row)} |" for row in cells]


def times(ratio: float | None) -> str:
    """Write how many times as much something is; nothing where there is no ratio."""
    if ratio is None:
        return ""
    return f"{ratio:.0f}×" if ratio >= 20 else f"{ratio:.1f}×" if ratio >= 2 else f"{ratio:.2f}×"


def bar(ratio: float | None, least: float | None) -> str:
    """Say that a ratio does not reach what is wanted, and nothing where it does."""
    if ratio is None or least is None or ratio >= least:
        return ""
    return f"under the bar of {least:g}×"

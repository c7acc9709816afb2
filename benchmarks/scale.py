"""What more processes, a GPU, and many of them are worth in training.

    export SEQLAB_DATA=/where/your/corpora/are          # ud-en-ewt and multi30k-en-de
    python benchmarks/scale.py processes                # one and two CPU processes
    python benchmarks/scale.py gpu                      # on an NVIDIA GPU
    python benchmarks/scale.py model                    # a calculation for 8 and 64 GPUs
    python benchmarks/scale.py table                    # into docs/scale.md; --check: compare

Every contender is `seqlab fit`'s own training, in fresh processes, without validation; they take
turns, round by round. `--quick` runs on the embedded samples: is all in order?
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import side_by_side
import torch
from side_by_side import PEERS, ROOT, compared, lines_of, made_on, times

import recipes
from seqlab.nn.kernels import VARIABLE

PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- scale: written by benchmarks/scale.py table -->", "<!-- end of scale -->"
# Recipe, what it changes, and what it changes where all has to be quick.
MODELS: dict[str, tuple[str, list[str], list[str]]] = {
    "tagger": ("benchmarks/tagger.yaml", [], ["--data.path", "sample:ner"]),
    "translator": (
        "recipes/translate-multi30k.yaml",
        ["--model.precision", "exact"],
        ["--data.path", "sample:translation", "--data.source_language", "fr"]
        + ["--data.vocabulary_size", "500", "--data.test", "null"],
    ),
}
ONE, TWO_THREADS, TWO = "1 process, 1 thread", "1 process, 2 threads", "2 processes, 1 thread each"
# Processes, threads of each.
SHARES = {ONE: (1, 1), TWO_THREADS: (1, 2), TWO: (2, 1)}
# Value of SEQLAB_KERNELS, and overrides.
WAYS: dict[str, tuple[str, list[str]]] = {
    "fp32, plain": ("plain", []),
    "fp32, kernels": ("auto", []),
    "bf16, plain": ("plain", ["--model.precision", "fast"]),
    "bf16, kernels": ("auto", ["--model.precision", "fast"]),
}
COMPILED = {
    "fine-tuned MiniLM": [],
    "fine-tuned MiniLM, compiled": ["--model.embedder.compile", "true"],
}
# Bytes a second in one direction, as published: a ring sends and receives at once.
NVLINK = 450e9  # NVLink 4: 900 GB/s of a GPU in both directions (NVIDIA H200 data sheet)
INFINIBAND = 50e9  # NDR: 400 Gb/s of one ConnectX-7 for each GPU (NVIDIA DGX H200 user guide)
GPUS_OF_NODE = 8
Contender = Callable[[], dict[str, Any]]


def fitted(
    args: argparse.Namespace, recipe: str, words: Sequence[str], threads: int, kernels: str = "auto"
) -> dict[str, Any]:
    """Train for some steps in fresh processes, and return what was measured."""
    own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), VARIABLE: kernels}
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    own["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    script = [sys.executable, str(PEERS / "timed_fit.py"), str(ROOT / recipe)]
    done = subprocess.run(
        [*script, str(args.steps), str(args.warm), *words],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{recipe} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def raced(
    part: str, model: str, contenders: Mapping[str, Contender], rounds: int
) -> dict[str, Any]:
    """Measure contenders in turns; returns the rows of a table."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(rounds):  # each has steps of its own to get warm
        for name, run in contenders.items():
            found[name].append(run())
    speeds = {name: [one["tokens_per_second"] for one in some] for name, some in found.items()}
    columns = {
        key: {name: statistics.median(one[key] for one in some) for name, some in found.items()}
        for key in ("step_ms", "tokens_per_step", "gradient_bytes")
    }
    rows = compared(speeds, [next(iter(contenders))], **columns)
    for row in rows:
        print(f"{part}  {model}  {row['name']:28}{row['median']:12,.0f} tokens/s", flush=True)
    return {"model": model, "rows": rows}


def words_of(args: argparse.Namespace, model: str) -> list[str]:
    _, words, quick = MODELS[model]
    return [*words, *(quick if args.quick else [])]


def processes(args: argparse.Namespace) -> dict[str, Any]:
    """Train the tagger and the translator in one and in two CPU processes."""

    def contender(model: str, share: str) -> Contender:
        count, threads = SHARES[share]
        words = ["--trainer.accelerator", "cpu", "--trainer.devices", str(count)]
        return lambda: fitted(args, MODELS[model][0], [*words_of(args, model), *words], threads)

    return {
        "models": [
            raced("processes", model, {s: contender(model, s) for s in SHARES}, args.rounds)
            for model in args.models
        ]
    }


def gpu(args: argparse.Namespace) -> dict[str, Any]:
    """Train on a GPU: in both precisions, with and without kernels, and an encoder compiled."""
    if not torch.cuda.is_available():
        raise SystemExit("There is no NVIDIA GPU here: `processes` and `model` need none.")
    words = ["--trainer.accelerator", "gpu", "--trainer.devices", "1"]

    def contender(model: str, way: str) -> Contender:
        kernels, changes = WAYS[way]
        given = [*words_of(args, model), *words, *changes]
        return lambda: fitted(args, MODELS[model][0], given, 1, kernels)

    def encoder(way: str) -> Contender:
        given = [*words, *COMPILED[way]]
        return lambda: fitted(args, "recipes/ner-bert.yaml", given, 1)

    models = [
        raced("gpu", model, {w: contender(model, w) for w in WAYS}, args.rounds)
        for model in args.models
    ]
    models.append(raced("gpu", "encoder", {w: encoder(w) for w in COMPILED}, args.rounds))
    return {"models": models, "gpu": torch.cuda.get_device_name()}


def all_reduce_seconds(size: float, gpus: int) -> float:
    """Calculate how long a ring takes to add gradients up: ``2 (n - 1) / n`` of their bytes.

    Within a machine over NVLink; over several, each GPU's part goes round over its own network
    card after it was added up inside, and is handed out inside again.

    Args:
        size: bytes of the gradients.
        gpus: in all; 8 in a machine.

    Example:
        >>> all_reduce_seconds(450e9, 2)
        1.0
    """
    inside = min(gpus, GPUS_OF_NODE)
    nodes = gpus // inside
    seconds = 2 * (inside - 1) / inside * size / NVLINK
    return seconds + 2 * (nodes - 1) / nodes * (size / inside) / INFINIBAND


def calculated(row: Mapping[str, Any], gpus: int, hidden: float) -> dict[str, float]:
    """Calculate a step on many GPUs from one that was measured on one.

    Args:
        row: with ``step_ms``, ``tokens_per_step`` and ``gradient_bytes``.
        gpus: how many.
        hidden: share of the step that communication may hide behind: DDP sends the gradients of the
            last layers while those of the first are computed.
    """
    step = row["step_ms"] / 1e3
    sent = all_reduce_seconds(row["gradient_bytes"], gpus)
    whole = step + max(0.0, sent - hidden * step)
    return {
        "sent_ms": 1e3 * sent,
        "step_ms": 1e3 * whole,
        "tokens_per_second": gpus * row["tokens_per_step"] / whole,
        "efficiency": step / whole,
    }


def model(args: argparse.Namespace) -> None:
    """Print the calculation."""
    print("\n".join(model_table(measured(args.step_ms), args.hidden)))


def measured(step_ms: float | None = None) -> list[dict[str, Any]]:
    """The fastest way of each model that was measured on one device: on a GPU, or else here."""
    newest = side_by_side.newest("scale")
    part = "gpu" if "gpu" in newest else "processes"
    if part not in newest:
        raise SystemExit("Nothing was measured yet: run `python benchmarks/scale.py processes`.")
    rows = []
    for kind in newest[part]["models"]:
        alone = [row for row in kind["rows"] if not row["name"].startswith("2")]
        best = max(alone, key=lambda row: row["median"])
        place = newest[part].get("gpu", "this CPU")
        rows.append({**best, "model": kind["model"], "where": f"{best['name']}, {place}"})
    return [row if step_ms is None else {**row, "step_ms": step_ms} for row in rows]


def model_table(rows: Sequence[Mapping[str, Any]], hidden: float) -> Iterator[str]:
    """Lay the calculation out."""
    yield (
        "**A calculation, not a measurement.** Every GPU takes the step that was measured on one "
        "device, with a batch of its own. Gradients go round in rings: 450 GB/s one way over "
        "NVLink 4 within a machine of 8 GPUs (NVIDIA H200 data sheet: 900 GB/s both ways), 50 GB/s "
        "one way for each GPU over NDR InfiniBand between machines (NVIDIA DGX H200 user guide: "
        f"ConnectX-7, 400 Gb/s). {hidden:.0%} of a step can hide that. Latency, stragglers and the "
        "reading of data are left out."
    )
    yield ""
    head = ["model", "step measured", "bytes added up a step"]
    body = []
    for row in rows:
        found = [row["model"], f"{row['step_ms']:.1f} ms ({row['where']})"]
        found.append(f"{row['gradient_bytes'] / 1e6:.1f} MB")
        for gpus in (8, 64):
            made = calculated(row, gpus, hidden)
            found.append(
                f"{made['sent_ms']:.2f} ms to send, {made['step_ms']:.1f} ms a step, "
                f"{made['efficiency']:.0%}"
            )
        body.append(found)
    yield from lines_of([*head, "8 GPUs", "64 GPUs"], body)


def table() -> str:
    """Lay out the newest results, and what is calculated from them."""
    newest = side_by_side.newest("scale")
    if not newest:
        return "Nothing was measured yet."
    parts: list[str] = []
    for part in ("processes", "gpu"):
        if part not in newest:
            continue
        record = newest[part]
        body = [
            [kind["model"], row["name"], f"{row['median']:,.0f}"]
            + [times(next(iter(row["ratios"].values()))), f"{row['step_ms']:.1f}"]
            for kind in record["models"]
            for row in kind["rows"]
        ]
        parts += lines_of(["model", "trained by", "tokens/s", "of the first", "ms a step"], body)
        note = f" {record['note']}" if record.get("note") else ""
        said = f"Medians of {record['rounds']} rounds of {record['steps']} steps; {made_on(record)}"
        parts += ["", f"{said}{note}", ""]
    parts += model_table(measured(), 0.5)
    return "\n".join(parts)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "processes": processes,
    "gpu": gpu,
}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for part, run in PARTS.items():
        add = verbs.add_parser(part, help=(run.__doc__ or "").splitlines()[0]).add_argument
        add("--rounds", type=int, default=3)
        add("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
        add("--steps", type=int, default=100, help="of a process, that are timed in a round")
        add("--warm", type=int, default=20, help="steps before")
        add("--note", default="", help="kept with the numbers, such as what else the machine did")
        add("--quick", action="store_true", help="the samples, one round, nothing kept")
        add("--results", type=Path, help="file to keep the numbers in")
    add = verbs.add_parser("model", help="a calculation for 8 and 64 GPUs").add_argument
    add("--step-ms", type=float, help="of one device; by default as measured")
    add("--hidden", type=float, default=0.5, help="share of a step that hides communication")
    add = verbs.add_parser("table", help="write the tables of docs/scale.md").add_argument
    add("--check", action="store_true", help="only compare")
    args = parser.parse_args()
    if getattr(args, "quick", False):
        args.rounds, args.steps, args.warm = 1, 3, 1
    return args


def main() -> int:
    args = parsed()
    if args.verb == "table":
        return recipes.write_between(BEGIN, END, table(), "benchmarks/scale.py", args.check, PAGE)
    if args.verb == "model":
        model(args)
        return 0
    if not args.quick and "SEQLAB_DATA" not in os.environ:
        raise SystemExit("Set SEQLAB_DATA to where your corpora are, or give --quick.")
    facts = side_by_side.facts()
    record = PARTS[args.verb](args)
    if args.results or not args.quick:
        kept = {**facts, "rounds": args.rounds, "steps": args.steps, "note": args.note, **record}
        side_by_side.keep("scale", args.verb, kept, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

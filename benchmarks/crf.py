"""What a CRF costs: seqlab's beside pytorch-crf and TorchCRF, and how exact each of them is.

    python benchmarks/crf.py                   # all that can run here; keeps the numbers
    python benchmarks/crf.py speed --rounds 21 # or: exact, memory, gpu; only these parts
    python benchmarks/crf.py --quick           # seconds: is everything in order?
    python benchmarks/crf.py table             # into docs/speed.md; --check: compare

Speed: the likelihood with its gradient, and the best tags as Python lists, each called as its user
calls it, in turns, round by round. Exact: gradients against a plain CRF in float64.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import side_by_side
import torch
from peers.worker import peak_memory_mb
from side_by_side import lines_of, times
from torch import Tensor, nn

import recipes
import seqlab
from seqlab.errors import SeqlabError
from seqlab.nn.kernels import VARIABLE

BEGIN, END = "<!-- crf: written by benchmarks/crf.py table -->", "<!-- end of crf -->"
SHAPES = [(32, 30, 17), (64, 60, 17), (32, 120, 50), (256, 40, 9)]
GPU_SHAPES = [(256, 64, 17), (64, 256, 75)]
BASE = "pytorch-crf"
BARS = {  # how many times as fast as pytorch-crf
    ("nll", "seqlab plain"): 5,
    ("nll", "seqlab native"): 40,
    ("nll", "seqlab triton"): 50,
    ("decode", "seqlab plain"): 2.5,
    ("decode", "seqlab native"): 50,
}
SCALES = {1: 0.1, 5: 2.0, 20: 5.0, 100: 30.0, 1000: 300.0}  # of emissions, and of transitions
EXACT = (32, 60, 17)
SMALL = (2, 5, 3)
HEAVY = (32, 120, 50)  # where memory is looked at
SPAN = 0.02  # seconds that a contender works at a stretch, at least


class Contender(NamedTuple):
    """A CRF, and how its user calls it.

    Attributes:
        make: a layer for a number of tags.
        loss: the negative log-likelihood of a layer, emissions, tags and mask, a scalar.
        decode: the best tags of a layer, emissions and mask, as lists.
        kernels: value of SEQLAB_KERNELS.
        weights: names of start, transition and end scores.
    """

    make: Callable[[int], nn.Module]
    loss: Callable[[Any, Tensor, Tensor, Tensor], Tensor]
    decode: Callable[[Any, Tensor, Tensor], list[list[int]]]
    kernels: str = "auto"
    weights: tuple[str, str, str] = ("start_transitions", "transitions", "end_transitions")


def _pytorch_crf(tags: int) -> nn.Module:
    from torchcrf import CRF

    return CRF(tags, batch_first=True)  # type: ignore[no-any-return]


def _torch_crf(tags: int) -> nn.Module:
    from TorchCRF import CRF

    return CRF(tags)  # type: ignore[no-any-return]


def _ours(kernels: str) -> Contender:
    return Contender(
        lambda tags: seqlab.CRF(tags, batch_first=True),
        lambda crf, e, y, mask: -crf(e, y, mask),
        lambda crf, e, mask: crf.decode(e, mask),
        kernels,
    )


CONTENDERS = {
    BASE: Contender(
        _pytorch_crf,
        lambda crf, e, y, mask: -crf(e, y, mask=mask),
        lambda crf, e, mask: crf.decode(e, mask=mask),
    ),
    "TorchCRF": Contender(
        _torch_crf,
        lambda crf, e, y, mask: -crf(e, y, mask).sum(),
        lambda crf, e, mask: crf.viterbi_decode(e, mask),
        weights=("start_trans", "trans_matrix", "end_trans"),
    ),
    "seqlab plain": _ours("plain"),
    "seqlab native": _ours("native"),
    "seqlab triton": _ours("triton"),
}
OPERATIONS = {"nll": "likelihood and gradient", "decode": "best tags, as Python lists"}


@contextlib.contextmanager
def kernels(value: str) -> Iterator[None]:
    """Set the switch for a while."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = value
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def case(
    shape: tuple[int, int, int], ragged: bool, device: str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Emissions ``(batch, time, tag)``, tags and mask ``(batch, time)``; always the same."""
    batch, time_, tags = shape
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(max(1, time_ // 4), time_ + 1, (batch,), generator=generator)
    lengths[0] = time_
    mask = torch.arange(time_) < (lengths if ragged else torch.full((batch,), time_))[:, None]
    emissions = torch.randn(batch, time_, tags, generator=generator)
    gold = torch.randint(0, tags, (batch, time_), generator=generator)
    return emissions.to(device), gold.to(device), mask.to(device)


def operation(
    name: str, contender: Contender, crf: nn.Module, given: tuple[Tensor, Tensor, Tensor]
) -> Callable[[], Any]:
    """Make what is timed: a step of training, or decoding."""
    emissions, gold, mask = given
    if name == "decode":

        @torch.no_grad()
        def decode() -> Any:
            return contender.decode(crf, emissions, mask)

        return decode

    def nll() -> None:
        leaf = emissions.detach().requires_grad_()
        contender.loss(crf, leaf, gold, mask).backward()
        crf.zero_grad()

    return nll


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Time one run, as the mean of some in a row."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def timed(
    run: Callable[[], Any], switch: str, skipped: dict[str, str], name: str
) -> side_by_side.Timed:
    """Make a contender's round; round 0 warms up and says how many runs make a stretch."""
    repeats = 1

    def once(number: int) -> dict[str, Any]:
        nonlocal repeats
        with kernels(switch):
            if number:
                return {"seconds": seconds(run, repeats)}
            try:
                run()
            except SeqlabError as error:
                skipped[name] = str(error)
                return {}
            repeats = max(1, math.ceil(SPAN / seconds(run, 2)))
            return {"seconds": seconds(run, repeats)}

    return once


def layers(
    names: list[str], tags: int, skipped: dict[str, str], device: str = "cpu"
) -> dict[str, nn.Module]:
    """Make the layers of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = CONTENDERS[name].make(tags).to(device)
        except ImportError:
            skipped[name] = f"not installed: run `pip install {name}`."
    return found


def speed(
    shapes: list[tuple[int, int, int]], names: list[str], rounds: int, device: str = "cpu"
) -> dict[str, Any]:
    """Time everything at every shape, full and ragged, in turns."""
    rows, skipped = [], dict[str, str]()
    for shape in shapes:
        torch.manual_seed(1)
        made = layers([n for n in names if n not in skipped], shape[2], skipped, device)
        for ragged in (False, True):
            given = case(shape, ragged, device)
            for what in OPERATIONS:
                runs = {
                    name: timed(
                        operation(what, CONTENDERS[name], crf, given),
                        CONTENDERS[name].kernels,
                        skipped,
                        name,
                    )
                    for name, crf in made.items()
                    if name not in skipped
                }
                measured = side_by_side.rounds_of(runs, rounds)
                speeds = {n: [1 / r["seconds"] for r in found] for n, found in measured.items()}
                for row in side_by_side.compared(speeds, [BASE]):
                    ms = [round(1e3 / value, 5) for value in row.pop("rounds")]
                    made_of = {"what": what, "shape": shape, "ragged": ragged, "rounds": ms}
                    rows.append({"name": row["name"], "ms": 1e3 / row["median"], **made_of})
                    rows[-1]["ratio"] = row["ratios"].get(BASE)
                    print(_shown(rows[-1]), flush=True)
    return {"rounds": rounds, "rows": rows, "skipped": skipped}


def _shown(row: Mapping[str, Any]) -> str:
    sizes = ",".join(map(str, row["shape"])) + (" ragged" if row["ragged"] else "")
    real = row["shape"] in (*SHAPES, *GPU_SHAPES)
    remark = side_by_side.bar(row["ratio"], BARS.get((row["what"], row["name"])) if real else None)
    words = f"{row['what']:8}{sizes:18}{row['name']:15}{row['ms']:9.3f} ms"
    return f"{words}{times(row['ratio']):>8}  {remark}".rstrip()


def reference(e: Tensor, gold: Tensor, weights: list[Tensor]) -> Tensor:
    """The negative log-likelihood of full sentences, step by step, by the definition."""
    start, between, end = weights
    total = start + e[:, 0]  # (batch, tag)
    chosen = e.gather(2, gold[:, :, None]).sum() + start[gold[:, 0]].sum()
    chosen = chosen + between[gold[:, :-1], gold[:, 1:]].sum() + end[gold[:, -1]].sum()
    for t in range(1, e.shape[1]):
        total = (total[:, :, None] + between).logsumexp(1) + e[:, t]
    return (total + end).logsumexp(1).sum() - chosen


def exact(
    shape: tuple[int, int, int], scales: Mapping[int, float], names: list[str]
) -> dict[str, Any]:
    """Compare the gradients of everything with those in float64, by the greatest difference."""
    rows, skipped = [], dict[str, str]()
    for scale, between in scales.items():
        torch.manual_seed(1)
        emissions, gold, mask = case(shape, ragged=False)
        emissions = emissions * scale
        sizes = [(shape[2],), (shape[2], shape[2]), (shape[2],)]
        weights = [torch.randn(size) * between for size in sizes]
        truth = [x.double().requires_grad_() for x in (emissions, *weights)]
        reference(truth[0], gold, truth[1:]).backward()
        for name, crf in layers([n for n in names if n not in skipped], shape[2], skipped).items():
            contender = CONTENDERS[name]
            own = [getattr(crf, each) for each in contender.weights]
            for parameter, value in zip(own, weights, strict=True):
                parameter.data.copy_(value)
            leaf = emissions.clone().requires_grad_()
            try:
                with kernels(contender.kernels):
                    contender.loss(crf, leaf, gold, mask).backward()
            except SeqlabError as error:
                skipped[name] = str(error)
                continue
            found = [x.grad for x in (leaf, *own)]
            worst = max(
                float((a.double() - b.grad).abs().max()) if bool(a.isfinite().all()) else math.inf
                for a, b in zip(found, truth, strict=True)
            )
            said = f"{worst:.1e}" if math.isfinite(worst) else "NaN"
            rows.append({"name": name, "scale": scale, "error": said})
            print(f"exact   scale {scale:<12}{name:15}{said:>9}", flush=True)
    return {"shape": shape, "rows": rows, "skipped": skipped}


def memory(names: list[str]) -> dict[str, Any]:
    """Say what a step of training adds to the memory of a process, each in one of its own."""
    rows = []
    for name in names:
        command = [sys.executable, str(Path(__file__).resolve()), "--grown", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr.strip()}")
        if done.stdout.strip():
            rows.append({"name": name, "mb": float(done.stdout)})
            print(f"memory  {','.join(map(str, HEAVY)):18}{name:15}{rows[-1]['mb']:9.1f} MB")
    return {"shape": HEAVY, "rows": rows, "skipped": {}}


def grown(name: str) -> int:
    """Print by how many MB a step of training raises the peak of this process."""
    contender = CONTENDERS[name]
    made = layers([name], HEAVY[2], {})
    small, large = (case(shape, ragged=False) for shape in ((2, 3, HEAVY[2]), HEAVY))
    for crf in made.values():
        with kernels(contender.kernels):
            try:
                operation("nll", contender, crf, small)()
            except SeqlabError:
                return 0
            before = peak_memory_mb() or 0.0
            for _ in range(3):
                operation("nll", contender, crf, large)()
            print(round((peak_memory_mb() or 0.0) - before, 1))
    return 0


def table() -> str:
    """Make the tables of the newest results."""
    parts = side_by_side.newest("crf")
    blocks: list[str] = []
    for part in ("speed", "gpu"):
        if part in parts:
            blocks += _speed_tables(parts[part])
    if "exact" in parts:
        blocks += _by_name(parts["exact"], "scale", "error", "greatest error of a gradient")
    if "memory" in parts:
        rows = [[row["name"], f"{row['mb']:.1f}"] for row in parts["memory"]["rows"]]
        sizes = ", ".join(map(str, HEAVY))
        head = [f"likelihood and gradient at {sizes}", "MB that it adds to the process"]
        blocks.append("\n".join(lines_of(head, rows)))
        blocks.append(side_by_side.made_on(parts["memory"]))
    return "\n\n".join(blocks)


def _speed_tables(record: Mapping[str, Any]) -> Iterator[str]:
    for what, title in OPERATIONS.items():
        rows = [row for row in record["rows"] if row["what"] == what]
        kinds = list(dict.fromkeys((tuple(row["shape"]), row["ragged"]) for row in rows))
        head = [", ".join(map(str, s)) + (" ragged" if ragged else "") for s, ragged in kinds]
        body = []
        for name in dict.fromkeys(row["name"] for row in rows):
            own = {(tuple(r["shape"]), r["ragged"]): r for r in rows if r["name"] == name}
            cells = [f"{own[k]['ms']:.3g} {_in_brackets(own[k])}" for k in kinds if k in own]
            body.append([name, *(cell.strip() for cell in cells)])
        yield "\n".join(lines_of([f"{title}, ms", *head], body))
    yield f"Medians of {record['rounds']} rounds; {side_by_side.made_on(record)}"


def _in_brackets(row: Mapping[str, Any]) -> str:
    return f"({times(row['ratio'])})" if row["name"] != BASE and row["ratio"] else ""


def _by_name(record: Mapping[str, Any], across: str, value: str, title: str) -> Iterator[str]:
    rows = record["rows"]
    columns = list(dict.fromkeys(row[across] for row in rows))
    body = [
        [name, *(row[value] for row in rows if row["name"] == name)]
        for name in dict.fromkeys(row["name"] for row in rows)
    ]
    yield "\n".join(lines_of([title, *(f"{across} {x}" for x in columns)], body))
    yield side_by_side.made_on(record)


def peers() -> dict[str, str]:
    found = {}
    for name in ("pytorch-crf", "TorchCRF"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def measure(part: str, args: argparse.Namespace) -> dict[str, Any]:
    elsewhere = "seqlab native" if part == "gpu" else "seqlab triton"
    names = [name for name in args.contenders if name != elsewhere]
    if part == "gpu":
        return speed(GPU_SHAPES, names, args.rounds, "cuda")
    if part == "exact":
        return exact(SMALL, {20: 5.0}, names) if args.quick else exact(EXACT, SCALES, names)
    if part == "memory":
        return memory(names)
    return speed([SMALL] if args.quick else SHAPES, names, args.rounds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("speed", "exact", "memory", "gpu", "table")
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="all that can run, if none")
    every = list(CONTENDERS)
    parser.add_argument("--contenders", nargs="+", choices=every, default=every, metavar="NAME")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="small shapes, one round, none kept")
    parser.add_argument("--results", type=Path, help="file to keep the numbers in")
    parser.add_argument("--check", action="store_true", help="with table: only compare")
    parser.add_argument("--grown", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = parsed()
    torch.set_num_threads(args.threads)
    if args.grown:
        return grown(args.grown)
    if args.parts == ["table"]:
        page = side_by_side.PAGE
        return recipes.write_between(BEGIN, END, table(), "benchmarks/crf.py", args.check, page)
    if "table" in args.parts:
        raise SystemExit("`table` stands alone: `python benchmarks/crf.py table`.")
    here = ["speed", "exact", "memory"] + ["gpu"] * torch.cuda.is_available()
    if "gpu" in args.parts and "gpu" not in here:
        raise SystemExit("There is no NVIDIA GPU here: leave `gpu` out.")
    args.rounds = 1 if args.quick else args.rounds
    for part in args.parts or here:
        record = {**side_by_side.facts(**peers()), "threads": args.threads, **measure(part, args)}
        record["peak_memory_mb"] = peak_memory_mb()
        for name, why in record["skipped"].items():
            print(f"{part}: {name} is left out: {' '.join(why.split())}")
        if args.results or not args.quick:
            side_by_side.keep("crf", part, json.loads(json.dumps(record)), args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the recurrent cells cost and what they are worth.

    python benchmarks/cells.py speed                     # one layer, beside nn.LSTM
    python benchmarks/cells.py speed --threads 2 --hidden 256 --json
    python benchmarks/cells.py compare --seeds 1 2 3     # equal parameters, two recipes, kept
    python benchmarks/cells.py table                     # into recipes/README.md; --check: compare

`speed` times every cell side by side with `torch.nn.LSTM` of the same size, round by round, and
quotes medians. `compare` reads real corpora through SEQLAB_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import recipes
from seqlab.configuration import build
from seqlab.nn.cells import CELLS, draw_noise, make_layer, read
from seqlab.nn.encoders import RecurrentEncoder
from seqlab.report import hardware

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "cells"
BEGIN, END = "<!-- cells: written by benchmarks/cells.py table -->", "<!-- end of cells -->"
COMPARED = {"pos-ewt": 5, "sentiment-rt": 4}  # recipes, and how many epochs each has
CONTENDERS: dict[str, dict[str, Any]] = {
    **{cell: {} for cell in CELLS},
    "rnn relu": {"nonlinearity": "relu"},
}
KEPT = ("seed", "val/accuracy", "test/accuracy", "best_epoch", "epochs", "parameters")
KEPT += ("train/seconds", "train/tokens_per_second", "peak_memory_mb", "hardware", "versions")

VARIANTS: dict[str, dict[str, Any]] = {
    **{cell: {} for cell in CELLS},
    "rnn relu": {"nonlinearity": "relu"},
    "lstm projected": {"proj_size": 0.5},
    "lstm recurrent dropout": {"recurrent_dropout": 0.2},
    "lstm zoneout": {"zoneout": 0.1},
    "gru recurrent dropout": {"recurrent_dropout": 0.2},
}


def passes(name: str, args: argparse.Namespace) -> Callable[[], None]:
    """Make a function that runs one layer forwards and backwards."""
    options = dict(VARIANTS[name])
    noise = {key: options.pop(key, 0.0) for key in ("recurrent_dropout", "zoneout")}
    if "proj_size" in options:
        options["proj_size"] = int(args.hidden * options["proj_size"])
    cell = name.split()[0]
    layers = [make_layer(cell, args.input, args.hidden, **options) for _ in range(args.directions)]
    x = torch.randn(args.batch, args.time, args.input, requires_grad=True)
    shape = (args.batch, args.time)

    def run() -> None:
        drawn = draw_noise(layers, shape, x, training=True, **noise)
        found = read(layers, [x] * len(layers), None, drawn)
        _backward(torch.cat([out for out, _ in found], -1), [x, *_weights(layers)])

    return run


def reference(args: argparse.Namespace) -> Callable[[], None]:
    """Make a function that runs `nn.LSTM`, a call a direction, as the encoder does."""
    layers = [nn.LSTM(args.input, args.hidden, batch_first=True) for _ in range(args.directions)]
    x = torch.randn(args.batch, args.time, args.input, requires_grad=True)

    def run() -> None:
        _backward(torch.cat([layer(x)[0] for layer in layers], -1), [x, *_weights(layers)])

    return run


def _weights(layers: list[Any]) -> list[Tensor]:
    return [weight for layer in layers for weight in layer.parameters()]


def _backward(out: Tensor, leaves: list[Tensor]) -> None:
    torch.autograd.grad(out.sum(), leaves)


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def speed(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    base = reference(args)
    rows = []
    for name in args.cells or VARIANTS:
        run = passes(name, args)
        for _ in range(3):
            base(), run()
        pairs = [(seconds(base), seconds(run)) for _ in range(args.rounds)]
        ours, torchs = (statistics.median(p[i] for p in pairs) for i in (1, 0))
        ratio = statistics.median(a / b for a, b in pairs)
        tokens = args.batch * args.time / ours
        rows.append(
            {"cell": name, "ms": ours * 1e3, "lstm_ms": torchs * 1e3, "ratio": ratio}
            | {"tokens_per_second": tokens}
        )
    if args.json:
        size = {k: getattr(args, k) for k in ("batch", "time", "input", "hidden", "directions")}
        print(json.dumps({"hardware": hardware(), **size, "rounds": args.rounds, "rows": rows}))
        return 0
    print(
        f"batch {args.batch}, time {args.time}, input {args.input}, hidden {args.hidden}, "
        f"directions {args.directions}; {hardware()}; medians of {args.rounds} rounds"
    )
    print(f"{'cell':24}{'ms':>9}{'nn.LSTM ms':>12}{'speed by nn.LSTM':>18}{'tokens/s':>11}")
    for row in rows:
        print(
            f"{row['cell']:24}{row['ms']:9.2f}{row['lstm_ms']:12.2f}{row['ratio']:18.2f}"
            f"{row['tokens_per_second']:11,.0f}"
        )
    return 0


def encoder_size(input_size: int, hidden_size: int, cell: str, **options: Any) -> int:
    """Count the parameters of a recipe's encoder with another cell."""
    encoder = RecurrentEncoder(input_size, hidden_size, cell=cell, **options)
    return sum(p.numel() for p in encoder.parameters())


def equal_size(input_size: int, hidden_size: int, cell: str, **options: Any) -> int:
    """Find the hidden size with which a cell has as many parameters as the LSTM, or nearly."""
    wanted = encoder_size(input_size, hidden_size, "lstm")
    low, high = 1, 2
    while encoder_size(input_size, high, cell, **options) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        below = encoder_size(input_size, middle, cell, **options) < wanted
        low, high = (middle, high) if below else (low, middle)
    return min(
        (low, high), key=lambda n: abs(encoder_size(input_size, n, cell, **options) - wanted)
    )


def sizes_of(recipe: str) -> tuple[int, int]:
    """Input size and hidden size of a recipe's encoder."""
    cli = build(ROOT / "recipes" / f"{recipe}.yaml", [])
    return cli.model.embedder.output_size, cli.model.config["hidden_size"]


def compare(args: argparse.Namespace) -> int:
    for recipe in args.recipes or COMPARED:
        input_size, hidden_size = sizes_of(recipe)
        for seed in args.seeds:
            for name in args.cells or CONTENDERS:
                file = RESULTS / recipe / f"{name.replace(' ', '-')}-seed-{seed}.json"
                if file.exists() and not args.again:
                    continue
                options = CONTENDERS[name]
                cell = name.split()[0]
                size = equal_size(input_size, hidden_size, cell, **options)
                words = ["--model.cell", cell, "--model.hidden_size", str(size)]
                words += [w for k, v in options.items() for w in (f"--model.{k}", str(v))]
                words += ["--trainer.max_epochs", str(COMPARED[recipe])]
                metrics = recipes.fit(recipe, "--seed_everything", str(seed), *words)
                kept = {k: metrics[k] for k in KEPT if k in metrics}
                kept |= {"cell": name, "hidden_size": size, "commit": recipes.commit()}
                kept["encoder_parameters"] = encoder_size(input_size, size, cell, **options)
                kept["date"] = time.strftime("%Y-%m-%d")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
                print(f"{recipe} {name} seed {seed}: {kept['test/accuracy']:.4f}", flush=True)
    return 0


def table() -> str:
    """Make the tables of all compared recipes."""
    blocks = []
    for recipe, epochs in COMPARED.items():
        runs = [
            json.loads(file.read_text(encoding="utf-8"))
            for file in sorted((RESULTS / recipe).glob("*.json"))
        ]
        if not runs:
            continue
        lines = [
            f"**{recipe}**, {epochs} epochs:",
            "",
            "| cell | hidden | encoder parameters | test accuracy, mean ± sd | seeds "
            "| dev | s an epoch | train tokens/s |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        rows = {name: [r for r in runs if r["cell"] == name] for name in CONTENDERS}
        for name, found in rows.items():
            if found:
                lines.append(_row(name, found))
        made = sorted({f"{r['date']} {r['commit']}" for r in runs})
        where = " / ".join(sorted({r["hardware"] for r in runs}))
        blocks.append("\n".join([*lines, "", f"{where}; {', '.join(made)}."]))
    return "\n\n".join(blocks)


def _row(name: str, runs: list[dict[str, Any]]) -> str:
    scores = [100 * run["test/accuracy"] for run in runs]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    dev = statistics.mean(100 * run["val/accuracy"] for run in runs)
    seconds_each = statistics.median(run["train/seconds"] / run["epochs"] for run in runs)
    speed_each = statistics.median(run["train/tokens_per_second"] for run in runs)
    seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in runs))
    return (
        f"| {name} | {runs[0]['hidden_size']} | {runs[0]['encoder_parameters']:,} "
        f"| **{statistics.mean(scores):.2f}**{spread} | {seeds} | {dev:.2f} "
        f"| {seconds_each:.1f} | {speed_each:,.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    sub = verbs.add_parser("speed")
    sub.add_argument("cells", nargs="*", choices=[[], *VARIANTS], help="all by default")
    for key, value in (("batch", 32), ("time", 25), ("input", 160), ("hidden", 200)):
        sub.add_argument(f"--{key}", type=int, default=value)
    sub.add_argument("--directions", type=int, default=2, choices=(1, 2))
    sub.add_argument("--threads", type=int, default=torch.get_num_threads())
    sub.add_argument("--rounds", type=int, default=21)
    sub.add_argument("--json", action="store_true")
    sub = verbs.add_parser("compare")
    sub.add_argument("--recipes", nargs="+", choices=list(COMPARED))
    sub.add_argument("--cells", nargs="+", choices=list(CONTENDERS))
    sub.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    sub.add_argument("--again", action="store_true", help="also what is kept already")
    verbs.add_parser("table").add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.verb == "table":
        return recipes.write_between(BEGIN, END, table(), "benchmarks/cells.py", args.check)
    return speed(args) if args.verb == "speed" else compare(args)


if __name__ == "__main__":
    sys.exit(main())

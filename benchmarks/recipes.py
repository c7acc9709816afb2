"""Scores, speed and memory of the shipped recipes, and the table in recipes/README.md.

    python benchmarks/recipes.py scores --seeds 1 2 3            # fit, keep each run's metrics.json
    python benchmarks/recipes.py speed                           # one epoch each: tokens/s, memory
    python benchmarks/recipes.py table                           # write the table; --check: compare

The recipes of real corpora look for them through SEQLAB_DATA and are left out, by name, without it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "recipes" / "results"
README = ROOT / "recipes" / "README.md"
BEGIN, END = "<!-- scores: written by benchmarks/recipes.py table -->", "<!-- end of scores -->"
BEGIN_TEXT = "<!-- translations: written by benchmarks/recipes.py table -->"
END_TEXT = "<!-- end of translations -->"
# The score of the test split by what chose the epoch: its key, its name, and what makes it percent.
SCORES = {
    "val/span_f1": ("test/span_f1", "span F1", 100),
    "val/accuracy": ("test/accuracy", "accuracy", 100),
    "val/bleu": ("test/bleu", "BLEU", 1),
}
# Recipes that are run in more than one way: how a way is called, and what makes it.
WAYS = {
    "translate-multi30k": {
        "de-en": (),
        "en-de": ("--data.source_language", "en", "--data.target_language", "de"),
    },
    "translate-tatoeba": {
        "en-fr": (),
        "fr-en": (
            *("--data.source_language", "fr", "--data.target_language", "en"),
            *("--data.columns", "{source: 1, target: 0}"),
        ),
    },
}


def chosen(names: list[str]) -> list[str]:
    found = {p.stem: p for p in sorted((ROOT / "recipes").glob("*.yaml"))}
    if unknown := set(names) - set(found):
        raise SystemExit(f"no recipe {', '.join(sorted(unknown))}: there are {', '.join(found)}.")
    wanted = names or list(found)
    real = [n for n in wanted if "SEQLAB_DATA" in found[n].read_text(encoding="utf-8")]
    if "SEQLAB_DATA" not in os.environ and real:
        print(f"left out, as SEQLAB_DATA is unset: {', '.join(real)}", file=sys.stderr)
        wanted = [n for n in wanted if n not in real]
    return wanted


def fit(name: str, *overrides: str) -> dict[str, Any]:
    """Run a recipe in a process of its own and return its metrics."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "seqlab", "fit", str(ROOT / "recipes" / f"{name}.yaml")]
        environment = {**os.environ, "SEQLAB_RUNS": runs}
        done = subprocess.run(
            [*command, *overrides], env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE
        )
        if done.returncode:
            raise SystemExit(f"{name} failed with code {done.returncode}.")
        file = next(Path(runs).glob("*/1/metrics.json"))
        return dict(json.loads(file.read_text(encoding="utf-8")))


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def scores(names: list[str], seeds: list[int]) -> None:
    runs = [
        (name, way, words, seed)
        for name in chosen(names)
        for way, words in WAYS.get(name, {"": ()}).items()
        for seed in seeds
    ]
    for name, way, words, seed in runs:
        metrics = fit(name, "--seed_everything", str(seed), *words)
        metrics["date"] = time.strftime("%Y-%m-%d")
        metrics["commit"] = commit()
        folder = RESULTS / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(metrics, indent=1, ensure_ascii=False)
        stem = f"{way}-seed-{seed}" if way else f"seed-{seed}"
        (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
        key = SCORES[metrics["monitor"]][0]
        print(f"{name} {stem}: {key} {metrics[key]:.4f}", flush=True)


def speed(names: list[str], epochs: int) -> None:
    print(f"{'recipe':18}{'train tokens/s':>16}{'test tokens/s':>15}{'peak MB':>9}  hardware")
    for name in chosen(names):
        m = fit(name, "--trainer.max_epochs", str(epochs))
        print(
            f"{name:18}{m['train/tokens_per_second']:16,.0f}{m['test/tokens_per_second']:15,.0f}"
            f"{m['peak_memory_mb']:9,.0f}  {m['hardware']}",
            flush=True,
        )


def kept() -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Read the metrics that are kept: the recipe, how it was run, and its runs by seed."""
    for folder in sorted(p for p in RESULTS.glob("*") if p.is_dir()):
        ways: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(folder.glob("*.json")):
            way = file.stem.rpartition("seed-")[0].rstrip("-")
            ways.setdefault(way, []).append(json.loads(file.read_text(encoding="utf-8")))
        for way, runs in ways.items():
            yield folder.name, way, runs


def table() -> str:
    """Make the table from the kept metrics."""
    lines = [
        "| recipe | score on test | mean ± sd | seeds | dev | training s | train tokens/s "
        "| peak MB | hardware | date, commit |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, way, runs in kept():
        monitor = runs[0]["monitor"]
        key, title, scale = SCORES[monitor]
        values = [scale * run[key] for run in runs]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        dev = statistics.mean(scale * run[monitor] for run in runs)
        middle = {
            k: statistics.median(run[k] for run in runs)
            for k in ("train/seconds", "train/tokens_per_second", "peak_memory_mb")
        }
        seeds = ", ".join(str(s) for s in sorted(run["seed"] for run in runs))
        made = ", ".join(sorted({f"{run['date']} {run['commit']}" for run in runs}))
        lines.append(
            f"| [{name}]({name}.yaml){f' {way}' if way else ''} | {title} "
            f"| **{statistics.mean(values):.2f}**{spread} "
            f"| {seeds} | {dev:.2f} | {middle['train/seconds']:,.0f} "
            f"| {middle['train/tokens_per_second']:,.0f} | {middle['peak_memory_mb']:,.0f} "
            f"| {' / '.join(sorted({run['hardware'] for run in runs}))} | {made} |"
        )
    return "\n".join(lines)


def translations() -> str:
    """Make the table of all scores of translators, with their signatures."""
    names = {"bleu": "BLEU", "bleu_lowercased": "BLEU, lower case", "chrf": "chrF", "ter": "TER"}
    lines = [
        f"| recipe | seeds | {' | '.join(names.values())} | perplexity | parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    signatures: dict[str, str] = {}
    for name, way, runs in kept():
        if "test/bleu" not in runs[0]:
            continue
        cells = []
        for key in [*names, "perplexity"]:
            values = [run[f"test/{key}"] for run in runs]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}")
        seeds = ", ".join(str(s) for s in sorted(run["seed"] for run in runs))
        size = f"{runs[0]['parameters']:,}"
        lines.append(f"| {name} {way} | {seeds} | {' | '.join(cells)} | {size} |")
        for run in runs:
            signatures |= {names[key]: f"`{s}`" for key, s in run["test/scorer"].items()}
    said = ", ".join(f"{name} {signature}" for name, signature in signatures.items())
    return "\n".join([*lines, "", f"sacrebleu: {said}." if said else ""]).rstrip()


def write_table(check: bool) -> int:
    script = "benchmarks/recipes.py"
    codes = [write_between(BEGIN, END, table(), script, check)]
    if BEGIN_TEXT in README.read_text(encoding="utf-8"):
        codes.append(write_between(BEGIN_TEXT, END_TEXT, translations(), script, check))
    return max(codes)


def write_between(
    begin: str, end: str, made: str, script: str, check: bool, page: Path | None = None
) -> int:
    """Put a table between two marks of a page, or only say whether it stands there."""
    page = page or README
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    fresh = f"{head}{begin}\n\n{made}\n\n{end}{rest.split(end)[1]}"
    if check:
        same = fresh == text
        print(
            "the table fits the results"
            if same
            else f"{page.parent.name}/{page.name} disagrees with the results: "
            f"run `python {script} table`"
        )
        return 0 if same else 1
    page.write_text(fresh, encoding="utf-8")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("scores", "speed"):
        sub = verbs.add_parser(verb)
        sub.add_argument("recipes", nargs="*", help="names; all by default")
        if verb == "scores":
            sub.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
        else:
            sub.add_argument("--epochs", type=int, default=1)
    verbs.add_parser("table").add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.verb == "table":
        return write_table(args.check)
    if args.verb == "scores":
        scores(args.recipes, args.seeds)
    else:
        speed(args.recipes, args.epochs)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How start-up and memory grow with the corpus.

    python benchmarks/corpora.py memory                          # 10 k, 100 k and 1 M sentences
    python benchmarks/corpora.py memory --sentences 10000 --tasks tagging
    python benchmarks/corpora.py memory --quick                  # is all in order?
    python benchmarks/corpora.py table                           # into docs/scale.md, or --check

`memory` draws corpora, begins to train on each of them several times, and keeps how long it takes
until the first step, and the resident memory while training. The first time the corpus is read;
then it is in the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import side_by_side
from peers.synthetic import TASKS, write_corpus
from side_by_side import PEERS, ROOT, lines_of

import recipes

PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- corpora: written by benchmarks/corpora.py table -->", "<!-- end of corpora -->"
STEPS = 20  # of training
RECIPES = {"tagging": "ner", "classification": "sentiment", "translation": "translate"}
# Small models, so that the corpus is what is measured; rare words are left to the unknown row.
WORDS = {
    "tagging": ["--data.min_count", "5", "--model.embedding_size", "25"],
    "classification": ["--data.min_count", "5", "--model.embedding_size", "25"],
    "translation": ["--data.source_language", "en", "--data.target_language", "xx"]
    + ["--data.vocabulary_size", "8000"],
}
TRAINER = {"max_epochs": 1, "limit_train_batches": STEPS, "limit_val_batches": 2}


def began(task: str, corpus: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Train for some steps in a process of its own; return what that took."""
    own = {
        "SEQLAB_CACHE": str(folder / "cache"),
        "SEQLAB_RUNS": str(folder / "runs"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(threads),
    }
    words = [RECIPES[task], "--data.path", str(corpus), *WORDS[task]]
    words += [word for key, value in TRAINER.items() for word in (f"--trainer.{key}", str(value))]
    command = [sys.executable, str(PEERS / "first_steps.py"), str(time.time()), *words]
    done = subprocess.run(
        command, env=os.environ | own, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with code {done.returncode}:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def starts(task: str, sentences: int, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Draw a corpus and begin to train on it, once with a cold cache and then with a warm one."""
    corpus = folder / f"{task}-{sentences}"
    write_corpus(corpus, task, sentences)
    size = sum(file.stat().st_size for file in corpus.iterdir())
    first = began(task, corpus, folder, args.threads)
    again = [began(task, corpus, folder, args.threads) for _ in range(args.rounds)]
    kept = sum(f.stat().st_size for f in (folder / "cache" / "datasets").rglob("*") if f.is_file())
    shutil.rmtree(corpus)
    shutil.rmtree(folder / "cache" / "datasets")
    return {
        "task": task,
        "sentences": sentences,
        "corpus_mb": round(size / 1e6, 1),
        "cache_mb": round(kept / 1e6, 1),
        "rounds": args.rounds,
        "first": first,
        "again": min(again, key=lambda report: report["first_step"] - report["imports"]),
    }


def memory(args: argparse.Namespace) -> int:
    if not Path("/proc/self/status").exists():
        raise SystemExit("this reads the memory of a process from /proc, which only Linux has.")
    rows = []
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder = Path(name)
        for task in args.tasks:
            if not args.quick:  # kernels are compiled before anything is measured
                starts(task, 200, folder, argparse.Namespace(threads=args.threads, rounds=1))
            for sentences in args.sentences:
                rows.append(starts(task, sentences, folder, args))
                print(said(rows[-1]), flush=True)
    if args.results or not args.quick:
        kept = {**side_by_side.facts(), "threads": args.threads}
        side_by_side.keep("corpora", "memory", {**kept, "rows": rows}, args.results)
    return 0


def preparing(report: Mapping[str, Any]) -> float:
    """Seconds until the first step, imports left out."""
    return float(report["first_step"] - report["imports"])


def said(row: Mapping[str, Any]) -> str:
    first, again = row["first"], row["again"]
    return (
        f"memory  {row['task']:14} {row['sentences']:>9,} sentences: first step after "
        f"{preparing(first):.1f} s, again {preparing(again):.1f} s ({again['busy']:.1f} s of a "
        f"processor), plus imports of "
        f"{again['imports']:.1f} s; {again['steady']['anonymous']:,.0f} MB anonymous "
        f"(most {again['peak_anonymous']:,.0f}, first {first['peak_anonymous']:,.0f}), "
        f"{again['steady']['mapped']:,.0f} MB mapped, {again['parameters']:,} parameters"
    )


def memory_table(record: Mapping[str, Any]) -> Iterator[str]:
    """Make the table of corpora: a row a task and size."""
    head = ["task", "sentences", "corpus MB", "cache MB", "parameters", "first start, s"]
    head += ["second start, s", "of a processor, s", "imports, s", "own memory, MB", "mapped, MB"]
    body = []
    for row in record["rows"]:
        again = row["again"]
        sizes = [row["corpus_mb"], row["cache_mb"], again["parameters"]]
        times = [preparing(row["first"]), preparing(again), again["busy"], again["imports"]]
        held = [again["steady"]["anonymous"], again["steady"]["mapped"]]
        body.append(
            [row["task"], f"{row['sentences']:,}"]
            + [f"{number:,.0f}" for number in sizes]
            + [f"{seconds:.1f}" for seconds in times]
            + [f"{number:,.0f}" for number in held]
        )
    yield "\n".join(lines_of(head, body))
    rounds = sorted({row["rounds"] for row in record["rows"]})
    yield (
        f"{STEPS} steps; the best of {' or '.join(map(str, rounds))} second starts, beside other "
        f"jobs (load up to {record['load']:g}). {side_by_side.made_on(record)}"
    )


TABLES: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {"memory": memory_table}


def table(args: argparse.Namespace) -> int:
    parts = side_by_side.newest("corpora")
    made = "\n\n".join(
        block for part, blocks in TABLES.items() if part in parts for block in blocks(parts[part])
    )
    return recipes.write_between(BEGIN, END, made, "benchmarks/corpora.py", args.check, PAGE)


def add_memory(verbs: Any) -> None:
    sub = verbs.add_parser("memory", help="start-up time and memory by the size of the corpus")
    sub.set_defaults(run=memory)
    sub.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    sub.add_argument("--sentences", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    sub.add_argument("--rounds", type=int, default=3, help="starts with a warm cache")
    sub.add_argument("--threads", type=int, default=1)
    sub.add_argument("--scratch", type=Path, help="folder with room for corpora and their caches")
    sub.add_argument("--quick", action="store_true", help="one small corpus, nothing kept")
    sub.add_argument("--results", type=Path, help="file to keep the numbers in")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_memory(verbs)
    sub = verbs.add_parser("table", help="write the tables of the newest results")
    sub.set_defaults(run=table)
    sub.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args()
    if getattr(args, "quick", False):
        args.tasks, args.sentences, args.rounds = ["tagging"], [300], 1
    return args


def main() -> int:
    args = parsed()
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Many rows by several workers, one of which is killed on the way: is every row there once?

    python benchmarks/bulk.py                        # 200,000 sentences, two processes
    python benchmarks/bulk.py --engine ray           # the same by Ray
    python benchmarks/bulk.py --rows 4000 --files 2  # a short one

The sentences are drawn at random and kept in several parquet files. `seqlab predict` answers them;
as soon as a shard is begun that is not of the first file, its worker gets SIGKILL. Then all answers
are read and held against the input.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
SENTENCE = "time flies like an arrow while many small dogs in London read old books about rivers"


def make(folder: Path, rows: int, files: int) -> list[list[str]]:
    """Write the files, and return the ids of each."""
    draw, words = random.Random(1), SENTENCE.split()
    folder.mkdir()
    found = []
    for number in range(files):
        ids = [f"{number}-{row}" for row in range(rows // files + (number < rows % files))]
        texts = [" ".join(draw.choices(words, k=draw.randint(4, 24))) + "." for _ in ids]
        pq.write_table(pa.table({"id": ids, "text": texts}), folder / f"part-{number}.parquet")
        found.append(ids)
    return found


def kill_one(output: Path, process: subprocess.Popen[bytes]) -> str | None:
    """Kill the worker of the first shard that is begun and not of the first file."""
    while process.poll() is None:
        for path in output.glob(".part-*.partial"):
            if not path.name.startswith(".part-0-"):
                try:
                    os.kill(int(path.name.split(".")[-2]), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return path.name.split(".")[1]
        time.sleep(0.001)
    return None


def check(output: Path, ids: list[list[str]]) -> str | None:
    """Say what is wrong with the answers, if anything is."""
    for number, wanted in enumerate(ids):
        answers = [
            json.loads(line)
            for path in sorted(output.glob(f"part-{number}-*.jsonl"))
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        if [answer["id"] for answer in answers] != wanted:
            return (
                f"part-{number}: {len(answers):,} answers to {len(wanted):,} rows, or not in order"
            )
        if [answer["row"] for answer in answers] != list(range(len(wanted))):
            return f"part-{number}: rows are not numbered in order"
        if any("error" in answer or not answer["tokens"] for answer in answers):
            return f"part-{number}: rows without an answer"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--engine", default="local", choices=["local", "ray"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="en-pos", help="a tagger")
    args = parser.parse_args()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in", Path(folder) / "out"
        ids = make(source, args.rows, args.files)
        words = ["predict", args.model, "--input", str(source), "--output", str(output)]
        words += ["--engine", args.engine, "--workers", str(args.workers)]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "seqlab", *words], env=os.environ | {"PYTHONPATH": path}
        )
        killed = kill_one(output, process)
        code = process.wait()
        seconds = time.perf_counter() - start
        wrong = f"exit code {code}" if code else check(output, ids)
    if wrong is not None or killed is None:
        print(f"bulk: {wrong or 'no worker was killed'}", file=sys.stderr)
        return 1
    print(
        f"bulk  {args.engine}, {args.workers} workers, one killed at {killed}: {args.rows:,} rows "
        f"in {seconds:.1f} s with the start, {args.rows / seconds:,.0f} rows/s; every row once"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

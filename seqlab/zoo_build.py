"""``seqlab zoo``: the models that seqlab's makers train, and how anybody makes them again.

Each has a recipe in ``recipes/zoo``, what it is packed with in ``models.json`` there, and the
receipt of the wheel that was released in ``receipts``. To build one is to train its seeds, to pack
the first of them, and to say how the result compares with that receipt.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqlab import package, runs
from seqlab.errors import Parser, UsageError, nearest
from seqlab.recipe import zoo_folder

_CLOSE = 0.01  # by how much a score may differ, of 1: seeds differ by less


def _parser() -> Parser:
    parser = Parser(
        prog="seqlab zoo",
        usage="seqlab zoo | build NAME [--out DIR] [--seeds N ...] [--data.path DIR]",
        description="List the models of the zoo, or train and pack one of them.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("words", metavar="build NAME", nargs="*", help="the model to build")
    add("--out", metavar="DIR", default="dist", help="where the wheel is written (dist)")
    add("--seeds", metavar="N", type=int, nargs="+", help="to train (those of the zoo)")
    add("--data.path", dest="data", metavar="DIR", help="where its corpus is")
    add("--fresh", action="store_true", help="train again what is finished in runs/NAME")
    return parser


def run(argv: Sequence[str]) -> int:
    """List the zoo, or build a model of it.

    Args:
        argv: what follows ``seqlab zoo``.

    Returns:
        0, or 1 where the score is not that of the receipt.

    Raises:
        UsageError: there is no such model, or nothing else can be done with one.
        SeqlabError: what training and packing raise.
    """
    given = _parser().parse_intermixed_args(argv)
    known = models()
    if not given.words:
        print(_table(known))
        return 0
    action, *names = given.words
    if action != "build" or len(names) != 1:
        raise UsageError(
            f"`seqlab zoo {' '.join(given.words)}`: write `seqlab zoo` or `seqlab zoo build NAME`."
        )
    name = names[0]
    if name not in known:
        raise UsageError(
            f"the zoo has no model {name!r}: there are {', '.join(known)}.{nearest(name, known)}"
        )
    about = known[name]
    seeds = given.seeds or about["seeds"]
    data = [] if given.data is None else ["--data.path", given.data]
    folders = [_trained(name, seed, data, given.fresh) for seed in seeds]
    words = [*map(str, folders), "--name", name, "--version", about["version"], "--out", given.out]
    for option in ("language", "license", "summary", "attribution"):
        words += [f"--{option}", about[option]]
    words += ["--example", about["example"]] if "example" in about else []
    if about["storage"] != "float32":
        words += ["--quantize", about["storage"]]
    made = package.pack([*words, *data])
    return _compared(name, made)


def models() -> dict[str, dict[str, Any]]:
    """Read what the models of the zoo are packed with, by name."""
    text = (zoo_folder() / "models.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def recorded(name: str) -> dict[str, Any] | None:
    """Read the receipt of the wheel of a model that was released; None before the first."""
    file = zoo_folder() / "receipts" / f"{name}.json"
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _table(known: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [("name", "version", "score", "licence", "what it does")]
    for name, about in known.items():
        receipt = recorded(name)
        score = "-" if receipt is None else _score(receipt)
        rows.append((name, about["version"], score, about["license"], about["summary"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    )


def _values(receipt: Mapping[str, Any]) -> list[float]:
    score = receipt["made"]["score"]
    unit = 1.0 if score["name"].endswith("bleu") else 100.0
    return [unit * value for value in score["values"]]


def _score(receipt: Mapping[str, Any]) -> str:
    """The score of a receipt in words."""
    values = _values(receipt)
    name = receipt["made"]["score"]["name"].partition("/")[2]
    return f"{name} {math.fsum(values) / len(values):.2f} ({len(values)})"


def _trained(name: str, seed: int, data: Sequence[str], fresh: bool) -> Path:
    """Return a finished run of a seed, which is trained unless there is one."""
    home = runs.home(name)
    for folder in [] if fresh else sorted(home.glob("[0-9]*")):
        file = folder / "bundle" / "metrics.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if found.get("seed") == seed and "split" in found:
            print(f"seqlab: seed {seed}: {folder} is finished, and used.", file=sys.stderr)
            return folder
    from seqlab.training import run as train

    train("fit", [str(zoo_folder() / f"{name}.yaml"), "--seed_everything", str(seed), *data])
    return runs.latest_run(name)


def _compared(name: str, made: Mapping[str, Any]) -> int:
    """Say how a receipt compares with the recorded one; 1 where the scores are apart."""
    before = recorded(name)
    if before is None:
        print(f"{name}: there is no receipt of a release to compare with yet.")
        return 0
    same = {
        "data": before["made"]["data"] == made["made"]["data"],
        "recipe": before["made"]["recipe"] == made["made"]["recipe"],
        "weights": before["files"]["model.safetensors"] == made["files"]["model.safetensors"],
    }
    for what, is_same in same.items():
        verb = "are" if what != "recipe" else "is"
        print(
            f"{name}: {what} {verb} {'those' if verb == 'are' else 'that'} of the receipt: "
            f"{'yes' if is_same else 'no'}."
        )
    apart = abs(_values(before)[0] - _values(made)[0])
    print(f"{name}: {_score(made)}, in the receipt {_score(before)}.")
    if apart > 100 * _CLOSE:
        print(f"{name}: the scores of the first seed are {apart:.2f} apart, which seeds are not.")
        return 1
    return 0

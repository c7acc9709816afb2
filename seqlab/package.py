"""``seqlab package``: a trained model becomes a wheel that anybody installs with pip.

The wheel holds data only. Beside the bundle it has a card, sentences to try the model on with what
it says to them, and a receipt: digests of every file, of the data and of the recipe, and the scores
with the seeds they come from.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import seqlab
from seqlab.bundle import check_classes, load_bundle, read_config, save_bundle, write_json
from seqlab.errors import Parser, UsageError
from seqlab.model_card import Facts, Score, card_of, example_of, summary_of, task_of
from seqlab.probes import answers, probe_texts
from seqlab.pruning import pruned
from seqlab.receipts import write_receipt
from seqlab.storage import Storage
from seqlab.wheels import (
    WheelMeta,
    check_license,
    check_name,
    check_version,
    write_sdist,
    write_wheel,
)
from seqlab.zoo import model_folder, serve

_STORAGES: dict[str, Storage] = {"fp16": "float16", "float16": "float16", "int8": "int8"}


def _parser() -> Parser:
    parser = Parser(
        prog="seqlab package",
        usage="seqlab package RUN [RUN ...] --name NAME --version X.Y.Z [options]",
        description="Make a wheel of a trained model: data only, with a card and a receipt.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "runs",
        metavar="RUN",
        nargs="+",
        help="the run to pack; further ones are the same recipe with other seeds, whose scores the "
        "card and the receipt give too",
    )
    add("--name", required=True, help="what it is installed and loaded as, such as en-pos")
    add("--version", required=True, help="of the model, such as 1.0.0")
    add("--license", metavar="ID", help="SPDX expression, such as CC-BY-SA-4.0")
    add("--language", metavar="CODE", default="en", help="of the text it reads (en)")
    add("--summary", metavar="TEXT", help="what it does, in a line")
    add("--example", metavar="TEXT", help="a text to try it on, for the card")
    add("--attribution", metavar="TEXT", help="whom the data are from, as their licence asks")
    add(
        "--quantize",
        choices=sorted(_STORAGES),
        help="keep matrices as float16 or int8, a half or a quarter of the size; the scores before "
        "and after are printed and kept in the receipt",
    )
    add(
        "--words",
        metavar="N",
        type=int,
        help="keep the N most frequent words; the scores before and after are printed and kept",
    )
    add("--data.path", dest="data", metavar="DIR", help="where the data of the recipe are now")
    add("--out", metavar="DIR", default="dist", help="where the wheel is written (dist)")
    add("--sdist", action="store_true", help="write a source distribution too")
    return parser


def run(argv: Sequence[str]) -> int:
    """Pack a model; see :func:`pack`.

    Args:
        argv: what follows ``seqlab package``.

    Returns:
        0.
    """
    pack(argv)
    return 0


def pack(argv: Sequence[str]) -> dict[str, Any]:
    """Pack a model; prints the wheel's path last.

    Args:
        argv: what follows ``seqlab package``.

    Returns:
        its receipt.

    Raises:
        UsageError: the name, version or licence is none, or a run is not finished.
        BundleError: the model cannot be read, or names classes that are not of seqlab.
    """
    given = _parser().parse_intermixed_args(argv)
    name, version = check_name(given.name), check_version(given.version)
    license_id = None if given.license is None else check_license(given.license)
    if re.search(r'["$`\\\n]', given.example or ""):
        raise UsageError(
            "--example stands between double quotes in the card: write it without these, $, `, \\ "
            "and new lines."
        )
    folders = [model_folder(path) for path in given.runs]
    measured = [_finished(folder, path) for folder, path in zip(folders, given.runs, strict=True)]
    score = _score(folders, measured)
    with tempfile.TemporaryDirectory(prefix="seqlab-package-") as place:
        stage = Path(place) / "model"
        changed = _stage(folders[0], stage, score, given)
        facts = Facts(
            name=name,
            version=version,
            language=given.language,
            score=score,
            license=license_id,
            summary=given.summary,
            attribution=given.attribution,
            example=given.example,
            changed=changed,
        )
        receipt, meta = _complete(stage, facts, measured[0])
        written = [write_wheel(stage, Path(given.out), meta)]
        if given.sdist:
            written.append(write_sdist(stage, Path(given.out), meta))
        example = example_of(facts, read_config(stage))
    for path in written:
        print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
    _say(f'try it: pip install {written[0]} && seqlab predict {name} "{example}"')
    return receipt


def _finished(folder: Path, given: str) -> dict[str, Any]:
    """Read the metrics of a run that has come to its end.

    Raises:
        UsageError: it has none yet.
    """
    try:
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if not isinstance(found, dict) or "split" not in found or "monitor" not in found:
        raise UsageError(
            f"{given} has no final scores, so there is nothing to vouch for: let its training end, "
            f"as with `seqlab fit RECIPE --ckpt_path {given}`."
        )
    return found


def _score(folders: Sequence[Path], measured: Sequence[dict[str, Any]]) -> Score:
    """Gather the scores of all seeds, which must be of the same recipe, data and scorer.

    Raises:
        UsageError: they are not.
    """
    first = measured[0]
    stage = "test" if first["split"] == "test" else "val"
    name = f"{stage}/{str(first['monitor']).partition('/')[2]}"
    for folder, other in zip(folders[1:], measured[1:], strict=True):
        for what, key in (
            ("split", "split"),
            ("scorer", f"{stage}/scorer"),
            ("data", "data_digests"),
            ("score", "monitor"),
        ):
            if first.get(key) != other.get(key):
                raise UsageError(
                    f"{folders[0]} and {folder} differ in their {what}: name runs of one recipe "
                    "that differ in their seed alone."
                )
        if _recipe(folders[0]) != _recipe(folder):
            raise UsageError(
                f"{folders[0]} and {folder} are of different recipes: name runs of one recipe that "
                "differ in their seed alone."
            )
    seeds = [metrics["seed"] for metrics in measured]
    if len(set(seeds)) != len(seeds):
        raise UsageError(f"the runs have the seeds {seeds}: name each seed once.")
    return Score(name, tuple(float(m[name]) for m in measured), tuple(seeds))


def _recipe(folder: Path) -> str:
    """The recipe of a run without its seed."""
    lines = (folder / "recipe.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("seed_everything"))


def _stage(folder: Path, stage: Path, score: Score, given: Namespace) -> tuple[str, ...]:
    """Write the bundle that is packed; where weights change, with the scores before and after.

    Returns:
        sentences on what was changed, for the card.
    """
    check_classes(folder, read_config(folder)["arguments"])
    model = load_bundle(folder, trainable=False)
    storage: Storage = "float32" if given.quantize is None else _STORAGES[given.quantize]
    if given.words is not None:
        model = pruned(model, given.words)
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    save_bundle(model, stage, recipe=recipe, storage=storage)
    if storage == "float32" and given.words is None:
        return ()
    overrides = [] if given.data is None else ["--data.path", given.data]
    split = score.name.partition("/")[0]
    _say(f"scoring it on the {split} split, as it was and as it is packed ...")
    before, after = _scored(folder, score.name, overrides), _scored(stage, score.name, overrides)
    sizes = [(place / "model.safetensors").stat().st_size / 1e6 for place in (folder, stage)]
    kept = [] if given.words is None else [f"{given.words:,} words"]
    kept += [] if storage == "float32" else [f"weights as {storage}"]
    unit = 1.0 if score.name.endswith("bleu") else 100.0
    line = (
        f"{' and '.join(kept)}: {score.name} {before * unit:.2f} before, {after * unit:.2f} after; "
        f"{sizes[0]:.2f} MB of weights before, {sizes[1]:.2f} MB after"
    )
    print(line)
    return (line,)


def _scored(folder: Path, name: str, overrides: Sequence[str]) -> float:
    """Score a bundle on the data of its recipe."""
    from seqlab.training import score_bundle

    return float(score_bundle(folder, overrides, name.partition("/")[0])[name])


def _complete(
    stage: Path, facts: Facts, metrics: dict[str, Any]
) -> tuple[dict[str, Any], WheelMeta]:
    """Write what a packed model has beside its bundle: card, probe and receipt."""
    config = read_config(stage)
    network = load_bundle(stage, trainable=False)
    recipe = (stage / "recipe.yaml").read_text(encoding="utf-8")
    labels = list(getattr(network.target_vocab, "tokens", ()))
    card = card_of(facts, config, metrics, labels, recipe)
    write_json(stage / "metrics.json", metrics)
    (stage / "README.md").write_text(card, encoding="utf-8")
    asked = answers(serve(network, device="cpu"), probe_texts(facts.language))
    write_json(stage / "probe.json", {"answers": asked})
    about = {
        "name": facts.name,
        "version": facts.version,
        "made": {
            "data": metrics.get("data_digests", {}),
            "summary": summary_of(facts, config),
            "license": facts.license,
            "recipe": hashlib.sha256(recipe.encode()).hexdigest(),
            "seeds": list(facts.score.seeds),
            "score": {"name": facts.score.name, "values": list(facts.score.values)},
            "changed": list(facts.changed),
            "scorer": metrics.get(f"{facts.score.name.partition('/')[0]}/scorer"),
            "versions": metrics.get("versions", {}),
            "hardware": metrics.get("hardware"),
            "commit": metrics.get("commit"),
        },
    }
    receipt = write_receipt(stage, about)
    meta = WheelMeta(
        name=facts.name,
        version=facts.version,
        summary=summary_of(facts, config),
        license=facts.license,
        requires=(_requirement(),),
        description=card,
        keywords=("seqlab", "nlp", "lstm", task_of(config), facts.language),
    )
    return receipt, meta


def _requirement() -> str:
    """The versions of seqlab that read what this one writes: up to the next minor one."""
    major, minor = (int(part) for part in seqlab.__version__.split(".")[:2])
    return f"seqlab>={major}.{minor},<{major}.{minor + 1}"


def _say(sentence: str) -> None:
    print(f"seqlab: {sentence}", file=sys.stderr)

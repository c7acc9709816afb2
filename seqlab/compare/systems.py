"""Which runs are compared, and which of them are one system under several seeds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from seqlab import runs
from seqlab.bundle import find_bundle
from seqlab.errors import BundleError, UsageError
from seqlab.recipe import find_recipe
from seqlab.zoo import model_folder

_SHOWN = 2  # settings in a name


class Run(NamedTuple):
    """A trained model and what its training left.

    Attributes:
        folder: its bundle.
        name: of its recipe.
        seed: of its training.
        metrics: of its ``metrics.json``.
        settings: what its recipe says, but for the seed.
    """

    folder: Path
    name: str
    seed: int
    metrics: dict[str, Any]
    settings: dict[str, Any]


class System(NamedTuple):
    """Runs that differ in the seed alone.

    Attributes:
        name: what it is called.
        runs: by ascending seed.
    """

    name: str
    runs: list[Run]


def gather(named: Sequence[str]) -> list[System]:
    """Find runs, and put those together that are one system.

    Args:
        named: run folders, bundles, and names of recipes or folders of runs, which mean all runs
            there.

    Raises:
        BundleError: there is no model, or its files are damaged.
        UsageError: fewer than two systems are left, or a run was never finished.
    """
    found: list[Run] = []
    for word in named:
        for folder in _folders(word):
            run = _read(folder)
            if run.folder not in {other.folder for other in found}:
                found.append(run)
    systems = _together(found)
    if len(systems) < 2:
        what = f"all of {', '.join(named)} are one system" if found else "there are no runs"
        raise UsageError(f"{what}: name the runs of another recipe, or of other settings.")
    return systems


def of_recipes(
    recipes: Sequence[str], seeds: int, train: Callable[[str, int], object]
) -> list[System]:
    """Find the runs of recipes under some seeds, and train those that are missing.

    Args:
        recipes: names or files.
        seeds: of each recipe: 1 to so many.
        train: called with a recipe and a seed, for each run that is missing.
    """
    folders = []
    for recipe in recipes:
        for seed in range(1, seeds + 1):
            if seed not in _by_seed(recipe):
                print(f"seqlab: {recipe}, seed {seed}", file=sys.stderr, flush=True)
                train(recipe, seed)
        known = _by_seed(recipe)
        folders += [str(known[seed].folder) for seed in range(1, seeds + 1)]
    return gather(folders)


def _by_seed(recipe: str) -> dict[int, Run]:
    """The newest run of a recipe as it is written, for each seed."""
    file = find_recipe(recipe)
    wanted = _settings(yaml.safe_load(file.read_text(encoding="utf-8")))
    found = [_read(folder) for folder in _all_runs(runs.home(file.stem), finished=True)]
    return {run.seed: run for run in found if _said(wanted, run.settings)}


def _folders(word: str) -> list[Path]:
    """The bundles that a word of the command line means."""
    path = Path(word)
    if path.is_dir() and not _is_run(path):
        inside = _all_runs(path)
        if inside:
            return inside
    if not path.exists():
        home = runs.home(find_recipe(word).stem)
        inside = _all_runs(home)
        if inside:
            return inside
    return [model_folder(word)]


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in ("config.json", "bundle", "recipe.yaml"))


def _all_runs(home: Path, finished: bool = False) -> list[Path]:
    """The numbered runs in a folder; those that were never finished are refused, or left out."""
    if not home.is_dir():
        return []
    numbered = sorted((p for p in home.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    return [find_bundle(p) for p in numbered if not finished or (p / "metrics.json").is_file()]


def _read(folder: Path) -> Run:
    """Read what the training of a bundle left."""
    metrics = _json(folder / "metrics.json")
    home = folder.parent if folder.name == "bundle" else folder
    if "split" not in metrics:
        raise UsageError(
            f"{home} was never finished: go on with `seqlab fit ... --ckpt_path {home}`, or leave "
            "it out."
        )
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{folder}: its recipe.yaml cannot be read ({error}).") from error
    name = home.parent.name if home.name.isdigit() else home.name
    return Run(folder, name, int(metrics.get("seed") or 0), metrics, _settings(recipe))


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} cannot be read ({error}): train the model again.") from error


def _settings(recipe: Any) -> dict[str, Any]:
    """A recipe without what makes no other system."""
    return {k: v for k, v in dict(recipe or {}).items() if k != "seed_everything"}


def _said(wanted: Any, found: Any) -> bool:
    """Whether all that a recipe says is also said by the whole settings of a run."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(key in found and _said(value, found[key]) for key, value in wanted.items())
    return bool(wanted == found)


def _together(found: Sequence[Run]) -> list[System]:
    groups: dict[str, list[Run]] = {}
    for run in found:
        key = json.dumps([run.name, run.settings], sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    firsts: dict[str, Run] = {}
    systems: list[System] = []
    for group in groups.values():
        run = group[0]
        label = run.name + _told_apart(run, firsts.setdefault(run.name, run))
        if label in {system.name for system in systems}:
            label += f" ({len(systems) + 1})"
        systems.append(System(label, sorted(group, key=lambda run: run.seed)))
    return systems


def _told_apart(run: Run, first: Run) -> str:
    """What a run's settings say that those of the first of its name do not."""
    mine, others = (dict(_leaves(one.settings)) for one in (run, first))
    said = [f"{key}={value}" for key, value in mine.items() if others.get(key) != value]
    shown = ", ".join(said[:_SHOWN]) + (", ..." if len(said) > _SHOWN else "")
    return f" {shown}" if said else ""


def _leaves(settings: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All values that are no mappings, by the last part of their key."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            yield from _leaves(value, str(name))
    else:
        yield key, str(settings)

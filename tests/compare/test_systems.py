from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqlab.compare.systems import gather, of_recipes
from seqlab.errors import BundleError, UsageError

RECIPE = "seed_everything: {seed}\nmodel:\n  init_args: {{hidden_size: {size}}}\n"


def run(home: Path, number: int, seed: int = 1, size: int = 8, finished: bool = True) -> Path:
    bundle = home / str(number) / "bundle"
    bundle.mkdir(parents=True)
    recipe = RECIPE.format(seed=seed, size=size)
    for folder in (bundle, bundle.parent):
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    (bundle / "config.json").write_text("{}", encoding="utf-8")
    metrics = {"seed": seed, **({"split": "test"} if finished else {})}
    (bundle / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    if finished:
        (bundle.parent / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return bundle.parent


def test_runs_of_one_recipe_are_one_system(tmp_path: Path) -> None:
    ner, pos = tmp_path / "ner", tmp_path / "pos"
    for number, seed in ((1, 3), (2, 1), (10, 2)):
        run(ner, number, seed)
    other = run(ner, 11, seed=1, size=16)
    run(pos, 1)
    found = gather([str(ner), str(pos), str(other)])
    assert [system.name for system in found] == ["ner", "ner hidden_size=16", "pos"]
    assert [one.seed for one in found[0].runs] == [1, 2, 3]
    assert len(found[1].runs) == 1


def test_one_system_alone_is_no_comparison(tmp_path: Path) -> None:
    first, second = run(tmp_path / "ner", 1, 1), run(tmp_path / "ner", 2, 2)
    with pytest.raises(UsageError, match="are one system"):
        gather([str(first), str(second)])


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    first, second = run(tmp_path / "ner", 1), run(tmp_path / "pos", 1, finished=False)
    with pytest.raises(UsageError, match=r"pos.1 was never finished: go on with"):
        gather([str(first), str(second)])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "ner", 1)
    with pytest.raises(BundleError, match="holds no model"):
        gather([str(first), str(tmp_path)])
    (first / "bundle" / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(BundleError, match="cannot be read"):
        gather([str(first)])


def test_what_is_missing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name, size in (("one", 8), ("two", 16)):
        text = RECIPE.format(seed=7, size=size)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    run(tmp_path / "one", 1, seed=2)
    run(tmp_path / "one", 2, seed=1, size=99)  # of other settings
    run(tmp_path / "two", 1, seed=1, size=16, finished=False)
    trained = []

    def train(recipe: str, seed: int) -> None:
        name = Path(recipe).stem
        trained.append((name, seed))
        run(tmp_path / name, 10 + seed, seed, 8 if name == "one" else 16)

    found = of_recipes(["one.yaml", "two.yaml"], 2, train)
    assert trained == [("one", 1), ("two", 1), ("two", 2)]
    assert [(s.name, [r.seed for r in s.runs]) for s in found] == [("one", [1, 2]), ("two", [1, 2])]

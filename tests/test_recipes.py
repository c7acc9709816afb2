"""Every shipped recipe, found by globbing: it reads, says where its corpus is, and trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from seqlab.__main__ import main
from seqlab.recipe import shipped

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"), key=lambda path: path.stem)
NAMES = [path.stem for path in RECIPES]
SMALL = ["--trainer.max_epochs", "1", "--model.hidden_size", "8", "--trainer.accelerator", "cpu"]
Working = Callable[[Path], AbstractContextManager[pytest.MonkeyPatch]]


def test_there_are_as_many_recipes_as_we_know_of() -> None:
    assert NAMES == [
        "chunk-conll2000",
        "ner",
        "ner-btc",
        "ner-wnut17",
        "pos-ewt",
        "pos-sequoia",
    ]
    assert sorted(shipped()) == NAMES


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_is_short_and_opens_with_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 40
    assert text.startswith("# ")
    assert f"seqlab fit recipes/{path.name}\n" in text
    if "SEQLAB_DATA" in text:
        assert "https://" in text.split("seed_everything")[0]


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_trains_on_a_small_corpus(path: Path, tmp_path: Path, working_in: Working) -> None:
    columns = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["init_args"].get("columns")
    line = "{0}\tX\t{1}\n" if columns else "{0}\t{1}\n"
    words = [("Ada", "B-A"), ("saw", "O"), ("old", "O"), ("Rome", "B-B"), (".", "O")]
    sentence = "".join(line.format(*word) for word in words)
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.conll").write_text(f"{sentence}\n" * 4, encoding="utf-8")
    override = ["--data.path", str(tmp_path), "--data.vectors", "null"]
    with working_in(tmp_path):
        assert main(["fit", str(path), *override, *SMALL]) == 0
        metrics = json.loads((tmp_path / "runs" / path.stem / "1" / "metrics.json").read_text())
    assert metrics["split"] == "test"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_trains_on_its_own_corpus(
    path: Path, tmp_path: Path, working_in: Working, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = [
        w for part in ("train", "val", "test") for w in (f"--trainer.limit_{part}_batches", "3")
    ]
    with working_in(tmp_path):
        assert main(["fit", str(path), *SMALL, *limits]) == 0
    if "btc" in path.stem:
        assert "lines with an empty token were skipped (lines 96124" in capsys.readouterr().err

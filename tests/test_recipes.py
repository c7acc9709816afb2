"""Every recipe that is shipped: well formed, runs on a corpus of its kind, and on its own."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqlab.__main__ import main
from seqlab.bundle import load_bundle
from seqlab.configuration import _SECTIONS
from seqlab.recipe import find_recipe, headline, shipped
from seqlab.recipe_check import read_recipe
from tests.nn.test_bert import pretrained

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
NAMES = [path.stem for path in RECIPES]
EMBEDDED = {"ner", "ner-bert", "sentiment", "sentiment-bert", "translate"}  # read a sample
REAL = [name for name in NAMES if name not in EMBEDDED]
LABELLED = [name for name in NAMES if name.split("-")[0] in {"sentiment", "intent"}]
TRANSLATORS = [name for name in NAMES if name.split("-")[0] == "translate"]
PRETRAINED = [name for name in NAMES if name.endswith("-bert")]
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "4"]
SHORT += ["--trainer.limit_val_batches", "2", "--trainer.limit_test_batches", "2"]
WORDS = [
    ("Ada", "NNP", "PROPN", "B-PER"),
    ("sees", "VBZ", "VERB", "O"),
    ("Rome", "NNP", "PROPN", "B-LOC"),
]
CHUNKS = {"B-PER": "B-NP", "B-LOC": "B-NP", "O": "B-VP"}

pytestmark = pytest.mark.skipif(not RECIPES, reason="an installed package carries them elsewhere")


@pytest.fixture
def place(working_in: Any, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    with working_in(tmp_path) as patch:
        yield patch


def corpus(name: str) -> tuple[str, str]:
    """A small corpus of the kind that a recipe reads, and the ending of its file."""
    if name in TRANSLATORS:
        pairs = "a dog sees the ball .\tein Hund sieht den Ball .\n" * 30
        sides = "de\ten" if "multi30k" in name else "en\tfr"
        return f"{sides}\n{pairs}", "tsv"
    if name.startswith("intent"):
        pair = [{"text": "My card is lost.", "label": "lost"}, {"text": "Pay it.", "label": "pay"}]
        return "\n".join(json.dumps(record) for record in pair * 30), "jsonl"
    if name in LABELLED:
        return "text\tlabel\n" + "a fine film\tpos\na dull book\tneg\n" * 30, "tsv"
    text, ending = sentence(name)
    return f"{text}\n\n" * 30, ending


def sentence(name: str) -> tuple[str, str]:
    """A tagged sentence as the corpus of a recipe writes it, and the ending of its file."""
    if name.startswith("pos"):
        rows = [
            "\t".join([str(i), form, form.lower(), upos, xpos, "_", "0", "root", "_", "_"])
            for i, (form, xpos, upos, _) in enumerate(WORDS, 1)
        ]
        return "# text = Ada sees Rome\n" + "\n".join(rows), "conllu"
    if name.startswith("chunk"):
        return "\n".join(f"{form} {xpos} {CHUNKS[tag]}" for form, xpos, _, tag in WORDS), "txt"
    return "\n".join(f"{form}\t{tag}" for form, _, _, tag in WORDS), "conll"


def test_all_recipes_are_found() -> None:
    assert len(NAMES) == 15
    assert list(shipped()) == sorted(NAMES)
    assert [find_recipe(name) for name in NAMES] == RECIPES


def test_recipes_are_listed_by_name_and_headline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name:18} {headline(find_recipe(name))}" for name in sorted(NAMES)]
    assert max(map(len, lines)) <= 130


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_short_and_says_what_it_is(name: str) -> None:
    text = find_recipe(name).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    head = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert lines[len(head)].startswith("seed_everything: ")
    assert len(head) >= 5
    assert f"seqlab fit recipes/{name}.yaml" in text
    assert headline(find_recipe(name)).endswith(".")
    if name in REAL:
        assert re.search(r"^# Corpus: https://", text, re.MULTILINE)
        assert "recipes/README.md" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_a_recipe_exist(name: str) -> None:
    recipe = read_recipe(find_recipe(name), _SECTIONS)
    assert list(recipe) == [key for key in _SECTIONS if key in recipe]  # always in one order
    task = ("Classifier", "Classification") if name in LABELLED else ("Tagger", "Tagging")
    task = ("Translator", "Translation") if name in TRANSLATORS else task
    assert recipe["model"]["class_path"] == f"seqlab.{task[0]}"
    assert recipe["data"]["class_path"] == f"seqlab.{task[1]}Data"
    assert recipe["trainer"]["max_epochs"] > 1


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_the_head_of_a_recipe_are_right(name: str) -> None:
    text = find_recipe(name).read_text(encoding="utf-8")
    commands = re.findall(r"^#   seqlab (\w+) (.+)$", text, re.MULTILINE)
    assert commands[0] == ("fit", f"recipes/{name}.yaml")
    for verb, words in commands[1:]:
        assert words.split()[0] in (f"recipes/{name}.yaml", f"runs/{name}/latest"), verb


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_on_a_corpus_of_its_kind(
    name: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.delenv("SEQLAB_DATA", raising=False)
    text, ending = corpus(name)
    Path("my_corpus").mkdir()
    for split in ("train", "dev", "test"):
        Path(f"my_corpus/{split}.{ending}").write_text(text, encoding="utf-8")
    words = ["--data.path", "my_corpus", "--trainer.max_epochs", "1"]
    if name in TRANSLATORS:
        words += ["--data.test", "null", "--data.vocabulary_size", "300"]
    elif name in PRETRAINED:
        words += ["--model.embedder.name", str(pretrained(Path("bert")))]
    else:
        words += ["--data.vectors", "null"]
    assert main(["fit", name, *words]) == 0
    out = capsys.readouterr().out
    metrics = json.loads(Path(f"runs/{name}/1/metrics.json").read_text(encoding="utf-8"))
    plain = name.startswith("pos") or name in LABELLED
    monitor = "val/accuracy" if plain else "val/span_f1"
    assert metrics["monitor"] == ("val/bleu" if name in TRANSLATORS else monitor)
    assert "next:\n" in out
    model = load_bundle(f"runs/{name}/latest")
    recipe = yaml.safe_load(find_recipe(name).read_text(encoding="utf-8"))
    for key, value in recipe["model"]["init_args"].items():
        if key == "embedder":
            assert {**model.config[key], **value, "name": "bert"} == model.config[key]
        else:
            assert model.config[key] == value


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_a_recipe_reads_its_real_corpus(
    name: str, place: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--model.embedder.name", str(pretrained(Path("bert")))] if name in PRETRAINED else []
    assert main(["fit", name, *SHORT, *own]) == 0
    said = capsys.readouterr().err
    metrics = json.loads(Path(f"runs/{name}/1/metrics.json").read_text(encoding="utf-8"))
    assert metrics["split"] == "test"
    score = metrics[metrics["monitor"].replace("val", "test")]
    assert 0.0 <= score <= (100.0 if name in TRANSLATORS else 1.0)
    if "vectors" in find_recipe(name).read_text(encoding="utf-8").split("data:")[1]:
        assert "one of the 20,310 vectors of size 50" in said
    assert ("with an empty token were skipped" in said) == (name == "ner-btc")


def results() -> list[Path]:
    return sorted((ROOT / "recipes" / "results").glob("*/*.json"))


def test_the_results_that_are_kept_are_of_shipped_recipes() -> None:
    for file in results():
        metrics = json.loads(file.read_text(encoding="utf-8"))
        assert file.parent.name in NAMES
        assert file.stem.rpartition("seed-")[2] == str(metrics["seed"])
        assert metrics["split"] == "test"
        assert {"versions", "hardware", "date", "commit", "parameters"} <= set(metrics)


def test_the_page_of_recipes_links_those_that_exist() -> None:
    text = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([\w-]+)\.yaml\)", text)
    assert sorted(set(linked)) == sorted({file.parent.name for file in results()})

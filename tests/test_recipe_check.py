from __future__ import annotations

import re
import sys
import types
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
from lightning.pytorch.cli import LightningArgumentParser

from seqlab.data.base import SequenceDataModule
from seqlab.errors import RecipeError
from seqlab.models.base import SequenceModel
from seqlab.nn.cells import CELLS
from seqlab.recipe_check import check_overrides, explain, read_recipe

HINT = " `seqlab fit RECIPE --print_config` shows all keys."
RECIPE = """
seed_everything: 1
model:
  class_path: toy.Net
  init_args:
    hidden_size: 3
data:
  class_path: toy.Corpus
trainer:
  max_epochs: 2
"""


class Net:
    def __init__(self, source_vocab: Any, target_vocab: Any, *, hidden_size: int = 1) -> None: ...


class Taller(Net):
    """Takes an argument of its own and leaves the others to its base."""

    def __init__(self, source_vocab: Any, target_vocab: Any, *, height: int = 1, **options: Any):
        super().__init__(source_vocab, target_vocab, **options)


class Tallest(Taller):
    def __init__(self, source_vocab: Any, *arguments: Any, top: bool = True, **options: Any):
        super().__init__(source_vocab, *arguments, **options)


class Closed(Taller):
    """Takes nothing for its bases."""

    def __init__(self, source_vocab: Any, target_vocab: Any, *, height: int = 1):
        super().__init__(source_vocab, target_vocab, height=height)


class Corpus:
    def __init__(self, path: str = "") -> None: ...


class Loop:
    def __init__(self, max_epochs: int = 1, callbacks: Any = None) -> None: ...


SECTIONS: dict[str, type | None] = {
    "seed_everything": None,
    "model": Net,
    "data": Corpus,
    "trainer": Loop,
}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the classes above importable from a package of their own."""
    module = types.ModuleType("toy")
    vars(module).update(Net=Net, Corpus=Corpus, number=3)
    vars(module).update(Taller=Taller, Tallest=Tallest, Closed=Closed)
    monkeypatch.setitem(sys.modules, "toy", module)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "my.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


def refusal(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        read_recipe(file, SECTIONS)
    return str(error.value)


def test_a_recipe_is_read_as_plain_data(recipe: Path) -> None:
    assert read_recipe(recipe, SECTIONS) == {
        "seed_everything": 1,
        "model": {"class_path": "toy.Net", "init_args": {"hidden_size": 3}},
        "data": {"class_path": "toy.Corpus"},
        "trainer": {"max_epochs": 2},
    }


@pytest.mark.parametrize("empty", ["trainer:", "data:\n  class_path: toy.Corpus\n  init_args:"])
def test_a_section_may_be_empty(recipe: Path, empty: str) -> None:
    recipe.write_text(empty, encoding="utf-8")
    assert read_recipe(recipe, SECTIONS)


@pytest.mark.parametrize(
    ("old", "new", "key", "hint"),
    [
        ("trainer:", "trianer:", "trianer", " Did you mean 'trainer'?"),
        ("seed_everything: 1", "seed: 1", "seed", ""),
        ("seed_everything: 1", "1: 1", "1", ""),
        ("hidden_size: 3", "hiden_size: 3", "model.hiden_size", " Did you mean 'hidden_size'?"),
        ("hidden_size: 3", "source_vocab: 3", "model.source_vocab", ""),
        ("  init_args", "  init_arg", "model.init_arg", " Did you mean 'init_args'?"),
        ("max_epochs: 2", "max_epoch: 2", "trainer.max_epoch", " Did you mean 'max_epochs'?"),
        ("toy.Corpus", "toy.Corpus\n  init_args: {pth: x}", "data.pth", " Did you mean 'path'?"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(
    recipe: Path, old: str, new: str, key: str, hint: str
) -> None:
    section = key.split(".")[0]
    place = f"{recipe}: {section}" if section in ("model", "data") else recipe
    message = refusal(recipe, RECIPE.replace(old, new))
    assert message == f"{place}: unknown key {key!r}.{hint}{HINT}"


@pytest.mark.parametrize("key", ["top", "height", "hidden_size"])
def test_options_that_a_class_passes_on_are_those_of_its_bases(recipe: Path, key: str) -> None:
    text = RECIPE.replace("toy.Net", "toy.Tallest").replace("hidden_size", key)
    recipe.write_text(text, encoding="utf-8")
    check_overrides([f"--model.{key}=4"], SECTIONS, read_recipe(recipe, SECTIONS))


@pytest.mark.parametrize(
    ("cls", "key", "hint"),
    [
        ("Tallest", "hiden_size", " Did you mean 'hidden_size'?"),
        ("Tallest", "heigth", " Did you mean 'height'?"),
        ("Tallest", "options", ""),
        ("Tallest", "arguments", ""),
        ("Tallest", "target_vocab", ""),
        ("Closed", "hidden_size", ""),
    ],
)
def test_options_that_no_base_has_are_refused(recipe: Path, cls: str, key: str, hint: str) -> None:
    text = RECIPE.replace("toy.Net", f"toy.{cls}").replace("hidden_size", key)
    assert refusal(recipe, text) == f"{recipe}: model: unknown key 'model.{key}'.{hint}{HINT}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: [1, 2\ntrainer: 3\n", 2),
        ("model:\n\tclass_path: x\n", 2),
        ("a: 1\nb: 2\n  c: 3\n", 3),
        ("a: 'open\n", 2),
        ("a: !!python/object/apply:os.getcwd []\n", 1),
    ],
)
def test_broken_yaml_is_named_with_its_line(recipe: Path, text: str, line: int) -> None:
    message = refusal(recipe, text)
    assert message.startswith(f"{recipe}:{line}: the recipe is not valid YAML (")
    assert message.endswith(").")
    assert "\n" not in message


def test_an_impossible_value_is_named_with_its_file(recipe: Path) -> None:
    assert refusal(recipe, "seed_everything: 2020-13-45\n").startswith(
        f"{recipe}: the recipe is not valid YAML (month must be in 1..12"
    )


def test_a_file_that_is_no_text_is_refused(recipe: Path) -> None:
    recipe.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=f"^{re.escape(str(recipe))}: the recipe is not valid"):
        read_recipe(recipe, SECTIONS)


@pytest.mark.parametrize("text", ["", "# a comment\n", "just words\n", "- a\n- b\n"])
def test_a_recipe_is_a_mapping(recipe: Path, text: str) -> None:
    assert refusal(recipe, text) == (
        f"{recipe}: a recipe is a YAML mapping with the keys seed_everything, model, data, trainer."
    )


@pytest.mark.parametrize("text", ["model:", "model: toy.Net", "model: {hidden_size: 3}"])
def test_a_model_names_its_class(recipe: Path, text: str) -> None:
    assert refusal(recipe, text) == (
        f"{recipe}: model: name a class, such as `class_path: seqlab.Tagger`."
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("model: {class_path: toy.Net, init_args: 5}", "model.init_args"),
        ("model: {class_path: toy.Net, init_args: abc}", "model.init_args"),
        ("trainer: 5", "trainer"),
        ("trainer: [max_epochs]", "trainer"),
    ],
)
def test_a_section_that_is_no_mapping_is_named(recipe: Path, text: str, place: str) -> None:
    assert refusal(recipe, text) == f"{recipe}: {place}: give a mapping of keys to values."


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("seqlab.Taggr", " Did you mean 'seqlab.Tagger'?"),
        ("toy.Nets", ""),
        ("nowhere.Net", ""),
        ("Net", ""),
        ("", ""),
        ("3", ""),
    ],
)
def test_a_class_that_cannot_be_imported_is_named(recipe: Path, name: str, hint: str) -> None:
    message = refusal(recipe, f"model: {{class_path: '{name}'}}")
    assert message.startswith(f"{recipe}: model: no class {name!r} can be imported (")
    assert message.endswith(f").{hint}")


def test_what_is_no_class_is_named(recipe: Path) -> None:
    assert refusal(recipe, "data: {class_path: toy.number}") == (
        f"{recipe}: data: 'toy.number' is no class."
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--model.hidden_size", "5"],
        ["--model.init_args.hidden_size=5", "--data.path", "x"],
        ["--data.init_args.path", "-", "--trainer.max_epochs=3"],
        ["--trainer.max_epochs", "-1"],
        ["--trainer.callbacks+=toy.Net"],
        ["--seed_everything=7"],
        ["--model.class_path", "toy.Net"],
        ["--print_config", "--print_config=skip_null", "--config", "x.yaml"],
    ],
    ids=" ".join,
)
def test_known_overrides_pass(recipe: Path, words: list[str]) -> None:
    check_overrides(words, SECTIONS, read_recipe(recipe, SECTIONS))


@pytest.mark.parametrize(
    ("word", "key", "hint"),
    [
        ("--trianer.max_epochs", "trianer", " Did you mean 'trainer'?"),
        ("--max_epochs=3", "max_epochs", " Did you mean 'trainer.max_epochs'?"),
        ("--hidden_size=3", "hidden_size", " Did you mean 'model.hidden_size'?"),
        ("--source_vocab=3", "source_vocab", ""),
        ("--model.hiden_size", "model.hiden_size", " Did you mean 'hidden_size'?"),
        ("--model.init_args.hiden_size=3", "model.hiden_size", " Did you mean 'hidden_size'?"),
        ("--model.source_vocab", "model.source_vocab", ""),
        ("--data.pth", "data.pth", " Did you mean 'path'?"),
        ("--trainer.max_epoch=3", "trainer.max_epoch", " Did you mean 'max_epochs'?"),
        ("--trainer.callback+=x", "trainer.callback", " Did you mean 'callbacks'?"),
        ("--", "", ""),
    ],
)
def test_an_unknown_override_is_named_with_the_nearest(
    recipe: Path, word: str, key: str, hint: str
) -> None:
    known = read_recipe(recipe, SECTIONS)
    with pytest.raises(RecipeError) as error:
        check_overrides(["--data.path", "x", word], SECTIONS, known)
    assert str(error.value) == f"command line: unknown key {key!r}.{hint}{HINT}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["max_epochs=3"], "what is 'max_epochs=3'? Write overrides as --key value, such as "),
        (["--data.path", "x", "y"], "what is 'y'? Write"),
        (["--data.path"], "--data.path has no value: write --data.path VALUE."),
        (["--data.path", "--model.hidden_size", "3"], "--data.path has no value"),
        (["--model.class_path", "toy.Nett"], "no class 'toy.Nett' can be imported"),
        (["--model=seqlab.Taggr"], "no class 'seqlab.Taggr' can be imported"),
    ],
)
def test_an_override_that_cannot_be_meant_is_refused(
    recipe: Path, words: list[str], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=f"^command line: {re.escape(sentence)}"):
        check_overrides(words, SECTIONS, read_recipe(recipe, SECTIONS))


def test_an_override_of_a_section_that_the_recipe_lacks_is_left_to_the_parser() -> None:
    check_overrides(["--model.whatever", "3"], SECTIONS, {})


def parser() -> LightningArgumentParser:
    """The argument parser of the command line, without its links."""
    made = LightningArgumentParser(exit_on_error=False)
    made.add_argument("--config", action="config")
    made.add_argument("--seed_everything", type=int | bool, default=0)
    made.add_lightning_class_args(lightning.Trainer, "trainer")
    made.add_subclass_arguments(
        SequenceModel, "model", required=False, skip={"source_vocab", "target_vocab"}
    )
    made.add_subclass_arguments(SequenceDataModule, "data", required=False)
    return made


def explained(words: list[str], capsys: pytest.CaptureFixture[str], model: str = "Tagger") -> str:
    with pytest.raises(ArgumentError) as error:
        parser().parse_args([f"--model=seqlab.{model}", "--data=seqlab.TaggingData", *words])
    capsys.readouterr()
    return explain(str(error.value))


WRONG_VALUES = [
    ("model.hidden_size", "abc", "expected int, got abc."),
    ("model.dropout", "high", "expected float, got high."),
    ("model.averaging", "long", "expected float, got long."),
    ("model.decoder", "crff", "expected one of 'crf', 'constrained', 'softmax', got crff."),
    ("model.encoder", "5", "expected dict, got 5."),
    ("data.batch_size", "1.5", "expected int, got 1.5."),
    ("data.columns", "3", "expected dict, got 3."),
    ("trainer.max_epochs", "many", "expected int, got many."),
    ("seed_everything", "q", "expected int or bool, got q."),
]


@pytest.mark.parametrize(("key", "value", "sentence"), WRONG_VALUES)
def test_a_wrong_value_on_the_command_line_is_one_sentence(
    key: str, value: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained([f"--{key}", value], capsys) == f"{key}: {sentence}"


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("cell", "grux", ", ".join(map(repr, CELLS))),
        ("merge", "add", "'concat', 'sum', 'mean', 'product'"),
        ("pooling", "avg", "'last', 'mean', 'max', 'attention' or list"),
        ("pooling", "[max,avg]", "'last', 'mean', 'max', 'attention'"),
        ("class_weights", "equal", "'none', 'balanced' or dict"),
    ],
)
def test_a_wrong_word_is_refused_with_those_that_there_are(
    key: str, value: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got = value.removeprefix("[max,").removesuffix("]")
    said = explained([f"--model.{key}", value], capsys, "Classifier")
    assert said == f"model.{key}: expected one of {sentence}, got {got}."


@pytest.mark.parametrize(("key", "value", "sentence"), WRONG_VALUES)
def test_a_wrong_value_in_a_recipe_is_the_same_sentence(
    key: str, value: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section, _, name = key.partition(".")
    inner = (
        f"init_args: {{{name}: {value}}}" if section in ("model", "data") else f"{name}: {value}"
    )
    text = f"{section}:\n  {inner}\n" if name else f"{section}: {value}\n"
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    assert explained(["--config", str(tmp_path / "my.yaml")], capsys) == f"{key}: {sentence}"


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["--model=NoSuch"], "model: Expected a dot import path string: NoSuch"),
        (["--data=seqlab.Tagger"], "data: Import path"),
        (["--trainer.max_epochs"], "argument --trainer.max_epochs: expected one argument"),
        (["--model.nosuch=3"], "model: Option 'nosuch' is not accepted"),
        (["stray"], "unrecognized arguments: stray"),
        (["--nosuch", "3"], "unrecognized arguments: --nosuch 3"),
    ],
)
def test_other_complaints_become_one_line(
    words: list[str], start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = explained(words, capsys)
    assert sentence.startswith(start)
    assert "\n" not in sentence
    assert "NestedArg" not in sentence

"""From a recipe to trainer, model and data, and what is said where that fails."""

from __future__ import annotations

import contextlib
import logging
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

import seqlab
from seqlab.configuration import build, quiet
from seqlab.early_stopping import EarlyStop
from seqlab.errors import DataError, RecipeError, TrainingError
from seqlab.models.base import SequenceModel

RECIPE = """
seed_everything: 7
model:
  class_path: seqlab.Tagger
  init_args: {hidden_size: 8, characters: none}
data:
  class_path: seqlab.TaggingData
  init_args: {path: my_corpus, batch_size: 4}
trainer: {max_epochs: 3}
early_stopping: {patience: 2}
"""
ROWS = "Ada\tB-PER\nslept\tO\n\nBob\tB-PER\nsaw\tO\nRome\tB-LOC\n\n"


@pytest.fixture
def recipe(working_in: Any, tmp_path: Path) -> Iterator[Path]:
    with working_in(tmp_path):
        Path("my_corpus").mkdir()
        for split in ("train", "dev", "test"):
            Path(f"my_corpus/{split}.conll").write_text(ROWS * 5, encoding="utf-8")
        file = Path("my.yaml")
        file.write_text(RECIPE, encoding="utf-8")
        yield file


def test_a_recipe_becomes_trainer_model_and_data(recipe: Path) -> None:
    cli = build(recipe, [])
    assert isinstance(cli.model, seqlab.Tagger)
    assert isinstance(cli.datamodule, seqlab.TaggingData)
    assert cli.model.config["hidden_size"] == 8
    assert cli.datamodule.batch_size == 4
    assert cli.trainer.max_epochs == 3
    assert cli.config["seed_everything"] == 7


def test_the_model_gets_the_vocabularies_of_the_data(recipe: Path) -> None:
    cli = build(recipe, [])
    assert cli.model.source_vocab is cli.datamodule.source_vocab
    assert cli.model.target_vocab is cli.datamodule.target_vocab
    assert "ada" in cli.model.source_vocab
    assert {"B-PER", "S-LOC", "O"} <= set(cli.model.target_vocab.tokens)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.hidden_size", "16", "--data.batch_size", "2", "--trainer.max_epochs", "5"],
        ["--model.hidden_size=16", "--data.batch_size=2", "--trainer.max_epochs=5"],
        ["--model.init_args.hidden_size=16", "--data.init_args.batch_size=2"]
        + ["--trainer={max_epochs: 5}"],
    ],
)
def test_overrides_win(recipe: Path, words: list[str]) -> None:
    cli = build(recipe, words)
    assert cli.model.config["hidden_size"] == 16
    assert cli.model.config["characters"] == "none"
    assert cli.datamodule.batch_size == 2
    assert cli.trainer.max_epochs == 5


def test_a_dictionary_is_changed_in_part_or_whole(recipe: Path) -> None:
    for split in ("train", "dev", "test"):
        lines = [line.replace("\t", "\tX\t") for line in (ROWS * 5).splitlines()]
        Path(f"my_corpus/{split}.conll").write_text("\n".join(lines) + "\n", encoding="utf-8")
    cli = build(recipe, ["--data.columns.pos", "1"])
    assert cli.datamodule.columns == {"pos": 1}
    assert list(cli.model.source_vocab.features) == ["pos"]
    cli = build(recipe, ["--data.columns", "{tokens: 0, shape: 1, tags: -1}"])
    assert list(cli.model.source_vocab.features) == ["shape"]


def test_the_trainer_keeps_quiet_and_keeps_its_hands_off_batches(recipe: Path) -> None:
    trainer: Any = build(recipe, []).trainer
    assert trainer.loggers == []
    assert trainer.gradient_clip_val == 5.0
    assert trainer.num_sanity_val_steps == 0
    assert not trainer._accelerator_connector.use_distributed_sampler
    assert trainer.reload_dataloaders_every_n_epochs == 1


def test_callbacks_of_a_recipe_do_not_drive_out_those_of_the_run(recipe: Path) -> None:
    class Own(Callback):
        pass

    own = Own()
    more = "--trainer.callbacks+=lightning.pytorch.callbacks.LambdaCallback"
    callbacks: list[Any] = vars(build(recipe, [more], [own]).trainer)["callbacks"]
    assert own in callbacks
    kinds = [type(callback).__name__ for callback in callbacks]
    assert "LambdaCallback" in kinds
    (stop,) = [callback for callback in callbacks if isinstance(callback, EarlyStop)]
    assert stop.patience == 2


def test_the_same_seed_makes_the_same_model(recipe: Path) -> None:
    one, same, other = (
        build(recipe, w).model.state_dict() for w in ([], [], ["--seed_everything=8"])
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["emit.weight"], other["emit.weight"])


def test_what_a_recipe_resolves_to_can_be_read_again(recipe: Path) -> None:
    first = build(recipe, ["--model.hidden_size", "16", "--data.labels", "[PER,LOC]"])
    Path("again.yaml").write_text(first.recipe, encoding="utf-8")
    again = build(Path("again.yaml"), [])
    assert again.recipe == first.recipe
    assert again.model.config == first.model.config
    resolved = yaml.safe_load(first.recipe)
    assert resolved["model"]["init_args"]["hidden_size"] == 16
    assert "source_vocab" not in resolved["model"]["init_args"]


def test_the_printed_configuration_has_the_keys_of_all_bases(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        build(recipe, ["--model.hidden_size", "3", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert set(printed) == set(build(recipe, []).model.config)
    assert printed["hidden_size"] == 3  # of TokenNetwork
    assert printed["decoder"] == "crf"  # of Tagger
    assert printed["learning_rate"] == 0.002  # of SequenceModel


def test_the_command_line_of_the_process_is_left_alone(recipe: Path) -> None:
    before = list(sys.argv)
    build(recipe, ["--model.hidden_size", "16"])
    assert sys.argv == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.hiden_size", "3"], "command line: unknown key 'model.hiden_size'."),
        (["--model.hidden_size", "large"], "model.hidden_size: expected int, got large."),
        (["--model.hidden_size", "0"], "model.hidden_size is 0: it must be 1 or more."),
        (["--data.batch_size", "0"], "data.batch_size is 0: it must be 1 or more."),
        (["--data.labels", "[A,A]"], "duplicate label 'A' in data.labels: name each label once."),
        (["--trainer.max_epochs", "-3"], "trainer: `max_epochs` must be a non-negative integer"),
        (["--trainer.devices", "0"], "trainer: `Trainer(devices='0')` value is not a valid input"),
        (["--seed_everything", "x"], "seed_everything: expected bool or int, got x."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_recipe_is_a_sentence(recipe: Path, words: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        build(recipe, words)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_the_data_is_told_as_it_is(recipe: Path) -> None:
    Path("my_corpus/train.conll").write_text("Ada\tB-PER\nslept\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train.conll:2: 1 column where the lines before have 2"):
        build(recipe, [])


def test_a_device_that_is_not_there_is_a_sentence(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lightning.pytorch.accelerators.CUDAAccelerator.is_available", lambda: False
    )
    monkeypatch.setattr("lightning.pytorch.accelerators.MPSAccelerator.is_available", lambda: False)
    for device in ("gpu", "cuda"):
        with pytest.raises(TrainingError, match="use --trainer.accelerator cpu, or auto") as error:
            build(recipe, ["--trainer.accelerator", device])
        assert error.value.exit_code == 1


class Own(SequenceModel):
    """A model of somebody else, which fails as asked."""

    def __init__(self, source_vocab: Any, target_vocab: Any, *, fails: str = "") -> None:
        super().__init__(source_vocab, target_vocab)
        if fails == "value":
            raise ValueError("heads must divide the size\nby all means")
        if fails == "type":
            raise TypeError("a defect")


@pytest.fixture
def own(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = types.ModuleType("own_models")
    vars(module)["Own"] = Own
    monkeypatch.setattr(Own, "__module__", "own_models")
    monkeypatch.setitem(sys.modules, "own_models", module)
    text = RECIPE.replace("seqlab.Tagger", "own_models.Own")
    recipe.write_text(text.replace("hidden_size: 8, characters: none", 'fails: ""'), "utf-8")
    return recipe


def test_models_of_others_need_no_registration(own: Path) -> None:
    assert isinstance(build(own, []).model, Own)


def test_a_value_that_a_class_refuses_is_a_sentence(own: Path) -> None:
    with pytest.raises(RecipeError) as error:
        build(own, ["--model.fails", "value"])
    assert str(error.value) == "own_models.Own: heads must divide the size by all means"


def test_a_defect_of_a_class_is_no_wrong_recipe(own: Path) -> None:
    with pytest.raises(TypeError, match="^a defect$"):
        build(own, ["--model.fails", "type"])


def test_the_usage_of_the_parser_is_not_shown(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError):
        build(recipe, ["--model.hidden_size", "large"])
    assert capsys.readouterr() == ("", "")


def test_what_the_data_says_while_it_is_read_is_shown(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_corpus/train.conll").write_text(ROWS * 5 + " \tO\n", "utf-8")
    build(recipe, [])
    assert "with an empty token" in capsys.readouterr().err


def test_quiet_is_undone_at_its_end() -> None:
    names = ("lightning.pytorch", "lightning.fabric", "lightning")
    before = [logging.getLogger(name).level for name in names]
    filters = list(warnings.filters)
    with contextlib.suppress(ZeroDivisionError), quiet():
        assert {logging.getLogger(name).level for name in names} == {logging.ERROR}
        warnings.warn("it could do with more num_workers, it says", UserWarning, stacklevel=1)
        warnings.warn("a library's own business", DeprecationWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="our business"):
            warnings.warn("our business", UserWarning, stacklevel=1)
        raise ZeroDivisionError
    assert [logging.getLogger(name).level for name in names] == before
    assert list(warnings.filters) == filters

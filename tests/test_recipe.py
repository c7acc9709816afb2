from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from seqlab import recipe
from seqlab.errors import RecipeError, UsageError
from seqlab.recipe import copy_recipe, find_recipe, headline, shipped


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shipped recipes, and an empty folder to work in."""
    home, here = tmp_path / "package" / "recipes", tmp_path / "here"
    home.mkdir(parents=True)
    here.mkdir()
    (home / "pos.yaml").write_text("# Parts of speech.\nmodel: {}\n", encoding="utf-8")
    (home / "ner.yaml").write_text("# Names.\n# More.\nmodel: {}\n", encoding="utf-8")
    (home / "README.md").write_text("# Scores\n", encoding="utf-8")
    monkeypatch.setattr(recipe, "_FOLDERS", (tmp_path / "no wheel", home))
    monkeypatch.chdir(here)
    return home


def test_shipped_recipes_are_listed_by_name(house: Path) -> None:
    assert shipped() == {"ner": house / "ner.yaml", "pos": house / "pos.yaml"}
    assert list(shipped()) == ["ner", "pos"]


def test_a_wheel_comes_before_a_checkout(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = house.parent / "_recipes"
    wheel.mkdir()
    (wheel / "ner.yaml").touch()
    monkeypatch.setattr(recipe, "_FOLDERS", (wheel, house))
    assert shipped() == {"ner": wheel / "ner.yaml"}


def test_the_recipes_of_this_checkout_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert shipped()
    for path in shipped().values():
        assert headline(path)
        assert yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["ner", "ner.yaml", "ner.yml", "recipes/ner.yaml", "./ner.yaml"])
def test_a_shipped_recipe_is_found_from_anywhere(house: Path, name: str) -> None:
    assert find_recipe(name) == house / "ner.yaml"


@pytest.mark.parametrize("name", ["ner.yaml", "recipes/ner.yaml", "deep/in/my.yml", "ner"])
def test_a_file_here_comes_before_a_shipped_one(name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).touch()
    assert find_recipe(name) == Path(name)


def test_an_unknown_name_lists_those_there_are_and_the_nearest() -> None:
    with pytest.raises(RecipeError) as error:
        find_recipe("nerr")
    assert str(error.value) == (
        "no recipe 'nerr': it is no file, and the shipped recipes are ner, pos. Did you mean 'ner'?"
    )


@pytest.mark.parametrize(
    "name", ["", "translate", "mine/ner.yaml", "mine/recipes/ner.yaml", "/ner", "/recipes/ner.yaml"]
)
def test_a_path_that_does_not_exist_is_not_taken_for_another(name: str) -> None:
    with pytest.raises(RecipeError, match=f"^no recipe '{name}': it is no file, "):
        find_recipe(name)


def test_a_folder_is_no_recipe() -> None:
    Path("corpus").mkdir()
    with pytest.raises(RecipeError, match="no recipe 'corpus'"):
        find_recipe("corpus")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# Names.\n# More.\n", "Names."),
        ("\nmodel: {}\n#Late\n", "Late"),
        ("##   Deep   \n", "Deep"),
        ("model: {}  # aside\n", ""),
        ("", ""),
    ],
)
def test_the_headline_is_the_first_comment_line(text: str, line: str) -> None:
    Path("my.yaml").write_text(text, encoding="utf-8")
    assert headline(Path("my.yaml")) == line


@pytest.mark.parametrize(("target", "file"), [("my.yaml", "my.yaml"), (".", "ner.yaml")])
def test_a_copy_can_be_changed(house: Path, target: str, file: str) -> None:
    assert copy_recipe("ner", target) == Path(file)
    assert Path(file).read_bytes() == (house / "ner.yaml").read_bytes()


@pytest.mark.parametrize("target", ["ner.yaml", "."])
def test_a_copy_overwrites_nothing(target: str) -> None:
    Path("ner.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError) as error:
        copy_recipe("ner", target)
    assert str(error.value) == (
        "ner.yaml exists already: remove it or name another file after --copy."
    )
    assert Path("ner.yaml").read_text(encoding="utf-8") == "mine"


def test_a_copy_makes_no_folders() -> None:
    with pytest.raises(UsageError) as error:
        copy_recipe("ner", "new/my.yaml")
    assert str(error.value) == "the folder new does not exist: create it first."
    assert not Path("new").exists()


def test_only_what_is_there_can_be_copied() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'pos'"):
        copy_recipe("poss", "my.yaml")
    assert not Path("my.yaml").exists()

"""Recipes: where they are, what they are called, how to copy one. Standard library only."""

from __future__ import annotations

import shutil
from pathlib import Path

from seqlab.errors import RecipeError, UsageError, nearest

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = (_PACKAGE / "_recipes", _PACKAGE.parent / "recipes")  # in a wheel, in a checkout


def shipped() -> dict[str, Path]:
    """Return the recipes that come with seqlab, by name, in alphabetical order."""
    for folder in _FOLDERS:
        if folder.is_dir():
            files = sorted(folder.glob("*.yaml"), key=lambda path: path.stem)
            return {path.stem: path for path in files}
    return {}


def zoo_folder() -> Path:
    """Return the folder of the recipes of the zoo, with what its models are packed with.

    Raises:
        RecipeError: they were left out where seqlab was installed.
    """
    for folder in _FOLDERS:
        if (folder / "zoo" / "models.json").is_file():
            return folder / "zoo"
    raise RecipeError("the recipes of the zoo are not here: install seqlab again.")


def headline(path: Path) -> str:
    """Return the first comment line of a recipe, which says what it is."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#"):
                return line.lstrip("# ").strip()
    return ""


def find_recipe(name: str) -> Path:
    """Find a recipe by path or by the name of one that is shipped.

    Args:
        name: a path to a YAML file, or a shipped name such as ``ner``. A path ``recipes/ner.yaml``
            that does not exist here is taken as the shipped recipe of that name.

    Returns:
        the file.

    Raises:
        RecipeError: there is none; the sentence lists those that are shipped.
    """
    path = Path(name)
    if path.is_file():
        return path
    found = shipped()
    stem = path.stem if path.suffix in (".yaml", ".yml") else name
    if stem in found and path.parent in (Path(), Path("recipes")):
        return found[stem]
    raise RecipeError(
        f"no recipe {name!r}: it is no file, and the shipped recipes are {', '.join(found)}."
        f"{nearest(stem, found)}"
    )


def copy_recipe(name: str, target: str) -> Path:
    """Copy a shipped recipe to a place where it can be changed.

    Args:
        name: of the recipe.
        target: a file, or a folder to put it in.

    Returns:
        the new file.

    Raises:
        RecipeError: there is no such recipe.
        UsageError: the target exists already or its folder does not.
    """
    source = find_recipe(name)
    path = Path(target)
    if path.is_dir():
        path = path / source.name
    if path.exists():
        raise UsageError(f"{path} exists already: remove it or name another file after --copy.")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist: create it first.")
    shutil.copyfile(source, path)
    return path

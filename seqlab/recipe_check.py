"""Recipes and overrides checked key by key, before anything is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import seqlab
from seqlab.errors import RecipeError, nearest
from seqlab.networks.parts import import_name

_LINKED = {"source_vocab", "target_vocab", "self"}
_CLASSES = ("model", "data")
_CLASS_PATH = re.compile(r"(?!.*\.ya?ml$)\w+(\.\w+)+")


class _Loader(yaml.SafeLoader):
    """The safe loader of YAML, which refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, as the base class does."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_recipe(file: Path, sections: Mapping[str, type | None]) -> dict[str, Any]:
    """Read a recipe and check every key in it.

    Args:
        file: a YAML file.
        sections: the top-level keys; a class where the keys below are those of its constructor,
            None where they are of another kind.

    Returns:
        the recipe as plain data.

    Raises:
        RecipeError: it is no YAML mapping, or a key is not known; the sentence names the nearest.
    """
    try:
        recipe = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or an impossible date
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or error
        raise RecipeError(f"{place}: the recipe is not valid YAML ({problem}).") from error
    if not isinstance(recipe, dict):
        raise RecipeError(
            f"{file}: a recipe is a YAML mapping with the keys {', '.join(sections)}."
        )
    for key, value in recipe.items():
        _known(str(file), str(key), str(key), sections)
        if key in _CLASSES:
            _check_class(f"{file}: {key}", str(key), value)
        elif isinstance(value, dict):
            for name in value:
                _check(str(file), [str(key), str(name)], sections, {})
        elif sections[key] is not None and value is not None:
            raise RecipeError(f"{file}: {key}: give a mapping of keys to values.")
    return recipe


def check_overrides(
    overrides: Sequence[str], sections: Mapping[str, type | None], recipe: Mapping[str, Any]
) -> None:
    """Check the keys of ``--key value`` overrides.

    Args:
        overrides: from the command line.
        sections: as for :func:`read_recipe`.
        recipe: what :func:`read_recipe` returned.

    Raises:
        RecipeError: a key or a class is not known, the sentence names the nearest; or a word is no
            key, or a key has no value.
    """
    words = iter(overrides)
    for word in words:
        option, equals, value = word.partition("=")
        if option == "--print_config":
            continue
        if not option.startswith("--"):
            raise RecipeError(
                f"command line: what is {word!r}? Write overrides as --key value, such as "
                "--trainer.max_epochs 3."
            )
        key = option[2:].removesuffix("+")  # `--key+=value` appends
        if key != "config":
            _check("command line", key.split("."), sections, recipe)
        if not equals:
            value = next(words, "--")
        if value.startswith("--"):
            raise RecipeError(f"command line: {option} has no value: write {option} VALUE.")
        if key.removesuffix(".class_path") in _CLASSES and _CLASS_PATH.fullmatch(value):
            _class("command line", value)


def _check(
    place: str,
    path: Sequence[str],
    sections: Mapping[str, type | None],
    recipe: Mapping[str, Any],
) -> None:
    if path[0] not in sections and (home := _home(path[0], sections, recipe)):
        raise _unknown(place, path[0], f" Did you mean {home!r}?")
    _known(place, path[0], path[0], sections)
    names = [name for name in path[1:] if name not in ("init_args", "class_path")]
    if not names:
        return
    cls = sections[path[0]]
    if path[0] in _CLASSES:
        section = recipe.get(path[0])
        if not isinstance(section, dict) or "class_path" not in section:
            return  # the parser itself says what class is missing
        cls = _class(place, section["class_path"])
    if cls is not None:
        _known(place, ".".join([path[0], names[0]]), names[0], _parameters(cls))


def _home(name: str, sections: Mapping[str, type | None], recipe: Mapping[str, Any]) -> str:
    """Spell a key out that was given without its section; empty where no section has it."""
    for section, cls in sections.items():
        given = recipe.get(section)
        if section in _CLASSES and isinstance(given, dict) and "class_path" in given:
            cls = _class(section, given["class_path"])
        if cls is not None and name in _parameters(cls):
            return f"{section}.{name}"
    return ""


def _check_class(place: str, key: str, section: Any) -> None:
    if not isinstance(section, dict) or "class_path" not in section:
        raise RecipeError(f"{place}: name a class, such as `class_path: seqlab.Tagger`.")
    cls = _class(place, section["class_path"])
    for name in section:
        _known(place, f"{key}.{name}", str(name), ("class_path", "init_args"))
    arguments = section.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise RecipeError(f"{place}.init_args: give a mapping of keys to values.")
    for name in arguments:
        _known(place, f"{key}.{name}", str(name), _parameters(cls))


def _class(place: str, path: Any) -> type:
    name = str(path)
    try:
        cls = import_name(name)
    except ImportError as error:
        known = [f"seqlab.{n}" for n in seqlab.__all__]
        raise RecipeError(
            f"{place}: no class {name!r} can be imported ({error}).{nearest(name, known)}"
        ) from error
    if not isinstance(cls, type):
        raise RecipeError(f"{place}: {name!r} is no class.")
    return cls


def _parameters(cls: type) -> list[str]:
    """Name what a constructor takes; ``**options`` stands for what the next base class takes."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        given = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names.update(
            dict.fromkeys(p.name for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        )
        if not any(p.kind == p.VAR_KEYWORD for p in given):
            break
    return [name for name in names if name not in _LINKED]


def _known(place: str, key: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise _unknown(place, key, nearest(name, names))


def _unknown(place: str, key: str, hint: str) -> RecipeError:
    return RecipeError(
        f"{place}: unknown key {key!r}.{hint} `seqlab fit RECIPE --print_config` shows all keys."
    )


def explain(message: str) -> str:
    r"""Make one sentence of what the argument parser says about a wrong value.

    Args:
        message: of jsonargparse, several lines long.

    Example:
        >>> explain('Parser key "model.hidden_size":\n  Expected a <class \'int\'>. Got value: abc')
        'model.hidden_size: expected int, got abc.'
    """
    path = list(dict.fromkeys(re.findall(r'[Kk]ey "([^"]+)"', message)))
    where = ".".join(path)
    kinds = re.findall(
        r"Expected an? (?:<class '([^']+)'>|([^\n]+?))(?:\. Got value: ([^\n]+))?$", message, re.M
    )
    choices = [
        re.sub(r"typing\.Literal\[(.+)\]", r"one of \1", kind or other)
        for kind, other, _ in kinds
        if not re.search("NoneType|^path but|^dot import path", kind or other)
    ]
    literals = [choice.removeprefix("one of ") for choice in choices if choice[:4] == "one "]
    if len(literals) > 1:  # several lists of words, as of `trainer.precision`
        choices = [choice for choice in choices if choice[:4] != "one "]
        words = dict.fromkeys(word for part in literals for word in part.split(", "))
        choices.append(f"one of {', '.join(words)}")
    given = [got for *_, got in kinds if got] or re.findall(r"Given value: ([^\n]+)", message)
    if choices and given and where:
        return f"{where}: expected {' or '.join(dict.fromkeys(choices))}, got {given[0]}."
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    lines = [x for x in lines if not re.match("Given value|Expected a <class 'NoneType'>", x)]
    if where and len(lines) > 1:
        return f"{where}: {lines[-1]}"
    return re.sub(r'^Parser key "([^"]+)"', r"\1", " ".join(lines))

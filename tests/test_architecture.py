"""The floors of the house: imports point down only, and what is heavy is imported where it is used.

Everything is read from the source with ``ast``, so nothing here depends on what happens to be
imported; only the tests on start-up time and on the public names run the package.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import seqlab

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "seqlab"
FILES = sorted(PACKAGE.rglob("*.py"))

# Every module directly under seqlab and the floor it stands on; "__init__" is the package itself.
FLOORS = {
    name: floor
    for floor, names in enumerate(
        [
            "__init__ caches errors recipe requeue runs samples",
            "archives batch embedding_cache hub_model installed label_metrics memory metrics nn "
            "pairs receipts schemes significance subword_training subwords tags "
            "translation_metrics vocabulary wheels word_pieces words",
            "data models networks",
            "abstention bundle calibration callbacks cascade confidence early_stopping hub "
            "hub_push invariance labelled model_card output pipeline probes pruning report "
            "resuming sentence stopping storage tagged translated translation_pipeline wishes",
            "budget bulk catalogue compare configuration explain interrupts lint package predict "
            "predict_cascade predict_options predict_translations printing progress reading "
            "recipe_check restoring routing search_arguments serve strategies training zoo "
            "zoo_build",
            "__main__",
        ]
    )
    for name in names.split()
}
# Siblings that never meet, and the only modules of seqlab that a floor-mate may know.
STRANGERS = {
    "data": {"models", "networks"},
    "models": {"data"},
    "networks": {"data", "models"},
}
ALLOWED = {"nn": {"nn", "caches", "errors", "tags"}}
# The one way up: a model saves and loads itself as a whole, by what its methods import.
DOORS = {
    ("hub_model", "bundle"),
    ("hub_model", "hub"),
    ("hub_model", "hub_push"),
    ("hub_model", "zoo"),
}
# Packages too heavy to be met by chance, and the one file that may import each, inside functions.
HOMES_OF_HEAVY = {"datasets": "data/sources.py", "transformers": "nn/bert.py"}
FRAMEWORKS = {"lightning", "pytorch_lightning", "lightning_fabric"}
# Files that import the standard library and seqlab only, and files that do so when they are loaded.
STANDARD = {
    "__init__.py",
    "archives.py",
    "errors.py",
    "receipts.py",
    "recipe.py",
    "schemes.py",
    "tags.py",
    "words.py",
}
STANDARD_AT_LOAD = {"__main__.py", "data/formats.py"}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_LINES = 400
# Tests of the whole rather than of one module.
CROSS_CUTTING = {
    "test_architecture.py",
    "test_benchmarks.py",
    "test_docs.py",
    "test_errors_page.py",
    "test_processes.py",
    "test_promises.py",
    "test_recipes.py",
    "test_workflows.py",
}


class Import(NamedTuple):
    """One imported module, written in full, and whether loading the file leaves it unloaded."""

    file: str
    line: int
    module: str
    lazy: bool

    def __str__(self) -> str:
        return f"seqlab/{self.file}:{self.line} imports {self.module}"


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def floor_mate(file: str) -> str:
    """The module directly under seqlab that a file belongs to: ``nn/crf.py`` belongs to ``nn``."""
    return file.removesuffix(".py").split("/")[0]


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    }


def modules_in(node: ast.AST, file: str) -> list[str]:
    """The modules that one node imports; ``from seqlab import tags`` is ``seqlab.tags``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        folder = ["seqlab", *file.split("/")[:-1]]
        base = folder[: len(folder) + 1 - node.level] if node.level else []
        module = ".".join([*base, *filter(None, [node.module])])
        names = [f"{module}.{alias.name}" for alias in node.names]
        return names if module == "seqlab" else [module]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [a.value for a in node.args if isinstance(a, ast.Constant) and type(a.value) is str]
    return []


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of a file, wherever it stands; type checking apart in ``seqlab/__init__.py``."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for module in modules_in(node, file):
            yield Import(file, getattr(node, "lineno", 0), module, lazy)
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_body = node.body if isinstance(node, ast.If) and is_typing_only(node) else []
        if typing_body and file == "__init__.py":
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside or child in typing_body)

    return walk(ast.parse(source), lazy=False)


def target_of(module: str) -> str | None:
    """The module directly under seqlab that an import reaches; None for other packages."""
    first, _, rest = module.partition(".")
    if first != "seqlab":
        return None
    name = rest.split(".")[0]
    if name in seqlab._HOMES:  # `from seqlab import CRF` reaches down to seqlab.nn.crf
        return seqlab._HOMES[name].split(".")[1]
    return name if name in FLOORS else "__init__"


IMPORTS = [i for path in FILES for i in imports_of(path.read_text(encoding="utf-8"), name_of(path))]


def test_imports_are_seen_wherever_they_stand() -> None:
    source = """
import torch.nn as nn
from seqlab import tags, __version__
from . import crf
from ..data.formats import Row
if TYPE_CHECKING:
    import datasets
else:
    import numpy
class A:
    import json
    def f(self):
        from seqlab.models.tagger import Tagger
        importlib.import_module("seqlab.zoo")
"""
    assert [(i.module, i.lazy) for i in imports_of(source, "nn/x.py")] == [
        ("torch.nn", False),
        ("seqlab.tags", False),
        ("seqlab.__version__", False),
        ("seqlab.nn", False),
        ("seqlab.data.formats", False),
        ("datasets", True),
        ("numpy", False),
        ("json", False),
        ("seqlab.models.tagger", True),
        ("seqlab.zoo", True),
    ]
    typing = "if TYPE_CHECKING:\n    import seqlab.zoo"
    assert list(imports_of(typing, "__init__.py")) == []
    assert target_of("seqlab.nn.crf") == target_of("seqlab.CRF") == "nn"
    assert target_of("seqlab.__version__") == target_of("seqlab") == "__init__"
    assert target_of("seqlabel") is None


def test_every_module_has_a_floor() -> None:
    found = {floor_mate(name_of(path)) for path in FILES}
    assert found >= {"__init__", "errors", "tags", "vocabulary", "batch", "nn", "models", "data"}
    unknown = sorted(found - set(FLOORS))
    assert not unknown, f"give {unknown} a floor: add them to FLOORS in tests/test_architecture.py"


def test_imports_point_down_only() -> None:
    wrong = []
    for i in IMPORTS:
        source, target = floor_mate(i.file), target_of(i.module)
        if target is None or source == target:
            continue
        if i.lazy and (source, target) in DOORS:
            continue
        upwards = FLOORS[target] > FLOORS.get(source, 0)
        strange = target in STRANGERS.get(source, ())
        unknown = target not in ALLOWED.get(source, FLOORS)
        if upwards or strange or unknown:
            wrong.append(str(i))
    assert wrong == []


def test_floor_mates_do_not_import_in_circles() -> None:
    edges = {(floor_mate(i.file), t) for i in IMPORTS if (t := target_of(i.module)) is not None}
    graph: dict[str, set[str]] = {}
    for source, target in edges - DOORS:
        if source != target:
            graph.setdefault(source, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_the_command_line_imports_the_house_inside_functions_only() -> None:
    wrong = [
        str(i)
        for i in IMPORTS
        if i.file == "__main__.py" and not i.lazy and target_of(i.module) not in {None, "__init__"}
    ]
    assert wrong == []


@pytest.mark.parametrize("package", HOMES_OF_HEAVY)
def test_heavy_packages_have_one_home_and_are_imported_late(package: str) -> None:
    met = [i for i in IMPORTS if i.module.split(".")[0] == package]
    wrong = [str(i) for i in met if i.file != HOMES_OF_HEAVY[package] or not i.lazy]
    assert wrong == []


def test_layers_know_no_training_framework() -> None:
    wrong = [
        str(i)
        for i in IMPORTS
        if floor_mate(i.file) == "nn" and i.module.split(".")[0] in FRAMEWORKS
    ]
    assert wrong == []


def test_light_files_import_the_standard_library_only() -> None:
    wrong = [
        str(i)
        for i in IMPORTS
        if (i.file in STANDARD or (i.file in STANDARD_AT_LOAD and not i.lazy))
        and i.module.split(".")[0] not in {*sys.stdlib_module_names, "seqlab"}
    ]
    assert wrong == []


def test_modules_are_named_for_a_subject() -> None:
    names = {part for path in FILES for part in name_of(path).removesuffix(".py").split("/")}
    assert names & NAMELESS == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines < MAX_LINES


def public_definitions(body: list[ast.stmt]) -> Iterator[tuple[ast.AST, str]]:
    """Public functions, classes and methods; overloads and setters are described by another."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        marks = {ast.unparse(mark).split(".")[-1] for mark in node.decorator_list}
        if node.name.startswith("_") or marks & {"overload", "setter"}:
            continue
        yield node, node.name
        if isinstance(node, ast.ClassDef):
            yield from ((n, f"{node.name}.{name}") for n, name in public_definitions(node.body))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    silent = [
        name
        for node, name in public_definitions(tree.body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_tests_mirror_the_tree() -> None:
    tests = {path.relative_to(ROOT / "tests") for path in ROOT.glob("tests/**/test_*.py")}
    modules = [Path(name_of(path).removesuffix("/__init__.py")) for path in FILES]
    mirrors = {m.with_name(f"test_{m.stem.strip('_')}.py") for m in modules}
    whole = {Path(name) for name in CROSS_CUTTING}
    assert tests >= whole
    assert sorted(map(str, tests - mirrors - whole)) == []


def test_public_names_are_sorted_and_have_homes() -> None:
    assert seqlab.__all__ == sorted(seqlab.__all__)
    assert set(seqlab.__all__) == set(seqlab._HOMES)


@pytest.mark.parametrize("name", seqlab.__all__)
def test_public_names_resolve(name: str) -> None:
    value = getattr(seqlab, name)
    assert value.__name__ == name
    assert value.__module__ == seqlab._HOMES[name]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import seqlab"],
        ["-c", "import seqlab.errors, seqlab.recipe, seqlab.schemes, seqlab.tags, seqlab.words"],
        ["-c", "import seqlab.data.formats"],
        ["-c", "import seqlab.receipts, seqlab.wheels, seqlab.installed"],
        ["-m", "seqlab", "--help"],
        ["-m", "seqlab", "--version"],
    ],
    ids=" ".join,
)
def test_starting_up_loads_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}
    assert "seqlab" in loaded or "-m" in arguments
    heavy = {"torch", "numpy", "pyarrow", "pandas", "torchmetrics", "tokenizers", "jsonargparse"}
    assert loaded & {*heavy, *FRAMEWORKS, *HOMES_OF_HEAVY} == set()

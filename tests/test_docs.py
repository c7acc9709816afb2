"""The pages for users: their Python runs, their commands run, the files they show are read.

A page is run from top to bottom in a folder of its own, which holds a small corpus ``my_corpus``, a
file of word vectors and a trained model, ``runs/ner/latest``. What stands behind the language of a
block says more about it:

- a file name: the block is written to that file, and not run;
- ``exit=1``: its command fails with this code (in a block of commands).
"""

from __future__ import annotations

import contextlib
import doctest
import gzip
import io
import os
import random
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from seqlab.__main__ import main
from tests.nn.test_bert import pretrained

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SAMPLE = ROOT / "seqlab" / "samples" / "ner"
SENTENCES = 24  # of each split of the sample, to make the small corpus

LANGUAGES = ("bash", "python", "text", "yaml")
FENCE = re.compile(r"```(\w*)(?: +(\S.*))?")
INSTALL = (
    r"python3 -m venv --upgrade-deps \.venv && \.venv/bin/pip install -q -e (?:\.|'\.\[test\]')"
)
SETUP = {
    f"{INSTALL} && {last}"
    for last in (r"\.venv/bin/seqlab fit recipes/ner\.yaml", r"\.venv/bin/python -m pytest")
}
BENCHMARK = r"python benchmarks/\w+\.py(?: .*)?"  # tests/test_benchmarks.py runs them
# Lines of commands that are not ours to run: all others are run, or are an error.
SKIPPED = [re.compile(p) for p in (*SETUP, r"export \w+=\S+", r"(?:pip install|cd) \S+", BENCHMARK)]
SETTING = re.compile(r"([A-Z_]+)=(\S*)")

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="an installed package carries no documentation"
)


class Block(NamedTuple):
    """A fenced block of a page: its first line's number, its language, a note, its text."""

    page: str
    line: int
    language: str
    note: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(text: str, page: str) -> list[Block]:
    """Cut a page into its blocks; everything between fences belongs to one."""
    blocks: list[Block] = []
    lines: list[str] = []
    opened: tuple[int, str, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.fullmatch(line)
        if opened is None and fence:
            opened, lines = (number + 1, fence[1], fence[2] or ""), []
        elif opened and line == "```":
            blocks.append(Block(page, *opened, "".join(f"{x}\n" for x in lines)))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{page}: the block at line {opened} is not closed"
    return blocks


BLOCKS = {
    name: blocks_of(page.read_text(encoding="utf-8"), name)
    for name, page in zip(NAMES, PAGES, strict=True)
}


def commands_of(block: Block) -> list[str]:
    """The commands of a block, those that go over several lines put together."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def small(words: list[str]) -> list[str]:
    """Let a command that trains be done soon: it is to be right, not good."""
    if words[0] != "fit":
        return words
    epochs = "2" if "--ckpt_path" in words else "1"
    return [*words, "--trainer.max_epochs", epochs, "--model.hidden_size", "8"]


def run_command(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run one ``seqlab`` command in this process; ``cat FILE |`` before it gives it an input."""
    with monkeypatch.context() as patch:
        piped = re.fullmatch(r"cat (\S+) \| (.*)", line)
        if piped:
            content = io.BytesIO(Path(piped[1]).read_bytes())
            patch.setattr(sys, "stdin", io.TextIOWrapper(content, "utf-8"))
            line = piped[2]
        words = shlex.split(line, comments=True)
        while setting := SETTING.fullmatch(words[0]):
            patch.setenv(setting[1], setting[2])
            words.pop(0)
        assert words[0] == "seqlab", f"no command that this test knows: {line}"
        try:
            return main(small(words[1:]))
        except SystemExit as end:  # how the parser of recipes leaves after --print_config
            return int(end.code or 0)


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Run a block of Python; one with prompts also has to print what it shows."""
    if ">>>" not in block.text:
        with warnings.catch_warnings():  # the trainer's advice on workers and progress bars
            warnings.filterwarnings("ignore", module="lightning")
            exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), names)
        return
    told: list[str] = []
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(
        block.text, names, block.place, block.page, block.line - 1
    )
    found = doctest.DocTestRunner(optionflags=options).run(test, out=told.append, clear_globs=False)
    assert found.attempted, f"{block.place}: nothing was run"
    assert not found.failed, "".join(told)
    names.update(test.globs)


def run_block(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a block asks for."""
    if block.note and not block.note.startswith("exit="):
        Path(block.note).parent.mkdir(exist_ok=True)
        Path(block.note).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        run_python(block, names)
    elif block.language == "bash":
        expected = int(block.note.partition("=")[2] or 0)
        for line in commands_of(block):
            if not any(skipped.fullmatch(line) for skipped in SKIPPED):
                code = run_command(line, monkeypatch)
                assert code == expected, f"{block.place}: exit code {code} of: {line}"


@contextlib.contextmanager
def at(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Work in a folder, with nothing left behind in the process."""
    environment, modules = dict(os.environ), set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SEQLAB_RUNS", raising=False)
        patch.syspath_prepend(folder)
        try:
            yield patch
        finally:
            for name in set(sys.modules) - modules:
                if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
                    del sys.modules[name]
            os.environ.clear()
            os.environ.update(environment)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages take for granted; the run is the README's first command."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "my_corpus").mkdir()
    words: set[str] = set()
    for split in ("train", "dev", "test"):
        sentences = (SAMPLE / f"{split}.conll").read_text(encoding="utf-8").split("\n\n")
        text = "\n\n".join(sentences[:SENTENCES]) + "\n"
        (folder / "my_corpus" / f"{split}.conll").write_text(text, encoding="utf-8")
        words.update(line.split("\t")[0].lower() for line in text.splitlines() if line)
    draw = random.Random(1)
    with gzip.open(folder / "glove.6B.100d.txt.gz", "wt", encoding="utf-8") as out:
        for word in sorted(words)[::2]:
            out.write(" ".join([word, *(f"{draw.uniform(-1, 1):.3f}" for _ in range(100))]) + "\n")
    with at(folder) as patch:
        assert run_command("seqlab fit recipes/ner.yaml", patch) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_a_page_is_true(name: str, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder, symlinks=True)
    names: dict[str, Any] = {"__name__": "__main__"}
    with at(folder) as patch:
        small_bert = pretrained(folder / "my_bert")  # the real one is an extra, and slow
        patch.setattr("seqlab.nn.bert._minilm", lambda: small_bert)
        for block in BLOCKS[name]:
            run_block(block, names, patch)


def test_all_pages_are_found_and_listed() -> None:
    wanted = {"README", "bert", "cells", "compare", "classification", "crf", "data", "translation"}
    wanted |= {"confidence", "design", "errors", "explain", "memory", "runs", "speed", "zoo"}
    wanted |= {"bulk", "scale"}
    assert set(NAMES) == {"README.md", *(f"docs/{page}.md" for page in wanted)}
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page for page in wanted - {"README"} if f"({page}.md)" not in index] == []


def test_the_pages_hold_as_many_blocks_as_they_should() -> None:
    counts = {
        name: {kind: sum(b.language == kind for b in blocks) for kind in ("bash", "python")}
        for name, blocks in BLOCKS.items()
    }
    least = {
        "README.md": (3, 1),
        "docs/bert.md": (4, 0),
        "docs/bulk.md": (3, 1),
        "docs/classification.md": (4, 1),
        "docs/compare.md": (2, 0),
        "docs/confidence.md": (3, 1),
        "docs/crf.md": (0, 7),
        "docs/data.md": (4, 7),
        "docs/explain.md": (4, 4),
        "docs/memory.md": (1, 1),
        "docs/runs.md": (6, 6),
        "docs/scale.md": (0, 0),
        "docs/speed.md": (1, 0),
        "docs/translation.md": (5, 1),
        "docs/zoo.md": (2, 2),
    }
    for name, (commands, code) in least.items():
        assert counts[name]["bash"] >= commands, name
        assert counts[name]["python"] >= code, name


def test_every_block_has_a_language_that_is_known() -> None:
    blocks = [block for page in BLOCKS.values() for block in page]
    assert [b.place for b in blocks if b.language not in LANGUAGES] == []


def test_the_readme_begins_with_one_command_to_train_and_one_to_test() -> None:
    first, second, *_ = [block for block in BLOCKS["README.md"] if block.language == "bash"]
    for block, last in ((first, r"seqlab fit recipes/ner\.yaml"), (second, "python -m pytest")):
        (line,) = commands_of(block)
        assert re.fullmatch(rf"{INSTALL} && \.venv/bin/{last}", line), block.place


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_lead_somewhere(name: str) -> None:
    page = ROOT / name
    prose = re.sub(r"```.*?```|`[^`]+`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    files = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in files if not (page.parent / link).exists()] == []


def test_a_block_that_shows_another_result_fails() -> None:
    with pytest.raises(AssertionError, match="Expected"):
        run_python(Block("page.md", 7, "python", "", ">>> 1 + 1\n3\n"), {})


def test_a_command_that_fails_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block("page.md", 7, "bash", "", "seqlab fitt ner\n")
    with pytest.raises(AssertionError, match="page.md:7: exit code 2"):
        run_block(block, {}, monkeypatch)
    run_block(block._replace(note="exit=2"), {}, monkeypatch)


def test_a_line_that_is_no_known_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="no command that this test knows"):
        run_block(Block("page.md", 7, "bash", "", "rm -r runs\n"), {}, monkeypatch)

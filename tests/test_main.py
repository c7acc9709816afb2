"""The command line itself: verbs, help, exit codes, and what is loaded when."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import seqlab
from seqlab import __main__ as program
from seqlab.__main__ import main
from seqlab.errors import SeqlabError, UsageError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "torch",
    "lightning",
    "datasets",
    "transformers",
    "numpy",
    "pyarrow",
    "yaml",
    "jsonargparse",
)
TRAINING = ("fit", "validate", "test")
VERBS = (*TRAINING, "predict", "explain", "compare", "package", "models", "zoo", "recipes")
SCRIPT = Path(sys.executable).with_name("seqlab")


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, **options
    )


def raising(error: BaseException) -> Any:
    def dispatch(verb: str, argv: list[str]) -> int:
        raise error

    return dispatch


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["recipes"], ["fitt"], ["fit"], []])
def test_what_needs_no_model_loads_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from seqlab.__main__ import main\n"
        f"main({words!r})\n"
        f"loaded = {set(HEAVY)!r} & {{name.split('.')[0] for name in sys.modules}}\n"
        "assert not loaded, loaded"
    )
    if words == ["fit"]:  # the one verb here that brings the trainer, to show that this can fail
        done = run("-c", code, cwd=tmp_path)
        assert done.returncode == 1
        assert "'torch'" in done.stderr
        return
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_help_comes_at_once(tmp_path: Path) -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert run("-m", "seqlab", "--help", cwd=tmp_path).returncode == 0
        times.append(time.perf_counter() - start)
    assert statistics.median(times) < 1.0  # 0.05 s on an idle machine; tests may share theirs


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_explains_every_verb(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {verb} ", shown, re.MULTILINE) for verb in VERBS)
    assert all(option in shown for option in ("--json", "--ckpt_path", "--debug", "--trust"))
    assert max(map(len, shown.splitlines())) <= 100


def test_no_words_at_all_show_the_help_and_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["seqlab"])
    assert main() == 2
    assert "usage: seqlab VERB" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_every_verb_has_help(verb: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    if verb in ("predict", "explain", "compare", "package", "models", "zoo"):
        with pytest.raises(SystemExit) as end:
            main([verb, word])
        assert end.value.code == 0
    else:
        assert main([verb, "ner", word]) == 0
    out, err = capsys.readouterr()
    assert f"seqlab {verb}" in out or f"  {verb} " in out
    assert err == ""


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"seqlab {seqlab.__version__}\n"


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("fitt", " Did you mean 'fit'?"), ("predictions", " Did you mean 'predict'?")],
)
def test_an_unknown_verb_is_wrong_usage(
    verb: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb]) == 2
    assert capsys.readouterr().err == (
        f"seqlab: unknown verb {verb!r}: use {', '.join(VERBS)}.{hint} `seqlab --help` explains "
        "them.\n"
    )


@pytest.mark.parametrize("kind", [SeqlabError, UsageError])
def test_an_error_is_one_line_and_a_code(
    kind: type[SeqlabError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "_dispatch", raising(kind("this is wrong: mend it.")))
    assert main(["fit", "ner"]) == kind.exit_code
    assert capsys.readouterr() == ("", "seqlab: this is wrong: mend it.\n")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(place: int, tmp_path: Path) -> None:
    words = ["fit", "nre"]
    plain = run("-m", "seqlab", *words, cwd=tmp_path)
    assert plain.returncode == 2
    assert plain.stderr.startswith("seqlab: no recipe 'nre'")
    assert plain.stderr.count("\n") == 1
    words.insert(place, "--debug")
    debugged = run("-m", "seqlab", *words, cwd=tmp_path)
    assert debugged.returncode == 1
    assert "Traceback (most recent call last)" in debugged.stderr
    assert "seqlab.errors.RecipeError: no recipe 'nre'" in debugged.stderr


def test_ctrl_c_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "_dispatch", raising(KeyboardInterrupt()))
    assert main(["fit", "ner"]) == 1
    assert capsys.readouterr().err == "seqlab: stopped by Ctrl-C.\n"
    with pytest.raises(KeyboardInterrupt):
        main(["fit", "ner", "--debug"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "my.txt"), "my.txt: Permission denied."),
        (OSError(5, "Input/output error"), "Input/output error."),
        (OSError("odd"), "odd."),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "_dispatch", raising(error))
    assert main(["fit", "ner"]) == 1
    assert capsys.readouterr().err == f"seqlab: {said}\n"
    with pytest.raises(OSError, match=str(error.strerror or "odd")):
        main(["fit", "ner", "--debug"])


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_dispatch", raising(TypeError("a defect")))
    with pytest.raises(TypeError, match="a defect"):
        main(["fit", "ner"])


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_has_enough_ends_the_work_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m seqlab recipes; echo code $? >&2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    read, write = os.pipe()
    os.close(read)  # the reader is gone before the first line comes
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    os.close(write)
    assert done.stderr == "code 0\n"


def test_recipes_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert "ner" in {line.split()[0] for line in lines}
    assert min(len(line.split()) for line in lines) > 5


def test_a_recipe_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "ner", "--copy", str(tmp_path)]) == 0
    copy = tmp_path / "ner.yaml"
    assert capsys.readouterr().out == f"{copy}\n"
    assert copy.read_bytes() == (ROOT / "recipes" / "ner.yaml").read_bytes()


@pytest.mark.parametrize("words", [["ner"], ["--copy"], ["ner", "--copy"], ["ner", "to", "x.yaml"]])
def test_recipes_are_asked_for_in_two_ways_only(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes", *words]) == 2
    assert (
        "usage: `seqlab recipes` or `seqlab recipes NAME --copy PATH`." in capsys.readouterr().err
    )


@pytest.mark.skipif(not SCRIPT.exists(), reason="seqlab is not installed beside this Python")
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["recipes"], ["fitt"], []])
def test_the_script_and_the_module_agree(words: list[str], tmp_path: Path) -> None:
    module = run("-m", "seqlab", *words, cwd=tmp_path)
    script = subprocess.run(
        [str(SCRIPT), *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (script.returncode, script.stdout, script.stderr) == (
        module.returncode,
        module.stdout,
        module.stderr,
    )


def test_the_script_is_the_modules_main() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'seqlab = "seqlab.__main__:main"' in text


def test_a_process_of_ours_looks_for_garbage_seldom(tmp_path: Path) -> None:
    code = (
        "import gc, sys; from seqlab.__main__ import main\n"
        "main(['--version']); before = gc.get_threshold()[0]\n"  # a caller's process stays as it is
        "sys.argv = ['seqlab', '--version']; main(); print(before, gc.get_threshold()[0])"
    )
    usual = run("-c", "import gc; print(gc.get_threshold()[0])", cwd=tmp_path).stdout.strip()
    assert run("-c", code, cwd=tmp_path).stdout.splitlines()[-1] == f"{usual} 50000"

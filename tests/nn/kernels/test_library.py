"""How the compiled kernels are built, kept and found, and what is said where they cannot be.

What is compiled here is one small function in the place of the kernels.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqlab.caches import cache_folder
from seqlab.nn import kernels
from seqlab.nn.kernels import library
from seqlab.nn.kernels.library import Unavailable, signature

ROOT = Path(__file__).resolve().parents[3]
SOURCE = 'extern "C" int answer() { return NUMBER; }\n'
needs_compiler = pytest.mark.skipif(library._compiler() is None, reason="no C++ compiler is here")
needs_shell = pytest.mark.skipif(os.name == "nt", reason="compilers here are shell scripts")


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built or said yet, and one function is all there is to build."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("SEQLAB_KERNELS", raising=False)
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))
    sources = tmp_path / "native"
    sources.mkdir()
    (sources / "answer.cpp").write_text('#include "number.h"\n' + SOURCE, encoding="utf-8")
    (sources / "number.h").write_text("#define NUMBER 42\n", encoding="utf-8")
    monkeypatch.setattr(library, "SOURCES", sources)
    monkeypatch.setattr(library, "_said", set())
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin anew, as another process would."""
    monkeypatch.setattr(library, "_loaded", [])


def answer() -> int:
    return int(library.library()["answer"]())


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/c++")


def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_built", lambda *_: pytest.fail("it was built again"))


def script(path: Path, lines: str) -> str:
    path.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def kept(kind: str) -> list[Path]:
    return sorted(cache_folder("kernels").glob(f"*.{kind}"))


def run(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_compiler
def test_what_was_built_is_found_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert answer() == 42
    files = list(cache_folder("kernels").iterdir())
    assert len(kept("so")) == len(kept("txt")) == len(files) / 2 == 1
    forget(monkeypatch)
    nothing_is_built(monkeypatch)
    assert answer() == 42
    assert library.obstacle() is None
    forget(monkeypatch)
    no_compiler(monkeypatch)  # which is not needed any more
    assert answer() == 42
    assert capfd.readouterr() == ("", "")


@needs_compiler
def test_a_function_is_declared_with_its_arguments() -> None:
    (library.SOURCES / "answer.cpp").write_text(
        'extern "C" double half(double x) { return x / 2; }', encoding="utf-8"
    )
    signature.cache_clear()
    try:
        half = signature("half", (ctypes.c_double,), ctypes.c_double)
        assert half(5.0) == 2.5
        assert signature("half", (ctypes.c_double,), ctypes.c_double) is half
        with pytest.raises(ctypes.ArgumentError):
            half("5")
    finally:
        signature.cache_clear()


@needs_compiler
def test_other_sources_and_flags_make_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer() == 42
    notes = len(kept("txt"))
    header = library.SOURCES / "number.h"

    def changed(value: int) -> None:
        nonlocal notes
        forget(monkeypatch)
        assert answer() == value
        notes += 1
        assert len(kept("txt")) == notes

    header.write_text("#define NUMBER 43\n", encoding="utf-8")
    changed(43)
    header.write_text("#ifndef NUMBER\n#define NUMBER 44\n#endif\n", encoding="utf-8")
    changed(44)
    command = (library._compiler() or [""])[0]
    monkeypatch.setenv("CXX", f"{command} -DNUMBER=45")
    changed(45)
    monkeypatch.setattr(library, "_FLAGS", (*library._FLAGS, "-DNUMBER=46"))
    monkeypatch.setenv("CXX", command)
    changed(46)


@needs_compiler
@needs_shell
def test_a_newer_compiler_builds_a_library_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library.SOURCES / "number.h").write_text("", encoding="utf-8")
    command, compiler = (library._compiler() or [""])[0], tmp_path / "my c++"
    for version in (1, 2):
        path = script(compiler, f'exec {command} -DNUMBER={version} "$@"')
        monkeypatch.setenv("CXX", f"'{path}'")
        forget(monkeypatch)
        assert answer() == version
        assert len(kept("txt")) == version


@needs_compiler
def test_threads_build_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built, found = library._built, []
    calls: list[Any] = []
    monkeypatch.setattr(library, "_built", lambda *a: (calls.append(a), built(*a))[1])
    threads = [threading.Thread(target=lambda: found.append(answer())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [42] * 5
    assert len(calls) == 1


@needs_compiler
def test_processes_may_build_it_at_once() -> None:
    code = (
        "from pathlib import Path; from seqlab.nn.kernels import library; "
        f"library.SOURCES = Path({str(library.SOURCES)!r}); print(library.library()['answer']())"
    )
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: done.append(run(code))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(each.stdout, each.stderr) for each in done] == [("42\n", "")] * 2
    assert len(kept("txt")) == 1
    assert all(path.suffix in {".so", ".txt"} for path in cache_folder("kernels").iterdir())
    assert answer() == 42


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "harm"),
    [
        ("so", cut),
        ("so", emptied),
        ("so", changed),
        ("so", Path.unlink),
        ("txt", emptied),
        ("txt", not_text),
    ],
)
def test_what_is_damaged_is_built_again(
    kind: str,
    harm: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    command = library._compiler() or []
    folder = cache_folder("kernels")
    with tempfile.TemporaryDirectory() as scratch:  # built, but not loaded: that file is in use
        note = folder / f"{library._content()}-{library._identity(command)}.txt"
        library._keep(library._built(command, Path(scratch)), note)
    (file,) = kept(kind)
    harm(file)
    assert answer() == 42
    forget(monkeypatch)
    nothing_is_built(monkeypatch)
    assert answer() == 42
    assert capfd.readouterr().err == ""


@needs_compiler
def test_a_cache_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file in the way", encoding="utf-8")
    assert [answer(), answer()] == [42, 42]
    said = capfd.readouterr().err
    folder = cache_folder("kernels")
    assert said.startswith(f"seqlab: compiled kernels cannot be kept in {folder} (")
    assert said.endswith(": set SEQLAB_CACHE to a folder that can be written.\n")
    assert said.count("\n") == 1


def refused(match: str) -> None:
    """It cannot be had, for a reason that is one line, and is not tried again."""
    with pytest.raises(Unavailable, match=match) as caught:
        library.library()
    assert "\n" not in str(caught.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_found_or_built", lambda *_: pytest.fail("it was tried again"))
        assert library.obstacle() == str(caught.value)


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler(monkeypatch)
    refused("^no C[+][+] compiler was found$")


@needs_shell
def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "echo In file included from here:\necho 'here.h:7: error: no luck' >&2\nexit 1"
    monkeypatch.setenv("CXX", script(tmp_path / "failing", lines))
    refused(r"failing failed \(here.h:7: error: no luck\)$")
    forget(monkeypatch)
    monkeypatch.setenv("CXX", script(tmp_path / "silent", "exit 3"))
    refused(r"silent failed \(exit code 3\)$")
    assert kept("*") == []


@needs_shell
def test_a_compiler_that_is_none_or_hangs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"\x00no program")
    file.chmod(0o755)
    monkeypatch.setenv("CXX", str(file))
    refused(r"text cannot be run \(.+\)$")
    forget(monkeypatch)
    monkeypatch.setattr(library, "_PATIENCE", 0.2)
    monkeypatch.setenv("CXX", script(tmp_path / "hanging", "exec sleep 60"))
    refused("hanging took more than 0.2 s$")


@needs_shell
def test_a_compiler_that_makes_no_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = 'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo nonsense > "$2"; shift; done; exit 0'
    monkeypatch.setenv("CXX", script(tmp_path / "strange", lines))
    refused("the compiled kernels cannot be built or loaded")


@needs_compiler
def test_without_room_for_scratch_files_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**options: Any) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", nowhere)
    refused("cannot be built or loaded .*No usable temporary directory")


def test_the_cache_is_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder("kernels") == Path(os.environ["SEQLAB_CACHE"], "kernels")
    monkeypatch.delenv("SEQLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache_folder("kernels") == Path("/shared/seqlab/kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    assert cache_folder("kernels") == Path("/home/ada/.cache/seqlab/kernels")


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SEQLAB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    refused("^no home folder is known, and SEQLAB_CACHE names none$")


# An LSTM and all of the CRF.
EVERYTHING = """
import torch
from seqlab.errors import UsageError
from seqlab.nn.crf import CRF
from seqlab.nn.encoders import RecurrentEncoder
try:
    RecurrentEncoder(4, 6)(torch.randn(2, 3, 4), torch.tensor([3, 2]))
    crf = CRF(3, batch_first=True)
    emissions = torch.randn(2, 3, 3, requires_grad=True)
    crf(emissions, torch.zeros(2, 3)).backward()
    crf.marginals(emissions)
    print(len(crf.decode(emissions)))
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize("kernels", ["auto", "plain", "native"])
def test_a_process_without_a_compiler_says_so_in_one_line(tmp_path: Path, kernels: str) -> None:
    done = run(EVERYTHING, CXX="/nonexistent/c++", SEQLAB_KERNELS=kernels)
    assert done.returncode == 0, done.stderr
    why = "no C++ compiler was found"
    output, said = {
        "auto": (
            "2",
            f"seqlab: {why}, so plain PyTorch computes, which is slower: install g++, or set "
            "SEQLAB_KERNELS=plain to hear no more of it.\n",
        ),
        "plain": ("2", ""),
        "native": (
            f"SEQLAB_KERNELS is native, but {why}: install g++, or set it to auto or plain.",
            "",
        ),
    }[kernels]
    assert done.stdout == f"{output}\n"
    assert done.stderr == said


@needs_compiler
def test_the_library_may_be_built_while_other_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    built, builders = library._built, []

    def noted(*given: Any) -> Path:
        builders.append(threading.current_thread())
        return built(*given)

    monkeypatch.setattr(library, "_built", noted)
    kernels.prepare()
    assert answer() == 42  # waits for it
    assert [thread is threading.main_thread() for thread in builders] == [False]


@pytest.mark.parametrize("switch", ["plain", "triton"])
def test_what_is_not_wanted_is_not_built(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", switch)
    monkeypatch.setattr(library, "obstacle", lambda: pytest.fail("it was built"))
    before = threading.active_count()
    kernels.prepare()
    assert threading.active_count() == before

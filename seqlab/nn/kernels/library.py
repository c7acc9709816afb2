"""The compiled CPU kernels: built once into the user's cache by the machine's C++ compiler.

One shared object of all of `native/*.cpp`, with a plain C interface and without torch's headers, so
that it compiles in seconds; `ctypes` loads it, and lets other threads run while a kernel does. What
is in the cache depends on the sources, the instruction set and the compiler, and is checked before
it is loaded: a file that was cut short would end the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from seqlab.caches import cache_folder

SOURCES = Path(__file__).with_name("native")
_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-ffp-contract=fast", "-fno-math-errno")
_INSTRUCTIONS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
_BFLOAT16 = "-mavx512bf16"  # of some machines with AVX512
_COMPILERS = ("c++", "g++", "clang++")
_PATIENCE = 300  # seconds for the compiler; it needs a few
_building, _speaking = threading.Lock(), threading.Lock()
_loaded: list[ctypes.CDLL | str] = []  # the library, or why there is none; empty before first use
_said: set[str] = set()


class Unavailable(Exception):
    """There is no library; the message says why, as part of a sentence."""


def library() -> ctypes.CDLL:
    """Load the compiled kernels, and build them first where that has not been done.

    Raises:
        Unavailable: they cannot be built or loaded here; it is not tried again in this process.
    """
    if not _loaded:
        with _building:
            if not _loaded:
                try:
                    _loaded.append(_found_or_built(_folder()))
                except Unavailable as problem:
                    _loaded.append(str(problem))
    found = _loaded[0]
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def obstacle() -> str | None:
    """Say why there are no compiled kernels, None where there are; builds them if need be."""
    try:
        library()
    except Unavailable as problem:
        return str(problem)
    return None


@cache
def signature(name: str, arguments: tuple[Any, ...], result: Any = None) -> Any:
    """Get a function of the library, its arguments declared.

    Args:
        name: as in the C++ source.
        arguments: the ctypes of its arguments.
        result: the ctype of its result, None for void.

    Returns:
        What is called with the arguments; other threads run meanwhile.

    Raises:
        Unavailable: there is no library.
    """
    found = library()[name]
    found.argtypes, found.restype = arguments, result
    return found


def _folder() -> Path:
    try:
        return cache_folder("kernels")
    except RuntimeError:
        raise Unavailable("no home folder is known, and SEQLAB_CACHE names none") from None


def _found_or_built(folder: Path) -> ctypes.CDLL:
    compiler, content = _compiler(), _content()
    # Without a compiler, what any compiler has built here before will do.
    known = f"{content}-{_identity(compiler) if compiler else '*'}.txt"
    for note in sorted(folder.glob(known)):
        found = _kept(note)
        if found is not None:
            with suppress(OSError):
                return ctypes.CDLL(str(found))
    if compiler is None:
        raise Unavailable("no C++ compiler was found")
    if sys.stderr.isatty():
        say("compiled kernels are built, once for this machine, which takes some seconds.")
    try:
        with tempfile.TemporaryDirectory(prefix="seqlab-") as scratch:
            built = _built(compiler, Path(scratch))
            return ctypes.CDLL(str(_keep(built, folder / known)))
    except OSError as error:
        raise Unavailable(f"the compiled kernels cannot be built or loaded ({error})") from None


def _content() -> str:
    """Hash what the library is made of, but for the compiler."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in {".cpp", ".h"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    about = (*_flags(), platform.machine(), sys.platform, str(_threads()))
    digest.update("\0".join(about).encode())
    return digest.hexdigest()[:32]


def _flags() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    rounds = capability == "AVX512" and torch.cpu._is_avx512_bf16_supported()
    return [*_FLAGS, *_INSTRUCTIONS.get(capability, ()), *([_BFLOAT16] if rounds else [])]


def _understood(compiler: Sequence[str]) -> list[str]:
    """The flags without that for bfloat16 where the compiler is too old for it: g++ before 10."""
    flags = _flags()
    if _BFLOAT16 in flags:
        try:
            _run([*compiler, _BFLOAT16, "-E", "-x", "c++", os.devnull])
        except Unavailable:
            flags.remove(_BFLOAT16)
    return flags


def _threads() -> Path | None:
    """The OpenMP of GCC that torch has loaded: with it there is one pool of threads, not two."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return found[0] if found else None


def _compiler() -> list[str] | None:
    """The command of the C++ compiler: ``$CXX``, else what is installed."""
    own = shlex.split(os.environ.get("CXX", ""))
    for name in own[:1] or _COMPILERS:
        found = shutil.which(name)
        if found:
            return [found, *own[1:]]
    return None


def _identity(compiler: Sequence[str]) -> str:
    """Hash which compiler it is: another version is another file. Asking it would take longer."""
    file = Path(compiler[0]).resolve()
    about = file.stat()
    known = f"{file} {about.st_size} {about.st_mtime_ns} {compiler[1:]}"
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def _built(compiler: Sequence[str], folder: Path) -> Path:
    """Compile the sources side by side and link them: the shared object in the folder."""
    openmp = _threads()
    if openmp is not None and "clang" in _run([*compiler, "--version"]):
        openmp = None  # clang's OpenMP is another one
    sources = sorted(SOURCES.glob("*.cpp"))
    targets = [str(folder / f"{source.stem}.o") for source in sources]
    flags = [*compiler, *_understood(compiler), *(["-fopenmp"] if openmp else []), "-c"]
    commands = [[*flags, str(s), "-o", t] for s, t in zip(sources, targets, strict=True)]
    with ThreadPoolExecutor(len(commands)) as pool:
        list(pool.map(_run, commands))
    result = folder / "kernels.so"
    _run([*compiler, "-shared", "-o", str(result), *targets, *([str(openmp)] if openmp else [])])
    return result


def _run(command: Sequence[str]) -> str:
    """Run the compiler: what it said."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took more than {_PATIENCE} s") from None
    if done.returncode:
        said = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
        first = next((line for line in said if "error" in line.lower()), said[0])
        raise Unavailable(f"{command[0]} failed ({first.strip()})")
    return done.stdout


def _kept(note: Path) -> Path | None:
    """The library that a note in the cache names, if it is whole."""
    try:
        name = note.read_text(encoding="utf-8").strip()
        path = note.with_name(f"{name}.so")
        return path if hashlib.sha256(path.read_bytes()).hexdigest() == name else None
    except (OSError, UnicodeDecodeError):
        return None


def _keep(built: Path, note: Path) -> Path:
    """Move a library into the cache: first itself, named by its content, then the note on it.

    Returns:
        Where it is now; where it was, if the cache cannot be written.
    """
    name = hashlib.sha256(built.read_bytes()).hexdigest()
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=note.parent) as scratch:
            fresh = Path(scratch, "library")
            shutil.copyfile(built, fresh)
            os.replace(fresh, note.with_name(f"{name}.so"))
            Path(scratch, "note").write_text(name, encoding="utf-8")
            os.replace(Path(scratch, "note"), note)
    except OSError as error:
        say(
            f"compiled kernels cannot be kept in {note.parent} ({error.strerror}) and are built "
            "anew for each process: set SEQLAB_CACHE to a folder that can be written."
        )
        return built
    return note.with_name(f"{name}.so")


def say(sentence: str) -> None:
    """Say something in a line on stderr, once in a process.

    Args:
        sentence: what to say.
    """
    with _speaking:
        if sentence not in _said:
            _said.add(sentence)
            print(f"seqlab: {sentence}", file=sys.stderr, flush=True)

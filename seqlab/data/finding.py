"""Which files, or folders of texts, are the splits of a corpus; told by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from seqlab import samples
from seqlab.data.folders import labels_of
from seqlab.errors import DataError, nearest

SPLITS = ("train", "validation", "test")
SAMPLES = Path(samples.__file__).parent

_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "testa"), "validation"),
    **dict.fromkeys(("test", "tst", "testb"), "test"),
}
# Files that lie beside a corpus and may have "train" or "test" in their names.
_NO_CORPUS = {".md", ".rst", ".html", ".pdf", ".py", ".sh", ".log", ".yaml", ".yml", ".bak", ".zip"}
_NO_CORPUS |= {".pt", ".safetensors", ".arrow", ".md5", ".sha256", ".png", ".tmp", ".orig"}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})")
_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.")
_HUB_NAME = re.compile(r"[\w-]+/[\w-]+")


def find_splits(
    path: str | None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    *,
    folders: bool = False,
) -> dict[str, Path]:
    """Find the files of a corpus.

    Args:
        path: ``sample:NAME``; a folder with files such as ``train.conll``, ``en-dev.conllu.gz`` or
            ``test-00000-of-00001.parquet``, also in its ``data`` folder; or one file, which counts
            as ``train``. Environment variables and ``~`` are expanded.
        train: file of the split, instead of the one in the folder; seen from here, or else from
            the folder.
        validation: likewise.
        test: likewise.
        folders: whether a split may be a folder too, with a folder of texts for each label; and
            `path` such a folder, which then counts as ``train``.

    Returns:
        The files or folders by split, in the order of `SPLITS`.

    Raises:
        DataError: nothing is there, or two files could be the same split.
    """
    found: dict[str, Path] = {}
    folder: Path | None = None
    if path:
        root = _sample(path) if path.startswith("sample:") else _existing(path, "data.path")
        if root.is_dir():
            folder, found = root, _splits_of(root, folders)
        else:
            found = {"train": root}
    given = {"train": train, "validation": validation, "test": test}
    for split, file in given.items():
        if file is None:
            continue
        if split == "train" and found and folder is None:
            raise DataError(
                f"data.path is the file {path}, and data.train is {file}: give one of the two."
            )
        found[split] = _existing(file, f"data.{split}", folder)
    if not found:
        names = "train, dev and test (train.conll, ...)"
        if folders:
            names = "train, dev and test (train.tsv, ... or train/LABEL/1.txt, ...)"
        raise DataError(
            f"no split in {folder}: name the files {names}, or give them with data.train, "
            "data.validation and data.test."
            if folder
            else "no corpus: give data.path, or data.train."
        )
    return {split: found[split] for split in SPLITS if split in found}


def find_file(name: str, split: str, path: str | None = None) -> Path:
    """Find a file that a recipe names for a split.

    Args:
        name: seen from here, or else from the folder of the corpus.
        split: what it is of, for the error.
        path: of the corpus, as in `find_splits`.

    Raises:
        DataError: there is none.
    """
    root = _sample(path) if path and path.startswith("sample:") else None
    root = root or (expanded(path, "data.path") if path else None)
    return _existing(name, f"data.{split}", root if root and root.is_dir() else None)


def _sample(path: str) -> Path:
    name = path.removeprefix("sample:")
    known = sorted(file.name for file in SAMPLES.iterdir() if any(file.glob("train.*")))
    if name in known:
        return SAMPLES / name
    raise DataError(
        f"no sample {name!r}; the samples are {', '.join(known)}.{nearest(name, known)}"
    )


def expanded(path: str, key: str) -> Path:
    """Fill in the environment variables and the ``~`` of a path.

    Args:
        path: from a recipe or the command line.
        key: where it stands there, for the error.

    Raises:
        DataError: an environment variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise DataError(
                f"{key}: {path} uses the environment variable {name}, which is not set; "
                f"set it, for example with `export {name}=/path/to/corpora`."
            )
        return os.environ[name]

    return Path(_VARIABLE.sub(value, path)).expanduser()


def _existing(path: str, key: str, folder: Path | None = None) -> Path:
    file = expanded(path, key)
    if file.exists():
        return file
    if folder is not None and (folder / file).exists():
        return folder / file
    remedy = "give the file of the split."
    if key == "data.path":
        remedy = (
            "give a folder with train, dev and test files, a file, or a dataset of the Hugging "
            "Face hub as ORG/NAME@REVISION."
        )
        if _HUB_NAME.fullmatch(path) and not file.parent.exists():
            remedy = f"if the dataset of the Hugging Face hub is meant, write {path}@main."
    near = nearest(file.name, os.listdir(file.parent)) if file.parent.is_dir() else ""
    raise DataError(f"{key}: no such file or folder: {file}; {remedy}{near}")


def is_hub_folder(folder: Path) -> bool:
    """Whether a folder has parquet files that a README assigns to splits, or shards of splits."""
    if not folder.is_dir():
        return False
    files = [file.name for pattern in ("*.parquet", "*/*.parquet") for file in folder.glob(pattern)]
    readme = folder / "README.md"
    text = readme.read_text("utf-8", "replace") if files and readme.is_file() else ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    return "data_files:" in head or any(_SHARD.search(name) for name in files)


def _splits_of(folder: Path, folders: bool) -> dict[str, Path]:
    inner = folder / "data"
    found = _splits_among(folder, folders)
    found = found or (_splits_among(inner, folders) if inner.is_dir() else {})
    # Folders of texts that are named for splits lack the folders that are named for labels.
    if not found and folders and any(not _splits_in(label) for label in labels_of(folder)):
        return {"train": folder}
    return found


def _splits_among(folder: Path, folders: bool) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = _split_named(file, folders)
        if split and split in found:
            raise DataError(
                f"{folder}: both {found[split].name} and {file.name} could be the {split} split; "
                f"say which with data.{split}."
            )
        if split:
            found[split] = file
    return found


def _split_named(file: Path, folders: bool) -> str | None:
    """Tell the split from the words of a file's name."""
    if file.name.startswith(".") or file.suffix.lower() in _NO_CORPUS:
        return None
    splits = _splits_in(file.name)
    if len(splits) != 1 or not (file.is_file() or (folders and labels_of(file))):
        return None
    return splits.pop()


def _splits_in(name: str) -> set[str]:
    return splits_in(re.split(r"[^a-z0-9]+", name.lower()))


def splits_in(words: Iterable[str]) -> set[str]:
    """Name the splits that words of a file's name stand for.

    Example:
        >>> splits_in(["en", "ewt", "dev"])
        {'validation'}
    """
    return {_NAMES[word] for word in words if word in _NAMES}


def split_of(name: str) -> str | None:
    """Name the split that a data set calls `name`; None where it is none of ours.

    Example:
        >>> split_of("dev"), split_of("unsupervised")
        ('validation', None)
    """
    return _NAMES.get(name)

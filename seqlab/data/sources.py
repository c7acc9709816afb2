"""Where corpora come from: samples, folders, files and the hub, to memory-mapped tables."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqlab import samples
from seqlab.data.cache import cache_folder, cached_rows, chunks_of, digest_of
from seqlab.data.formats import read_rows
from seqlab.data.records import choose_keys, rows_of_records
from seqlab.data.rows import Columns, Dirt, Place, Row
from seqlab.errors import DataError, nearest

if TYPE_CHECKING:
    import datasets

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
_HUB = re.compile(r"(?:[\w.-]+/)?[\w.-]+@[\w./-]+")
_HUB_NAME = re.compile(r"[\w-]+/[\w-]+")
_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.")


def load_splits(
    path: str | None,
    *,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    columns: Columns | None = None,
    tagged: bool = True,
    cache_dir: Path | None = None,
) -> tuple[datasets.DatasetDict, list[str]]:
    """Load the splits of a corpus as tables that stay on disk.

    Each file is read once into the cache, in a stream, and memory-mapped from there.

    Args:
        path: what `find_splits` takes, or ``org/name@revision`` for a dataset of the hub.
        train: file of the split, instead of the one in the folder.
        validation: likewise.
        test: likewise.
        columns: as in `seqlab.data.formats.read_rows`.
        tagged: whether every token needs a tag.
        cache_dir: the cache, in place of `seqlab.data.cache.cache_folder`.

    Returns:
        The splits, keys out of `SPLITS`, with the columns ``tokens``, ``tags`` (where there are
        any) and one for each further key of `columns` (lists of strings), and ``lines`` (list of
        int32); and the sentences on what was skipped.

    Raises:
        DataError: there is no such corpus, or it cannot be read as asked.
    """
    import datasets

    how = _How(dict(columns or {}), tagged, cache_dir or cache_folder())
    if "lines" in how.columns:
        raise DataError("data.columns.lines: the name is taken; give the feature another.")
    found = _hub_splits(path, how.cache) if path else None
    if found is None:
        tables, notes = _read_files(find_splits(path, train, validation, test), how)
    else:
        tables, notes = _read_datasets(found, str(path), how)
        if train or validation or test:
            more, said = _read_files(find_splits(None, train, validation, test), how)
            tables, notes = tables | more, notes + said
    loaded = {
        split: datasets.Dataset.from_file(str(tables[split]), split=split)
        for split in SPLITS
        if split in tables
    }
    return datasets.DatasetDict(loaded), notes


class _How(NamedTuple):
    """How files are read, and where they are kept."""

    columns: dict[str, int | str]
    tagged: bool
    cache: Path

    def key(self, chunks: Iterable[bytes], name: str) -> str:
        return digest_of(chunks, name, sorted(self.columns.items()), self.tagged)


def _read_files(files: dict[str, Path], how: _How) -> tuple[dict[str, Path], list[str]]:
    """Put each split's file into the cache."""
    tables: dict[str, Path] = {}
    notes: list[str] = []
    for split, file in files.items():

        def read(dirt: Dirt, file: Path = file) -> Iterator[Row]:
            return read_rows(file, how.columns, dirt=dirt, tagged=how.tagged)

        key = how.key(chunks_of(file), file.name)
        tables[split], said = cached_rows(how.cache, key, file.name, read)
        notes += said
    return tables, notes


def _hub_splits(path: str, cache: Path) -> datasets.DatasetDict | None:
    """Ask the library datasets for what is its: a dataset of the hub, or a folder laid out so."""
    file = expanded(path, "data.path")
    if file.exists():
        return _ask(str(file), None, path, str(cache / "hub")) if _is_hub_folder(file) else None
    if path.startswith("sample:") or not _HUB.fullmatch(path):
        return None
    name, _, revision = path.partition("@")
    return _ask(name, revision, path, None)


def _is_hub_folder(folder: Path) -> bool:
    """Whether a folder has parquet files that a README assigns to splits, or shards of splits."""
    if not folder.is_dir():
        return False
    files = [file.name for pattern in ("*.parquet", "*/*.parquet") for file in folder.glob(pattern)]
    readme = folder / "README.md"
    text = readme.read_text("utf-8", "replace") if files and readme.is_file() else ""
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    return "data_files:" in head or any(_SHARD.search(name) for name in files)


def _ask(name: str, revision: str | None, path: str, cache: str | None) -> datasets.DatasetDict:
    import datasets

    try:
        with _no_bars():
            return datasets.load_dataset(name, revision=revision, cache_dir=cache)
    except ConnectionError as error:
        raise DataError(
            f"cannot reach the Hugging Face hub for {path}: download the dataset where there is a "
            "network, and give data.path the folder."
        ) from error
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"cannot load the dataset {path} ({' '.join(str(error).split())}); name a repository "
            "with parquet files and a revision of it, or a folder with its files."
        ) from error


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Keep the progress bars of `datasets` off the screen; we have a line of our own."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    datasets.disable_progress_bars()
    hub.setLevel(logging.ERROR)  # its retries are told once, by our own sentence
    try:
        yield
    finally:
        hub.setLevel(level)
        if shown:
            datasets.enable_progress_bars()


def _read_datasets(
    found: datasets.DatasetDict, path: str, how: _How
) -> tuple[dict[str, Path], list[str]]:
    """Put each split of a dataset into the cache, names in place of the numbers of classes."""
    tables: dict[str, Path] = {}
    notes: list[str] = []
    for name, data in found.items():
        split = _NAMES.get(str(name))
        if split is None or split in tables:
            notes.append(f"{path}: the split {name} is not used.")
            continue
        place = Place(f"{path} {name}", ", row ")
        if not len(data):
            raise DataError(f"{place.file} holds no sentence: leave the split out.")
        keys = choose_keys(data[0], how.columns, how.tagged, place, 1)
        data = data.select_columns(keys.all())
        names = {key: known for key in keys.all() if (known := _class_names(data.features[key]))}

        def read(
            dirt: Dirt,
            data: datasets.Dataset = data,
            place: Place = place,
            names: dict[str, list[str]] = names,
        ) -> Iterator[Row]:
            records = (record for batch in _batches(data) for record in batch.to_pylist())
            numbered = enumerate(records, 1)
            return rows_of_records(numbered, how.columns, place, dirt, how.tagged, names)

        key = how.key((batch.serialize() for batch in _batches(data)), place.file)
        tables[split], said = cached_rows(how.cache, key, place.file, read)
        notes += said
    return tables, notes


def _batches(data: datasets.Dataset) -> Iterator[Any]:
    for table in data.with_format("arrow").iter(1000):
        yield from table.to_batches()


def _class_names(feature: Any) -> list[str]:
    """Name the classes of a list of class labels; nothing for other features."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return list(getattr(inner, "names", None) or [])


def find_splits(
    path: str | None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
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

    Returns:
        The files by split, in the order of `SPLITS`.

    Raises:
        DataError: nothing is there, or two files could be the same split.
    """
    found: dict[str, Path] = {}
    folder: Path | None = None
    if path:
        root = _sample(path) if path.startswith("sample:") else _existing(path, "data.path")
        if root.is_dir():
            folder, found = root, _splits_of(root)
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
        raise DataError(
            f"no split in {folder}: name the files train, dev and test (train.conll, ...), or "
            "give them with data.train, data.validation and data.test."
            if folder
            else "no corpus: give data.path, or data.train."
        )
    return {split: found[split] for split in SPLITS if split in found}


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


def _splits_of(folder: Path) -> dict[str, Path]:
    found = _splits_among(folder)
    return found or (_splits_among(folder / "data") if (folder / "data").is_dir() else {})


def _splits_among(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = _split_named(file)
        if split and split in found:
            raise DataError(
                f"{folder}: both {found[split].name} and {file.name} could be the {split} split; "
                f"say which with data.{split}."
            )
        if split:
            found[split] = file
    return found


def _split_named(file: Path) -> str | None:
    """Tell the split from the words of a file's name."""
    if file.name.startswith(".") or file.suffix.lower() in _NO_CORPUS or not file.is_file():
        return None
    words = re.split(r"[^a-z0-9]+", file.name.lower())
    splits = {_NAMES[word] for word in words if word in _NAMES}
    return splits.pop() if len(splits) == 1 else None


def subset(rows: Any, numbers: Any) -> Any:
    """Pick rows of a split into a split of its own, contiguous in Arrow.

    Args:
        rows: a ``datasets.Dataset``.
        numbers: which rows, in order.

    Returns:
        a ``datasets.Dataset`` whose table holds just these rows.
    """
    with _no_bars():
        return rows.select(numbers).flatten_indices()

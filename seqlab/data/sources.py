"""Where corpora come from: samples, folders, files and the hub, to memory-mapped tables."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from seqlab.caches import cache_folder
from seqlab.data.cache import cached_rows, digest_of, file_digest
from seqlab.data.finding import SPLITS, expanded, find_splits, is_hub_folder, split_of
from seqlab.data.folders import content_of
from seqlab.data.formats import read_rows
from seqlab.data.records import Names, Numbered, Record, choose_keys, rows_of_records
from seqlab.data.rows import Columns, Dirt, Place, Row, TableRow, Unlabelled
from seqlab.errors import DataError

if TYPE_CHECKING:
    import datasets

_HUB = re.compile(r"(?:[\w.-]+/)?[\w.-]+@[\w./-]+")


class Reader(Protocol):
    """How a task reads its corpora."""

    @property
    def noun(self) -> str:
        """What a row is called."""

    @property
    def folders(self) -> bool:
        """Whether a split may be a folder, with a folder of texts for each label."""

    def about(self) -> list[object]:
        """Return what decides how a file is read, as JSON can write it."""

    def rows(self, file: Path, dirt: Dirt) -> Iterator[TableRow]:
        """Read a file."""

    def keys(self, record: Record, place: Place) -> list[str]:
        """Name the keys to read, given the first record of a data set."""

    def rows_of(
        self, records: Numbered, place: Place, dirt: Dirt, names: Names
    ) -> Iterator[TableRow]:
        """Read numbered records; `names` are those of classes, by key."""


@dataclass(frozen=True)
class TaggedReader:
    """Reads sentences with a tag for each token.

    Args:
        columns: as in `seqlab.data.formats.read_rows`.
        tagged: whether every token needs a tag.
    """

    noun: ClassVar[str] = "sentence"
    folders: ClassVar[bool] = False
    columns: Columns
    tagged: bool = True

    def __post_init__(self) -> None:
        for name in ("lines", "file_number"):
            if name in self.columns:
                raise DataError(
                    f"data.columns.{name}: the name is taken; give the feature another."
                )

    def about(self) -> list[object]:
        """Return what decides how a file is read."""
        return [sorted(self.columns.items()), self.tagged]

    def rows(self, file: Path, dirt: Dirt) -> Iterator[Row]:
        """Read a file."""
        return read_rows(file, self.columns, dirt=dirt, tagged=self.tagged)

    def keys(self, record: Record, place: Place) -> list[str]:
        """Name the keys to read, given the first record of a data set."""
        return choose_keys(record, self.columns, self.tagged, place, 1).all()

    def rows_of(self, records: Numbered, place: Place, dirt: Dirt, names: Names) -> Iterator[Row]:
        """Read numbered records."""
        return rows_of_records(records, self.columns, place, dirt, self.tagged, names)


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
    """Load the splits of a corpus of tagged sentences; see `load_tables`.

    Args:
        path: as in `load_tables`.
        train: likewise.
        validation: likewise.
        test: likewise.
        columns: as in `seqlab.data.formats.read_rows`.
        tagged: whether every token needs a tag.
        cache_dir: as in `load_tables`.

    Returns:
        The splits, keys out of `SPLITS`, with the columns ``tokens``, ``tags`` (where there are
        any) and one for each further key of `columns` (lists of strings), and ``lines`` (list of
        int32); and the sentences on what was skipped.

    Raises:
        DataError: as `load_tables`.
    """
    reader = TaggedReader(columns or {}, tagged)
    files = {"train": train, "validation": validation, "test": test}
    return load_tables(path, files, reader, cache_dir)


def load_tables(
    path: str | None,
    files: Mapping[str, str | None],
    reader: Reader,
    cache_dir: Path | None = None,
    streaming: bool = False,
) -> tuple[datasets.DatasetDict, list[str]]:
    """Load the splits of a corpus as tables that stay on disk.

    Each file is read once into the cache, in a stream, and memory-mapped from there.

    Args:
        path: what `find_splits` takes, or ``org/name@revision`` for a dataset of the hub.
        files: by split, a file in place of the one in the folder.
        reader: how they are read.
        cache_dir: the cache, in place of `seqlab.caches.cache_folder`.
        streaming: leave the training split where it is, see `seqlab.data.streaming`.

    Returns:
        The splits, keys out of `SPLITS`, with the columns that the reader gives; and the sentences
        on what was skipped.

    Raises:
        DataError: there is no such corpus, or it cannot be read as asked.
    """
    cache = cache_dir or cache_folder("datasets")
    without = "train" if streaming else None
    found = _hub_splits(path, cache, streaming) if path else None
    if found is None:
        where = find_splits(path, **files, folders=reader.folders)
        tables, notes = _read_files(_all_but(without, where), reader, cache)
    else:
        whole = {k: v for k, v in found.items() if without is None or split_of(str(k)) != without}
        tables, notes = _read_datasets(whole, str(path), reader, cache)
        if any(files.values()):
            where = find_splits(None, **files, folders=reader.folders)
            more, said = _read_files(_all_but(without, where), reader, cache)
            tables, notes = tables | more, notes + said
    return mapped(tables), notes


def _all_but(without: str | None, files: dict[str, Path]) -> dict[str, Path]:
    return {split: file for split, file in files.items() if split != without}


def mapped(tables: Mapping[str, Path]) -> datasets.DatasetDict:
    """Memory-map the tables that splits were read into.

    Args:
        tables: Arrow files in the stream format, by split.

    Returns:
        The splits, in the order of `SPLITS`.
    """
    import datasets

    loaded = {
        split: datasets.Dataset.from_file(str(tables[split]), split=split)
        for split in SPLITS
        if split in tables
    }
    return datasets.DatasetDict(loaded)


def _read_files(
    files: dict[str, Path], reader: Reader, cache: Path
) -> tuple[dict[str, Path], list[str]]:
    """Put each split's file into the cache."""
    tables: dict[str, Path] = {}
    notes: list[str] = []
    for split, file in files.items():

        def read(dirt: Dirt, file: Path = file) -> Iterator[TableRow]:
            return reader.rows(file, dirt)

        about = (file.name, *reader.about())
        if file.is_dir():
            key = digest_of(content_of(file), *about)
        else:
            key = file_digest(cache, file, *about)
        notes += _put(tables, split, cache, key, file.name, read, reader.noun)
    return tables, notes


def _put(
    tables: dict[str, Path],
    split: str,
    cache: Path,
    key: str,
    name: str,
    read: Callable[[Dirt], Iterator[TableRow]],
    noun: str,
) -> list[str]:
    """Put a split among the tables, unless nothing in it is labelled; return what is said of it."""
    try:
        tables[split], notes = cached_rows(cache, key, name, read, noun)
    except Unlabelled as error:
        return [f"{error} The split is not used."]
    return notes


def hub_rows(path: str, reader: Reader) -> Callable[[Dirt], Iterator[TableRow]] | None:
    """Stream the training split of a dataset of the hub, or of a folder laid out so.

    Args:
        path: as in `load_tables`.
        reader: how its records are read.

    Returns:
        What reads the rows from the first to the last, whenever it is called; None where the path
        is no such dataset.

    Raises:
        DataError: the dataset cannot be loaded, or has no training split.
    """
    found = _hub_splits(path, cache_folder("datasets"), streaming=True)
    if found is None:
        return None
    for name, data in found.items():
        if split_of(str(name)) == "train":
            return _reading(data, Place(f"{path} {name}", ", row "), reader)[1]
    raise DataError(
        f"{path} has no training split to stream (only {', '.join(map(str, found))}): give "
        "data.train a file."
    )


def _hub_splits(path: str, cache: Path, streaming: bool = False) -> Mapping[Any, Any] | None:
    """Ask the library datasets for what is its: a dataset of the hub, or a folder laid out so."""
    file = expanded(path, "data.path")
    if file.exists():
        whole = is_hub_folder(file)
        return _ask(str(file), None, path, str(cache / "hub"), streaming) if whole else None
    if path.startswith("sample:") or not _HUB.fullmatch(path):
        return None
    name, _, revision = path.partition("@")
    return _ask(name, revision, path, None, streaming)


def _ask(
    name: str, revision: str | None, path: str, cache: str | None, streaming: bool
) -> Mapping[Any, Any]:
    import datasets

    try:
        with _no_bars():
            kind = {"streaming": True} if streaming else {}
            found: Mapping[Any, Any] = datasets.load_dataset(
                name, revision=revision, cache_dir=cache, **kind
            )
            return found
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
    found: Mapping[Any, Any], path: str, reader: Reader, cache: Path
) -> tuple[dict[str, Path], list[str]]:
    """Put each split of a dataset into the cache, names in place of the numbers of classes."""
    tables: dict[str, Path] = {}
    notes: list[str] = []
    for name, data in found.items():
        split = split_of(str(name))
        if split is None or split in tables:
            notes.append(f"{path}: the split {name} is not used.")
            continue
        place = Place(f"{path} {name}", ", row ")
        data, read = _reading(data, place, reader)
        content = (batch.serialize() for batch in _batches(data))
        key = digest_of(content, place.file, *reader.about())
        notes += _put(tables, split, cache, key, place.file, read, reader.noun)
    return tables, notes


def _reading(
    data: Any, place: Place, reader: Reader
) -> tuple[Any, Callable[[Dirt], Iterator[TableRow]]]:
    """Choose what is read of a split of a dataset, held or streamed, and say how."""
    first = next(iter(data), None)
    if first is None:
        raise DataError(f"{place.file} holds no {reader.noun}: leave the split out.")
    keys = reader.keys(first, place)
    features = data.features or {}  # those of a stream may not be known
    names = {key: known for key in keys if (known := _class_names(features.get(key)))}
    data = data.select_columns(keys)

    def read(dirt: Dirt) -> Iterator[TableRow]:
        records = (record for batch in _batches(data) for record in batch.to_pylist())
        try:
            yield from reader.rows_of(enumerate(records, 1), place, dirt, names)
        except OSError as error:  # of the network, after `datasets` has tried again
            raise DataError(
                f"{place.file} cannot be read on ({' '.join(str(error).split())}): start again "
                "with --ckpt_path last, or download the dataset and give data.path the folder."
            ) from error

    return data, read


def _batches(data: Any) -> Iterator[Any]:
    for table in data.with_format("arrow").iter(1000):
        yield from table.to_batches()


def _class_names(feature: Any) -> list[str]:
    """Name the classes of class labels, one or a list; nothing for other features."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    return list(getattr(inner, "names", None) or [])


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


def in_memory(table: Any) -> Any:
    """Make a split of rows that are held in memory.

    Args:
        table: a pyarrow table.

    Returns:
        a ``datasets.Dataset``.
    """
    import datasets

    return datasets.Dataset(datasets.table.InMemoryTable(table))


def end_to_end(tables: Sequence[Any]) -> Any:
    """Put rows one after the other, mapped from where they are.

    Args:
        tables: ``datasets.Dataset`` with the same columns.
    """
    import datasets

    return datasets.concatenate_datasets(list(tables))

"""A corpus of pairs, whatever it consists of, as memory-mapped splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seqlab.caches import cache_folder
from seqlab.data.cache import cached_rows, digest_of, file_digest
from seqlab.data.finding import find_splits
from seqlab.data.pair_records import ROLES, PairReader
from seqlab.data.pair_rows import Languages, PairRow
from seqlab.data.parallel import Found, ParallelFiles, find_parallel, read_parallel
from seqlab.data.rows import Columns, Dirt
from seqlab.data.sources import load_tables, mapped
from seqlab.data.streaming import Stream, open_stream
from seqlab.errors import DataError


@dataclass(frozen=True)
class PairCorpus:
    """A corpus of pairs.

    Args:
        splits: by name, a ``datasets.Dataset`` with ``source`` and ``target``, each a list of one
            text, and ``lines``, a list of one number.
        files: where the lines of a split are counted.
        languages: of the two sides, as far as they are known.
        notes: sentences on what was skipped or taken for granted.
        stream: opens the training split as a stream where it is not among the splits, and is given
            what says what was skipped.
    """

    splits: dict[str, Any]
    files: dict[str, str]
    languages: Languages
    notes: list[str]
    stream: Callable[[Callable[[str], None]], Stream | None]


def load_pairs(
    path: str | None,
    files: Mapping[str, str | None],
    columns: Columns,
    languages: Languages,
    streaming: bool = False,
) -> PairCorpus:
    """Load the splits of a corpus of pairs as tables that stay on disk.

    Args:
        path: what `find_splits` takes, a folder of parallel files, or ``org/name@revision`` for a
            data set of the hub.
        files: by split, a file in place of the one in the folder, or what stands before the
            extensions of parallel files.
        columns: names or numbers of ``source`` and ``target`` in files of pairs.
        languages: extensions of parallel files, or names of columns and keys.
        streaming: leave the training split where it is.

    Raises:
        DataError: there is no such corpus, or it cannot be read as asked.
    """
    found = find_parallel(path, files, languages)
    tables: dict[str, Path] = {}
    notes: list[str] = []
    for split, pair in found.splits.items():
        if streaming and split == "train":
            continue
        tables[split], said = _cached(pair)
        notes += said
    splits = dict(mapped(tables))
    places = {split: str(pair.source) for split, pair in found.splits.items()}
    languages = found.languages
    if not found.splits or found.path or any(found.files.values()):
        others = _files_of(found)
        languages, said = _told(others, columns, languages)
        reader = PairReader(columns, languages)
        loaded, more = load_tables(found.path, found.files, reader, streaming=streaming)
        splits = {**loaded, **splits}
        places = {**{split: _hub_name(found, split) for split in loaded}, **others, **places}
        notes += [*said, *more]
    languages.check()
    stream = partial(_stream, found, PairReader(columns, languages))
    return PairCorpus(splits, places, languages, notes, stream)


def _stream(found: Found, reader: PairReader, note: Callable[[str], None]) -> Stream | None:
    """Open the training split of parallel files, or of pairs."""
    pair = found.splits.get("train")
    if pair is not None:
        return Stream([partial(read_parallel, pair)], pair.name, reader.noun, note)
    if not found.path and not found.files.get("train"):
        return None
    file = found.files.get("train")
    return open_stream(found.path, [file] if file else [], reader, note)


def _cached(pair: ParallelFiles) -> tuple[Path, list[str]]:
    """Put the pairs of two files into the cache."""

    def read(dirt: Dirt) -> Iterator[PairRow]:
        return read_parallel(pair, dirt)

    cache = cache_folder("datasets")
    sides = [(file.name, file_digest(cache, file)) for file in pair]
    key = digest_of([], "parallel", sides)
    return cached_rows(cache, key, pair.name, read, "pair")


def _files_of(found: Found) -> dict[str, str]:
    """Name the files of pairs by split; none for a data set of the hub."""
    try:
        splits = find_splits(found.path, *found.files.values())
        return {split: str(file) for split, file in splits.items()}
    except DataError:  # what there is wrong is told when they are read
        return {}


def _hub_name(found: Found, split: str) -> str:
    return f"{found.path} {split}"


def _told(
    files: Mapping[str, str], columns: Columns, languages: Languages
) -> tuple[Languages, list[str]]:
    """Tell languages from a header or from keys; say so where a name has nothing to stand on."""
    if len(columns) == len(ROLES):
        return languages.among([str(columns[role]) for role in ROLES], ordered=True), []
    file = next(iter(files.values()), None)
    if file is None:
        return languages, []
    names, table = PairReader(columns, languages).names(Path(file))
    if names or not table or columns or None in languages:
        return languages.among(names, ordered=table), []
    return languages, [
        f"{file} has no header: its first column is read as {languages.source}, its second as "
        f"{languages.target} (data.columns can say otherwise)."
    ]

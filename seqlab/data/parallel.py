"""Parallel files: one for each language, whose lines are sentences and their translations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, NoReturn

from seqlab.data.finding import SPLITS, expanded, splits_in
from seqlab.data.lines import lines_of
from seqlab.data.pair_rows import SIDE_NAMES, Languages, PairRow, is_language, pair_row
from seqlab.data.rows import Dirt
from seqlab.errors import DataError

_SHOWN = 40  # characters of a line that an error shows

Sides = Mapping[str, Path]  # the files that differ in their last extension alone, by that


class ParallelFiles(NamedTuple):
    """The two files of a split."""

    source: Path
    target: Path

    @property
    def name(self) -> str:
        """What notes call them."""
        return f"{self.source.name} and {self.target.name}"


class Found(NamedTuple):
    """Parallel files of a corpus, and what of it is none.

    Args:
        splits: the files by split, in the order of `SPLITS`.
        languages: those of the recipe, with what the files tell.
        path: of the corpus, unless that is where such files are.
        files: by split, those that were given and are no such files.
    """

    splits: dict[str, ParallelFiles]
    languages: Languages
    path: str | None
    files: dict[str, str | None]


def find_parallel(path: str | None, files: Mapping[str, str | None], languages: Languages) -> Found:
    """Find parallel files such as ``train.de`` and ``train.en``, gzipped or not.

    Args:
        path: a folder with such files, there or in its subfolder ``data``; or what stands before
            the extensions of two files, which count as ``train``; anything else has none.
        files: by split, what stands before the extensions (``test2016``, or ``other/test2016``), in
            place of those in the folder; seen from here, or else from the folder.
        languages: the extensions; what is None is told from the files.

    Raises:
        DataError: a side is missing, two could be the same split, or nothing tells which side is
            the source.
    """
    folder = None if not path or path.startswith("sample:") else expanded(path, "data.path")
    within = [] if folder is None else [folder, folder / "data"]
    found = next((splits for place in within if (splits := _splits_of(place, languages))), {})
    if folder is not None and (alone := _named(folder, [], languages)):
        found = {"train": alone}
    inside = bool(found)
    rest = dict(files)
    for split, name in files.items():
        if name is None:
            continue
        given = _named(expanded(name, f"data.{split}"), within, languages)
        rest[split] = None if given else _seen_from(within if inside else [], name)
        found = {**found, split: given}
    chosen = [(s, *_only(s, stems, folder)) for s in SPLITS if (stems := found.get(s))]
    for _, _, sides in chosen:
        languages = languages.among(list(sides), ordered=False)
    pairs = {split: _pair(stem, sides, languages) for split, stem, sides in chosen}
    return Found(pairs, languages, None if inside else path, rest)


def _seen_from(within: list[Path], name: str) -> str:
    """Find a file in the folder, unless it is here."""
    places = (place / name for place in within if not Path(name).exists())
    return next((str(file) for file in places if file.exists()), name)


def _splits_of(folder: Path, languages: Languages) -> dict[str, dict[str, Sides]]:
    """Sort the stems of a folder's parallel files by split; a digit after a word is no letter."""
    found: dict[str, dict[str, Sides]] = {}
    for stem, sides in _stems_of(folder, languages).items():
        splits = splits_in(re.split(r"[^a-z]+", stem.lower()))
        if len(splits) == 1 and len(sides) > 1:
            found.setdefault(splits.pop(), {})[str(folder / stem)] = sides
    return found


def _stems_of(folder: Path, languages: Languages) -> dict[str, Sides]:
    """List the files of a folder that may be sides, by what stands before their extensions."""
    known = {*languages, *(name for names in SIDE_NAMES for name in names)}
    stems: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, _, side = file.name.removesuffix(".gz").rpartition(".")
        if not stem or not (side in known or is_language(side)) or not file.is_file():
            continue
        other = stems.setdefault(stem, {}).setdefault(side, file)
        if other != file:
            raise DataError(f"{folder}: both {other.name} and {file.name} are there: remove one.")
    return dict(stems)


def _named(base: Path, within: list[Path], languages: Languages) -> dict[str, Sides]:
    """Find the sides of a stem that was given; none where it is a file, or nothing."""
    for stem in (base, *(place / base for place in within)):
        if stem.is_file():
            return {}
        sides = _stems_of(stem.parent, languages).get(stem.name)
        if sides:
            return {str(stem): sides}
    return {}


def _only(split: str, stems: Mapping[str, Sides], folder: Path | None) -> tuple[Path, Sides]:
    """Take the stem of a split, of which there has to be one."""
    names = [Path(stem).name for stem in stems]
    if len(names) > 1:
        raise DataError(
            f"{folder}: {' and '.join(names)} could all be the {split} split: say which, as in "
            f"data.{split}: {names[0]}."
        )
    ((stem, sides),) = stems.items()
    return Path(stem), sides


def _pair(stem: Path, sides: Sides, languages: Languages) -> ParallelFiles:
    for source, target in (languages, *SIDE_NAMES):
        if source in sides and target in sides and source is not None and target is not None:
            return ParallelFiles(sides[source], sides[target])
    there = ", ".join(sides)
    if len(sides) == 1:
        raise DataError(
            f"{stem} is there in {there} alone: put its translation beside it, line by line, as "
            f"{stem.name}.{_other(there, languages)}."
        )
    if None in languages:
        first, second = list(sides)[:2]
        raise DataError(
            f"{stem} is there in {there}: say which is translated into which, as in "
            f"data.source_language: {first} and data.target_language: {second}."
        )
    missing = languages.target if languages.source in sides else languages.source
    raise DataError(
        f"there is no {stem}.{missing}, only {there}: add it, or choose others with "
        "data.source_language and data.target_language."
    )


def _other(side: str, languages: Languages) -> str:
    """Name the side that is missing beside one."""
    pairs = (pair for pair in (languages, *SIDE_NAMES) if side in pair)
    others = (name for pair in pairs for name in pair if name not in (side, None))
    return next(others, None) or "LANGUAGE"


def read_parallel(files: ParallelFiles, dirt: Dirt) -> Iterator[PairRow]:
    """Read the pairs of two files, line by line.

    Args:
        files: UTF-8, gzipped or not.
        dirt: where lines that are empty on a side are noted.

    Yields:
        The pairs, in order.

    Raises:
        DataError: a file is missing or damaged, or one has more lines than the other.
    """
    lines = zip_longest(lines_of(files.source), lines_of(files.target))
    for number, (one, other) in enumerate(lines, 1):
        if one is None or other is None:
            _refuse_rest(files, number, one, other, sum(1 for _ in lines))
        yield from pair_row(one[1], other[1], number, files.name, dirt)


def _refuse_rest(
    files: ParallelFiles,
    number: int,
    one: tuple[int, str] | None,
    other: tuple[int, str] | None,
    more: int,
) -> NoReturn:
    """Say where one of two files ends and the other does not."""
    long, short = files if other is None else reversed(files)
    text = (one or other or (0, ""))[1]
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    raise DataError(
        f"{long} has {number + more:,} lines and {short} {number - 1:,}: line {number:,} of "
        f"{long.name} ({shown!r}) is the first without a counterpart; mend the files until line n "
        "of one is the translation of line n of the other."
    )

"""Splits that consist of several files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqlab.data.finding import find_file
from seqlab.data.sources import Reader, end_to_end, load_tables
from seqlab.errors import DataError

FILE = "file_number"  # the column that says which of its files a row of a joined split is from


def load_joined(
    path: str | None,
    files: Mapping[str, Sequence[str]],
    reader: Reader,
    streaming: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Load the splits of a corpus, each of which may consist of several files.

    Args:
        path: as in `seqlab.data.sources.load_tables`.
        files: by split, the files in place of the one in the folder, in order.
        reader: how they are read.
        streaming: leave the training split where it is.

    Returns:
        The splits, as `load_tables` gives them; one of several files has the column `FILE` besides.
        And the sentences on what was skipped.

    Raises:
        DataError: there is no such corpus, it cannot be read as asked, or files of a split differ
            in their columns.
    """
    first = {split: names[0] if names else None for split, names in files.items()}
    found, notes = load_tables(path, first, reader, streaming=streaming)
    splits: dict[str, Any] = dict(found)
    for split, names in files.items():
        if streaming and split == "train":
            continue
        tables = [splits[split]] if split in splits else []
        for name in names[1:]:
            file = str(find_file(name, split, path))
            table, said = load_tables(None, {"train": file}, reader)
            if not tables or "train" not in table:
                missing = file if tables else find_file(names[0], split, path)
                raise DataError(
                    f"data.{split}: nothing in {missing} is labelled: take it out of the list."
                )
            tables.append(table["train"])
            _check_alike(split, file, tables)
            notes += said
        if len(tables) > 1:
            sizes = [len(table) for table in tables]
            numbers = np.repeat(np.arange(len(tables), dtype=np.int32), sizes)
            splits[split] = end_to_end(tables).add_column(FILE, numbers)
    return splits, notes


def _check_alike(split: str, file: str, tables: Sequence[Any]) -> None:
    first, last = (sorted(set(table.column_names) - {"lines"}) for table in (tables[0], tables[-1]))
    if first != last:
        raise DataError(
            f"data.{split}: {file} has the columns {', '.join(last)}, and the files before it "
            f"{', '.join(first)}: join files that have the same."
        )

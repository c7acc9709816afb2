"""Splits that a corpus lacks, held out from its training split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqlab.data.sources import subset
from seqlab.errors import DataError

_SEED = 20180117  # never that of a run: runs with other seeds are scored on the same sentences


def hold_out(
    splits: Mapping[str, Any], share: float, corpus: str, noun: str = "sentence"
) -> tuple[dict[str, Any], str | None]:
    """Hold out parts of the training split for the splits that are missing.

    Where there are validation and training splits, a missing test split stays missing: that there
    is none is a choice.

    Args:
        splits: rows by split: some of ``train``, ``validation``, ``test``.
        share: of the training split that each missing split gets, 0 to less than 0.5; with 0 a lone
            training split serves as all three.
        corpus: its name, for messages.
        noun: what a row is, for messages.

    Returns:
        the splits, and what was done as a sentence; None where nothing was.

    Raises:
        DataError: the training split is too small.
    """
    missing = [part for part in ("validation", "test") if part not in splits]
    train = splits.get("train")
    if train is None or "validation" in splits:
        return dict(splits), None
    if share == 0.0:
        return {**splits, **(dict.fromkeys(missing, train) if len(splits) == 1 else {})}, None
    size = int(len(train) * share)
    if size == 0:
        raise DataError(
            f"{corpus}: {len(train)} {noun}s are too few to hold out {share:.0%} of them for "
            "validation: give data.validation a file."
        )
    order = np.random.default_rng(_SEED).permutation(len(train))
    held = {
        part: subset(train, np.sort(order[i * size : (i + 1) * size]))
        for i, part in enumerate(missing)
    }
    rest = subset(train, np.sort(order[len(missing) * size :]))
    which = "each" if len(missing) > 1 else "it"
    note = (
        f"{corpus} has no {' or '.join(missing)} split: {size} of its {len(train)} training "
        f"{noun}s, drawn once and for all, stand in for {which}."
    )
    return {**splits, **held, "train": rest}, note

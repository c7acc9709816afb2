"""ClassificationData: texts and their labels from any corpus, as batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqlab.batch import Batch, FormTable
from seqlab.data.base import Encoded, EncodedDataset, Ids, Ints
from seqlab.data.corpus import CorpusData
from seqlab.data.folders import texts_of
from seqlab.data.labelled import LabelledReader
from seqlab.data.windows import cut_evenly, has_long
from seqlab.errors import DataError, RecipeError, nearest
from seqlab.vocabulary import Vocabulary, ranked

_COLUMNS = ("text", "label")
_NOT_KNOWN = "the model does not know"
_SHOWN = 5  # how many unknown labels a note names before it only counts


class TextLabels(NamedTuple):
    """The labels of all texts of a split as numbers, end to end.

    Args:
        ids: ``(label,)`` int32, -1 where the vocabulary lacks the label.
        offsets: ``(text + 1,)`` int64, where those of each text begin and end.
    """

    ids: Ids
    offsets: Ints

    def texts(self, wanted: NDArray[np.bool_]) -> Ints:
        """Number the texts with a label that is wanted; `wanted` is ``(label,)``."""
        return np.unique(np.searchsorted(self.offsets, np.flatnonzero(wanted), side="right") - 1)

    def one(self, rows: Ints) -> Tensor:
        """Return the label of each text, ``(batch,)`` int64, where all have one."""
        return torch.from_numpy(self.ids[self.offsets[rows]].astype(np.int64))

    def several(self, rows: Ints, size: int) -> Tensor:
        """Return which of `size` labels each text has, ``(batch, label)`` float32 of 0 and 1."""
        table = np.zeros((len(rows), size), np.float32)
        for at, row in enumerate(rows):
            table[at, self.ids[self.offsets[row] : self.offsets[row + 1]]] = 1
        return torch.from_numpy(table)


class LabelledDataset(EncodedDataset):
    """An :class:`EncodedDataset` whose batches bring the labels of their texts as numbers.

    Args:
        encoded: the split; a piece of a text has the labels of the text.
        table: what its forms are.
        labels: of the texts.
        size: how many labels there are, where a text may have several; None where it has one.
        hide: see :class:`EncodedDataset`.
        seed: see :class:`EncodedDataset`.
    """

    def __init__(
        self,
        encoded: Encoded,
        table: FormTable,
        labels: TextLabels,
        size: int | None,
        hide: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(encoded, table, None, hide, seed)
        self.labels = labels
        self.size = size

    def __getitem__(self, index: Ints) -> Batch:
        batch = super().__getitem__(index)
        rows = index if self.encoded.rows is None else self.encoded.rows[index]
        labels, size = self.labels, self.size
        batch.target = labels.one(rows) if size is None else labels.several(rows, size)
        return batch


class ClassificationData(CorpusData):
    """A corpus of labelled texts for a :class:`seqlab.Classifier`.

    Args:
        path: see :class:`seqlab.data.corpus.CorpusData`, as for the options that are not named
            here; a folder may also hold ``train/LABEL/1.txt`` and so on, a folder for each split
            and label with one text a file, or just ``LABEL/1.txt``. Its `columns` are ``text`` and
            ``label``; names, or numbers in CSV and TSV. Long training documents are cut into even
            pieces that each have all labels of the document.
        multi_label: whether a text may have any number of labels instead of exactly one; ``auto``
            lets the files tell: it may where labels stand in lists, or `label_separator` is given.
        label_separator: what parts the labels of a text where they stand in one cell, such as
            ``|``.
        options: of :class:`seqlab.data.corpus.CorpusData`.
    """

    _own_columns = ("tokens", "labels", "lines", "several")

    def __init__(
        self,
        path: str | None = None,
        *,
        multi_label: bool | Literal["auto"] = "auto",
        label_separator: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        if multi_label not in (True, False, "auto"):
            raise RecipeError(
                f"data.multi_label is {multi_label!r}: it must be auto, true or false."
            )
        if label_separator == "":
            raise RecipeError("data.label_separator is empty: give what stands between two labels.")
        if label_separator is not None and multi_label is False:
            raise RecipeError(
                "data.label_separator parts several labels of a text, and data.multi_label is "
                "false: leave one of the two out."
            )
        for key in self.columns or {}:
            if key not in _COLUMNS:
                raise RecipeError(
                    f"unknown key {key!r} in data.columns: labelled texts have the columns text "
                    f"and label.{nearest(key, _COLUMNS)}"
                )
        self.multi_label = multi_label
        self.label_separator = label_separator
        self._several = False

    def _reader(self) -> LabelledReader:
        several = None if self.multi_label == "auto" else self.multi_label
        return LabelledReader(self.columns or {}, several, self.label_separator)

    def _survey(self) -> None:
        kinds = {
            part: bool(rows.data.column("several")[0].as_py()) for part, rows in self.splits.items()
        }
        self._several = any(kinds.values())
        single = next((part for part, several in kinds.items() if not several), None)
        if self._several and single is not None:
            raise DataError(
                f"{self._place_at(single, 0)}: one label a text here, but lists of labels in the "
                f"{next(part for part in kinds if kinds[part])} split: write them alike, or set "
                "data.multi_label to true or false."
            )
        for part in self.splits:
            self._chosen(self._counts(part), partial(self._place_of, part))

    def _counts(self, part: str) -> dict[str, int]:
        """Count the texts that have each label."""
        return self._coded(part, "labels").by_value()

    def _place_at(self, part: str, row: int | np.integer[Any]) -> str:
        """Name a text as ``file:line``, or as the file it is."""
        file, line = Path(self._file_of(part, int(row))), self.splits[part][int(row)]["lines"][0]
        return str(texts_of(file)[line - 1]) if file.is_dir() else f"{file}:{line}"

    def _place_of(self, part: str, label: str) -> str:
        """Find the first text with a label."""
        found = self._labels(part, lambda names: [name == label for name in names])
        return self._place_at(part, found.texts(found.ids[:] == 1)[0])

    def _labels(self, part: str, encode: Any) -> TextLabels:
        labels = self._coded(part, "labels")
        numbers = np.array(encode(labels.values), np.int32)
        return TextLabels(labels.ids.standing_for(numbers), labels.offsets)

    def _check_fit(self, target: Vocabulary) -> None:
        if target.scheme not in ("label", "labels"):
            raise DataError(
                f"the model in {self.vocabularies_from} tags words, it does not label texts: give "
                "it a corpus of tagged sentences as seqlab.TaggingData."
            )
        self._several = target.scheme == "labels"
        for part in [] if self._several else self.splits:
            sizes = np.diff(self._labels(part, lambda names: [0] * len(names)).offsets)
            if (sizes != 1).any():
                row = int(np.flatnonzero(sizes != 1)[0])
                raise DataError(
                    f"{self._place_at(part, row)}: {sizes[row]} labels, where the model in "
                    f"{self.vocabularies_from} gives each text one: give it texts with one label."
                )
        self._count(target)

    def _count(self, target: Vocabulary) -> None:
        if "train" in self.splits:
            counts = self._counts("train")
            target.counts = {label: counts.get(label, 0) for label in target.tokens}

    def _target_vocabulary(self) -> Vocabulary:
        counts = self._counts("train")
        self._check_variety(counts)
        scheme = "labels" if self._several else "label"
        labels = self._chosen(counts, partial(self._place_of, "train"))
        target = Vocabulary(labels, scheme=scheme, written=scheme)
        self._count(target)
        return target

    def _check_variety(self, counts: dict[str, int]) -> None:
        """Refuse a training split whose texts all have the same labels: nothing can be learnt."""
        if self.streaming and self.labels:
            return
        remedy = "add texts with other labels, or say with data.columns.label where they stand."
        if self.streaming:
            remedy = "raise data.streaming_sample, from which they are, or list data.labels."
        if not counts:
            raise DataError(
                f"{self._place_at('train', 0)}: neither this nor any other training text has a "
                f"label: {remedy}"
            )
        if len(counts) == 1 and sum(counts.values()) == len(self.splits["train"]):
            raise DataError(
                f"{self._place_at('train', 0)}: this and all other training texts have the label "
                f"{next(iter(counts))!r}, so there is nothing to tell apart: {remedy}"
            )

    def _with_target(self, split: str, encoded: Encoded, scored: bool) -> EncodedDataset:
        assert self._forms is not None
        target = self._vocabularies["target"]
        labels = self._labels(
            split, lambda names: [target.id(name) if name in target else -1 for name in names]
        )
        column = self.splits[split].data.column("labels")
        strange = labels.texts(labels.ids[:] < 0)
        if scored:
            if len(strange):
                self._tell_unknown(split, strange)
            return EncodedDataset(encoded, self._forms, lambda row: list(column[row].as_py()))
        if len(strange):
            unknown = next(name for name in column[int(strange[0])].as_py() if name not in target)
            raise DataError(
                f"{self._place_at(split, strange[0])}: {_NOT_KNOWN} the label "
                f"{unknown!r}{self._cure}.{nearest(unknown, target.tokens)}"
            )
        if has_long(encoded, self.max_length):
            long = cut_evenly(encoded, self.max_length)
            which = "" if self.streaming else f"{long} "
            self.note(
                f"{which}training texts of more than {self.max_length} tokens were cut into even "
                "pieces, each with the labels of its text; nothing was left out (data.max_length)."
            )
        size = len(target) if self._several else None
        hidden = self._hidden(split)
        return LabelledDataset(encoded, self._forms, labels, size, hidden, self.seed)

    def _tell_unknown(self, split: str, rows: Sequence[int] | Ints) -> None:
        """Say which labels of a scored split cannot be predicted."""
        target = self._vocabularies["target"]
        lost = [label for label in ranked(self._counts(split)) if label not in target]
        shown = ", ".join(map(repr, lost[:_SHOWN]))
        more = f" and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
        lacking = "the training split lacks" if self.vocabularies_from is None else _NOT_KNOWN
        texts, have = ("text", "has") if len(rows) == 1 else ("texts", "have")
        self.note(
            f"{len(rows):,} {texts} of the {split} split {have} a label that {lacking} "
            f"({shown}{more}): it cannot be predicted and counts as missed (the first at "
            f"{self._place_at(split, rows[0])})."
        )

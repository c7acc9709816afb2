"""CorpusData: what all tasks on words share, from files to encoded words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from seqlab.batch import FormTable
from seqlab.data.base import (
    Encoded,
    EncodedDataset,
    SequenceDataModule,
    vocabularies_of,
)
from seqlab.data.coded import Coded, coded
from seqlab.data.finding import find_file, find_splits
from seqlab.data.holding import hold_out
from seqlab.data.joining import FILE, load_joined
from seqlab.data.sources import Reader
from seqlab.data.streaming import Stream, Streamed, check_validation, held, open_stream, sampled
from seqlab.data.vectors import read_vectors
from seqlab.errors import DataError, RecipeError, check_range, nearest
from seqlab.vocabulary import Vocabulary, ranked, word_vocabulary

Files = list[str] | str | None  # of a split


def _listed(split: str, files: Files) -> list[str]:
    """Return the files of a split as a list."""
    listed = [files] if isinstance(files, str) else list(files or [])
    twice = next((file for file, n in Counter(listed).items() if n > 1), None)
    if twice is not None:
        raise RecipeError(f"data.{split} names {twice} twice: name each file once.")
    return listed


class CorpusData(SequenceDataModule, ABC):
    """Base of the data modules whose source is words; a task adds what is learnt of them.

    A subclass says how its files are read (`_reader`), what they hold of the target (`_survey`,
    `_target_vocabulary`, `_check_fit`), and makes datasets of encoded words (`_with_target`).

    Args:
        path: ``sample:NAME``, a folder with train, dev (valid, val, validation) and test files, one
            file, or a data set of the Hugging Face hub as ``org/name@revision``. Environment
            variables are expanded.
        train: a file for this split instead, or several that are read one after the other.
        validation: likewise.
        test: likewise.
        columns: where in a file things stand; the task says which there are.
        labels: the labels that may occur; any other is an error. Without it: those of the training
            split.
        lowercase: merge words that differ in case only (the characters still see it).
        min_count: words rarer than this in the training split share the unknown rows.
        hide_rare: probability that a word which the training split has once, and no vector, is
            shown as unknown in training, so that the unknown rows learn what rare words are like.
        unknown_rows: rows for unknown words; with more than one a word falls into one by its hash.
        vectors: a text file of word vectors; all its words get a row.
        max_length: longer training documents are cut into pieces of about this many tokens;
            documents that are scored stay whole.
        hold_out: share of the training split that stands in for a missing validation or test split;
            with 0 a lone file serves as the split that is asked for.
        vocabularies_from: a bundle whose vocabularies are used instead of new ones.
        options: see :class:`SequenceDataModule`.
    """

    # The columns of its tables that are no features of the words.
    _own_columns: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        path: str | None = None,
        *,
        train: Files = None,
        validation: Files = None,
        test: Files = None,
        columns: dict[str, int | str] | None = None,
        labels: list[str] | None = None,
        lowercase: bool = True,
        min_count: int = 1,
        hide_rare: float = 0.5,
        unknown_rows: int = 1,
        vectors: str | None = None,
        max_length: int = 512,
        hold_out: float = 0.1,
        vocabularies_from: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if labels is not None and len(set(labels)) < len(labels):
            twice = next(label for label, n in Counter(labels).items() if n > 1)
            raise RecipeError(f"duplicate label {twice!r} in data.labels: name each label once.")
        check_range("data.hold_out", hold_out, 0, 0.5)
        check_range("data.min_count", min_count, 1)
        check_range("data.unknown_rows", unknown_rows, 1)
        check_range("data.max_length", max_length, 2)
        self.path = path
        given = {"train": train, "validation": validation, "test": test}
        self.files = {split: _listed(split, files) for split, files in given.items()}
        self.columns = columns
        self.labels = labels
        self.lowercase = lowercase
        self.min_count = min_count
        self.hide_rare = hide_rare
        self.unknown_rows = unknown_rows
        self.vectors = vectors
        self.max_length = max_length
        self.hold_out = hold_out
        self.vocabularies_from = vocabularies_from
        self._splits: dict[str, Any] | None = None
        self._vocabularies: dict[str, Vocabulary] = {}
        self._tables: dict[str, EncodedDataset] = {}
        self._forms: FormTable | None = None
        self._columns: dict[tuple[str, str], Coded] = {}
        self._rare: np.ndarray | None = None  # words of the sample of a stream

    @abstractmethod
    def _reader(self) -> Reader:
        """Say how files are read."""

    @abstractmethod
    def _survey(self) -> None:
        """Look at the target of all splits, before vocabularies are built or read."""

    @abstractmethod
    def _target_vocabulary(self) -> Vocabulary:
        """Build the target vocabulary of the training split."""

    @abstractmethod
    def _check_fit(self, target: Vocabulary) -> None:
        """Refuse a corpus that a model with the given target vocabulary cannot read."""

    @abstractmethod
    def _with_target(self, split: str, encoded: Encoded, scored: bool) -> EncodedDataset:
        """Make a dataset of encoded words, with the target for training or the gold to score."""

    @property
    def source_vocab(self) -> Vocabulary:
        """The words, characters and features of the training split (or of the given bundle)."""
        return self._prepared()["source"]

    @property
    def target_vocab(self) -> Vocabulary:
        """The tags or labels that the model learns."""
        return self._prepared()["target"]

    @property
    def splits(self) -> dict[str, Any]:
        """The corpus: memory-mapped rows of ``tokens``, ``lines``, and what the task adds."""
        if self._splits is None:
            reader = self._reader()
            streaming = self.streaming and not self._is_lone
            found, notes = load_joined(self.path, self.files, reader, streaming)
            for sentence in notes:
                self.note(sentence)
            if streaming:
                self._splits = found
                return found
            self._splits, held_out = hold_out(found, self.hold_out, self._corpus, reader.noun)
            if held_out is not None:
                self.note(held_out)
        return self._splits

    def setup(self, stage: str) -> None:
        """Read the corpus and build or read the vocabularies, once."""
        if stage == "fit":
            self._need_training_split()
        self._prepared()
        if stage == "fit" and self.streaming and self._rare is None:
            with self._sampled():
                self._rare = self._rare_words("train")

    def _need_training_split(self) -> None:
        if self.streaming and self._stream() is not None:
            check_validation(self.splits, self._corpus)
        elif "train" not in self.splits:
            raise DataError(
                f"{self._corpus} has no training split (only {', '.join(self.splits)}): name a "
                "file train.*, or give it as data.train."
            )

    def _prepared(self) -> dict[str, Vocabulary]:
        if not self._vocabularies:
            if self.vocabularies_from is not None:
                self._survey()
                given = dict(vocabularies_of(self.vocabularies_from))
                self._check_fit(given["target"])
                self._check_features(given["source"])
                self._vocabularies = given
            else:
                self._need_training_split()
                with self._sampled():
                    self._survey()
                    target = self._target_vocabulary()
                    self._vocabularies = {"source": self._source_vocabulary(), "target": target}
            self._forms = FormTable(self._vocabularies["source"])
        return self._vocabularies

    def _stream(self) -> Stream | None:
        return open_stream(self.path, self.files["train"], self._reader(), self.note)

    @contextmanager
    def _sampled(self) -> Iterator[None]:
        """Have the first rows of a stream stand for its training split, for a while."""
        if not self.streaming:
            yield
            return
        stream = self._stream()
        assert stream is not None  # as was checked
        try:
            with sampled(self.splits, stream, self.streaming_sample):
                yield
        finally:
            self._columns = {k: v for k, v in self._columns.items() if k[0] != "train"}

    def _pool(self, rows: Sequence[Streamed]) -> EncodedDataset:
        pool = copy(self)
        pool._splits, pool._columns = {"train": held(rows)}, {}
        pool._forms = FormTable(self._prepared()["source"])  # its own, or it would grow for ever
        return pool._with_target("train", pool._encoded("train"), False)

    def _check_features(self, source: Vocabulary) -> None:
        for name in source.features:
            for part, rows in self.splits.items():
                if name not in rows.column_names:
                    raise DataError(
                        f"the model needs the feature column {name!r}, which the {part} split "
                        f"lacks: say where it stands, as in --data.columns.{name} 1."
                    )

    @property
    def _is_lone(self) -> bool:
        """Whether a lone file is to be scored by a model, and no training split."""
        lent = self.vocabularies_from is not None and not self.hold_out
        return lent and not any(self.files.values()) and Path(str(self.path)).is_file()

    @property
    def _corpus(self) -> str:
        """What the corpus is called in messages."""
        return self.path or ", ".join(file for files in self.files.values() for file in files)

    def _file(self, part: str, number: int = 0) -> str:
        """Name a file of a split, as lines are counted in it; held out parts are in train's."""
        names = self.files[part] or self.files["train"]
        if number:
            return str(find_file(names[number], part, self.path))
        first = {split: next(iter(files), None) for split, files in self.files.items()}
        try:
            found = find_splits(self.path, **first, folders=self._reader().folders)
        except DataError:  # no files here: a data set of the hub
            return first[part] or f"{self.path} ({part})"
        return str(found.get(part) or found["train"])

    def _files(self, part: str) -> Iterator[tuple[str, Any]]:
        """Name the files of a split, each with its rows."""
        rows = self.splits[part]
        if FILE not in rows.column_names:
            yield self._file(part), rows
            return
        numbers = np.asarray(rows.data.column(FILE))
        edges = [0, *np.flatnonzero(np.diff(numbers)) + 1, len(rows)]
        for start, end in pairwise(edges):
            yield self._file(part, int(numbers[start])), rows.select(range(start, end))

    def _file_of(self, part: str, row: int) -> str:
        """Name the file that a row of a split is from."""
        return self._file(part, self.splits[part][int(row)].get(FILE, 0))

    def _chosen(self, counts: Mapping[str, int], place: Callable[[str], str]) -> list[str]:
        """Order the labels; where the recipe lists them, refuse others with the first place."""
        if self.labels is None:
            return ranked(counts)
        strange = next((label for label in counts if label not in self.labels), None)
        if strange is not None:
            raise DataError(
                f"{place(strange)}: label {strange!r} is not among data.labels "
                f"({', '.join(self.labels)}).{nearest(strange, self.labels)}"
            )
        return list(self.labels)

    def _source_vocabulary(self) -> Vocabulary:
        given = None if self.vectors is None else read_vectors(self.vectors)
        counts = self._coded("train", "tokens").by_value()
        vocab = word_vocabulary(
            counts,
            lowercase=self.lowercase,
            min_count=self.min_count,
            unknown=self.unknown_rows,
            vector_words=[] if given is None else given.keys(self.lowercase),
        )
        for name in self.splits["train"].column_names:
            if name not in (*self._own_columns, FILE):
                values = ranked(self._coded("train", name).by_value())
                vocab.features[name] = Vocabulary(values, padding=True, unknown=1)
        if given is not None:
            vocab.vectors = given.rows(vocab)
            self.note(f"{given.coverage(vocab, counts)} in {self.vectors}.")
        return vocab

    def dataset(self, split: str, *, scored: bool) -> EncodedDataset:
        """Return a split ready for batches.

        Args:
            split: ``train``, ``validation`` or ``test``.
            scored: keep whole documents and what is right for them as strings, instead of pieces
                for training.

        Raises:
            DataError: the corpus has no such split.
        """
        key = f"{split}{scored}"
        if key not in self._tables:
            self._prepared()
            if split not in self.splits:
                raise DataError(
                    f"{self._corpus} has no {split} split (only {', '.join(self.splits)}): "
                    f"give data.{split} a file."
                )
            self._tables[key] = self._with_target(split, self._encoded(split), scored)
        return self._tables[key]

    def _encoded(self, split: str) -> Encoded:
        """Encode the words of a split and their features: numbers on disk, looked up by batches."""
        assert self._forms is not None
        words = self._coded(split, "tokens")
        if words.offsets[-1] == 0:
            raise DataError(
                f"the {split} split of {self._corpus} is empty: it holds no {self._reader().noun}."
            )
        forms = self._forms.index(words.values).astype(np.int32)
        features = []
        for name, vocab in self._vocabularies["source"].features.items():
            values = self._coded(split, name)
            numbers = np.array(vocab.encode(values.values), np.int32)
            features.append(values.ids.standing_for(numbers))
        return Encoded(words.ids.standing_for(forms), words.offsets, None, features)

    def _coded(self, split: str, name: str) -> Coded:
        """Return a column of a split as numbers."""
        key = (split, name)
        if key not in self._columns:
            self._columns[key] = coded(self.splits[split], name)
        return self._columns[key]

    @property
    def _cure(self) -> str:
        """What helps against labels of a stream that are not known, to end a sentence with."""
        if not self.streaming or self.vocabularies_from is not None:
            return ""
        return (
            f" (the first {self.streaming_sample:,} {self._reader().noun}s of the stream lack it: "
            "list all labels in data.labels, or raise data.streaming_sample)"
        )

    def _hidden(self, split: str) -> np.ndarray:
        """Say for every word form with what probability it is hidden."""
        assert self._forms is not None
        rare = self._rare_words(split) if self._rare is None else self._rare
        return np.where(rare[self._forms.words], self.hide_rare, 0.0)

    def _rare_words(self, split: str) -> np.ndarray:
        """Say for every word of the vocabulary whether a split has it once, and it no vector."""
        vocab = self._vocabularies["source"]
        split_words = self._coded(split, "tokens")
        here = np.array(vocab.encode(split_words.values), np.int64)  # (distinct,)
        counts = np.bincount(here, split_words.counts, minlength=len(vocab))
        rare: np.ndarray = counts == 1
        if vocab.vectors is not None:
            rare &= vocab.vectors[:, 0].isnan().numpy()
        return rare

"""TaggingData: tokens and tags from any corpus, as batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from seqlab.batch import FormTable
from seqlab.data.base import (
    Encoded,
    EncodedDataset,
    SequenceDataModule,
    flat_ids,
    token_counts,
    vocabularies_of,
)
from seqlab.data.holding import hold_out
from seqlab.data.sources import find_splits, load_splits
from seqlab.data.vectors import read_vectors
from seqlab.data.windows import cut_documents
from seqlab.errors import DataError, RecipeError, check_range, nearest
from seqlab.schemes import SchemeCounter
from seqlab.tags import UNKNOWN, convert, split_tag
from seqlab.vocabulary import Vocabulary, ranked, word_vocabulary

SchemeName = Literal["auto", "iob1", "iob2", "bioes", "bilou", "none"]
_PREFIXES = {"iob2": "BI", "bioes": "BIES"}


class TaggingData(SequenceDataModule):
    """A corpus of tagged sentences for a :class:`seqlab.Tagger`.

    Args:
        path: ``sample:NAME``, a folder with train, dev (valid, val, validation) and test files, one
            file, or a data set of the Hugging Face hub as ``org/name@revision``. Environment
            variables are expanded.
        train: a file for this split instead.
        validation: a file for this split instead.
        test: a file for this split instead.
        columns: where ``tokens`` and ``tags`` stand: a column's number (negative: from the end) or
            its name; every other name adds a feature column, such as ``{tokens: 0, pos: 1, tags:
            2}``.
        scheme: how the corpus writes spans; ``auto`` recognises it.
        tag_scheme: how the model sees them; ``bioes`` mostly scores better, ``iob2`` is smaller.
        labels: the labels that may occur; any other is an error. Without it: those of the training
            split.
        lowercase: merge words that differ in case only (the characters still see it).
        min_count: words rarer than this in the training split share the unknown rows.
        hide_rare: probability that a word which the training split has once, and no vector, is
            shown as unknown in training, so that the unknown rows learn what rare words are like.
        unknown_rows: rows for unknown words; with more than one a word falls into one by its hash.
        vectors: a text file of word vectors; all its words get a row.
        max_length: longer training documents are cut into pieces of about this many tokens, never
            inside a span; documents that are scored stay whole.
        hold_out: share of the training split that stands in for a missing validation or test split;
            with 0 a lone file serves as the split that is asked for.
        vocabularies_from: a bundle whose vocabularies are used instead of new ones.
        batch_size: see :class:`SequenceDataModule`, as for the rest.
        tokens_per_batch: see :class:`SequenceDataModule`.
        eval_tokens_per_batch: see :class:`SequenceDataModule`.
        seed: see :class:`SequenceDataModule`.
        num_workers: see :class:`SequenceDataModule`.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        columns: dict[str, int | str] | None = None,
        scheme: SchemeName = "auto",
        tag_scheme: Literal["bioes", "iob2"] = "bioes",
        labels: list[str] | None = None,
        lowercase: bool = True,
        min_count: int = 1,
        hide_rare: float = 0.5,
        unknown_rows: int = 1,
        vectors: str | None = None,
        max_length: int = 512,
        hold_out: float = 0.1,
        vocabularies_from: str | None = None,
        batch_size: int = 32,
        tokens_per_batch: int = 4096,
        eval_tokens_per_batch: int = 4096,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            tokens_per_batch=tokens_per_batch,
            eval_tokens_per_batch=eval_tokens_per_batch,
            seed=seed,
            num_workers=num_workers,
        )
        if labels is not None and len(set(labels)) < len(labels):
            twice = next(label for label, n in Counter(labels).items() if n > 1)
            raise RecipeError(f"duplicate label {twice!r} in data.labels: name each label once.")
        check_range("data.hold_out", hold_out, 0, 0.5)
        check_range("data.min_count", min_count, 1)
        check_range("data.unknown_rows", unknown_rows, 1)
        check_range("data.max_length", max_length, 2)
        self.path = path
        self.files = {"train": train, "validation": validation, "test": test}
        self.columns = columns
        self.scheme = scheme
        self.tag_scheme = tag_scheme
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
        self._scheme = ""
        self._vocabularies: dict[str, Vocabulary] = {}
        self._tables: dict[str, EncodedDataset] = {}
        self._forms: FormTable | None = None

    @property
    def source_vocab(self) -> Vocabulary:
        """The words, characters and features of the training split (or of the given bundle)."""
        return self._prepared()["source"]

    @property
    def target_vocab(self) -> Vocabulary:
        """The tags, in the scheme that the model learns."""
        return self._prepared()["target"]

    @property
    def splits(self) -> dict[str, Any]:
        """The corpus: memory-mapped rows of ``tokens``, ``tags``, ``lines`` and features."""
        if self._splits is None:
            found, notes = load_splits(
                self.path,
                train=self.files["train"],
                validation=self.files["validation"],
                test=self.files["test"],
                columns=self.columns,
            )
            for sentence in notes:
                self.note(sentence)
            self._splits, held_out = hold_out(found, self.hold_out, self._corpus)
            if held_out is not None:
                self.note(held_out)
        return self._splits

    def setup(self, stage: str) -> None:
        """Read the corpus and build or read the vocabularies, once."""
        if stage == "fit":
            self._need_training_split()
        self._prepared()

    def _need_training_split(self) -> None:
        if "train" not in self.splits:
            raise DataError(
                f"{self._corpus} has no training split (only {', '.join(self.splits)}): name a "
                "file train.*, or give it as data.train."
            )

    def _prepared(self) -> dict[str, Vocabulary]:
        if not self._vocabularies:
            if self.vocabularies_from is None:
                self._need_training_split()
            self._scheme = self._find_scheme()
            if self.vocabularies_from is not None:
                self._vocabularies = dict(vocabularies_of(self.vocabularies_from))
                self._check_fit()
            else:
                target = self._target_vocabulary()
                self._vocabularies = {"source": self._source_vocabulary(), "target": target}
            self._forms = FormTable(self._vocabularies["source"])
        return self._vocabularies

    def _check_fit(self) -> None:
        """Refuse a corpus that a model with the given vocabularies cannot read."""
        scheme = self._vocabularies["target"].scheme
        if "none" in (scheme, self._scheme) and scheme != self._scheme:
            raise DataError(
                f"the model tags in scheme {scheme}, and the tags of {self._corpus} are in scheme "
                f"{self._scheme}: say in data.columns where the tags stand that the model learnt."
            )
        for name in self._vocabularies["source"].features:
            for part, rows in self.splits.items():
                if name not in rows.column_names:
                    raise DataError(
                        f"the model needs the feature column {name!r}, which the {part} split "
                        f"lacks: say where it stands, as in --data.columns.{name} 1."
                    )

    def _sentences(self, part: str) -> Iterator[tuple[list[str], list[int]]]:
        rows = self.splits[part]
        if "tags" not in rows.column_names:
            raise DataError(
                f"the {part} split of {self._corpus} has no tags: say where they stand in "
                "data.columns."
            )
        for piece in rows.select_columns(["tags", "lines"]).iter(batch_size=1000):
            yield from zip(piece["tags"], piece["lines"], strict=True)

    def _find_scheme(self) -> str:
        if self.scheme != "auto":
            return self.scheme
        counter = SchemeCounter()
        for part in self.splits:
            file = self._file(part)
            for tags, lines in self._sentences(part):
                counter.add(tags, lines, file)
        found = counter.result()
        if found.repaired:
            self.note(
                f"{found.repaired} tags do not fit {found.name} and are read as conlleval reads "
                f"them (the first at {', '.join(found.examples)})."
            )
        return found.name

    @property
    def _corpus(self) -> str:
        """What the corpus is called in messages."""
        return self.path or ", ".join(file for file in self.files.values() if file)

    def _file(self, part: str) -> str:
        """Name the file of a split, as lines are counted in it; held out parts are in train's."""
        try:
            files = find_splits(self.path, *self.files.values())
        except DataError:  # no files here: a data set of the hub
            return self.files[part] or f"{self.path} ({part})"
        return str(files.get(part) or files["train"])

    def _first(self, wanted: Callable[[str], bool]) -> str:
        """Find the first tag of the training split that is wanted, as ``file:line``."""
        for tags, lines in self._sentences("train"):
            for tag, line in zip(tags, lines, strict=True):
                if wanted(tag):
                    return f"{self._file('train')}:{line}"
        return self._file("train")

    @property
    def _model_scheme(self) -> str:
        return "none" if self._scheme == "none" else self.tag_scheme

    def _target_vocabulary(self) -> Vocabulary:
        tags: Counter[str] = Counter()
        labels: Counter[str] = Counter()
        for sentence, _ in self._sentences("train"):
            tags.update(sentence)
        tags.pop(UNKNOWN, None)
        if self._scheme == "none":
            return Vocabulary(self._chosen(tags), written="none")
        for tag, n in tags.items():
            labels[self._label(tag)] += n
        labels.pop("", None)
        scheme = self._model_scheme
        names = [f"{p}-{label}" for label in self._chosen(labels) for p in _PREFIXES[scheme]]
        return Vocabulary(["O", *names], scheme=scheme, written=self._scheme)

    def _label(self, tag: str) -> str:
        if self._scheme == "none":
            return tag
        try:
            return split_tag(tag)[1]
        except DataError as error:  # only where the recipe names the scheme
            place = self._first(lambda other: other == tag)
            raise DataError(f"{place}: {error} Mend it, or set data.scheme to none.") from error

    def _chosen(self, counts: Counter[str]) -> list[str]:
        """Order the labels; where the recipe lists them, refuse others with the first place."""
        if self.labels is None:
            return ranked(counts)
        strange = next((label for label in counts if label not in self.labels), None)
        if strange is not None:
            raise DataError(
                f"{self._first(lambda tag: self._label(tag) == strange)}: label {strange!r} is not "
                f"among data.labels ({', '.join(self.labels)}).{nearest(strange, self.labels)}"
            )
        return list(self.labels)

    def _source_vocabulary(self) -> Vocabulary:
        train = self.splits["train"].data
        given = None if self.vectors is None else read_vectors(self.vectors)
        counts = token_counts([train.column("tokens")])
        vocab = word_vocabulary(
            counts,
            lowercase=self.lowercase,
            min_count=self.min_count,
            unknown=self.unknown_rows,
            vector_words=[] if given is None else given.keys(self.lowercase),
        )
        for name in self.splits["train"].column_names:
            if name not in ("tokens", "tags", "lines"):
                values = ranked(token_counts([train.column(name)]))
                vocab.features[name] = Vocabulary(values, padding=True, unknown=1)
        if given is not None:
            vocab.vectors = given.rows(vocab)
            self.note(f"{given.coverage(vocab, counts)} in {self.vectors}.")
        return vocab

    def dataset(self, split: str, *, scored: bool) -> EncodedDataset:
        """Return a split ready for batches.

        Args:
            split: ``train``, ``validation`` or ``test``.
            scored: keep whole documents and their tags as strings, instead of pieces for training.

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
            self._tables[key] = self._encoded(split, scored)
        return self._tables[key]

    def _encoded(self, split: str, scored: bool) -> EncodedDataset:
        assert self._forms is not None
        rows = self.splits[split]
        source = self._vocabularies["source"]
        forms, offsets = flat_ids(rows.data.column("tokens"), self._forms.index)
        if offsets[-1] == 0:
            raise DataError(f"the {split} split of {self._corpus} is empty: it holds no sentence.")
        features = [
            flat_ids(rows.data.column(name), vocab.encode)[0]
            for name, vocab in source.features.items()
        ]
        encoded = Encoded(forms, offsets, None, features)
        if not scored:
            encoded.target = np.concatenate([self._ids(s, n) for s, n in self._sentences(split)])
            long = cut_documents(encoded, self._opening_tags(), self.max_length)
            if long:
                self.note(
                    f"{long} training documents of more than {self.max_length} tokens were cut "
                    "into pieces between spans; nothing was left out (data.max_length)."
                )
            return EncodedDataset(encoded, self._forms, None, self._hidden(forms), self.seed)
        column = rows.data.column("tags")
        scheme, target = self._scheme, self._vocabularies["target"].scheme

        def gold(row: int) -> list[str]:
            try:
                return convert(column[row].as_py(), scheme, target)
            except DataError as error:  # only where the recipe names the scheme
                raise DataError(f"{self._file(split)}:{rows[row]['lines'][0]}: {error}") from error

        return EncodedDataset(encoded, self._forms, gold)

    def _hidden(self, forms: np.ndarray) -> np.ndarray:
        """Say for every word form with what probability it is hidden."""
        assert self._forms is not None
        words = self._forms.words  # (form,)
        counts = np.bincount(words[forms], minlength=len(self._forms.vocab))
        rare = counts == 1
        if self._forms.vocab.vectors is not None:
            rare &= self._forms.vocab.vectors[:, 0].isnan().numpy()
        return np.where(rare[words], self.hide_rare, 0.0)

    def _ids(self, tags: Sequence[str], lines: Sequence[int]) -> np.ndarray:
        vocab = self._vocabularies["target"]
        ids = np.empty(len(tags), np.int32)
        for i, tag in enumerate(convert(tags, self._scheme, vocab.scheme)):
            if tag == UNKNOWN:
                ids[i] = -1
            elif tag in vocab:
                ids[i] = vocab.id(tag)
            else:
                raise DataError(
                    f"{self._file('train')}:{lines[i]}: the model does not know the tag "
                    f"{tags[i]!r}.{nearest(tag, vocab.tokens)}"
                )
        return ids

    def _opening_tags(self) -> np.ndarray:
        """Say for every tag whether a document may be cut before it; the last entry is for -1."""
        vocab = self._vocabularies["target"]
        return np.array([vocab.scheme == "none" or t[0] in "OBS" for t in vocab.tokens] + [True])

"""TranslationData: pairs of sentences from any parallel corpus, as batches of ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from torch.utils.data import Dataset

from seqlab.data.base import Ints, SequenceDataModule, subword_vocabularies_of
from seqlab.data.encoding import EncodedPairs, content_of, encoded_ids, held_ids, learnt_tokenizer
from seqlab.data.holding import hold_out
from seqlab.data.pair_corpus import PairCorpus, load_pairs
from seqlab.data.pair_records import ROLES, PairReader
from seqlab.data.pair_rows import Languages
from seqlab.data.streaming import Stream, Streamed, check_validation, held, sampled
from seqlab.errors import DataError, RecipeError, check_range, nearest
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary, TokenizerKind

_SMALLEST = 5  # four special tokens and a piece


class PairDataset(Dataset[PairBatch]):
    """Looks up whole batches of pairs: its index is an array of pair numbers.

    Args:
        encoded: the split.
        texts: the rows that hold its texts, a ``datasets.Dataset``, where it is to be scored; else
            None.
    """

    def __init__(self, encoded: EncodedPairs, texts: Any = None) -> None:
        self.encoded = encoded
        self.texts = texts

    def __getitem__(self, index: Ints) -> PairBatch:
        rows = self.encoded.rows[index]
        source, source_lengths = self.encoded.source.batch(rows)
        target, target_lengths = self.encoded.target.batch(rows)
        batch = PairBatch(source, source_lengths, target, target_lengths)
        if self.texts is not None:
            found = self.texts[rows]
            batch.gold = [text for (text,) in found["target"]]
            batch.texts = [text for (text,) in found["source"]]
        return batch


class TranslationData(SequenceDataModule):
    """A corpus of sentences and their translations for a :class:`seqlab.Translator`.

    Args:
        path: ``sample:NAME``; a folder with parallel files (``train.de``, ``train.en``) or with a
            file of pairs for each split; one file of pairs; or a data set of the Hugging Face hub
            as ``org/name@revision``. Environment variables are expanded.
        train: a file of pairs for this split instead; or what stands before the extensions of
            parallel files, such as ``train``.
        validation: likewise.
        test: likewise, such as ``test2016``.
        source_language: what is translated: the extension of its files, the name of its column in a
            header, its key in records.
        target_language: what it is translated into, likewise.
        columns: ``source`` and ``target`` where they are named otherwise: names, or numbers in a
            table.
        tokenizer: what texts are cut into: ``bpe``, ``wordpiece`` or ``unigram`` pieces, or
            ``words``.
        vocabulary_size: most pieces of a tokenizer, four special ones counted in.
        joint: learn one tokenizer from both sides, which lets a model tie its embeddings.
        lowercase: merge what differs in case only; translations are then in lower case.
        max_length: training pairs with more pieces than this on a side are left out, which is said;
            pairs that are scored all stay.
        hold_out: share of the training split that stands in for a missing validation or test split;
            with 0 a lone file serves as the split that is asked for.
        vocabularies_from: a bundle whose tokenizers are used instead of new ones.
        options: see :class:`SequenceDataModule`; a budget of tokens counts the longer side.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        source_language: str | None = None,
        target_language: str | None = None,
        columns: dict[str, int | str] | None = None,
        tokenizer: TokenizerKind = "bpe",
        vocabulary_size: int = 8000,
        joint: bool = True,
        lowercase: bool = False,
        max_length: int = 200,
        hold_out: float = 0.1,
        vocabularies_from: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        kinds = get_args(TokenizerKind)
        if tokenizer not in kinds:
            raise RecipeError(
                f"data.tokenizer is {tokenizer!r}: it must be one of {', '.join(kinds)}."
                f"{nearest(tokenizer, kinds)}"
            )
        for key in columns or {}:
            if key not in ROLES:
                raise RecipeError(
                    f"unknown key {key!r} in data.columns: pairs have the columns source and "
                    f"target.{nearest(key, ROLES)}"
                )
        check_range("data.vocabulary_size", vocabulary_size, _SMALLEST)
        check_range("data.max_length", max_length, 1)
        check_range("data.hold_out", hold_out, 0, 0.5)
        Languages(source_language, target_language).check()
        self.path = path
        self.files = {"train": train, "validation": validation, "test": test}
        self.source_language = source_language
        self.target_language = target_language
        self.columns = columns
        self.tokenizer = tokenizer
        self.vocabulary_size = vocabulary_size
        self.joint = joint
        self.lowercase = lowercase
        self.max_length = max_length
        self.hold_out = hold_out
        self.vocabularies_from = vocabularies_from
        self._corpus: PairCorpus | None = None
        self._splits: dict[str, Any] = {}
        self._vocabularies: dict[str, SubwordVocabulary] = {}
        self._contents: dict[str, str] = {}
        self._datasets: dict[str, PairDataset] = {}
        self._left_out = False  # whether it was said that pairs of a stream are

    @property
    def source_vocab(self) -> SubwordVocabulary:
        """The pieces of what is translated."""
        return self._prepared()["source"]

    @property
    def target_vocab(self) -> SubwordVocabulary:
        """The pieces of translations; equal to those of the source if they are `joint`."""
        return self._prepared()["target"]

    @property
    def splits(self) -> dict[str, Any]:
        """The corpus: memory-mapped rows of ``source`` and ``target``, lists of one text each."""
        if self._corpus is None:
            languages = self._languages()
            streaming = self.streaming and not self._is_lone
            columns = self.columns or {}
            corpus = load_pairs(self.path, self.files, columns, languages, streaming)
            for sentence in corpus.notes:
                self.note(sentence)
            if streaming:
                self._corpus, self._splits = corpus, corpus.splits
                return self._splits
            self._splits, held_out = hold_out(
                corpus.splits, self.hold_out, self._name, PairReader.noun
            )
            if held_out is not None:
                self.note(held_out)
            self._corpus = corpus
        return self._splits

    def setup(self, stage: str) -> None:
        """Read the corpus and learn or read the tokenizers, once."""
        if stage == "fit":
            self._need_training_split()
        self._prepared()

    def dataset(self, split: str, *, scored: bool) -> PairDataset:
        """Return a split ready for batches.

        Args:
            split: ``train``, ``validation`` or ``test``.
            scored: keep all pairs, with their texts, instead of those that are not too long to
                train on.

        Raises:
            DataError: the corpus has no such split, or nothing in it is short enough.
        """
        key = f"{split}{scored}"
        if key not in self._datasets:
            vocabularies = self._prepared()
            if split not in self.splits:
                raise DataError(
                    f"{self._name} has no {split} split (only {', '.join(self.splits)}): "
                    f"give data.{split} a file."
                )
            rows = self.splits[split]
            ids = encoded_ids(rows, split, vocabularies, self._content(split))
            longest = None if scored else self.max_length
            encoded = EncodedPairs(ids["source"], ids["target"], longest)
            if len(encoded.left_out):
                self._tell_left_out(split, encoded)
            texts = rows.select_columns(list(ROLES)) if scored else None
            self._datasets[key] = PairDataset(encoded, texts)
        return self._datasets[key]

    def _tell_left_out(self, split: str, encoded: EncodedPairs) -> None:
        """Say how many pairs are too long to train on, and where the first is."""
        count, line = len(encoded.left_out), self._line(split, int(encoded.left_out[0]))
        if not len(encoded.rows):
            raise DataError(
                f"{line}: neither this nor any other training pair has at most {self.max_length} "
                "pieces on each side: raise data.max_length or data.vocabulary_size."
            )
        pairs, were = ("pair", "was") if count == 1 else ("pairs", "were")
        self.note(
            f"{count:,} training {pairs} of more than {self.max_length} pieces on a side {were} "
            f"left out (the first at {line}); raise data.max_length to learn from them."
        )

    def _line(self, split: str, row: int) -> str:
        """Name the line of a pair as ``file:line``; what is held out stands in training's file."""
        return self._file_line(split, self.splits[split][row])

    def _file_line(self, split: str, row: Mapping[str, Any]) -> str:
        assert self._corpus is not None
        file = self._corpus.files.get(split) or self._corpus.files.get("train", self._name)
        return f"{file}:{row['lines'][0]}"

    def _content(self, split: str) -> str:
        if split not in self._contents:
            self._contents[split] = content_of(self.splits[split])
        return self._contents[split]

    @property
    def _name(self) -> str:
        """What the corpus is called in messages."""
        return self.path or ", ".join(file for file in self.files.values() if file)

    @property
    def _is_lone(self) -> bool:
        """Whether a lone file is to be scored by a model, and no training split."""
        lent = self.vocabularies_from is not None and not self.hold_out
        return lent and not any(self.files.values()) and Path(str(self.path)).is_file()

    def _stream(self) -> Stream | None:
        assert self.splits is not None  # which reads the corpus
        assert self._corpus is not None
        return self._corpus.stream(self.note)

    def _pool(self, rows: Sequence[Streamed]) -> PairDataset:
        pairs = held(rows)
        ids = held_ids(pairs, self._prepared())
        encoded = EncodedPairs(ids["source"], ids["target"], self.max_length)
        if len(encoded.left_out) and not self._left_out:
            self._left_out = True
            line = self._file_line("train", pairs[int(encoded.left_out[0])])
            self.note(
                f"training pairs of more than {self.max_length} pieces on a side are left out of "
                f"the stream (the first at {line}); raise data.max_length to learn from them."
            )
        return PairDataset(encoded)

    def _need_training_split(self) -> None:
        if self.streaming and self._stream() is not None:
            check_validation(self.splits, self._name)
        elif "train" not in self.splits:
            raise DataError(
                f"{self._name} has no training split (only {', '.join(self.splits)}): name a file "
                "train.*, or give it as data.train."
            )

    def _languages(self) -> Languages:
        """Return the languages of the recipe, which have to be those of a bundle that is given."""
        asked = Languages(self.source_language, self.target_language)
        if self.vocabularies_from is None:
            return asked
        lent = self._lent()
        known = Languages(lent["source"].language, lent["target"].language)
        both = Languages(asked.source or known.source, asked.target or known.target)
        if known not in (both, Languages(None, None)):
            raise DataError(
                f"the model in {self.vocabularies_from} translates from {known.source} to "
                f"{known.target}, and the data is to be from {both.source} to {both.target}: give "
                "it data of its languages in data.source_language and data.target_language."
            )
        return both

    def _lent(self) -> dict[str, SubwordVocabulary]:
        assert self.vocabularies_from is not None
        return subword_vocabularies_of(self.vocabularies_from)

    # Tokenizers

    def _prepared(self) -> dict[str, SubwordVocabulary]:
        if not self._vocabularies and self.vocabularies_from is not None:
            assert self.splits  # read, as they have to be in the languages of the model
            self._vocabularies = self._lent()
        elif not self._vocabularies:
            self._need_training_split()
            self._vocabularies = self._sampled() if self.streaming else self._learnt()
        return self._vocabularies

    def _sampled(self) -> dict[str, SubwordVocabulary]:
        """Learn tokenizers from the first pairs of a stream."""
        stream = self._stream()
        assert stream is not None  # as was checked
        try:
            with sampled(self.splits, stream, self.streaming_sample):
                return self._learnt()
        finally:
            self._contents.pop("train", None)

    def _learnt(self) -> dict[str, SubwordVocabulary]:
        """Learn a tokenizer for both sides, or one for each."""
        found: dict[str, SubwordVocabulary] = {}
        train = self.splits["train"]
        assert self._corpus is not None
        for side, language in zip(ROLES, self._corpus.languages, strict=True):
            text = learnt_tokenizer(
                train,
                ROLES if self.joint else (side,),
                self.tokenizer,
                self.vocabulary_size,
                self.lowercase,
                self._content("train"),
            )
            found[side] = SubwordVocabulary(text, language=language)
            self._tell_size(len(found[side]), "" if self.joint else f" of the {side}")
        return found

    def _tell_size(self, size: int, whose: str) -> None:
        """Say when the texts support fewer pieces than were asked for."""
        if size < self.vocabulary_size:
            self.note(
                f"the {self.tokenizer} tokenizer{whose} has {size:,} pieces, not the "
                f"{self.vocabulary_size:,} of data.vocabulary_size: the training texts support no "
                f"more; write {size} or less, or give more text."
            )

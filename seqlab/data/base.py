"""The LightningDataModule under all tasks: splits, vocabularies, encoded columns, loaders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from seqlab.batch import Batch, FormTable
from seqlab.data.cache import entry_of
from seqlab.data.mapping import HeldIds, MappedIds
from seqlab.data.sampling import (
    BatchedSplit,
    BucketSampler,
    ResumableLoader,
    ResumableSampler,
    is_first,
    world,
)
from seqlab.data.streaming import PieceDataset, Stream, Streamed, StreamSampler
from seqlab.errors import DataError, RecipeError, check_range
from seqlab.subwords import SubwordVocabulary, vocabulary_from_json
from seqlab.vocabulary import Vocabulary

Ints = NDArray[np.int64]
Ids = NDArray[np.int32] | MappedIds | HeldIds


@dataclass
class Encoded:
    """A split as numbers, all its sequences end to end, in memory or mapped from disk.

    Attributes:
        forms: ``(token,)`` int32, rows of the form table.
        offsets: ``(sequence + 1,)`` int64, where each sequence begins and ends.
        target: ``(token,)`` int32 ids of tags, -1 where unknown; or None.
        features: for each feature column ``(token,)`` int32.
        rows: ``(sequence,)`` int64, the row of the corpus that each sequence is (a part of).
    """

    forms: Ids
    offsets: Ints
    target: Ids | None = None
    features: Sequence[Ids] = field(default_factory=list)
    rows: Ints | None = None

    @property
    def lengths(self) -> Ints:
        """``(sequence,)`` tokens of every sequence."""
        return np.diff(self.offsets)

    @property
    def sort_key(self) -> Ints:
        """``(sequence,)`` what batches are made alike by: the lengths."""
        return self.lengths


class EncodedDataset(Dataset[Batch]):
    """Looks up whole batches: its index is an array of sequence numbers.

    Args:
        encoded: the split.
        table: what its forms are.
        tags: gives the tags or labels of a row as strings; None where no score is wanted.
        hide: ``(form,)`` probability that a token of this form is shown as an unknown word; None
            hides nothing.
        seed: of what is hidden, together with the sequences of the batch.
    """

    def __init__(
        self,
        encoded: Encoded,
        table: FormTable,
        tags: Callable[[int], list[str]] | None = None,
        hide: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> None:
        self.encoded = encoded
        self.table = table
        self.tags = tags
        self.hide = hide
        self.seed = seed

    def __getitem__(self, index: Ints) -> Batch:
        data = self.encoded
        starts, ends = data.offsets[index], data.offsets[index + 1]
        sizes = ends - starts
        before = np.cumsum(sizes) - sizes  # (batch,): tokens of the batch that stand before
        where = np.arange(int(sizes.sum())) + np.repeat(starts - before, sizes)
        batch = self.table.batch(
            data.forms[where].astype(np.int64),
            sizes,
            [column[where].astype(np.int64) for column in data.features],
            None if data.target is None else data.target[where].astype(np.int64),
        )
        if self.hide is not None:
            self._hide(batch, self.hide[data.forms[where]], index)
        if self.tags is not None:
            rows = index if data.rows is None else data.rows[index]
            batch.gold = [self.tags(int(row)) for row in rows]
        return batch

    def _hide(self, batch: Batch, probability: NDArray[np.float64], index: Ints) -> None:
        """Show some tokens as unknown; which ones depends on the seed and the batch alone."""
        random = np.random.default_rng([self.seed, len(index), *(int(i) for i in index[:8])])
        hidden = random.random(len(probability)) < probability  # (token,)
        vocab = self.table.vocab
        source = batch.source.numpy()  # (batch, time)
        real = np.arange(source.shape[1]) < batch.lengths.numpy()[:, None]  # (batch, time)
        places = np.flatnonzero(real)[hidden]  # of the flat batch
        # Hashed rows are all trained alike: which one a hidden word trains makes no difference.
        shown = source.reshape(-1)
        shown[places] = vocab.first_unknown + shown[places] % vocab.unknown


class Shared(Dataset[Any]):
    """A split that several processes train on; batches that come again are marked.

    Args:
        dataset: looks up batches.
    """

    def __init__(self, dataset: BatchedSplit) -> None:
        self.dataset = dataset
        self.encoded = dataset.encoded

    def __getitem__(self, index: Ints) -> Any:
        repeated = bool(index[0] < 0)
        batch = self.dataset[~index if repeated else index]
        batch.repeated = repeated
        return batch


class SequenceDataModule(lightning.LightningDataModule):
    """Base of the task data modules.

    Args:
        batch_size: most sequences in a batch.
        tokens_per_batch: most tokens in a batch, padding counted in; a longer sequence goes alone.
            ``auto``: `seqlab fit` finds the largest number whose batches fit into memory.
        eval_tokens_per_batch: most tokens for validation and test.
        seed: of the order of the training batches; without it, that of the recipe
            (``seed_everything``).
        num_workers: processes that build batches; 0 builds them in the training process, which is
            fastest for all but very large batches.
        streaming: read the training split as a stream, for corpora larger than the disk: nothing
            of it is written to the cache, and a pool of it is in memory at a time.
        streaming_sample: first rows of the stream that vocabularies, labels and tokenizers are
            made from.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        tokens_per_batch: int | Literal["auto"] = 4096,
        eval_tokens_per_batch: int = 4096,
        seed: int | None = None,
        num_workers: int = 0,
        streaming: bool = False,
        streaming_sample: int = 100_000,
    ) -> None:
        super().__init__()
        check_range("data.batch_size", batch_size, 1)
        if tokens_per_batch != "auto":
            check_range("data.tokens_per_batch", tokens_per_batch, 1)
        check_range("data.eval_tokens_per_batch", eval_tokens_per_batch, 1)
        check_range("data.num_workers", num_workers, 0)
        check_range("data.streaming_sample", streaming_sample, 1)
        if streaming and tokens_per_batch == "auto":
            raise RecipeError(
                "data.tokens_per_batch is auto, which looks for the longest sequences of the "
                "corpus, and data.streaming is true: give a number, such as 4096."
            )
        if streaming and num_workers:
            raise RecipeError(
                f"data.num_workers is {num_workers}, and data.streaming is true: a stream is read "
                "in the training process, leave one of the two out."
            )
        self.batch_size = batch_size
        self.tokens_per_batch: int | Literal["auto"] = tokens_per_batch
        self.eval_tokens_per_batch = eval_tokens_per_batch
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.num_workers = num_workers
        self.streaming = streaming
        self.streaming_sample = streaming_sample
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Say something about the corpus on stderr, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            if is_first():
                print(f"seqlab: {sentence}", file=sys.stderr)

    @property
    def digests(self) -> dict[str, str]:
        """Of every split a digest of its bytes and of how they are read, to know it again by.

        Splits that are held out from a file have the digest of that file.
        """
        splits: Mapping[str, Any] = getattr(self, "splits", {})  # of other modules nothing is known
        return {split: entry_of(rows) for split, rows in splits.items()}

    def dataset(self, split: str, *, scored: bool) -> BatchedSplit:
        """Return a split ready for batches; with what is right as strings where it is scored."""
        raise TypeError(f"{type(self).__name__} has no datasets.")

    def _loader(self, split: str, *, train: bool) -> DataLoader[Any]:
        dataset: Any = self.dataset(split, scored=not train)
        rank, world_size = world()
        lengths: Ints = dataset.encoded.lengths
        sampler = BucketSampler(
            lengths,
            self.batch_size if train else len(lengths),
            self._budget() if train else self.eval_tokens_per_batch,
            shuffle=train,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            sort_key=dataset.encoded.sort_key,
        )
        self._begin(sampler)
        # The sampler yields arrays of sequence numbers and the dataset answers with whole batches.
        return (ResumableLoader if train else DataLoader)(
            Shared(dataset) if world_size > 1 and train else dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _begin(self, sampler: ResumableSampler) -> None:
        """Tell a sampler where training is: a resumed run draws its first batch before that."""
        if self.trainer is not None:
            loop: Any = self.trainer.fit_loop
            sampler.set_epoch(loop.epoch_progress.current.processed)
            sampler.taken = lambda: loop.epoch_loop.batch_progress.current.processed

    def _stream(self) -> Stream | None:
        """Find the training split as a stream; None where there is none."""
        raise TypeError(f"{type(self).__name__} has no streams.")

    def _pool(self, rows: Sequence[Streamed]) -> BatchedSplit:
        """Make a split of rows of the stream, ready for batches."""
        raise TypeError(f"{type(self).__name__} has no streams.")

    def _stream_loader(self) -> DataLoader[Any]:
        stream = self._stream()
        assert stream is not None  # as `setup` has found
        rank, world_size = world()
        sampler = StreamSampler(
            stream,
            self._pool,
            self.batch_size,
            self._budget(),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        self._begin(sampler)
        return ResumableLoader(PieceDataset(), batch_size=None, sampler=sampler)

    def _budget(self) -> int:
        if self.tokens_per_batch == "auto":
            raise DataError(
                "data.tokens_per_batch is auto, which `seqlab fit` makes a number of: give one "
                "yourself in a trainer of your own, such as 4096."
            )
        return self.tokens_per_batch

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch; it was made on the CPU, where nothing is to be done."""
        if device.type == "cpu":
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the training split, in a new order each epoch."""
        return self._stream_loader() if self.streaming else self._loader("train", train=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the validation split, from long to short."""
        return self._loader("validation", train=False)

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test split, from long to short."""
        return self._loader("test", train=False)


def token_counts(columns: list[Any]) -> dict[str, int]:
    """Count the strings of Arrow list columns without making a Python object of every token.

    Args:
        columns: pyarrow chunked arrays of ``list<string>``.
    """
    import pyarrow.compute as pc

    counts: dict[str, int] = {}
    for column in columns:
        for chunk in column.chunks:
            for entry in pc.value_counts(chunk.flatten()).to_pylist():
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts


def flat_ids(column: Any, encode: Any) -> tuple[NDArray[np.int32], Ints]:
    """Encode an Arrow list column through its distinct strings.

    Args:
        column: a pyarrow chunked array of ``list<string>``.
        encode: maps a list of distinct strings to a sequence of ids.

    Returns:
        ``(token,)`` int32 ids and ``(row + 1,)`` int64 offsets.
    """
    parts: list[NDArray[np.int32]] = []
    sizes: list[Ints] = []
    for chunk in column.chunks:
        entries = chunk.flatten().dictionary_encode()
        ids = np.asarray(encode(entries.dictionary.to_pylist()), np.int32)
        parts.append(ids[entries.indices.to_numpy(zero_copy_only=False)])
        sizes.append(np.diff(chunk.offsets.to_numpy()).astype(np.int64))
    if not parts:
        return np.zeros(0, np.int32), np.zeros(1, np.int64)
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(np.concatenate(sizes))])


def vocabularies_of(folder: str | Path) -> dict[str, Vocabulary]:
    """Read the vocabularies of a bundle, so that data is encoded as its model expects.

    Args:
        folder: a bundle.

    Returns:
        ``source`` and ``target``.

    Raises:
        DataError: the folder holds no vocabularies, or those of a model that translates.
    """
    found: dict[str, Vocabulary] = {}
    for side, vocabulary in _read_vocabularies(folder):
        if not isinstance(vocabulary, Vocabulary):
            raise DataError(
                f"the model in {folder} translates: give it pairs of sentences as "
                "seqlab.TranslationData."
            )
        found[side] = vocabulary
    return found


def subword_vocabularies_of(folder: str | Path) -> dict[str, SubwordVocabulary]:
    """Read the vocabularies of a bundle that translates; see `vocabularies_of`.

    Raises:
        DataError: the folder holds no vocabularies, or those of a model that tags or labels.
    """
    found: dict[str, SubwordVocabulary] = {}
    for side, vocabulary in _read_vocabularies(folder):
        if not isinstance(vocabulary, SubwordVocabulary):
            raise DataError(
                f"the model in {folder} does not translate: give it its corpus as "
                "seqlab.TaggingData or seqlab.ClassificationData."
            )
        found[side] = vocabulary
    return found


def _read_vocabularies(
    folder: str | Path,
) -> Iterator[tuple[str, Vocabulary | SubwordVocabulary]]:
    for side in ("source", "target"):
        try:
            text = (Path(folder) / f"{side}_vocab.json").read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise DataError(
                f"{folder} is no bundle: it lacks {Path(str(error.filename)).name}; "
                "give the folder `bundle` of a run."
            ) from error
        yield side, vocabulary_from_json(text)

"""Training splits that are read as a stream: rows pass by, and a pool of them is held at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from seqlab.data.cache import announced, write_rows
from seqlab.data.finding import find_file, find_splits
from seqlab.data.joining import FILE
from seqlab.data.rows import Dirt, TableRow
from seqlab.data.sampling import BatchedSplit, Ints, ResumableSampler, cut
from seqlab.data.sources import Reader, hub_rows, in_memory
from seqlab.errors import DataError

POOL = 200  # batches' worth of rows
Read = Callable[[Dirt], Iterator[TableRow]]


class Streamed(NamedTuple):
    """A row, and the number of the file that it is from."""

    row: TableRow
    file: int


@dataclass(frozen=True)
class Stream:
    """The rows of a training split, from the first to the last each time they are asked for.

    Args:
        reads: read the files of the split, one after the other.
        name: what it is called.
        noun: what a row is called.
        note: says what was skipped, once all was read.
    """

    reads: Sequence[Read]
    name: str
    noun: str
    note: Callable[[str], None]

    def __call__(self) -> Iterator[Streamed]:
        """Read all rows.

        Raises:
            DataError: what the reader raises, and where there is no row.
        """
        dirt, empty = Dirt(), True
        for number, read in enumerate(self.reads):
            for row in read(dirt):
                empty = False
                yield Streamed(row, number)
        if empty:
            raise DataError(f"{self.name} holds no {self.noun}: there is nothing to train on.")
        for sentence in dirt.sentences():
            self.note(sentence)

    def sample(self, size: int) -> Any:
        """Hold the first rows in memory, as a split that vocabularies are built from."""
        rows = announced(islice(self(), size), f"reading {self.name}", f"{self.noun}s")
        return held(list(rows))


def open_stream(
    path: str | None,
    files: Sequence[str],
    reader: Reader,
    note: Callable[[str], None],
) -> Stream | None:
    """Find the training split of a corpus without reading it.

    Args:
        path: as in `seqlab.data.sources.load_tables`.
        files: the files of the split in place of the one in the folder, in order.
        reader: how they are read.
        note: as in `Stream`.

    Returns:
        The stream; None where the corpus has no training split.

    Raises:
        DataError: there is no such corpus, or a data set of the hub cannot be loaded.
    """
    found = hub_rows(path, reader) if path and not files else None
    if found is not None:
        return Stream([found], str(path), reader.noun, note)
    first = find_splits(path, next(iter(files), None), folders=reader.folders).get("train")
    if first is None:
        return None
    others = [find_file(name, "train", path) for name in files[1:]]
    reads = [partial(reader.rows, file) for file in (first, *others)]
    return Stream(reads, ", ".join(map(str, (first, *others))), reader.noun, note)


@contextmanager
def sampled(splits: dict[str, Any], stream: Stream, size: int) -> Iterator[None]:
    """Have the first rows of a stream stand for its training split, for a while.

    Args:
        splits: gets them as ``train``, until the block ends.
        stream: the rows.
        size: how many of them.
    """
    splits["train"] = sample = stream.sample(size)
    which = "all" if len(sample) < size else "the first"
    stream.note(
        f"vocabularies and labels are made from {which} {len(sample):,} {stream.noun}s of the "
        "stream (data.streaming_sample)."
    )
    try:
        yield
    finally:
        del splits["train"]


def check_validation(splits: Mapping[str, Any], corpus: str) -> None:
    """Refuse a stream without a validation split.

    Raises:
        DataError: there is none.
    """
    if "validation" not in splits:
        raise DataError(
            f"{corpus} has no validation split, and of a stream none is held out: give "
            "data.validation a file."
        )


def held(rows: Sequence[Streamed]) -> Any:
    """Hold rows in memory as a split, in the columns that the cache would have.

    Args:
        rows: at least one.

    Returns:
        a ``datasets.Dataset``, with the column `FILE`.

    Raises:
        DataError: a row lacks a column that the first has, or has another.
    """
    import pyarrow as pa

    _check_alike(rows)
    sink = BytesIO()
    write_rows((row for row, _ in rows), sink)
    with pa.ipc.open_stream(sink.getbuffer()) as reader:
        table = reader.read_all()
    numbers = np.array([number for _, number in rows], np.int32)
    return in_memory(table.append_column(FILE, pa.array(numbers)))


def _check_alike(rows: Sequence[Streamed]) -> None:
    names: dict[int, set[str]] = {}
    for row, number in rows:
        if number not in names:
            names[number] = set(row.columns())
    first, *others = (", ".join(sorted(found - {"lines"})) for found in names.values())
    for other in others:
        if other != first:
            raise DataError(
                f"data.train: files with the columns {other}, and before them {first}: join files "
                "that have the same."
            )


class Piece(NamedTuple):
    """A batch before it is put together: sequences of a pool, seen before in the epoch or not."""

    pool: BatchedSplit
    numbers: Ints
    repeated: bool = False


class PieceDataset(Dataset[Any]):
    """Puts batches together: its index is a :class:`Piece`."""

    def __getitem__(self, piece: Piece) -> Any:
        batch = piece.pool[piece.numbers]
        batch.repeated = piece.repeated
        return batch


class _Start(NamedTuple):
    """Where a pool begins: its number, the batches and the rows before it."""

    pool: int = 0
    first: int = 0
    rows: int = 0


class StreamSampler(ResumableSampler):
    """Batches of sequences of similar length from rows that pass by.

    A pool of rows is encoded, sorted by length and cut into batches, whose order is drawn; it is
    fixed by the seed, the epoch and the number of the pool. Every process reads all rows, and the
    processes deal the batches out in turn as those of a :class:`BucketSampler`: a step of `n`
    processes has the batches of `n` steps of one. Where the last step lacks batches for some, they
    have one again that does not count.

    An epoch may begin in its middle: the rows of pools that are done are read, not encoded.

    Args:
        rows: gives the rows, from the first to the last.
        encode: makes a split of some of them.
        batch_size: most sequences in a batch.
        tokens_per_batch: most tokens in a batch, padding counted in; a longer sequence goes alone.
        seed: of the order.
        pool: how many batches' worth of rows are a pool.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        rows: Callable[[], Iterable[Streamed]],
        encode: Callable[[Sequence[Streamed]], BatchedSplit],
        batch_size: int,
        tokens_per_batch: int,
        *,
        seed: int = 0,
        pool: int = POOL,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(rank, world_size)
        self.rows = rows
        self.encode = encode
        self.batch_size = batch_size
        self.tokens_per_batch = tokens_per_batch
        self.seed = seed
        self.pool = pool
        self._start = _Start()
        self._starts: list[_Start] = []  # of the pools that may not be done yet

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn; the trainer calls it."""
        if epoch != self.epoch:
            self._start = _Start()
        super().set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Say how far the epoch is, and where the pool begins that it is in."""
        done, own = self._done()
        start = self._start
        for other in self._starts:
            start = other if other.first <= done else start
        return {"epoch": self.epoch, "batches": done, "of": 0, "own": own, **start._asdict()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin the current epoch where :meth:`state_dict` was asked, if it was that epoch."""
        if state["epoch"] == self.epoch:
            self._before, self._own_before = state["batches"], state["own"]
            self._start = _Start(*(state.get(name, 0) for name in _Start._fields))

    def __iter__(self) -> Iterator[Piece]:
        step: list[Piece] = []
        whole = bool(self._before)  # whether every process has had a batch
        for piece in self._pieces():
            step.append(piece)
            if len(step) == self.world_size:
                yield step[self.rank]
                step, whole = [], True
        if step and not whole:
            raise DataError(
                f"{self.world_size} processes cannot share the {len(step)} batches of the stream "
                f"out: use --trainer.devices {len(step)}, or fewer."
            )
        if step:
            mine = step[self.rank] if self.rank < len(step) else step[0]._replace(repeated=True)
            yield mine

    def _pieces(self) -> Iterator[Piece]:
        """Give the batches of all processes, in order, but for those that are done."""
        start, rows = self._start, iter(self.rows())
        skipped = sum(1 for _ in islice(rows, start.rows))
        start, self._starts = start._replace(rows=skipped), []
        for row in rows:
            chunk = [row, *islice(rows, self.pool * self.batch_size - 1)]
            split, size = self.encode(chunk), len(chunk)
            del chunk
            self._starts = [*self._starts[-2:], start]
            batches = self._cut(split, start.pool)
            for batch in batches[max(0, self._before - start.first) :]:
                yield Piece(split, batch)
            start = _Start(start.pool + 1, start.first + len(batches), start.rows + size)

    def _cut(self, split: BatchedSplit, pool: int) -> list[Ints]:
        lengths, key = split.encoded.lengths, split.encoded.sort_key
        random = np.random.default_rng([self.seed, self.epoch, pool])
        order = random.permutation(len(lengths))
        order = order[np.argsort(key[order], kind="stable")]
        batches = cut(lengths, order, self.batch_size, self.tokens_per_batch)
        return [batches[i] for i in random.permutation(len(batches))]

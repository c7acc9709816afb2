"""What a worker does: it loads the model once, and answers shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqlab.bulk.inputs import Shard, digest_of
from seqlab.bulk.rows import ID, Item, Reading
from seqlab.bulk.writing import shard_file
from seqlab.errors import BundleError, DataError, SeqlabError
from seqlab.search_arguments import SearchArguments

if TYPE_CHECKING:
    from seqlab.nn.precision import Precision

_BLOCK = 2_000  # rows that are read, answered and written together
_SHAPES = 512  # of products that are kept, as in predict
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Setup:
    """What a worker has to know; it travels to other processes and machines.

    Args:
        model: the folder of the bundle.
        digest: of its configuration and weights, see :func:`model_digest`.
        output: the folder of the answers.
        form: ``jsonl`` or ``parquet``.
        reading: how rows are read.
        device: where the model runs.
        trust: whether it may name classes of other packages.
        threads: that torch computes with.
        confidence: whether probabilities are wanted.
        precision: ``exact`` or ``fast``.
        min_confidence: below which answers are withheld.
        search: what is asked of a translator.
        ensemble: the folders of the models that translate with it.
    """

    model: str
    digest: str
    output: str
    form: str
    reading: Reading
    device: str = "auto"
    trust: bool = False
    threads: int = 1
    confidence: bool = True
    precision: Precision = "exact"
    min_confidence: float = 0.0
    search: SearchArguments = field(default_factory=SearchArguments)
    ensemble: tuple[str, ...] = ()

    def on_device(self, worker: int) -> Setup:
        """Let workers take turns at the GPUs of a machine."""
        import torch

        gpus = torch.cuda.device_count() if self.device in ("auto", "cuda") else 0
        return replace(self, device=f"cuda:{worker % gpus}") if gpus > 1 else self


class Done(NamedTuple):
    """A shard that is written: its rows, those set aside, and the first of them with its reason."""

    rows: int
    bad: int = 0
    first: tuple[int, str] | None = None


class Unwritable(SeqlabError):
    """The answers cannot be written, which is no fault of the shard."""


def model_digest(*folders: str | Path) -> str:
    """Return the SHA-256 of the configuration and the weights of bundles."""
    names = ("config.json", "model.safetensors")
    return digest_of(*(Path(folder) / name for folder in folders for name in names))


class Answerer:
    """A model that answers shards.

    Args:
        setup: which, and how.

    Raises:
        SeqlabError: it cannot be loaded, or is not the one that the job began with.
    """

    def __init__(self, setup: Setup) -> None:
        from seqlab.nn.kernels.allocator import keep_memory, keep_products

        keep_memory()
        keep_products(_SHAPES)
        import torch

        from seqlab.bundle import find_bundle
        from seqlab.zoo import load

        torch.set_num_threads(setup.threads)
        folders = [find_bundle(folder) for folder in (setup.model, *setup.ensemble)]
        if model_digest(*folders) != setup.digest:
            raise BundleError(
                f"{setup.model} is not the model that the job began with: it was changed since. "
                "Name another output folder to begin anew."
            )
        self._setup = setup
        models = [load(folder, device=setup.device, trust=setup.trust) for folder in folders]
        self._pipeline: Any = prepared(models, setup)

    def answer(self, shard: Shard, tell: Tell) -> Done:
        """Answer a shard and write the answers, all of them or none.

        Args:
            shard: which.
            tell: is called with the number of rows that were answered since the last call.

        Raises:
            DataError: its file cannot be read.
            Unwritable: the answers cannot be written.
        """
        setup, bad, first = self._setup, 0, None
        path = Path(setup.output) / shard.output
        items = _guarded(setup.reading.items(shard))
        try:
            with shard_file(path, setup.form, setup.reading.kind) as writer:
                while block := list(islice(items, _BLOCK)):
                    rows = self.rows(block)
                    writer.write(rows)
                    wrong = [row for row in rows if "error" in row]
                    bad += len(wrong)
                    first = first or next(((row["row"], row["error"]) for row in wrong), None)
                    tell(len(rows))
                if not shard.file.is_there():
                    raise DataError(
                        f"{shard.file.path} was changed while it was read: give the command again."
                    )
        except OSError as error:
            raise Unwritable(
                f"cannot write {path}: {error.strerror or error}; make room, and give the command "
                "again."
            ) from error
        return Done(shard.rows, bad, first)

    def rows(self, block: list[Item]) -> list[dict[str, Any]]:
        """Answer some rows, and set those aside that cannot be answered.

        Args:
            block: consecutive rows.

        Returns:
            what is written of each.
        """
        inputs = [item.input for item in block]
        try:
            answers: list[Any] = list(self._stream(inputs, block[0].row))
        except (SeqlabError, TypeError):  # of some row: find out which
            answers = [self._alone(item) for item in block]
        return [_output(item, found) for item, found in zip(block, answers, strict=True)]

    def _alone(self, item: Item) -> Any:
        try:
            return next(iter(self._stream([item.input], item.row)))
        except (SeqlabError, TypeError) as error:
            return error

    def _stream(self, inputs: list[Any], first: int) -> Iterator[Any]:
        if self._setup.reading.kind == "translator":
            found: Iterator[Any] = self._pipeline.stream(inputs, self._setup.search.wishes(), first)
            return found
        return iter(self._pipeline.stream(inputs))


def prepared(pipelines: list[Any], setup: Setup) -> Any:
    """Set a pipeline up as the command line asks.

    Args:
        pipelines: of the model, and of those that translate together with it.
        setup: how.

    Raises:
        SeqlabError: the models do not go together, or the search is a contradiction.
    """
    first = pipelines[0]
    if setup.reading.kind == "translator":
        from seqlab.translation_pipeline import TranslationPipeline

        if len(pipelines) > 1:
            models = [one.model for one in pipelines]
            first = TranslationPipeline(models, device=str(first.device))
        first.options = setup.search.options(first.options)
        first.alignments = setup.search.alignments
        first.replace_unknown = setup.search.replace_unknown
    else:
        first.confidence = setup.confidence
        first.min_confidence = setup.min_confidence
    first.precision = setup.precision
    return first


def _output(item: Item, found: Any) -> dict[str, Any]:
    """Lay out what is written of a row."""
    row: dict[str, Any] = {"row": item.row}
    if item.key is not None:
        row[ID] = item.key
    error = item.error or (str(found) if isinstance(found, Exception) else None)
    return {**row, "error": error} if error is not None else {**row, **found.to_dict()}


def _guarded(items: Iterator[Item]) -> Iterator[Item]:
    """Tell what cannot be read from what cannot be written."""
    try:
        yield from items
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}.") from error

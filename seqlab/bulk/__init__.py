"""``seqlab predict`` on many files: shards for several workers, every row answered exactly once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqlab.bulk.answering import Setup, model_digest, prepared
from seqlab.bulk.engines import Crew, Event, LocalCrew, work
from seqlab.bulk.inputs import Shard, found
from seqlab.bulk.job import Job
from seqlab.bulk.rows import Reading
from seqlab.errors import SeqlabError, UsageError
from seqlab.predict_options import Load, Options
from seqlab.progress import RowProgress

if TYPE_CHECKING:
    from seqlab.pipeline import Pipeline


def run(options: Options, load: Load) -> int:
    """Answer all rows of the input, or those that an earlier command has left.

    Args:
        options: the command line.
        load: makes a pipeline of a model's name.

    Returns:
        the exit code: 0, or 1 where a file or a shard could not be read.

    Raises:
        UsageError: the options do not fit the model, each other, or the output folder.
        SeqlabError: there is no input, the model cannot be loaded, or the output not be written.
    """
    assert options.input is not None
    assert options.output is not None
    if options.engine == "ray":
        from seqlab.bulk.ray_engine import the_ray

        the_ray()  # what is not installed is said at once
    paths = found(options.input)
    folder = Path(options.output)
    if any(Path(path).parent == Path(os.path.abspath(folder)) for path in paths):
        raise UsageError(f"--input and --output are the same folder, {folder}: choose another.")
    setup, name = _setup(options, load, os.path.abspath(folder))
    job = Job.open(folder, _identity(options, setup, name))
    with job.alone():
        shards, wrong = job.take_in(paths, setup.reading, setup.form, _say)
        for reason in wrong:
            _say(f"set aside: {reason}")
        left = [shard for shard in shards if not job.is_done(shard)]
        tally = _Tally(shards, len(shards) - len(left))
        if left:
            with _crew(options, setup, len(left)) as (crew, workers):
                _answer(crew, left, workers, tally)
    tally.tell()
    return 1 if wrong or tally.failed else 0


def _answer(crew: Crew, shards: Sequence[Shard], workers: int, tally: _Tally) -> None:
    progress = RowProgress(sum(shard.rows for shard in shards), sys.stderr.isatty())
    try:
        for event in work(crew, shards, workers):
            tally.note(event)
            progress.add(event.rows)
    except KeyboardInterrupt as error:
        raise SeqlabError(
            f"stopped by Ctrl-C: {tally.done + tally.skipped:,} of {len(tally.shards):,} shards "
            "are done; the same command does the rest."
        ) from error
    finally:
        progress.end()


@dataclass
class _Tally:
    """What is said at the end."""

    shards: Sequence[Shard]
    skipped: int
    done: int = 0
    rows: int = 0
    bad: int = 0
    first: str = ""
    failed: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def note(self, event: Event) -> None:
        """Take in what happened."""
        shard, done = event.shard, event.done
        if event.reason is not None:
            first, last = shard.cut.start, shard.cut.stop - 1
            where = f"{shard.file.path}, rows {first:,} to {last:,}"
            self.failed.append(f"set aside: {where}: {event.reason}")
        if done is not None:
            self.done += 1
            self.rows += done.rows
            self.bad += done.bad
            if done.first is not None and not self.first:
                self.first = f"the first is row {done.first[0]:,} of {shard.file.path}: "
                self.first += done.first[1]

    def tell(self) -> None:
        """Say it."""
        for reason in self.failed:
            _say(reason)
        seconds = time.monotonic() - self.started
        rate = f" ({self.rows / seconds:,.0f} rows/s)" if self.rows else ""
        skipped = f"; {_count(self.skipped, 'shard')} done before" if self.skipped else ""
        _say(
            f"{_count(self.rows, 'row')} in {seconds:,.1f} s{rate}, {self.bad:,} of them bad"
            f"{skipped}."
        )
        if self.first:
            _say(self.first)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _say(sentence: str) -> None:
    print(f"seqlab: {sentence}", file=sys.stderr, flush=True)


def _setup(options: Options, load: Load, output: str) -> tuple[Setup, str]:
    """Load the model once here, so that what does not fit it is said before anything begins."""
    from seqlab.zoo import model_folder

    search = options.search
    names = (options.model, *search.ensemble)
    pipelines: list[Any] = [load(name, device="cpu") for name in names]
    folders = [str(model_folder(name).resolve()) for name in names]
    kind = _kind(pipelines[0])
    _check(options, kind, pipelines)
    if options.engine != "ray":
        from seqlab.pipeline import device_named

        device_named(options.device)
    setup = Setup(
        model=folders[0],
        digest=model_digest(*folders),
        output=output,
        form=options.form,
        reading=Reading(kind, options.columns, options.lines, _language(pipelines[0], kind)),
        device=options.device,
        trust=options.trust,
        confidence=options.confidence,
        precision=options.precision,
        min_confidence=_least(options, pipelines[0]),
        search=search,
        ensemble=tuple(folders[1:]),
    )
    prepared(pipelines, setup)  # what does not go together is said
    return setup, options.model


def _kind(pipeline: Any) -> str:
    from seqlab.networks.classifier import ClassifierNetwork
    from seqlab.translation_pipeline import TranslationPipeline

    if isinstance(pipeline, TranslationPipeline):
        return "translator"
    return "classifier" if isinstance(pipeline.model, ClassifierNetwork) else "tagger"


def _language(pipeline: Any, kind: str) -> str | None:
    language: str | None = pipeline.model.source_vocab.language if kind == "translator" else None
    return language


def _check(options: Options, kind: str, pipelines: Sequence[Any]) -> None:
    """Refuse options that are for models of another kind."""
    if kind == "translator":
        from seqlab.predict_translations import check_options

        check_options(replace(options, form="jsonl"))
        search = options.search
        pipelines[0].check_languages(search.source_language, search.target_language)
        search.wishes()
        for name, other in zip(search.ensemble, pipelines[1:], strict=True):
            if _kind(other) != kind:
                raise UsageError(
                    f"--ensemble {name}: that is no translator, as {options.model} is."
                )
        return
    if flags := options.search.flags:
        raise UsageError(
            f"{flags[0]} is for translators, and {options.model} is a {kind}: leave it out."
        )
    needed = pipelines[0].model.source_vocab.features
    known = {"tokens", *needed} if kind == "tagger" else {"text"}
    for column in options.columns:
        if column not in known:
            raise UsageError(
                f"--columns {column}: {options.model} is a {kind}, which reads "
                f"{' and '.join(sorted(known))}: leave it out."
            )
    lacking = [name for name in needed if name not in options.columns]
    if lacking:
        flags = [f"--columns {name}=KEY" for name in lacking]
        raise UsageError(
            f"{options.model} needs the column {' and '.join(lacking)} beside the words: say which "
            f"it is, as in `{' '.join(flags)}`."
        )


def _least(options: Options, pipeline: Pipeline[Any]) -> float:
    if options.target_precision is not None:
        return pipeline.at_precision(options.target_precision).confidence
    return options.min_confidence or 0.0


def _identity(options: Options, setup: Setup, name: str) -> dict[str, Any]:
    """Say what all answers in a folder have in common."""
    search = asdict(options.search)
    del search["ensemble"]  # is in the digest
    return {
        "model": {"name": name, "sha256": setup.digest},
        "options": {
            "format": setup.form,
            "columns": dict(options.columns),
            "lines": options.lines,
            "confidence": setup.confidence,
            "precision": setup.precision,
            "min_confidence": setup.min_confidence,
            **{key: value for key, value in search.items() if value},
        },
    }


@contextmanager
def _crew(options: Options, setup: Setup, shards: int) -> Iterator[tuple[Crew, int]]:
    """Make the workers' crew, and say how many they are."""
    cores = cores_here()
    if options.engine == "ray":
        from seqlab.bulk.ray_engine import Cluster, RayCrew

        cluster = Cluster(max(cores, options.workers or 1))
        workers = min(options.workers or cluster.cpus, shards)
        setup = replace(setup, threads=max(1, cluster.cpus // workers))
        crew: Crew = RayCrew(cluster, setup, workers)
        try:
            yield crew, workers
        finally:
            crew.stop()
            cluster.close()
        return
    workers = min(options.workers or _default_workers(options.device, cores), shards)
    crew = LocalCrew(replace(setup, threads=max(1, cores // workers)))
    try:
        yield crew, workers
    finally:
        crew.stop()


def cores_here() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _default_workers(device: str, cores: int) -> int:
    """A worker a core, or a GPU where there are any."""
    import torch

    gpus = torch.cuda.device_count() if device != "cpu" else 0
    return gpus or cores

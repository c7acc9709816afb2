"""Whether translations depend on what else is in their batch, shown on anybody's own texts."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from seqlab.errors import DataError, UsageError
from seqlab.nn.search import SearchOptions
from seqlab.translated import Candidate
from seqlab.translation_pipeline import Input, Job, TranslationPipeline, Wishes

TOLERANCE = 1e-4
_SIZES = (7, 64)
_LARGE = 64  # texts of a batch that is shuffled or padded
_SEED = 1
Found = list[list[Candidate]]  # of each text its translations


@dataclass
class Way:
    """How texts were put into batches, and what it changed beside one text at a time.

    Args:
        name: of the way.
        largest: difference of two scores of the same rank.
        changed: numbers of the texts, from 1, whose translations are others.
    """

    name: str
    largest: float = 0.0
    changed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class InvarianceReport:
    """What :func:`check_invariance` has found; printed, a line a way and a verdict.

    Args:
        texts: how many were translated.
        hypotheses: how many translations of them were compared in each way.
        tolerance: what scores may differ by.
        ways: what was compared with one text at a time.
    """

    texts: int
    hypotheses: int
    tolerance: float
    ways: list[Way]

    @property
    def holds(self) -> bool:
        """Whether no way changed anything."""
        return self.largest <= self.tolerance and not any(way.changed for way in self.ways)

    @property
    def largest(self) -> float:
        """The largest difference of two scores."""
        return max(way.largest for way in self.ways)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON data."""
        return {"holds": self.holds, "largest": self.largest, **asdict(self)}

    def __str__(self) -> str:
        width = max(len(way.name) for way in self.ways)
        lines = [
            f"{self.texts:,} texts with {self.hypotheses:,} translations; beside one at a time",
            *(f"  {way.name:{width}}  {_said_of(way)}" for way in self.ways),
            f"Batches change nothing: all scores agree within {self.tolerance:g}."
            if self.holds
            else f"Batches change results: the same scores within {self.tolerance:g}, and the same "
            "translations, were expected.",
        ]
        return "\n".join(lines)


def _said_of(way: Way) -> str:
    found = "the same translations"
    if way.changed:
        found = f"{len(way.changed):,} texts changed, the first is text {way.changed[0]:,}"
    return f"scores differ by {way.largest:.1e} at most, {found}"


def check_invariance(
    pipeline: TranslationPipeline,
    inputs: Sequence[Input],
    wishes: Wishes | None = None,
    tolerance: float = TOLERANCE,
) -> InvarianceReport:
    """Translate texts one at a time, in batches of 7 and 64, shuffled, and padded.

    Scores of the same rank have to agree within the tolerance. Where a score is further than that
    from those of its neighbours in the list, the translation has to be the same; closer ones may
    change places. The last translation of a full beam has a neighbour that nobody knows: there the
    scores alone are compared.

    Args:
        pipeline: what is checked, with its options; exact, and searching, not sampling.
        inputs: texts, or pairs of a text and its wishes; blank ones are left out.
        wishes: of all of them.
        tolerance: what scores may differ by.

    Raises:
        UsageError: the pipeline rounds, or draws samples.
        DataError: there is nothing but blank texts.
    """
    _check_comparable(pipeline)
    jobs = [job for job in pipeline.jobs(inputs, wishes) if job.ids]
    if not jobs:
        raise DataError("there is no text whose translations could be compared: give some.")
    asked = pipeline.options.n_best
    # One more tells whether the last one that counts has a close neighbour.
    more = min(asked + 1, pipeline.options.beam)
    options = replace(pipeline.options, n_best=more, keep_attention=False)
    alone: Found = [found for job in jobs for found in _translated(pipeline, [job], options)]
    ways = []
    for name, batches in _batches(pipeline, jobs):
        way = Way(name)
        for rows, batch in batches:
            outputs = _translated(pipeline, batch, options)
            for row, output in zip(rows, outputs, strict=False):  # fillers come last
                _compare(way, jobs[row].number + 1, alone[row], output, asked, more, tolerance)
        way.changed.sort()
        ways.append(way)
    return InvarianceReport(
        len(jobs), sum(min(asked, len(found)) for found in alone), tolerance, ways
    )


def _check_comparable(pipeline: TranslationPipeline) -> None:
    if pipeline.precision != "exact":
        raise UsageError(
            "what is rounded to bfloat16 depends a little on the batch: set precision to exact."
        )
    if pipeline.options.method != "beam" or not pipeline.options.scores:
        raise UsageError("only a beam search with scores can be compared: set method to beam.")


def _translated(
    pipeline: TranslationPipeline, jobs: Sequence[Job], options: SearchOptions
) -> Found:
    return [found.hypotheses for found in pipeline.translate(jobs, options)]


def _batches(
    pipeline: TranslationPipeline, jobs: Sequence[Job]
) -> Iterator[tuple[str, Iterator[tuple[list[int], list[Job]]]]]:
    """Give each way by its name, and its batches: the rows of the texts, and what is translated."""
    order = list(range(len(jobs)))
    for size in _SIZES:
        yield f"{size} at a time", _cut(jobs, order, size)
    mixed = random.Random(_SEED).sample(order, len(order))
    yield f"{_LARGE} at a time, shuffled", _cut(jobs, mixed, _LARGE)
    padded = ((rows, [*some, _filler(pipeline, some)]) for rows, some in _cut(jobs, order, _LARGE))
    yield f"{_LARGE} at a time, padded", padded


def _cut(
    jobs: Sequence[Job], order: Sequence[int], size: int
) -> Iterator[tuple[list[int], list[Job]]]:
    for start in range(0, len(order), size):
        rows = list(order[start : start + size])
        yield rows, [jobs[row] for row in rows]


def _filler(pipeline: TranslationPipeline, jobs: Sequence[Job]) -> Job:
    """Make a text twice as long as the longest of some, to which they are padded then."""
    longest = max(jobs, key=lambda job: len(job.ids))
    [filler] = pipeline.jobs([f"{longest.text} {longest.text}"])
    return filler


def _compare(
    way: Way,
    number: int,
    alone: Sequence[Candidate],
    output: Sequence[Candidate],
    asked: int,
    more: int,
    tolerance: float,
) -> None:
    """Compare the translations of one text, and note what is different."""
    if len(alone) != len(output):
        way.changed.append(number)
        return
    pairs = list(zip(alone, output, strict=True))[:asked]
    differences = [abs(one.score - other.score) for one, other in pairs]
    way.largest = max([way.largest, *(math.inf if math.isnan(x) else x for x in differences)])
    close = [one.score - other.score <= tolerance for one, other in pairwise(alone)]
    unknown = len(alone) == more  # there may be one below the last
    close = [False, *close, unknown]
    for rank, (one, other) in enumerate(pairs):
        if one.ids != other.ids and not (close[rank] or close[rank + 1]):
            way.changed.append(number)
            return

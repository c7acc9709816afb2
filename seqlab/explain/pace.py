"""How fast a pipeline reads on this machine now, and what energy that takes."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from seqlab.explain.energy import Meter, Unreadable, meter_of
from seqlab.pipeline import Pipeline
from seqlab.sentence import Sentence
from seqlab.vocabulary import Vocabulary

_LEAST_RUNS = 3
_SEED = 1


@dataclass(frozen=True)
class Pace:
    """How fast sentences were read.

    Args:
        sentences: how many at a time.
        tokens_per_second: the median of all runs.
        runs: how many.
        joules: for 1,000 tokens, of all runs together; None where no counter could be read.
    """

    sentences: int
    tokens_per_second: float
    runs: int
    joules: float | None


def sentences_of(vocab: Vocabulary, tokens: int, count: int) -> list[Sentence]:
    """Draw sentences from a vocabulary, which is sorted by how often its words occur.

    The word of rank r is drawn with a weight of 1/r (Zipf, 1949), so that words repeat about as
    they do in texts. The same sentences are drawn every time.

    Args:
        vocab: of the words and their columns.
        tokens: words in a sentence.
        count: how many sentences.

    Example:
        >>> sentences_of(Vocabulary(["the"]), 2, 1)[0].tokens
        ['the', 'the']
    """
    chance = random.Random(_SEED)

    def drawn(known: Sequence[str]) -> list[str]:
        words = list(known) or ["word"]
        weights = [1 / rank for rank in range(1, len(words) + 1)]
        return chance.choices(words, weights, k=tokens * count)

    words = drawn(vocab.tokens)
    columns = {name: drawn(column.tokens) for name, column in vocab.features.items()}
    cuts = [slice(first, first + tokens) for first in range(0, tokens * count, tokens)]
    return [
        Sentence(words[cut], {name: values[cut] for name, values in columns.items()})
        for cut in cuts
    ]


def pace_of(
    pipeline: Pipeline[Any],
    sentences: Sequence[Sentence],
    at_once: int,
    meter: Meter | None,
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """Read sentences again and again, for some seconds, and take the median.

    Args:
        pipeline: reads them.
        sentences: what is read, all with as many words.
        at_once: how many are given to the pipeline at a time.
        meter: counts the energy; None for no counter.
        budget: seconds to spend; three runs are made in any case.
        clock: tells the time in seconds.
    """
    groups = [sentences[i : i + at_once] for i in range(0, len(sentences), at_once)]
    pipeline.tag(groups[0])  # kernels are chosen and memory is claimed at the first run
    following = itertools.cycle(groups)
    seconds, used = timed(lambda: pipeline.tag(next(following)), meter, budget, clock)
    of_run = at_once * len(sentences[0].tokens)
    joules = None if used is None else 1000 * used / (of_run * len(seconds))
    return Pace(at_once, of_run / statistics.median(seconds), len(seconds), joules)


def timed(
    run: Callable[[], object],
    meter: Meter | None,
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], float | None]:
    """Do something again and again, for some seconds.

    Args:
        run: does it once.
        meter: counts the energy; None for no counter.
        budget: seconds to spend; three runs are made in any case.
        clock: tells the time in seconds.

    Returns:
        the seconds of each run, and the joules of all together; None without a counter.
    """
    seconds: list[float] = []
    before = meter.joules() if meter else 0.0
    used = 0.0
    while len(seconds) < _LEAST_RUNS or sum(seconds) < budget:
        start = clock()
        run()
        seconds.append(clock() - start)
        if meter:
            used = meter.joules() - before
    return seconds, used if meter else None


def counter_of(pipeline: Pipeline[Any]) -> tuple[Meter | None, str]:
    """Find the energy counter of a pipeline's device.

    Returns:
        the counter and what it counts, or None and the reason why there is none.
    """
    try:
        meter = meter_of(pipeline.device.type, pipeline.device.index or 0)
    except Unreadable as error:
        return None, str(error)
    return meter, meter.source

"""What a system costs: its size, its training, and how fast it answers on this machine."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from seqlab.compare.systems import System

_AT_ONCE = (1, 32)  # sentences, for the two speeds
_SECONDS = 2.0  # for each speed
_WORDS = 25  # of a sentence whose reading is timed
_T = TypeVar("_T")


@dataclass
class Price:
    """What a system costs.

    Args:
        parameters: how many it has.
        bundle_mb: megabytes of its bundle.
        training_seconds: median over the runs.
        peak_memory_mb: of its training, the median; None where it is not known.
        tokens_per_second: by sentences at a time; empty where nothing was measured.
        joules_per_1000_tokens: likewise; without what no counter gives.
        hardware: of the training.
        unit: what is counted as a token.
        sentences_per_second: likewise, of what writes sentences of its own.
    """

    parameters: int
    bundle_mb: float
    training_seconds: float
    peak_memory_mb: float | None
    tokens_per_second: dict[int, float] = field(default_factory=dict)
    joules_per_1000_tokens: dict[int, float] = field(default_factory=dict)
    hardware: str = ""
    unit: str = "tokens"
    sentences_per_second: dict[int, float] = field(default_factory=dict)

    @property
    def speed(self) -> float | None:
        """What systems are ranked by; None where nothing was measured.

        Those that write sentences of their own are ranked by sentences a second, as one that writes
        too much is not the faster for it, all others by tokens a second.
        """
        speeds = self.sentences_per_second or self.tokens_per_second
        return speeds[max(speeds)] if speeds else None


def price_of(system: System, model: Any, sentences: Sequence[str] | None) -> Price:
    """Look up what a system costs, and measure how fast it is on a CPU.

    Taggers and classifiers read sentences of 25 words that are drawn from their vocabulary,
    translators translate 32 sentences of the test split as they were told to search.

    Args:
        system: whose runs have said what their training took.
        model: of its first run.
        sentences: of the test split; None measures no speed.
    """
    from seqlab.networks.translator import TranslatorNetwork

    every = [one.metrics for one in system.runs]
    peaks = [m["peak_memory_mb"] for m in every if m.get("peak_memory_mb")]
    folder = system.runs[0].folder
    price = Price(
        parameters=sum(p.numel() for p in model.parameters()),
        bundle_mb=sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6,
        training_seconds=statistics.median(m.get("train/seconds", 0.0) for m in every),
        peak_memory_mb=statistics.median(peaks) if peaks else None,
        hardware=str(every[0].get("hardware", "")),
    )
    if sentences:
        measure = time_translator if isinstance(model, TranslatorNetwork) else time_reader
        measure(price, model, sentences)
    return price


def time_reader(price: Price, model: Any, _: Sequence[str]) -> None:
    """Measure how fast a tagger or a classifier reads, into a price."""
    from seqlab.explain.pace import counter_of, pace_of, sentences_of
    from seqlab.pipeline import Pipeline

    pipeline: Any = Pipeline(model.eval(), device="cpu")
    meter, _reason = counter_of(pipeline)
    for count in _AT_ONCE:
        drawn = sentences_of(model.source_vocab, _WORDS, count)
        pace = _metered(partial(pace_of, pipeline, drawn, count, budget=_SECONDS), meter)
        price.tokens_per_second[count] = pace.tokens_per_second
        if pace.joules is not None:
            price.joules_per_1000_tokens[count] = pace.joules


def time_translator(price: Price, model: Any, sentences: Sequence[str]) -> None:
    """Measure how fast a translator translates sentences, into a price."""
    from seqlab.explain.pace import counter_of, timed
    from seqlab.translation_pipeline import TranslationPipeline

    pipeline: Any = TranslationPipeline(model, device="cpu")
    meter, _reason = counter_of(pipeline)
    price.unit = "target subwords"
    whole = max(_AT_ONCE)
    apart = sentences[:: max(1, len(sentences) // whole)]
    texts = list(itertools.islice(itertools.cycle(apart), whole))
    tokens = sum(len(one.hypotheses[0].pieces) for one in pipeline(texts))
    for count in _AT_ONCE:
        groups = [texts[i : i + count] for i in range(0, whole, count)]
        run = partial(_translate, pipeline, groups)
        seconds, joules = _metered(partial(timed, run, budget=_SECONDS), meter)
        median = statistics.median(seconds)
        price.sentences_per_second[count] = whole / median
        price.tokens_per_second[count] = tokens / median
        if joules is not None and tokens:
            price.joules_per_1000_tokens[count] = 1000 * joules / (tokens * len(seconds))


def _translate(pipeline: Any, groups: Sequence[Sequence[str]]) -> None:
    for some in groups:
        pipeline(some)


def _metered(measure: Callable[[Any], _T], meter: Any) -> _T:
    """Measure with a counter of energy, and without it if it cannot be read any more."""
    from seqlab.explain.energy import Unreadable

    try:
        return measure(meter)
    except Unreadable:
        return measure(None)

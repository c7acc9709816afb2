"""``seqlab compare``: which model is better, by how much, how surely, and at what price."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqlab.compare.options import Options, parse

_AT_ONCE = (1, 32)  # sentences, for the two speeds
_SECONDS = 2.0  # for each speed
_WORDS = 25  # of a sentence whose reading is timed


def run(argv: Sequence[str]) -> int:
    """Compare models.

    Args:
        argv: what follows ``seqlab compare``.

    Returns:
        0.

    Raises:
        SeqlabError: models, runs or corpora do not go together, or cannot be read.
    """
    options = parse(argv)
    from seqlab.compare.table import table_of

    comparison = compare(options)
    text = json.dumps(comparison.to_dict(), indent=1, ensure_ascii=False)
    if options.json == "-":
        print(text)
    else:
        print(table_of(comparison))
    if options.json not in (None, "-"):
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.html is not None:
        from seqlab.compare.page import page_of

        Path(options.html).write_text(page_of(comparison), encoding="utf-8")
        print(options.html)
    return 0


def compare(options: Options) -> Any:
    """Compare models; see :class:`seqlab.compare.comparison.Comparison`.

    Args:
        options: which, and on what.
    """
    from seqlab.compare.comparison import check_alike, compared
    from seqlab.compare.outcomes import Outcomes, outcomes_of
    from seqlab.compare.systems import gather, of_recipes
    from seqlab.training import restored

    systems = (
        of_recipes(options.recipes, options.seeds, _train)
        if options.recipes
        else gather(options.runs)
    )
    outcomes: dict[str, list[Outcomes]] = {}
    by_run: dict[str, Outcomes] = {}
    prices: dict[str, Any] = {}
    words = [] if options.data is None else ["--data.path", options.data]
    for system in systems:
        outcomes[system.name] = []
        for number, one in enumerate(system.runs):
            _say(f"{system.name}, seed {one.seed}")
            cli = restored(one.folder, words, trust=options.trust)
            found = outcomes_of(cli.model, cli.datamodule)
            outcomes[system.name].append(found)
            by_run[str(one.folder)] = found
            check_alike(by_run)
            if number == 0:
                prices[system.name] = _price(system, cli.model, options.speed)
    return compared(systems, outcomes, prices, options.rounds)


def _price(system: Any, model: Any, speed: bool) -> Any:
    from seqlab.compare.comparison import Price
    from seqlab.explain.energy import Unreadable
    from seqlab.explain.pace import counter_of, pace_of, sentences_of
    from seqlab.models.translator import Translator
    from seqlab.pipeline import Pipeline

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
    if not speed or isinstance(model, Translator):
        return price
    pipeline: Any = Pipeline(model.eval(), device="cpu")
    meter, _ = counter_of(pipeline)
    for count in _AT_ONCE:
        sentences = sentences_of(model.source_vocab, _WORDS, count)
        try:
            pace = pace_of(pipeline, sentences, count, meter, _SECONDS)
        except Unreadable:
            pace = pace_of(pipeline, sentences, count, None, _SECONDS)
        price.tokens_per_second[count] = pace.tokens_per_second
        if pace.joules is not None:
            price.joules_per_1000_tokens[count] = pace.joules
    return price


def _train(recipe: str, seed: int) -> None:
    from seqlab.training import fit

    fit([recipe, "--seed_everything", str(seed)])


def _say(sentence: str) -> None:
    if sys.stderr.isatty():
        print(f"seqlab: {sentence}", file=sys.stderr, flush=True)

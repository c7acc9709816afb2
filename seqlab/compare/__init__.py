"""``seqlab compare``: which model is better, by how much, how surely, and at what price."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqlab.compare.options import Options, parse


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
    from seqlab.compare.outcomes import Outcomes, calibration_error, outcomes_of
    from seqlab.compare.price import price_of
    from seqlab.compare.systems import gather, of_recipes
    from seqlab.restoring import restored

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
            error = (
                one.metrics.get("test/ece")
                if options.data is None
                else calibration_error(cli.model, cli.datamodule)
            )
            outcomes[system.name].append(found._replace(ece=error))
            by_run[str(one.folder)] = found
            check_alike(by_run)
            if number == 0:
                texts = found.sentences if options.speed else None
                prices[system.name] = price_of(system, cli.model, texts)
    return compared(systems, outcomes, prices, options.rounds)


def _train(recipe: str, seed: int) -> None:
    from seqlab.training import fit

    fit([recipe, "--seed_everything", str(seed)])


def _say(sentence: str) -> None:
    if sys.stderr.isatty():
        print(f"seqlab: {sentence}", file=sys.stderr, flush=True)

"""What ``seqlab compare`` is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from seqlab.errors import Parser, UsageError


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Args:
        runs: run folders, bundles, or recipes, which mean their runs here.
        recipes: recipes whose runs are compared; what is missing is trained.
        seeds: with ``recipes``, how many seeds of each.
        data: another corpus to compare on; None for that of the runs.
        json: file for everything; ``-`` is standard output; None for none.
        html: file for a page; None for none.
        rounds: of the tests over sentences.
        speed: whether the speed of each system is measured.
        trust: whether models may name classes of other packages.
    """

    runs: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    seeds: int = 3
    data: str | None = None
    json: str | None = None
    html: str | None = None
    rounds: int = 10_000
    speed: bool = True
    trust: bool = False


def parse(argv: Sequence[str]) -> Options:
    """Read the command line.

    Args:
        argv: what follows ``seqlab compare``.

    Raises:
        UsageError: it is written wrongly.
    """
    parser = Parser(
        prog="seqlab compare",
        usage="seqlab compare RUN RUN... [options]\n"
        "       seqlab compare --recipes A B C --seeds 5 [options]",
        description="Say which models are better, by how much, how surely, and at what price. Runs "
        "of one recipe that differ in the seed alone count as one system.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="*", help="run folders, bundles, or names of recipes run here")
    add("--recipes", metavar="RECIPE", nargs="+", help="compare these; train what is missing")
    add("--seeds", type=int, metavar="N", help="of each recipe: 1 to N (3)")
    add("--data.path", dest="data", metavar="DIR", help="compare on this corpus's test split")
    add("--json", metavar="FILE", help="write everything; - is standard output")
    add("--html", metavar="FILE", help="write a page with plots")
    add("--rounds", type=int, default=10_000, metavar="N", help="of the tests (10000)")
    add("--no-speed", action="store_true", help="leave out what takes time to measure")
    add(
        "--trust",
        action="store_true",
        help="allow models to name classes of other packages, which runs their code",
    )
    given = parser.parse_args(list(argv))
    _check(given)
    return Options(
        runs=tuple(given.runs),
        recipes=tuple(given.recipes or ()),
        seeds=3 if given.seeds is None else given.seeds,
        data=given.data,
        json=given.json,
        html=given.html,
        rounds=given.rounds,
        speed=not given.no_speed,
        trust=given.trust,
    )


def _check(given: argparse.Namespace) -> None:
    if given.runs and given.recipes:
        raise UsageError("give runs, or --recipes, not both.")
    if not given.runs and not given.recipes:
        raise UsageError(
            "`seqlab compare` needs runs, as in `seqlab compare runs/ner/latest "
            "runs/ner-bert/latest`, or --recipes."
        )
    if given.seeds is not None and not given.recipes:
        raise UsageError("--seeds goes with --recipes: runs have the seeds that they had.")
    for name, least in (("seeds", 1), ("rounds", 100)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise UsageError(f"--{name} is {value}: it must be {least} or more.")

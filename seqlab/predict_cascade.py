"""``seqlab predict --cascade``: two models as one, and the threshold between them."""

from __future__ import annotations

import sys
from typing import Any

from seqlab.cascade import Cascade
from seqlab.errors import UsageError
from seqlab.pipeline import Pipeline
from seqlab.predict_options import Options
from seqlab.routing import answered, chosen, lines_of, routes_of, validation_rows
from seqlab.zoo import model_folder


def cascade_of(small: Any, large: Any, options: Options) -> Cascade[Any]:
    """Put two models together; a threshold that is not given is found, and said.

    Args:
        small: what was loaded of the first name.
        large: of the second.
        options: the command line.

    Raises:
        UsageError: they do not go together, or with what else is asked for.
    """
    assert options.cascade is not None
    for name, one in ((options.model, small), (options.cascade, large)):
        if not isinstance(one, Pipeline):
            raise UsageError(f"--cascade: {name} translates, and has no confidence to go by.")
    if options.explain:
        raise UsageError("--explain shows the attention of one model: leave it or --cascade out.")
    small.precision = large.precision = options.precision
    least = options.min_confidence or 0.0
    made: Cascade[Any] = Cascade(small, large, options.threshold or 0.0, least)
    if options.threshold is None:
        made.threshold = _found(small, large, options)
    return made


def _found(small: Pipeline[Any], large: Pipeline[Any], options: Options) -> float:
    """Find the threshold on the validation split, and print what there is to choose from."""
    assert options.cascade is not None
    folders = [model_folder(name) for name in (options.model, options.cascade)]
    rows = validation_rows(folders, options.trust)
    found = answered(small, large, rows)
    routes = routes_of(found)
    best = chosen(routes)
    _say(f"{len(found.sure):,} sentences of the validation split, on this machine:")
    print(*lines_of(routes, best, found.scorer), sep="\n", file=sys.stderr)
    _say(f"--threshold {best.threshold:.4f} answers the same without this search.")
    return best.threshold


def told(cascade: Cascade[Any]) -> None:
    """Say how much the large model had to do."""
    share = cascade.handed_on / max(1, cascade.sentences)
    _say(
        f"the large model answered {cascade.handed_on:,} of {cascade.sentences:,} sentences "
        f"({share:.1%})."
    )


def _say(sentence: str) -> None:
    print(f"seqlab: {sentence}", file=sys.stderr, flush=True)

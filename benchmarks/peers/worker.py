r"""How a contender takes orders: a line of JSON each on stdin, and one each in answer on stdout.

Standard library only, as it runs under the Python of every peer. By hand:

    printf '%s\n' '{"corpus": "FOLDER", "threads": 2}' '{"do": "train", "sentences": 320}' \
        | python benchmarks/peers/plain_tagger.py
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class SkippedError(Exception):
    """A contender that cannot take part here; its text says why, and what to do."""


class Sentence(NamedTuple):
    """A sentence of the corpus: its words, and their tags."""

    words: list[str]
    tags: list[str]


def read(corpus: str, split: str) -> list[Sentence]:
    """Read a split that `side_by_side.write_corpus` wrote.

    Args:
        corpus: folder of the splits.
        split: ``train``, ``validation`` or ``test``.
    """
    with open(Path(corpus) / f"{split}.jsonl", encoding="utf-8") as lines:
        return [Sentence(**json.loads(line)) for line in lines]


def count(sentences: list[Sentence]) -> int:
    """Count the tokens of sentences."""
    return sum(len(sentence.words) for sentence in sentences)


def peak_memory_mb() -> float | None:
    """Return the most memory that this process has held so far, in MB; None on Windows."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss begins with what the parent held
        words = dict(x.split(":", 1) for x in status.read_text(encoding="utf-8").splitlines())
        return round(int(words["VmHWM"].split()[0]) * 1024 / 1e6, 1)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def serve(make: Callable[..., Any], *bad_news: type[Exception]) -> None:
    """Make a contender from the first line, and give it the orders of the others.

    Args:
        make: makes it from the words of the first line; its methods are what it can do, and
            its `versions` says what it is made of.
        bad_news: errors that are sentences for the user: the contender does not take part.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print what they like, which is no answer
    contender: Any = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if contender is None:
                contender = make(**order)
                answer: dict[str, Any] = {"versions": contender.versions}
            else:
                answer = getattr(contender, order.pop("do"))(**order)
        except (SkippedError, *bad_news) as error:
            answer = {"skipped": " ".join(str(error).split())}
        print(json.dumps({**answer, "peak_memory_mb": peak_memory_mb()}), file=answers, flush=True)

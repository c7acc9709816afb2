"""Who answers what: label by label, what is taken for what, and sentence by sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from seqlab.compare.outcomes import Outcomes
from seqlab.metrics import f1_of
from seqlab.tags import UNKNOWN, spans_of

NONE = "(none)"  # in the place of a label, where there is nothing with these borders
Confusions = dict[str, dict[str, int]]


def by_type(outcomes: Mapping[str, Outcomes]) -> dict[str, dict[str, float]]:
    """Score each label by itself, from 0 to 100.

    Args:
        outcomes: of one run of each system.

    Returns:
        by label and system the F1, of spans where there are any.
    """
    found: dict[str, dict[str, float]] = {}
    for name, one in outcomes.items():
        for label, (right, ours, gold) in _label_counts(one).items():
            found.setdefault(label, {})[name] = 100 * f1_of(ours, gold, right)[2]
    return {
        label: {name: found[label].get(name, 0.0) for name in outcomes} for label in sorted(found)
    }


def _label_counts(one: Outcomes) -> dict[str, list[int]]:
    """Of each label how often it was right, found and wanted."""
    counts: dict[str, list[int]] = {}
    if one.task == "texts":
        return counts
    for answer, gold in zip(one.answers, one.gold, strict=True):
        for place, labels in enumerate(_labelled(one, answer, gold)):
            for label in labels:
                counts.setdefault(label, [0, 0, 0])[place] += 1
    return counts


def _labelled(one: Outcomes, answer: Any, gold: Any) -> tuple[list[str], list[str], list[str]]:
    """The labels of what is right, found and wanted in a sentence."""
    if one.task == "labels":
        return [x for x in answer if x in gold], list(answer), list(gold)
    if one.scheme == "none":
        kept = [(a, b) for a, b in zip(answer, gold, strict=True) if b != UNKNOWN]
        return [a for a, b in kept if a == b], [a for a, _ in kept], [b for _, b in kept]
    ours, theirs = (set(spans_of(tags, one.scheme, "strict")) for tags in (answer, gold))
    return tuple([x.label for x in some] for some in (ours & theirs, ours, theirs))  # type: ignore[return-value]


def differing(first: tuple[str, Outcomes], second: tuple[str, Outcomes]) -> list[dict[str, Any]]:
    """List the sentences that one system answers better than the other.

    Args:
        first: a system's name, and what it answered.
        second: those of another.

    Returns:
        of each sentence its number from 1, its text, what is right, both answers by the systems'
        names, and which is ``better``.
    """
    (name, one), (other_name, other) = first, second
    found = []
    scores = [x.score(x.counts) for x in (one, other)]
    for number, (a, b) in enumerate(zip(*scores, strict=True)):
        if a == b:
            continue
        found.append(
            {
                "sentence": number + 1,
                "text": one.sentences[number],
                "gold": one.gold[number],
                name: one.answers[number],
                other_name: other.answers[number],
                "better": name if a > b else other_name,
            }
        )
    return found


def confusions(one: Outcomes) -> Confusions:
    """Count what is taken for what.

    Spans are matched by their exact borders; one that is missed is taken for ``(none)``, and one
    that is invented is ``(none)`` taken for something. So are labels of a text that may have
    several, unless just one of them is wrong.

    Args:
        one: of a run.

    Returns:
        by gold label and answered label, how often, where it was; empty of translations.
    """
    counts = Counter(
        pair
        for answer, gold in zip(one.answers, one.gold, strict=True)
        for pair in _confused(one, answer, gold)
    )
    found: Confusions = {}
    for (right, said), count in sorted(counts.items()):
        found.setdefault(right, {})[said] = count
    return found


def _confused(one: Outcomes, answer: Any, gold: Any) -> Iterator[tuple[str, str]]:
    """The gold label and the answered one of each place in a sentence."""
    if one.task == "labels":
        yield from ((x, x) for x in gold if x in answer)
        missed, invented = (
            [x for x in a if x not in b] for a, b in ((gold, answer), (answer, gold))
        )
        if len(missed) == len(invented) == 1:
            yield missed[0], invented[0]
        else:
            yield from ((x, NONE) for x in missed)
            yield from ((NONE, x) for x in invented)
    elif one.task == "tags" and one.scheme == "none":
        yield from ((b, a) for a, b in zip(answer, gold, strict=True) if b != UNKNOWN)
    elif one.task == "tags":
        ours, theirs = (
            {(x.start, x.end): x.label for x in spans_of(tags, one.scheme, "strict")}
            for tags in (answer, gold)
        )
        for borders in {**theirs, **ours}:
            yield theirs.get(borders, NONE), ours.get(borders, NONE)

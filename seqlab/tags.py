"""Tags of spans: IOB1, IOB2 (BIO), BIOES and BILOU, read, written, converted, enforced.

A tag is ``O`` (outside every span), ``PREFIX-LABEL`` such as ``B-PER``, or ``?``, which says that
nobody knows the tag of this token (a partial label). The label is all after the first hyphen. The
schemes: Ramshaw and Marcus (1995), https://aclanthology.org/W95-0107, and Tjong Kim Sang and
Veenstra (1999), https://aclanthology.org/E99-1023. In ``none`` a tag is only a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from seqlab.errors import DataError, nearest

SCHEMES = ("iob1", "iob2", "bioes", "bilou", "none")
REPAIRS = ("strict", "conlleval")
UNKNOWN = "?"
OUTSIDE = "O"

PREFIXES = frozenset("BIESLU")
OPENING = frozenset("BSU")  # always begins a span
CLOSING = frozenset("ESLU")  # is always the last token of its span
KNOWN_SCHEMES = "The known schemes are iob1, iob2, bioes and bilou"

_LETTERS = {"iob1": "BIO", "iob2": "BIO", "bioes": "BIOES", "bilou": "BILOU"}


class Span(NamedTuple):
    """A labelled stretch of tokens: positions ``start`` to ``end``, ``end`` exclusive."""

    label: str
    start: int
    end: int


@lru_cache(maxsize=4096)
def split_tag(tag: str) -> tuple[str, str]:
    """Split a tag into its prefix and its label.

    Args:
        tag: ``O``, ``?`` or ``PREFIX-LABEL``.

    Returns:
        The prefix, one letter, and the label, which may hold hyphens and is empty for ``O`` and
        ``?``.

    Raises:
        DataError: the tag has no prefix that any scheme knows, or no label.

    Example:
        >>> split_tag("B-creative-work")
        ('B', 'creative-work')
        >>> split_tag("O")
        ('O', '')
    """
    if tag in (OUTSIDE, UNKNOWN):
        return tag, ""
    prefix, hyphen, label = tag.partition("-")
    if hyphen and label and (prefix in PREFIXES or prefix == OUTSIDE):
        return prefix, label
    raise DataError(f"tag {tag!r} is neither O nor PREFIX-LABEL such as B-PER. {KNOWN_SCHEMES}.")


def spans_of(tags: Sequence[str], scheme: str, repair: str = "strict") -> list[Span]:
    """Read the spans that the tags of one sentence stand for.

    With ``strict`` only a span that is written wholly as the scheme demands counts, as in seqeval's
    strict mode. With ``conlleval`` every stretch counts, by the rules of the CoNLL-2000 scorer: a
    span begins at ``B``, ``S`` or ``U``, where the label changes, and after ``O``, ``E``, ``L``,
    ``S`` or ``U``, whatever its first prefix. An unknown tag is in no span, and no span crosses it.

    Args:
        tags: one tag per token.
        scheme: one of `SCHEMES`; tags of ``none`` hold no spans.
        repair: one of `REPAIRS`.

    Returns:
        The spans from left to right, none of them overlapping.

    Raises:
        DataError: the scheme or the repair is unknown, or a tag belongs to no scheme at all
            (``conlleval``) or not to this one (``strict``).

    Example:
        >>> spans_of(["O", "I-LOC", "B-PER", "I-PER"], "iob2")
        [Span(label='PER', start=2, end=4)]
        >>> spans_of(["O", "I-LOC", "B-PER", "I-PER"], "iob2", repair="conlleval")
        [Span(label='LOC', start=1, end=2), Span(label='PER', start=2, end=4)]
    """
    _check_scheme(scheme)
    if repair not in REPAIRS:
        raise DataError(f"repair {repair!r} is unknown: choose one of {', '.join(REPAIRS)}.")
    if scheme == "none":
        return []
    if repair == "conlleval":
        return _all_spans([split_tag(tag) for tag in tags])
    parts = [_split_within(tag, scheme) for tag in tags]
    return [span for span in _all_spans(parts) if _is_legal(span, parts, scheme)]


def tags_of(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Write spans as tags, the inverse of `spans_of`.

    Args:
        spans: the spans of one sentence, in any order.
        length: number of tokens in the sentence.
        scheme: one of `SCHEMES` except ``none``.

    Returns:
        ``length`` tags, legal in the scheme.

    Raises:
        DataError: spans overlap, leave the sentence, are empty or have no label, or the scheme is
            ``none``.

    Example:
        >>> tags_of([Span("PER", 1, 3), Span("LOC", 3, 4)], 4, "bioes")
        ['O', 'B-PER', 'E-PER', 'S-LOC']
    """
    _check_scheme(scheme)
    if scheme == "none":
        raise DataError(
            "spans cannot be written in scheme none: choose iob1, iob2, bioes or bilou."
        )
    tags = [OUTSIDE] * length
    previous = Span("", 0, 0)
    for span in sorted(spans, key=lambda span: (span[1], span[2])):
        label, start, end = span
        if not label or not previous.end <= start < end <= length:
            raise DataError(
                f"span {label!r} from token {start} to {end} overlaps another span, is empty, has "
                f"no label or leaves the sentence of {length} tokens."
            )
        touches = previous.label == label and previous.end == start
        prefixes = _prefixes_of(end - start, scheme, touches)
        tags[start:end] = [f"{prefix}-{label}" for prefix in prefixes]
        previous = Span(label, start, end)
    return tags


def convert(tags: Sequence[str], source: str, target: str, repair: str = "conlleval") -> list[str]:
    """Write the tags of one sentence in another scheme, or mend them in their own.

    An unknown tag ``?`` stays where it is. It breaks spans: the tags on its two sides are read as
    two spans, because nobody knows whether they are one.

    Args:
        tags: one tag per token.
        source: the scheme of ``tags``.
        target: the scheme to write; ``none`` goes with ``none`` only.
        repair: one of `REPAIRS`, how illegal tags are read; ``strict`` turns them into ``O``.

    Returns:
        As many tags, legal in ``target`` apart from ``?``.

    Raises:
        DataError: a scheme is unknown, only one of the two is ``none``, or a tag is in no scheme.

    Example:
        >>> convert(["I-PER", "I-PER", "O", "?"], "iob1", "bioes")
        ['B-PER', 'E-PER', 'O', '?']
    """
    _check_scheme(source)
    _check_scheme(target)
    if source == target == "none":
        return list(tags)
    if "none" in (source, target):
        raise DataError(f"tags cannot be converted from scheme {source} to scheme {target}.")
    written = tags_of(spans_of(tags, source, repair), len(tags), target)
    return [UNKNOWN if old == UNKNOWN else new for old, new in zip(tags, written, strict=True)]


def may_follow(first: tuple[str, str], second: tuple[str, str], scheme: str) -> bool:
    """Say whether two tags may be neighbours.

    Args:
        first: a tag as `split_tag` returns it; the edge of a sentence counts as ``("O", "")``.
        second: the tag after it, or the edge.
        scheme: one of `SCHEMES` except ``none``.

    Returns:
        Whether the scheme allows the pair.

    Example:
        >>> may_follow(("O", ""), ("I", "PER"), "iob1"), may_follow(("O", ""), ("I", "PER"), "iob2")
        (True, False)
    """
    same_open = first[0] in "BI" and first[1] == second[1]
    if scheme == "iob1":
        return second[0] != "B" or same_open
    if scheme == "iob2":
        return second[0] != "I" or same_open
    return same_open if second[0] in "IEL" else first[0] not in "BI"


@dataclass(frozen=True)
class Grammar:
    """Which tag may open a sentence, follow another tag and close a sentence.

    Attributes:
        start: (tag,) whether the tag may be the first.
        transitions: (previous, next) whether ``next`` may follow ``previous``.
        end: (tag,) whether the tag may be the last.

    Example:
        >>> grammar = Grammar.of(["O", "B-PER", "I-PER"], "iob2")
        >>> grammar.allows([0, 1, 2]), grammar.allows([0, 2])
        (True, False)
    """

    start: tuple[bool, ...]
    transitions: tuple[tuple[bool, ...], ...]
    end: tuple[bool, ...]

    @classmethod
    def of(cls, tags: Sequence[str], scheme: str) -> Grammar:
        """Derive the grammar of a list of tags.

        A tag that no legal sentence holds, such as ``B-PER`` of ``bioes`` in a list without
        ``E-PER``, is shut off on every side, so that from each tag that can be reached a sentence
        can be completed, and a legal sentence of every length from 1 on exists.

        Args:
            tags: all tags, in the order of their ids.
            scheme: one of `SCHEMES`; ``none`` allows everything.

        Returns:
            The grammar over the ids.

        Raises:
            DataError: the list is empty, a tag is not of the scheme, or no tag may stand alone.
        """
        _check_scheme(scheme)
        if not tags:
            raise DataError("a grammar needs at least one tag.")
        everything = (True,) * len(tags)
        if scheme == "none":
            return cls(everything, (everything,) * len(tags), everything)
        parts = [_split_within(tag, scheme) for tag in tags]
        edge = (OUTSIDE, "")
        starts = [may_follow(edge, part, scheme) for part in parts]
        ends = [may_follow(part, edge, scheme) for part in parts]
        follows = [[may_follow(first, second, scheme) for second in parts] for first in parts]
        backwards = [list(column) for column in zip(*follows, strict=True)]
        alive = _reached(starts, follows) & _reached(ends, backwards)
        # Where one tag may both open and close a sentence, it may also follow itself in every
        # scheme, and so a sentence of any length exists.
        if not any(starts[tag] and ends[tag] for tag in alive):
            raise DataError(
                f"no sentence of one token is legal in scheme {scheme} with only the tags "
                f"{', '.join(tags)}: add O to the tags or set `data.scheme` to none."
            )
        ids = range(len(tags))
        return cls(
            tuple(starts[tag] and tag in alive for tag in ids),
            tuple(tuple(follows[i][j] and i in alive and j in alive for j in ids) for i in ids),
            tuple(ends[tag] and tag in alive for tag in ids),
        )

    def allows(self, ids: Sequence[int]) -> bool:
        """Tell whether a sentence with these tag ids is legal; one without tokens is."""
        if not ids:
            return True
        pairs = zip(ids, ids[1:], strict=False)
        return (
            self.start[ids[0]]
            and self.end[ids[-1]]
            and all(self.transitions[first][second] for first, second in pairs)
        )


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        known = ", ".join(SCHEMES)
        raise DataError(
            f"scheme {scheme!r} is unknown: choose one of {known}.{nearest(scheme, SCHEMES)}"
        )


def _split_within(tag: str, scheme: str) -> tuple[str, str]:
    prefix, label = split_tag(tag)
    if prefix not in _LETTERS[scheme] and prefix != UNKNOWN:
        prefixes = ", ".join(_LETTERS[scheme])
        raise DataError(
            f"tag {tag!r} does not belong to scheme {scheme}, whose prefixes are {prefixes}."
        )
    return prefix, label


def _reached(first: Sequence[bool], follows: Sequence[Sequence[bool]]) -> set[int]:
    """The tags that some walk over ``follows`` meets when it begins at one of ``first``."""
    reached = {tag for tag, may_be in enumerate(first) if may_be}
    waiting = list(reached)
    while waiting:
        new = {tag for tag, may_be in enumerate(follows[waiting.pop()]) if may_be} - reached
        reached |= new
        waiting.extend(new)
    return reached


def _prefixes_of(length: int, scheme: str, touches: bool) -> str:
    """Prefixes of one span; ``touches``: it directly follows another span of its label."""
    if scheme == "iob1":
        return ("B" if touches else "I") + "I" * (length - 1)
    if scheme == "iob2":
        return "B" + "I" * (length - 1)
    last, single = "ES" if scheme == "bioes" else "LU"
    return single if length == 1 else "B" + "I" * (length - 2) + last


def _all_spans(parts: Sequence[tuple[str, str]]) -> list[Span]:
    """Spans of split tags by the rules of conlleval."""
    spans: list[Span] = []
    label, start = "", 0  # the open span; none is open where the label is empty
    for position, (prefix, name) in enumerate(parts):
        name = "" if prefix == OUTSIDE else name
        if label and (name != label or prefix in OPENING):
            spans.append(Span(label, start, position))
            label = ""
        if name and not label:
            label, start = name, position
        if prefix in CLOSING:
            spans.append(Span(label, start, position + 1))
            label = ""
    if label:
        spans.append(Span(label, start, len(parts)))
    return spans


def _is_legal(span: Span, parts: Sequence[tuple[str, str]], scheme: str) -> bool:
    """Say whether a span of conlleval is written as the scheme writes it."""
    written = "".join(prefix for prefix, _ in parts[span.start : span.end])
    touches = span.start > 0 and parts[span.start - 1] in (("B", span.label), ("I", span.label))
    return written == _prefixes_of(span.end - span.start, scheme, touches)

"""Detection of the scheme in which the tags of a corpus are written, and of the dirt in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from seqlab.errors import DataError, nearest
from seqlab.tags import (
    CLOSING,
    KNOWN_SCHEMES,
    OPENING,
    OUTSIDE,
    PREFIXES,
    UNKNOWN,
    may_follow,
    split_tag,
)

_REMEDY = "set `data.scheme` to none to learn the tags as they are."
START, END = "the sentence start", "the sentence end"  # no tag of a scheme looks so
EXAMPLES = 5
_SPANS_PER_FAULT = 100  # one illegal pair of tags in so many spans is dirt, more is another scheme


def key_of(tag: str) -> str:
    """Return what a tag is counted as: itself, or unknown where it is outside every scheme."""
    return tag if _belongs(tag) else UNKNOWN


class Scheme(NamedTuple):
    """What `SchemeCounter` found: the scheme, and the dirt in it that conversion repairs.

    Attributes:
        name: one of `seqlab.tags.SCHEMES`.
        repaired: how many pairs of neighbouring tags are illegal in the scheme.
        examples: places of the first of them, at most five, each ``file:line``.
    """

    name: str
    repaired: int
    examples: list[str]


class Place(NamedTuple):
    """The number of a token, from 1, and what names its place."""

    number: int
    where: Callable[[], str]


class Met(NamedTuple):
    """How often a tag was met behind another, and where the first times."""

    before: str
    key: str
    times: int
    places: Sequence[Place]


class _Seen:
    """How often something was met, and where first."""

    __slots__ = ("count", "places")

    def __init__(self) -> None:
        self.count = 0
        self.places: list[Place] = []

    @property
    def first(self) -> int:
        """The number of the first token."""
        return self.places[0].number

    def add(self, met: Met, tokens: int) -> None:
        """Add what was met behind so many tokens."""
        self.count += met.times
        for number, where in met.places[: EXAMPLES - len(self.places)]:
            self.places.append(Place(tokens + number, where))


class SchemeCounter:
    """Detect the scheme of a corpus from its sentences, one at a time.

    Only counts of neighbouring tags are kept, and the first places of each.

    Example:
        >>> counter = SchemeCounter()
        >>> counter.add(["B-PER", "I-PER", "O"], lines=[1, 2, 3], file="train.conll")
        >>> counter.result()
        Scheme(name='iob2', repaired=0, examples=[])
    """

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], _Seen] = {}
        self._strangers = _Seen()  # tags outside every scheme, of which there may be very many
        self._first_stranger = ""
        self._middles = 0  # strangers that look like the M-LABEL of the scheme BMES
        self._tokens = 0
        self._sentences = 0

    def add(
        self, tags: Sequence[str], lines: Sequence[int] | None = None, file: str | None = None
    ) -> None:
        """Count one sentence.

        Args:
            tags: one tag per token; ``?`` says nothing about the scheme.
            lines: the line of every token in the file, from 1.
            file: name of the file, for messages.
        """
        self._sentences += 1
        previous = START
        for position, tag in enumerate(tags):
            self._tokens += 1
            key = key_of(tag)
            if not _belongs(tag):
                self._middles += tag.startswith("M-")
                self._first_stranger = self._first_stranger or tag
                self._note(self._strangers, position, lines, file)
            self._note(self._seen(previous, key), position, lines, file)
            previous = key
        if tags:
            self._note(self._seen(previous, END), len(tags) - 1, lines, file)

    def add_counted(self, tokens: int, pairs: Iterable[Met], strangers: Met, middles: int) -> None:
        """Add what was counted elsewhere, of whole sentences.

        Args:
            tokens: how many tokens they have.
            pairs: neighbours by `key_of`, `START` and `END` beside the first and the last of a
                sentence; the places of one are in order, and of two with the same first place
                the one that ends a sentence comes last.
            strangers: tags outside every scheme, counted together under the first of them.
            middles: how many of those begin with ``M-``.
        """
        for met in pairs:
            self._seen(met.before, met.key).add(met, self._tokens)
        self._first_stranger = self._first_stranger or strangers.key
        self._strangers.add(strangers, self._tokens)
        self._middles += middles
        self._tokens += tokens

    def result(self) -> Scheme:
        """Decide.

        Returns:
            ``none`` where most tags are bare names; else the scheme in which at most one span in a
            hundred is written illegally, and what of it has to be repaired. A corpus of ``O`` alone
            is ``iob2``.

        Raises:
            DataError: some tag is outside the scheme of the others, or schemes are mixed.
        """
        inside = {tag for _, tag in self._pairs if tag[1:2] == "-"}
        count = sum(seen.count for (_, tag), seen in self._pairs.items() if tag in inside)
        strangers = self._strangers.count
        if strangers and (not inside or count + self._middles <= strangers - self._middles):
            return Scheme("none", 0, [])
        if strangers:
            raise self._outside_error(inside)
        return self._choose({tag[0] for tag in inside}) if inside else Scheme("iob2", 0, [])

    def _seen(self, previous: str, following: str) -> _Seen:
        return self._pairs.setdefault((previous, following), _Seen())

    def _note(
        self, seen: _Seen, position: int, lines: Sequence[int] | None, file: str | None
    ) -> None:
        seen.count += 1
        if len(seen.places) >= EXAMPLES:
            return
        line = f"line {lines[position]}" if lines else f"sentence {self._sentences}"
        where = f"{file}:{lines[position]}" if file and lines else line
        where = where if lines or not file else f"{file}: {line}"
        seen.places.append(Place(self._tokens, where.__str__))

    def _choose(self, letters: set[str]) -> Scheme:
        """Take the first scheme whose letters fit and that leaves at most 1 % to repair."""
        bioes, bilou = letters & set("ES"), letters & set("LU")
        if bioes and bilou:
            raise self._mixed_error([self._first(bioes, "bioes"), self._first(bilou, "bilou")])
        candidates = ["bioes"] if bioes else ["bilou"] if bilou else ["iob2", "iob1"]
        clauses = [self._first(bioes | bilou, candidates[0])] if bioes or bilou else []
        spans = sum(seen.count for pair, seen in self._pairs.items() if _opens_span(*pair))
        for name in candidates:
            illegal = {pair: seen for pair, seen in self._pairs.items() if _illegal(*pair, name)}
            count = sum(seen.count for seen in illegal.values())
            places = sorted((p for seen in illegal.values() for p in seen.places), key=_number)
            if count * _SPANS_PER_FAULT <= spans:
                return Scheme(name, count, [place.where() for place in places[:EXAMPLES]])
            before, after = min(illegal, key=lambda pair: illegal[pair].first)
            clauses.append(
                f"{places[0].where()}: {after} after {before} is illegal in {name} "
                f"({count} such places in {spans} spans)"
            )
        raise self._mixed_error(clauses)

    def _first(self, letters: set[str], scheme: str) -> str:
        """Say where one of the prefixes of a scheme was met first."""
        (_, tag), seen = min(
            (
                (pair, seen)
                for pair, seen in self._pairs.items()
                if pair[1][1:2] == "-" and pair[1][0] in letters
            ),
            key=lambda found: (found[1].first, found[0][1]),
        )
        return f"{seen.places[0].where()}: {tag} belongs to {scheme}"

    def _outside_error(self, inside: set[str]) -> DataError:
        tag = self._first_stranger
        middles = " (BMES is not: write M- as I-)" if self._middles else ""
        return DataError(
            f"{self._strangers.places[0].where()}: tag {tag!r} does not belong to the scheme of "
            "the other tags, expected O or PREFIX-LABEL with a prefix of B, I, E, S, L or U."
            f"{nearest(tag, sorted(inside | {OUTSIDE}))} {KNOWN_SCHEMES}{middles}. "
            f"Fix the line, or {_REMEDY}"
        )

    def _mixed_error(self, clauses: Sequence[str]) -> DataError:
        return DataError(
            f"the tags mix schemes: {', but '.join(clauses)}. {KNOWN_SCHEMES}. Fix the lines, set "
            f"`data.scheme` to the scheme that is meant, or {_REMEDY}"
        )


def _number(place: Place) -> int:
    return place.number


def _belongs(tag: str) -> bool:
    return tag in (OUTSIDE, UNKNOWN) or (len(tag) > 2 and tag[1] == "-" and tag[0] in PREFIXES)


def _split_key(key: str) -> tuple[str, str]:
    return (OUTSIDE, "") if key in (START, END) else split_tag(key)


def _illegal(first: str, second: str, scheme: str) -> bool:
    if UNKNOWN in (first, second):
        return False
    return not may_follow(_split_key(first), _split_key(second), scheme)


def _opens_span(first: str, second: str) -> bool:
    """Say whether the second of two neighbours begins a span by the rules of conlleval."""
    before, (prefix, label) = _split_key(first), _split_key(second)
    return bool(label) and (prefix in OPENING or before[0] in CLOSING or before[1] != label)

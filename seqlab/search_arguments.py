"""The options of ``seqlab predict`` that are about translation: how is searched, and for what.

What needs torch is imported in functions, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from seqlab.errors import RecipeError, UsageError

if TYPE_CHECKING:
    from seqlab.nn.search import SearchOptions
    from seqlab.wishes import Wishes


class _Argument(NamedTuple):
    """An option whose value goes into the search: its flag and how it is read."""

    flag: str
    kind: type
    metavar: str
    help: str


# By the names of `SearchOptions`.
_SEARCH = {
    "beam": _Argument("--beam", int, "N", "hypotheses at a time (the model's; 1 is greedy search)"),
    "n_best": _Argument("--n-best", int, "N", "translations of each text, the best first (1)"),
    "length_penalty": _Argument(
        "--length-penalty", str, "NAME", "how lengths compare: average, wu or none (the model's)"
    ),
    "alpha": _Argument("--alpha", float, "X", "exponent of the length penalty (1)"),
    "coverage": _Argument(
        "--coverage-penalty", float, "X", "weight of the penalty for what was not looked at (0)"
    ),
    "min_length": _Argument("--min-length", int, "N", "least pieces of a translation (0)"),
    "max_ratio": _Argument(
        "--max-ratio", float, "X", "most pieces for each of the source (the model's) ..."
    ),
    "max_extra": _Argument("--max-extra", int, "N", "... and so many more (the model's)"),
    "no_repeat_ngram": _Argument(
        "--no-repeat-ngram", int, "N", "say no sequence of N pieces twice (0: all may be)"
    ),
    "patience": _Argument(
        "--patience",
        float,
        "X",
        "end with X times the beam's translations found; faster, and may miss the best (never)",
    ),
    "groups": _Argument(
        "--diverse", int, "GROUPS", "diverse beam search: so many groups, which divide the beam"
    ),
    "diversity": _Argument(
        "--diversity", float, "X", "what a piece costs that an earlier group has chosen (0.5)"
    ),
    "temperature": _Argument("--temperature", float, "X", "of samples (1)"),
    "top_k": _Argument("--top-k", int, "N", "sample among so many pieces (0: all)"),
    "top_p": _Argument("--top-p", float, "X", "sample among the fewest with this probability (1)"),
    "seed": _Argument("--seed", int, "N", "of samples (0)"),
}
FLAGS = {name: argument.flag for name, argument in _SEARCH.items()} | {
    "prefix": "--prefix",
    "require": "--require",
    "ban": "--ban",
    "sample": "--sample",
    "alignments": "--alignments",
    "replace_unknown": "--replace-unknown",
    "ensemble": "--ensemble",
    "source_language": "--source-language",
    "target_language": "--target-language",
    "check_invariance": "--check-invariance",
}
_OF_SAMPLES = ("temperature", "top_k", "top_p", "seed")
_OF_BEAMS = ("beam", "n_best", "coverage", "patience", "groups", "diversity", "require")


@dataclass(frozen=True)
class SearchArguments:
    """What the command line asks of a translator.

    Args:
        search: values for :class:`seqlab.nn.search.SearchOptions`, by its names.
        sample: how many samples are drawn of each text; None where it is searched.
        prefix: how translations begin.
        require: phrases that they contain.
        ban: phrases that they do not contain.
        alignments: whether they say which words made which.
        replace_unknown: whether unknown words are copied from the source.
        ensemble: further models.
        source_language: what the model has to translate from, where it was said.
        target_language: what it has to translate into, likewise.
        check_invariance: whether to show that batches change nothing, in place of translating.
    """

    search: Mapping[str, Any] = field(default_factory=dict)
    sample: int | None = None
    prefix: str = ""
    require: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()
    alignments: bool = False
    replace_unknown: bool = False
    ensemble: tuple[str, ...] = ()
    source_language: str | None = None
    target_language: str | None = None
    check_invariance: bool = False

    @property
    def flags(self) -> list[str]:
        """The options that were given."""
        return [flag for name, flag in FLAGS.items() if self._is_given(name)]

    def _is_given(self, name: str) -> bool:
        return name in self.search if name in _SEARCH else bool(getattr(self, name))

    @property
    def several(self) -> bool:
        """Whether a text gets more than one translation."""
        return int(self.sample or self.search.get("n_best", 1)) > 1

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: they do.
        """
        if self.sample is not None and self.sample < 1:
            raise UsageError(f"--sample is {self.sample}: draw 1 or more.")
        for name in _OF_BEAMS if self.sample is not None else ():
            if self._is_given(name):
                raise UsageError(
                    f"{FLAGS[name]} is for beam search, and --sample draws instead: leave one of "
                    "them out."
                )
        for name in _OF_SAMPLES if self.sample is None else ():
            if name in self.search:
                raise UsageError(f"{FLAGS[name]} is for samples: add --sample N, or leave it out.")
        if "diversity" in self.search and "groups" not in self.search:
            raise UsageError("--diversity is for diverse beam search: add --diverse GROUPS.")
        if self.search.get("groups", 1) > 1 and self.require:
            raise UsageError("--diverse cannot take --require: leave one of them out.")
        if self.check_invariance:
            self._check_comparable()

    def _check_comparable(self) -> None:
        if self.sample is not None:
            raise UsageError(
                "--check-invariance compares what a search finds, and --sample draws: give --beam "
                "instead."
            )
        for name in ("alignments", "replace_unknown"):
            if getattr(self, name):
                raise UsageError(
                    f"--check-invariance prints a report, no translations: leave {FLAGS[name]} out."
                )

    def wishes(self) -> Wishes:
        """Return what all translations must and must not say.

        Raises:
            UsageError: that is a contradiction.
        """
        from seqlab.wishes import Wishes

        return Wishes(self.prefix, self.require, self.ban)

    def options(self, own: SearchOptions) -> SearchOptions:
        """Say how to search.

        Args:
            own: the model's way, for what the command line leaves open.

        Raises:
            UsageError: a value is out of range, or contradicts another.
        """
        changes = dict(self.search)
        if self.sample is not None:
            changes |= {"method": "sample", "n_best": self.sample}
        try:
            return replace(own, **changes)
        except RecipeError as error:
            raise UsageError(_as_flags(str(error))) from error


def _as_flags(message: str) -> str:
    """Name the options in a message as the command line does."""
    names = "|".join(_SEARCH)
    return re.sub(rf"\b({names})\b", lambda found: FLAGS[found[0]], message)


def add_search_arguments(parser: ArgumentParser) -> None:
    """Give a parser the options of translators."""
    add = parser.add_argument_group(
        "of translators", "What is in brackets holds where nothing is given."
    ).add_argument
    for name, argument in _SEARCH.items():
        flag, kind, metavar, text = argument
        add(flag, dest=name, type=kind, metavar=metavar, help=text)
    add("--sample", type=int, metavar="N", help="draw N translations instead of searching")
    add("--prefix", metavar="TEXT", default="", help="how every translation begins")
    for name, text in (("require", "contains"), ("ban", "does not contain")):
        add(
            f"--{name}",
            metavar="TEXT",
            action="append",
            default=[],
            help=f"what every translation {text}; may be given again. In JSONL each text may have "
            "`prefix`, `require` and `ban` of its own",
        )
    add(
        "--alignments",
        action="store_true",
        help="say which words made which: after a tab as `0-0 2-1` (word of the text, word of the "
        "translation), with --format jsonl all weights",
    )
    add(
        "--replace-unknown",
        action="store_true",
        help="copy in place of an unknown word what it looked at in the text",
    )
    add(
        "--ensemble",
        metavar="MODEL",
        action="append",
        default=[],
        help="translate together with this model, which has the same vocabularies; may be given "
        "again",
    )
    for side, direction in (("source", "from"), ("target", "into")):
        add(
            f"--{side}-language",
            metavar="NAME",
            help=f"stop unless the model translates {direction} this language",
        )
    add(
        "--check-invariance",
        action="store_true",
        help="translate the input (up to 1,000 texts) in several batches, orders and paddings, and "
        "report whether anything changes; the exit code is 1 if it does",
    )


def search_arguments(given: Namespace) -> SearchArguments:
    """Take the options of translators from what was parsed.

    Raises:
        UsageError: they contradict each other.
    """
    search = {name: getattr(given, name) for name in _SEARCH}
    found = SearchArguments(
        {name: value for name, value in search.items() if value is not None},
        given.sample,
        given.prefix,
        tuple(given.require),
        tuple(given.ban),
        given.alignments,
        given.replace_unknown,
        tuple(given.ensemble),
        given.source_language,
        given.target_language,
        given.check_invariance,
    )
    found.check()
    return found

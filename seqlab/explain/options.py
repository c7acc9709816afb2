"""What ``seqlab explain`` is asked for, and the text that it is asked about."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seqlab.errors import DataError, Parser, UsageError

_MEASURED = ("tokens", "device")


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Args:
        model: run folder, bundle or recipe.
        text: given as an argument; None where it is read from ``input``.
        input: a file; ``-`` for standard input; None where the text is given.
        first: the first word to show, counted from 1; None for the beginning.
        last: the last word to show; None for as many as are shown at once.
        layer: the only layer to show, counted from 1; None for all.
        direction: the only direction to show; None for both.
        unit: the only unit to show, counted from 1; None for all.
        pieces: whether the attention of a translation is shown by pieces, not by words.
        json: whether everything is printed for programs.
        html: the file of the page, None for none.
        trust: whether the model may name classes of other packages.
        cost: whether it is asked what the model costs, which needs no text.
        tokens: with ``cost``, words in a sentence.
        device: with ``cost``, where the model runs: ``auto``, ``cpu`` or ``cuda``.
    """

    model: str
    text: str | None = None
    input: str | None = None
    first: int | None = None
    last: int | None = None
    layer: int | None = None
    direction: str | None = None
    unit: int | None = None
    json: bool = False
    html: str | None = None
    trust: bool = False
    cost: bool = False
    tokens: int = 25
    device: str = "auto"
    pieces: bool = False


def _parser() -> Parser:
    parser = Parser(
        prog="seqlab explain",
        usage="seqlab explain MODEL TEXT [options]\n       seqlab explain MODEL --cost [options]",
        description="Show what the gates and states of a model do at every word of a text, and "
        "what its prediction rests on. Words, layers and units are counted from 1.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("words", metavar="MODEL TEXT", nargs="*", help="a run folder or a bundle, and the text")
    add("--input", metavar="FILE", help="read the text from a file; - is standard input")
    add("--from", dest="first", type=_whole, metavar="N", help="show words from the Nth on")
    add("--to", dest="last", type=_whole, metavar="N", help="show words up to the Nth")
    add("--layer", type=_whole, metavar="N", help="show this layer only")
    add("--direction", metavar="NAME", help="show this direction only: forward or backward")
    add("--unit", type=_whole, metavar="N", help="show this unit, not the mean over all")
    add("--pieces", action="store_true", help="of a translation: show pieces, not whole words")
    add("--json", action="store_true", help="print everything, every unit, as one JSON object")
    add("--html", metavar="FILE", help="write a page with every unit, to look at in a browser")
    add(
        "--trust",
        action="store_true",
        help="allow the model to name classes of other packages, which runs their code",
    )
    add("--cost", action="store_true", help="show what every part costs, instead of a text")
    add = partial(add, default=argparse.SUPPRESS)
    add("--tokens", type=_whole, metavar="N", help="with --cost: words in a sentence; 25 if unsaid")
    add("--device", metavar="NAME", help="with --cost: auto (a GPU if there is one), cpu or cuda")
    return parser


def _refuse_beside_cost(texts: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse what belongs to a text, where none is looked at."""
    names = {"first": "--from", "last": "--to"}
    beside = [f"TEXT {texts[0]!r}"] if texts else []
    for name in ("input", "first", "last", "layer", "direction", "unit", "html"):
        if given[name] is not None:
            beside.append(names.get(name, f"--{name}"))
    if given["pieces"]:
        beside.append("--pieces")
    if beside:
        raise UsageError(
            f"{beside[0]} is given beside --cost, which looks at no text: leave one of them out."
        )


def _whole(value: str) -> int:
    number = int(value) if value.isascii() and value.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is no whole number from 1 on")
    return number


def parse(argv: Sequence[str]) -> Options:
    """Read and check the arguments; nothing is loaded yet.

    Args:
        argv: the arguments after the verb.

    Raises:
        UsageError: they are wrong, or there is no text.
    """
    argv = list(argv)
    end = argv.index("--") if "--" in argv else len(argv)  # of the options
    given = vars(_parser().parse_intermixed_args(argv[:end]))
    words = given.pop("words") + argv[end + 1 :]
    if not words:
        raise UsageError("no MODEL is given: name a run folder or a bundle, and a text.")
    model, *texts = words
    if given["cost"]:
        _refuse_beside_cost(texts, given)
        return Options(model=model, **given)
    for name in _MEASURED:
        if name in given:
            raise UsageError(f"--{name} goes with --cost: add that, or leave it out.")
    if len(texts) > 1 or (texts and given["input"] is not None):
        beside = "--input" if len(texts) == 1 else repr(texts[1])
        raise UsageError(
            f"TEXT {texts[0]!r} is given beside {beside}: explain takes one text; quote a text "
            "that has spaces."
        )
    if not texts and given["input"] is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no text to explain: give a text, `--input FILE`, or pipe text in.")
        given["input"] = "-"
    options = Options(model=model, text=texts[0] if texts else None, **given)
    if options.first and options.last and options.first > options.last:
        raise UsageError(f"--from {options.first} is after --to {options.last}: swap them.")
    return options


def read_text(options: Options) -> str:
    """Return the text that is asked about.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    if options.text is not None:
        return options.text
    name = "standard input" if options.input == "-" else str(options.input)
    try:
        data = sys.stdin.buffer.read() if options.input == "-" else Path(name).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not UTF-8 ({error.reason} at byte {error.start + 1}); convert it, for "
            "example with `iconv -f LATIN1 -t UTF-8`."
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}; name a file of text.") from error

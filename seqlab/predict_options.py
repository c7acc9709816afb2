"""The command line of ``seqlab predict``: its options, read and checked before anything is loaded.

What needs torch is not imported here, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seqlab.errors import DataError, Parser, UsageError, nearest
from seqlab.output import partial_of
from seqlab.search_arguments import SearchArguments, add_search_arguments, search_arguments

if TYPE_CHECKING:
    from seqlab.nn.precision import Precision
    from seqlab.pipeline import Pipeline
    from seqlab.translation_pipeline import TranslationPipeline

FORMATS = ("text", "conll", "tsv", "jsonl", "parquet")
_BULK_FORMATS = ("jsonl", "parquet")
ENGINES = ("local", "ray")


class Load(Protocol):
    """How a name or a path becomes a pipeline."""

    def __call__(self, model: str, *, device: str) -> Pipeline[Any] | TranslationPipeline:
        """Load a model."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Args:
        model: run folder, bundle or name; of a cascade the small one.
        texts: given as arguments.
        input: a file; ``-`` for standard input; ``None`` where texts are given; with ``many`` a
            folder or a pattern.
        output: a file, or ``None`` for standard output; with ``many`` a folder.
        form: ``text``, ``conll``, ``tsv`` or ``jsonl``; with ``many`` ``jsonl`` or ``parquet``.
        columns: which column holds the tokens and each feature, or the text.
        lines: whether each line of the input is a text, whatever it looks like.
        device: where the model runs.
        confidence: whether probabilities are wanted.
        precision: ``exact`` or ``fast``.
        min_confidence: below which answers are withheld.
        cascade: the large model of a cascade.
        threshold: of a cascade; None finds it on the validation split.
        target_precision: the same, by the share of answers that is to be right.
        explain: whether the attention weight of every word is wanted.
        trust: whether the model may name classes of other packages.
        search: what is asked of a translator.
        many: whether the input is many files.
        engine: of ``many``: ``local`` or ``ray``.
        workers: of ``many``; None for as many as there are cores.
    """

    model: str
    texts: list[str]
    input: str | None
    output: str | None
    form: str
    columns: dict[str, int | str]
    lines: bool
    device: str
    confidence: bool
    precision: Precision
    explain: bool
    trust: bool
    min_confidence: float | None = None
    target_precision: float | None = None
    cascade: str | None = None
    threshold: float | None = None
    search: SearchArguments = field(default_factory=SearchArguments)
    many: bool = False
    engine: str = "local"
    workers: int | None = None


def _parser() -> Parser:
    parser = Parser(
        prog="seqlab predict",
        usage="seqlab predict MODEL [TEXT ...] [options]",
        description="Tag, classify or translate texts given as arguments, in a file, or piped in.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    # One list: as two arguments, options between them would end the second.
    add(
        "words",
        metavar="MODEL TEXT",
        nargs="*",
        help="the model, a run folder or a bundle; and the texts to read, each one sequence",
    )
    add(
        "--input",
        metavar="FILE",
        help="a file of any format that can be trained on, tags or labels not needed, or raw text "
        "with one sequence a line; - is standard input, the default where something is piped in. "
        "What is piped in and is not raw text is first kept in a temporary file. A folder, or a "
        "pattern in quotation marks such as 'DIR/*.parquet', is many files (see below)",
    )
    add(
        "--output",
        metavar="FILE",
        help="write here instead; appears once all is done. With a folder or a pattern as input, a "
        "folder",
    )
    add(
        "--format",
        choices=FORMATS,
        help="text: spans marked in the text, or labels before it, for people, or a translation a "
        "line, several as `number ||| translation ||| score` (default); conll, of taggers: a "
        "token, a tab and its tag a line, a blank line after each sentence, nothing for a text "
        "without a word; tsv, of classifiers: a header, then label, probability and text of each; "
        "jsonl: everything, one object a line; parquet, of many files only: the same in columns",
    )
    add(
        "--explain",
        action="store_true",
        help="show below each text how much a classifier's attention gave to each word; with "
        "--format jsonl that is there without asking",
    )
    add(
        "--columns",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="number or name of the input's column with the tokens, or with a feature that the "
        "model needs, as in `--columns tokens=1 --columns pos=2`; of classifiers: with the text, "
        "as in `--columns text=review`; of translators: with the source, as in `--columns "
        "source=0` for the first of a table without a header, or `--columns source=en`",
    )
    add(
        "--lines",
        action="store_true",
        help="each line of the input is a text, whatever it looks like; answers to what is piped "
        "in then come at once",
    )
    _add_confidence(add)
    add("--device", default="auto", help="auto (default), cpu, or cuda")
    add(
        "--precision",
        choices=["exact", "fast"],
        default="exact",
        help="exact: float32 (default); fast: matrix products in bfloat16, which a GPU and a CPU "
        "with AVX512_BF16 do faster",
    )
    add(
        "--trust",
        action="store_true",
        help="allow the model to name classes of other packages, which runs their code",
    )
    _add_bulk(parser)
    add_search_arguments(parser)
    return parser


def _add_bulk(parser: Parser) -> None:
    add = parser.add_argument_group(
        "of many files",
        "--input names a folder or a pattern of parquet, JSON lines or texts a line, and --output "
        "a folder. Every row is answered once, also where a worker is killed; bad rows are set "
        "aside with their reason; the same command again does what is left.",
    ).add_argument
    add(
        "--engine",
        metavar="NAME",
        help="local: processes of this machine (default); ray: a "
        "cluster of Ray, or a local one, which needs `pip install 'seqlab[ray]'`",
    )
    add("--workers", metavar="N", help="how many work at once (the cores that are there)")


def _add_confidence(add: Callable[..., Any]) -> None:
    add("--no-confidence", action="store_true", help="leave probabilities out; a little faster")
    add(
        "--min-confidence",
        type=float,
        metavar="P",
        help="withhold what the model is less sure of, 0 to 1: spans are left out, tags without "
        "spans are written ?, texts get no label",
    )
    add(
        "--target-precision",
        type=float,
        metavar="P",
        help="the same with the confidence above which this share of the answers, such as 0.95, "
        "was right on the validation split of the training",
    )
    add(
        "--cascade",
        metavar="SMALL,LARGE",
        help="in place of MODEL two of them: the small one answers where it is sure, and the large "
        "one elsewhere",
    )
    add(
        "--threshold",
        metavar="P",
        default="auto",
        help="of --cascade: how sure the small one must be, 0 to 1; auto (default) tries "
        "thresholds on the validation split of their training and takes the cheapest that scores "
        "no less than the better of the two alone",
    )


def parse(argv: Sequence[str]) -> Options:
    """Read and check the arguments; nothing is loaded yet.

    Args:
        argv: the arguments after the verb.

    Raises:
        UsageError: they are wrong or contradict each other, or there is nothing to read.
        DataError: the input file does not exist, or is a folder.
    """
    argv = list(argv)
    end = argv.index("--") if "--" in argv else len(argv)  # of the options
    given = _parser().parse_intermixed_args(argv[:end])
    words = given.words + argv[end + 1 :]
    if given.cascade is not None:
        words = [given.cascade, *words]
    if not words:
        raise UsageError("no MODEL is given: name a run folder or a bundle.")
    model, *texts = words
    source: str | None = given.input
    if source is None and not texts:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("nothing to tag: give a text, `--input FILE`, or pipe text in.")
        source = "-"
    if texts and (source is not None or given.lines or given.columns):
        raise UsageError(
            f"TEXT {texts[0]!r} is given beside --input, --lines or --columns, which are "
            "about a file: give either texts or a file; quote a text that has spaces."
        )
    if given.lines and given.columns:
        raise UsageError("--lines reads raw text, which has no --columns: leave one of them out.")
    _check_shares(given)
    model, large = _models(given, model)
    output = None if given.output in (None, "-") else given.output
    many = source is not None and is_many(source)
    form, workers = _bulk(given, output, many)
    if source not in (None, "-") and not many:
        _check_files(source, output)
    return Options(
        model=model,
        texts=texts,
        input=source,
        output=output,
        form=form,
        columns=dict(_column(item) for item in given.columns),
        lines=given.lines,
        device=given.device,
        confidence=not given.no_confidence,
        precision=given.precision,
        explain=given.explain,
        min_confidence=given.min_confidence,
        target_precision=given.target_precision,
        cascade=large,
        threshold=None if given.threshold == "auto" else float(given.threshold),
        trust=given.trust,
        search=_searched(given),
        many=many,
        engine=given.engine or "local",
        workers=workers,
    )


def is_many(source: str) -> bool:
    """Say whether an input is many files: a folder or a pattern.

    Args:
        source: as the command line has it.
    """
    return os.path.isdir(source) or (not os.path.exists(source) and glob.has_magic(source))


def _bulk(given: Namespace, output: str | None, many: bool) -> tuple[str, int | None]:
    """Check what goes with many files, and what does not; return format and workers."""
    if given.engine is not None and given.engine not in ENGINES:
        near = nearest(given.engine, ENGINES)
        raise UsageError(f"--engine is {given.engine!r}: choose {' or '.join(ENGINES)}.{near}")
    workers = None if given.workers is None else _workers(given.workers)
    form = given.format or ("jsonl" if many else "text")
    if not many:
        flag = "--engine" if given.engine else "--workers" if workers else None
        if flag or form == "parquet":
            raise UsageError(
                f"{flag or '--format parquet'} is for many files: give --input a folder or a "
                "pattern, as in `--input 'DIR/*.parquet'`, or leave it out."
            )
        return form, None
    if output is None:
        raise UsageError(f"--input {given.input} is many files: name a folder with --output.")
    if form not in _BULK_FORMATS:
        raise UsageError(f"--format {form} is for one file: use jsonl or parquet, or leave it out.")
    for name in ("cascade", "explain", "check_invariance"):
        if getattr(given, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is for one file, and {given.input} is many: leave it out.")
    return form, workers


def _workers(value: str) -> int:
    if not re.fullmatch("[0-9]+", value) or not int(value):
        raise UsageError(f"--workers is {value}: it must be 1 or more.")
    return int(value)


def _check_shares(given: Namespace) -> None:
    if given.min_confidence is not None and given.target_precision is not None:
        raise UsageError(
            "--min-confidence and --target-precision both say which answers are withheld: leave "
            "one of them out."
        )
    for name in ("min_confidence", "target_precision"):
        value = getattr(given, name)
        if value is not None and not 0.0 <= value <= 1.0:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is {value:g}: it must be from 0 to 1, as in `{flag} 0.95`.")


def _models(given: Namespace, model: str) -> tuple[str, str | None]:
    """Tell the models of a cascade apart, and check what goes with one."""
    if given.cascade is None:
        if given.threshold != "auto":
            raise UsageError("--threshold goes with --cascade: for one model there is none.")
        return model, None
    small, comma, large = (part.strip() for part in given.cascade.partition(","))
    if not (small and comma and large) or "," in large:
        raise UsageError(
            f"--cascade {given.cascade}: write two models with a comma between, the small one "
            "first, as in `--cascade runs/ner/latest,runs/ner-bert/latest`."
        )
    if given.no_confidence:
        raise UsageError(
            "--no-confidence: a cascade goes by the confidences of its small model: leave it out."
        )
    if given.target_precision is not None:
        raise UsageError(
            "--target-precision is about one model, and a cascade has two: use --min-confidence."
        )
    if given.threshold != "auto":
        try:
            known = float(given.threshold) >= 0.0
        except ValueError:
            known = False
        if not known:
            raise UsageError(
                f"--threshold is {given.threshold!r}: write auto, or a number from 0 to 1."
            )
    return small, large


def _searched(given: Namespace) -> SearchArguments:
    found = search_arguments(given)
    if found.check_invariance and given.precision != "exact":
        raise UsageError(
            "--check-invariance needs --precision exact: with fast, numbers may depend a little on "
            "the batch."
        )
    return found


def _column(item: str) -> tuple[str, int | str]:
    name, equals, value = item.partition("=")
    if not (name and equals and value):
        raise UsageError(f"--columns {item}: write NAME=VALUE, as in `--columns pos=1`.")
    return name, int(value) if re.fullmatch(r"-?[0-9]+", value) else value


def _check_files(source: str, output: str | None) -> None:
    if not os.path.exists(source) or os.path.isdir(source):
        what = "it is a folder" if os.path.isdir(source) else "there is no such file"
        raise DataError(f"cannot read {source}: {what}.")
    for path in [] if output is None else [Path(output), partial_of(Path(output))]:
        if path.is_file() and os.path.samefile(path, source):
            raise UsageError(f"--input and --output are the same file, {path}: choose another.")

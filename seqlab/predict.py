"""``seqlab predict``: text or files in; marked text, labels, tables or JSON out, line by line.

What needs torch is imported in functions, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seqlab.data.rows import Dirt
from seqlab.errors import DataError, Parser, UsageError
from seqlab.output import destination, partial_of
from seqlab.printing import as_conll, as_jsonl, as_text, as_tsv, weighed_words
from seqlab.reading import Reader

if TYPE_CHECKING:
    from seqlab.labelled import Labelled
    from seqlab.nn.precision import Precision
    from seqlab.pipeline import Pipeline

_PROGRESS_EVERY = 0.5  # seconds
_Write = Callable[[Any, int], bytes]  # a result and its number to what is written
_TAGGED: dict[str, _Write] = {"text": as_text, "conll": as_conll, "jsonl": as_jsonl}
_LABELLED: dict[str, _Write] = {"text": as_text, "tsv": as_tsv, "jsonl": as_jsonl}


class Load(Protocol):
    """How a name or a path becomes a pipeline."""

    def __call__(self, model: str, *, device: str) -> Pipeline[Any]:
        """Load a model."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Args:
        model: run folder, bundle or name.
        texts: given as arguments.
        input: a file; ``-`` for standard input; ``None`` where texts are given.
        output: a file, or ``None`` for standard output.
        form: ``text``, ``conll``, ``tsv`` or ``jsonl``.
        columns: which column holds the tokens and each feature, or the text.
        lines: whether each line of the input is a text, whatever it looks like.
        device: where the model runs.
        confidence: whether probabilities are wanted.
        precision: ``exact`` or ``fast``.
        explain: whether the attention weight of every word is wanted.
        trust: whether the model may name classes of other packages.
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


def run(argv: Sequence[str], load: Load | None = None) -> int:
    """Run ``seqlab predict``.

    Args:
        argv: the arguments after the verb.
        load: makes a pipeline of a model's name; :func:`seqlab.load` unless given.

    Returns:
        the exit code, 0. Also where whoever reads the output stops reading.

    Raises:
        UsageError: the command is written wrongly.
        SeqlabError: the model or the input cannot be read, or the output cannot be written.
    """
    options = parse(argv)
    from seqlab.nn.kernels.allocator import keep_memory

    keep_memory()
    load = load or partial(_load, trust=options.trust)
    pipeline = load(options.model, device=options.device)
    pipeline.confidence = options.confidence
    pipeline.precision = options.precision
    whole = _is_classifier(pipeline)
    written = _writer(pipeline, options)
    reader = Reader(pipeline, options.columns, options.lines, whole, dirt := Dirt())
    results = (
        reader.of_texts(options.texts) if options.input is None else reader.of_file(options.input)
    )
    unit = "texts" if whole else "sentences"
    counted = _counted(results, unit if _shows_progress(options) else None)
    with destination(options.output) as write:
        for number, result in enumerate(counted, 1):
            write(written(result, number))
    for sentence in dirt.sentences():
        print(sentence, file=sys.stderr)
    return 0


def _load(model: str, *, device: str, trust: bool) -> Pipeline[Any]:
    from seqlab.zoo import load

    return load(model, device=device, trust=trust)


def _is_classifier(pipeline: Pipeline[Any]) -> bool:
    from seqlab.models.classifier import Classifier

    return isinstance(pipeline.model, Classifier)


def _writer(pipeline: Pipeline[Any], options: Options) -> _Write:
    """Choose what writes a result; what the model cannot give or use is refused."""
    whole = _is_classifier(pipeline)
    kind, forms = ("classifier", _LABELLED) if whole else ("tagger", _TAGGED)
    if options.form not in forms:
        *first, last = forms
        what = "a tag for every token" if whole else "a label for every text"
        raise UsageError(
            f"--format {options.form} writes {what}, and {options.model} is a {kind}: use "
            f"{', '.join(first)} or {last}."
        )
    other = next((name for name in options.columns if whole and name != "text"), None)
    if other is not None:
        raise UsageError(
            f"--columns {other}: {options.model} is a classifier, which reads one column, the "
            "`text`; name that, as in `--columns text=review`."
        )
    if options.explain:
        _check_attention(pipeline, options)
    if options.form == "tsv":
        return partial(as_tsv, confidence=options.confidence)
    return (
        _explainer(options) if options.explain and options.form == "text" else forms[options.form]
    )


def _check_attention(pipeline: Pipeline[Any], options: Options) -> None:
    from seqlab.labelled import has_attention
    from seqlab.models.classifier import Classifier

    if not isinstance(pipeline.model, Classifier):
        raise UsageError(
            f"--explain shows the attention of a classifier, and {options.model} is a tagger: "
            "leave it out."
        )
    if not has_attention(pipeline.model):
        raise UsageError(
            f"--explain shows attention weights, and {options.model} has none: leave it out, or "
            "train the model with model.pooling attention."
        )
    if options.form == "tsv":
        raise UsageError("--explain is for the formats text and jsonl, not tsv: leave it out.")


def _explainer(options: Options) -> _Write:
    """Write words and their weights below each text, in colour on a terminal only."""
    from seqlab.explain.colours import plain
    from seqlab.explain.terminal import Look, look

    how = look() if options.output is None else Look()
    paint = None if how.paint is plain else how.paint

    def write(labelled: Labelled, number: int) -> bytes:
        words = weighed_words(labelled.tokens, labelled.attention or [], how.columns, paint)
        return as_text(labelled, number) + words.encode()

    return write


def _parser() -> Parser:
    parser = Parser(
        prog="seqlab predict",
        usage="seqlab predict MODEL [TEXT ...] [options]",
        description="Tag or classify texts given as arguments, in a file, or piped in.",
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
        "What is piped in and is not raw text is first kept in a temporary file",
    )
    add("--output", metavar="FILE", help="write here instead; appears once all is done")
    add(
        "--format",
        choices=list(_TAGGED | _LABELLED),
        default="text",
        help="text: spans marked in the text, or labels before it, for people (default); conll, of "
        "taggers: a token, a tab and its tag a line, a blank line after each sentence, nothing for "
        "a text without a word; tsv, of classifiers: a header, then label, probability and text of "
        "each; jsonl: everything, one object a line",
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
        "as in `--columns text=review`",
    )
    add(
        "--lines",
        action="store_true",
        help="each line of the input is a text, whatever it looks like; answers to what is piped "
        "in then come at once",
    )
    add("--device", default="auto", help="auto (default), cpu, or cuda")
    add("--no-confidence", action="store_true", help="leave probabilities out; a little faster")
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
    return parser


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
    output = None if given.output in (None, "-") else given.output
    if source not in (None, "-"):
        _check_files(source, output)
    return Options(
        model=model,
        texts=texts,
        input=source,
        output=output,
        form=given.format,
        columns=dict(_column(item) for item in given.columns),
        lines=given.lines,
        device=given.device,
        confidence=not given.no_confidence,
        precision=given.precision,
        explain=given.explain,
        trust=given.trust,
    )


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


def _shows_progress(options: Options) -> bool:
    """Show it where the work may be long and nothing else is written to the terminal."""
    free = options.output is not None or not sys.stdout.isatty()
    return options.input not in (None, "-") and sys.stderr.isatty() and free


def _counted(results: Iterator[Any], unit: str | None) -> Iterator[Any]:
    """Pass results on, with a line on standard error that counts them unless there is no unit."""
    started = said = time.monotonic()
    tokens = 0
    for count, result in enumerate(results, 1):
        yield result
        tokens += len(result.tokens)
        now = time.monotonic()
        if unit and now - said >= _PROGRESS_EVERY:
            rate = tokens / (now - started)
            print(f"\r{count:,} {unit}, {rate:,.0f} tokens/s ", end="", file=sys.stderr, flush=True)
            said = now
    if unit and said > started:
        print(file=sys.stderr)

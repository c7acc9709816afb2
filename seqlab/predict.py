"""``seqlab predict``: text or files in; marked text, columns or JSON out, as it is computed.

What needs torch is imported in functions, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from seqlab.data.formats import Dirt, read_rows, sniff
from seqlab.data.lines import lines_of
from seqlab.errors import DataError, UsageError
from seqlab.output import destination, partial_of

if TYPE_CHECKING:
    from seqlab.pipeline import Pipeline, Sentence, Tagged

_HEAD = 1 << 18  # bytes of a stream that are looked at to tell its format
_PIECE = 1 << 16  # bytes that are taken from a stream at once, at most
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_PROGRESS_EVERY = 0.5  # seconds


class Load(Protocol):
    """How a name or a path becomes a pipeline."""

    def __call__(self, model: str, *, device: str) -> Pipeline:
        """Load a model."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Args:
        model: run folder, bundle or name.
        texts: given as arguments.
        input: a file; ``-`` for standard input; ``None`` where texts are given.
        output: a file, or ``None`` for standard output.
        form: ``text``, ``conll`` or ``jsonl``.
        columns: which column holds the tokens and each feature.
        lines: whether each line of the input is a text, whatever it looks like.
        device: where the model runs.
        confidence: whether probabilities are wanted.
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
    load = load or partial(_load, trust=options.trust)
    pipeline = load(options.model, device=options.device)
    pipeline.confidence = options.confidence
    dirt = Dirt()
    written = _FORMATS[options.form]
    results = _counted(_results(pipeline, options, dirt), _shows_progress(options))
    with destination(options.output) as write:
        for number, tagged in enumerate(results, 1):
            write(written(tagged, number))
    for sentence in dirt.sentences():
        print(sentence, file=sys.stderr)
    return 0


def _load(model: str, *, device: str, trust: bool) -> Pipeline:
    from seqlab.zoo import load

    return load(model, device=device, trust=trust)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="seqlab predict",
        usage="seqlab predict MODEL [TEXT ...] [options]",
        description="Tag texts given as arguments, in a file, or piped in.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    # One list: as two arguments, options between them would end the second.
    add(
        "words",
        metavar="MODEL TEXT",
        nargs="*",
        help="the model, a run folder or a bundle; and the texts to tag, each one sequence",
    )
    add(
        "--input",
        metavar="FILE",
        help="a file of any format that can be trained on, tags not needed, or raw text with one "
        "sequence a line; - is standard input, the default where something is piped in. What is "
        "piped in and is not raw text is first kept in a temporary file",
    )
    add("--output", metavar="FILE", help="write here instead; appears once all is done")
    add(
        "--format",
        choices=list(_FORMATS),
        default="text",
        help="text: spans marked in the text, for people (default); conll: a token, a tab and its "
        "tag a line, a blank line after each sentence, nothing for a text without a word; jsonl: "
        "everything, one object a line",
    )
    add(
        "--columns",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="number or name of the input's column with the tokens, or with a feature that the "
        "model needs, as in `--columns tokens=1 --columns pos=2`",
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
        UsageError: they are wrong or contradict each other, or there is nothing to tag.
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


def _results(pipeline: Pipeline, options: Options, dirt: Dirt) -> Iterator[Tagged]:
    from seqlab.pipeline import Sentence

    if options.input is None:
        yield from pipeline.stream(map(Sentence.of, options.texts))
    elif options.input == "-":
        stream = cast(io.BufferedReader, sys.stdin.buffer)
        at_once = options.lines or sys.stdin.isatty()
        yield from _of_stream(pipeline, stream, "standard input", at_once, options, dirt)
    elif not os.path.isfile(options.input):  # a pipe, which can be read only once
        with open(options.input, "rb") as stream:
            yield from _of_stream(pipeline, stream, options.input, options.lines, options, dirt)
    else:
        yield from pipeline.stream(_sentences(Path(options.input), options, dirt))


def _sentences(path: Path, options: Options, dirt: Dirt) -> Iterator[Sentence]:
    from seqlab.pipeline import Sentence

    if options.lines or (not options.columns and sniff(path) == "text"):
        for _, line in lines_of(path):
            yield Sentence.of(line)
        return
    for row in read_rows(path, options.columns, dirt=dirt, tagged=False):
        yield Sentence(row.tokens, row.features, row.text, row.offsets)


def _of_stream(
    pipeline: Pipeline,
    stream: io.BufferedReader,
    name: str,
    at_once: bool,
    options: Options,
    dirt: Dirt,
) -> Iterator[Tagged]:
    """Tag what is piped in: raw text as it comes, anything else by way of a temporary file."""
    if at_once:
        yield from _of_lines(pipeline, b"", stream, name)
        return
    head = stream.read(_HEAD)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(name).name.replace(" ", "-")
        try:
            # Of what is longer only whole lines are judged; packed data cannot be cut anywhere.
            whole = len(head) if len(head) < _HEAD else head.rfind(b"\n") + 1 or len(head)
            copy.write_bytes(head[:whole])
            if not head.startswith(_GZIP) and not options.columns and sniff(copy) == "text":
                yield from _of_lines(pipeline, head, stream, name)
                return
            with copy.open("ab") as file:
                file.write(head[whole:])
                shutil.copyfileobj(stream, file)
            yield from pipeline.stream(_sentences(copy, options, dirt))
        except DataError as error:
            raise DataError(str(error).replace(str(copy), name)) from error


def _of_lines(
    pipeline: Pipeline, head: bytes, stream: io.BufferedReader, name: str
) -> Iterator[Tagged]:
    from seqlab.pipeline import Sentence

    number = 0
    for lines in _whole_lines(head, stream):
        sentences = []
        for line in lines:
            number += 1
            line = line.removeprefix(_BOM) if number == 1 else line
            try:
                sentences.append(Sentence.of(line.removesuffix(b"\r").decode("utf-8")))
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{name}:{number}: not UTF-8 ({error.reason} at byte {error.start + 1} of the "
                    "line); convert it, for example with `iconv -f LATIN1 -t UTF-8`."
                ) from error
        yield from pipeline.stream(sentences)


def _whole_lines(head: bytes, stream: io.BufferedReader) -> Iterator[list[bytes]]:
    """Give lines as they come, many at once where they come faster than they are tagged."""
    begun: list[bytes] = []
    piece = head or stream.read1(_PIECE)
    while piece:
        first, *others = piece.split(b"\n")
        begun.append(first)
        if others:
            last = others.pop()
            yield [b"".join(begun), *others]
            begun = [last]
        piece = stream.read1(_PIECE)
    if rest := b"".join(begun):
        yield [rest]


def _as_text(tagged: Tagged, number: int) -> bytes:
    return _encoded(f"{tagged}\n", number)


def _as_conll(tagged: Tagged, number: int) -> bytes:
    for token in tagged.tokens:
        if re.search(r"[\t\n\r]", token):
            raise DataError(
                f"sentence {number}: the token {token!r} holds a tab or a line break, which "
                "columns cannot hold; use --format jsonl."
            )
    lines = [f"{token}\t{tag}\n" for token, tag in zip(tagged.tokens, tagged.tags, strict=True)]
    return _encoded("".join([*lines, "\n"]) if lines else "", number)


def _as_jsonl(tagged: Tagged, number: int) -> bytes:
    data = tagged.to_dict()
    try:
        return (json.dumps(data, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a character: JSON can hold it, UTF-8 cannot
        return (json.dumps(data) + "\n").encode()


def _encoded(text: str, number: int) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"sentence {number} holds {text[error.start]!r}, half of a character, which UTF-8 "
            "cannot hold; use --format jsonl."
        ) from error


_FORMATS: dict[str, Callable[[Tagged, int], bytes]] = {
    "text": _as_text,
    "conll": _as_conll,
    "jsonl": _as_jsonl,
}


def _shows_progress(options: Options) -> bool:
    """Show it where the work may be long and nothing else is written to the terminal."""
    free = options.output is not None or not sys.stdout.isatty()
    return options.input not in (None, "-") and sys.stderr.isatty() and free


def _counted(results: Iterator[Tagged], shown: bool) -> Iterator[Tagged]:
    """Pass results on, with a line on standard error that counts them."""
    started = said = time.monotonic()
    tokens = 0
    for sentences, tagged in enumerate(results, 1):
        yield tagged
        tokens += len(tagged.tokens)
        now = time.monotonic()
        if shown and now - said >= _PROGRESS_EVERY:
            rate = tokens / (now - started)
            line = f"\r{sentences:,} sentences, {rate:,.0f} tokens/s "
            print(line, end="", file=sys.stderr, flush=True)
            said = now
    if shown and said > started:
        print(file=sys.stderr)

"""``seqlab predict`` with a translator: texts in, translations out, line by line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from seqlab.data.rows import Dirt
from seqlab.data.untranslated import is_records, read_untranslated
from seqlab.errors import DataError, UsageError
from seqlab.invariance import check_invariance
from seqlab.output import destination
from seqlab.predict_options import Load, Options
from seqlab.printing import as_jsonl
from seqlab.progress import counted, shows_progress
from seqlab.reading import Reader
from seqlab.translated import Translated
from seqlab.translation_pipeline import Input, TranslationPipeline, Wishes

_FORMATS = ("text", "jsonl")
_LONG = 1_000  # pieces; sentences to train on are far shorter
_COMPARED = 1_000  # texts that are translated again and again to be compared
_Write = Callable[[Translated, int], bytes]


@dataclass(frozen=True)
class SourceReader(Reader):
    """Reads files and streams of texts to translate.

    Args:
        language: of the texts, as records may name it.
    """

    language: str | None = None

    def of_line(self, line: str) -> Input:
        """Take a line as it is."""
        return line

    def is_lines(self, path: Path) -> bool:
        """Say whether each line of a file is a text: whatever is no record, unless told."""
        return self.lines or not (self.columns or is_records(path))

    def items(self, path: Path) -> Iterator[Input]:
        """Read texts, with the wishes that records have."""
        column = self.columns.get("source")
        for row in read_untranslated(path, column, self.language, self.lines):
            if not (row.prefix or row.require or row.ban):
                yield row.text
                continue
            try:
                wishes = Wishes(row.prefix, row.require, row.ban)
            except UsageError as error:
                raise DataError(f"{row.place}: {error}") from error
            yield row.text, wishes


def run(pipeline: TranslationPipeline, options: Options, load: Load) -> int:
    """Translate what the command line gives.

    Args:
        pipeline: of the model that it names first.
        options: the command line.
        load: makes pipelines of the names of further models.

    Returns:
        the exit code: 0, or 1 where batches change results and `--check-invariance` is given.

    Raises:
        UsageError: the options do not fit the model or each other.
        SeqlabError: the input cannot be read, or the output cannot be written.
    """
    check_options(options)
    search = options.search
    pipeline.check_languages(search.source_language, search.target_language)
    if search.ensemble:
        pipeline = _together(pipeline, options, load)
    pipeline.options = search.options(pipeline.options)
    pipeline.precision = options.precision
    pipeline.alignments = search.alignments
    pipeline.replace_unknown = search.replace_unknown
    if search.check_invariance:
        return _compare(pipeline, options)
    _translate(pipeline, options)
    return 0


def check_options(options: Options) -> None:
    """Refuse what is for other models.

    Args:
        options: the command line.

    Raises:
        UsageError: it asks for what a translator cannot give.
    """
    model = f"and {options.model} is a translator"
    if options.form not in _FORMATS:
        what = "a tag for every token" if options.form == "conll" else "a label for every text"
        raise UsageError(f"--format {options.form} writes {what}, {model}: use text or jsonl.")
    if options.explain:
        raise UsageError(
            f"--explain shows the attention of a classifier, {model}: use --alignments, or `seqlab "
            "explain`."
        )
    for flag, value in (
        ("--min-confidence", options.min_confidence),
        ("--target-precision", options.target_precision),
    ):
        if value is not None:
            raise UsageError(f"{flag} withholds tags and labels, {model}: leave it out.")
    if not options.confidence:
        raise UsageError(
            f"--no-confidence leaves out the probabilities of tags and labels, {model}: leave it "
            "out."
        )
    other = next((name for name in options.columns if name != "source"), None)
    if other is not None:
        raise UsageError(
            f"--columns {other}: {options.model} is a translator, which reads one column, the "
            "`source`; name that, as in `--columns source=0`."
        )


def _together(pipeline: TranslationPipeline, options: Options, load: Load) -> TranslationPipeline:
    """Load the other models of an ensemble."""
    models = list(pipeline.models)
    for name in options.search.ensemble:
        other = load(name, device=options.device)
        if not isinstance(other, TranslationPipeline):
            from seqlab.networks.base import kind_of

            raise UsageError(
                f"--ensemble {name}: that is a {kind_of(other.model)}, and only translators "
                f"translate together with {options.model}."
            )
        models.append(other.model)
    return TranslationPipeline(models, device=options.device)


def _answers(
    options: Options,
    pipeline: TranslationPipeline,
    answer: Callable[[Iterable[Input], int], Iterator[Any]],
) -> Iterator[Any]:
    """Read the input and answer it."""
    language = pipeline.model.source_vocab.language
    reader = SourceReader(answer, options.columns, options.lines, Dirt(), language=language)
    if options.input is None:
        return reader.of_texts(options.texts)
    return reader.of_file(options.input)


def _translate(pipeline: TranslationPipeline, options: Options) -> None:
    wishes = options.search.wishes()

    def answer(items: Iterable[Input], first: int) -> Iterator[Translated]:
        return pipeline.stream(items, wishes, first)

    results = _answers(options, pipeline, answer)
    unit = "texts" if shows_progress(options.input, options.output) else None
    written = _writer(options)
    notes = _Notes()
    with destination(options.output) as write:
        for found in counted(results, unit, lambda found: len(found.source_pieces)):
            notes.count(found)
            write(written(found, notes.texts))
        if not notes.texts:
            raise _nothing(options)
    for sentence in notes.sentences():
        print(f"seqlab: {sentence}", file=sys.stderr)


def _nothing(options: Options) -> DataError:
    name = "standard input" if options.input == "-" else options.input
    return DataError(f"{name} holds no text: give a text a line.")


def _compare(pipeline: TranslationPipeline, options: Options) -> int:
    """Print whether batches change the translations of the input."""
    if "n_best" not in options.search.search:
        pipeline.options = replace(pipeline.options, n_best=pipeline.options.beam)
    items: Iterator[Input] = _answers(options, pipeline, lambda items, first: iter(items))
    texts = list(islice(items, _COMPARED))
    if not texts:
        raise _nothing(options)
    left_out = next(items, None) is not None
    report = check_invariance(pipeline, texts, options.search.wishes())
    with destination(options.output) as write:
        shown = json.dumps(report.to_dict()) if options.form == "jsonl" else str(report)
        write(f"{shown}\n".encode())
    if left_out:
        print(f"seqlab: only the first {_COMPARED:,} texts were compared.", file=sys.stderr)
    return 0 if report.holds else 1


class _Notes:
    """What is to be said once all is translated."""

    def __init__(self) -> None:
        self.texts = 0
        self._unknown = self._long = 0
        self._longest = (0, 0)  # pieces, and minus the number of the text

    def count(self, found: Translated) -> None:
        """Take in a result."""
        self.texts += 1
        self._unknown += found.unknown
        pieces = len(found.source_pieces)
        self._long += pieces > _LONG
        self._longest = max(self._longest, (pieces, -self.texts))

    def sentences(self) -> Iterator[str]:
        """Say what was odd."""
        if self._unknown:
            yield (
                f"{self._unknown:,} {'piece' if self._unknown == 1 else 'pieces'} of the input "
                "were unknown to the model, which cannot translate them."
            )
        if self._long:
            pieces, number = self._longest[0], -self._longest[1]
            others = (
                f", and {self._long - 1:,} others more than {_LONG:,}" if self._long > 1 else ""
            )
            yield (
                f"text {number:,} has {pieces:,} pieces{others}: no training has such long ones; "
                "cut it into sentences."
            )


def _writer(options: Options) -> _Write:
    """Choose what writes a result; it gets numbers from 1."""
    search = options.search
    if options.form == "jsonl":
        return as_jsonl
    if search.several:
        return _as_moses
    return _as_line


def _as_line(found: Translated, number: int) -> bytes:
    """Write a translation, and where there are any, after a tab its alignments."""
    aligned = found.hypotheses[0].alignment is not None
    return f"{found}{f'{chr(9)}{found.alignments()}' if aligned else ''}\n".encode()


def _as_moses(found: Translated, number: int) -> bytes:
    """Write several translations as Moses does, the texts numbered from 0."""
    lines = []
    for which, hypothesis in enumerate(found.hypotheses):
        cells = [str(number - 1), hypothesis.text, f"{hypothesis.score:.4f}"]
        if hypothesis.alignment is not None:
            cells.append(found.alignments(which))
        lines.append(" ||| ".join(cells) + "\n")
    return "".join(lines).encode()

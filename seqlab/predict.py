"""``seqlab predict``: text or files in; marked text, labels, tables or JSON out, line by line.

Translators have a module of their own, :mod:`seqlab.predict_translations`.

What needs torch is imported in functions, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from seqlab.data.rows import Dirt
from seqlab.errors import UsageError
from seqlab.output import destination
from seqlab.predict_options import Load, Options, parse
from seqlab.printing import as_conll, as_jsonl, as_text, as_tsv, weighed_words
from seqlab.progress import counted, shows_progress
from seqlab.reading import Reader

if TYPE_CHECKING:
    from seqlab.labelled import Labelled
    from seqlab.pipeline import Pipeline, Served
    from seqlab.translation_pipeline import TranslationPipeline

__all__ = ["Load", "Options", "parse", "run"]

_SHAPES = 512  # of products that are kept: a search's numbers of hypotheses come again
_Write = Callable[[Any, int], bytes]  # a result and its number to what is written
_TAGGED: dict[str, _Write] = {"text": as_text, "conll": as_conll, "jsonl": as_jsonl}
_LABELLED: dict[str, _Write] = {"text": as_text, "tsv": as_tsv, "jsonl": as_jsonl}


def run(argv: Sequence[str], load: Load | None = None) -> int:
    """Run ``seqlab predict``.

    Args:
        argv: the arguments after the verb.
        load: makes a pipeline of a model's name; :func:`seqlab.load` unless given.

    Returns:
        the exit code, 0. Also where whoever reads the output stops reading. 1 where a translator
        fails `--check-invariance`, or one of many files cannot be read.

    Raises:
        UsageError: the command is written wrongly.
        SeqlabError: the model or the input cannot be read, or the output cannot be written.
    """
    options = parse(argv)
    from seqlab.nn.kernels.allocator import keep_memory, keep_products

    keep_memory()
    keep_products(_SHAPES)
    if options.search.flags:
        options.search.wishes()  # contradictions are told before anything is loaded
    load = load or partial(_load, trust=options.trust)
    if options.many:
        from seqlab.bulk import run as answer_all

        return answer_all(options, load)
    pipeline = load(options.model, device=options.device)
    if options.cascade is not None:
        from seqlab.predict_cascade import cascade_of, told

        cascade = cascade_of(pipeline, load(options.cascade, device=options.device), options)
        _tag(cascade.small, cascade, options)
        told(cascade)
        return 0
    from seqlab.translation_pipeline import TranslationPipeline

    if isinstance(pipeline, TranslationPipeline):
        from seqlab.predict_translations import run as translate

        return translate(pipeline, options, load)
    _withhold(pipeline, options)
    _tag(pipeline, pipeline, options)
    return 0


def _tag(pipeline: Pipeline[Any], served: Served[Any], options: Options) -> None:
    """Tag or classify what is given, by a pipeline or by what begins with one."""
    pipeline.confidence = options.confidence
    pipeline.precision = options.precision
    whole = _is_classifier(pipeline)
    written = _writer(pipeline, options)
    reader = Reader(
        lambda items, first: served.stream(items),
        options.columns,
        options.lines,
        dirt := Dirt(),
        whole,
    )
    results = (
        reader.of_texts(options.texts) if options.input is None else reader.of_file(options.input)
    )
    unit = "texts" if whole else "sentences"
    shown = unit if shows_progress(options.input, options.output) else None
    results = counted(results, shown, lambda result: len(result.tokens))
    with destination(options.output) as write:
        for number, result in enumerate(results, 1):
            write(written(result, number))
    for sentence in dirt.sentences():
        print(sentence, file=sys.stderr)


def _withhold(pipeline: Pipeline[Any], options: Options) -> None:
    """Say below which confidence answers are withheld."""
    if options.min_confidence is not None:
        pipeline.min_confidence = options.min_confidence
    if options.target_precision is not None:
        point = pipeline.at_precision(options.target_precision)
        print(
            f"seqlab: answers with a confidence below {point.confidence:.4f} are withheld; on the "
            f"validation split {point.kept:.1%} were kept, and {point.precision:.2%} of these "
            "were right.",
            file=sys.stderr,
        )


def _load(model: str, *, device: str, trust: bool) -> Pipeline[Any] | TranslationPipeline:
    from seqlab.zoo import load

    return load(model, device=device, trust=trust)


def _is_classifier(pipeline: Pipeline[Any]) -> bool:
    from seqlab.networks.classifier import ClassifierNetwork

    return isinstance(pipeline.model, ClassifierNetwork)


def _writer(pipeline: Pipeline[Any], options: Options) -> _Write:
    """Choose what writes a result; what the model cannot give or use is refused."""
    whole = _is_classifier(pipeline)
    kind, forms = ("classifier", _LABELLED) if whole else ("tagger", _TAGGED)
    if flags := options.search.flags:
        raise UsageError(
            f"{flags[0]} is for translators, and {options.model} is a {kind}: leave it out."
        )
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
    from seqlab.networks.classifier import ClassifierNetwork

    if not isinstance(pipeline.model, ClassifierNetwork):
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

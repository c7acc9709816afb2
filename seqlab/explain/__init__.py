"""``seqlab explain``: what the gates and states of a model do at every word of a text.

What needs torch is imported in functions, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from seqlab.errors import SeqlabError
from seqlab.explain.options import Options, parse, read_text
from seqlab.output import destination


def run(argv: Sequence[str]) -> int:
    """Run ``seqlab explain``.

    Args:
        argv: the arguments after the verb.

    Returns:
        the exit code, 0.

    Raises:
        UsageError: the command is written wrongly, the text is empty, or what is asked for is not
            there.
        SeqlabError: the model cannot be read or looked into, or the page cannot be written.
    """
    options = parse(argv)
    if options.cost:
        return _cost(options)
    text = read_text(options)
    from seqlab.bundle import load_bundle
    from seqlab.explain.terminal import look
    from seqlab.zoo import model_folder

    model = load_bundle(model_folder(options.model), trust=options.trust, trainable=False)
    explain, page_of, picture_of = _ways(model)
    if options.html is None:
        found = explain(model, text, options)
    else:
        with destination(options.html) as write:  # opened first: a wrong name is told at once
            found = explain(model, text, options)
            write(page_of(found, options.model).encode())
    if found.view.note:
        print(f"seqlab: {found.view.note}", file=sys.stderr)
    with destination(None) as write:
        if options.json:
            write((json.dumps(found.to_dict()) + "\n").encode())
        elif options.html is not None:
            write(f"{options.html}\n".encode(errors="surrogateescape"))
        else:
            write(picture_of(found, look()).encode())
    return 0


def _ways(
    model: object,
) -> tuple[Callable[..., Any], Callable[..., str], Callable[..., str]]:
    """Say what looks at a model, and what makes a page and a picture of what was found."""
    from seqlab.networks.translator import TranslatorNetwork

    if isinstance(model, TranslatorNetwork):
        from seqlab.explain.translation import explain_translation
        from seqlab.explain.translation_page import translation_page_of
        from seqlab.explain.translation_terminal import translation_picture_of

        return explain_translation, translation_page_of, translation_picture_of
    from seqlab.explain.explanation import explain
    from seqlab.explain.page import page_of
    from seqlab.explain.terminal import picture_of

    return explain, page_of, picture_of


def _cost(options: Options) -> int:
    """Show what a model costs."""
    from seqlab.bundle import load_bundle
    from seqlab.explain.cost import cost_of
    from seqlab.explain.cost_table import table_of
    from seqlab.pipeline import Pipeline, is_served
    from seqlab.zoo import model_folder

    model = load_bundle(model_folder(options.model), trust=options.trust)
    if not is_served(model):
        from seqlab.networks.base import kind_of

        raise SeqlabError(
            f"what a {kind_of(model)} costs is not known: leave --cost out, or name a tagger "
            "or a classifier."
        )
    found = cost_of(Pipeline(model, device=options.device), options.tokens)
    data = {"path": options.model, **found.to_dict()}
    with destination(None) as write:
        shown = json.dumps(data) + "\n" if options.json else table_of(found, options.model)
        write(shown.encode(errors="surrogateescape"))
    return 0

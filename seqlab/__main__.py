"""The command line: verbs, help and exit codes. Standard library only until a verb runs."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

from seqlab import __version__

_HELP = f"""seqlab {__version__}: small, fast, trustworthy LSTM sequence models

usage: seqlab VERB ...

  fit RECIPE [--key value ...]         train, keep the best epoch, test it, leave runs/RECIPE/n
      --ckpt_path last                 go on with the newest run of the recipe
      --print_config                   show every key with its value
  validate MODEL [--data.path DIR]     score a model on the validation split
  test MODEL [--data.path DIR]         score a model on the test split
      --json                           print the scores as JSON
  predict MODEL [TEXT ...]             tag, classify or translate text; `seqlab predict --help`
      --input FILE|-  --output FILE  --format text|conll|tsv|jsonl
      --explain                        show how much a classifier's attention gave to each word
  explain MODEL TEXT                   show what gates and states do at every word, and why the
      --html FILE  --json              tags or the label; `seqlab explain --help` lists the options
  explain MODEL --cost                 show what every part costs: weights, work, memory, speed
  compare RUN RUN... | --recipes A B   say which model is better, how surely, and at what price
      --seeds N  --html FILE           `seqlab compare --help` lists the options
  package RUN --name N --version V     make a wheel of a model, which pip installs;
      --license ID  --quantize int8    `seqlab package --help` lists the options
  models [--json]                      list the installed models
  models info NAME | verify NAME       show the card of one, or check it against its receipt
  zoo [build NAME]                     list the models of the zoo, or train and pack one again
  recipes [NAME --copy PATH]           list the recipes that are shipped, or copy one

RECIPE is a YAML file or the name of a shipped recipe. MODEL is a run folder (runs/ner/latest), a
bundle, an installed model, or a recipe, which means its newest run. Any key of a recipe can be
overridden, such as --trainer.max_epochs 3 --data.path DIR --model.hidden_size 256.

  --help, --version, --debug (show the traceback of an error)
  --trust  after validate, test, predict, explain: let MODEL name classes that are not of seqlab
"""
_TRAINING = ("fit", "validate", "test")
_VERBS = (*_TRAINING, "predict", "explain", "compare", "package", "models", "zoo", "recipes")


def _recipes(argv: Sequence[str]) -> int:
    """List the shipped recipes, or copy one."""
    from seqlab.errors import UsageError
    from seqlab.recipe import copy_recipe, headline, shipped

    if not argv:
        for name, path in shipped().items():
            print(f"{name:18} {headline(path)}")
        return 0
    if len(argv) == 3 and argv[1] == "--copy":
        print(copy_recipe(argv[0], argv[2]))
        return 0
    raise UsageError("usage: `seqlab recipes` or `seqlab recipes NAME --copy PATH`.")


def _dispatch(verb: str, argv: Sequence[str]) -> int:
    """Run one verb."""
    from seqlab.errors import UsageError, nearest

    if verb == "recipes":
        return _recipes(argv)
    if verb == "predict":
        from seqlab.predict import run as predict

        return predict(argv)
    if verb == "explain":
        from seqlab.explain import run as explain

        return explain(argv)
    if verb == "compare":
        from seqlab.compare import run as compare

        return compare(argv)
    if verb == "package":
        from seqlab.package import run as package

        return package(argv)
    if verb == "models":
        from seqlab.catalogue import run as models

        return models(argv)
    if verb == "zoo":
        from seqlab.zoo_build import run as zoo

        return zoo(argv)
    if verb in _TRAINING:
        if verb == "fit" and argv and not argv[0].startswith("-"):
            from seqlab.recipe import find_recipe

            find_recipe(argv[0])  # a misspelt name is answered before the seconds that torch takes
        from seqlab.training import run

        return run(verb, argv)
    raise UsageError(
        f"unknown verb {verb!r}: use {', '.join(_VERBS)}.{nearest(verb, _VERBS)} "
        "`seqlab --help` explains them."
    )


def _seldom_collect() -> None:
    """Have a process of ours look for garbage seldom, and not at its end.

    Python's collector goes again and again through all that torch makes when imported, and finds
    nothing; that is a quarter of the time to the first answer (docs/zoo.md).
    """
    gc.set_threshold(50_000, 20, 100)
    atexit.register(gc.freeze)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after ``seqlab``; those of the process by default.

    Returns:
        0 done, 1 failed, 2 wrong usage.
    """
    if argv is None:
        _seldom_collect()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if words and words[0] == "--version":
        print(f"seqlab {__version__}")
        return 0
    asked = not words or words[0] in ("--help", "-h", "help")
    if asked or (words[0] in (*_TRAINING, "recipes") and {"--help", "-h"} & set(words)):
        print(_HELP, end="")
        return 0 if words else 2
    from seqlab.errors import SeqlabError

    try:
        return _dispatch(words[0], words[1:])
    except SeqlabError as error:
        if debug:
            raise
        print(f"seqlab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("seqlab: stopped by Ctrl-C.", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"seqlab: {place}{error.strerror or error}.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

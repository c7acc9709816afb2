"""What can go wrong, as sentences: every error names the place and the remedy.

The command line prints the message alone and ends with the error's ``exit_code``; a traceback comes
only with ``--debug``.
"""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Iterable
from typing import NoReturn


class SeqlabError(Exception):
    """Base of every error that seqlab raises on purpose; its message is meant for a person."""

    exit_code = 1


class UsageError(SeqlabError):
    """The command was written wrongly: an unknown verb, option or argument."""

    exit_code = 2


class RecipeError(SeqlabError):
    """A recipe, or an override of one, names a key, a class or a value that does not exist."""

    exit_code = 2


class DataError(SeqlabError):
    """A corpus, or a file of vectors, cannot be read: missing, empty, broken, inconsistent."""


class BundleError(SeqlabError):
    """A model on disk is missing, damaged, from another version, or asks for untrusted code."""


class TrainingError(SeqlabError):
    """Training cannot go on: the loss is not a number, the disk is full, the device is missing."""


class MissingExtraError(SeqlabError):
    """A feature needs a package that the base installation does not bring."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed: install it with `pip install 'seqlab[{extra}]'`."
        )


def check_range(key: str, value: float, low: float, below: float = math.inf) -> None:
    """Refuse a number of a recipe that is out of range.

    Args:
        key: where it stands in the recipe.
        value: the number.
        low: the least that it may be.
        below: what it must be less than.

    Raises:
        RecipeError: it is out of range, or not a number.

    Example:
        >>> check_range("model.dropout", 1.5, 0, 1)
        Traceback (most recent call last):
            ...
        seqlab.errors.RecipeError: model.dropout is 1.5: it must be 0 or more and less than 1.
    """
    if not low <= value < below:
        limit = "" if math.isinf(below) else f" and less than {below:g}"
        raise RecipeError(f"{key} is {value}: it must be {low:g} or more{limit}.")


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known name a mistyped one is close to.

    Args:
        word: the name that was not found.
        known: the names that exist.

    Returns:
        ``" Did you mean 'x'?"``, with a leading space, or an empty string when nothing is close.

    Example:
        >>> nearest("hiden_size", ["hidden_size", "dropout"])
        " Did you mean 'hidden_size'?"
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


class Parser(argparse.ArgumentParser):
    """A parser of command lines whose complaints are usage errors."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, in place of leaving the program."""
        raise UsageError(f"{message}; see `{self.prog} --help`.")

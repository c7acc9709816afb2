from __future__ import annotations

import pytest

from seqlab import errors
from seqlab.errors import MissingExtraError, SeqlabError, nearest

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SeqlabError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_caught_as_one_of_ours(kind: type[SeqlabError]) -> None:
    assert issubclass(kind, SeqlabError)
    assert not issubclass(kind, (ValueError, OSError, KeyError))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_usage_ends_with_2_and_everything_else_with_1(kind: type[SeqlabError]) -> None:
    assert kind.exit_code == (2 if kind.__name__ in {"UsageError", "RecipeError"} else 1)


def test_a_missing_extra_says_what_to_install() -> None:
    assert str(MissingExtraError("matplotlib", "plot")) == (
        "matplotlib is not installed: install it with `pip install 'seqlab[plot]'`."
    )


@pytest.mark.parametrize(
    ("word", "known", "sentence"),
    [
        ("hiden_size", ["dropout", "hidden_size"], " Did you mean 'hidden_size'?"),
        ("B-PRE", ("B-LOC", "B-PER"), " Did you mean 'B-PER'?"),
        ("xyz", ["dropout", "hidden_size"], ""),
        ("dropout", [], ""),
        ("", ["dropout"], ""),
    ],
)
def test_the_nearest_name_is_offered_where_one_is_close(
    word: str, known: list[str], sentence: str
) -> None:
    assert nearest(word, known) == sentence
    assert nearest(word, iter(known)) == sentence

from __future__ import annotations

from typing import Any

import pytest

from seqlab.errors import Parser, UsageError
from seqlab.nn.search import SearchOptions
from seqlab.search_arguments import FLAGS, SearchArguments, add_search_arguments, search_arguments
from seqlab.wishes import Wishes


def parsed(*argv: str) -> SearchArguments:
    parser = Parser(prog="seqlab predict", allow_abbrev=False)
    add_search_arguments(parser)
    return search_arguments(parser.parse_args(argv))


def test_nothing_given_leaves_all_to_the_model() -> None:
    found = parsed()
    own = SearchOptions(beam=7, length_penalty="wu", max_ratio=3.0)
    assert found == SearchArguments()
    assert found.options(own) == own
    assert (found.flags, found.several, found.wishes()) == ([], False, Wishes())


@pytest.mark.parametrize(
    ("argv", "changes"),
    [
        ("--beam 4 --n-best 3", {"beam": 4, "n_best": 3}),
        ("--beam 3 --patience 1", {"beam": 3, "patience": 1.0}),
        ("--length-penalty none --alpha 0.5", {"length_penalty": "none", "alpha": 0.5}),
        ("--coverage-penalty 0.2", {"coverage": 0.2}),
        ("--min-length 2 --max-ratio 1.5 --max-extra 3", {"min_length": 2, "max_ratio": 1.5}),
        ("--no-repeat-ngram 3", {"no_repeat_ngram": 3}),
        ("--beam 6 --diverse 3 --diversity 0.7", {"beam": 6, "groups": 3, "diversity": 0.7}),
        ("--sample 4", {"method": "sample", "n_best": 4}),
        (
            "--sample 1 --temperature 0.8 --top-k 5 --top-p 0.9 --seed 3",
            {"method": "sample", "temperature": 0.8, "top_k": 5, "top_p": 0.9, "seed": 3},
        ),
    ],
)
def test_options_reach_the_search(argv: str, changes: dict[str, Any]) -> None:
    found = parsed(*argv.split())
    options = found.options(SearchOptions())
    assert {name: getattr(options, name) for name in changes} == changes
    assert found.flags == [flag for flag in FLAGS.values() if flag in argv.split()]


def test_several_are_told_from_one() -> None:
    assert [parsed(*a.split()).several for a in ("--n-best 2", "--sample 2")] == [True, True]
    assert [parsed(*a.split()).several for a in ("--n-best 1", "--sample 1")] == [False, False]


def test_wishes_and_models_may_be_given_again() -> None:
    argv = "--prefix A --require b --require c --ban d --ensemble x --ensemble y"
    found = parsed(*argv.split())
    assert found.wishes() == Wishes("A", ("b", "c"), ("d",))
    assert found.ensemble == ("x", "y")
    assert found.flags == ["--prefix", "--require", "--ban", "--ensemble"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--sample 0", "--sample is 0: draw 1 or more"),
        ("--sample 2 --beam 4", "--beam is for beam search, and --sample draws"),
        ("--sample 2 --require x", "--require is for beam search"),
        ("--temperature 0.5", "--temperature is for samples: add --sample N"),
        ("--seed 0", "--seed is for samples"),
        ("--diversity 0.5", "add --diverse GROUPS"),
        ("--diverse 5 --require x", "--diverse cannot take --require"),
        ("--check-invariance --sample 2", "--check-invariance compares what a search finds"),
        ("--check-invariance --alignments", "prints a report, no translations: leave --alignments"),
        ("--beam two", "invalid int value: 'two'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(argv: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parsed(*argv.split())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--beam 0", "--beam is 0: it must be 1 or more."),
        ("--n-best 6", "--n-best is 6, but --beam is 5: raise --beam, or ask for fewer."),
        ("--diverse 2", "--beam is 5, which --diverse (2) does not divide: every group needs"),
        ("--length-penalty averge", "--length-penalty is 'averge': choose none or average or wu."),
        ("--sample 1 --top-p 2", "--top-p is 2.0: it must be more than 0 and at most 1."),
    ],
)
def test_values_out_of_range_are_told_as_options(argv: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*argv.split()).options(SearchOptions())
    assert str(caught.value).startswith(said)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import pytest

from seqlab.data.holding import hold_out
from seqlab.errors import DataError


def rows(count: int, start: int = 0) -> Any:
    return datasets.Dataset.from_dict({"n": list(range(start, start + count))})


def numbers(split: Any) -> list[int]:
    return [row["n"] for row in split]


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def test_a_lone_training_split_gives_both_others_their_share() -> None:
    splits, note = hold_out({"train": rows(100)}, 0.1, "my.conll")
    assert [len(splits[part]) for part in ("train", "validation", "test")] == [80, 10, 10]
    parts = [numbers(splits[part]) for part in ("train", "validation", "test")]
    assert sorted(n for part in parts for n in part) == list(range(100))
    assert parts == [sorted(part) for part in parts]
    assert note == (
        "my.conll has no validation or test split: 10 of its 100 training sentences, drawn once "
        "and for all, stand in for each."
    )


def test_only_the_missing_validation_split_is_held_out() -> None:
    test = rows(7, start=500)
    splits, note = hold_out({"train": rows(25), "test": test}, 0.2, "my")
    assert splits["test"] is test
    assert (len(splits["train"]), len(splits["validation"])) == (20, 5)
    assert sorted(numbers(splits["train"]) + numbers(splits["validation"])) == list(range(25))
    assert note == (
        "my has no validation split: 5 of its 25 training sentences, drawn once and for all, stand "
        "in for it."
    )


def test_the_draw_is_always_the_same_and_no_stretch_of_the_corpus() -> None:
    one, other = (hold_out({"train": rows(100)}, 0.1, "my")[0] for _ in range(2))
    assert numbers(one["validation"]) == numbers(other["validation"])
    held = numbers(one["validation"])
    assert held[-1] - held[0] > 20


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize(
    "names", [("train", "validation"), ("train", "validation", "test"), ("test",), ("validation",)]
)
def test_what_needs_nothing_is_left_alone(names: tuple[str, ...], share: float) -> None:
    splits = {name: rows(3) for name in names}
    found, note = hold_out(splits, share, "my")
    assert list(found) == list(names)
    assert all(found[name] is splits[name] for name in names)
    assert note is None


def test_without_a_share_a_lone_split_serves_as_all() -> None:
    train = rows(3)
    splits, note = hold_out({"train": train}, 0.0, "my")
    assert splits == {"train": train, "validation": train, "test": train}
    assert note is None


def test_without_a_share_nothing_stands_in_for_a_missing_split() -> None:
    splits, note = hold_out({"train": rows(30), "test": rows(3)}, 0.0, "my")
    assert (list(splits), note) == (["train", "test"], None)


def test_too_few_sentences_are_refused() -> None:
    with pytest.raises(DataError) as error:
        hold_out({"train": rows(9)}, 0.1, "my.conll")
    assert str(error.value) == (
        "my.conll: 9 sentences are too few to hold out 10% of them for validation: give "
        "data.validation a file."
    )
    splits, _ = hold_out({"train": rows(10)}, 0.1, "my.conll")
    assert len(splits["train"]) == 8

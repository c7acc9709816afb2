from __future__ import annotations

from typing import Any

import pytest

from seqlab.data.labels import LabelledRow, Labels
from seqlab.data.rows import Place
from seqlab.errors import DataError

PLACE = Place("train.csv")


def labels(**options: Any) -> Labels:
    return Labels("label", PLACE, **options)


def failure(values: list[object], **options: Any) -> str:
    reader = labels(**options)
    for number, value in enumerate(values[:-1], 2):
        reader.read(value, number)
    with pytest.raises(DataError) as error:
        reader.read(values[-1], len(values) + 1)
    message = str(error.value)
    assert message.startswith(f"train.csv:{len(values) + 1}: ")
    return message.partition(": ")[2]


def test_a_row_gives_its_columns() -> None:
    row = LabelledRow(["a", "b"], ["x"], [7], False)
    assert row.columns() == {
        "tokens": ["a", "b"],
        "labels": ["x"],
        "lines": [7],
        "several": False,
    }


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("pos", "pos"),
        (" new york ", "new york"),
        ("a|b, c", "a|b, c"),
        (3, "3"),
        (-1, "-1"),
        (True, "true"),
        (False, "false"),
    ],
    ids=repr,
)
def test_texts_numbers_and_truth_values_are_labels(value: object, label: str) -> None:
    reader = labels()
    assert reader.read(value, 2) == [label]
    assert not reader.several


def test_a_list_means_several_labels_unless_said_otherwise() -> None:
    reader = Labels("labels", PLACE)
    assert [reader.read(value, 2) for value in (["a"], ["b", "a", "b"], [])] == [
        ["a"],
        ["b", "a"],
        [],
    ]
    assert reader.several
    single = Labels("labels", PLACE, several=False)
    assert single.read(["a"], 2) == single.read(["a", "a"], 3) == ["a"]
    assert not single.several


def test_a_separator_means_several_labels() -> None:
    reader = labels(separator=", ")
    assert reader.several
    assert [reader.read(value, 2) for value in ("a, b", "a", "", " ", "a, , b, ")] == [
        ["a", "b"],
        ["a"],
        [],
        [],
        ["a", "b"],
    ]


def test_a_text_may_lack_labels_where_it_may_have_several() -> None:
    reader = labels(several=True)
    assert [reader.read(value, 2) for value in ("", "a|b", 3)] == [[], ["a|b"], ["3"]]


def test_numbers_of_classes_become_their_names() -> None:
    reader = labels(names=["neg", "pos"])
    assert [reader.read(value, 2) for value in (1, 0, -1, "pos")] == [
        ["pos"],
        ["neg"],
        None,
        ["pos"],
    ]
    assert labels(names=["neg", "pos"]).read([1, 0], 2) == ["pos", "neg"]


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        (
            ["a", ["a"]],
            {},
            "'label' is a list here and a single value before; write it alike for all texts.",
        ),
        (
            [["a"], "a"],
            {"several": True},
            "'label' is a single value here and a list before; write it alike for all texts.",
        ),
        (
            [["a", "b"]],
            {"several": False},
            "2 labels, where a text has one; write one label in 'label', or set data.multi_label "
            "to true.",
        ),
        (
            [[]],
            {"several": False},
            "0 labels, where a text has one; write one label in 'label', or set data.multi_label "
            "to true.",
        ),
        ([""], {}, "'label' is empty; write the label, or leave the text out."),
        (
            [["a", " "]],
            {},
            "'label' is empty; write the label, or leave the text out.",
        ),
        (
            [1.5],
            {},
            "'label' is 1.5, which is no label; write a text, a whole number, or true or false.",
        ),
        (
            [["a", None]],
            {},
            "'label' is None, which is no label; write a text, a whole number, or true or false.",
        ),
        (
            [{"name": "a"}],
            {},
            "'label' is {'name': 'a'}, which is no label; write a text, a whole number, or true "
            "or false.",
        ),
        (
            ["['a', 'b']"],
            {},
            "'label' is a list as Python prints it; write JSONL, or labels with "
            "data.label_separator between them.",
        ),
        (
            [1, 2],
            {"names": ["neg", "pos"]},
            "'label' is 2, but its classes have the numbers 0 to 1; mend the number, or the names "
            "of the classes.",
        ),
        (
            [[0, -1]],
            {"names": ["neg", "pos"]},
            "'label' is -1, but its classes have the numbers 0 to 1; mend the number, or the names "
            "of the classes.",
        ),
    ],
    ids=str,
)
def test_what_is_no_label_is_refused_with_its_line(
    values: list[object], options: dict[str, Any], said: str
) -> None:
    assert failure(values, **options) == said

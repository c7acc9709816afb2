from __future__ import annotations

import json
import math

import torch

from seqlab.translated import Candidate, Translated, replaced

# "la maison" looks at "house" with "maison", whose two pieces disagree, and at "the" with "la".
LOOKED = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.0, 0.1, 0.9]])


def found(pieces: list[str], weights: torch.Tensor | None = LOOKED, text: str = "") -> Candidate:
    return Candidate(
        text or "".join(pieces).strip(), -0.5, -2.0, [10] * len(pieces), pieces, [], weights
    )


def of(*hypotheses: Candidate) -> Translated:
    offsets = [(0, 3), (4, 7), (7, 9)]
    return Translated("the house", list(hypotheses), [" the", " hou", "se"], offsets)


def test_what_is_printed_is_the_best_translation() -> None:
    result = of(found([" la", " mai", "son"]), found([" le", " mai", "son"]))
    assert str(result) == result.translation == "la maison"
    assert (result.score, result.log_probability) == (-0.5, -2.0)


def test_words_are_linked_by_the_weights_of_all_their_pieces() -> None:
    result = of(found([" la", " mai", "son"]), found([" la", " mai", " son"]))
    # Of "mai" alone the largest weight is that of "the".
    assert result.links() == [(0, 0), (1, 1)]
    assert result.alignments() == "0-0 1-1"
    assert result.alignments(1) == "0-0 1-1 1-2"


def test_unknown_pieces_that_are_left_out_of_the_text_are_no_words() -> None:
    left_out = Candidate("son", -1.0, -1.0, [1, 10, 10], ["<unk>", " s", "on"], [], LOOKED)
    assert of(left_out).links() == [(1, 0)]


def test_without_weights_or_words_there_are_no_links() -> None:
    assert of(found([" la"], None)).links() == []
    empty = Translated("", [Candidate("", 0.0, 0.0, [], [], [], torch.zeros(0, 0))], [], [])
    assert empty.alignments() == ""
    blank = Translated(" ", [found([" la"], torch.ones(1, 1))], [" "], [(0, 0)])
    assert blank.links() == []


def test_all_of_it_is_json() -> None:
    data = of(found([" la", " mai", "son"])).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["translation"] == data["hypotheses"][0]["text"] == "la maison"
    assert data["offsets"] == [[0, 3], [4, 7], [7, 9]]
    assert data["hypotheses"][0]["alignments"] == "0-0 1-1"
    assert data["hypotheses"][0]["alignment"][0] == [0.7, 0.2, 0.1]


def test_what_was_not_asked_for_is_null() -> None:
    unscored = Candidate("la", math.nan, math.nan, [10], [" la"])
    data = Translated("the", [unscored], [" the"], None).to_dict()
    assert data["score"] is data["log_probability"] is data["offsets"] is None
    assert data["hypotheses"][0]["alignment"] is data["hypotheses"][0]["alignments"] is None


def test_an_unknown_piece_becomes_what_it_looked_at() -> None:
    text, places = "Ada (Bob)", [(0, 3), (4, 5), (5, 8), (8, 9)]
    weights = torch.eye(4)[[0, 1, 2]]
    pieces, whole = replaced([1, 7, 1], ["<unk>", " (", "<unk>"], weights, text, places)
    assert pieces == [" Ada", " (", "Bob"]
    assert whole == "Ada (Bob"
    pieces, whole = replaced([1, 7], ["<unk>", " x"], torch.ones(2, 1), "a", [(0, 0)])
    assert (pieces, whole) == (["<unk>", " x"], "x")

from __future__ import annotations

import pytest
import torch

from seqlab.explain.summary import figure, rows_of, title_of
from seqlab.nn.traces import Trace

SERIES = {
    "input": torch.tensor([[0.2, 0.4], [0.0, 1.0]]),
    "cell": torch.tensor([[-2.0, 2.0], [1.0, -4.0]]),
    "hidden": torch.tensor([[-0.5, 0.5], [0.1, -0.3]]),
}
TRACE = Trace(2, "backward", "no-forget", SERIES)


def test_gates_are_averaged_and_states_without_their_signs() -> None:
    gate, cell, hidden = rows_of(TRACE, None)
    assert gate.label == "input"
    assert gate.values == pytest.approx([0.3, 0.5])
    assert cell.label == "|cell|"
    assert cell.values == pytest.approx([2.0, 2.5])
    assert hidden.values == pytest.approx([0.5, 0.2])


def test_colours_reach_to_the_largest_value_but_to_1_at_least() -> None:
    assert [row.scale for row in rows_of(TRACE, None)] == [1.0, 2.5, 1.0]


def test_one_unit_keeps_its_signs() -> None:
    alone = Trace(1, "forward", "no-forget", {n: v[:, 1:] for n, v in SERIES.items()})
    gate, cell, hidden = rows_of(alone, 2)
    assert [row.label for row in (gate, cell, hidden)] == ["input", "cell", "hidden"]
    assert cell.values == pytest.approx([2.0, -4.0])
    assert cell.scale == 4.0


def test_a_title_says_what_is_shown() -> None:
    assert title_of(TRACE, None) == "layer 2, backward: no-forget, mean of 2 units"
    assert title_of(TRACE, 7) == "layer 2, backward: no-forget, unit 7"


@pytest.mark.parametrize("value", [0.0, -0.001, 0.5, 0.9949, 0.996, -0.996, 9.99, -9.99, 42.0])
def test_figures_take_four_characters_at_most(value: float) -> None:
    found = figure(value)
    assert len(found) <= 4
    assert float(found) == pytest.approx(value, abs=0.051 if abs(value) > 1 else 0.0051)

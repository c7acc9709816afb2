from __future__ import annotations

import pytest
import torch

from seqlab.explain.meanings import MEANINGS
from seqlab.nn.cells import CELLS, make_layer
from seqlab.nn.traces import series_of


@pytest.mark.parametrize("cell", CELLS)
def test_every_series_of_every_cell_has_a_meaning(cell: str) -> None:
    series = series_of(make_layer(cell, 2, 3), torch.zeros(1, 1, 2))
    assert set(MEANINGS[cell]) == set(series)
    assert all(MEANINGS[cell].values())


def test_no_meaning_is_of_a_cell_that_is_not_there() -> None:
    assert set(MEANINGS) == set(CELLS)

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqlab.explain.holding import Holding
from seqlab.nn.cells import make_layer, read


def test_a_tensor_counts_from_when_it_is_made_until_it_is_gone() -> None:
    with Holding() as holding:
        x = torch.ones(10)
        assert holding.now.total() == 40
        y = x + 1
        assert holding.now.total() == 80
        del x
        assert holding.now.total() == 40
        z = y.double()
    assert (holding.now.total(), holding.total) == (120, 120)
    del y, z
    assert (holding.now.total(), holding.total) == (0, 120)


def test_views_and_what_is_done_in_place_make_nothing() -> None:
    before = torch.ones(3, 4)
    with Holding() as holding:
        before.transpose(0, 1)[1].view(-1).mul_(2)
        torch.add(before, 1, out=before)
        assert holding.total == 0
        view = torch.ones(100)[:1]
    assert holding.now.total() == 400  # a view holds the whole
    del view
    assert holding.now.total() == 0


def test_parts_are_counted_apart() -> None:
    with Holding() as holding:
        holding.enter("first")
        x = torch.ones(10)
        holding.enter("second")
        y = torch.ones(5)
        torch.ones(20)
        del x
    assert holding.now == {"first": 0, "second": 20}
    assert holding.peak == {"first": 40, "second": 100}
    assert holding.total == 140
    del y


def held(run: Any) -> tuple[int, int]:
    """Bytes alive after a run that keeps its result, and those that autograd says it saved."""
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        kept = run()
    told = sum(saved.values())
    del kept
    with Holding() as holding:
        kept = run()
    alive = holding.now.total()
    del kept
    return alive, told


@pytest.mark.parametrize("cell", ["peephole", "coupled", "no-forget", "sru"])
def test_what_is_held_for_the_gradient_is_what_autograd_saves(cell: str) -> None:
    layer = make_layer(cell, 6, 6)
    x = torch.randn(2, 5, 6)
    given = sum(weight.nbytes for weight in layer.parameters()) + x.nbytes
    alive, told = held(lambda: read([layer], [x]))
    assert alive <= told + given
    assert alive == pytest.approx(told, abs=given)
    with torch.no_grad():
        assert held(lambda: read([layer], [x]))[0] < alive / 2


def test_the_memory_of_a_plain_network_by_hand() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    with Holding() as holding:
        out = net(x)
    # The first product is not needed once its tanh is there.
    assert holding.now.total() == 4 * 3 * (8 + 2)
    assert holding.total == 4 * 3 * (8 + 8)
    del out

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from seqlab.nn import costs
from seqlab.nn.cells import CELLS, make_layer, output_size_of, read
from seqlab.nn.costs import Cost
from seqlab.nn.crf import CRF
from seqlab.nn.embedders import CharacterCNN, CharacterLSTM
from seqlab.nn.encoders import RecurrentEncoder
from seqlab.nn.lstm_scan import Noise
from seqlab.nn.pooling import make_pooling
from seqlab.nn.traces import series_of

LAYERS: list[tuple[str, dict[str, Any]]] = [(cell, {}) for cell in CELLS]
LAYERS += [("lstm", {"proj_size": 2}), ("rnn", {"nonlinearity": "relu"})]
every_layer = pytest.mark.parametrize(("cell", "options"), LAYERS, ids=str)
BATCH, TIME = 3, 7


class Work(TorchDispatchMode):
    """Counts the numbers that operations give, by the name of the operation."""

    def __init__(self) -> None:
        super().__init__()
        self.done: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) else out
        if isinstance(first, Tensor):
            self.done[func.overloadpacket.__name__] += first.numel()
        return out


def matrix_products(run: Any) -> float:
    """Multiply-adds a token, as torch counts them: two operations each."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2 / (BATCH * TIME)


@pytest.mark.parametrize("input_size", [5, 6])
@every_layer
def test_matrix_products_of_a_layer(cell: str, options: dict[str, Any], input_size: int) -> None:
    layer = make_layer(cell, input_size, 6, **options)
    x = torch.randn(BATCH, TIME, input_size)
    # Torch does not count its fused kernels: the same weights go through our scans.
    noise = Noise(mask=torch.ones(1, BATCH, output_size_of(layer)))
    found = matrix_products(lambda: read([layer], [x], None, noise))
    assert costs.of_layer(layer).matrix == found > 0


@every_layer
def test_multiplications_of_a_layer_element_by_element(cell: str, options: dict[str, Any]) -> None:
    layer = make_layer(cell, 5, 6, **options)
    x = torch.randn(BATCH, TIME, 5)
    with torch.no_grad(), Work() as work:
        series_of(layer, x, zoneout=0.3)
    # A normalisation squares, scales and has a gain; zoneout mixes with one multiplication.
    total = work.done["mul"] + work.done["lerp"] + 3 * work.done["native_layer_norm"]
    if cell == "no-forget":
        total -= BATCH * TIME * 6  # whose trace multiplies the cell by a forget gate of one
    assert costs.of_layer(layer, zoneout=True).element == total / (BATCH * TIME)
    held = work.done["lerp"] / (BATCH * TIME)
    assert held > 0
    assert costs.of_layer(layer).element == total / (BATCH * TIME) - held


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "gru", "bidirectional": False},
        {"cell": "sru", "merge": "mean"},
        {"cell": "peephole", "merge": "product", "connection": "residual"},
        {"cell": "coupled", "connection": "highway"},
        {"proj_size": 3, "connection": "highway", "merge": "sum"},
    ],
    ids=str,
)
def test_matrix_products_of_an_encoder(options: dict[str, Any]) -> None:
    encoder = RecurrentEncoder(5, 4, 3, zoneout=0.1, **options).eval()  # zoneout: our scans
    x, lengths = torch.randn(BATCH, TIME, 5), torch.full((BATCH,), TIME)
    found = costs.of_encoder(encoder)
    assert len(found) == 3
    assert sum(cost.matrix for cost in found) == matrix_products(lambda: encoder(x, lengths))


def test_an_encoder_by_hand() -> None:
    both = RecurrentEncoder(5, 4, 2, merge="mean", connection="highway")
    first, second = costs.of_encoder(both)
    assert first == Cost(2 * 4 * 4 * (5 + 4), 2 * 3 * 4 + 4)  # the mean halves
    assert second == Cost(2 * 4 * 4 * (4 + 4) + 4 * 4, 2 * 3 * 4 + 4 + 4)  # the gate mixes
    (one,) = costs.of_encoder(RecurrentEncoder(5, 4, bidirectional=False, zoneout=0.1))
    assert one == Cost(4 * 4 * (5 + 4), 3 * 4 + 8)
    (plain,) = costs.of_encoder(RecurrentEncoder(5, 4))
    assert plain == Cost(2 * 4 * 4 * 9, 2 * 3 * 4)


@pytest.mark.parametrize("kind", [CharacterCNN, CharacterLSTM])
def test_characters(kind: Any) -> None:
    encoder = kind(9, 5, 6)
    letters = torch.randint(1, 9, (BATCH, TIME))
    if kind is CharacterLSTM:
        encoder.encoder.zoneout = 0.1  # our scans
        found = matrix_products(lambda: encoder.eval()(letters))
    else:  # the equation, of which the layer computes less: a character's share but once
        around = nn.functional.pad(encoder.embedding(letters), (0, 0, 1, 1)).unfold(1, 3, 1)
        found = matrix_products(lambda: encoder.filters(around.flatten(2)))
    assert costs.of_characters(encoder, 1).matrix == found > 0
    once, ten = costs.of_characters(encoder, 1), costs.of_characters(encoder, 10)
    assert ten == Cost(10 * once.matrix, 10 * once.element)


@pytest.mark.parametrize("names", ["attention", "last", "mean", "max", ["attention", "max"]])
def test_pooling(names: Any) -> None:
    heads = 3 if "attention" in names else 1
    pooling = make_pooling(names, 6, 3, heads)
    states, mask = torch.randn(BATCH, TIME, 6), torch.ones(BATCH, TIME, dtype=torch.bool)
    found = matrix_products(lambda: pooling(states, mask))
    assert costs.of_pooling(pooling) == Cost(found, 0)
    assert (found > 0) == ("attention" in names)


def test_a_linear_layer() -> None:
    layer = nn.Linear(5, 3)
    x = torch.randn(BATCH * TIME, 5)
    assert costs.of_linear(layer) == Cost(matrix_products(lambda: layer(x)), 0) == Cost(15, 0)


def test_a_crf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")  # torch counts nothing else
    crf, emissions = CRF(4, batch_first=True), torch.randn(BATCH, TIME, 4)
    steps = (TIME - 1) / TIME  # from one token to the next
    found = matrix_products(lambda: crf.marginals(emissions))
    assert costs.of_crf(4, sweeps=1).matrix * steps == pytest.approx(found)
    assert costs.of_crf(4).matrix == 0
    assert costs.of_crf(4, sweeps=2).matrix == 64
    with Work() as work:
        crf.decode(emissions)
    pairs = BATCH * (TIME - 1) * costs.of_crf(4).element
    smaller = BATCH * TIME * 4  # what is linear in the number of tags
    assert pairs <= work.done["add"] <= pairs + 3 * smaller


def test_costs_add_up() -> None:
    assert costs.total(Cost(1, 2), Cost(10, 20)) == Cost(11, 22)
    assert costs.total() == Cost(0, 0)

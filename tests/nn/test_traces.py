from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqlab.errors import SeqlabError
from seqlab.nn.cells import CELLS, make_layer, read, state_sizes
from seqlab.nn.encoders import BiLSTM, RecurrentEncoder
from seqlab.nn.lstm_scan import Noise
from seqlab.nn.traces import Traced, cell_name, series_of, trace, traceable

# Torch says once that its projection has no fast kernel on this CPU.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")

NAMES = {
    "lstm": ["input", "forget", "candidate", "output", "cell", "hidden"],
    "gru": ["reset", "update", "candidate", "hidden"],
    "rnn": ["hidden"],
    "peephole": ["input", "forget", "candidate", "output", "cell", "hidden"],
    "coupled": ["input", "candidate", "output", "cell", "hidden"],
    "layernorm": ["input", "forget", "candidate", "output", "cell", "hidden"],
    "no-forget": ["input", "candidate", "output", "cell", "hidden"],
    "sru": ["candidate", "forget", "reset", "cell", "hidden"],
}
LAYERS: list[tuple[str, dict[str, Any]]] = [(cell, {}) for cell in CELLS]
LAYERS += [("lstm", {"proj_size": 3}), ("rnn", {"nonlinearity": "relu"})]
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5)]
GATES = ("input", "forget", "output", "reset", "update")


def shaken(module: nn.Module, seed: int = 0) -> Any:
    """The module with random weights, all of them."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(std=0.5)
    return module.eval()


def largest(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max().detach())


@pytest.mark.parametrize(("dtype", "near"), PRECISIONS, ids=["double", "single"])
@pytest.mark.parametrize("input_size", [4, 5])
@pytest.mark.parametrize(("cell", "options"), LAYERS, ids=str)
@torch.no_grad()
def test_the_hidden_state_is_that_of_the_fused_kernel(
    cell: str, options: dict[str, Any], input_size: int, dtype: torch.dtype, near: float
) -> None:
    layer = shaken(make_layer(cell, input_size, 5, **options).to(dtype))
    x = torch.randn(3, 7, input_size, dtype=dtype)
    start = tuple(torch.randn(3, size, dtype=dtype) for size in state_sizes(layer))
    for state in (None, start):
        found = series_of(layer, x, state)
        ((output, last),) = read([layer], [x], None if state is None else [state])
        assert largest(found["hidden"], output) < near
        names = ["cell"] if cell == "sru" else ["hidden", "cell"]
        for name, value in zip(names, last, strict=False):
            assert largest(found[name][:, -1], value) < near
    assert list(found) == NAMES[cell]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@torch.no_grad()
def test_torch_itself_agrees(kind: type[nn.RNNBase]) -> None:
    layer = shaken(kind(4, 5, batch_first=True).double())
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    assert largest(series_of(layer, x)["hidden"], layer(x)[0]) < 1e-10


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_zoneout_keeps_its_share(cell: str) -> None:
    layer = shaken(make_layer(cell, 4, 5).double())
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    ((output, _),) = read([layer], [x], None, Noise(hold_hidden=0.3, hold_cell=0.3))
    assert largest(series_of(layer, x, zoneout=0.3)["hidden"], output) < 1e-10
    assert largest(series_of(layer, x)["hidden"], output) > 1e-3


def test_one_step_of_an_lstm_by_hand() -> None:
    layer = nn.LSTM(1, 1, batch_first=True)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
        layer.weight_ih_l0[:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])  # input, forget, g, output
        found = series_of(layer, torch.ones(1, 2, 1))
    one = torch.ones(())
    i, f, g, o = one.sigmoid(), (2 * one).sigmoid(), (3 * one).tanh(), (4 * one).sigmoid()
    cells = torch.stack([i * g, f * (i * g) + i * g])
    expected = {"input": i, "forget": f, "candidate": g, "output": o}
    for name, value in expected.items():
        torch.testing.assert_close(found[name].flatten(), value.expand(2))
    torch.testing.assert_close(found["cell"].flatten(), cells)
    torch.testing.assert_close(found["hidden"].flatten(), o * cells.tanh())


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_gates_lie_between_0_and_1(cell: str) -> None:
    layer = shaken(make_layer(cell, 4, 5).double())
    found = series_of(layer, 3 * torch.randn(2, 6, 4, dtype=torch.float64))
    for name in set(found) & set(GATES):
        assert 0 < found[name].min() < found[name].max() < 1, name
    if cell not in ("rnn", "sru"):
        assert -1 < found["candidate"].min() < 0 < found["candidate"].max() < 1


def real(lengths: Tensor, time: int) -> Tensor:
    return (torch.arange(time) < lengths.unsqueeze(1)).unsqueeze(-1)


ENCODERS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"num_layers": 2, "bidirectional": False},
    {"num_layers": 2, "merge": "sum"},
    {"num_layers": 2, "merge": "mean"},
    {"num_layers": 2, "merge": "product"},
    {"num_layers": 3, "connection": "residual"},
    {"num_layers": 3, "connection": "highway"},
    {"num_layers": 2, "proj_size": 3},
    {"num_layers": 2, "learned_state": True, "zoneout": 0.2},
    {"cell": "rnn", "nonlinearity": "relu"},
    *({"cell": cell, "num_layers": 2, "learned_state": True} for cell in CELLS),
]


@pytest.mark.parametrize(("dtype", "near"), PRECISIONS, ids=["double", "single"])
@pytest.mark.parametrize("options", ENCODERS, ids=str)
@torch.no_grad()
def test_the_output_is_that_of_the_encoder(
    options: dict[str, Any], dtype: torch.dtype, near: float
) -> None:
    encoder = shaken(RecurrentEncoder(4, 5, **options).to(dtype))
    lengths = torch.tensor([6, 2, 4])
    x, mask = torch.randn(3, 6, 4, dtype=dtype), real(lengths, 6)
    found = trace(encoder, x, lengths)
    expected = encoder(x, lengths) * mask
    assert largest(found.output * mask, expected) < near
    depth, ways = options.get("num_layers", 1), ["forward", "backward"]
    ways = ways if options.get("bidirectional", True) else ways[:1]
    assert [(t.layer, t.direction) for t in found.layers] == [
        (layer, way) for layer in range(1, depth + 1) for way in ways
    ]
    assert {t.cell for t in found.layers} == {options.get("cell", "lstm")}


@torch.no_grad()
def test_both_directions_are_in_the_order_of_the_text() -> None:
    encoder = shaken(BiLSTM(4, 5).double())
    lengths = torch.tensor([3, 5])
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    ahead, back = trace(encoder, x, lengths).layers
    output = encoder(x, lengths) * real(lengths, 5)
    both = torch.cat([ahead.series["hidden"], back.series["hidden"]], -1) * real(lengths, 5)
    assert largest(both, output) < 1e-10
    changed = x.clone()
    changed[1, 4] = 1.0  # the last token of the second sequence
    left, right = trace(encoder, changed, lengths).layers
    for name in NAMES["lstm"]:
        assert torch.equal(left.series[name][1, :4], ahead.series[name][1, :4])
        assert not torch.equal(right.series[name][1, 0], back.series[name][1, 0])


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    encoder = shaken(BiLSTM(4, 5, 2).double())
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    together = trace(encoder, x, torch.tensor([6, 3]))
    alone = trace(encoder, x[1:, :3], torch.tensor([3]))
    for found, expected in zip(together.layers, alone.layers, strict=True):
        for name, values in expected.series.items():
            assert largest(found.series[name][1:, :3], values) < 1e-12


def test_a_training_encoder_is_traced_as_it_predicts() -> None:
    encoder = shaken(BiLSTM(4, 5, 2, dropout=0.5))
    x, lengths = torch.randn(1, 6, 4), torch.tensor([6])
    expected: Traced = trace(encoder, x, lengths)
    found = trace(encoder.train(), x, lengths)
    assert torch.equal(found.output, expected.output)
    assert not found.output.requires_grad
    assert encoder.training


class Elsewhere(nn.Module):
    output_size = 4

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return x


class Changed(RecurrentEncoder):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return 2 * super().forward(x, lengths)


@pytest.mark.parametrize("encoder", [Elsewhere(), Changed(4, 5)])
def test_what_has_other_equations_is_refused(encoder: Any) -> None:
    name = type(encoder).__name__
    with pytest.raises(SeqlabError, match=rf"{name} cannot be looked into: .* train the model"):
        trace(encoder, torch.zeros(1, 2, 4), torch.tensor([2]))
    with pytest.raises(SeqlabError, match=name):
        traceable(encoder)


def test_a_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="Linear is no recurrent layer"):
        series_of(nn.Linear(2, 2), torch.zeros(1, 2, 2))


@pytest.mark.parametrize("cell", CELLS)
def test_cells_go_by_their_names(cell: str) -> None:
    assert cell_name(make_layer(cell, 2, 2)) == cell

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqlab.errors import RecipeError
from seqlab.nn.cells import CELLS, read
from seqlab.nn.encoders import MERGES, BiLSTM, Lookup, RecurrentEncoder, reversal, turn
from seqlab.nn.kernels import VARIABLE, library, lstm_native

# Torch says once that its projection has no fast kernel on this CPU.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
RAGGED = [[1], [4], [5, 1, 3, 1, 5], [1, 1], [2, 7, 4]]
TORCH: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstm, projected": {"proj_size": 3},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "rnn, relu": {"cell": "rnn", "nonlinearity": "relu"},
}
EVERY: dict[str, dict[str, Any]] = {**TORCH, **{cell: {"cell": cell} for cell in CELLS}}
every_cell = pytest.mark.parametrize("cell", EVERY)
WAYS: dict[str, dict[str, Any]] = {
    "one way": {"bidirectional": False},
    **{merge: {"merge": merge} for merge in MERGES},
}
CONNECTIONS = ["none", "residual", "highway"]
DOUBLE = torch.float64
compiled = pytest.mark.skipif(
    library.obstacle() is not None, reason=f"no compiled kernels: {library.obstacle()}"
)


def packed_twin(encoder: RecurrentEncoder) -> nn.RNNBase:
    """Torch's own bidirectional layers with the weights of an encoder."""
    first = encoder.forward_layers[0]
    assert isinstance(first, nn.RNNBase)
    options: dict[str, Any] = {"batch_first": True, "bidirectional": True}
    if isinstance(first, nn.RNN):
        options["nonlinearity"] = first.nonlinearity
    elif isinstance(first, nn.LSTM):
        options["proj_size"] = first.proj_size
    count = len(encoder.forward_layers)
    twin = type(first)(first.input_size, first.hidden_size, count, **options).double()
    state = {}
    for layers, suffix in ((encoder.forward_layers, ""), (encoder.backward_layers, "_reverse")):
        for depth, layer in enumerate(layers):
            for name, weight in layer.state_dict().items():
                state[name.replace("_l0", f"_l{depth}{suffix}")] = weight
    twin.load_state_dict(state)
    return twin


def run_packed(layers: nn.RNNBase, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(layers(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def real(lengths: Tensor, time: int) -> Tensor:
    return torch.arange(time) < lengths.unsqueeze(1)


def shaken(num_layers: int, seed: int = 0, **options: Any) -> RecurrentEncoder:
    """An encoder in double precision, all of whose weights are random."""
    torch.manual_seed(seed)
    encoder = RecurrentEncoder(3, 4, num_layers, **options).double()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.normal_(std=0.5)
    return encoder


@pytest.mark.parametrize("cell", TORCH)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("sizes", RAGGED, ids=str)
def test_results_and_gradients_are_those_of_packed_sequences(
    num_layers: int, sizes: list[int], cell: str
) -> None:
    encoder = shaken(num_layers, **TORCH[cell])
    twin, lengths = packed_twin(encoder), torch.tensor(sizes)
    x = torch.randn(len(sizes), max(sizes), 3, dtype=torch.float64, requires_grad=True)
    mask = real(lengths, max(sizes)).unsqueeze(-1)
    ours, theirs = encoder(x, lengths), run_packed(twin, x, lengths)
    torch.testing.assert_close(ours * mask, theirs)

    weights = torch.randn_like(theirs) * mask
    names = [name for name, _ in twin.named_parameters()]
    expected = torch.autograd.grad((theirs * weights).sum(), [x, *twin.parameters()])
    (ours * weights).sum().backward()
    torch.testing.assert_close(x.grad, expected[0])
    for name, gradient in zip(names, expected[1:], strict=True):
        side = "backward_layers" if name.endswith("_reverse") else "forward_layers"
        kind, depth = name.removesuffix("_reverse").rsplit("_l", 1)
        mine = encoder.get_parameter(f"{side}.{depth}.{kind}_l0").grad
        torch.testing.assert_close(mine, gradient, msg=name)


def combinations(*, connected: bool = True) -> list[dict[str, Any]]:
    kinds = CONNECTIONS if connected else ["none"]
    return [
        {**cell, **ways, "connection": connection}
        for cell, ways, connection in itertools.product(EVERY.values(), WAYS.values(), kinds)
    ]


@pytest.mark.parametrize("learned", [False, True], ids=["from zero", "learned state"])
@pytest.mark.parametrize("options", combinations(), ids=str)
def test_padding_changes_nothing(options: dict[str, Any], learned: bool) -> None:
    encoder = shaken(2, learned_state=learned, zoneout=0.2 * learned, **options).eval()
    lengths = torch.tensor([4, 1, 6, 2])
    mask = real(lengths, 6)
    x = torch.randn(4, 6, 3, dtype=DOUBLE)
    together = encoder(x, lengths)
    wide = torch.cat([x, torch.randn(4, 5, 3, dtype=DOUBLE)], 1)
    wider = encoder(wide, lengths)
    turned = encoder(x.flip(0), lengths.flip(0)).flip(0)
    lost = x.masked_fill(~mask.unsqueeze(-1), torch.nan)
    with torch.no_grad():
        spoilt = encoder(lost, lengths)
    assert encoder(lost, lengths)[mask].isfinite().all()
    for row, size in enumerate(lengths.tolist()):
        alone = encoder(x[row : row + 1, :size], lengths[row : row + 1])[0]
        assert alone.shape == (size, encoder.output_size)
        for found in (together, wider, turned, spoilt):
            torch.testing.assert_close(found[row, :size], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("filling", [0.0, -1e6, torch.nan])
@pytest.mark.parametrize("options", combinations(connected=False), ids=str)
def test_gradients_do_not_see_padding(options: dict[str, Any], filling: float) -> None:
    encoder = shaken(2, **options)
    lengths = torch.tensor([2, 4])
    mask = real(lengths, 4)
    x = torch.randn(2, 4, 3, dtype=DOUBLE).masked_fill(~mask.unsqueeze(-1), filling)
    x.requires_grad_()
    found = torch.autograd.grad(
        encoder(x, lengths)[mask].square().sum(), [x, *encoder.parameters()]
    )
    assert (found[0][~mask] == 0).all()
    assert (found[0][mask] != 0).any(-1).all() or options.get("nonlinearity") == "relu"
    # Rows one by one, without padding.
    alone = sum(
        encoder(x[row : row + 1, :size], lengths[row : row + 1]).square().sum()
        for row, size in enumerate(lengths.tolist())
    )
    assert isinstance(alone, Tensor)
    expected = torch.autograd.grad(alone, [x, *encoder.parameters()])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_what_stands_at_padding_is_not_read() -> None:
    encoder = shaken(2)
    lengths = torch.tensor([2, 4])
    x = torch.randn(2, 4, 3, dtype=DOUBLE, requires_grad=True)
    mask = real(lengths, 4)
    encoder(x, lengths)[mask].sum().backward()
    assert x.grad is not None
    assert (x.grad[~mask] == 0).all()
    assert (x.grad[mask] != 0).all()


@UNHURRIED
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 3))
def test_reversal_is_its_own_inverse_and_leaves_padding(sizes: list[int], spare: int) -> None:
    time = max(sizes) + spare
    x = torch.arange(len(sizes) * time * 2).view(len(sizes), time, 2)
    index = reversal(torch.tensor(sizes), time)
    turned = turn(x, index)
    assert torch.equal(turn(turned, index), x)
    for row, size in enumerate(sizes):
        assert torch.equal(turned[row, :size], x[row, :size].flip(0))
        assert torch.equal(turned[row, size:], x[row, size:])


@pytest.mark.parametrize(("num_layers", "hidden_size"), [(1, 5), (3, 2)])
def test_the_output_has_both_directions(num_layers: int, hidden_size: int) -> None:
    encoder = BiLSTM(3, hidden_size, num_layers)
    found = encoder(torch.randn(2, 6, 3), torch.tensor([6, 2]))
    assert found.shape == (2, 6, encoder.output_size)
    assert encoder.output_size == 2 * hidden_size


def test_dropout_stands_between_layers_only() -> None:
    x, lengths = torch.randn(2, 3, 3), torch.tensor([3, 2])
    one, two = BiLSTM(3, 8, 1, dropout=0.5), BiLSTM(3, 8, 2, dropout=0.5)
    assert torch.equal(one(x, lengths), one(x, lengths))
    assert not torch.equal(two(x, lengths), two(x, lengths))
    two.eval()
    assert torch.equal(two(x, lengths), two(x, lengths))


def test_weights_start_orthogonal_and_remember() -> None:
    encoder = BiLSTM(3, 4, 2, forget_bias=0.7)
    for layer in [*encoder.forward_layers, *encoder.backward_layers]:
        assert isinstance(layer, nn.LSTM)
        for block in layer.weight_hh_l0.detach().split(4):
            torch.testing.assert_close(block @ block.T, torch.eye(4))
        bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
        torch.testing.assert_close(bias, torch.tensor([0.0, 0.7, 0.0, 0.0]).repeat_interleave(4))


@pytest.mark.parametrize(("merge", "expected"), [("sum", 5), ("mean", 2.5), ("product", 6)])
def test_directions_are_merged(merge: str, expected: float) -> None:
    encoder = RecurrentEncoder(1, 1, merge=merge)
    ways = [torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 3.0)]
    assert encoder.join(0, torch.zeros(1, 1, 1), ways).item() == expected
    both = RecurrentEncoder(1, 1).join(0, torch.zeros(1, 1, 1), ways)
    assert both.tolist() == [[[2.0, 3.0]]]


@pytest.mark.parametrize("merge", MERGES)
@torch.no_grad()
def test_a_merged_layer_holds_both_directions_in_the_order_of_the_text(merge: str) -> None:
    encoder = shaken(1, merge=merge)
    x, lengths = torch.randn(1, 5, 3, dtype=DOUBLE), torch.tensor([5])
    left = encoder.forward_layers[0](x)[0]
    right = encoder.backward_layers[0](x.flip(1))[0].flip(1)
    expected = {
        "concat": torch.cat([left, right], -1),
        "sum": left + right,
        "mean": (left + right) / 2,
        "product": left * right,
    }
    torch.testing.assert_close(encoder(x, lengths), expected[merge])


@torch.no_grad()
def test_a_residual_connection_adds_what_goes_into_a_layer() -> None:
    encoder = shaken(3, connection="residual", bidirectional=False)
    x, lengths = torch.randn(2, 5, 3, dtype=DOUBLE), torch.tensor([5, 5])
    expected = encoder.forward_layers[0](x)[0]  # the first layer changes the size
    for layer in list(encoder.forward_layers)[1:]:
        expected = expected + layer(expected)[0]
    torch.testing.assert_close(encoder(x, lengths), expected)


@torch.no_grad()
def test_a_highway_mixes_a_layer_and_its_input_by_a_gate() -> None:
    encoder = shaken(3, connection="highway", bidirectional=False)
    x, lengths = torch.randn(2, 5, 3, dtype=DOUBLE), torch.tensor([5, 5])
    expected = encoder.forward_layers[0](x)[0]
    for layer, gate in zip(list(encoder.forward_layers)[1:], encoder.highways, strict=True):
        share = torch.sigmoid(expected @ gate.weight.T + gate.bias)
        expected = (1 - share) * expected + share * layer(expected)[0]
    torch.testing.assert_close(encoder(x, lengths), expected)


def test_highways_let_most_of_their_input_past_at_first() -> None:
    encoder = RecurrentEncoder(3, 4, 3, connection="highway")
    assert len(encoder.highways) == 2
    for gate in encoder.highways:
        assert (gate.bias == -1).all()
        assert gate.weight.shape == (8, 8)


@pytest.mark.parametrize(
    ("options", "output_size", "forward_size"),
    [
        ({}, 8, 4),
        ({"bidirectional": False}, 4, 4),
        ({"merge": "sum"}, 4, None),
        ({"merge": "mean"}, 4, None),
        ({"merge": "product"}, 4, None),
        ({"proj_size": 3}, 6, 3),
        ({"proj_size": 3, "bidirectional": False}, 3, 3),
        ({"proj_size": 3, "merge": "sum"}, 3, None),
        ({"connection": "residual"}, 8, 4),
        ({"cell": "sru"}, 8, 4),
    ],
    ids=str,
)
def test_sizes_are_known(
    options: dict[str, Any], output_size: int, forward_size: int | None
) -> None:
    encoder = RecurrentEncoder(3, 4, 2, **options)
    assert (encoder.output_size, encoder.forward_size) == (output_size, forward_size)
    x, lengths = torch.randn(2, 5, 3), torch.tensor([5, 2])
    found = encoder(x, lengths)
    assert found.shape == (2, 5, output_size)


@pytest.mark.parametrize("bidirectional", [False, True])
@every_cell
@torch.no_grad()
def test_what_was_read_left_to_right_comes_first(cell: str, bidirectional: bool) -> None:
    encoder = shaken(1, bidirectional=bidirectional, **EVERY[cell])
    x, lengths = torch.randn(20, 2, 3, dtype=DOUBLE), torch.full((20,), 2)
    changed = x.clone()
    changed[:, 1] += 1
    seen = (encoder(changed, lengths)[:, 0] != encoder(x, lengths)[:, 0]).any(0).tolist()
    size = encoder.forward_size
    assert size == (3 if "proj_size" in EVERY[cell] else 4)
    assert seen == [False] * size + [True] * (encoder.output_size - size)


@every_cell
def test_recurrent_dropout_and_zoneout_are_off_when_not_training(cell: str) -> None:
    noise = {"zoneout": 0.3} if cell == "sru" else {"zoneout": 0.3, "recurrent_dropout": 0.5}
    encoder = shaken(2, **EVERY[cell], **noise)
    x, lengths = torch.randn(2, 5, 3, dtype=DOUBLE), torch.tensor([5, 3])
    assert not torch.equal(encoder(x, lengths), encoder(x, lengths))
    encoder.eval()
    expected = encoder(x, lengths)
    assert torch.equal(encoder(x, lengths), expected)
    encoder.recurrent_dropout = 0.0
    assert torch.equal(encoder(x, lengths), expected)
    encoder.zoneout = 0.0
    assert not torch.equal(encoder(x, lengths), expected)  # units keep their share


@torch.no_grad()
def test_recurrent_dropout_drops_the_same_units_at_all_steps() -> None:
    encoder = shaken(1, cell="rnn", recurrent_dropout=0.5, bidirectional=False)
    layer = encoder.forward_layers[0]
    layer.bias_ih_l0.zero_()
    layer.bias_hh_l0.zero_()
    layer.weight_ih_l0.zero_()
    layer.weight_ih_l0[0, 0] = 1e-3
    # The first unit adds up what it reads, if it sees itself.
    layer.weight_hh_l0.copy_(torch.eye(4))
    x = torch.ones(200, 9, 3, dtype=DOUBLE)
    last = encoder(x, torch.full((200,), 9))[:, -1, 0]
    dropped = last < 0.0011
    assert 60 < int(dropped.sum()) < 140
    torch.testing.assert_close(last[dropped], torch.full_like(last[dropped], 1e-3).tanh())
    kept = last[~dropped]  # doubled at every one of eight steps
    torch.testing.assert_close(kept, torch.full_like(kept, 0.511), rtol=0, atol=0.1)
    assert float(kept.max() - kept.min()) < 1e-12


@every_cell
def test_a_learned_state_is_trained_and_kept(cell: str) -> None:
    encoder = shaken(2, learned_state=True, **EVERY[cell])
    names = [name for name in encoder.state_dict() if name.startswith("starts.")]
    each = {"gru": 1, "rnn": 1, "rnn, relu": 1, "sru": 1}.get(cell, 2)
    assert len(names) == 2 * 2 * each
    x, lengths = torch.randn(20, 2, 3, dtype=DOUBLE), torch.full((20,), 2)
    encoder(x, lengths).square().sum().backward()
    for name in names:
        gradient = encoder.get_parameter(name).grad
        assert gradient is not None
        assert (gradient != 0).any(), name
    other = shaken(2, seed=1, learned_state=True, **EVERY[cell])
    assert not torch.allclose(other(x, lengths)[0], encoder(x, lengths)[0])
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(x, lengths), encoder(x, lengths))


@torch.no_grad()
def test_every_direction_and_layer_starts_from_its_own_learned_state() -> None:
    encoder = shaken(2, learned_state=True, proj_size=2)
    found = [encoder.states(depth, 3) for depth in range(2)]
    flat = [part for layer in found for state in layer or [] for part in state]
    assert [tuple(part.shape) for part in flat] == [(3, 2), (3, 4)] * 4
    for part, start in zip(flat, encoder.starts, strict=True):
        assert torch.equal(part, start.expand(3, -1))
    x = torch.randn(1, 5, 3, dtype=DOUBLE)
    expected = [
        read([encoder.forward_layers[0]], [x], [tuple(part[:1] for part in flat[:2])])[0][0],
        read([encoder.backward_layers[0]], [x.flip(1)], [tuple(p[:1] for p in flat[2:4])])[0][0],
    ]
    depth = RecurrentEncoder(3, 4, 1, learned_state=True, proj_size=2).double()
    depth.load_state_dict(
        {k: v for k, v in encoder.state_dict().items() if k in depth.state_dict()}
    )
    joined = torch.cat([expected[0], expected[1].flip(1)], -1)
    torch.testing.assert_close(depth(x, torch.tensor([5])), joined)
    assert RecurrentEncoder(3, 4).states(0, 3) is None


def test_learned_states_reach_the_kernels_of_torch_contiguous() -> None:
    """A batch of one state is a stretched view, which the kernels of CUDA refuse."""
    encoder = RecurrentEncoder(3, 4, learned_state=True)
    seen = []

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.extend(part.is_contiguous() for part in arguments[1])

    for layer in [*encoder.forward_layers, *encoder.backward_layers]:
        layer.register_forward_pre_hook(note)
    encoder(torch.randn(5, 2, 3), torch.full((5,), 2))
    assert seen == [True] * 4


def test_the_default_encoder_is_the_bilstm_of_before() -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(3, 4, 2)
    torch.manual_seed(0)
    before = BiLSTM(3, 4, 2)
    assert list(encoder.state_dict()) == [
        f"{side}_layers.{depth}.{kind}_l0"
        for side in ("forward", "backward")
        for depth in range(2)
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name])
    assert (BiLSTM(3).output_size, RecurrentEncoder(3).output_size) == (400, 400)


@every_cell
def test_copies_and_pickles_encode_alike(cell: str) -> None:
    options = {"connection": "highway", "learned_state": True, "merge": "mean"}
    encoder = shaken(2, **EVERY[cell], **options)
    x, lengths = torch.randn(2, 5, 3, dtype=DOUBLE), torch.tensor([5, 3])
    expected = encoder(x, lengths)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(other(x, lengths), expected)
        assert not {id(w) for w in other.parameters()} & {id(w) for w in encoder.parameters()}


@pytest.mark.parametrize("connection", CONNECTIONS)
@every_cell
def test_every_cell_trains_in_mixed_precision(cell: str, connection: str) -> None:
    torch.manual_seed(0)
    noise = {} if cell == "sru" else {"recurrent_dropout": 0.1}
    options = {**EVERY[cell], **noise, "connection": connection}
    encoder = RecurrentEncoder(3, 8, 2, learned_state=True, zoneout=0.1, **options)
    x, lengths = torch.randn(8, 5, 3), torch.full((8,), 5)
    target = 0.5 * torch.sign(torch.randn(8, 5, encoder.output_size))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (encoder(x, lengths).float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for weight in encoder.parameters():
            assert weight.grad is not None
            assert weight.grad.isfinite().all()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@every_cell
@torch.no_grad()
def test_mixed_precision_is_near_single_precision(cell: str) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(3, 8, 2, **EVERY[cell])
    x, lengths = torch.randn(2, 5, 3), torch.tensor([5, 3])
    expected = encoder(x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(x, lengths)
    mask = real(lengths, 5)
    torch.testing.assert_close(found.float()[mask], expected[mask], rtol=0.05, atol=0.05)


@every_cell
def test_one_token_of_one_sequence(cell: str) -> None:
    encoder = shaken(2, **EVERY[cell])
    x = torch.randn(1, 1, 3, dtype=DOUBLE, requires_grad=True)
    found = encoder(x, torch.tensor([1]))
    assert found.shape == (1, 1, encoder.output_size)
    found.sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "lsmt"}, "no cell 'lsmt'; the cells are lstm, .*sru. Did you mean 'lstm'"),
        ({"merge": "summ"}, "merge is 'summ': choose one of concat, sum, mean, product. Did you"),
        ({"merge": "max"}, "merge is 'max': choose one of concat, sum, mean, product."),
        (
            {"connection": "residuals", "num_layers": 2},
            "none, residual, highway. Did you mean 'res",
        ),
        ({"initialisation": "orthogonl"}, "orthogonal, glorot, uniform. Did you mean 'orthogonal'"),
        ({"cell": "gru", "proj_size": 2}, "model.proj_size goes with cell lstm"),
        ({"proj_size": 4}, "model.proj_size is 4: it must lie between 1 and"),
        ({"nonlinearity": "relu"}, "model.nonlinearity goes with cell rnn"),
        ({"merge": "sum", "bidirectional": False}, "model.merge is sum, .*nothing to merge"),
        ({"connection": "highway"}, "model.connection is highway, .*set model.num_layers to 2"),
        ({"cell": "sru", "recurrent_dropout": 0.1}, "model.recurrent_dropout has nothing to drop"),
        ({"dropout": 1.0}, "model.dropout is 1.0: it must be 0 or more and less than 1"),
        ({"locked_dropout": -0.1}, "model.locked_dropout is -0.1: it must be"),
        ({"recurrent_dropout": 1}, "model.recurrent_dropout is 1: it must be .* less than 1"),
        ({"recurrent_dropout": -1}, "model.recurrent_dropout is -1: it must be"),
        ({"zoneout": 1.5}, "model.zoneout is 1.5: it must be"),
        ({"zoneout": float("nan")}, "model.zoneout is nan: it must be"),
        ({"hidden_size": 0}, "model.hidden_size is 0: it must be 1 or more"),
        ({"num_layers": 0}, "model.num_layers is 0: it must be 1 or more"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        RecurrentEncoder(3, **{"hidden_size": 4, **options})


KINDS: dict[str, dict[str, Any]] = {
    **WAYS,
    "three layers": {"num_layers": 3},
    "residual": {"num_layers": 3, "connection": "residual"},
    "highway": {"num_layers": 2, "connection": "highway", "merge": "mean"},
}


@compiled
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_the_compiled_kernel_reads_as_torch_does(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(9, 13, **options)
    lengths = torch.tensor([4, 1, 6, 2])
    mask = real(lengths, 6)
    values = torch.randn(4, 6, 9).masked_fill(~mask.unsqueeze(-1), torch.nan)
    results = {}
    for kernels in ("native", "plain"):
        monkeypatch.setenv(VARIABLE, kernels)
        x = values.clone().requires_grad_()
        out = encoder(x, lengths)
        loss = out[mask].square().sum()
        with torch.no_grad():
            alone = encoder(x, lengths)
        torch.testing.assert_close(alone[mask], out[mask])
        found = torch.autograd.grad(loss, [x, *encoder.parameters()])
        results[kernels] = [out[mask], *found]
    for ours, theirs in zip(results["native"], results["plain"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize(
    ("options", "is_compiled"),
    [
        ({}, True),
        ({"bidirectional": False}, True),
        ({"dropout": 0.5, "num_layers": 2}, True),
        ({"recurrent_dropout": 0.5}, False),
        ({"zoneout": 0.5}, False),
        ({"learned_state": True}, False),
        ({"proj_size": 2}, False),
        ({"cell": "gru"}, False),
        ({"cell": "peephole"}, False),
    ],
    ids=str,
)
def test_the_compiled_kernel_reads_what_it_can(
    options: dict[str, Any], is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    read_compiled = lstm_native.read

    def counted(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return read_compiled(*arguments)

    monkeypatch.setattr(lstm_native, "read", counted)
    monkeypatch.setenv(VARIABLE, "native")
    encoder = RecurrentEncoder(3, 4, **options)
    x, lengths = torch.randn(2, 5, 3), torch.tensor([5, 3])
    encoder(x, lengths)
    assert len(calls) == is_compiled * len(encoder.forward_layers)
    calls.clear()
    encoder.double()(x.double(), lengths)
    assert calls == []
    monkeypatch.setenv(VARIABLE, "plain")
    encoder.float()(x, lengths)
    assert calls == []


@compiled
def test_recurrent_dropout_does_not_keep_the_compiled_kernel_from_predicting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "native")
    encoder = RecurrentEncoder(3, 4, recurrent_dropout=0.5)
    assert not encoder._compiled(torch.randn(1, 1, 3))
    assert encoder.eval()._compiled(torch.randn(1, 1, 3))


@pytest.mark.parametrize("kernels", ["native", "plain"])
@pytest.mark.parametrize("known", [0, 1, 3, 8])
@pytest.mark.parametrize("options", [*KINDS.values(), {"cell": "gru"}], ids=[*KINDS, "gru"])
@torch.no_grad()
def test_sequences_of_a_table_are_read_as_the_vectors_that_stand_there(
    options: dict[str, Any], known: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "native" and library.obstacle() is not None:
        pytest.skip(f"no compiled kernels: {library.obstacle()}")
    monkeypatch.setenv(VARIABLE, kernels)
    torch.manual_seed(1)
    encoder = RecurrentEncoder(9, 13, **options).eval()
    table = torch.randn(8, 9)
    table[[0, 7]] = torch.nan  # which padding alone asks for, one with a sum and one without
    lengths = torch.tensor([4, 0, 6, 2, 1])
    mask = real(lengths, 6)
    rows = torch.randint(1, 7, (5, 6)).where(mask, torch.tensor([0, 7, 0, 7, 0, 7]))
    sums = encoder.sums(table[:known])
    assert (sums is not None) == (kernels == "native" and "cell" not in options)
    if sums is None:
        sums = torch.empty(0)
    else:
        assert sums.shape == (len(encoder.layers(0)), max(known, 0), 4 * 13)
    found = encoder(Lookup(table, rows, sums), lengths)
    torch.testing.assert_close(found[mask], encoder(table[rows], lengths)[mask])
    some = Lookup(table, rows, sums).cut(1, 4)
    cut = (lengths - 1).clamp(0, 3)
    expected = encoder(table[rows[:, 1:4]], cut)
    inside = real(cut, 3)
    torch.testing.assert_close(encoder(some, cut)[inside], expected[inside])


@compiled
def test_sums_are_of_as_many_rows_as_caches_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "native")
    encoder = RecurrentEncoder(3, 4).eval()  # 32 numbers a row
    table = torch.randn(10, 3)
    for room, expected in ((320, 10), (319, 9), (96, 3), (5, 1)):
        monkeypatch.setattr("seqlab.nn.encoders._SUMS", room)
        sums = encoder.sums(table)
        assert sums is not None
        assert sums.shape == (2, expected, 16)
    with torch.autocast("cpu", torch.float16):
        assert encoder.sums(table) is None


@pytest.mark.parametrize("kernels", ["auto", "plain"])
def test_a_table_gets_the_gradients_of_the_vectors_that_stand_there(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, kernels)
    torch.manual_seed(1)
    encoder = RecurrentEncoder(3, 4)
    table = torch.randn(5, 3, requires_grad=True)
    rows, lengths = torch.tensor([[1, 2, 4], [3, 0, 0]]), torch.tensor([3, 1])
    with torch.no_grad():
        sums = encoder.sums(table)
    wanted = [table, *encoder.parameters()]
    losses = [
        encoder(x, lengths)[real(lengths, 3)].square().sum()
        for x in (Lookup(table, rows, torch.empty(0) if sums is None else sums), table[rows])
    ]
    ours, theirs = (torch.autograd.grad(loss, wanted) for loss in losses)
    for one, other in zip(ours, theirs, strict=True):
        assert (other != 0).any()
        torch.testing.assert_close(one, other)

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqlab.nn.encoders import BiLSTM, reversal, turn

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
RAGGED = [[1], [4], [5, 1, 3, 1, 5], [1, 1], [2, 7, 4]]


def packed_twin(encoder: BiLSTM) -> nn.LSTM:
    """Torch's own bidirectional LSTM with the weights of an encoder."""
    first = encoder.forward_layers[0]
    assert isinstance(first, nn.LSTM)
    twin = nn.LSTM(
        first.input_size,
        first.hidden_size,
        len(encoder.forward_layers),
        batch_first=True,
        bidirectional=True,
    ).to(first.weight_ih_l0.dtype)
    state = {}
    for layers, suffix in ((encoder.forward_layers, ""), (encoder.backward_layers, "_reverse")):
        for depth, layer in enumerate(layers):
            for name, weight in layer.state_dict().items():
                state[name.replace("_l0", f"_l{depth}{suffix}")] = weight
    twin.load_state_dict(state)
    return twin


def run_packed(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def real(lengths: Tensor, time: int) -> Tensor:
    return torch.arange(time) < lengths.unsqueeze(1)


def shaken(num_layers: int, seed: int = 0) -> BiLSTM:
    """An encoder in double precision, all of whose weights are random."""
    torch.manual_seed(seed)
    encoder = BiLSTM(3, 4, num_layers).double()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.normal_(std=0.5)
    return encoder


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("sizes", RAGGED, ids=str)
def test_results_and_gradients_are_those_of_packed_sequences(
    num_layers: int, sizes: list[int]
) -> None:
    encoder = shaken(num_layers)
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


@pytest.mark.parametrize("num_layers", [1, 2])
def test_padding_changes_nothing(num_layers: int) -> None:
    encoder = shaken(num_layers)
    lengths = torch.tensor([4, 1, 6, 2])
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    together = encoder(x, lengths)
    wide = torch.cat([x, torch.randn(4, 5, 3, dtype=torch.float64)], 1)
    wider = encoder(wide, lengths)
    turned = encoder(x.flip(0), lengths.flip(0)).flip(0)
    for row, size in enumerate(lengths.tolist()):
        alone = encoder(x[row : row + 1, :size], lengths[row : row + 1])[0]
        for found in (together, wider, turned):
            torch.testing.assert_close(found[row, :size], alone, rtol=1e-12, atol=1e-12)


def test_what_stands_at_padding_is_not_read() -> None:
    encoder = shaken(2)
    lengths = torch.tensor([2, 4])
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
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

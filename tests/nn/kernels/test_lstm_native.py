from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqlab.nn.cells import read as read_plainly
from seqlab.nn.encoders import reversal, turn
from seqlab.nn.kernels import library
from seqlab.nn.kernels.lstm_native import read, supports

# A busy machine is no failure.
UNHURRIED = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SETS = ["DEFAULT", "AVX2", "AVX512"]
HERE = torch.backends.cpu.get_cpu_capability()
pytestmark = pytest.mark.skipif(
    bool(library.obstacle()), reason=f"no compiled kernels: {library.obstacle()}"
)


@pytest.fixture(params=SETS)
def instructions(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The kernels for one set of instructions after the other, in this process."""
    if request.param not in SETS[: SETS.index(HERE) + 1 if HERE in SETS else 1]:
        pytest.skip(f"this machine has no {request.param}")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    monkeypatch.setattr(library, "_loaded", [])
    library.signature.cache_clear()
    yield request.param
    library.signature.cache_clear()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def layers_of(size: int, hidden: int, ways: int, seed: int = 0) -> list[nn.LSTM]:
    torch.manual_seed(seed)
    return [nn.LSTM(size, hidden, batch_first=True) for _ in range(ways)]


def weights_of(layers: Sequence[nn.Module]) -> list[Tensor]:
    return [weight for layer in layers for weight in layer.parameters()]


def mask_of(lengths: Tensor, time: int) -> Tensor:
    return (torch.arange(time) < lengths.unsqueeze(1)).unsqueeze(-1)


def packed(layers: Sequence[nn.LSTM], x: Tensor, lengths: Tensor) -> Tensor:
    """What torch makes of packed sequences; those without tokens it does not take."""
    first = layers[0]
    state = {
        f"{name}{suffix}": weight
        for layer, suffix in zip(layers, ("", "_reverse"), strict=False)
        for name, weight in layer.named_parameters()
    }
    twin = nn.LSTM(
        first.input_size, first.hidden_size, 1, batch_first=True, bidirectional=len(layers) == 2
    )
    some = lengths > 0
    out = x.new_zeros(*x.shape[:2], len(layers) * first.hidden_size)
    if not some.any():
        return out + 0 * x.sum()
    sequences = pack_padded_sequence(x[some], lengths[some], batch_first=True, enforce_sorted=False)
    found = torch.func.functional_call(twin.to(x.dtype), state, (sequences,))[0]
    filled = pad_packed_sequence(found, batch_first=True, total_length=x.shape[1])[0]
    return out.index_put((some.nonzero()[:, 0],), filled)


def gradients(out: Tensor, weight: Tensor, x: Tensor, layers: Sequence[nn.Module]) -> list[Tensor]:
    wanted = [x, *weights_of(layers)]
    found = torch.autograd.grad((out * weight).sum(), wanted, materialize_grads=True)
    return list(found)


def assert_exact(size: int, hidden: int, ways: int, lengths: Sequence[int], time: int) -> None:
    """Results and gradients are those of packed sequences in double precision."""
    layers, sizes = layers_of(size, hidden, ways), torch.tensor(lengths)
    mask = mask_of(sizes, time)
    values = torch.randn(len(lengths), time, size)
    weight = torch.randn(len(lengths), time, ways * hidden) * mask
    x = values.masked_fill(~mask, torch.nan).requires_grad_()
    ours = read(layers, x, sizes)
    assert (ours[~mask[..., 0]] == 0).all()
    with torch.no_grad():
        assert torch.equal(read(layers, x, sizes), ours)
    found = gradients(ours, weight, x, layers)
    assert (found[0][~mask[..., 0]] == 0).all()

    doubles = [layer.double() for layer in layers]
    y = values.masked_fill(~mask, 0).double().requires_grad_()
    theirs = packed(doubles, y, sizes)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-6, atol=1e-6)
    exact = gradients(theirs, weight.double(), y, doubles)
    largest = max(float(other.abs().max()) for other in exact if other.numel())
    for mine, other in zip(found, exact, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-5, atol=1e-5 * largest)


SHAPES = {
    "one token": (1, 1, 1, [1], 1),
    "small": (3, 5, 2, [5, 1, 3, 1, 5], 6),
    "one way": (130, 25, 1, [2, 7, 4], 7),
    "a tagger's": (130, 33, 2, [9, 8, 9, 7, 9, 9, 8, 2, 9, 9, 1, 9, 9], 9),
    "many words": (30, 25, 2, [(7 * i) % 8 + 1 for i in range(150)], 8),
    "whole tiles": (32, 64, 2, [4] * 24, 4),
    "longer than a part of a sum": (2, 3, 2, [700, 3], 700),
    "no tokens": (3, 4, 2, [0, 0], 2),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_results_and_gradients_are_those_of_packed_sequences(
    instructions: str, shape: tuple[int, int, int, list[int], int]
) -> None:
    assert_exact(*shape)


@UNHURRIED
@given(
    size=st.sampled_from([1, 2, 16, 31, 130]),
    hidden=st.sampled_from([1, 5, 8, 25, 33]),
    ways=st.integers(1, 2),
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    spare=st.integers(0, 2),
    count=st.integers(1, 3),
)
def test_any_shape_is_read_exactly(
    threads: None,
    size: int,
    hidden: int,
    ways: int,
    lengths: list[int],
    spare: int,
    count: int,
) -> None:
    torch.set_num_threads(count)
    assert_exact(size, hidden, ways, lengths, max(lengths) + spare)


@pytest.mark.parametrize("hidden", [5, 32])
def test_it_computes_what_torch_does_in_the_same_precision(hidden: int) -> None:
    layers, lengths = layers_of(7, hidden, 2), torch.tensor([3, 9, 1])
    x = torch.randn(3, 9, 7)
    index = reversal(lengths, 9)
    ways = read_plainly(layers, [x, turn(x, index)])
    expected = torch.cat([ways[0][0], turn(ways[1][0], index)], -1) * mask_of(lengths, 9)
    torch.testing.assert_close(read(layers, x, lengths), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_number_of_threads_changes_no_digit(
    threads: None, shape: tuple[int, int, int, list[int], int]
) -> None:
    size, hidden, ways, sizes, time = shape
    layers, lengths = layers_of(size, hidden, ways), torch.tensor(sizes)
    x = torch.randn(len(sizes), time, size, requires_grad=True)
    weight = torch.randn(len(sizes), time, ways * hidden)
    results = []
    for count in (1, 2, 2, 3, 4, 7):
        torch.set_num_threads(count)
        out = read(layers, x, lengths)
        results.append([out, *gradients(out, weight, x, layers)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_sequence_does_not_feel_its_neighbours() -> None:
    layers, lengths = layers_of(9, 21, 2), torch.tensor([4, 1, 6, 2, 6])
    x = torch.randn(5, 6, 9)
    together = read(layers, x, lengths)
    for row, size in enumerate(lengths.tolist()):
        alone = read(layers, x[row : row + 1, :size], lengths[row : row + 1])
        assert torch.equal(together[row : row + 1, :size], alone)


def test_going_back_twice_gives_the_same() -> None:
    layers, lengths = layers_of(3, 5, 2), torch.tensor([4, 2])
    x = torch.randn(2, 4, 3, requires_grad=True)
    loss = read(layers, x, lengths).square().sum()
    first = torch.autograd.grad(loss, [x, *weights_of(layers)], retain_graph=True)
    second = torch.autograd.grad(loss, [x, *weights_of(layers)])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_layer_used_twice_adds_up_its_gradients() -> None:
    layers, lengths = layers_of(6, 3, 2), torch.tensor([4, 2])
    x = torch.randn(2, 4, 6, requires_grad=True)
    twice = read(layers, read(layers, x, lengths), lengths)
    found = gradients(twice, torch.ones_like(twice), x, layers)
    doubles = [layer.double() for layer in layers]
    y = x.detach().double().requires_grad_()
    expected = packed(doubles, packed(doubles, y, lengths), lengths)
    for mine, other in zip(
        found, gradients(expected, torch.ones_like(expected), y, doubles), strict=True
    ):
        torch.testing.assert_close(mine.double(), other, rtol=1e-5, atol=1e-5)


def test_only_what_is_trained_gets_a_gradient() -> None:
    layers, lengths = layers_of(3, 5, 2), torch.tensor([4, 2])
    whole = torch.randn(2, 4, 3, requires_grad=True)
    read(layers, whole, lengths).square().sum().backward()
    expected = [weight.grad for weight in weights_of(layers)]
    x = whole.detach()
    for frozen in (["weight_ih_l0"], ["weight_hh_l0", "bias_ih_l0"], ["bias_hh_l0"]):
        for layer in layers:
            layer.zero_grad()
            for name, weight in layer.named_parameters():
                weight.requires_grad_(name not in frozen)
        read(layers, x, lengths).square().sum().backward()
        for weight, gradient in zip(weights_of(layers), expected, strict=True):
            assert (weight.grad is not None) == weight.requires_grad
            assert weight.grad is None or torch.equal(weight.grad, gradient)
    for weight in weights_of(layers):
        weight.requires_grad_(False)
    assert not read(layers, x, lengths).requires_grad
    found = torch.autograd.grad(read(layers, whole, lengths).square().sum(), whole)[0]
    torch.testing.assert_close(found, whole.grad, rtol=0, atol=0)


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    layers, lengths = layers_of(3, 5, 2), torch.tensor([4, 2])
    x = torch.randn(2, 4, 3)
    assert read(layers, x, lengths).grad_fn is not None
    with torch.no_grad():
        assert read(layers, x, lengths).grad_fn is None
    with torch.inference_mode():
        assert read(layers, x, lengths).is_inference()


def test_a_changed_input_or_output_is_noticed_on_the_way_back() -> None:
    layers, lengths = layers_of(3, 5, 2), torch.tensor([4, 2])
    for spoil in ("input", "output"):
        x = torch.randn(2, 4, 3)
        out = read(layers, x, lengths)
        loss = out.sum()
        with torch.no_grad():
            (x if spoil == "input" else out).zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_views_are_read_where_they_lie() -> None:
    layers, lengths = layers_of(6, 5, 2), torch.tensor([4, 2, 3])
    x = torch.randn(3, 4, 6)
    expected = read(layers, x, lengths)
    wide = torch.full((5, 6, 9), torch.nan)
    wide[1:4, 1:5, 2:8] = x
    turned = x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for view in (wide[1:4, 1:5, 2:8], turned, x.transpose(0, 1).contiguous().transpose(0, 1)):
        view = view.detach().requires_grad_()
        out = read(layers, view, lengths)
        assert torch.equal(out, expected)
        out.sum().backward()  # whose gradient is one number, stretched
        assert view.grad is not None
        assert view.grad.isfinite().all()
    once = x[:1].expand(3, 4, 6)
    assert torch.equal(read(layers, once, lengths), read(layers, once.clone(), lengths))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)], ids=str)
def test_an_empty_batch_has_an_empty_result(shape: tuple[int, int]) -> None:
    layers = layers_of(4, 5, 2)
    x = torch.randn(*shape, 4, requires_grad=True)
    out = read(layers, x, torch.zeros(shape[0], dtype=torch.int64))
    assert out.shape == (*shape, 10)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert all(w.grad is not None and (w.grad == 0).all() for w in weights_of(layers))


def test_a_very_long_sequence_is_read() -> None:
    layers, time = layers_of(2, 3, 2), 100_000
    x = torch.randn(1, time, 2, requires_grad=True)
    out = read(layers, x, torch.tensor([time]))
    out.square().sum().backward()
    assert x.grad is not None
    # What is far away does not matter: the last tokens are read the same alone.
    last = x.detach()[:, -300:]
    torch.testing.assert_close(read(layers, last, torch.tensor([300]))[:, 200:], out[:, -100:])
    assert x.grad.isfinite().all()
    assert (x.grad != 0).any(-1).all()


def test_what_is_no_number_stays_in_its_sequence() -> None:
    layers, lengths = layers_of(3, 5, 2), torch.tensor([4, 4])
    x = torch.randn(2, 4, 3)
    x[0, 2, 1] = torch.nan
    x[1] *= 1e30
    out = read(layers, x, lengths)
    assert out[0, 2:, :5].isnan().all()
    assert out[0, :3, 5:].isnan().all()
    assert out[0, :2, :5].isfinite().all()
    assert out[1].isfinite().all()


def test_threads_of_python_do_not_disturb_one_another() -> None:
    layers = layers_of(20, 33, 2)
    inputs = [(torch.randn(9, t, 20), torch.full((9,), t)) for t in (3, 40)]
    expected = [read(layers, *each) for each in inputs]
    wrong = []

    def work(which: int) -> None:
        for _ in range(30):
            x, lengths = inputs[which]
            out = read(layers, x.clone().requires_grad_(), lengths)
            torch.autograd.grad(out.sum(), weights_of(layers))
            if not torch.equal(out, expected[which]):
                wrong.append(which)

    workers = [threading.Thread(target=work, args=(which,)) for which in (0, 1, 0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize("lengths", [[3, -1], [3, 5]], ids=str)
def test_lengths_that_are_none_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"lengths .* do not go with 4 steps"):
        read(layers_of(3, 5, 2), torch.randn(2, 4, 3), torch.tensor(lengths))


def test_shapes_that_do_not_go_together_are_refused() -> None:
    layers = layers_of(3, 5, 2)
    for x, lengths in ((torch.randn(2, 4, 2), [1, 1]), (torch.randn(2, 4, 3), [1])):
        with pytest.raises(ValueError, match="goes neither with"):
            read(layers, x, torch.tensor(lengths))


def test_what_the_kernel_does_not_compute_is_known() -> None:
    layers, x = layers_of(3, 5, 2), torch.randn(2, 4, 3)
    assert supports(layers, x)
    assert not supports(layers, x.double())
    assert not supports([layer.double() for layer in layers_of(3, 5, 2)], x)
    assert not supports([nn.LSTM(3, 5, proj_size=2)], x)
    assert not supports([nn.LSTM(3, 5, bias=False)], x)
    assert not supports([nn.GRU(3, 5)], x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not supports(layers, x)

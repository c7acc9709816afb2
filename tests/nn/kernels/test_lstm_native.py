from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_int64
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqlab.nn.cells import read as read_plainly
from seqlab.nn.encoders import Lookup, RecurrentEncoder, reversal, turn
from seqlab.nn.kernels import library
from seqlab.nn.kernels.lstm_native import look_up, read, sums, supports
from seqlab.nn.precision import using

# A busy machine is no failure.
UNHURRIED = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SETS = ["DEFAULT", "AVX2", "AVX512"]
HERE = torch.backends.cpu.get_cpu_capability()
CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    bool(library.obstacle()), reason=f"no compiled kernels: {library.obstacle()}"
)


def has_bfloat16() -> bool:
    return bool(
        not library.obstacle() and library.signature("seqlab_lstm_rounds", (), c_int64)() == 1
    )


needs_bfloat16 = pytest.mark.skipif(
    not has_bfloat16(), reason="this machine or its compiler does not multiply in bfloat16"
)


@pytest.fixture
def built_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Take the kernels for another set of instructions, in this process."""

    def take(instructions: str) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
        monkeypatch.setattr(library, "_loaded", [])
        library.signature.cache_clear()

    yield take
    library.signature.cache_clear()


@pytest.fixture(params=SETS)
def instructions(request: Any, built_for: Callable[[str], None]) -> str:
    """The kernels for one set of instructions after the other."""
    if request.param not in SETS[: SETS.index(HERE) + 1 if HERE in SETS else 1]:
        pytest.skip(f"this machine has no {request.param}")
    built_for(request.param)
    return str(request.param)


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
    with torch.autocast("cpu", torch.float16):
        assert not supports(layers, x)


def read_fast(layers: Sequence[nn.Module], x: Tensor, lengths: Tensor) -> Tensor:
    with using("fast", CPU):
        assert supports(layers, x)
        return read(layers, x, lengths)


def rounded(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).to(x.dtype)


class Product(torch.autograd.Function):
    """``x @ weight.T + bias`` with rounded factors, on the way back too; all else is exact."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(rounded(x), rounded(weight))
        return rounded(x) @ rounded(weight).t() + bias

    @staticmethod
    def backward(ctx: Any, *d_outs: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        d_out = rounded(d_outs[0])
        return d_out @ weight, d_out.t() @ x, d_out.sum(0)


def by_token(
    layers: Sequence[nn.LSTM], x: Tensor, lengths: Sequence[int], product: Callable[..., Tensor]
) -> Tensor:
    """Sequence by sequence, token by token."""
    hidden = layers[0].hidden_size
    if not sum(lengths):
        return x.new_zeros(*x.shape[:2], len(layers) * hidden) + 0 * x.sum()
    out = [[x.new_zeros(len(layers) * hidden)] * x.shape[1] for _ in lengths]
    for row, length in enumerate(lengths):
        found: list[list[Tensor]] = []
        for way, layer in enumerate(layers):
            h = c = x.new_zeros(1, hidden)
            found.append([])
            for place in range(length) if way == 0 else reversed(range(length)):
                gates = product(x[row, place : place + 1], layer.weight_ih_l0, layer.bias_ih_l0)
                gates = gates + product(h, layer.weight_hh_l0, layer.bias_hh_l0)
                i, f, g, o = gates.chunk(4, -1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                found[way].append(h[0])
        if len(layers) == 2:
            found[1].reverse()
        for place in range(length):
            out[row][place] = torch.cat([each[place] for each in found])
    return torch.stack([torch.stack(each) for each in out])


def assert_close(found: Sequence[Tensor], wanted: Sequence[Tensor], share: float) -> None:
    """No number is further away than a share of the largest of all: terms that cancel out in one
    tensor are as large as those that add up in another, and so is what rounding does to them."""
    largest = max((float(o.detach().abs().max()) for o in wanted if o.numel()), default=0.0)
    bound = share * largest
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=bound + 1e-12)


def assert_rounded(size: int, hidden: int, ways: int, lengths: Sequence[int], time: int) -> None:
    layers = layers_of(size, hidden, ways)
    mask = (torch.arange(time) < torch.tensor(lengths).unsqueeze(1)).unsqueeze(-1)
    values = torch.randn(len(lengths), time, size)
    weight = torch.randn(len(lengths), time, ways * hidden) * mask
    x = values.masked_fill(~mask, torch.nan).requires_grad_()
    ours = read_fast(layers, x, torch.tensor(lengths))
    assert ours.dtype == torch.float32
    assert (ours[~mask[..., 0]] == 0).all()
    with torch.no_grad():
        assert torch.equal(read_fast(layers, x, torch.tensor(lengths)), ours)
    found = gradients(ours, weight, x, layers)
    assert (found[0][~mask[..., 0]] == 0).all()
    doubles = [layer.double() for layer in layers]

    # In the reference sums are exact, so that now and then a number is rounded to the other side.
    for product, share in ((Product.apply, 4e-3), (nn.functional.linear, 3e-2)):
        y = values.masked_fill(~mask, 0).double().requires_grad_()
        theirs = by_token(doubles, y, lengths, product)
        assert_close([ours], [theirs], share)
        assert_close(found, gradients(theirs, weight, y, doubles), share)


@needs_bfloat16
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, [1], 1),
        (130, 25, 2, [2, 7, 4], 7),
        (131, 33, 2, [9, 1, 9, 0, 8], 9),
        (32, 64, 2, [3] * 24, 3),
        (3, 2, 1, [1100], 1100),
        (3, 4, 2, [0, 0], 2),
    ],
    ids=["one token", "a tagger's", "odd sizes", "whole tiles", "a long sum", "no tokens"],
)
def test_factors_are_rounded_and_nothing_else(shape: tuple[int, int, int, list[int], int]) -> None:
    assert_rounded(*shape)


@needs_bfloat16
@pytest.mark.parametrize("size", [130, 131])
def test_every_factor_is_rounded_and_as_the_reference_does_it(size: int) -> None:
    """On average the kernel is far nearer to rounded factors than to exact ones."""
    lengths = [5, 2, 4, 1]
    layers, x = layers_of(size, 33, 2), torch.randn(4, 5, size, requires_grad=True)
    weight = torch.randn(4, 5, 66)
    out = read_fast(layers, x, torch.tensor(lengths))
    found = [out, *gradients(out, weight, x, layers)]
    doubles = [layer.double() for layer in layers]
    distances = []
    for product in (Product.apply, nn.functional.linear):
        y = x.detach().double().requires_grad_()
        theirs = by_token(doubles, y, lengths, product)
        wanted = [theirs, *gradients(theirs, weight, y, doubles)]
        distances.append(
            [float((a - b).detach().abs().mean()) for a, b in zip(found, wanted, strict=True)]
        )
    assert all(near < far / 20 for near, far in zip(*distances, strict=True)), distances


@needs_bfloat16
@UNHURRIED
@given(
    size=st.sampled_from([1, 2, 16, 31, 130]),
    hidden=st.sampled_from([1, 5, 8, 25, 33]),
    ways=st.integers(1, 2),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    spare=st.integers(0, 2),
    count=st.integers(1, 3),
)
def test_any_shape_is_read_fast(
    threads: None, size: int, hidden: int, ways: int, lengths: list[int], spare: int, count: int
) -> None:
    torch.set_num_threads(count)
    assert_rounded(size, hidden, ways, lengths, max(lengths) + spare)


@needs_bfloat16
def test_a_factor_is_rounded_to_the_nearest_and_ties_to_even() -> None:
    (layer,) = layers_of(1, 1, 1)
    with torch.no_grad():
        for weight in weights_of([layer]):
            weight.zero_()
        layer.weight_ih_l0[2] = 1.0  # the candidate
        layer.bias_ih_l0[0] = layer.bias_ih_l0[3] = 100.0
    between = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8]
    wanted = torch.tensor([1, 1 + 2**-6, 1 + 2**-7, -1]).tanh().tanh()
    x = torch.tensor(between).reshape(4, 1, 1)
    found = read_fast([layer], x, torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(found.flatten(), wanted, rtol=1e-6, atol=1e-6)
    assert (found.flatten() - torch.tensor(between).tanh().tanh()).abs().min() > 1e-5


@needs_bfloat16
@pytest.mark.parametrize(
    "shape", [(130, 33, 2, [9, 8, 9, 7, 9, 9, 8, 2, 9, 9, 1, 9, 9], 9), (3, 5, 1, [700, 3], 700)]
)
def test_the_number_of_threads_changes_no_digit_of_the_fast_one(
    threads: None, shape: tuple[int, int, int, list[int], int]
) -> None:
    size, hidden, ways, sizes, time = shape
    layers, lengths = layers_of(size, hidden, ways), torch.tensor(sizes)
    x = torch.randn(len(sizes), time, size, requires_grad=True)
    weight = torch.randn(len(sizes), time, ways * hidden)
    results = []
    for count in (1, 2, 2, 3):
        torch.set_num_threads(count)
        out = read_fast(layers, x, lengths)
        results.append([out, *gradients(out, weight, x, layers)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_bfloat16
def test_a_sequence_does_not_feel_its_neighbours_in_bfloat16() -> None:
    layers, lengths = layers_of(9, 21, 2), torch.tensor([4, 1, 6, 2, 6])
    x = torch.randn(5, 6, 9)
    together = read_fast(layers, x, lengths)
    for row, size in enumerate(lengths.tolist()):
        alone = read_fast(layers, x[row : row + 1, :size], lengths[row : row + 1])
        assert torch.equal(together[row : row + 1, :size], alone)


@needs_bfloat16
def test_what_is_no_number_stays_in_its_sequence_in_bfloat16() -> None:
    layers, lengths = layers_of(3, 5, 2), torch.tensor([3, 3, 3])
    x = torch.randn(3, 4, 3)
    x[0, 2, 1] = torch.nan
    x[1] *= 1e30
    x.requires_grad_()
    out = read_fast(layers, x, lengths)
    assert out[0, 2, :5].isnan().all()
    assert out[0, :3, 5:].isnan().all()
    assert out[0, :2, :5].isfinite().all()
    assert out[1:].isfinite().all()
    (d_x,) = torch.autograd.grad(out.sum(), x)
    assert d_x[0, :3].isnan().all()
    assert d_x[1:].isfinite().all()


@needs_bfloat16
def test_an_input_in_bfloat16_is_taken_and_gets_its_gradient() -> None:
    layers, lengths = layers_of(6, 5, 2), torch.tensor([4, 2])
    x = torch.randn(2, 4, 6).bfloat16().requires_grad_()
    y = x.detach().float().requires_grad_()
    ours, theirs = read_fast(layers, x, lengths), read_fast(layers, y, lengths)
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(ours)
    found, wanted = gradients(ours, weight, x, layers), gradients(theirs, weight, y, layers)
    assert found[0].dtype == torch.bfloat16
    assert torch.equal(found[0], wanted[0].bfloat16())
    assert all(torch.equal(a, b) for a, b in zip(found[1:], wanted[1:], strict=True))


@needs_bfloat16
def test_the_way_back_computes_as_the_way_forward_did() -> None:
    layers, lengths = layers_of(6, 5, 2), torch.tensor([4, 2])
    x = torch.randn(2, 4, 6, requires_grad=True)
    weight = torch.randn(2, 4, 10)
    fast = read_fast(layers, x, lengths)
    outside = gradients(read_fast(layers, x, lengths), weight, x, layers)
    with using("fast", CPU):
        inside = gradients(fast, weight, x, layers)
    exact = read(layers, x, lengths)
    plain = gradients(exact, weight, x, layers)
    exact_again = read(layers, x, lengths)
    with using("fast", CPU):
        assert all(
            torch.equal(a, b)
            for a, b in zip(plain, gradients(exact_again, weight, x, layers), strict=True)
        )
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(outside, plain, strict=True))


@needs_bfloat16
def test_words_are_looked_up_with_rounded_factors() -> None:
    layers, lengths = layers_of(31, 25, 2), torch.tensor([5, 2, 4])
    table, rows = torch.randn(12, 31), torch.randint(12, (3, 5))
    wanted = read_fast(layers, table[rows], lengths)
    with using("fast", CPU), torch.no_grad():
        unknown = look_up(layers, table, rows, lengths, sums(layers, table[:0]))
        known = look_up(layers, table, rows, lengths, sums(layers, table[:7]))
        again = look_up(layers, table, rows, lengths, sums(layers, table[:7].bfloat16()))
    assert known.dtype == torch.float32
    assert torch.equal(unknown, wanted)
    assert torch.equal(known, again)
    torch.testing.assert_close(known, wanted, rtol=0, atol=1e-3)
    exact = read(layers, table[rows], lengths)
    assert not torch.equal(sums(layers, table), sums(layers, table.bfloat16().float()))
    assert (known - wanted).abs().mean() < (exact - wanted).abs().mean() / 10


@needs_bfloat16
def test_exact_is_the_same_beside_fast(built_for: Callable[[str], None]) -> None:
    """A library that can round gives what one that cannot gives where it is not asked to."""
    layers, lengths = layers_of(31, 25, 2), torch.tensor([9, 4, 9, 1])
    x = torch.randn(4, 9, 31, requires_grad=True)
    weight = torch.randn(4, 9, 50)
    out = read(layers, x, lengths)
    ours = [out, *gradients(out, weight, x, layers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        built_for(HERE)
        assert not has_bfloat16()
        other = read(layers, x, lengths)
        theirs = [other, *gradients(other, weight, x, layers)]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@needs_bfloat16
def test_an_encoder_reads_fast_with_the_kernel_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    encoder, lengths = RecurrentEncoder(12, 9, num_layers=2).eval(), torch.tensor([4, 2])
    x, kept = torch.randn(2, 4, 12), torch.tensor([[True] * 4, [True, True, False, False]])
    monkeypatch.setenv("SEQLAB_KERNELS", "auto")
    exact = encoder(x, lengths)[kept]
    found = []
    for kernels in ("auto", "plain"):
        monkeypatch.setenv("SEQLAB_KERNELS", kernels)
        with using("fast", CPU), torch.no_grad():
            assert supports(encoder.layers(0), x) == (kernels == "auto")
            found.append(encoder(x, lengths)[kept])
    assert [each.dtype for each in found] == [torch.float32, torch.bfloat16]
    for each in found:
        torch.testing.assert_close(each.float(), exact, rtol=0, atol=2e-2)
    monkeypatch.setenv("SEQLAB_KERNELS", "auto")
    with using("fast", CPU), torch.no_grad():
        known = encoder.sums(x.flatten(0, 1))
        assert known is not None
        looked_up = encoder(Lookup(x.flatten(0, 1), torch.arange(8).reshape(2, 4), known), lengths)
    torch.testing.assert_close(looked_up[kept], found[0], rtol=0, atol=1e-3)


def test_a_machine_that_does_not_multiply_in_bfloat16_leaves_it_to_torch(
    instructions: str, built_for: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    built_for(instructions)
    monkeypatch.setenv("SEQLAB_KERNELS", "auto")
    encoder, lengths = RecurrentEncoder(12, 9).eval(), torch.tensor([4, 4])
    x = torch.randn(2, 4, 12)
    assert supports(encoder.layers(0), x)
    exact = encoder(x, lengths)
    with using("fast", CPU):
        assert not supports(encoder.layers(0), x)
        assert encoder.sums(x[0]) is None
        theirs = encoder(x, lengths)
    assert theirs.dtype == torch.bfloat16
    torch.testing.assert_close(theirs.float(), exact, rtol=0, atol=2e-2)


SOURCE = """#ifdef __AVX512BF16__
extern "C" long long seqlab_lstm_rounds() { return 1; }
#else
extern "C" long long seqlab_lstm_rounds() { return 0; }
#endif
"""


@needs_bfloat16
@pytest.mark.skipif(os.name == "nt", reason="compilers here are shell scripts")
@pytest.mark.skipif(library._compiler() is None, reason="no C++ compiler is here")
def test_a_compiler_too_old_for_bfloat16_builds_the_rest(
    built_for: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rounds.cpp").write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))
    built_for(HERE)
    assert has_bfloat16()
    command, old = (library._compiler() or [""])[0], tmp_path / "old"
    old.write_text(
        '#!/bin/sh\nfor x; do [ "$x" = -mavx512bf16 ] && echo unknown flag && exit 1; done\n'
        f'exec {command} "$@"\n',
        encoding="utf-8",
    )
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    built_for(HERE)
    assert library.obstacle() is None
    assert not has_bfloat16()


def test_other_types_are_left_to_torch() -> None:
    layers, x = layers_of(3, 5, 2), torch.randn(2, 4, 3)
    with torch.autocast("cpu", torch.float16):
        assert not supports(layers, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not supports(layers, x.half())
        assert not supports(layers, x.double())
        assert supports(layers, x) == supports(layers, x.bfloat16()) == has_bfloat16()
    assert supports(layers, x)
    assert not supports(layers, x.bfloat16())

"""The compiled decoder against the definition, in float64 where that can be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqlab.nn.decoder_scan import ScanInputs, feeding_scan
from seqlab.nn.kernels import library
from seqlab.nn.kernels.decoder_native import feeding_decoder, supports
from tests.nn.kernels.test_lstm_native import needs_bfloat16
from tests.nn.test_decoder_scan import by_hand

pytestmark = pytest.mark.skipif(
    library.obstacle() is not None, reason="there are no compiled kernels here"
)
NAMES = ("gates", "keys", "values", "fed", "recurrent", "output", "hidden", "cell")


def made(batch: int, time: int, source: int, size: int, dropped: bool) -> dict[str, Tensor]:
    torch.manual_seed(batch + 10 * time + 100 * source + 1000 * size)
    shapes = {
        "gates": (batch, time, 4 * size),
        "keys": (batch, source, size),
        "values": (batch, source, size),
        "fed": (4 * size, size),
        "recurrent": (4 * size, size),
        "output": (size, size),
        "hidden": (batch, size),
        "cell": (batch, size),
    }
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    for name in ("fed", "recurrent", "output", "values"):
        tensors[name] *= size**-0.5
    for tensor in tensors.values():
        tensor.requires_grad_()
    tensors["lengths"] = torch.randint(1, source + 1, (batch,))
    if dropped:
        tensors["kept"] = (torch.rand(batch, time, size) > 0.4) / 0.6
    return tensors


def run(tensors: dict[str, Tensor]) -> Tensor:
    return feeding_decoder(
        *(tensors[name] for name in NAMES[:3]),
        tensors["lengths"],
        *(tensors[name] for name in NAMES[3:]),
        tensors.get("kept"),
    )


def inputs_of(tensors: dict[str, Tensor]) -> ScanInputs:
    source = tensors["keys"].shape[1]
    kept = tensors.get("kept")
    return ScanInputs(
        gates=tensors["gates"].transpose(0, 1),
        keys=tensors["keys"],
        values=tensors["values"],
        mask=torch.arange(source) < tensors["lengths"].unsqueeze(1),
        weights=[torch.cat([tensors["fed"], tensors["recurrent"]], 1)],
        biases=[],
        output=tensors["output"],
        hidden=tensors["hidden"].unsqueeze(0),
        cell=tensors["cell"].unsqueeze(0),
        kept=None if kept is None else kept.transpose(0, 1),
    )


def doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: x if name == "lengths" else x.detach().double().requires_grad_(x.requires_grad)
        for name, x in tensors.items()
    }


@settings(deadline=None)
@given(
    batch=st.integers(1, 70),
    time=st.integers(1, 5),
    source=st.integers(1, 9),
    size=st.integers(1, 37),
    dropped=st.booleans(),
    threads=st.integers(1, 3),
)
def test_any_shape_is_decoded(
    batch: int, time: int, source: int, size: int, dropped: bool, threads: int
) -> None:
    tensors = made(batch, time, source, size, dropped)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = run(tensors)
        weight = torch.randn_like(ours)
        leaves = [tensors[name] for name in NAMES]
        found = torch.autograd.grad((ours * weight).sum(), leaves)
    finally:
        torch.set_num_threads(before)
    double = doubled(tensors)
    theirs = by_hand(inputs_of(double)).transpose(0, 1)
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5)
    others = [double[name] for name in NAMES]
    wanted = torch.autograd.grad((theirs * weight.double()).sum(), others, materialize_grads=True)
    bound = 2e-5 * max(float(x.abs().max()) for x in wanted)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=bound)


def test_results_do_not_depend_on_threads_or_on_who_else_is_in_the_batch() -> None:
    tensors = made(40, 6, 7, 24, dropped=True)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(tensors).detach())
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    some = {
        name: x[5:17] if x.shape[0] == 40 and name not in ("fed", "recurrent", "output") else x
        for name, x in tensors.items()
    }
    assert torch.equal(run(some), results[0][5:17])


def test_what_stands_at_padding_has_no_effect() -> None:
    tensors = made(6, 3, 8, 10, dropped=False)
    inside = (torch.arange(8) < tensors["lengths"].unsqueeze(1)).unsqueeze(-1)
    broken = dict(tensors)
    for name in ("keys", "values"):
        broken[name] = tensors[name].detach().masked_fill(~inside, torch.nan).requires_grad_()
    ours, theirs = run(broken), run(tensors)
    assert torch.equal(ours, theirs)
    found = torch.autograd.grad(ours.sum(), [broken[name] for name in NAMES])
    wanted = torch.autograd.grad(theirs.sum(), [tensors[name] for name in NAMES])
    assert all(map(torch.equal, found, wanted))
    assert not found[1].masked_select(~inside).any()


@needs_bfloat16
def test_rounded_factors_are_those_of_the_plain_scan() -> None:
    tensors = made(30, 5, 7, 33, dropped=True)
    leaves = [tensors[name] for name in NAMES]
    with torch.autocast("cpu", torch.bfloat16):
        assert supports(tensors["gates"], tensors["output"])
        ours = run(tensors)
        theirs = feeding_scan(inputs_of(tensors)).transpose(0, 1)
    exact = run(tensors)
    assert not torch.equal(ours, exact)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.03)
    weight = torch.randn_like(ours)
    found = torch.autograd.grad((ours * weight).sum(), leaves)
    wanted = torch.autograd.grad((exact * weight).sum(), leaves)
    for mine, other in zip(found, wanted, strict=True):
        assert float((mine - other).norm()) < 0.03 * float(other.norm())


def test_gradients_can_be_asked_for_twice() -> None:
    tensors = made(3, 4, 5, 6, dropped=True)
    leaves = [tensors[name] for name in NAMES]
    total = run(tensors).sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(total, leaves)))


def test_what_does_not_go_together_is_refused() -> None:
    tensors = made(3, 4, 5, 6, dropped=False)
    with pytest.raises(ValueError, match="keys is"):
        run({**tensors, "keys": tensors["keys"][:, :, :5]})
    for wrong in (0, 6):
        with pytest.raises(ValueError, match="do not go with a source of 5 tokens"):
            run({**tensors, "lengths": torch.tensor([1, wrong, 2])})

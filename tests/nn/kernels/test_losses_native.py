"""The compiled loss of a softmax against torch's in float64, and itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seqlab.nn.kernels import library
from seqlab.nn.kernels.losses_native import smoothed_rows, supports

pytestmark = pytest.mark.skipif(
    library.obstacle() is not None, reason=f"no compiled kernels: {library.obstacle()}"
)


def made(
    rows: int, vocabulary: int, kind: torch.dtype, seed: int, scale: float = 3.0
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    logits = (torch.randn(rows, vocabulary) * scale).to(kind)
    return logits, torch.randn(vocabulary), torch.randint(vocabulary, (rows,))


def run(
    logits: Tensor, bias: Tensor | None, target: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    losses, gradient = torch.empty(len(logits)), torch.empty_like(logits)
    sums = torch.ones(logits.shape[1])
    smoothed_rows(logits, bias, target, smoothing, losses, gradient, sums)
    return losses, gradient, sums


@settings(deadline=None)
@given(
    rows=st.integers(0, 9),
    vocabulary=st.integers(1, 1200),
    kind=st.sampled_from([torch.float32, torch.bfloat16]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    biased=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_it_equals_torch_in_float64(
    rows: int, vocabulary: int, kind: torch.dtype, smoothing: float, biased: bool, seed: int
) -> None:
    logits, bias, target = made(rows, vocabulary, kind, seed)
    losses, gradient, sums = run(logits, bias if biased else None, target, smoothing)
    exact = (logits.double() + bias.double() * biased).requires_grad_()
    expected = F.cross_entropy(exact, target, reduction="none", label_smoothing=smoothing)
    (slope,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-5, atol=1e-5)
    near = {"rtol": 5e-3, "atol": 1e-6} if kind == torch.bfloat16 else {"rtol": 2e-5, "atol": 1e-7}
    torch.testing.assert_close(gradient.double(), slope, **near)
    torch.testing.assert_close(sums.double(), 1 + gradient.double().sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_gradient_may_lie_where_the_logits_lay(kind: torch.dtype) -> None:
    logits, bias, target = made(5, 37, kind, 0)
    losses, gradient, _ = run(logits, bias, target, 0.1)
    again = torch.empty(5)
    smoothed_rows(logits, bias, target, 0.1, again, logits, None)
    assert torch.equal(again, losses)
    assert torch.equal(logits, gradient)


def test_losses_come_without_gradients_too() -> None:
    logits, bias, target = made(5, 37, torch.float32, 0)
    losses = torch.empty(5)
    smoothed_rows(logits, bias, target, 0.1, losses, None, None)
    assert torch.equal(losses, run(logits, bias, target, 0.1)[0])


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_threads_and_repetitions_change_no_bit(kind: torch.dtype) -> None:
    given = made(70, 3001, kind, 1)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3, 2):
            torch.set_num_threads(number)
            found.append(run(*given, 0.1))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_none(kind: torch.dtype) -> None:
    logits, _, target = made(3, 50, kind, 2)
    logits[1, 7] = torch.nan
    losses, gradient, sums = run(logits, None, target, 0.1)
    assert losses.isnan().tolist() == [False, True, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False]
    assert sums.isnan().any()


def test_impossible_tokens_and_large_logits_are_no_trouble() -> None:
    logits, _, target = made(4, 50, torch.float32, 3, scale=1e4)
    logits[:, 11] = -torch.inf
    target[target == 11] = 12
    losses, gradient, _ = run(logits, None, target, 0.0)
    expected = F.cross_entropy(logits.double(), target, reduction="none")
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    assert not gradient[:, 11].any()


@pytest.mark.parametrize("wrong", [-1, 50])
def test_a_target_outside_the_vocabulary_is_refused(wrong: int) -> None:
    logits, _, target = made(3, 50, torch.float32, 4)
    target[2] = wrong
    with pytest.raises(IndexError, match="not from 0 to 49"):
        run(logits, None, target, 0.1)


def test_other_types_are_not_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.empty(0)
    assert supports(torch.float32, here)
    assert supports(torch.bfloat16, here)
    assert not supports(torch.float64, here)
    assert not supports(torch.float32, torch.empty(0, device="meta"))
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")
    assert not supports(torch.float32, here)

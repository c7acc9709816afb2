"""The loss of an output layer against torch's, which keeps all that it computes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from seqlab.nn import losses
from seqlab.nn.kernels import library
from seqlab.nn.losses import smoothed_cross_entropy

TOKENS, SIZE, VOCABULARY = 13, 5, 11


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_ROWS", 4)  # groups of 4, 4, 4 and 1 token


@pytest.fixture(params=["plain", "native"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "native":
        problem = library.obstacle()
        if problem is not None:
            pytest.skip(f"no compiled kernels: {problem}")
    monkeypatch.setenv("SEQLAB_KERNELS", request.param)
    return str(request.param)


def inputs(
    dtype: torch.dtype = torch.float32, bias: bool = True, tokens: int = TOKENS
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    torch.manual_seed(0)
    features = torch.randn(tokens, SIZE, dtype=dtype).requires_grad_()
    weight = torch.randn(VOCABULARY, SIZE, dtype=dtype).requires_grad_()
    shift = torch.randn(VOCABULARY, dtype=dtype).requires_grad_() if bias else None
    return features, weight, shift, torch.randint(VOCABULARY, (tokens,))


def of_torch(
    features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float
) -> Tensor:
    logits = F.linear(features, weight, bias)
    return F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)


def gradients(loss: Tensor, *given: Tensor | None) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [x for x in given if x is not None], retain_graph=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_those_of_torch(
    dtype: torch.dtype, bias: bool, smoothing: float
) -> None:
    given = inputs(dtype, bias)
    ours, theirs = smoothed_cross_entropy(*given, smoothing), of_torch(*given, smoothing)
    torch.testing.assert_close(ours, theirs)
    found = gradients(ours * 0.3, *given[:3])
    for a, b in zip(found, gradients(theirs * 0.3, *given[:3]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_are_those_of_finite_differences(smoothing: float) -> None:
    features, weight, bias, target = inputs(torch.float64)

    def loss(*given: Tensor) -> Tensor:
        return smoothed_cross_entropy(*given, target, smoothing)

    assert torch.autograd.gradcheck(loss, (features, weight, bias))


def test_a_second_backward_pass_finds_the_same() -> None:
    given = inputs()
    loss = smoothed_cross_entropy(*given, 0.1)
    first = [x.clone() for x in gradients(loss * 2.0, *given[:3])]
    for a, b in zip(first, gradients(loss * 2.0, *given[:3]), strict=True):
        assert torch.equal(a, b)


def test_two_losses_over_one_tied_weight_add_up() -> None:
    features, weight, _, target = inputs(bias=False)
    total = sum(
        smoothed_cross_entropy(x, weight, None, target, 0.1)
        for x in (features, weight[0] + features)
    )
    expected = of_torch(features, weight, None, target, 0.1)
    expected = expected + of_torch(weight[0] + features, weight, None, target, 0.1)
    assert isinstance(total, Tensor)
    for a, b in zip(
        gradients(total, features, weight), gradients(expected, features, weight), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_what_needs_no_gradient_gets_none(wanted: int) -> None:
    given = inputs()
    for i, x in enumerate(given[:3]):
        assert x is not None
        x.requires_grad_(i == wanted)
    smoothed_cross_entropy(*given, 0.1).backward()
    assert [x is not None and x.grad is not None for x in given[:3]] == [
        i == wanted for i in range(3)
    ]


class Watch(TorchDispatchMode):
    """Notes the types of all tensors (token, vocabulary) that come into being."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.shape == (TOKENS, VOCABULARY):
            self.types.add(found.dtype)
        return found


def test_without_gradients_all_logits_are_never_there_at_once() -> None:
    given = inputs()
    expected = of_torch(*given, 0.1)
    with torch.no_grad(), Watch() as watch:
        loss = smoothed_cross_entropy(*given, 0.1)
    assert watch.types == set()
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected.detach())
    with torch.inference_mode():
        torch.testing.assert_close(smoothed_cross_entropy(*given, 0.1), expected.detach())


def test_autocast_rounds_products_and_nothing_else() -> None:
    given = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        ours = smoothed_cross_entropy(*given, 0.1)
        logits = F.linear(given[0], given[1]) + given[2]  # the bias is not rounded
        theirs = F.cross_entropy(logits, given[3], reduction="sum", label_smoothing=0.1)
        with Watch() as watch:
            smoothed_cross_entropy(*given, 0.1)
    assert watch.types == {torch.bfloat16}
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs)  # of the same rounded logits
    for x, a, b in zip(
        given, gradients(ours, *given[:3]), gradients(theirs, *given[:3]), strict=False
    ):
        assert x is not None
        assert a.dtype == x.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()


def test_the_backward_pass_is_as_precise_as_the_forward_pass() -> None:
    given = inputs()
    loss = smoothed_cross_entropy(*given, 0.1)
    outside = gradients(loss, *given[:3])
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradients(loss, *given[:3])
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))


def test_features_may_come_rounded() -> None:
    features, weight, bias, target = inputs()
    rounded = features.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = smoothed_cross_entropy(rounded, weight, bias, target, 0.1)
        expected = smoothed_cross_entropy(features, weight, bias, target, 0.1)
    loss.backward()
    assert loss.item() == expected.item()
    assert rounded.grad is not None
    assert rounded.grad.dtype == torch.bfloat16


def test_large_logits_are_no_trouble() -> None:
    features, weight, _, target = inputs(bias=False)
    large = (features.detach() * 1e4).requires_grad_()
    loss = smoothed_cross_entropy(large, weight, None, target, 0.1)
    torch.testing.assert_close(loss, of_torch(large, weight, None, target, 0.1))
    assert all(x.isfinite().all() for x in gradients(loss, large, weight))


def test_no_tokens_cost_nothing() -> None:
    given = inputs(tokens=0)
    loss = smoothed_cross_entropy(*given, 0.1)
    assert loss.item() == 0.0
    found = gradients(loss, *given[:3])
    assert [x.shape for x in found] == [x.shape for x in given[:3] if x is not None]
    assert not any(x.any() for x in found)


def test_a_guess_costs_the_logarithm_of_the_vocabulary() -> None:
    zeros = torch.zeros(VOCABULARY, SIZE)
    loss = smoothed_cross_entropy(torch.ones(3, SIZE), zeros, None, torch.tensor([0, 5, 10]), 0.2)
    assert loss.item() == pytest.approx(3 * math.log(VOCABULARY))

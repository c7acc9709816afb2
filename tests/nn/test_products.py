"""Products through oneDNN and without it give what torch's public functions give."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from seqlab.nn import products
from seqlab.nn.products import factor, linear, product, rounds


@pytest.fixture(params=["onednn", "public"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "public":
        monkeypatch.setattr(products, "_has_onednn", lambda: False)
    elif not products._has_onednn():
        pytest.skip("this torch does not lay weights out for oneDNN")
    return str(request.param)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_prepared_weight_multiplies_any_number_of_rows(route: str, rows: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(33, 20, requires_grad=True), torch.randn(rows, 20)
    wanted = x.double() @ weight.detach().double().t()
    for planned in (1, 8, 256):
        found = factor(weight, planned, rounded=False)(x)
        assert not found.requires_grad
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
        near = factor(weight, planned, rounded=True)
        torch.testing.assert_close(near(x).double(), wanted, rtol=0.02, atol=0.2)
        assert torch.equal(near(x), near(x.bfloat16()))
        assert near(x).dtype == torch.float32


def test_products_of_two_matrices(route: str) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(9, 20), torch.randn(20, 31)
    torch.testing.assert_close(product(a, b, rounded=False), a @ b, rtol=1e-5, atol=1e-5)
    turned = product(b.t(), a.t(), rounded=False)
    torch.testing.assert_close(turned, b.t() @ a.t(), rtol=1e-5, atol=1e-5)
    near = product(a, b, rounded=True)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, a @ b, rtol=0.02, atol=0.2)


@pytest.mark.parametrize("shape", [(6, 20), (2, 3, 20), (2, 0, 20)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_is_that_of_torch_with_its_gradients(
    route: str, shape: tuple[int, ...], biased: bool
) -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(*shape), torch.randn(7, 20), torch.randn(7)][: 2 + biased]
    ours = [x.clone().requires_grad_() for x in leaves]
    theirs = [x.clone().requires_grad_() for x in leaves]
    found, wanted = linear(*ours), functional.linear(*theirs)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(wanted)
    for mine, other in zip(
        torch.autograd.grad((found * weight).sum(), ours),
        torch.autograd.grad((wanted * weight).sum(), theirs),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_parts_of_wider_matrices_are_multiplied_as_copies_of_them_are(route: str) -> None:
    torch.manual_seed(0)
    wide = torch.randn(9, 50, requires_grad=True)
    x = torch.randn(6, 70)[:, 10:30].requires_grad_()
    found = linear(x, wide[:, 20:40])
    wanted = linear(x.contiguous(), wide[:, 20:40].contiguous())
    torch.testing.assert_close(found, wanted)
    ours = torch.autograd.grad(found.square().sum(), (x, wide))
    theirs = torch.autograd.grad(wanted.square().sum(), (x, wide))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_linear_rounds_under_autocast(route: str) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, 20, requires_grad=True), torch.randn(7, 20, requires_grad=True)
    exact = linear(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert rounds(x)
        near = linear(x, weight)
    assert not rounds(x)
    assert not torch.equal(near.float(), exact)
    torch.testing.assert_close(near.float(), exact, rtol=0.02, atol=0.2)
    ours = torch.autograd.grad(near.float().square().sum(), (x, weight))
    theirs = torch.autograd.grad(exact.square().sum(), (x, weight))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        assert float((mine - other).norm()) < 0.05 * float(other.norm())


def test_whether_there_is_onednn_is_found_out_under_autocast_too() -> None:
    wanted = products._has_onednn()
    products._has_onednn.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert products._has_onednn() == wanted

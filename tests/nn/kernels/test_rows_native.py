from __future__ import annotations

import pytest
import torch

from seqlab.nn.dropout import Dropout, keep_mask
from seqlab.nn.kernels import rows_native as native
from seqlab.nn.kernels.library import obstacle

pytestmark = pytest.mark.skipif(obstacle() is not None, reason="there is no C++ compiler")


@pytest.mark.parametrize(("tokens", "size"), [(0, 4), (1, 1), (50, 7), (400, 100)])
def test_sums_of_rows_are_those_of_index_add(tokens: int, size: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(0, 30, (tokens,), generator=generator)
    gradient = torch.randn(tokens, size, generator=generator)
    rows, sums = native.row_sums(ids, gradient, 30, 2)
    wanted = torch.zeros(30, size, dtype=torch.float64).index_add_(0, ids, gradient.double())
    assert rows.tolist() == sorted(set(ids.tolist()) - {2})
    torch.testing.assert_close(sums.double(), wanted[rows], rtol=1e-5, atol=1e-5)


def test_padding_may_be_no_row_at_all() -> None:
    rows, _ = native.row_sums(torch.tensor([2, 0]), torch.ones(2, 3), 4, -1)
    assert rows.tolist() == [0, 2]


@pytest.mark.parametrize("shape", [(1,), (3, 17), (40, 64, 33)])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.99])
def test_dropout_drops_what_the_plain_one_drops(
    shape: tuple[int, ...], p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "native")
    x = torch.randn(shape, requires_grad=True)
    torch.manual_seed(4)
    found = Dropout(p).train()(x)
    torch.manual_seed(4)
    mask = keep_mask(x.shape, p, x)
    assert torch.equal(found, x * mask)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(gradient, mask)


def test_the_number_of_threads_drops_nothing_else() -> None:
    x, draws = torch.randn(100_001), torch.randint(-128, 128, (100_001,)).to(torch.int8)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(native.dropped(x, draws, 5, 2.0))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
    assert torch.equal(found[0] != 0, draws >= 5)

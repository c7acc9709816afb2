from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from seqlab.nn.adam import Adam, AdamW
from seqlab.nn.kernels.library import obstacle
from seqlab.nn.optimizers import clip_gradients_, make_optimizer
from seqlab.nn.rows import WordEmbedding

KERNELS = ["plain"] if obstacle() else ["plain", "native"]
SHAPES = [(40, 7), (3, 5, 2), (33,), ()]
PAIRS: list[tuple[Any, Any]] = [(Adam, optim.Adam), (AdamW, optim.AdamW)]


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SEQLAB_KERNELS", request.param)
    return str(request.param)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(tensors: list[nn.Parameter], step: int, skipped: int = -1) -> None:
    generator = torch.Generator().manual_seed(step)
    for i, tensor in enumerate(tensors):
        drawn = torch.randn(tensor.shape, generator=generator)
        tensor.grad = None if i == skipped else drawn * 10.0 ** (step % 3 - 2)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("ours", "torchs"), PAIRS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_torch_in_float64(ours: Any, torchs: Any, decay: float) -> None:
    settings = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": decay}
    found = parameters()
    wanted = [nn.Parameter(p.detach().double()) for p in found]
    optimizer, reference = ours(found, fused=True, **settings), torchs(wanted, **settings)
    for step in range(30):
        give_gradients(found, step, skipped=step % 5)  # some have had fewer steps than others
        for own, other in zip(found, wanted, strict=True):
            other.grad = None if own.grad is None else own.grad.double()
        optimizer.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.step()
        reference.step()
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own.double(), other, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("kernels")
def test_its_state_is_that_of_torch() -> None:
    found, others = parameters(), parameters()
    optimizer, fused = Adam(found, lr=0.01, fused=True), optim.Adam(others, lr=0.01, fused=True)
    for step in range(3):
        for tensors, one in ((found, optimizer), (others, fused)):
            give_gradients(tensors, step)
            one.step()
    fused.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # either reads the other's
    optimizer.load_state_dict(copy.deepcopy(fused.state_dict()))
    for tensors, one in ((found, optimizer), (others, fused)):
        give_gradients(tensors, 3)
        one.step()
    for own, other in zip(found, others, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_rows_that_a_batch_does_not_touch_go_on(kernels: str, decay: float) -> None:
    """The steps of gradients by row are those of dense ones, unlike with SparseAdam."""

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = WordEmbedding(20, 6, padding_idx=0)
            self.head = nn.Linear(6, 2)

        def forward(self, ids: Tensor) -> Tensor:
            out: Tensor = self.head(self.words(ids)).square().sum()
            return out

    torch.manual_seed(3)
    by_row = Words()
    dense = copy.deepcopy(by_row)
    models = [(by_row, True), (dense, False)]
    optimizers = [make_optimizer("adamw", m, 0.05, weight_decay=decay, by_row=r) for m, r in models]
    for step in range(12):
        ids = torch.randint(0, 20, (2, 4), generator=torch.Generator().manual_seed(step))
        for (model, _), optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(ids).backward()
            clip_gradients_(model.parameters(), 0.5)
            optimizer.step()
        gradient = by_row.words.weight.grad
        assert gradient is not None
        assert kernels == "plain" or gradient.is_sparse
        if step == 5:  # a copy, and a state that is read again, go on alike
            by_row, optimizers[0] = copy.deepcopy((by_row, optimizers[0]))
            optimizers[0].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
            models[0] = (by_row, True)
    for own, other in zip(by_row.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("kernels")
def test_the_number_of_threads_changes_nothing() -> None:
    ends = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            tensor = nn.Parameter(torch.linspace(-1, 1, 30_001))
            optimizer = Adam([tensor], lr=0.1, fused=True)
            for _ in range(3):
                tensor.grad = tensor.detach().cos()
                optimizer.step()
            ends.append(tensor.detach().clone())
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*ends)


@pytest.mark.usefixtures("kernels")
def test_a_closure_is_called_once_and_its_value_returned() -> None:
    tensor = nn.Parameter(torch.ones(3))
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        tensor.grad = torch.ones(3)
        return tensor.detach().sum()

    assert float(Adam([tensor], lr=0.1, fused=True).step(closure)) == 3.0
    assert calls == [True]
    torch.testing.assert_close(tensor.detach(), torch.full((3,), 0.9))


@pytest.mark.usefixtures("kernels")
def test_what_the_compiled_pass_does_not_know_is_torchs() -> None:
    found = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))]
    for tensor, cls in zip(found, (Adam, optim.Adam), strict=True):
        optimizer = cls([tensor], lr=0.1, amsgrad=True, maximize=True)
        for _ in range(2):
            tensor.grad = torch.tensor([1.0, -1.0, 2.0, 0.0])
            optimizer.step()
    assert torch.equal(*found)

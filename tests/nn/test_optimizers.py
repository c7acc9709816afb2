from __future__ import annotations

import copy
import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer, SparseAdam
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from seqlab.nn.optimizers import (
    JointOptimizer,
    OptimizerName,
    ScheduleName,
    clip_gradients_,
    make_optimizer,
    schedule_factor,
)

NAMES: tuple[OptimizerName, ...] = ("sgd", "adam", "adamw")
SCHEDULES: tuple[ScheduleName, ...] = ("constant", "plateau", "cosine", "linear")


class Toy(nn.Module):
    """Word rows and a layer above them."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.words = nn.Embedding(10, 4, sparse=sparse)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.words(ids)).square().mean()
        return out


IDS = torch.tensor([[1, 2, 2], [5, 1, 9]])  # rows 0, 3, 4, 6, 7, 8 are never touched


def train(model: Toy, optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(IDS).backward()
        optimizer.step()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_sparse_rows_are_updated_by_a_part_of_their_own(name: OptimizerName) -> None:
    model = Toy(sparse=True)
    optimizer = make_optimizer(name, model, 0.1)
    assert isinstance(optimizer, JointOptimizer)
    assert isinstance(optimizer.optimizers[1], SGD if name == "sgd" else SparseAdam)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_without_sparse_rows_there_is_one_plain_optimizer(name: OptimizerName) -> None:
    optimizer = make_optimizer(name, Toy(sparse=False), 0.1)
    assert type(optimizer).__name__.lower() == name


def test_sparse_and_dense_sgd_give_equal_weights() -> None:
    models = [Toy(sparse=False), Toy(sparse=True)]
    for model in models:
        train(model, make_optimizer("sgd", model, 0.5, weight_decay=0.0), 5)
    torch.testing.assert_close(weights(models[0]), weights(models[1]))
    assert not torch.equal(models[0].words.weight, Toy(sparse=False).words.weight)


def test_sparse_and_dense_adam_begin_with_equal_steps() -> None:
    models = [Toy(sparse=False), Toy(sparse=True)]
    for model in models:
        train(model, make_optimizer("adam", model, 0.1), 1)
    torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_no_batch_touches_stay(name: OptimizerName) -> None:
    model = Toy(sparse=True)
    before = weights(model)["words.weight"]
    train(model, make_optimizer(name, model, 0.1, weight_decay=0.1), 3)
    moved = (model.words.weight.detach() != before).any(1)
    assert moved.nonzero().flatten().tolist() == [1, 2, 5, 9]


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_matrices_only(name: OptimizerName) -> None:
    model = Toy(sparse=False)
    optimizer = make_optimizer(name, model, 0.1, weight_decay=0.5)
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert [decays[id(p)] for p in model.parameters()] == [0.5, 0.5, 0.0]  # words, weight, bias


def test_the_optimizer_gets_its_settings() -> None:
    model = Toy(sparse=False)
    adam = make_optimizer("adamw", model, 0.3, betas=(0.8, 0.9))
    assert isinstance(adam, AdamW)
    assert [g["betas"] for g in adam.param_groups] == [(0.8, 0.9)] * 2
    sgd = make_optimizer("sgd", model, 0.3, momentum=0.7)
    assert [(g["lr"], g["momentum"]) for g in sgd.param_groups] == [(0.3, 0.7)] * 2


@pytest.mark.parametrize("sparse", [False, True])
def test_frozen_parameters_are_left_out(sparse: bool) -> None:
    model = Toy(sparse=sparse)
    model.words.weight.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    optimizer = make_optimizer("adam", model, 0.1)
    assert not isinstance(optimizer, JointOptimizer)
    assert [p for g in optimizer.param_groups for p in g["params"]] == [model.head.weight]


@pytest.mark.parametrize("name", NAMES)
def test_a_joint_optimizer_goes_on_where_its_state_was_saved(name: OptimizerName) -> None:
    model = Toy(sparse=True)
    optimizer = make_optimizer(name, model, 0.1)
    train(model, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, 3)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = Toy(sparse=True)
    resumed.load_state_dict(saved["model"])
    again = make_optimizer(name, resumed, 0.9)  # the saved learning rate wins
    again.load_state_dict(saved["optimizer"])
    assert {group["lr"] for group in again.param_groups} == {0.1}
    train(resumed, again, 3)
    torch.testing.assert_close(weights(resumed), weights(model), rtol=0, atol=0)


def test_the_state_of_a_joint_optimizer_survives_a_round_trip() -> None:
    model = Toy(sparse=True)
    optimizer = make_optimizer("adam", model, 0.1)
    train(model, optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    again = make_optimizer("adam", model, 0.5)
    again.load_state_dict(saved)
    torch.testing.assert_close(again.state_dict(), saved, rtol=0, atol=0)


def test_a_state_with_another_number_of_parts_is_refused() -> None:
    optimizer = make_optimizer("adam", Toy(sparse=True), 0.1)
    with pytest.raises(ValueError, match="shorter"):
        optimizer.load_state_dict({"parts": optimizer.state_dict()["parts"][:1]})


@pytest.mark.parametrize("restored", [False, True])
def test_a_schedule_sets_the_learning_rate_of_all_parts(restored: bool) -> None:
    model = Toy(sparse=True)
    optimizer = make_optimizer("adam", model, 1.0)
    assert isinstance(optimizer, JointOptimizer)
    if restored:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    for step in range(3):
        rates = {g["lr"] for part in optimizer.optimizers for g in part.param_groups}
        assert rates == {0.5**step}
        train(model, optimizer, 1)
        schedule.step()


def test_a_plateau_lowers_the_learning_rate_of_all_parts() -> None:
    optimizer = make_optimizer("sgd", Toy(sparse=True), 1.0)
    assert isinstance(optimizer, JointOptimizer)
    plateau = ReduceLROnPlateau(optimizer, "max", factor=0.1, patience=0)
    plateau.step(0.5)
    plateau.step(0.4)
    assert {g["lr"] for part in optimizer.optimizers for g in part.param_groups} == {0.1}


def test_a_joint_step_calls_its_closure_once_with_gradients() -> None:
    model = Toy(sparse=True)
    optimizer = make_optimizer("sgd", model, 0.1)
    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(IDS)
        loss.backward()
        losses.append(loss)
        return loss

    before = weights(model)
    returned: Any = optimizer.step(closure)
    assert losses == [returned]
    changed = [not torch.equal(before[name], p) for name, p in model.named_parameters()]
    assert changed == [True, True, True]
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def gradients(sparse: bool, scale: float = 1.0) -> list[Tensor]:
    """The parameters of a toy model with gradients; the sparse ones hold rows twice."""
    model = Toy(sparse)
    (model(IDS) * scale).backward()
    return list(model.parameters())


@pytest.mark.parametrize("max_norm", [1e-3, 0.7, 1e6])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_clipping_is_that_of_torch(max_norm: float, scale: float) -> None:
    ours, theirs = gradients(False, scale), gradients(False, scale)
    norm = clip_gradients_(ours, max_norm)
    torch.testing.assert_close(norm, clip_grad_norm_(theirs, max_norm))
    torch.testing.assert_close([p.grad for p in ours], [p.grad for p in theirs])


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipping_counts_sparse_rows(max_norm: float) -> None:
    sparse, dense = gradients(True), gradients(False)
    assert sparse[0].grad is not None
    assert not sparse[0].grad.is_coalesced()
    norm = clip_gradients_(iter(sparse), max_norm)
    torch.testing.assert_close(norm, clip_gradients_(dense, max_norm))
    found = [p.grad.to_dense() if p.grad is not None else None for p in sparse]
    torch.testing.assert_close(found, [p.grad for p in dense])
    assert sparse[0].grad.is_sparse


def test_clipping_passes_over_parameters_without_gradients() -> None:
    with_gradient, without = torch.zeros(2), torch.zeros(2)
    with_gradient.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients_([without, with_gradient], 1.0).item() == 5.0
    torch.testing.assert_close(with_gradient.grad, torch.tensor([0.6, 0.8]))
    assert without.grad is None
    assert clip_gradients_([without], 1.0).item() == 0.0
    assert clip_gradients_([], 1.0).item() == 0.0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 5])
def test_a_schedule_rises_to_1_and_never_again(name: ScheduleName, warmup: int) -> None:
    factors = [schedule_factor(name, step, warmup, 20) for step in range(25)]
    assert factors[:warmup] == [(step + 1) / warmup for step in range(warmup)]
    assert factors[warmup] == 1.0
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    falling = itertools.pairwise(factors[warmup:])
    if name in ("constant", "plateau"):
        assert set(factors[warmup:]) == {1.0}
    else:
        assert all(now > then or now == then == 0.0 for now, then in falling)
        assert factors[20:] == [0.0] * 5


def test_schedules_fall_along_a_line_and_along_half_a_cosine() -> None:
    line = [schedule_factor("linear", step, 2, 10) for step in (2, 4, 6, 8, 10)]
    assert line == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    cosine = [schedule_factor("cosine", step, 0, 12) for step in (0, 4, 6, 8, 12)]
    assert cosine == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_as_short_as_its_warm_up_has_a_schedule(name: ScheduleName) -> None:
    assert schedule_factor(name, 2, 3, 3) == 1.0
    assert 0.0 <= schedule_factor(name, 3, 3, 3) <= 1.0
    assert 0.0 <= schedule_factor(name, 9, 0, 0) <= 1.0

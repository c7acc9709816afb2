"""Pooling against plain loops over the tokens of each row, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.errors import RecipeError
from seqlab.nn.pooling import (
    AttentionPooling,
    LastPooling,
    MaxPooling,
    MeanPooling,
    Pooling,
    make_pooling,
)

LENGTHS = [4, 1, 7, 2]
SIZE = 6
CASES: list[dict[str, Any]] = [
    {"names": "last", "forward_size": 3},
    {"names": "last", "forward_size": 2},
    {"names": "last", "forward_size": SIZE},
    {"names": "last", "forward_size": None},
    {"names": "mean"},
    {"names": "max"},
    {"names": "attention"},
    {"names": "attention", "heads": 3},
    {"names": ["attention", "last", "max", "mean"], "forward_size": 3, "heads": 2},
    {"names": ["mean", "max"]},
]


def pooling(names: Any, forward_size: int | None = 3, heads: int = 1) -> Pooling:
    torch.manual_seed(0)
    return make_pooling(names, SIZE, forward_size, heads).double()


def mask_of(lengths: list[int], spare: int = 0) -> Tensor:
    return torch.arange(max(lengths) + spare) < torch.tensor(lengths).unsqueeze(1)


def states_of(spare: int = 0, filler: float = 9.0) -> tuple[Tensor, Tensor]:
    """Ragged rows with something loud at the padding, and their mask."""
    torch.manual_seed(1)
    mask = mask_of(LENGTHS, spare)
    states = torch.full((len(LENGTHS), mask.shape[1], SIZE), filler, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        states[row, :length] = torch.randn(length, SIZE, dtype=torch.float64)
    return states, mask


@torch.no_grad()
def attention_by_hand(part: AttentionPooling, tokens: list[Tensor]) -> tuple[Tensor, list[Any]]:
    """Equations 5 to 7 of Yang et al. (2016), one token and one head at a time."""
    pooled, weights = [], []
    for context in part.context.weight:
        scores = [
            math.exp(float(context @ torch.tanh(part.hidden.weight @ h + part.hidden.bias)))
            for h in tokens
        ]
        shares = [score / sum(scores) for score in scores]
        pooled.append(sum((share * h for share, h in zip(shares, tokens, strict=True))))
        weights.append(shares)
    return torch.cat([torch.as_tensor(x) for x in pooled]), weights


def by_hand(part: Any, tokens: list[Tensor], forward_size: int | None) -> Tensor:
    """What one part gives for one text."""
    if isinstance(part, LastPooling) and forward_size is None:
        return torch.cat([tokens[-1], tokens[0]])
    if isinstance(part, LastPooling):
        return torch.cat([tokens[-1][:forward_size], tokens[0][forward_size:]])
    columns = [[float(h[i]) for h in tokens] for i in range(SIZE)]
    if isinstance(part, MeanPooling):
        return torch.tensor([sum(c) / len(c) for c in columns], dtype=torch.float64)
    if isinstance(part, MaxPooling):
        return torch.tensor([max(c) for c in columns], dtype=torch.float64)
    return attention_by_hand(part, tokens)[0]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_text_is_pooled_as_by_hand(case: dict[str, Any]) -> None:
    layer = pooling(**case)
    states, mask = states_of()
    pooled, weights = layer(states, mask)
    assert pooled.shape == (len(LENGTHS), layer.output_size)
    for row, length in enumerate(LENGTHS):
        tokens = list(states[row, :length])
        expected = [by_hand(p, tokens, case.get("forward_size", 3)) for p in layer.parts]
        torch.testing.assert_close(pooled[row], torch.cat(expected), rtol=1e-12, atol=1e-12)
    assert (weights is None) == ("attention" not in case["names"])


@pytest.mark.parametrize("heads", [1, 3])
def test_weights_are_those_of_the_scores(heads: int) -> None:
    layer = pooling("attention", heads=heads)
    states, mask = states_of(spare=2)
    _, weights = layer(states, mask)
    assert weights.shape == (len(LENGTHS), heads, mask.shape[1])
    for row, length in enumerate(LENGTHS):
        part = layer.parts[0]
        assert isinstance(part, AttentionPooling)
        _, expected = attention_by_hand(part, list(states[row, :length]))
        for found, shares in zip(weights[row].tolist(), expected, strict=True):
            assert found[:length] == pytest.approx(shares, abs=1e-12)
            assert found[length:] == [0.0] * (mask.shape[1] - length)  # exactly
            assert sum(found) == pytest.approx(1.0)
    assert weights[1, :, 0].tolist() == [1.0] * heads  # a text of one token


@pytest.mark.parametrize("filler", [0.0, 1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_padding_changes_nothing_whatever_stands_there(case: dict[str, Any], filler: float) -> None:
    layer = pooling(**case)
    pooled, weights = layer(*states_of())
    states, mask = states_of(spare=5, filler=filler)
    wide, spread = layer(states.requires_grad_(), mask)
    torch.testing.assert_close(wide, pooled, rtol=1e-12, atol=1e-12)
    if weights is not None:
        torch.testing.assert_close(spread[..., : weights.shape[-1]], weights, rtol=1e-12, atol=0)
        assert (spread[..., weights.shape[-1] :] == 0).all()
    wide.sum().backward()
    assert states.grad is not None
    assert (states.grad[~mask] == 0).all()
    assert (states.grad[mask].abs().sum(-1) > 0).any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_text_is_the_same_in_any_company(case: dict[str, Any]) -> None:
    layer = pooling(**case)
    states, mask = states_of()
    together = layer(states, mask)[0]
    for row, length in enumerate(LENGTHS):
        alone = layer(states[row : row + 1, :length], mask[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row], alone[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("case", "size"),
    [
        ({"names": "last", "forward_size": 3}, SIZE),
        ({"names": "last", "forward_size": SIZE}, SIZE),
        ({"names": "last", "forward_size": None}, 2 * SIZE),
        ({"names": "mean"}, SIZE),
        ({"names": "attention", "heads": 4}, 4 * SIZE),
        ({"names": ["max", "last"], "forward_size": None}, 3 * SIZE),
        ({"names": ["attention", "mean"], "heads": 2}, 3 * SIZE),
    ],
    ids=str,
)
def test_the_output_size_is_that_of_all_parts(case: dict[str, Any], size: int) -> None:
    assert pooling(**case).output_size == size


@pytest.mark.parametrize("case", CASES, ids=str)
def test_low_precision_gives_what_it_can(case: dict[str, Any]) -> None:
    layer = pooling(**case).to(torch.bfloat16)
    states, mask = states_of(filler=3e38)
    pooled, _ = layer(states.to(torch.bfloat16), mask)
    assert pooled.dtype == torch.bfloat16
    exact, _ = layer.double()(states.to(torch.bfloat16).double(), mask)
    torch.testing.assert_close(pooled.double(), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("names", "heads", "sentence"),
    [
        ("avg", 1, "model.pooling: 'avg' is none of last, mean, max, attention."),
        (
            ["mean", "attenton"],
            1,
            "model.pooling: 'attenton' is none of last, mean, max, attention. "
            "Did you mean 'attention'?",
        ),
        (
            [],
            1,
            "model.pooling is []: name at least one of last, mean, max, attention, each once.",
        ),
        (
            ["max", "max"],
            1,
            "model.pooling is ['max', 'max']: name at least one of last, mean, max, attention, "
            "each once.",
        ),
        ("attention", 0, "model.heads is 0: it must be 1 or more."),
        (
            "mean",
            2,
            "model.heads is 2, but model.pooling has no attention: add it, or leave heads out.",
        ),
    ],
)
def test_what_makes_no_pooling_is_refused(names: Any, heads: int, sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        make_pooling(names, SIZE, 3, heads)
    assert str(error.value) == sentence

"""The two precisions."""

from __future__ import annotations

import pytest
import torch

from seqlab.errors import RecipeError
from seqlab.nn.precision import check_precision, using

CPU = torch.device("cpu")
FACTOR = torch.tensor([[1.0 + 2**-12]])


def test_fast_rounds_factors_to_bfloat16_and_exact_does_not() -> None:
    one = torch.ones(1, 1)
    with using("exact", CPU):
        assert (FACTOR @ one).item() == 1.0 + 2**-12
    with using("fast", CPU):
        assert (FACTOR @ one).item() == 1.0


def test_exact_leaves_an_autocast_round_it_alone() -> None:
    with torch.autocast("cpu", torch.bfloat16), using("exact", CPU):
        assert (FACTOR @ torch.ones(1, 1)).dtype == torch.bfloat16


def test_the_backward_pass_computes_as_the_forward_pass_did() -> None:
    weight = torch.ones(1, 1, requires_grad=True)
    with using("fast", CPU):
        product = FACTOR @ weight
    product.sum().backward()
    assert weight.grad is not None
    assert weight.grad.item() == 1.0
    assert weight.grad.dtype == torch.float32


def test_a_misspelt_precision_is_refused() -> None:
    with pytest.raises(RecipeError, match="precision is 'fats': choose exact or fast. .*fast"):
        check_precision("fats", "model.precision")

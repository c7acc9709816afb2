from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqlab.errors import BundleError, UsageError
from seqlab.storage import check_storage, packed, unpacked


def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {
        "matrix": torch.randn(64, 40) * torch.logspace(-3, 3, 64).unsqueeze(1),
        "filters": torch.randn(32, 5, 16),
        "small": torch.randn(4, 4),
        "bias": torch.randn(4000),
        "counts": torch.arange(3000).view(3, 1000),
    }


def size(tensors: dict[str, Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors.values())


def test_float32_is_what_it_was() -> None:
    for name, tensor in unpacked(packed(state(), "float32")).items():
        assert torch.equal(tensor, state()[name])


@pytest.mark.parametrize(("storage", "share"), [("float16", 0.5), ("int8", 0.27)])
def test_matrices_shrink_and_all_else_stays(storage: str, share: float) -> None:
    before, kept = state(), packed(state(), storage)  # type: ignore[arg-type]
    large = {"matrix", "filters"}
    rounded = {k: v for k, v in kept.items() if k.split(":")[0] in large}
    assert size(rounded) <= share * size({k: before[k] for k in large})
    again = unpacked(kept)
    assert again.keys() == before.keys()
    for name in before.keys() - large:
        assert torch.equal(again[name], before[name])
    for name in large:
        assert again[name].dtype == torch.float32
        assert not torch.equal(again[name], before[name])


def test_eight_bits_are_off_by_half_a_step_of_their_row_at_most() -> None:
    before, again = state(), unpacked(packed(state(), "int8"))
    for name in ("matrix", "filters"):
        rows = before[name].flatten(1)
        step = rows.abs().amax(1, keepdim=True) / 127
        wrong = (again[name].flatten(1) - rows).abs()
        assert bool((wrong <= 0.5001 * step).all())


def test_rounding_again_changes_nothing() -> None:
    for storage in ("float16", "int8"):
        once = unpacked(packed(state(), storage))  # type: ignore[arg-type]
        twice = unpacked(packed(once, storage))  # type: ignore[arg-type]
        for name, tensor in once.items():
            torch.testing.assert_close(twice[name], tensor, rtol=1e-6, atol=0)


def test_rows_of_zeros_and_huge_numbers_survive() -> None:
    zeros = torch.zeros(64, 64)
    zeros[5] = 3.0
    again = unpacked(packed({"x": zeros}, "int8"))["x"]
    torch.testing.assert_close(again, zeros)
    huge = torch.full((64, 64), 1e6)
    assert torch.equal(unpacked(packed({"x": huge}, "float16"))["x"], huge)
    odd = torch.full((64, 64), float("nan"))
    assert bool(unpacked(packed({"x": odd}, "int8"))["x"].isnan().all())


def test_scales_that_do_not_fit_are_refused_by_name() -> None:
    kept = packed({"x": torch.randn(64, 64)}, "int8")
    kept["x:scale"] = kept["x:scale"][:3]
    with pytest.raises(BundleError, match="weights x are damaged"):
        unpacked(kept)


def test_an_unknown_storage_is_refused_with_the_nearest() -> None:
    check_storage("int8", "--quantize")
    with pytest.raises(UsageError, match=r"--quantize is 'int9': choose .*int8"):
        check_storage("int9", "--quantize")

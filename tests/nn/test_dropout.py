from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seqlab.nn.dropout import Dropout, LockedDropout, WordDropout, keep_mask

DOUBLE = torch.zeros((), dtype=torch.float64)


def every_byte_once(self: Tensor, *bounds: int | None) -> Tensor:
    """Stand in for ``random_``: 256 elements draw each of the 256 bytes."""
    return self.copy_(torch.arange(256, dtype=torch.uint8).view(torch.int64))


@pytest.mark.parametrize("p", [0.002, 0.1, 0.25, 0.5, 0.6180339, 0.9, 0.999])
def test_the_expectation_is_exact(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "random_", every_byte_once)
    mask = keep_mask((16, 16), p, DOUBLE)
    dropped = round(256 * p) if p < 0.998 else 255
    assert int((mask == 0).sum()) == dropped
    assert mask.mean().item() == pytest.approx(1.0, abs=1e-15)
    assert mask.unique().tolist() == ([0.0] if dropped else []) + [256 / (256 - dropped)]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_share_of_dropped_elements_is_the_probability(p: float) -> None:
    torch.manual_seed(0)
    dropped = (keep_mask((400, 1000), p, DOUBLE) == 0).double()
    rounded = round(256 * p) / 256
    deviation = (rounded * (1 - rounded) / dropped.numel()) ** 0.5
    assert abs(dropped.mean().item() - rounded) < 5 * deviation


def test_elements_that_share_a_draw_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = (keep_mask((40_000, 8), 0.5, DOUBLE) > 0).double()  # a row is one 64-bit draw
    apart = torch.corrcoef(kept.T) - torch.eye(8)
    assert apart.abs().max().item() < 5 / 200
    assert torch.corrcoef(torch.stack([kept[:-1].flatten(), kept[1:].flatten()]))[0, 1] < 5 / 565


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (9,), (3, 5, 7), (0,), (4, 0, 2)])
def test_a_mask_has_the_shape_that_is_asked_for(shape: tuple[int, ...]) -> None:
    assert keep_mask(shape, 0.5, DOUBLE).shape == shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_mask_has_the_type_of_what_it_masks(dtype: torch.dtype) -> None:
    mask = keep_mask((64,), 0.5, torch.zeros((), dtype=dtype))
    assert mask.dtype == dtype
    assert set(mask.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("kind", [Dropout, LockedDropout, WordDropout])
@pytest.mark.parametrize(("p", "training"), [(0.9, False), (0.0, True)])
def test_without_dropout_the_input_passes(kind: type[Dropout], p: float, training: bool) -> None:
    x = torch.randn(2, 3, 4)
    assert kind(p).train(training)(x) is x


@pytest.mark.parametrize("kind", [Dropout, LockedDropout, WordDropout])
def test_a_seed_fixes_the_mask_and_every_call_draws_anew(kind: type[Dropout]) -> None:
    layer, x = kind(0.5), torch.ones(8, 8, 8)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", [Dropout, LockedDropout, WordDropout])
def test_gradients_pass_where_values_do(kind: type[Dropout]) -> None:
    torch.manual_seed(0)
    x = torch.full((4, 5, 6), 3.0, requires_grad=True)
    y = kind(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * 3.0, y.detach())


def test_dropout_zeroes_single_elements_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    y = Dropout(0.25)(torch.ones(20, 60, 80, dtype=torch.float64))
    assert y.unique().tolist() == [0.0, 4 / 3]
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    by_token, by_dimension = y.amin(2), y.amin(1)
    assert by_token.max() == by_dimension.max() == 0  # nothing is kept or dropped as a whole
    assert y.amax(2).min() > 0


def test_locked_dropout_drops_the_same_dimensions_at_every_step() -> None:
    torch.manual_seed(0)
    y = LockedDropout(0.5)(torch.ones(6, 11, 50))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert len({tuple(row) for row in y[:, 0].tolist()}) == 6  # each sequence has its own


def test_word_dropout_drops_whole_tokens_and_scales_nothing() -> None:
    torch.manual_seed(0)
    x = torch.rand(50, 40, 3) + 1
    y = WordDropout(0.2)(x)
    dropped = (y == 0).all(2)
    assert torch.equal(dropped, (y == 0).any(2))
    assert torch.equal(y[~dropped], x[~dropped])
    assert dropped.double().mean().item() == pytest.approx(0.2, abs=5 * (0.16 / 2000) ** 0.5)


def test_the_printed_model_shows_the_probability() -> None:
    assert repr(nn.Sequential(LockedDropout(0.5))).count("LockedDropout(p=0.5)") == 1

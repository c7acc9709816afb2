"""The compiled character convolution equals the plain one, and itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlab.nn import characters as plain
from seqlab.nn.kernels import characters_native as native
from seqlab.nn.kernels import library

pytestmark = pytest.mark.skipif(
    library.obstacle() is not None, reason=f"no compiled kernels: {library.obstacle()}"
)


@settings(deadline=None)
@given(
    forms=st.integers(0, 6),
    width=st.integers(1, 9),
    letters=st.integers(2, 7),
    window=st.sampled_from([1, 3, 5]),
    filters=st.integers(1, 70),
    seed=st.integers(0, 10_000),
)
def test_it_equals_the_plain_one(
    forms: int, width: int, letters: int, window: int, filters: int, seed: int
) -> None:
    torch.manual_seed(seed)
    characters = torch.randint(0, letters, (forms, width))
    table, bias = torch.randn(letters, window, filters), torch.randn(filters)
    values, where = native.largest(characters, table, bias)
    expected, positions = plain._largest(characters, table, bias)
    torch.testing.assert_close(values, expected)
    if len(set(table.flatten().tolist())) == table.numel():
        twice = [len(set(row)) < len(row) for row in characters.tolist()]
        repeated = torch.tensor(twice, dtype=torch.bool)
        assert torch.equal(where[~repeated].long(), positions[~repeated])
    gradient = torch.randn(forms, filters).masked_fill(where < 0, 0.0)
    torch.testing.assert_close(
        native.spread(characters, where, gradient, table.shape),
        plain._spread(characters, where.long(), gradient, table.shape),
    )


def test_threads_and_repetitions_change_no_bit() -> None:
    torch.manual_seed(0)
    characters = torch.randint(0, 50, (700, 12))
    table, bias = torch.randn(50, 3, 100), torch.randn(100)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3, 2):
            torch.set_num_threads(number)
            values, where = native.largest(characters, table, bias)
            found.append((values, where, native.spread(characters, where, values, table.shape)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_sum_that_is_no_number_is_seen() -> None:
    table = torch.ones(3, 1, 2)
    table[2, 0, 1] = torch.nan
    values, _ = native.largest(torch.tensor([[1, 2, 1]]), table, torch.zeros(2))
    assert values[0, 0] == 1.0
    assert values[0, 1].isnan()

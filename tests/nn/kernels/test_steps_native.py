"""What the compiled steps of a decoder compute, against torch's modules in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqlab.nn.decoder_scan import ordered
from seqlab.nn.kernels import library, steps_native

pytestmark = pytest.mark.skipif(
    library.obstacle() is not None, reason=f"no compiled kernels: {library.obstacle()}"
)


@settings(deadline=None)
@given(
    rows=st.integers(0, 9),
    size=st.integers(1, 70),
    way=st.sampled_from(["nothing", "bias", "table"]),
    seed=st.integers(0, 1000),
)
def test_cells_are_those_of_torch(rows: int, size: int, way: str, seed: int) -> None:
    torch.manual_seed(seed)
    sums = torch.randn(rows, 4 * size) * 2  # in torch's order
    table = torch.randn(5, 4 * size)
    tokens = torch.randint(5, (rows,))
    cell = torch.randn(size, rows).t()  # not contiguous
    more = {"nothing": torch.zeros(4 * size), "bias": table[0], "table": table[tokens]}[way]
    i, f, g, o = (sums.double() + more.double()).chunk(4, -1)
    after = f.sigmoid() * cell.double() + i.sigmoid() * g.tanh()
    given = {"nothing": (None, None), "bias": (ordered(table[0]), None)}
    rest = given.get(way, (ordered(table.t()).t().contiguous(), tokens))
    hidden, kept = steps_native.cells(ordered(sums.t()).t().contiguous(), *rest, cell)
    torch.testing.assert_close(kept.double(), after, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hidden.double(), o.sigmoid() * after.tanh(), rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(
    sentences=st.integers(1, 5),
    hypotheses=st.integers(1, 4),
    source=st.integers(1, 9),
    size=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_features_are_read_as_attention_does(
    sentences: int, hypotheses: int, source: int, size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    query, raw = torch.randn(2, sentences, hypotheses, size)
    keys, values = torch.randn(2, sentences, source, size) / size**0.5
    mask = torch.rand(sentences, source) > 0.4
    mask[:, 0] = True
    keys[~mask], values[~mask] = torch.nan, torch.nan  # what stands there has no meaning
    scores = query.double() @ keys.double().nan_to_num().transpose(1, 2)
    expected = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
    feature = (raw.double() + expected @ values.double().nan_to_num()).tanh()
    weights = steps_native.read(query, keys, values, mask, raw)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(raw.double(), feature, rtol=1e-4, atol=1e-6)
    assert not weights[~mask.unsqueeze(1).expand_as(weights)].any()


def test_threads_change_no_bit() -> None:
    torch.manual_seed(0)
    query, raw = torch.randn(2, 40, 5, 64)
    keys, values = torch.randn(2, 40, 7, 64)
    mask = torch.ones(40, 7, dtype=torch.bool)
    sums, cell, bias = torch.randn(200, 256), torch.randn(200, 64), torch.randn(256)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            own = raw.clone()
            weights = steps_native.read(query, keys, values, mask, own)
            found.append((weights, own, *steps_native.cells(sums, bias, None, cell)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_where_they_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps_native.supports(torch.empty(1))
    assert not steps_native.supports(torch.empty(1, dtype=torch.float64))
    assert not steps_native.supports(torch.empty(1, device="meta"))
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")
    assert not steps_native.supports(torch.empty(1))

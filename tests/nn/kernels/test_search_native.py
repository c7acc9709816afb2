"""The compiled choice of continuations against the plain one, which is checked against sorting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqlab.nn.kernels import library
from seqlab.nn.kernels.search_native import MOST, Found, best, supports
from seqlab.nn.search_choices import best_choices

pytestmark = pytest.mark.skipif(
    library.obstacle() is not None, reason=f"no compiled kernels: {library.obstacle()}"
)
PADDING, END = 0, 1


def chosen(logits: Tensor, base: Tensor | None, count: int, **options: object) -> Found:
    forbidden = torch.tensor([PADDING, END])
    return best(logits, base, count, forbidden=forbidden, end=END, padding=PADDING, **options)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=200)
@given(
    sentences=st.integers(1, 4),
    hypotheses=st.integers(1, 5),
    size=st.integers(3, 400),
    count=st.integers(1, 12),
    steps=st.sampled_from([None, 1.0, 4.0]),
    based=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_it_chooses_as_the_plain_one(
    sentences: int,
    hypotheses: int,
    size: int,
    count: int,
    steps: float | None,
    based: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(sentences, hypotheses, size) * 4
    base = -torch.rand(sentences, hypotheses) * 9 if based else None
    if steps is not None:  # coarse numbers have equals
        logits = (logits * steps).round() / steps
        base = base if base is None else base.round()
    if size > 5:
        logits[:, :, 4] = -torch.inf
    found = chosen(logits, base, count, normalised=False)
    shut = logits.clone()
    shut[:, :, [PADDING, END]] = -torch.inf
    expected = best_choices(shut, base, count, PADDING)
    assert torch.equal(found.totals, expected.totals)
    there = expected.totals > -torch.inf
    assert torch.equal(found.parents[there], expected.parents[there])
    assert torch.equal(found.tokens[there], expected.tokens[there])
    assert (found.tokens[~there] == PADDING).all()
    ends = logits[:, :, END] + (0.0 if base is None else base)
    assert torch.equal(found.ended, ends)


@pytest.mark.parametrize("size", [3, 64, 65, 8001])
def test_probabilities_are_those_of_a_softmax(size: int) -> None:
    torch.manual_seed(0)
    logits, base = torch.randn(3, 2, size) * 5, torch.randn(3, 2)
    found = chosen(logits, base, 4)
    logs = logits.double().log_softmax(-1) + base.unsqueeze(-1)
    torch.testing.assert_close(found.ended.double(), logs[:, :, END], rtol=1e-5, atol=1e-5)
    some = found.totals > -torch.inf
    at = found.parents * size + found.tokens
    expected = logs.flatten(1).gather(1, at)
    torch.testing.assert_close(found.totals[some].double(), expected[some], rtol=1e-5, atol=1e-5)


def test_a_closed_sentence_chooses_nothing_but_ends() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 50)
    last = torch.tensor([True, False])
    found, free = chosen(logits, None, 4, last=last), chosen(logits, None, 4)
    assert (found.totals[0] == -torch.inf).all()
    assert torch.equal(found.ended, free.ended)
    assert torch.equal(found.totals[1], free.totals[1])


def test_what_is_no_number_is_not_chosen() -> None:
    logits = torch.randn(2, 2, 50)
    logits[0, 1, 7] = torch.nan
    found = chosen(logits, None, 3)
    assert (found.parents[0] == 0).all()
    assert found.ended.isnan().tolist() == [[False, True], [False, False]]


def test_threads_and_repetitions_change_no_bit() -> None:
    torch.manual_seed(1)
    logits, base = torch.randn(20, 5, 2001), torch.randn(20, 5)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3, 2):
            torch.set_num_threads(number)
            found.append(chosen(logits, base, 5))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_what_it_leaves_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.empty(0)
    assert supports(here, MOST)
    assert not supports(here, MOST + 1)
    assert not supports(here.double(), 1)
    assert not supports(torch.empty(0, device="meta"), 1)
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")
    assert not supports(here, 1)

"""The CRF against enumeration of all sequences, and against a plain loop in the log domain."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from seqlab.nn.crf import CRF
from seqlab.nn.crf_inputs import full_precision
from seqlab.nn.crf_kernels import Scores, forward_backward, parts

BIO = ["O", "B-X", "I-X", "B-Y", "I-Y"]
BIOES = ["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"]
DOUBLE = torch.float64


class Rules(NamedTuple):
    start: list[bool]
    transitions: list[list[bool]]
    end: list[bool]


def fits(previous: str | None, following: str | None, tags: list[str]) -> bool:
    """Whether two neighbours fit in BIO or BIOES; None is the border of the sentence."""
    goes_on = following is not None and following[0] in "IE"
    opened = previous is not None and previous[0] in "BI"
    if goes_on:
        return opened and previous[1:] == following[1:]
    return tags is BIO or not opened


def rules(tags: list[str]) -> Rules:
    return Rules(
        [fits(None, tag, tags) for tag in tags],
        [[fits(last, tag, tags) for tag in tags] for last in tags],
        [fits(tag, None, tags) for tag in tags],
    )


def random_rules(num_tags: int) -> Rules:
    """Half of the transitions; tag 0 may always come, so that every length is possible."""
    start, transitions, end = (
        torch.rand(shape) < 0.5 for shape in ((num_tags,), (num_tags, num_tags), (num_tags,))
    )
    start[0] = end[0] = transitions[0, 0] = True
    return Rules(start.tolist(), transitions.tolist(), end.tolist())


def make(
    num_tags: int, grammar: Rules | None = None, scale: float = 1.0, learn: bool = True
) -> CRF:
    crf = CRF(num_tags, batch_first=True, grammar=grammar, learn=learn).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return crf


def scores_of(crf: CRF) -> tuple[Tensor, Tensor, Tensor]:
    """Start, transition and end scores in float64, -inf where the grammar forbids."""
    return (
        crf.start_transitions.detach().double().masked_fill(crf.forbidden_start, -torch.inf),
        crf.transitions.detach().double().masked_fill(crf.forbidden_transitions, -torch.inf),
        crf.end_transitions.detach().double().masked_fill(crf.forbidden_end, -torch.inf),
    )


def all_paths(crf: CRF, emissions: Tensor) -> tuple[Tensor, Tensor]:
    """All sequences (path, time) and their scores (batch, path) by (batch, time, tag) emissions."""
    start, transitions, end = scores_of(crf)
    time = emissions.shape[1]
    paths = torch.tensor(list(itertools.product(range(crf.num_tags), repeat=time)))
    scores = emissions.double()[:, torch.arange(time), paths].sum(-1)  # (batch, path)
    pairs = transitions[paths[:, :-1], paths[:, 1:]].sum(-1)
    return paths, scores + pairs + start[paths[:, 0]] + end[paths[:, -1]]


def loop_likelihood(crf: CRF, emissions: Tensor, tags: Tensor, lengths: list[int]) -> Tensor:
    """Log-likelihood (batch,) sentence by sentence on the tape, in the log domain."""
    values = []
    for row, length in enumerate(lengths):
        start, transitions, end = crf.start_transitions, crf.transitions, crf.end_transitions
        emitted, ids = emissions[row, :length], tags[row, :length]
        alpha = start + emitted[0]
        for weights in emitted[1:]:
            alpha = torch.logsumexp(alpha.unsqueeze(1) + transitions, 0) + weights
        score = start[ids[0]] + transitions[ids[:-1], ids[1:]].sum() + end[ids[-1]]
        score = score + emitted[torch.arange(length), ids].sum()
        values.append(score - torch.logsumexp(alpha + end, 0))
    return torch.stack(values)


def gradients(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


MASKS = [
    [True, True, True, True, True],
    [True, True, True, False, False],
    [False, True, False, True, True],
    [False, False, False, True, False],
    [True, False, True, True, False],
]


def cases() -> Iterator[tuple[CRF, Tensor, Tensor]]:
    """Small CRFs with emissions (batch, time, tag) and masks with holes."""
    for num_tags, scale in ((1, 1.0), (2, 0.3), (3, 2.0), (4, 1.0)):
        for grammar in (None, random_rules(num_tags)):
            yield (
                make(num_tags, grammar, scale),
                torch.randn(5, 5, num_tags, dtype=DOUBLE),
                (torch.tensor(MASKS)),
            )


def real_rows(emissions: Tensor, mask: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Row, places of its real tokens, and their emissions (1, length, tag)."""
    for row in range(len(mask)):
        places = mask[row].nonzero().squeeze(1)
        yield row, places, emissions[row : row + 1, places]


def test_log_partition_equals_enumeration() -> None:
    for crf, emissions, mask in cases():
        found = crf.log_partition(emissions, mask)
        for row, _, real in real_rows(emissions, mask):
            torch.testing.assert_close(found[row], all_paths(crf, real)[1].logsumexp(1)[0])


def test_best_equals_enumeration_and_goes_back_to_its_places() -> None:
    for crf, emissions, mask in cases():
        tags, scores = crf.best(emissions, mask)
        lists = crf.decode(emissions, mask)
        assert (tags[~mask] == -1).all()
        for row, places, real in real_rows(emissions, mask):
            paths, path_scores = all_paths(crf, real)
            torch.testing.assert_close(scores[row], path_scores.max())
            assert tags[row, places].tolist() == paths[path_scores.argmax()].tolist() == lists[row]


def test_marginals_equal_enumeration() -> None:
    for crf, emissions, mask in cases():
        found = crf.marginals(emissions, mask)
        assert (found[~mask] == 0).all()
        for row, places, real in real_rows(emissions, mask):
            paths, path_scores = all_paths(crf, real)
            chances = path_scores[0].softmax(0)
            for tag in range(crf.num_tags):
                expected = ((paths == tag) * chances.unsqueeze(1)).sum(0)
                torch.testing.assert_close(found[row, places, tag], expected)


def test_path_marginals_equal_enumeration() -> None:
    for crf, emissions, mask in cases():
        rows, starts, tags, expected = [], [], [], []
        for row, places, real in real_rows(emissions, mask):
            paths, path_scores = all_paths(crf, real)
            chances = path_scores[0].softmax(0)
            for start, size in itertools.product(range(len(places)), range(4)):
                if start + size <= len(places):
                    query = torch.randint(crf.num_tags, (size,))
                    agree = (paths[:, start : start + size] == query).all(1)
                    rows.append(row)
                    starts.append(start)
                    tags.append(query.tolist())
                    expected.append(chances[agree].sum())
        found = crf.path_marginals(emissions, mask, rows, starts, tags)
        torch.testing.assert_close(found, torch.stack(expected))


def test_entropy_equals_enumeration() -> None:
    for crf, emissions, mask in cases():
        found = crf.entropy(emissions, mask)
        for row, _, real in real_rows(emissions, mask):
            chances = all_paths(crf, real)[1][0].softmax(0)
            expected = -torch.special.xlogy(chances, chances).sum()
            torch.testing.assert_close(found[row], expected, atol=1e-9, rtol=1e-9)


def test_n_best_equals_enumeration_and_has_fewer_where_fewer_are_legal() -> None:
    for (crf, emissions, mask), n in itertools.product(cases(), (1, 3, 40)):
        found = crf.n_best(emissions, mask, n)
        for row, _, real in real_rows(emissions, mask):
            paths, path_scores = all_paths(crf, real)
            order = path_scores[0].sort(descending=True).indices
            order = order[path_scores[0, order] > -torch.inf][:n]
            assert [path for path, _ in found[row]] == paths[order].tolist()
            chances = torch.tensor([chance for _, chance in found[row]], dtype=DOUBLE)
            torch.testing.assert_close(chances, path_scores[0].softmax(0)[order])


def test_partial_labels_sum_over_what_agrees() -> None:
    for crf, emissions, mask in cases():
        tags = crf.best(emissions, mask)[0]
        tags = torch.where(torch.rand(tags.shape) < 0.5, tags, -1)
        found = crf(emissions, tags, mask, reduction="none")
        for row, places, real in real_rows(emissions, mask):
            paths, path_scores = all_paths(crf, real)
            known = tags[row, places]
            agree = ((paths == known) | (known == -1)).all(1)
            expected = path_scores[0, agree].logsumexp(0) - path_scores[0].logsumexp(0)
            torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("constrained", [False, True])
def test_gradient_is_exact(partial: bool, constrained: bool) -> None:
    crf = make(4, random_rules(4) if constrained else None)
    emissions = torch.randn(5, 5, 4, dtype=DOUBLE, requires_grad=True)
    mask = torch.tensor(MASKS)
    tags = crf.best(emissions, mask)[0] if constrained else torch.randint(4, (5, 5))
    if partial:
        tags[:3, 1::2] = -1
    elif not constrained:
        tags = tags.masked_fill(~mask, -100)
    names, values = zip(*crf.named_parameters(), strict=True)

    def likelihood(emissions: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return functional_call(crf, parameters, (emissions, tags, mask, "none"))

    assert torch.autograd.gradcheck(likelihood, (emissions, *values))


def test_log_partition_has_an_exact_gradient() -> None:
    crf = make(3, random_rules(3))
    emissions = torch.randn(5, 5, 3, dtype=DOUBLE, requires_grad=True)
    mask = torch.tensor(MASKS)
    assert torch.autograd.gradcheck(lambda e: crf.log_partition(e, mask), (emissions,))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "token_mean"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_reductions_and_their_gradients_equal_the_plain_loop(
    reduction: str, batch_first: bool
) -> None:
    crf = CRF(5, batch_first)
    emissions = torch.randn(4, 7, 5, requires_grad=True)
    lengths = [7, 1, 4, 6]
    mask = torch.arange(7) < torch.tensor(lengths).unsqueeze(1)
    tags = torch.randint(5, (4, 7))
    expected = loop_likelihood(crf, emissions, tags, lengths)
    weights = torch.randn(4) if reduction == "none" else torch.ones(4)
    divisor = {"mean": 4, "token_mean": sum(lengths)}.get(reduction, 1)
    expected = expected if reduction == "none" else expected.sum() / divisor
    arguments = (emissions, tags, mask)
    if not batch_first:
        arguments = tuple(values.transpose(0, 1) for values in arguments)
    found = crf(*arguments, reduction=reduction)
    torch.testing.assert_close(found, expected)
    inputs = (emissions, *crf.parameters())
    found_gradients = gradients((found * weights).sum(), *inputs)
    for one, other in zip(
        found_gradients, gradients((expected * weights).sum(), *inputs), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_time_first_is_the_default_and_means_the_same() -> None:
    crf = CRF(3)
    first = copy.deepcopy(crf)
    first.batch_first = True
    emissions, mask = torch.randn(6, 2, 3), torch.ones(6, 2, dtype=torch.bool)
    mask[4:, 1] = False
    swapped, mask_swapped = emissions.transpose(0, 1), mask.t()
    assert crf.decode(emissions, mask) == first.decode(swapped, mask_swapped)
    assert crf.best(emissions, mask)[0].tolist() == (
        first.best(swapped, mask_swapped)[0].t().tolist()
    )
    marginals = first.marginals(swapped, mask_swapped).transpose(0, 1)
    torch.testing.assert_close(crf.marginals(emissions, mask), marginals)


def test_backward_runs_twice_on_a_retained_graph() -> None:
    crf = CRF(4, batch_first=True)
    emissions = torch.randn(3, 6, 4, requires_grad=True)
    value = crf(emissions, torch.randint(4, (3, 6)))
    inputs = (emissions, *crf.parameters())
    once = torch.autograd.grad(value, inputs, retain_graph=True)
    for one, other in zip(once, torch.autograd.grad(value, inputs), strict=True):
        assert torch.equal(one, other)


def test_gradient_reaches_only_what_needs_it() -> None:
    crf = CRF(4, batch_first=True)
    crf.transitions.requires_grad_(False)
    crf(torch.randn(3, 6, 4), torch.randint(4, (3, 6))).backward()
    assert crf.transitions.grad is None
    assert crf.start_transitions.grad is not None


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0, 1e4])
@pytest.mark.parametrize("grammar", [None, rules(BIO)])
def test_large_scores_keep_value_and_gradient(scale: float, grammar: Rules | None) -> None:
    exact = make(5, grammar, scale=3.0)
    crf = copy.deepcopy(exact).float()
    exact = copy.deepcopy(crf).double()
    emissions = (torch.randn(8, 30, 5) * scale).requires_grad_()
    wide = emissions.detach().double().requires_grad_()
    tags = exact.decode(torch.randn(8, 30, 5, dtype=DOUBLE))
    found, expected = crf(emissions, torch.tensor(tags)), exact(wide, torch.tensor(tags))
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)
    pairs = zip(
        gradients(found, emissions, *crf.parameters()),
        gradients(expected, wide, *exact.parameters()),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one.double(), other, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(
        crf.marginals(emissions).double(), exact.marginals(wide), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        crf.entropy(emissions).double(), exact.entropy(wide), atol=1e-4, rtol=1e-4
    )


def test_float64_at_large_scale_equals_the_plain_loop() -> None:
    crf = make(4, scale=20.0)
    emissions = (torch.randn(4, 9, 4, dtype=DOUBLE) * 1e4).requires_grad_()
    tags = torch.randint(4, (4, 9))
    found, expected = crf(emissions, tags), loop_likelihood(crf, emissions, tags, [9] * 4).sum()
    torch.testing.assert_close(found, expected)
    inputs = (emissions, *crf.parameters())
    for one, other in zip(gradients(found, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_only_sentences_that_underflow_are_redone() -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO))
    emissions = torch.randn(6, 20, 5)
    emissions[[1, 4]] *= 1e4
    scores = Scores(*(values.float() for values in scores_of(crf)))
    posterior = forward_backward(emissions, torch.full((6,), 20), scores)
    assert posterior.messages.log_rows.tolist() == [1, 4]
    torch.testing.assert_close(posterior.marginals.sum(-1), torch.ones(20, 6))


def test_a_path_lost_to_underflow_is_noticed() -> None:
    # Both tags are cut off from each other. Tag 1 falls behind by 200 nats and then catches up.
    grammar = Rules([True, True], [[True, False], [False, True]], [True, True])
    crf = CRF(2, batch_first=True, grammar=grammar, learn=False)
    emissions = torch.zeros(1, 40, 2)
    emissions[0, :20, 0] = emissions[0, 20:, 1] = 10.0
    emissions[0, -1, 1] = 11.0
    expected = torch.tensor([200.0, 201.0]).softmax(0)
    torch.testing.assert_close(crf.marginals(emissions)[0, 7], expected)
    torch.testing.assert_close(crf.log_partition(emissions)[0], torch.tensor(201.313262))


def test_impossible_emissions_are_never_chosen() -> None:
    crf = make(3)
    emissions = torch.randn(2, 4, 3, dtype=DOUBLE)
    emissions[0, :, 1] = emissions[1, 2, [0, 2]] = -torch.inf
    assert 1 not in crf.decode(emissions)[0]
    assert crf.decode(emissions)[1][2] == 1
    assert (crf.marginals(emissions)[0, :, 1] == 0).all()
    expected = torch.stack(
        [all_paths(crf, row.unsqueeze(0))[1].logsumexp(1)[0] for row in emissions]
    )
    torch.testing.assert_close(crf.log_partition(emissions), expected)
    assert crf(emissions, torch.ones(2, 4), reduction="none").tolist()[0] == -math.inf


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_emissions_that_are_no_numbers_are_refused_or_stay_nan(wrong: float) -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO))
    emissions = torch.randn(3, 6, 5)
    emissions[1, 2, 4] = wrong
    for method in (crf.decode, crf.best, crf.n_best, crf.marginals, crf.entropy):
        with pytest.raises(ValueError, match="Row 1 .*NaN"):
            method(emissions)
    values = crf(emissions, torch.zeros(3, 6), reduction="none")
    assert values.isnan().tolist() == [False, True, False]
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, 2] = False
    assert [len(row) for row in crf.decode(emissions, mask)] == [6, 5, 6]


def test_a_length_without_legal_sequence_is_refused() -> None:
    grammar = Rules([True, False], [[False, True], [True, False]], [False, True])  # 0 1 0 1 ...
    crf = CRF(2, batch_first=True, grammar=grammar)
    emissions = torch.randn(2, 4, 2)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    assert crf.log_partition(emissions, mask).isneginf().tolist() == [False, True]
    assert [len(row) for row in crf.n_best(emissions, mask, 5)] == [1, 0]
    for method in (crf.decode, crf.marginals, crf.entropy):
        with pytest.raises(ValueError, match="Row 1 has no possible tags"):
            method(emissions, mask)
    with pytest.raises(ValueError, match="Row 1 breaks the grammar: no sequence"):
        crf(emissions, torch.full((2, 4), -1), mask)


def test_illegal_gold_tags_are_named() -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO))
    emissions, tags = torch.randn(2, 4, 5), torch.zeros(2, 4, dtype=torch.int64)
    mask = torch.tensor([[True] * 4, [False, True, True, True]])
    tags[1] = torch.tensor([0, 1, 4, 0])
    with pytest.raises(ValueError, match="Row 1 .* position 2: tag 4 may not follow tag 1"):
        crf(emissions, tags, mask)
    tags[1] = torch.tensor([1, 2, 0, 0])
    with pytest.raises(ValueError, match="Row 1 .* position 1: tag 2 may not open"):
        crf(emissions, tags, mask)
    closing = CRF(9, batch_first=True, grammar=rules(BIOES))
    with pytest.raises(ValueError, match="Row 0 .* position 1: tag 1 may not close"):
        closing(torch.randn(1, 2, 9), torch.tensor([[0, 1]]))


def test_wrong_arguments_are_named() -> None:
    crf = CRF(3, batch_first=True)
    emissions, tags = torch.randn(2, 4, 3), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="tag id 3 at position 2"):
        crf(emissions, torch.tensor([[0, 0, 0, 0], [0, 0, 3, 0]]))
    with pytest.raises(ValueError, match="end in 3 tags"):
        crf(emissions[..., :2], tags)
    with pytest.raises(ValueError, match="mask"):
        crf(emissions, tags, torch.ones(2, 3))
    with pytest.raises(ValueError, match="Tags must"):
        crf(emissions, tags[:, :3])
    with pytest.raises(ValueError, match="reduction"):
        crf(emissions, tags, reduction="average")
    with pytest.raises(ValueError, match="num_tags"):
        CRF(0)
    with pytest.raises(ValueError, match="made for 5 tags"):
        CRF(3, grammar=rules(BIO))
    with pytest.raises(ValueError, match="n must"):
        crf.n_best(emissions, n=0)
    for row, start, path in ((2, 0, [0]), (0, 3, [0, 0]), (0, -1, [0]), (0, 0, [3])):
        with pytest.raises(ValueError, match="Query 0"):
            crf.path_marginals(emissions, None, [row], [start], [path])


def test_padding_and_company_change_nothing() -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO))
    lengths = [9, 1, 5, 3, 7]
    emissions = torch.randn(5, 12, 5)
    mask = torch.arange(12) < torch.tensor(lengths).unsqueeze(1)
    emissions[~mask] = torch.nan
    emissions[4] *= 1e3
    decoded = crf.decode(emissions, mask)
    tags = torch.full((5, 12), -7)
    tags[mask] = torch.tensor(sum(decoded, []))
    values = crf(emissions, tags, mask, reduction="none")
    marginals, entropy = crf.marginals(emissions, mask), crf.entropy(emissions, mask)
    n_best = crf.n_best(emissions, mask, 3)
    for row, length in enumerate(lengths):
        alone = emissions[row : row + 1, :length]
        assert crf.decode(alone) == [decoded[row]]
        assert crf.best(alone)[1][0] == crf.best(emissions, mask)[1][row]
        torch.testing.assert_close(crf(alone, tags[row : row + 1, :length]), values[row])
        torch.testing.assert_close(crf.marginals(alone)[0], marginals[row, :length])
        torch.testing.assert_close(crf.entropy(alone)[0], entropy[row])
        assert [path for path, _ in crf.n_best(alone, n=3)[0]] == [path for path, _ in n_best[row]]


def test_garbage_in_padding_leaves_gradients_clean() -> None:
    crf = CRF(3, batch_first=True)
    emissions = torch.randn(3, 5, 3)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])
    emissions[~mask] = torch.nan
    emissions.requires_grad_()
    crf(emissions, torch.zeros(3, 5), mask).backward()
    assert (emissions.grad[~mask] == 0).all()
    assert (emissions.grad[mask] != 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in crf.parameters())


def test_empty_sentences_and_empty_batches() -> None:
    crf = CRF(3, batch_first=True)
    emissions, nowhere = torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool)
    assert crf.decode(emissions, nowhere) == [[], []]
    assert crf.n_best(emissions, nowhere, 2) == [[([], 1.0)], [([], 1.0)]]
    assert crf.log_partition(emissions, nowhere).tolist() == [0.0, 0.0]
    assert crf.entropy(emissions, nowhere).tolist() == [0.0, 0.0]
    for shape in ((0, 4, 3), (2, 0, 3), (0, 0, 3)):
        batch = torch.randn(shape, requires_grad=True)
        tags = torch.zeros(shape[:2])
        assert crf.decode(batch) == [[]] * shape[0]
        assert crf.best(batch, tags == 0)[0].shape == shape[:2]
        assert len(crf.n_best(batch, n=2)) == shape[0]
        assert crf.marginals(batch).shape == shape
        assert crf.entropy(batch).tolist() == [0.0] * shape[0]
        assert crf.path_marginals(batch, None, [], [], []).shape == (0,)
        for reduction in ("sum", "mean", "token_mean"):
            value = crf(batch, tags, reduction=reduction)
            value.backward()
            assert value == 0.0


def test_equal_scores_go_to_the_lowest_id() -> None:
    crf = CRF(4, batch_first=True, learn=False)
    assert crf.decode(torch.zeros(2, 3, 4)) == [[0, 0, 0]] * 2
    emissions = torch.tensor([[[0.0, 3.0, 3.0, 1.0], [5.0, 0.0, 0.0, 5.0]]])
    assert crf.decode(emissions) == [[1, 0]]
    assert crf.n_best(emissions, n=1)[0][0][0] == [1, 0]


def test_the_first_of_the_n_best_is_the_best() -> None:
    crf = CRF(6, batch_first=True)
    emissions = (torch.randn(40, 50, 6) * 4).round() / 4  # many ties
    assert [found[0][0] for found in crf.n_best(emissions, n=3)] == crf.decode(emissions)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO))
    half = torch.randn(3, 40, 5).to(dtype).requires_grad_()
    tags = torch.tensor(crf.decode(half))
    expected = crf(half.float(), tags)
    with torch.autocast("cpu", torch.bfloat16):
        found = crf(half, tags)
        found.backward()
        assert torch.equal(crf.marginals(half), crf.marginals(half.float()))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert half.grad.dtype == dtype
    counted = crf.transitions.grad.clone()
    crf.transitions.grad = None
    crf(half, tags).backward()
    assert torch.equal(counted, crf.transitions.grad)


def test_reduced_matrix_products_are_switched_off_and_on_again() -> None:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        with full_precision(torch.device("cpu")):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before


def test_inference_mode_and_repetition_give_the_same() -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO))
    emissions = torch.randn(4, 9, 5)
    tags = torch.tensor(crf.decode(emissions))
    with torch.inference_mode():
        assert torch.equal(crf(emissions, tags), crf(emissions, tags).clone())
        assert torch.equal(crf.best(emissions)[0], tags)
        assert torch.equal(crf.marginals(emissions), crf.marginals(emissions))


def test_state_has_the_names_of_pytorch_crf_and_comes_back() -> None:
    crf = CRF(5, grammar=rules(BIO))
    state = crf.state_dict()
    assert {name: tuple(values.shape) for name, values in state.items()} == {
        "start_transitions": (5,),
        "end_transitions": (5,),
        "transitions": (5, 5),
    }
    assert all(values.abs().max() <= 0.1 for values in state.values())
    other = CRF(5)
    other.load_state_dict(state)
    assert torch.equal(other.transitions, crf.transitions)


def test_without_learning_only_the_grammar_counts() -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO), learn=False)
    assert list(crf.parameters()) == []
    assert crf.state_dict() == {}
    emissions = torch.tensor([[[1.0, 0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0, 5.0]]])
    assert crf.decode(emissions) == [[1, 2]]  # I-X may not open: B-X I-X beats O O by 8
    value = crf(emissions.requires_grad_(), torch.tensor([[1, 2]]))
    value.backward()
    assert emissions.grad.abs().sum() > 0


@pytest.mark.parametrize("num_tags", [1, 2, 512])
def test_any_number_of_tags(num_tags: int) -> None:
    crf = CRF(num_tags, batch_first=True)
    emissions = torch.randn(2, 3, num_tags, requires_grad=True)
    tags, scores = crf.best(emissions)
    torch.testing.assert_close(
        crf(emissions, tags, reduction="none"), scores - crf.log_partition(emissions)
    )
    one = crf.marginals(emissions[:, :1])
    expected = (emissions[:, 0] + crf.start_transitions + crf.end_transitions).softmax(-1)
    torch.testing.assert_close(one[:, 0], expected)


def test_large_tables_are_taken_in_parts_with_the_same_result() -> None:
    assert parts(10, 2) == [slice(0, 10)]
    assert parts(70, 512) == [slice(0, 64), slice(64, 70)]
    crf = CRF(512, batch_first=True)
    emissions = torch.randn(66, 2, 512)
    assert torch.equal(crf.best(emissions)[0][60:], crf.best(emissions[60:])[0])


@pytest.mark.slow
def test_ten_thousand_random_cases_equal_enumeration() -> None:
    checked = 0
    for group in range(250):
        num_tags, length = 1 + group % 5, 1 + group % 4
        crf = make(num_tags, random_rules(num_tags) if group % 3 else None, scale=0.1 + group % 7)
        mask = torch.rand(40, 7).argsort(1) < length  # the real tokens anywhere among seven
        emissions = torch.randn(40, 7, num_tags, dtype=DOUBLE) * (1 + group % 11)
        real = emissions[mask].view(40, length, num_tags)
        paths, scores = all_paths(crf, real)
        chances = scores.softmax(1)
        best, found = crf.best(emissions, mask)
        torch.testing.assert_close(found, scores.amax(1))
        assert torch.equal(best[mask].view(40, length), paths[scores.argmax(1)])
        torch.testing.assert_close(crf.log_partition(emissions, mask), scores.logsumexp(1))
        tags = torch.full((40, 7), -1).masked_scatter(mask, paths[scores.argmax(1)])
        tags[torch.rand(40, 7) < 0.5] = -1
        known = tags[mask].view(40, 1, length)
        agree = ((paths == known) | (known == -1)).all(-1)
        torch.testing.assert_close(
            crf(emissions, tags, mask, reduction="none"),
            scores.masked_fill(~agree, -torch.inf).logsumexp(1) - scores.logsumexp(1),
        )
        expected = torch.stack([chances @ (paths == tag).double() for tag in range(num_tags)], -1)
        marginals = crf.marginals(emissions, mask)[mask].view(40, length, num_tags)
        torch.testing.assert_close(marginals, expected)
        expected = -torch.special.xlogy(chances, chances).sum(1)
        torch.testing.assert_close(crf.entropy(emissions, mask), expected, atol=1e-8, rtol=1e-8)
        ranked = scores.sort(1, descending=True).values[:, :4].softmax(1)
        for row, rest in zip(crf.n_best(emissions, mask, 4), ranked, strict=True):
            got = torch.tensor([chance for _, chance in row], dtype=DOUBLE)
            torch.testing.assert_close(got / got.sum(), rest[rest > 0][: len(got)])
        rows = list(range(40))
        queries = paths[torch.randint(len(paths), (40,))]
        found = crf.path_marginals(emissions, mask, rows, [0] * 40, queries[:, :2].tolist())
        agree = (paths.unsqueeze(0)[:, :, :2] == queries.unsqueeze(1)[:, :, :2]).all(-1)
        torch.testing.assert_close(found, (chances * agree).sum(1))
        checked += 40
    assert checked == 10_000


@pytest.mark.slow
@pytest.mark.parametrize("tags", [BIO, BIOES], ids=["BIO", "BIOES"])
@pytest.mark.parametrize("learn", [True, False])
def test_no_illegal_sequence_in_a_hundred_thousand(tags: list[str], learn: bool) -> None:
    legal = rules(tags)
    crf = CRF(len(tags), batch_first=True, grammar=legal, learn=learn)
    checked = illegal = 0
    scales = (0.0, 0.01, 1.0, 20.0, 1e4)
    for scale, dtype in itertools.product(scales, (torch.float32, torch.bfloat16)):
        for parameter in crf.parameters():
            torch.nn.init.normal_(parameter, std=10 * torch.rand(()).item())
        emissions = (torch.randn(2500, 11, len(tags)) * scale).to(dtype)
        mask = torch.rand(2500, 11) < 0.8
        for path in crf.decode(emissions, mask):
            ok = all(legal.transitions[last][tag] for last, tag in itertools.pairwise(path))
            ok = ok and (not path or (legal.start[path[0]] and legal.end[path[-1]]))
            illegal += not ok
            checked += 1
    assert (checked, illegal) == (25_000, 0)


@pytest.mark.slow
def test_a_document_of_twenty_thousand_tokens() -> None:
    crf = CRF(5, batch_first=True, grammar=rules(BIO))
    emissions = torch.randn(1, 20_000, 5, requires_grad=True)
    tags, score = crf.best(emissions)
    value = crf(emissions, tags)
    value.backward()
    exact = copy.deepcopy(crf).double()
    wide = emissions.detach().double().requires_grad_()
    expected = exact(wide, tags)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-2)
    expected.backward()
    torch.testing.assert_close(emissions.grad.double(), wide.grad, atol=1e-4, rtol=1e-4)
    assert torch.equal(exact.best(wide)[0], tags)
    # Tokens far from the border cannot tell a window from the document.
    window = crf.marginals(emissions[:, 9_000:9_400])
    torch.testing.assert_close(
        window[:, 100:300], crf.marginals(emissions)[:, 9_100:9_300], atol=1e-4, rtol=1e-4
    )

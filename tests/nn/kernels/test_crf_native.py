"""The CRF's compiled kernels against plain PyTorch in double precision, and against enumeration."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqlab.nn.crf import CRF
from seqlab.nn.kernels import crf_native as native
from seqlab.nn.kernels import library, wanted

# A busy machine is no failure.
UNHURRIED = settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SETS = ["DEFAULT", "AVX2", "AVX512"]
HERE = torch.backends.cpu.get_cpu_capability()
REDUCTIONS = ("none", "sum", "mean", "token_mean")
pytestmark = pytest.mark.skipif(
    bool(library.obstacle()), reason=f"no compiled kernels: {library.obstacle()}"
)


class Rules(NamedTuple):
    start: list[bool]
    transitions: list[list[bool]]
    end: list[bool]


class Case(NamedTuple):
    """A CRF and what it is asked about."""

    crf: CRF
    emissions: Tensor  # (batch, time, tag)
    mask: Tensor  # (batch, time)
    tags: Tensor  # (batch, time), garbage at padding

    @property
    def exact(self) -> Case:
        """The same in double precision, where plain PyTorch computes."""
        return Case(copy.deepcopy(self.crf).double(), self.emissions.double(), *self[2:])


def rules(size: int) -> Rules:
    """Half of the transitions; tag 0 may always come, so that every length is possible."""
    start, transitions, end = (
        torch.rand(shape) < 0.5 for shape in ((size,), (size, size), (size,))
    )
    start[0] = end[0] = transitions[0, 0] = True
    return Rules(start.tolist(), transitions.tolist(), end.tolist())


def drawn(
    lengths: Sequence[int],
    size: int,
    scale: float = 1.0,
    constrained: bool = False,
    unknown: float = 0.0,
    spare: int = 0,
) -> Case:
    """Emissions of a scale, tags that are legal and that `unknown` of which are not known."""
    crf = CRF(size, batch_first=True, grammar=rules(size) if constrained else None)
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    time = max([*lengths, 0]) + spare
    mask = torch.arange(time) < torch.tensor(lengths).unsqueeze(1)
    emissions = torch.randn(len(lengths), time, size) * scale
    tags = copy.deepcopy(crf).double().best(torch.randn(emissions.shape).double(), mask)[0]
    tags = tags.masked_fill(torch.rand(tags.shape) < unknown, -1).masked_fill(~mask, 10**9)
    return Case(crf, emissions, mask, tags)


def outcome(case: Case, what: str, weights: Tensor | None = None) -> list[Tensor]:
    """A value, and its gradients by emissions, start, transitions and end."""
    crf, emissions, mask, tags = case
    x = emissions.detach().requires_grad_()
    if what == "log_partition":
        value = crf.log_partition(x, mask)
    else:
        value = crf(x, tags, mask, reduction=what)
    total = value.sum() if weights is None else (value * weights.to(value.dtype)).sum()
    inputs = (x, crf.start_transitions, crf.transitions, crf.end_transitions)
    return [value.detach(), *torch.autograd.grad(total, inputs, materialize_grads=True)]


def largest(values: Sequence[Tensor]) -> float:
    return max(float(x.abs().max()) for x in values)


def assert_exact(case: Case) -> None:
    """Every value and gradient is that of double precision.

    A gradient is what was seen less what was expected: it is as exact as the larger of the two.
    """
    uneven = torch.linspace(-1.0, 2.0, len(case.emissions))
    expected = largest(outcome(case.exact, "log_partition")[1:])
    tokens = max(1, int(case.mask.sum()))
    asked = [(name, None) for name in (*REDUCTIONS, "log_partition")]
    for what, weights in [*asked, ("none", uneven), ("log_partition", uneven)]:
        ours, theirs = outcome(case, what, weights), outcome(case.exact, what, weights)
        torch.testing.assert_close(ours[0].double(), theirs[0], rtol=2e-6, atol=2e-5)
        share = expected / {"mean": len(uneven), "token_mean": tokens}.get(what, 1)
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            assert largest([mine - other]) <= 2e-6 * (share + largest(theirs[1:])), what


def assert_same_answers(case: Case) -> None:
    """Best sequences are those of plain PyTorch, probabilities those of double precision."""
    (crf, emissions, mask, _), exact = case, case.exact
    tags, score = crf.best(emissions, mask)
    decoded = crf.decode(emissions, mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLAB_KERNELS", "plain")
        assert torch.equal(tags, crf.best(emissions, mask)[0])
    assert [row[m].tolist() for row, m in zip(tags, mask, strict=True)] == decoded
    torch.testing.assert_close(score.double(), exact.crf.best(exact.emissions, mask)[1])
    chances = exact.crf.marginals(exact.emissions, mask)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(crf.marginals(emissions, mask).double(), chances, **close)
    spans = []
    for row, path in enumerate(decoded):
        for start, size in itertools.product(range(0, len(path), 3), (0, 1, 2, 5)):
            if start + size <= len(path):
                other = torch.randint(crf.num_tags, (size,)).tolist()
                spans += [(row, start, path[start : start + size]), (row, start, other)]
    queries = tuple(zip(*spans, strict=True)) if spans else ((), (), ())
    expected = exact.crf.path_marginals(exact.emissions, mask, *queries)
    found = crf.path_marginals(emissions, mask, *queries)
    torch.testing.assert_close(found.double(), expected, **close)


@pytest.fixture
def plain_too() -> None:
    """For tests in which plain PyTorch may be asked as well."""


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """The kernels answer, unless double precision or plain PyTorch is asked for."""
    torch.manual_seed(0)
    monkeypatch.setenv("SEQLAB_KERNELS", "native")
    prepared = CRF._prepared

    def watched(crf: CRF, emissions: Tensor, mask: Tensor | None) -> Any:
        assert wanted() == "plain" or emissions.dtype is torch.float64, "plain PyTorch was asked"
        return prepared(crf, emissions, mask)

    if "plain_too" not in request.fixturenames:
        monkeypatch.setattr(CRF, "_prepared", watched)


@pytest.fixture(params=SETS)
def instructions(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels for one set of instructions after the other, in this process."""
    if request.param not in SETS[: SETS.index(HERE) + 1 if HERE in SETS else 1]:
        pytest.skip(f"this machine has no {request.param}")
    if request.param == HERE:  # as in all other tests
        yield
        return
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    monkeypatch.setattr(library, "_loaded", [])
    for known in (library.signature, native._kernel):
        known.cache_clear()
    yield
    for known in (library.signature, native._kernel):
        known.cache_clear()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Sentences side by side in lanes and one by one, in one vector, in three and in more.
SHAPES = {
    "one tag": ([3, 1, 2], 1),
    "few sentences": ([7, 2], 5),
    "many sentences": ([(7 * n) % 9 for n in range(70)], 5),
    "one sentence": ([40], 17),
    "a tagger's": ([9, 8, 9, 7, 9, 9, 8, 2, 9, 9, 1, 9, 9, 0, 4, 9, 9, 3], 17),
    "three vectors": ([6, 5, 6], 41),
    "many tags": ([5, 9, 2, 9] * 5, 75),
}


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "constrained"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_set_of_instructions_computes_exactly(
    instructions: None, shape: tuple[list[int], int], constrained: bool
) -> None:
    for unknown in (0.0, 0.3):
        assert_exact(drawn(*shape, constrained=constrained, unknown=unknown))
    assert_same_answers(drawn(*shape, constrained=constrained, spare=1))


@UNHURRIED
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    size=st.integers(1, 40),
    scale=st.sampled_from([0.0, 1.0, 5.0, 20.0, 1e3]),
    constrained=st.booleans(),
    unknown=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    spare=st.integers(0, 2),
    count=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_any_case_is_computed_exactly(
    threads: None,
    lengths: list[int],
    size: int,
    scale: float,
    constrained: bool,
    unknown: float,
    spare: int,
    count: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(count)
    case = drawn(lengths, size, scale, constrained, unknown, max(spare, not any(lengths)))
    assert_exact(case)
    assert_same_answers(case)


@pytest.mark.parametrize("size", [130, 256, 257, 300, 512])
def test_many_tags_are_computed_exactly(size: int) -> None:
    case = drawn([5, 1, 3], size, constrained=size % 2 == 1, unknown=0.3)
    assert_exact(case)
    assert_same_answers(case)


@pytest.mark.parametrize("scale", [1.0, 20.0, 1e3, 1e4])
@pytest.mark.parametrize(("count", "size"), [(3, 17), (64, 5), (20, 17), (3, 75)])
def test_gradients_are_exact_at_every_scale(count: int, size: int, scale: float) -> None:
    case = drawn([30 - n % 9 for n in range(count)], size, scale)
    ours, theirs = outcome(case, "token_mean"), outcome(case.exact, "token_mean")
    assert all(gradient.isfinite().all() for gradient in ours)
    errors = [mine - other for mine, other in zip(ours[1:], theirs[1:], strict=True)]
    assert largest(errors) <= 1e-5 * largest(theirs[1:])
    assert_exact(case)


@pytest.mark.parametrize("reduction", ["token_mean", "none"])
def test_what_is_seen_a_thousand_times_is_counted_exactly(reduction: str) -> None:
    case = drawn([2001, 1999], 3)
    case = case._replace(tags=torch.zeros_like(case.tags))
    uneven = None if reduction == "token_mean" else torch.tensor([0.1, 0.3])
    ours, theirs = outcome(case, reduction, uneven), outcome(case.exact, reduction, uneven)
    assert largest([ours[3] - theirs[3]]) <= 1e-6 * largest([theirs[3]])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_answers_equal_enumeration(size: int) -> None:
    crf, emissions, mask, tags = drawn([4, 1, 3], size)
    log_partition, marginals = crf.log_partition(emissions, mask), crf.marginals(emissions, mask)
    likelihood = crf(emissions, tags, mask, reduction="none")
    for row, length in enumerate(mask.sum(1).tolist()):
        paths = torch.tensor(list(itertools.product(range(size), repeat=length)))
        scores = emissions[row, torch.arange(length), paths].sum(1)
        scores = scores + crf.start_transitions[paths[:, 0]] + crf.end_transitions[paths[:, -1]]
        scores = scores + crf.transitions[paths[:, :-1], paths[:, 1:]].sum(1)
        torch.testing.assert_close(log_partition[row], scores.logsumexp(0))
        gold = (paths == tags[row, :length]).all(1)
        torch.testing.assert_close(likelihood[row], scores.log_softmax(0)[gold][0])
        for tag in range(size):
            chances = (scores.softmax(0).unsqueeze(1) * (paths == tag)).sum(0)
            torch.testing.assert_close(marginals[row, :length, tag], chances)
        assert crf.decode(emissions, mask)[row] == paths[scores.argmax()].tolist()


@pytest.mark.parametrize("size", [4, 20])
def test_of_equal_sequences_the_one_of_plain_pytorch_is_taken(size: int) -> None:
    crf, emissions, mask, _ = drawn([50, 20, 33, 0], size, spare=2)
    for parameter in crf.parameters():
        parameter.data.round_()
    assert_same_answers(Case(crf, emissions.round(), mask, mask))
    for parameter in crf.parameters():
        parameter.data.zero_()
    tags, _ = crf.best(torch.zeros_like(emissions), mask)
    assert torch.equal(tags, torch.where(mask, 0, -1))


def everything(case: Case) -> list[Tensor]:
    """All that is computed of a case."""
    crf, emissions, mask, _ = case
    uneven = torch.linspace(-1.0, 2.0, len(emissions))
    answers = [crf.marginals(emissions, mask), *crf.best(emissions, mask)]
    return [*answers, *outcome(case, "token_mean"), *outcome(case, "none", uneven)]


@pytest.mark.parametrize(
    ("lengths", "size"),
    [([30] * 70, 5), ([(7 * n) % 31 for n in range(200)], 17), ([9, 40, 8], 75), ([9, 3], 300)],
)
def test_the_number_of_threads_changes_no_digit(
    threads: None, lengths: list[int], size: int
) -> None:
    case = drawn(lengths, size, unknown=0.1)
    case.emissions[0] *= 1e4  # which is done with logarithms
    found = []
    for count in (1, 2, 2, 3, 7):
        torch.set_num_threads(count)
        found.append(everything(case))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_going_back_twice_gives_the_same(reduction: str) -> None:
    crf, emissions, mask, tags = drawn([6, 4, 0], 4)
    inputs = (emissions.requires_grad_(), *crf.parameters())
    value = (crf(emissions, tags, mask, reduction) * torch.tensor([1.0, 2.0, 3.0])).sum()
    once = torch.autograd.grad(value, inputs, retain_graph=True)
    for one, other in zip(once, torch.autograd.grad(value, inputs), strict=True):
        assert torch.equal(one, other)


def test_a_crf_used_twice_adds_up_its_gradients() -> None:
    case, other = drawn([6, 4], 4), drawn([3, 5], 4)
    other = other._replace(crf=case.crf)
    apart = zip(outcome(case, "sum")[2:], outcome(other, "sum")[2:], strict=True)
    total = sum(crf(x, tags, mask) for crf, x, mask, tags in (case, other))
    scores = (case.crf.start_transitions, case.crf.transitions, case.crf.end_transitions)
    for found, (one, two) in zip(torch.autograd.grad(total, scores), apart, strict=True):
        torch.testing.assert_close(found, one + two)


@pytest.mark.parametrize("wanted_ones", [*itertools.product([False, True], repeat=4)], ids=str)
def test_only_what_learns_gets_a_gradient(wanted_ones: tuple[bool, ...]) -> None:
    case = drawn([6, 4], 4)
    for what in ("mean", "none"):
        uneven = torch.tensor([1.0, 3.0]) if what == "none" else None
        expected = outcome(case, what, uneven)[1:]
        crf = copy.deepcopy(case.crf)
        inputs = [case.emissions.clone()]
        inputs += [crf.start_transitions, crf.transitions, crf.end_transitions]
        for x, learns in zip(inputs, wanted_ones, strict=True):
            x.requires_grad_(learns)
        value = crf(inputs[0], case.tags, case.mask, reduction=what)
        assert value.requires_grad == any(wanted_ones)
        if value.requires_grad:
            (value if uneven is None else value * uneven).sum().backward()
        for x, gradient, learns in zip(inputs, expected, wanted_ones, strict=True):
            assert (x.grad is not None) == learns
            assert x.grad is None or torch.equal(x.grad, gradient)


def test_no_gradient_is_computed_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    crf, emissions, mask, tags = drawn([6, 4], 4)
    asked: list[tuple[bool, bool]] = []
    ours = native._likelihood

    def watched(*arguments: Any) -> Any:
        asked.append(arguments[-2:])
        return ours(*arguments)

    monkeypatch.setattr(native, "_likelihood", watched)
    value = crf(emissions, tags, mask)
    with torch.no_grad():
        assert torch.equal(crf(emissions.requires_grad_(), tags, mask), value)
    with torch.inference_mode():
        assert torch.equal(crf(emissions, tags, mask), value)
    assert asked == [(False, True), (False, False), (False, False)]


def test_what_the_caller_changes_afterwards_changes_no_gradient() -> None:
    case, uneven = drawn([6, 4], 4, spare=1), torch.tensor([1.0, 3.0])
    expected = outcome(case, "none", uneven)[1:]
    crf, x, tags = case.crf, case.emissions.clone().requires_grad_(), case.tags.clone()
    mask = case.mask.clone()
    value = (crf(x, tags, mask, reduction="none") * uneven).sum()
    mask.fill_(True)
    tags.fill_(0)
    inputs = (x, crf.start_transitions, crf.transitions, crf.end_transitions)
    for one, other in zip(torch.autograd.grad(value, inputs), expected, strict=True):
        assert torch.equal(one, other)


def views(x: Tensor) -> Iterator[Tensor]:
    """The same values as they may lie in memory."""
    wide = x.new_zeros([size + 3 for size in x.shape])
    inner = wide[tuple(slice(1, size + 1) for size in x.shape)]
    yield inner.copy_(x)
    for order in itertools.permutations(range(x.dim())):
        back = [order.index(axis) for axis in range(x.dim())]
        yield x.permute(order).contiguous().permute(back)


def test_views_are_read_where_they_lie() -> None:
    case = drawn([6, 4, 0, 5], 5, spare=1)
    expected = everything(case)
    for emissions, mask, tags in itertools.product(*map(views, case[1:])):
        found = everything(Case(case.crf, emissions, mask, tags))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for tags in (case.tags.int(), case.tags.double()):
        found = outcome(case._replace(tags=tags), "sum")
        assert torch.equal(found[0], outcome(case, "sum")[0])
    first = Case(case.crf, *(x[:1].expand(3, *x.shape[1:]) for x in case[1:]))
    once = Case(case.crf, *(x.contiguous() for x in first[1:]))
    assert all(torch.equal(a, b) for a, b in zip(everything(first), everything(once), strict=True))


@pytest.mark.parametrize("size", [5, 12])
def test_windows_that_overlap_in_memory_have_gradients_of_their_own(size: int) -> None:
    case = drawn([4, 4], size)
    case = case._replace(emissions=torch.randn(2, size + 3).unfold(1, size, 1))
    ours, theirs = outcome(case, "sum"), outcome(case.exact, "sum")
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_threads_of_python_do_not_disturb_one_another() -> None:
    cases = [drawn([n] * 9, size) for n, size in ((3, 17), (40, 17), (7, 75))]
    expected, wrong = [everything(case) for case in cases], []

    def work(which: int) -> None:
        for _ in range(15):
            found = everything(cases[which])
            if not all(torch.equal(a, b) for a, b in zip(found, expected[which], strict=True)):
                wrong.append(which)

    workers = [threading.Thread(target=work, args=(which % 3,)) for which in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


REFUSED = ("decode", "best", "marginals")


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 2, 5])
@pytest.mark.parametrize("count", [3, 40])
def test_what_is_no_number_spoils_its_own_sentence(
    plain_too: None, count: int, place: int, wrong: float
) -> None:
    case = drawn([6] * count, 5)
    clean = outcome(case, "none")
    case.emissions[1, place, 4] = wrong
    values, gradient = outcome(case, "none")[:2]
    others = torch.arange(count) != 1
    assert torch.equal(values.isnan(), ~others)
    assert torch.equal(gradient[others], clean[1][others])
    assert gradient[1].isnan().any()
    for name in REFUSED:
        with pytest.raises(ValueError, match="Row 1 cannot be scored: .* NaN or [+]inf"):
            getattr(case.crf, name)(case.emissions, case.mask)
    assert case.crf.log_partition(case.emissions, case.mask).isnan().tolist() == (~others).tolist()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_are_seen(plain_too: None, wrong: float) -> None:
    for name in ("start_transitions", "transitions", "end_transitions"):
        crf, emissions, mask, tags = drawn([4, 2], 3)
        getattr(crf, name).data.view(-1)[1] = wrong
        assert crf(emissions, tags, mask, reduction="none").isnan().all()
        for answer in (crf.decode, crf.best):
            with pytest.raises(ValueError, match="Row 0 cannot be scored"):
                answer(emissions, mask)


def test_impossible_tags_have_the_values_and_gradients_of_plain_pytorch() -> None:
    for count in (3, 30):
        case = drawn([4] * count, 3)
        case.emissions[0, :, 1] = case.emissions[1, 2, [0, 2]] = -torch.inf
        assert_exact(case._replace(tags=torch.where(case.emissions.isinf()[..., 0], 1, 2)))
        assert_same_answers(case)
        case.emissions[2, 1] = -torch.inf
        assert case.crf.log_partition(case.emissions)[2] == -torch.inf
        for what, tags in (("log_partition", case.tags), ("none", torch.ones_like(case.tags))):
            asked = case._replace(tags=tags)
            for one, other in zip(outcome(asked, what), outcome(asked.exact, what), strict=True):
                close = {"rtol": 1e-5, "atol": 1e-5, "equal_nan": True}
                torch.testing.assert_close(one.double(), other, **close)


def test_what_breaks_the_grammar_or_is_no_tag_is_named(plain_too: None) -> None:
    crf = CRF(
        2, batch_first=True, grammar=Rules([True] * 2, [[True, False], [True] * 2], [True] * 2)
    )
    emissions = torch.randn(20, 4, 2)
    tags = torch.zeros(20, 4, dtype=torch.int64)
    tags[7, 2] = 1
    with pytest.raises(ValueError, match="Row 7 .* position 2: tag 1 may not follow tag 0"):
        crf(emissions, tags)
    for wrong in (2, -2):
        tags[7, 2] = wrong
        with pytest.raises(ValueError, match=f"Row 7 has the tag id {wrong} at position 2"):
            crf(emissions, tags)


@pytest.mark.parametrize(("size", "dtype"), [(513, torch.float32), (4, torch.float64)])
def test_what_is_not_computed_goes_to_plain_pytorch(
    plain_too: None, size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_kernel", lambda name: pytest.fail("compiled kernels were used"))
    case = drawn([3, 2], size)
    crf, emissions, mask, _ = case = Case(case.crf.to(dtype), case.emissions.to(dtype), *case[2:])
    for one, other in zip(outcome(case, "sum"), outcome(case.exact, "sum"), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    assert list(map(len, crf.decode(emissions, mask))) == [3, 2]
    assert crf.marginals(emissions, mask).dtype == dtype


def test_masks_with_holes_have_the_same_answers(plain_too: None) -> None:
    crf, emissions, _, tags = case = drawn([9, 9, 9, 9], 5)
    holes = torch.rand(4, 9) < 0.6
    holes[3] = False
    assert_exact(case._replace(mask=holes))
    assert_same_answers(case._replace(mask=holes))
    for mask in (holes.byte(), holes.double()):
        assert crf.decode(emissions, mask) == crf.decode(emissions, holes)
        assert torch.equal(crf(emissions, tags, mask), crf(emissions, tags, holes))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    case = drawn([9] * 20, 5, constrained=True)
    half, wide = case.emissions.to(dtype), case.emissions.to(dtype).float()
    for one, other in zip(
        everything(case._replace(emissions=half)),
        everything(case._replace(emissions=wide)),
        strict=True,
    ):
        assert torch.equal(one, other.to(one.dtype))
    assert outcome(case._replace(emissions=half), "sum")[1].dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        found = case.crf(half, case.tags)
    assert found.dtype == torch.float32
    assert torch.equal(found, case.crf(wide, case.tags))


@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0, 1e4])
@pytest.mark.parametrize("size", [4, 9, 33])
def test_no_illegal_sequence_in_bfloat16(size: int, scale: float) -> None:
    crf, emissions, mask, _ = drawn([n % 12 for n in range(500)], size, scale, constrained=True)
    for path in crf.bfloat16().decode(emissions.bfloat16(), mask):
        assert not path or not crf.forbidden_start[path[0]] | crf.forbidden_end[path[-1]]
        assert not crf.forbidden_transitions[path[:-1], path[1:]].any()


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)], ids=str)
def test_sentences_without_tokens_are_certain(plain_too: None, shape: tuple[int, int]) -> None:
    crf, emissions = CRF(5, batch_first=True), torch.randn(*shape, 5)
    nowhere = torch.zeros(shape, dtype=torch.bool)
    case = Case(crf, emissions, nowhere, nowhere.long())
    for what in (*REDUCTIONS, "log_partition"):
        assert all((x == 0).all() for x in outcome(case, what))
    tags, score = crf.best(emissions, nowhere)
    assert (tags == -1).all()
    assert tags.shape == shape
    assert score.tolist() == [0.0] * shape[0]
    assert crf.decode(emissions, nowhere) == [[]] * shape[0]
    assert (crf.marginals(emissions, nowhere) == 0).all()
    rows = range(shape[0])
    found = crf.path_marginals(emissions, nowhere, rows, [0] * shape[0], [[]] * shape[0])
    assert found.tolist() == [1.0] * shape[0]

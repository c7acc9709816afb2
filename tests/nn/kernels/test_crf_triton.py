"""The CRF's Triton kernels against plain PyTorch: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.nn import crf_likelihood, crf_search
from seqlab.nn.crf import CRF
from seqlab.nn.crf_kernels import Scores
from seqlab.nn.kernels import crf_triton
from seqlab.nn.kernels.crf_triton import layout, likelihood, supports, viterbi

ROOT = Path(__file__).resolve().parents[3]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WHY_NOT = ""
if find_spec("triton") is None:
    WHY_NOT = "Triton is not installed: it comes with the CUDA build of torch"
elif DEVICE == "cpu" and tuple(map(int, version("triton").split(".")[:2])) < (3, 7):
    WHY_NOT = "the interpreter of Triton before 3.7 does not work with today's numpy"
elif DEVICE == "cpu" and "triton" in sys.modules and "TRITON_INTERPRET" not in os.environ:
    WHY_NOT = "Triton was imported before TRITON_INTERPRET=1 was set: run this file alone"
elif DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # must be there before Triton is imported
runs_triton = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
compiles = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
# Of NaN, which is meant here, numpy warns, with which the interpreter computes.
of_no_number = pytest.mark.filterwarnings("ignore:(invalid value|All-NaN):RuntimeWarning")

Inputs = tuple[Tensor, Tensor, Scores]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared with is plain PyTorch."""
    torch.manual_seed(0)
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")


def drawn(
    lengths: list[int], size: int, time: int | None = None, scale: float = 1.0, grammar: float = 0.0
) -> Inputs:
    """Emissions, lengths and scores; of which the grammar, a share, is forbidden."""
    time = max(lengths) if time is None else time
    scores = [torch.randn(size), torch.randn(size, size), torch.randn(size)]
    for score in scores:
        forbidden = torch.rand(score.shape) < grammar
        forbidden[..., 0] = False  # tag 0 may always come
        score.masked_fill_(forbidden, -torch.inf)
    emissions = torch.randn(len(lengths), time, size) * scale
    return (
        emissions.to(DEVICE),
        torch.tensor(lengths, device=DEVICE),
        Scores(*(score.to(DEVICE) for score in scores)),
    )


def legal(inputs: Inputs) -> Tensor:
    """Tags that the grammar allows, and that are not those of the highest score."""
    emissions, lengths, scores = inputs
    return crf_search.viterbi(torch.randn_like(emissions), lengths, scores)[0].clamp(min=0)


def outcome(function: Any, inputs: Inputs, tags: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    """Value, and gradients of emissions, start, transitions and end."""
    emissions, lengths, scores = inputs
    own = [x.detach().to(dtype).requires_grad_() for x in (emissions, *scores)]
    value = function(own[0], lengths, Scores(*own[1:]), tags)
    assert value.dtype == torch.float64
    weights = torch.linspace(-1.0, 2.0, len(value), dtype=value.dtype, device=value.device)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), own)]


def check(inputs: Inputs, tags: Tensor | None, close: float = 1e-5) -> None:
    """Hold the kernels to plain PyTorch in float64."""
    found = outcome(likelihood, inputs, tags, torch.float32)
    expected = outcome(crf_likelihood._likelihood, inputs, tags, torch.float64)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=close, atol=close, equal_nan=True)


@runs_triton
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("grammar", [0.0, 0.5])
@pytest.mark.parametrize(
    ("lengths", "size"),
    [([3, 0, 7, 1], 5), ([1], 1), ([2, 9], 16), ([18, 33], 17), ([4, 9], 75), ([3, 2], 130)],
)
def test_value_and_gradients_are_those_of_plain_pytorch(
    lengths: list[int], size: int, grammar: float, labelled: bool
) -> None:
    inputs = drawn(lengths, size, grammar=grammar)
    check(inputs, legal(inputs) if labelled else None)


@runs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "scale"),
    [*product((2, 32, 33, 65, 128, 129), (1.0, 300.0)), (300, 1.0), (512, 1.0)],
)
def test_every_layout(size: int, scale: float) -> None:
    inputs = drawn([4, 1, 0], size, scale=scale, grammar=0.3)
    check(inputs, legal(inputs) if scale == 1.0 else None)


@runs_triton
@pytest.mark.slow
@pytest.mark.parametrize("draw", range(12))
def test_any_lengths_and_grammar(draw: int) -> None:
    torch.manual_seed(draw)
    lengths = torch.randint(0, 30, (4,)).tolist()
    size, scale = int(torch.randint(1, 40, ())), 10.0 ** float(torch.rand(()) * 4)
    inputs = drawn(lengths, size, max(lengths) + 2, scale, grammar=float(torch.rand(())))
    check(inputs, legal(inputs) if draw % 2 else None)
    check_best(inputs)


@runs_triton
@pytest.mark.parametrize("scale", [20.0, 1e3, 1e4])
@pytest.mark.parametrize("size", [5, 17])
def test_large_scores_keep_value_and_gradient(size: int, scale: float) -> None:
    inputs = drawn([12, 20], size, scale=scale)
    check(inputs, legal(inputs))
    check(inputs, None)


def doubtful(value: Tensor) -> list[int]:
    """Which sentences were redone in logarithms."""
    saved: Any = value.grad_fn
    return [int(flag) for flag in saved.saved_tensors[-1]]


@runs_triton
def test_only_sentences_that_underflow_are_redone() -> None:
    emissions, lengths, scores = drawn([20] * 5, 5, grammar=0.4)
    emissions[[1, 3]] *= 1e4
    inputs = (emissions, lengths, scores)
    value = likelihood(emissions.requires_grad_(), lengths, scores, None)
    assert doubtful(value) == [0, 1, 0, 1, 0]
    check(inputs, legal(inputs))


@runs_triton
def test_a_path_lost_to_underflow_is_noticed() -> None:
    # Both tags are cut off from each other. Tag 1 falls behind by 200 nats and then catches up.
    emissions = torch.zeros(1, 40, 2)
    emissions[0, :20, 0] = emissions[0, 20:, 1] = 10.0
    emissions[0, -1, 1] = 11.0
    apart = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    scores = Scores(*(x.to(DEVICE) for x in (torch.zeros(2), apart, torch.zeros(2))))
    emissions = emissions.to(DEVICE).requires_grad_()
    value = likelihood(emissions, torch.tensor([40], device=DEVICE), scores, None)
    assert value.tolist() == pytest.approx([-201.313262])
    (gradient,) = torch.autograd.grad(value.sum(), emissions)
    expected = torch.tensor([200.0, 201.0]).softmax(0)
    torch.testing.assert_close(-gradient[0, 7].cpu(), expected)


@runs_triton
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_padding_may_hold_anything(junk: float) -> None:
    emissions, lengths, scores = drawn([3, 0, 6], 5, time=8)
    padding = torch.arange(8, device=DEVICE) >= lengths.unsqueeze(1)  # (batch, time)
    tags = torch.randint(5, (3, 8), device=DEVICE)
    clean = outcome(likelihood, (emissions, lengths, scores), tags, torch.float32)
    best = viterbi(emissions, lengths, scores)
    dirty = emissions.masked_fill(padding.unsqueeze(-1), junk)
    tags = tags.masked_fill(padding, -100)
    for one, other in zip(
        clean, outcome(likelihood, (dirty, lengths, scores), tags, torch.float32), strict=True
    ):
        assert torch.equal(one, other)
    for one, other in zip(best, viterbi(dirty, lengths, scores), strict=True):
        assert torch.equal(one, other)


@runs_triton
@of_no_number
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 2, 5])
def test_emissions_that_are_no_numbers_spoil_their_own_sentence(place: int, wrong: float) -> None:
    emissions, lengths, scores = drawn([6, 6, 6], 5, grammar=0.3)
    tags = legal((emissions, lengths, scores))
    clean = outcome(likelihood, (emissions, lengths, scores), tags, torch.float32)
    best = viterbi(emissions, lengths, scores)
    emissions[1, place, 4] = wrong
    spoilt = outcome(likelihood, (emissions, lengths, scores), tags, torch.float32)
    assert spoilt[0].isnan().tolist() == [False, True, False]
    assert spoilt[1][1].isnan().any()
    for row in (0, 2):
        assert torch.equal(spoilt[0][row], clean[0][row])
        assert torch.equal(spoilt[1][row], clean[1][row])
    found, score = viterbi(emissions, lengths, scores)
    assert score.isnan().tolist() == [False, True, False]
    assert torch.equal(found[[0, 2]], best[0][[0, 2]])
    assert bool(((found >= 0) & (found < 5)).all())


@runs_triton
@of_no_number
@pytest.mark.parametrize("which", ["start", "transitions", "end"])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_are_seen(which: str, wrong: float) -> None:
    emissions, lengths, scores = drawn([4, 2], 3)
    getattr(scores, which).view(-1)[1] = wrong
    assert likelihood(emissions, lengths, scores, None).isnan().all()
    assert viterbi(emissions, lengths, scores)[1].isnan().all()


@runs_triton
@of_no_number
def test_impossible_sentences_have_the_value_and_gradient_of_plain_pytorch() -> None:
    emissions, lengths, scores = drawn([4, 3, 1], 2)
    zigzag = torch.tensor([[-torch.inf, 0.3], [0.2, -torch.inf]], device=DEVICE)  # 0 1 0 1 ...
    border = torch.tensor([0.0, -torch.inf], device=DEVICE)
    inputs = (emissions, lengths, Scores(border, zigzag, border.flip(0)))
    assert likelihood(*inputs, None).isinf().tolist() == [False, True, True]
    check(inputs, None)
    check(inputs, torch.tensor([[0, 1, 0, 1]] * 3, device=DEVICE))
    check(inputs, torch.zeros(3, 4, dtype=torch.int64, device=DEVICE))
    assert viterbi(*inputs)[1].isinf().tolist() == [False, True, True]


@runs_triton
def test_impossible_emissions_have_no_share() -> None:
    emissions, lengths, scores = drawn([4, 5], 3)
    emissions[0, :, 1] = emissions[1, 2, [0, 2]] = -torch.inf
    inputs = (emissions, lengths, scores)
    check(inputs, legal(inputs))
    found, _ = viterbi(*inputs)
    assert 1 not in found[0].tolist()
    assert int(found[1, 2]) == 1


@runs_triton
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_programs_may_own_several_sentences(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crf_triton, "PARTS", parts)
    inputs = drawn([40, 3, 5, 0, 7], 6)
    check(inputs, legal(inputs))


@runs_triton
@pytest.mark.parametrize("size", [5, 17, 130])
def test_results_repeat_bit_for_bit(size: int) -> None:
    inputs = drawn([9, 4], size)
    inputs[0][1] *= 1e4
    tags = legal(inputs)
    once = outcome(likelihood, inputs, tags, torch.float32)
    for one, other in zip(once, outcome(likelihood, inputs, tags, torch.float32), strict=True):
        assert torch.equal(one, other)


@runs_triton
def test_backward_runs_twice_on_a_retained_graph() -> None:
    emissions, lengths, scores = drawn([6, 4], 4)
    emissions[1] *= 1e4
    own = [x.requires_grad_() for x in (emissions, *scores)]
    value = likelihood(own[0], lengths, Scores(*own[1:]), None).sum()
    once = torch.autograd.grad(value, own, retain_graph=True)
    for one, other in zip(once, torch.autograd.grad(value, own), strict=True):
        assert torch.equal(one, other)


@runs_triton
def test_gradient_reaches_only_what_needs_it() -> None:
    emissions, lengths, scores = drawn([6, 4], 4)
    scores.start.requires_grad_()
    likelihood(emissions, lengths, scores, None).sum().backward()
    assert scores.start.grad is not None
    assert emissions.grad is None
    assert scores.transitions.grad is None


def check_best(inputs: Inputs) -> None:
    """Hold Viterbi to plain PyTorch: the same tags, the same scores."""
    tags, score = viterbi(*inputs)
    expected, best = crf_search.viterbi(*inputs)
    assert torch.equal(tags, expected)
    assert tags.dtype == expected.dtype
    torch.testing.assert_close(score, best)


@runs_triton
@pytest.mark.parametrize("grammar", [0.0, 0.5])
@pytest.mark.parametrize(
    ("lengths", "size"),
    [([3, 0, 7, 1], 5), ([1], 1), ([70, 9], 17), ([4, 9], 75), ([4, 2, 18], 130)],
)
def test_best_sequences_are_those_of_plain_pytorch(
    lengths: list[int], size: int, grammar: float
) -> None:
    check_best(drawn(lengths, size, max(lengths) + 1, grammar=grammar))


@runs_triton
@pytest.mark.parametrize("size", [3, 17, 130])
def test_of_equal_sequences_the_same_one_is_taken(size: int) -> None:
    emissions, lengths, scores = drawn([40, 17, 6], size)
    check_best((emissions.round(), lengths, Scores(*(score.round() for score in scores))))
    nothing = Scores(*(torch.zeros_like(score) for score in scores))
    assert viterbi(torch.zeros_like(emissions), lengths, nothing)[0].max() == 0
    check_best((emissions.bfloat16().float(), lengths, nothing))


@runs_triton
@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 31, 64, 128, 129, 300, 512])
def test_best_sequences_in_every_layout(size: int) -> None:
    check_best(drawn([5, 1, 18], size, grammar=0.3))


@runs_triton
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_crf_gives_the_same_with_either_kernels(
    batch_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    crf = CRF(5, batch_first).to(DEVICE)
    emissions = torch.randn(3, 6, 5, device=DEVICE)
    mask = torch.rand(3, 6, device=DEVICE) < 0.7
    tags = torch.randint(-1, 5, (3, 6), device=DEVICE)  # some of them unknown
    mask[0], tags[0] = False, 0
    calls: list[str] = []

    def spied(name: str) -> None:
        function = getattr(crf_triton, name)
        monkeypatch.setattr(crf_triton, name, lambda *a: (calls.append(name), function(*a))[1])

    spied("likelihood")
    spied("viterbi")
    found = []
    for kernels in ("triton", "plain"):
        monkeypatch.setenv("SEQLAB_KERNELS", kernels)
        crf.zero_grad()
        own = emissions if batch_first else emissions.transpose(0, 1)
        others = [x if batch_first else x.t() for x in (tags, mask)]
        values = crf(own, *others, reduction="none")
        assert values.dtype == torch.float32
        values.sum().backward()
        free = crf.log_partition(own, others[1]).detach()
        gradients = [p.grad for p in crf.parameters() if p.grad is not None]
        found.append(([values.detach(), free, *gradients], crf.decode(own, others[1])))
        assert calls == ["likelihood", "likelihood", "likelihood", "viterbi"]
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert found[0][1] == found[1][1]


@runs_triton
@pytest.mark.parametrize(("size", "dtype"), [(513, torch.float32), (4, torch.float64)])
def test_what_is_not_computed_goes_to_plain_pytorch(
    size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "triton")
    for name in ("likelihood", "viterbi"):
        monkeypatch.setattr(crf_triton, name, lambda *_: pytest.fail("Triton was used"))
    crf = CRF(size, batch_first=True).to(DEVICE, dtype)
    emissions = torch.zeros(1, 2, size, device=DEVICE, dtype=dtype)
    assert len(crf.decode(emissions)[0]) == 2
    assert crf(emissions, torch.zeros(1, 2, device=DEVICE)).isfinite()


def test_what_is_not_computed_is_said() -> None:
    def scores(size: int, dtype: torch.dtype) -> Scores:
        shapes = ((size,), (size, size), (size,))
        return Scores(*(torch.zeros(shape, dtype=dtype) for shape in shapes))

    assert supports(torch.zeros(1, 2, 512), scores(512, torch.float32))
    assert not supports(torch.zeros(1, 2, 513), scores(513, torch.float32))
    assert not supports(torch.zeros(1, 2, 3).double(), scores(3, torch.float64))
    assert not supports(torch.zeros(0, 2, 3), scores(3, torch.float32))
    assert not supports(torch.zeros(1, 0, 3), scores(3, torch.float32))


def test_every_number_of_tags_has_a_layout_that_fits() -> None:
    for tags in range(1, 513):
        padded, block, chunk, warps = layout(tags)
        assert padded >= max(tags, 16)
        assert padded & (padded - 1) == 0
        assert 1 <= chunk <= block <= padded
        assert (block == padded) == (tags <= 128)
        # Registers hold a tile of transitions, and a chunk of positions.
        assert padded * block <= 64 * 32 * warps  # twice, for both directions
        assert padded * chunk == 8 * 32 * warps


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_for_a_gpu_that_is_not_here(architecture: int) -> None:
    script = Path(__file__).with_name("compiled_crf.py")
    settings = {"TRITON_INTERPRET": "0", "ARCHITECTURE": str(architecture)}
    settings |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 28
    for line in lines:
        found = re.fullmatch(
            r"(\w+) (\d+) \w+: (\d+) registers, (\d+) spilt, (\d+) shared, (\d+) barriers", line
        )
        assert found, line
        spilt, shared, barriers = (int(number) for number in found.groups()[3:])
        assert spilt == 0 or found[1] in ("pairs_kernel", "logs_kernel"), line
        assert shared <= 48 << 10, line
        assert barriers > 0, line

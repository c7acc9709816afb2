"""Attention against plain loops over sentences, queries and tokens, in Python's own numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqlab.errors import RecipeError
from seqlab.nn import attention_kinds
from seqlab.nn.attention import Attention, Memory, coverage_loss, make_attention

KINDS: list[dict[str, Any]] = [
    {"kind": "dot"},
    {"kind": "general"},
    {"kind": "additive"},
    {"kind": "multi-head", "heads": 1},
    {"kind": "multi-head", "heads": 2},
    {"kind": "local", "window": 2},
    {"kind": "local", "window": 30},
]
CASES = KINDS + [case | {"coverage": True} for case in KINDS]
LENGTHS = [4, 1, 6, 2]
QUERIES = 3
QUERY, MEMORY, OUTPUT = 5, 3, 4
Vector = list[float]


def attention(
    kind: str, *, heads: int | None = None, window: int | None = None, coverage: bool = False
) -> Attention:
    torch.manual_seed(0)
    memory_size = QUERY if kind == "dot" else MEMORY
    options: dict[str, Any] = {"heads": heads, "window": window, "coverage": coverage}
    made = make_attention(kind, QUERY, memory_size, OUTPUT, **options).double()
    for weight in made.parameters():  # none of them zero, so that each has a say
        nn.init.normal_(weight)
    return made


def states_of(layer: Attention, spare: int = 0, filler: float = 9.0) -> Tensor:
    torch.manual_seed(1)
    size = (len(LENGTHS), max(LENGTHS) + spare, layer.memory_size)
    states = torch.full(size, filler, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        states[row, :length] = torch.randn(length, layer.memory_size, dtype=torch.float64)
    return states


def queries() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(len(LENGTHS), QUERIES, QUERY, dtype=torch.float64)


def coverage_of(layer: Attention, spare: int = 0, filler: float = 0.0) -> Tensor | None:
    if layer.coverage is None:
        return None
    torch.manual_seed(3)
    size = (len(LENGTHS), QUERIES, max(LENGTHS) + spare)
    seen = torch.full(size, filler, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        seen[row, :, :length] = torch.rand(QUERIES, length, dtype=torch.float64)
    return seen


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(matrix: list[Vector], x: Vector) -> Vector:
    return [dot(row, x) for row in matrix]


def softmax(scores: Vector) -> Vector:
    top = max(scores)
    shares = [math.exp(score - top) for score in scores]
    return [share / sum(shares) for share in shares]


def mixed(weights: Vector, values: list[Vector]) -> Vector:
    return [dot(weights, [value[i] for value in values]) for i in range(len(values[0]))]


def weights_by_hand(
    kind: str, w: dict[str, Any], query: Vector, tokens: list[Vector], seen: Vector, window: int
) -> Vector:
    """The weights of one query over the tokens of one sentence, for kinds of one head."""
    if kind == "additive":
        asked = times(w["query.weight"], query)
        hidden = [a + b for a, b in zip(asked, w["query.bias"], strict=True)]
        once = w.get("coverage", [0.0] * QUERY)
        scores = []
        for token, past in zip(tokens, seen, strict=True):
            total = [a + b for a, b in zip(hidden, times(w["keys.weight"], token), strict=True)]
            total = [a + c * past for a, c in zip(total, once, strict=True)]
            scores.append(dot(w["score.weight"][0], [math.tanh(x) for x in total]))
        return softmax(scores)
    keys = tokens if kind == "dot" else [times(w["keys.weight"], token) for token in tokens]
    [once] = w.get("coverage", [0.0])
    scores = [dot(query, key) + once * past for key, past in zip(keys, seen, strict=True)]
    if kind == "local":
        hidden = [math.tanh(x) for x in times(w["hidden.weight"], query)]
        centre = (len(tokens) - 1) / (1 + math.exp(-dot(w["place.weight"][0], hidden)))
        near = [abs(i - centre) <= window for i in range(len(tokens))]
        bell = [
            math.exp(-((i - centre) ** 2) / (2 * (window / 2) ** 2)) for i in range(len(tokens))
        ]
        shares = [
            math.exp(score) * factor * inside
            for score, factor, inside in zip(scores, bell, near, strict=True)
        ]
        return [share / sum(shares) for share in shares]
    return softmax(scores)


def heads_by_hand(
    w: dict[str, Any], query: Vector, tokens: list[Vector], seen: Vector, heads: int
) -> tuple[Vector, Vector]:
    size = OUTPUT // heads
    [once] = w.get("coverage", [0.0])
    read: Vector = []
    mean = [0.0] * len(tokens)
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        ours = times(w["query.weight"][rows], query)
        scores = [
            dot(ours, times(w["keys.weight"][rows], token)) / math.sqrt(size) + once * past
            for token, past in zip(tokens, seen, strict=True)
        ]
        weights = softmax(scores)
        read += mixed(weights, [times(w["values.weight"][rows], token) for token in tokens])
        mean = [total + weight / heads for total, weight in zip(mean, weights, strict=True)]
    return times(w["output.weight"], read), mean


def by_hand(
    layer: Attention,
    query: Vector,
    tokens: list[Vector],
    seen: Vector,
    *,
    kind: str,
    heads: int = 0,
    window: int = 0,
    **_: Any,
) -> tuple[Vector, Vector]:
    """Context and weights of one query for one sentence."""
    w = {name: weight.tolist() for name, weight in layer.named_parameters()}
    if kind == "multi-head":
        return heads_by_hand(w, query, tokens, seen, heads)
    weights = weights_by_hand(kind, w, query, tokens, seen, window)
    return mixed(weights, [times(w["values.weight"], token) for token in tokens]), weights


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_query_reads_as_by_hand(case: dict[str, Any]) -> None:
    layer = attention(**case)
    states, query, seen = states_of(layer), queries(), coverage_of(layer)
    context, weights = layer(query, layer.memory(states, torch.tensor(LENGTHS)), seen)
    assert context.shape == (len(LENGTHS), QUERIES, OUTPUT)
    for row, length in enumerate(LENGTHS):
        for i in range(QUERIES):
            past = [0.0] * length if seen is None else seen[row, i, :length].tolist()
            tokens = states[row, :length].tolist()
            expected = by_hand(layer, query[row, i].tolist(), tokens, past, **case)
            assert context[row, i].tolist() == pytest.approx(expected[0], abs=1e-12)
            assert weights[row, i, :length].tolist() == pytest.approx(expected[1], abs=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weights_sum_to_one_over_real_tokens(case: dict[str, Any]) -> None:
    layer = attention(**case)
    memory = layer.memory(states_of(layer, spare=2), torch.tensor(LENGTHS))
    _, weights = layer(queries(), memory, coverage_of(layer, spare=2))
    assert weights.sum(-1).flatten().tolist() == pytest.approx([1.0] * weights[..., 0].numel())
    assert not weights.masked_select(~memory.mask.unsqueeze(1)).any()  # exactly


@pytest.mark.parametrize("case", CASES, ids=str)
def test_several_queries_equal_one_at_a_time(case: dict[str, Any]) -> None:
    layer = attention(**case)
    memory = layer.memory(states_of(layer), torch.tensor(LENGTHS))
    query, seen = queries(), coverage_of(layer)
    together = layer(query, memory, seen)
    for i in range(QUERIES):
        alone = layer(query[:, [i]], memory, None if seen is None else seen[:, [i]])
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[:, [i]], theirs, rtol=1e-12, atol=1e-12)


def outcome(layer: Attention, spare: int, filler: float) -> tuple[Any, ...]:
    """What comes out, and the gradients of all that went in, but those at padding."""
    layer.zero_grad()
    states = states_of(layer, spare, filler).requires_grad_()
    query = queries().requires_grad_()
    seen = coverage_of(layer, spare, filler)
    context, weights = layer(query, layer.memory(states, torch.tensor(LENGTHS)), seen)
    (context.square().sum() + weights.square().sum()).backward()
    assert states.grad is not None
    padding = torch.arange(states.shape[1]) >= torch.tensor(LENGTHS).unsqueeze(1)
    assert not states.grad[padding].any()
    found = [weight.grad for weight in layer.parameters()]
    width = max(LENGTHS)
    return context, weights[..., :width], states.grad[:, :width], query.grad, *found


@pytest.mark.parametrize("filler", [0.0, 1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_padding_changes_neither_values_nor_gradients(case: dict[str, Any], filler: float) -> None:
    layer = attention(**case)
    plain, padded = outcome(layer, 0, 9.0), outcome(layer, 3, filler)
    for ours, theirs in zip(plain, padded, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Whole(nn.Module):
    """Both steps of an attention in one."""

    def __init__(self, layer: Attention) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, query: Tensor, states: Tensor, seen: Tensor | None) -> Any:
        return self.layer(query, self.layer.memory(states, torch.tensor(LENGTHS)), seen)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_finite_differences(case: dict[str, Any]) -> None:
    layer = attention(**case)
    whole = Whole(layer)
    names = [name for name, _ in whole.named_parameters()]

    def read(query: Tensor, states: Tensor, seen: Tensor | None, *weights: Tensor) -> Any:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(whole, given, (query, states, seen))

    seen = coverage_of(layer)
    inputs = [queries(), states_of(layer), seen, *(w.detach() for w in layer.parameters())]
    inputs = [x if x is None else x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(read, inputs)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_a_beam_reads_the_memory_of_the_sentences_that_were_kept(case: dict[str, Any]) -> None:
    layer = attention(**case)
    memory = layer.memory(states_of(layer), torch.tensor(LENGTHS))
    kept = torch.tensor([2, 0, 2])
    chosen = memory.select(kept)
    assert isinstance(chosen, Memory)
    assert chosen.mask.sum(1).tolist() == [6, 4, 6]
    whole = layer(queries(), memory)
    for ours, theirs in zip(layer(queries()[kept], chosen), whole, strict=True):
        torch.testing.assert_close(ours, theirs[kept], rtol=1e-12, atol=1e-12)


def test_nothing_outside_the_window_has_weight() -> None:
    layer = attention("local", window=2)
    length = 40
    states = torch.randn(1, length, MEMORY, dtype=torch.float64)
    query = torch.randn(1, 50, QUERY, dtype=torch.float64)
    _, weights = layer(query, layer.memory(states, torch.tensor([length])))
    seen = [row.nonzero().flatten().tolist() for row in weights[0]]
    assert all(4 <= len(row) <= 5 or row[0] == 0 or row[-1] == length - 1 for row in seen)
    assert all(row == list(range(row[0], row[-1] + 1)) for row in seen)
    assert len({row[0] for row in seen}) > 5  # the window goes where the query says


@pytest.mark.parametrize("push", [-1e9, 1e9])
def test_the_window_stays_inside_of_its_own_sentence(push: float) -> None:
    layer = attention("local", window=1).float()
    nn.init.constant_(layer.get_parameter("hidden.weight"), 1.0)
    nn.init.constant_(layer.get_parameter("place.weight"), push)
    memory = layer.memory(states_of(layer).float(), torch.tensor(LENGTHS))
    _, weights = layer(torch.ones(len(LENGTHS), 1, QUERY), memory)
    for row, length in zip(weights[:, 0], LENGTHS, strict=True):
        place = length - 1 if push > 0 else 0
        near = [i for i in (place - 1, place, place + 1) if 0 <= i < length]
        assert row.nonzero().flatten().tolist() == near


@pytest.mark.parametrize("coverage", [False, True])
def test_additive_scores_are_the_same_in_groups(
    coverage: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = attention("additive", coverage=coverage)
    whole = outcome(layer, 0, 0.0)
    monkeypatch.setattr(attention_kinds, "LARGEST", 2 * len(LENGTHS) * max(LENGTHS) * QUERY)
    sizes = []
    together = attention_kinds.AdditiveAttention._together

    def seen(self: Any, query: Tensor, *rest: Any) -> Tensor:
        sizes.append(query.shape[1])
        return together(self, query, *rest)

    monkeypatch.setattr(attention_kinds.AdditiveAttention, "_together", seen)
    grouped = outcome(layer, 0, 0.0)
    assert sizes[:2] == [2, 1]  # of three queries
    assert len(sizes) == 4  # and once more each on the way back
    for ours, theirs in zip(whole, grouped, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_coverage_starts_without_effect_and_learns(case: dict[str, Any]) -> None:
    torch.manual_seed(0)
    memory_size = QUERY if case["kind"] == "dot" else MEMORY
    layer = make_attention(
        **case, query_size=QUERY, memory_size=memory_size, output_size=OUTPUT, coverage=True
    ).double()
    memory = layer.memory(states_of(layer), torch.tensor(LENGTHS))
    context, weights = layer(queries(), memory, coverage_of(layer))
    torch.testing.assert_close(weights, layer(queries(), memory)[1])
    context.square().sum().backward()
    assert layer.coverage is not None
    assert layer.coverage.grad is not None
    assert layer.coverage.grad.any()


def test_coverage_that_the_attention_cannot_see_is_refused() -> None:
    layer = attention("general")
    memory = layer.memory(states_of(layer), torch.tensor(LENGTHS))
    with pytest.raises(ValueError, match="built without coverage"):
        layer(queries(), memory, torch.zeros(len(LENGTHS), QUERIES, max(LENGTHS)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_autocast_computes_weights_in_float32(case: dict[str, Any]) -> None:
    layer = attention(**case).float()
    seen = coverage_of(layer)
    inputs = [queries().float().requires_grad_(), states_of(layer).float().requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        memory = layer.memory(inputs[1], torch.tensor(LENGTHS))
        context, weights = layer(inputs[0], memory, None if seen is None else seen.float())
    context.float().sum().backward()
    assert weights.dtype == torch.float32
    # In bfloat16 the sum of a row would be off by 1e-3 and more.
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(LENGTHS), QUERIES))
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
    memory = layer.memory(inputs[1], torch.tensor(LENGTHS))
    exact, _ = layer(inputs[0], memory, None if seen is None else seen.float())
    assert (context.float() - exact).norm() < 0.2 * exact.norm()


def test_matrices_start_as_glorot_and_bengio_say() -> None:
    torch.manual_seed(0)
    layer = make_attention("additive", 300, 200, 100)
    for name, weight in layer.named_parameters():
        bound = math.sqrt(6 / sum(weight.shape)) if weight.dim() == 2 else 0.0
        largest = float(weight.detach().abs().max())
        assert 0.9 * bound <= largest <= bound, name


def test_coverage_loss_is_the_sum_of_by_hand() -> None:
    torch.manual_seed(0)
    weights = torch.rand(3, 5, 4, dtype=torch.float64).softmax(-1)
    steps = [5, 1, 3]
    mask = torch.arange(5) < torch.tensor(steps).unsqueeze(1)
    expected = 0.0
    for row, length in enumerate(steps):
        seen = [0.0] * 4
        for t in range(length):
            now = weights[row, t].tolist()
            expected += sum(min(a, c) for a, c in zip(now, seen, strict=True))
            seen = [a + c for a, c in zip(now, seen, strict=True)]
    assert float(coverage_loss(weights, mask)) == pytest.approx(expected)
    weights[~mask] = torch.nan
    weights.requires_grad_()
    loss = coverage_loss(weights, mask)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected)
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


def test_wrong_options_are_refused_with_a_remedy() -> None:
    for kind, options, message in [
        ("genral", {}, "'genral' is none of dot, general, .* Did you mean 'general'"),
        ("dot", {}, "decoder has 5 dimensions and one of the encoder 3: .* or choose general"),
        ("multi-head", {"heads": 3}, "heads is 3, which does not divide .* size 4"),
        ("multi-head", {"heads": 0}, "model.heads is 0: it must be 1 or more"),
        ("local", {"window": 0}, "model.window is 0: it must be 1 or more"),
        ("general", {"heads": 2}, "heads is 2, but model.attention is general: choose multi-head"),
        ("general", {"window": 2}, "window is 2, but model.attention is general: choose local"),
    ]:
        with pytest.raises(RecipeError, match=message):
            make_attention(kind, QUERY, MEMORY, OUTPUT, **options)  # type: ignore[arg-type]

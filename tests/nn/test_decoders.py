"""Decoders: a known target at once and step by step, and decoders laid out for search."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.errors import RecipeError
from seqlab.nn import decoder_steps
from seqlab.nn.attention import Memory, make_attention
from seqlab.nn.decoder_steps import DecoderSteps, Kept
from seqlab.nn.decoders import Bridge, Decoder, Start, ends_of

INPUT, HIDDEN, MEMORY, BATCH, TIME, SOURCE, VOCABULARY = 5, 8, 6, 3, 4, 7, 11
LENGTHS = torch.tensor([7, 3, 1])
KINDS = ["general", "additive", "multi-head", "local"]


def made(kind: str, **options: Any) -> tuple[Decoder, Tensor, Start, Memory]:
    torch.manual_seed(0)
    layers = options.setdefault("num_layers", 1)
    attention = make_attention(
        kind,
        HIDDEN,
        HIDDEN if kind == "dot" else MEMORY,
        HIDDEN,
        heads=4 if kind == "multi-head" else None,
        window=2 if kind == "local" else None,
        coverage=options.get("coverage", False),
    )
    for parameter in attention.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)
    decoder = Decoder(INPUT, HIDDEN, attention, **options)
    states = torch.randn(BATCH, SOURCE, HIDDEN if kind == "dot" else MEMORY)
    start = Start(torch.randn(layers, BATCH, HIDDEN), torch.randn(layers, BATCH, HIDDEN))
    return decoder, torch.randn(BATCH, TIME, INPUT), start, attention.memory(states, LENGTHS)


def stepped(decoder: Decoder, x: Tensor, start: Start, memory: Memory) -> tuple[Tensor, Tensor]:
    state = decoder.begin(start, memory)
    features, weights = [], []
    for at in range(x.shape[1]):
        feature, weight, state = decoder.step(x[:, at : at + 1], state, memory)
        features.append(feature)
        weights.append(weight)
    return torch.cat(features, 1), torch.cat(weights, 1)


@pytest.mark.parametrize("kind", [*KINDS, "dot"])
@pytest.mark.parametrize("input_feeding", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("coverage", [True, False])
def test_a_known_target_is_decoded_as_step_by_step(
    kind: str, input_feeding: bool, num_layers: int, coverage: bool
) -> None:
    decoder, x, start, memory = made(
        kind, input_feeding=input_feeding, num_layers=num_layers, coverage=coverage
    )
    wanted, weights = stepped(decoder, x, start, memory)
    found = decoder(x, start, memory)
    torch.testing.assert_close(found.features, wanted, rtol=1e-5, atol=1e-6)
    asked = decoder(x, start, memory, with_attention=True)
    torch.testing.assert_close(asked.features, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(asked.attention, weights, rtol=1e-5, atol=1e-6)

    parameters = list(decoder.layers.parameters())
    ours = torch.autograd.grad(found.features.square().sum(), parameters, retain_graph=True)
    theirs = torch.autograd.grad(wanted.square().sum(), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_input_feeding_hands_on_what_the_step_before_gave() -> None:
    decoder, x, start, memory = made("general")
    torch.manual_seed(1)
    state = decoder.begin(start, memory)
    assert (state.feature == 0).all()
    feature, _, after = decoder.step(x[:, :1], state, memory)
    assert torch.equal(after.feature, feature)
    changed = after.__class__(after.hidden, after.cell, after.feature + 1, after.coverage)
    one, _, _ = decoder.step(x[:, 1:2], after, memory)
    other, _, _ = decoder.step(x[:, 1:2], changed, memory)
    assert not torch.allclose(one, other)


def test_coverage_adds_up_the_attention() -> None:
    decoder, x, start, memory = made("general", coverage=True)
    state = decoder.begin(start, memory)
    total = torch.zeros(BATCH, 1, SOURCE)
    for at in range(TIME):
        assert state.coverage is not None
        torch.testing.assert_close(state.coverage, total)
        _, weights, state = decoder.step(x[:, at : at + 1], state, memory)
        total = total + weights


def test_dropout_is_drawn_while_training_alone() -> None:
    decoder, x, start, memory = made("general", dropout=0.5, num_layers=2)
    assert not torch.equal(decoder(x, start, memory).features, decoder(x, start, memory).features)
    decoder.eval()
    assert torch.equal(decoder(x, start, memory).features, decoder(x, start, memory).features)


def test_hypotheses_are_selected_with_all_that_belongs_to_them() -> None:
    decoder, _, start, memory = made("general", coverage=True)
    two = decoder.begin(start, memory).select(
        torch.arange(BATCH), torch.zeros(BATCH, 2, dtype=torch.long)
    )
    _, _, state = decoder.step(torch.randn(BATCH, 2, INPUT), two, memory)
    picked = state.select(torch.tensor([2, 0]), torch.tensor([[1, 1, 0], [0, 1, 1]]))
    for row, (sentence, hypotheses) in enumerate([(2, [1, 1, 0]), (0, [0, 1, 1])]):
        for at, old in enumerate(hypotheses):
            assert torch.equal(picked.hidden[:, row, at], state.hidden[:, sentence, old])
            assert torch.equal(picked.cell[:, row, at], state.cell[:, sentence, old])
            assert torch.equal(picked.feature[row, at], state.feature[sentence, old])
            assert picked.coverage is not None
            assert state.coverage is not None
            assert torch.equal(picked.coverage[row, at], state.coverage[sentence, old])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 3}, {"input_feeding": False}])
@pytest.mark.parametrize("projected", [True, False])
@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("kernels", ["covered", "plain", "auto"])
def test_steps_laid_out_for_search_are_those_of_the_decoder(
    kind: str,
    options: dict[str, Any],
    projected: bool,
    table: bool,
    kernels: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder_steps, "_SHARE", 1000 if table else 0)
    if kernels != "covered":
        monkeypatch.setenv("SEQLAB_KERNELS", kernels)
    decoder, _, start, memory = made(kind, coverage=kernels == "covered", **options)
    decoder.eval()
    embeddings, bias = torch.randn(VOCABULARY, INPUT), torch.randn(VOCABULARY)
    project = torch.randn(INPUT, HIDDEN) if projected else None
    output = torch.randn(VOCABULARY, INPUT if projected else HIDDEN)
    with torch.no_grad():
        steps = DecoderSteps(decoder, embeddings, 1.5, project, output, bias, rows=2, rounded=False)
        state = decoder.begin(start, memory).select(
            torch.arange(BATCH), torch.zeros(BATCH, 2, dtype=torch.long)
        )
        other = state
        memory = steps.memory(memory)
        for _ in range(3):
            tokens = torch.randint(VOCABULARY, (BATCH, 2))
            logits, _, weights, state = steps(tokens, state, memory)
            feature, wanted, other = decoder.step(1.5 * embeddings[tokens], other, memory)
            narrow = feature if project is None else feature @ project.t()
            torch.testing.assert_close(logits, narrow @ output.t() + bias, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(weights, wanted, rtol=1e-4, atol=1e-5)
            for name in ("hidden", "cell", "feature", "coverage"):
                mine, theirs = getattr(state, name), getattr(other, name)
                if theirs is None:
                    assert mine is None
                    continue
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_steps_are_laid_out_anew_when_a_weight_has_changed() -> None:
    made_for: list[int] = []

    def make(rows: int) -> Any:
        made_for.append(rows)
        return object()

    kept = Kept()
    first = kept.get(5, False, (1, 0), make)
    assert kept.get(6, False, (1, 0), make) is first
    assert kept.get(5, False, (1, 1), make) is not first
    kept.get(320, False, (1, 1), make)
    kept.get(5, True, (1, 1), make)
    assert made_for == [8, 8, 256, 8]


def test_bridges() -> None:
    torch.manual_seed(0)
    ends = torch.randn(BATCH, HIDDEN)
    linear = Bridge("linear", HIDDEN, 4, 2)
    start = linear(ends)
    assert linear.map is not None
    parts = torch.tanh(linear.map(ends)).split(4, 1)
    for level in range(2):
        torch.testing.assert_close(start.hidden[level], parts[level])
        torch.testing.assert_close(start.cell[level], parts[2 + level])
    copied = Bridge("copy", HIDDEN, HIDDEN, 3)(ends)
    assert all(torch.equal(x, ends) for part in copied for x in part)
    zero = Bridge("zero", HIDDEN, 4, 2)(ends)
    assert zero.hidden.shape == zero.cell.shape == (2, BATCH, 4)
    assert not zero.hidden.any()
    assert not zero.cell.any()


def test_a_bridge_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"set model\.decoder_size to 6, or use linear"):
        Bridge("copy", 6, 8, 1)
    with pytest.raises(RecipeError, match=r"choose one of linear, copy, zero.*Did you mean 'zero'"):
        Bridge("zeros", 6, 8, 1)


def test_ends_are_the_last_state_forwards_and_the_first_backwards() -> None:
    states = torch.arange(2 * 3 * 4.0).view(2, 3, 4)
    lengths = torch.tensor([3, 1])
    assert ends_of(states, lengths, 2).tolist() == [[8, 9, 2, 3], [12, 13, 14, 15]]
    assert ends_of(states, lengths, 4).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert ends_of(states, lengths, None).tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]

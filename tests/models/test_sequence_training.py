"""Training on own words: scheduled sampling, and losses of whole translations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from seqlab.errors import RecipeError
from seqlab.models.sequence_training import (
    REWARDS,
    SequenceTraining,
    fed_own_words,
    sampling_share,
)
from seqlab.models.translator import Translator
from seqlab.pairs import PairBatch
from tests.models.test_translator import BEGIN, PAIRS, SMALL, WAYS, batch_of, letters, made


@torch.no_grad()
def features_of(model: Translator, batch: PairBatch, words: torch.Tensor) -> torch.Tensor:
    """Decode with given words before each step."""
    memory, start = model.encode(batch)
    x = model.embed(model.target_embedding, words)
    return model.decoder(x, start, memory).features


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_without_own_words_the_right_ones_are_read(way: str) -> None:
    model = made(**WAYS[way])
    batch = batch_of(PAIRS)
    assert batch.target is not None
    memory, start = model.encode(batch)
    features, attention = fed_own_words(model, batch, memory, start, 0.0)
    wanted = features_of(model, batch, model.before(batch.target))
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)
    assert attention.shape == (len(batch), batch.target.shape[1], batch.source.shape[1])


@torch.no_grad()
def test_with_own_words_alone_the_best_one_of_each_step_is_read() -> None:
    model = made()
    batch = batch_of(PAIRS)
    assert batch.target is not None
    memory, start = model.encode(batch)
    features, _ = fed_own_words(model, batch, memory, start, 1.0)
    words = torch.full((len(batch), 1), BEGIN)
    for _ in range(batch.target.shape[1] - 1):
        last = features_of(model, batch, words)[:, -1:]
        best = model.log_probabilities(last, None, batch.source).argmax(-1)
        words = torch.cat([words, best], 1)
    wanted = features_of(model, batch, words)
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)


def test_scheduled_sampling_is_for_training_and_grows() -> None:
    model = made(scheduled_sampling=0.4, scheduled_sampling_steps=10)
    assert sampling_share(model) == 0.0  # at step 0
    model.scheduled_sampling_steps = 0
    assert sampling_share(model) == 0.4
    model.eval()
    assert sampling_share(model) == 0.0


@pytest.mark.parametrize("name", ["minimum_risk", "self_critical"])
@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("way", ["plain", "heads, copying", "no feeding"])
def test_a_loss_of_whole_translations_has_gradients(name: str, reward: str, way: str) -> None:
    model = made(**WAYS[way], sequence_loss=name, sequence_reward=reward, likelihood_share=0.5)
    torch.manual_seed(0)
    loss = model.loss(batch_of(PAIRS))
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.training


@pytest.mark.parametrize("name", ["minimum_risk", "self_critical"])
def test_translations_become_worth_more(name: str) -> None:
    """A model that knows nothing learns by trial alone to say the one word that is right."""
    model = made(sequence_loss=name, sequence_reward="chrf", sequence_smoothness=1.0)
    batch = batch_of([(text, "c c c") for text, _ in PAIRS])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    options = replace(model.searching, method="sample", n_best=20)

    def worth() -> float:
        model.eval()
        found = model.translate(batch, options, numbers=range(len(batch)))
        texts = model.target_vocab.decode([h.ids for some in found for h in some])
        scores = REWARDS["chrf"](texts, ["c c c"] * len(texts))
        return sum(scores) / len(scores)

    before = worth()
    model.train()
    torch.manual_seed(0)
    for _ in range(25):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()
    assert worth() > before + 0.1


def test_epochs_of_likelihood_come_first() -> None:
    model = made(sequence_loss="minimum_risk", sequence_after=1)
    batch = batch_of(PAIRS)
    assert model.current_epoch == 0
    assert torch.equal(model.loss(batch), model.likelihood_loss(batch))


def test_numbers_out_of_range_are_refused() -> None:
    good: dict[str, Any] = {
        "name": "minimum_risk",
        "after": 0,
        "candidates": 4,
        "reward": "bleu",
        "smoothness": 0.005,
        "likelihood_share": 0.0,
    }
    SequenceTraining(**good)
    for name, value in (("after", -1), ("candidates", 1), ("smoothness", 0.0)):
        with pytest.raises(RecipeError, match=f"model.sequence_{name} is"):
            SequenceTraining(**{**good, name: value})
    with pytest.raises(RecipeError, match=r"model\.likelihood_share is 1\.0"):
        SequenceTraining(**{**good, "likelihood_share": 1.0})
    for key in ("sequence_loss", "sequence_reward", "tie"):
        with pytest.raises(RecipeError, match=f"model.{key} is 'nothing'"):
            Translator(letters(), letters(), **{**SMALL, key: "nothing"})
    for key, value in (("sequence_after", 2), ("scheduled_sampling_steps", 9)):
        with pytest.raises(
            RecipeError, match=f"model.{key} is {value}, but model.s.*: switch that"
        ):
            Translator(letters(), letters(), **{**SMALL, key: value})


@pytest.mark.parametrize("name", ["minimum_risk", "self_critical"])
@pytest.mark.parametrize("way", WAYS)
def test_a_loss_of_sentences_leaves_no_parameter_without_a_gradient(way: str, name: str) -> None:
    model = made(**WAYS[way], sequence_loss=name, sequence_after=0, sequence_candidates=2).train()
    model.loss(batch_of([("a", "b")])).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

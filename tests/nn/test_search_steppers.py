"""Ensembles and parts of batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqlab.errors import UsageError
from seqlab.nn.search_steppers import Ensemble, Part, Step


class Constant:
    """Always says the same; its state is the history of every hypothesis."""

    def __init__(
        self, chances: list[float], attention: list[float] | None = None, sentences: int = 2
    ) -> None:
        self.chances, self.attention, self.sentences = chances, attention, sentences
        self.size = len(chances)

    def begin(self) -> Tensor:
        return torch.arange(self.sentences).view(-1, 1, 1)

    def step(self, tokens: Tensor, state: Tensor) -> Step:
        weights = None
        if self.attention is not None:
            weights = torch.tensor(self.attention).expand(*tokens.shape, -1)
        logits = torch.tensor(self.chances).log().expand(*tokens.shape, -1) + 3.0
        return Step(logits, weights, torch.cat([state, tokens.unsqueeze(2)], 2))

    def select(self, state: Tensor, sentences: Tensor, hypotheses: Tensor) -> Tensor:
        place = hypotheses.unsqueeze(2).expand(-1, -1, state.shape[2])
        return state[sentences].gather(1, place)


def test_an_ensemble_gives_mean_probabilities_and_attention() -> None:
    both = Ensemble(
        [
            Constant([0.2, 0.8, 0.0], [1.0, 0.0]),
            Constant([0.6, 0.4, 0.0], [0.5, 0.5]),
            Constant([0.1, 0.9, 0.0]),
        ]
    )
    step = both.step(torch.zeros(2, 1, dtype=torch.int64), both.begin())
    torch.testing.assert_close(step.logits.exp(), torch.tensor([0.3, 0.7, 0.0]).expand(2, 1, -1))
    torch.testing.assert_close(step.attention, torch.tensor([0.75, 0.25]).expand(2, 1, -1))


def test_an_ensemble_without_attention_has_none() -> None:
    both = Ensemble([Constant([0.5, 0.5]), Constant([0.1, 0.9])])
    assert both.step(torch.zeros(2, 1, dtype=torch.int64), both.begin()).attention is None


def test_an_ensemble_chooses_in_all_of_its_states() -> None:
    both = Ensemble([Constant([0.5, 0.5]), Constant([0.1, 0.9])])
    state = both.step(torch.tensor([[7], [8]]), both.begin()).state
    state = both.select(state, torch.tensor([1]), torch.tensor([[0, 0]]))
    assert [part.tolist() for part in state] == [[[[1, 8], [1, 8]]]] * 2


@pytest.mark.parametrize("sizes", [[], [2, 3]], ids=str)
def test_models_of_different_vocabularies_are_no_ensemble(sizes: list[int]) -> None:
    with pytest.raises(UsageError) as error:
        Ensemble([Constant([1.0] * size) for size in sizes])
    assert str(error.value) == (
        f"An ensemble's models need one vocabulary, but theirs have {sizes} tokens: choose models "
        f"that were trained with the same one."
    )


def test_a_part_begins_with_the_sentences_that_are_wanted() -> None:
    part = Part(Constant([0.5, 0.5], sentences=5), torch.tensor([1, 4]))
    assert part.begin().flatten().tolist() == [1, 4]

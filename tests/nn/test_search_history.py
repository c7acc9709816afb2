"""Back-pointers and the outputs that are kept."""

from __future__ import annotations

import torch

from seqlab.nn.search_history import Finished, History


def test_a_hypothesis_is_traced_through_parents_and_leaving_sentences() -> None:
    history = History(3)
    first = torch.tensor([[4, 5], [6, 7], [8, 9]])
    history.record(first, torch.zeros_like(first), None)
    history.select([0, 2])
    history.record(torch.tensor([[10, 11], [12, 13]]), torch.tensor([[1, 1], [1, 0]]), None)
    history.select([2])
    history.record(torch.tensor([[14, 15]]), torch.tensor([[1, 0]]), None)
    assert [step[0] for step in history.trace(2, 3, 0)] == [8, 13, 14]
    assert [step[0] for step in history.trace(2, 3, 1)] == [9, 12, 15]
    assert [step[0] for step in history.trace(0, 2, 0)] == [5, 10]
    assert [step[0] for step in history.trace(1, 1, 1)] == [7]
    assert history.trace(1, 0, 0) == []


def test_the_best_outputs_are_kept_and_of_equals_the_earliest() -> None:
    kept = Finished(3, n_best=2, width=2, like=torch.zeros(1))
    none = -torch.inf
    rows = torch.tensor([0, 2])
    kept.add(rows, torch.tensor([[-2.0, none], [-1.0, -3.0]]), torch.full((2, 2), -9.0), 4)
    kept.add(rows, torch.tensor([[-2.0, -1.0], [none, -2.0]]), torch.full((2, 2), -8.0), 5)
    assert kept.results() == [
        [(-1.0, -8.0, 5, 1), (-2.0, -9.0, 4, 0)],
        [],
        [(-1.0, -9.0, 4, 0), (-2.0, -8.0, 5, 1)],
    ]
    assert kept.counts.tolist() == [3, 0, 3]
    kept.add(torch.tensor([1]), torch.tensor([[none, -5.0]]), torch.tensor([[-5.0, -5.0]]), 0)
    assert kept.results()[1] == [(-5.0, -5.0, 0, 1)]

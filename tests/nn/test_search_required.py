"""Progress in required phrases, and shares of the beam."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from seqlab.nn.search_required import Required, missing_phrases, needed_phrases

CPU = torch.device("cpu")
phrase = st.lists(st.sampled_from([4, 5]), min_size=1, max_size=4)


def required(phrases: list[list[list[int]]], limit: int = 9) -> Required:
    limits = torch.tensor([limit] * len(phrases))
    return Required(phrases, limits, [0] * len(phrases), 0, CPU)


def read(some: Required, ids: list[list[int]]) -> None:
    """Let the only hypothesis of each sentence go its way, without enforcing anything."""
    for tokens in zip(*ids, strict=True):
        some.progress = some._after(some.progress, torch.tensor(tokens).unsqueeze(1))


@given(phrase, st.lists(st.sampled_from([4, 5, 6]), max_size=9))
def test_a_phrase_counts_wherever_it_stands(wanted: list[int], ids: list[int]) -> None:
    some = required([[wanted]])
    read(some, [ids])
    assert some.met().item() == (missing_phrases(ids, [wanted]) == ())
    matched = max(n for n in range(len(wanted) + 1) if ids[len(ids) - n :] == wanted[:n])
    assert some.met().item() or some.progress.item() == matched


def test_each_sentence_has_its_own_phrases() -> None:
    some = required([[[4, 5]], [[6], [4, 4, 5]]])
    read(some, [[4, 5, 7], [6, 4, 4]])
    assert some.progress.tolist() == [[[2, 0]], [[1, 2]]]
    assert some.met().tolist() == [[True], [False]]
    assert some.next_tokens().tolist() == [[[0, 0]], [[0, 5]]]
    some.select(torch.tensor([1]))
    assert some.progress.tolist() == [[[1, 2]]]


def test_repeated_and_contained_phrases_are_dropped() -> None:
    assert needed_phrases([[4, 5], [5], [4, 5], [6]]) == [[4, 5], [6]]
    assert missing_phrases([4, 6], [[4], [5], [4, 6]]) == (1,)


def open_logs() -> torch.Tensor:
    logs = torch.zeros(1, 1, 9)
    logs[:, :, :4] = -torch.inf
    return logs


def tokens_left(logs: torch.Tensor) -> list[int]:
    return logs[0, 0].gt(-torch.inf).nonzero().flatten().tolist()


def test_room_that_is_needed_is_not_wasted() -> None:
    some = required([[[4, 5], [6]]], limit=5)
    logs = open_logs()
    some.enforce(logs, 1)  # four more tokens: one to spare
    assert tokens_left(logs) == [4, 5, 6, 7, 8]
    some.enforce(logs, 2)
    assert tokens_left(logs) == [4, 6]
    read(some, [[4]])
    logs = open_logs()
    some.enforce(logs, 3)
    assert tokens_left(logs) == [5]


def test_every_stage_has_a_share_of_the_beam() -> None:
    some = required([[[4, 5]]])
    logs = torch.full((1, 1, 30), -torch.inf)
    logs[0, 0, 4:] = -torch.arange(26.0)
    logs[0, 0, 4] = -100.0
    choices, rivals = some.choose(logs, 3)
    assert choices.tokens.tolist() == [[4, 5, 6]]  # the phrase's token, then the most probable
    assert some.progress.tolist() == [[[1], [0], [0]]]
    assert (rivals == -torch.inf).all()  # nobody has the phrase


def test_what_every_hypothesis_has_is_measured_among_its_equals() -> None:
    some = required([[[4]]])
    read(some, [[4]])
    logs = torch.full((1, 1, 9), -torch.inf)
    logs[0, 0, 5:8] = torch.tensor([-1.0, -2.0, -3.0])
    choices, rivals = some.choose(logs, 2)
    assert rivals.tolist() == [[-1.0, -2.0]]
    assert choices.tokens.tolist() == [[5, 6]]

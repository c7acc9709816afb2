from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seqlab.explain.decisions import decisions_of, parts_of
from seqlab.nn.crf import CRF
from seqlab.tags import Grammar

NAMES = ["O", *(f"{prefix}-{label}" for label in ("LOC", "PER") for prefix in "BIES")]


def random_crf(seed: int, names: list[str] = NAMES, scheme: str = "bioes") -> CRF:
    torch.manual_seed(seed)
    crf = CRF(len(names), batch_first=True, grammar=Grammar.of(names, scheme)).double()
    with torch.no_grad():
        for weight in crf.parameters():
            weight.normal_(std=2.0)
    return crf


def score_of(crf: CRF, emissions: Tensor, path: list[int]) -> float:
    """The score of a path from the CRF's own likelihood; -inf where it is illegal."""
    try:
        likelihood = crf(emissions[None], torch.tensor([path]))
    except ValueError:
        return -math.inf
    return float((likelihood + crf.log_partition(emissions[None])).detach())


def decoded(crf: CRF, emissions: Tensor) -> tuple[list[int], list[str]]:
    (path,) = crf.decode(emissions[None])
    return path, [NAMES[i] for i in path]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("time", [1, 2, 6])
def test_the_margin_is_what_the_path_loses_by_the_best_single_change(seed: int, time: int) -> None:
    crf = random_crf(seed)
    emissions = 2 * torch.randn(time, len(NAMES), dtype=torch.float64)
    path, tags = decoded(crf, emissions)
    best = score_of(crf, emissions, path)
    found = decisions_of(crf, emissions, tags, NAMES, range(time))
    for t, decision in enumerate(found):
        others = {
            NAMES[i]: score_of(crf, emissions, [*path[:t], i, *path[t + 1 :]])
            for i in range(len(NAMES))
            if i != path[t]
        }
        rival = max(others, key=others.__getitem__)
        if others[rival] == -math.inf:
            assert decision.rival is None
            assert decision.margin is decision.margin_emission is decision.margin_transition is None
            continue
        assert decision.rival == rival
        assert decision.margin == pytest.approx(best - others[rival], abs=1e-9)
        assert decision.margin is not None
        assert decision.margin >= 0
        chosen, other = path[t], NAMES.index(rival)
        by_emission = float(emissions[t, chosen] - emissions[t, other])
        assert decision.margin_emission == pytest.approx(by_emission)
        assert decision.margin_transition == pytest.approx(decision.margin - by_emission)


def test_the_parts_of_a_path_add_up_to_its_score() -> None:
    crf = random_crf(3)
    emissions = torch.randn(5, len(NAMES), dtype=torch.float64)
    path, tags = decoded(crf, emissions)
    found = decisions_of(crf, emissions, tags, NAMES, range(5))
    total = sum(d.emission + d.transition_in for d in found) + found[-1].transition_out
    assert total == pytest.approx(score_of(crf, emissions, path))
    for before, after in zip(found, found[1:], strict=False):
        assert before.transition_out == after.transition_in


def test_borders_have_the_scores_of_beginning_and_ending() -> None:
    crf = random_crf(0)
    emissions = torch.zeros(1, len(NAMES), dtype=torch.float64)
    parts = parts_of(crf, emissions, torch.tensor([0]))
    assert float(parts.into[0, 0]) == crf.start_transitions[0].item()
    assert float(parts.out[0, 0]) == crf.end_transitions[0].item()
    assert float(parts.into[0, NAMES.index("I-PER")]) == -math.inf
    assert float(parts.out[0, NAMES.index("B-PER")]) == -math.inf


def test_inside_a_span_no_other_tag_may_be_legal() -> None:
    crf = random_crf(0, NAMES)
    with torch.no_grad():
        for weight in crf.parameters():
            weight.zero_()
    emissions = torch.zeros(3, len(NAMES), dtype=torch.float64)
    for t, tag in enumerate(["B-PER", "E-PER", "O"]):
        emissions[t, NAMES.index(tag)] = 3.0
    _, tags = decoded(crf, emissions)
    assert tags == ["B-PER", "E-PER", "O"]
    first, second, third = decisions_of(crf, emissions, tags, NAMES, range(3))
    assert first.rival is second.rival is None
    assert first.alternative is not None
    assert third.rival in ("S-LOC", "S-PER")
    assert third.margin == third.margin_emission == pytest.approx(3.0)
    assert third.margin_transition == 0


def test_probabilities_are_the_marginals() -> None:
    crf = random_crf(5)
    emissions = torch.randn(4, len(NAMES), dtype=torch.float64)
    _, tags = decoded(crf, emissions)
    marginals = crf.marginals(emissions[None])[0]
    for t, decision in enumerate(decisions_of(crf, emissions, tags, NAMES, range(4))):
        assert decision.probability == pytest.approx(float(marginals[t, NAMES.index(tags[t])]))
        rest = {n: float(p) for n, p in zip(NAMES, marginals[t], strict=True) if n != tags[t]}
        assert decision.alternative == max(rest, key=rest.__getitem__)
        assert decision.alternative_probability == pytest.approx(max(rest.values()))


def test_some_tokens_are_told_as_all_are() -> None:
    crf = random_crf(6)
    emissions = torch.randn(6, len(NAMES), dtype=torch.float64)
    _, tags = decoded(crf, emissions)
    whole = decisions_of(crf, emissions, tags, NAMES, range(6))
    assert decisions_of(crf, emissions, tags, NAMES, range(2, 5)) == whole[2:5]


def test_a_repaired_tag_may_be_worse_than_its_rival() -> None:
    crf = CRF(2, batch_first=True, learn=False)  # as a softmax decoder has it
    (found,) = decisions_of(crf, torch.tensor([[1.0, 3.0]]), ["a"], ["a", "b"], range(1))
    assert found.rival == "b"
    assert found.margin == found.margin_emission == -2.0
    assert found.transition_in == found.transition_out == 0.0


def test_a_single_tag_has_no_rival() -> None:
    crf = CRF(1, batch_first=True)
    (found,) = decisions_of(crf, torch.tensor([[1.0]]), ["a"], ["a"], range(1))
    assert found.rival is found.alternative is found.alternative_probability is None
    assert found.probability == 1.0
    assert found.to_dict()["tag"] == "a"

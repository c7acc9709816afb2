"""Search against enumeration, in any batch, and under every wish, on models of random numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqlab.errors import SeqlabError, UsageError
from seqlab.nn import search_scores
from seqlab.nn.kernels import library
from seqlab.nn.search import (
    Constraints,
    Ensemble,
    Hypothesis,
    SearchOptions,
    Step,
    search,
)
from seqlab.nn.search_beam import BeamSearch
from seqlab.nn.search_scores import LEAST_COVERAGE, length_divisor

BEGIN, END = 2, 3
SOURCE = 4
MODULUS = 65_521


@pytest.fixture(params=["plain", "native"], autouse=True, scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    problem = library.obstacle() if request.param == "native" else None
    if problem is not None:
        pytest.skip(f"no compiled kernels: {problem}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLAB_KERNELS", request.param)
        yield


class State(NamedTuple):
    names: Tensor  # (sentence, hypothesis) the sentence's number
    keys: Tensor  # (sentence, hypothesis) a number made from it and all tokens so far


class Model:
    """Says of each history something else: pseudo-random logits and attention, all exact."""

    def __init__(
        self, names: list[int], size: int = 7, scale: float = 6.0, steps: float = 0.0
    ) -> None:
        self.names, self.size, self.scale, self.steps = names, size, scale, steps
        self.selected: list[list[int]] = []

    def begin(self) -> State:
        names = torch.tensor(self.names).unsqueeze(1)
        return State(names, names * 7919 % MODULUS)

    def step(self, tokens: Tensor, state: State) -> Step:
        assert tokens.shape == state.keys.shape
        keys = (state.keys * 31 + tokens * 17 + 5) % MODULUS
        noise = self.noise(keys, self.size)
        if self.steps:  # coarse logits have equals
            noise = (noise * self.steps).round() / self.steps
        weights = self.noise(keys + 1, SOURCE) ** 4 + 0.01
        return Step(
            noise * self.scale, weights / weights.sum(2, keepdim=True), state._replace(keys=keys)
        )

    def noise(self, keys: Tensor, size: int) -> Tensor:
        """Numbers in [0, 1): (..., size)."""
        mixed = keys.unsqueeze(-1) * (torch.arange(size) * 2221 + 1013)
        return (mixed * mixed % MODULUS) / MODULUS

    def select(self, state: State, sentences: Tensor, hypotheses: Tensor) -> State:
        self.selected.append(state.names[sentences, 0].tolist())
        return State(*(part[sentences].gather(1, hypotheses) for part in state))

    def replay(self, name: int, ids: list[int]) -> tuple[float, Tensor]:
        """The log-probability of an output with its end, and the attention of every step."""
        state = Model([name]).begin()
        total, weights = 0.0, []
        for before, after in itertools.pairwise([BEGIN, *ids, END]):
            step = self.step(torch.tensor([[before]]), state)
            total += step.logits[0, 0].double().log_softmax(0)[after].item()
            weights.append(step.attention[0, 0])
            state = step.state
        return total, torch.stack(weights)

    def every_output(self, longest: int) -> list[list[int]]:
        tokens = [t for t in range(self.size) if t not in (0, BEGIN, END)]
        lengths = range(longest + 1)
        return [list(ids) for n in lengths for ids in itertools.product(tokens, repeat=n)]


def options_of(**changes: Any) -> SearchOptions:
    return SearchOptions(**{"max_ratio": 0, "max_extra": 4, **changes})


def searched(
    model: Any, options: SearchOptions, sources: list[int] | None = None, **more: Any
) -> list[list[Hypothesis]]:
    sources = sources or [SOURCE] * len(model.names)
    return search(model, options, torch.tensor(sources), **more)


def score_by_hand(model: Model, name: int, ids: list[int], options: SearchOptions) -> float:
    total, weights = model.replay(name, ids)
    score = total / length_divisor(options.length_penalty, options.alpha, len(ids) + 1)
    if options.coverage:
        seen = weights.double().sum(0).clamp(LEAST_COVERAGE, 1.0)
        score += options.coverage * seen.log().sum().item()
    return score


def assert_alike(
    found: list[Hypothesis], wanted: list[Hypothesis], tolerance: float = 1e-5
) -> None:
    """The same scores, and the same outputs wherever neighbouring scores differ."""
    assert [h.score for h in found] == pytest.approx([h.score for h in wanted], abs=tolerance)
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        near = [h.score for i, h in enumerate(wanted) if i != place]
        if all(abs(other.score - score) > 2 * tolerance for score in near):
            assert one.ids == other.ids
            if other.attention is not None:
                torch.testing.assert_close(one.attention, other.attention)


PENALTIES = [
    {"length_penalty": "none"},
    {"length_penalty": "average"},
    {"length_penalty": "average", "alpha": 0.4},
    {"length_penalty": "wu", "alpha": 0.8},
    {"length_penalty": "none", "coverage": 0.7},
    {"length_penalty": "wu", "coverage": 0.3, "alpha": 0.3},
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_a_beam_of_full_width_finds_what_enumeration_finds(penalty: dict[str, Any]) -> None:
    model = Model([1, 2, 3], size=6)
    options = options_of(beam=3**4 + 3**3, n_best=5, **penalty)
    for name, found in zip(model.names, searched(model, options), strict=True):
        outputs = [(score_by_hand(model, name, ids, options), ids) for ids in model.every_output(4)]
        best = sorted(outputs, reverse=True)[:5]
        assert [h.score for h in found] == pytest.approx([score for score, _ in best], abs=1e-5)
        assert [h.ids for h in found] == [ids for _, ids in best]
        for h in found:
            assert h.log_probability == pytest.approx(model.replay(name, h.ids)[0], abs=1e-5)


def test_enumeration_holds_with_a_least_length_and_one_required_phrase() -> None:
    model = Model([4, 5, 6], size=6)
    wish = Constraints(required=[[4, 5]])
    options = options_of(beam=150, n_best=4, min_length=3)
    for name, found in zip(
        model.names, searched(model, options, constraints=[wish] * 3), strict=True
    ):
        fitting = [i for i in model.every_output(4) if len(i) > 2 and has(i, [4, 5])]
        outputs = sorted((score_by_hand(model, name, ids, options), ids) for ids in fitting)
        assert [h.ids for h in found] == [ids for _, ids in outputs[:-5:-1]]


def has(ids: list[int], phrase: list[int]) -> bool:
    text = "".join(f"<{token}>" for token in ids)
    return "".join(f"<{token}>" for token in phrase) in text


@pytest.mark.parametrize("steps", [0.0, 4.0])
@pytest.mark.parametrize("size", [7, 1500])
def test_greedy_search_is_a_beam_of_one(size: int, steps: float) -> None:
    names = list(range(12))
    for changes in ({}, {"min_length": 3}, {"keep_attention": True}, {"length_penalty": "wu"}):
        # Of equals the beam lets the end go first, greedy search the lowest id: here that is one.
        options = options_of(beam=1, max_extra=9, unknown_allowed=False, **changes)
        greedy = searched(Model(names, size, steps=steps), options)
        lengths = torch.full((12,), SOURCE)
        with torch.inference_mode():
            beam = BeamSearch(
                Model(names, size, steps=steps), options, lengths, [Constraints()] * 12
            ).run()
        for one, other in zip(greedy, beam, strict=True):
            assert one[0].ids == other[0].ids
            assert_alike(one, other)


def test_greedy_search_without_scores_finds_the_same() -> None:
    names = list(range(9))
    fast = searched(Model(names, 1500), options_of(beam=1, scores=False))
    full = searched(Model(names, 1500), options_of(beam=1))
    assert [h[0].ids for h in fast] == [h[0].ids for h in full]
    assert all(math.isnan(h[0].score) and math.isnan(h[0].log_probability) for h in fast)


KINDS: list[dict[str, Any]] = [
    {"beam": 1},
    {"beam": 1, "scores": False},
    {"beam": 1, "no_repeat_ngram": 2},
    {"beam": 3, "n_best": 3},
    {"beam": 3, "n_best": 3, "length_penalty": "none", "min_length": 2},
    {"beam": 4, "n_best": 2, "coverage": 0.5, "length_penalty": "wu", "keep_attention": True},
    {"beam": 3, "n_best": 2, "no_repeat_ngram": 2},
    {"beam": 3, "patience": 1.0},
    {"beam": 6, "n_best": 4, "groups": 3, "diversity": 0.8},
    {"method": "sample", "n_best": 3},
    {"method": "sample", "n_best": 2, "top_k": 3, "top_p": 0.8, "temperature": 0.7},
]
WISHES = [
    None,
    None,
    Constraints(prefix=[5, 4]),
    Constraints(banned=[[4], [5, 6]]),
    Constraints(prefix=[6], banned=[[6, 5]]),
]
REQUIRED = Constraints(required=[[4, 5], [6]], banned=[[5, 5]])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_result_depends_on_the_batch(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    wishes: list[Constraints | None] = list(WISHES)
    if "groups" not in kind and "method" not in kind:
        wishes.append(REQUIRED)
    size = data.draw(st.sampled_from([7, 300, 1100]))
    options = SearchOptions(max_ratio=1.0, max_extra=3, **kind)
    sentences = [
        (name, 1 + name % SOURCE, data.draw(st.sampled_from(wishes)))
        for name in range(data.draw(st.integers(1, 9)))
    ]
    plain = data.draw(st.booleans())

    def run(some: list[Any]) -> list[list[Hypothesis]]:
        names, sources, wanted = (list(part) for part in zip(*some, strict=True))
        wanted = None if plain else wanted
        return searched(Model(names, size), options, sources, constraints=wanted, numbers=names)

    together = run(sentences)
    order = data.draw(st.permutations(range(len(sentences))))
    cut = data.draw(st.integers(1, len(sentences)))
    parts = [order[at : at + cut] for at in range(0, len(order), cut)]
    for part in parts:
        fillers = [(90 + i, SOURCE, None) for i in range(data.draw(st.integers(0, 3)))]
        found = run([*(sentences[place] for place in part), *fillers])
        for place, outputs in zip(part, found, strict=False):
            if options.scores:
                assert_alike(outputs, together[place])
            else:
                assert [h.ids for h in outputs] == [h.ids for h in together[place]]


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("kind", [{}, {"groups": 2}, {"no_repeat_ngram": 1}], ids=str)
def test_stopping_early_changes_nothing(
    penalty: dict[str, Any], kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(range(30))
    options = options_of(beam=4, n_best=3, max_extra=12, **penalty, **kind)
    quick = Model(names)
    early = searched(quick, options)
    monkeypatch.setattr(
        search_scores.Penalties, "bound", lambda self, best: torch.full_like(best, torch.inf)
    )
    patient = Model(names)
    late = searched(patient, options)
    assert early == late
    assert sum(map(len, quick.selected)) < sum(map(len, patient.selected))


def test_sentences_leave_the_batch_when_they_are_done() -> None:
    model = Model(list(range(20)))
    searched(model, options_of(beam=2, max_extra=30))
    sizes = [len(names) for names in model.selected]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 20
    assert sizes[-1] < 10


def test_patience_ends_a_sentence_with_so_many_outputs() -> None:
    impatient, patient = Model(list(range(20))), Model(list(range(20)))
    less = searched(impatient, options_of(beam=4, n_best=2, max_extra=12, patience=0.5))
    more = searched(patient, options_of(beam=4, n_best=2, max_extra=12))
    assert sum(map(len, impatient.selected)) < sum(map(len, patient.selected))
    assert all(len(outputs) == 2 for outputs in less)
    assert all(a[0].score <= b[0].score for a, b in zip(less, more, strict=True))


def test_lengths_are_kept_per_sentence() -> None:
    names, sources = [1, 2, 3, 4], [1, 2, 3, 4]
    options = SearchOptions(beam=3, n_best=3, min_length=2, max_ratio=1.5, max_extra=1)
    for source, outputs in zip(sources, searched(Model(names), options, sources), strict=True):
        assert len(outputs) == 3
        assert all(2 <= len(h.ids) <= int(1.5 * source) + 1 for h in outputs)


def test_the_longest_length_goes_before_the_least() -> None:
    for beam in (1, 3):
        found = searched(Model([1]), options_of(beam=beam, min_length=9, max_extra=3))
        assert len(found[0][0].ids) == 3


@pytest.mark.parametrize("beam", [1, 4])
def test_ids_that_are_never_produced_are_not(beam: int) -> None:
    model = Model(list(range(25)))
    found = searched(model, options_of(beam=beam, unknown_allowed=False, never=(4,), max_extra=8))
    produced = {token for outputs in found for h in outputs for token in h.ids}
    assert produced == {5, 6}


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_is_repeated(n: int, beam: int) -> None:
    def repeats(ids: list[int]) -> bool:
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        return len(set(grams)) < len(grams)

    names = list(range(40))
    free = searched(Model(names, size=6), options_of(beam=beam, min_length=3, max_extra=9))
    assert any(repeats(h.ids) for outputs in free for h in outputs)
    options = options_of(beam=beam, min_length=3, max_extra=9, no_repeat_ngram=n)
    blocked = searched(Model(names, size=6), options)
    assert not any(repeats(h.ids) for outputs in blocked for h in outputs)


@pytest.mark.parametrize("kind", [{"beam": 1}, {"beam": 4}, {"method": "sample"}], ids=str)
def test_prefixes_and_banned_phrases_hold(kind: dict[str, Any]) -> None:
    names = list(range(60))
    bans = [[5], [4, 6], [6, 6, 4]]
    wish = Constraints(prefix=[4, 4, 1], banned=bans)
    options = options_of(n_best=kind.get("beam", 3), max_extra=8, min_length=5, **kind)
    found = searched(Model(names), options, constraints=[wish] * 60, numbers=names)
    for outputs in found:
        assert all(h.ids[:3] == [4, 4, 1] for h in outputs)
        assert not any(has(h.ids, phrase) for h in outputs for phrase in bans)
    free = searched(Model(names), options, numbers=names)
    for phrase in bans:
        assert any(has(h.ids, phrase) for outputs in free for h in outputs)


def test_a_prefix_may_be_longer_than_the_longest_output() -> None:
    wish = Constraints(prefix=[4, 5, 6, 4, 5, 6])
    for beam in (1, 3):
        found = searched(Model([1]), options_of(beam=beam, max_extra=2), constraints=[wish])
        assert found[0][0].ids == [4, 5, 6, 4, 5, 6]


phrases = st.lists(st.sampled_from([4, 5, 6]), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(phrases, min_size=1, max_size=3), min_size=1, max_size=5),
    st.sampled_from([1, 2, 5]),
    st.sampled_from([0, 2]),
    st.booleans(),
)
def test_every_output_contains_every_required_phrase(
    wanted: list[list[list[int]]], beam: int, ngram: int, prefixed: bool
) -> None:
    prefix = [5, 6] if prefixed else []
    wishes = [Constraints(required=some, prefix=prefix) for some in wanted]
    model = Model(list(range(len(wanted))))
    options = options_of(beam=beam, n_best=beam, max_extra=11, no_repeat_ngram=ngram)
    for some, outputs in zip(wanted, searched(model, options, constraints=wishes), strict=True):
        assert outputs
        for h in outputs:
            assert h.missing == ()
            assert all(has(h.ids, phrase) for phrase in some)
            assert h.ids[: len(prefix)] == prefix
            assert len(h.ids) <= 11


def test_a_wide_beam_puts_phrases_where_they_cost_least() -> None:
    names = list(range(40))
    wishes = [Constraints(required=[[4, 5]])] * 40
    narrow = searched(Model(names), options_of(beam=2, max_extra=7), constraints=wishes)
    wide = searched(Model(names), options_of(beam=12, max_extra=7), constraints=wishes)
    best = searched(Model(names), options_of(beam=100, max_extra=7), constraints=wishes)
    means = [sum(h[0].score for h in found) / 40 for found in (narrow, wide, best)]
    assert means == sorted(means)
    assert means[2] - means[1] < 0.5 * (means[2] - means[0])


def test_what_does_not_fit_is_said_to_be_missing() -> None:
    wish = Constraints(required=[[4, 5, 6], [6, 6]])
    found = searched(Model([1, 2]), options_of(beam=3, max_extra=3), constraints=[wish, None])
    assert all(len(h.missing) == 1 for h in found[0])
    assert all(h.missing == () for h in found[1])


def test_wishes_that_contradict_each_other_still_give_outputs() -> None:
    # After 4 nothing may come but the end, and both phrases cannot stand side by side.
    wish = Constraints(required=[[4], [5]], banned=[[4, t] for t in (1, 4, 5, 6)] + [[5, 4]])
    wish = Constraints(required=wish.required, banned=[*wish.banned, *([t, 4] for t in (1, 6))])
    found = searched(Model([1, 2]), options_of(beam=3), constraints=[wish, None])
    alone = searched(Model([1]), options_of(beam=3), constraints=[Constraints(banned=wish.banned)])
    assert found[0][0].missing
    assert [h.ids for h in found[0]] == [h.ids for h in alone[0]]
    assert found[1]


def test_a_search_with_nothing_left_to_choose_from_gives_up_blocking() -> None:
    # Four tokens, none twice, and nine of them at least.
    found = searched(Model([1]), options_of(beam=2, min_length=9, max_extra=20, no_repeat_ngram=1))
    assert found[0][0].score > -math.inf


def test_groups_without_diversity_are_searches_of_their_own() -> None:
    names = list(range(15))
    alone = searched(Model(names), options_of(beam=2, n_best=2))
    groups = searched(Model(names), options_of(beam=6, n_best=6, groups=3, diversity=0.0))
    for one, three in zip(alone, groups, strict=True):
        assert [h.ids for h in three[::3]] == [h.ids for h in one]
        assert [h.ids for h in three[1::3]] == [h.ids for h in one]


def test_groups_differ_and_each_gives_its_best_first() -> None:
    names = list(range(30))
    options = options_of(beam=6, n_best=3, groups=3, diversity=2.0, max_extra=8)
    diverse = searched(Model(names), options)
    plain = searched(Model(names), options_of(beam=6, n_best=3, max_extra=8))
    first = [len({h.ids[0] if h.ids else END for h in outputs}) for outputs in diverse]
    usual = [len({h.ids[0] if h.ids else END for h in outputs}) for outputs in plain]
    assert sum(first) > sum(usual)
    one = searched(Model(names), options_of(beam=2, max_extra=8))
    for outputs, best in zip(diverse, one, strict=True):
        assert best[0].ids in [h.ids for h in outputs]  # the first group pays for nothing
        assert [h.score for h in outputs] == sorted((h.score for h in outputs), reverse=True)


@pytest.mark.parametrize(
    "kind", [{"beam": 1}, {"beam": 4, "n_best": 4}, {"method": "sample", "n_best": 3}], ids=str
)
def test_attention_follows_the_right_parents(kind: dict[str, Any]) -> None:
    names, sources = list(range(20)), [1 + n % SOURCE for n in range(20)]
    model = Model(names)
    options = SearchOptions(max_ratio=1, max_extra=4, keep_attention=True, **kind)
    found = searched(model, options, sources, numbers=names)
    for name, source, outputs in zip(names, sources, found, strict=True):
        for h in outputs:
            wanted = model.replay(name, h.ids)[1][:-1, :source]
            torch.testing.assert_close(h.attention, wanted)


def test_equals_go_by_hypothesis_and_token() -> None:
    """On coarse logits, as of bfloat16, whole beams are equal; stable sorting says which go on."""
    model = Model([1, 2, 3], size=40, steps=2.0)
    found = searched(model, options_of(beam=5, n_best=5, max_extra=1, length_penalty="none"))
    for name, outputs in zip(model.names, found, strict=True):
        logits = model.step(torch.tensor([[BEGIN]]), Model([name]).begin()).logits[0, 0]
        order = logits.sort(descending=True, stable=True).indices.tolist()
        beam = [token for token in order if token not in (0, BEGIN, END)][:5]
        assert {h.ids[0] for h in outputs if h.ids} <= set(beam)


def test_an_ensemble_of_one_model_twice_is_that_model() -> None:
    names = list(range(10))
    options = options_of(beam=3, n_best=3, keep_attention=True)
    twice = search(Ensemble([Model(names), Model(names)]), options, torch.full((10,), SOURCE))
    for one, other in zip(twice, searched(Model(names), options), strict=True):
        assert_alike(one, other)


def test_no_sentences_have_no_outputs() -> None:
    assert search(Model([]), SearchOptions(), torch.zeros(0, dtype=torch.int64)) == []


class Blind(Model):
    def step(self, tokens: Tensor, state: State) -> Step:
        return super().step(tokens, state)._replace(attention=None)


class Broken(Model):
    def step(self, tokens: Tensor, state: State) -> Step:
        step = super().step(tokens, state)
        return step._replace(
            logits=step.logits.masked_fill(state.names.unsqueeze(2) == 2, math.nan)
        )


@pytest.mark.parametrize("kind", [{"beam": 1}, {"beam": 3}, {"method": "sample"}], ids=str)
def test_scores_that_are_not_numbers_are_told(kind: dict[str, Any]) -> None:
    with pytest.raises(SeqlabError, match="^Sentence 2: the model's scores are not numbers"):
        searched(Broken([1, 2, 3]), options_of(**kind), numbers=[1, 2, 3])


@pytest.mark.parametrize(
    ("kind", "wish", "sentence"),
    [
        ({"beam": 1, "keep_attention": True}, {}, "keep_attention is true, but the model has no"),
        ({"beam": 2, "keep_attention": True}, {}, "keep_attention is true, but the model has no"),
        ({"coverage": 0.2}, {}, "coverage is 0.2, but the model has no attention: leave it out."),
        ({"method": "sample", "keep_attention": True}, {}, "keep_attention is true, but the model"),
        ({"method": "sample", "coverage": 0.1}, {}, "Samples have no coverage penalty"),
        ({"method": "sample"}, {"required": [[4]]}, "Samples cannot be made to contain phrases"),
        ({"beam": 4, "groups": 2}, {"required": [[4]]}, "Diverse beam search cannot take required"),
        ({}, {"required": [[4]], "banned": [[4]]}, "Sentence 1: the banned phrase .4. is part of"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    kind: dict[str, Any], wish: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        searched(Blind([1]), options_of(**kind), constraints=[Constraints(**wish)], numbers=[1])


def test_sampling_needs_a_number_for_each_sentence() -> None:
    with pytest.raises(UsageError, match="^Sampling needs a number for each sentence"):
        searched(Model([1, 2]), options_of(method="sample"), numbers=[1])
    with pytest.raises(UsageError, match="^1 constraints were given for 2 sentences"):
        searched(Model([1, 2]), options_of(), constraints=[None])

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from seqlab.data.sampling import BucketSampler, Ints, cut, is_first, world
from seqlab.errors import DataError

# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LENGTHS = st.lists(st.integers(1, 30), max_size=60).map(lambda sizes: np.array(sizes, np.int64))
BUDGETS = {"batch_size": st.integers(1, 9), "tokens_per_batch": st.integers(1, 70)}


def flat(batches: list[Ints]) -> list[int]:
    return [int(i) for batch in batches for i in batch]


def keys(batches: list[Ints]) -> list[tuple[int, ...]]:
    return [tuple(batch.tolist()) for batch in batches]


def check_budget(lengths: Ints, batches: list[Ints], batch_size: int, tokens: int) -> None:
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= tokens


def corpus(count: int) -> Ints:
    """Lengths as corpora have them: many short sentences, few long ones."""
    return np.random.default_rng(0).geometric(0.06, count).astype(np.int64)


@UNHURRIED
@given(lengths=LENGTHS, random=st.randoms(), **BUDGETS)
def test_cutting_keeps_the_order_and_the_budget(
    lengths: Ints, random: Any, batch_size: int, tokens_per_batch: int
) -> None:
    order = list(range(len(lengths)))
    random.shuffle(order)
    batches = cut(lengths, np.array(order, np.int64), batch_size, tokens_per_batch)
    assert flat(batches) == order
    check_budget(lengths, batches, batch_size, tokens_per_batch)


@UNHURRIED
@given(lengths=LENGTHS, **BUDGETS)
def test_cutting_ends_a_batch_only_where_it_must(
    lengths: Ints, batch_size: int, tokens_per_batch: int
) -> None:
    batches = cut(lengths, np.arange(len(lengths)), batch_size, tokens_per_batch)
    for batch, following in itertools.pairwise(batches):
        one_more = np.append(batch, following[0])
        too_many = len(one_more) > batch_size
        assert too_many or len(one_more) * lengths[one_more].max() > tokens_per_batch


@UNHURRIED
@given(lengths=LENGTHS, shuffle=st.booleans(), epoch=st.integers(0, 3), **BUDGETS)
def test_every_sequence_comes_once_an_epoch_within_the_budget(
    lengths: Ints, shuffle: bool, epoch: int, batch_size: int, tokens_per_batch: int
) -> None:
    sampler = BucketSampler(lengths, batch_size, tokens_per_batch, shuffle=shuffle, pool=2)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(flat(batches)) == list(range(len(lengths)))
    assert len(sampler) == len(batches)
    check_budget(lengths, batches, batch_size, tokens_per_batch)


def test_a_sequence_beyond_the_budget_goes_alone() -> None:
    batches = list(BucketSampler(np.array([3, 500, 3]), 8, 20))
    assert keys(batches) == [(1,), (0, 2)]


def test_without_shuffling_the_longest_come_first_and_ties_keep_their_order() -> None:
    lengths = np.array([2, 9, 2, 5, 9])
    assert flat(list(BucketSampler(lengths, 2, 99))) == [1, 4, 3, 0, 2]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_is_fixed_by_seed_and_number(epoch: int) -> None:
    lengths = corpus(300)
    walked = BucketSampler(lengths, 8, 100, shuffle=True, seed=5)
    for number in range(epoch + 1):  # one that ran all epochs, and one that resumes in the last
        walked.set_epoch(number)
        walked.batches()
    resumed = BucketSampler(lengths, 8, 100, shuffle=True, seed=5)
    resumed.set_epoch(epoch)
    assert keys(walked.batches()) == keys(resumed.batches()) == keys(list(resumed))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    found = set()
    for seed, epoch in itertools.product(range(3), range(3)):
        sampler = BucketSampler(corpus(100), 4, 60, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        found.add(tuple(keys(sampler.batches())))
    assert len(found) == 9


def test_drawing_an_order_leaves_the_global_random_state_alone() -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    list(BucketSampler(corpus(100), 4, 60, shuffle=True))
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_without_shuffling_every_epoch_is_the_same() -> None:
    sampler = BucketSampler(corpus(50), 4, 60)
    first = sampler.batches()
    sampler.set_epoch(3)
    assert sampler.batches() is first


def test_sequences_of_similar_length_share_a_batch() -> None:
    lengths = corpus(2000)
    batches = list(BucketSampler(lengths, 16, 10_000, shuffle=True))
    cells = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert lengths.sum() / cells > 0.85  # share of the cells that are real tokens
    blind = cut(lengths, np.arange(2000), 16, 10_000)
    assert lengths.sum() / sum(len(b) * lengths[b].max() for b in blind) < 0.5


def test_short_and_long_batches_come_mixed() -> None:
    lengths = corpus(1600)
    longest = [
        lengths[batch].max() for batch in BucketSampler(lengths, 16, 10_000, shuffle=True, pool=100)
    ]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 7, 101])
def test_processes_train_on_equally_many_batches_and_share_none(
    world_size: int, count: int
) -> None:
    lengths = corpus(count)
    if count < world_size:
        with pytest.raises(DataError) as error:
            BucketSampler(lengths, 3, 40, world_size=world_size)
        assert str(error.value) == (
            f"{world_size} processes cannot share {count} sequences out: use --trainer.devices "
            f"{count}, or fewer."
        )
        return
    whole = keys(BucketSampler(lengths, 3, 40, shuffle=True, seed=1).batches())
    shares = [
        keys(
            BucketSampler(
                lengths, 3, 40, shuffle=True, seed=1, rank=rank, world_size=world_size
            ).batches()
        )
        for rank in range(world_size)
    ]
    dealt = [batch for turn in zip(*shares, strict=True) for batch in turn]
    if len(whole) < world_size:  # they are cut until there is one for each
        assert sorted(i for batch in dealt for i in batch) == list(range(count))
        return
    assert dealt[: len(whole)] == whole  # disjoint, as no sequence is in two batches of the whole
    again = dealt[len(whole) :]
    assert len(again) < world_size
    assert again == [tuple(~i for i in whole[n]) for n in range(len(again))]


@UNHURRIED
@given(
    count=st.integers(1, 60),
    chain=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=4),
)
def test_no_batch_comes_twice_and_none_is_left_out_over_any_chain_of_processes(
    count: int, chain: list[tuple[int, int]]
) -> None:
    lengths = corpus(count)
    made = {"batch_size": 3, "tokens_per_batch": 40, "shuffle": True, "seed": 2}
    whole = BucketSampler(lengths, **made)
    whole.set_epoch(4)
    seen: list[tuple[int, ...]] = []
    state = {"epoch": 4, "batches": 0, "of": len(whole), "own": 0}
    for number, (world_size, steps) in enumerate(chain):
        assume(count >= world_size)
        samplers = [
            BucketSampler(lengths, **made, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for sampler in samplers:
            sampler.set_epoch(4)
            sampler.load_state_dict(state)
        shares = [keys(list(sampler)) for sampler in samplers]
        assert len({len(share) for share in shares}) == 1
        assert len(samplers[0]) == state["own"] + len(shares[0])
        ends = number == len(chain) - 1 or steps >= len(shares[0])
        done = len(shares[0]) if ends else steps
        turns = zip(*(share[:done] for share in shares), strict=True)
        seen += [batch for turn in turns for batch in turn if batch[0] >= 0]
        if ends:
            break
        own = state["own"] + done
        for sampler in samplers:
            sampler.taken = lambda own=own: own  # type: ignore[misc]
        state = samplers[0].state_dict()
        assert all(sampler.state_dict() == state for sampler in samplers)
        assert (state["batches"], state["of"]) == (len(seen), len(whole))
        state = {**state, "own": 1}  # as how many they count is up to whoever goes on
    if len(whole) >= chain[0][0]:
        assert seen == keys(whole.batches())
    assert sorted(i for batch in seen for i in batch) == list(range(count))
    samplers[0].set_epoch(5)  # begins at its beginning
    assert len(samplers[0]) == -(-len(whole_of(lengths, made, 5)) // world_size) or count < 16


def whole_of(lengths: Ints, made: dict[str, Any], epoch: int) -> BucketSampler:
    sampler = BucketSampler(lengths, **made)
    sampler.set_epoch(epoch)
    return sampler


def test_a_place_in_another_epoch_says_nothing() -> None:
    sampler = BucketSampler(corpus(50), 4, 60, shuffle=True)
    sampler.set_epoch(2)
    before = keys(sampler.batches())
    sampler.load_state_dict({"epoch": 1, "batches": 3, "of": len(before), "own": 3})
    assert keys(sampler.batches()) == before
    sampler.load_state_dict({"epoch": 2, "batches": 3, "of": len(before), "own": 3})
    assert keys(sampler.batches()) == before[3:]
    assert len(sampler) == len(before)


def test_of_other_batches_the_same_share_is_done() -> None:
    sampler = BucketSampler(corpus(50), 4, 60, shuffle=True)
    before = keys(sampler.batches())
    sampler.load_state_dict({"epoch": 0, "batches": 30, "of": 3 * len(before), "own": 30})
    assert keys(sampler.batches()) == before[10:]
    assert len(sampler) == 30 + len(before) - 10


@UNHURRIED
@given(lengths=LENGTHS, world_size=st.integers(1, 4), **BUDGETS)
def test_processes_score_every_sequence_once(
    lengths: Ints, world_size: int, batch_size: int, tokens_per_batch: int
) -> None:
    assume(len(lengths) >= world_size)
    shares = [
        BucketSampler(lengths, batch_size, tokens_per_batch, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    scored = [i for share in shares for i in flat(share.batches())]
    assert sorted(scored) == list(range(len(lengths)))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


@UNHURRIED
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=60), st.booleans())
def test_sequences_are_sorted_by_a_key_within_the_budget_of_their_lengths(
    sizes: list[tuple[int, int]], shuffle: bool
) -> None:
    lengths = np.array([max(pair) for pair in sizes], np.int64)
    key = np.array([10 * second + first for first, second in sizes], np.int64)
    sampler = BucketSampler(lengths, 5, 20, shuffle=shuffle, sort_key=key)
    batches = sampler.batches()
    assert sorted(flat(batches)) == list(range(len(sizes)))
    check_budget(lengths, batches, 5, 20)
    for batch in batches if shuffle else [np.array(flat(batches), np.int64)]:
        keys_found = key[batch] if shuffle else -key[batch]
        assert (np.diff(keys_found) >= 0).all()


def test_a_loader_asks_for_whole_batches() -> None:
    sampler = BucketSampler(corpus(20), 4, 60, shuffle=True)
    loader: DataLoader[Any] = DataLoader(
        Echo(),
        batch_size=None,
        sampler=sampler,
    )
    assert len(loader) == len(sampler)
    assert [b.tolist() for b in loader] == [b.tolist() for b in sampler.batches()]


class Echo(torch.utils.data.Dataset[Any]):
    """Answers with the index it is asked for."""

    def __getitem__(self, index: Ints) -> Any:
        return torch.from_numpy(index)


def test_a_process_by_itself_is_the_first_of_one() -> None:
    assert world() == (0, 1)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun, on another machine
        ({"SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),  # started by the first
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
    ],
)
def test_the_first_process_knows_itself_from_the_start(
    names: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first


def test_the_process_group_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    assert world() == (2, 4)

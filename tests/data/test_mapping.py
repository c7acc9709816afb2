from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqlab.data import mapping
from seqlab.data.mapping import MappedIds, mapped, stretches


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.array([3, 0, 2, 2], "<i4").tofile(tmp_path / "some.ids")
    return tmp_path / "some.ids"


def test_ids_are_looked_up_like_those_of_an_array(file: Path) -> None:
    ids = MappedIds(file)
    assert len(ids) == 4
    assert ids[:].tolist() == [3, 0, 2, 2]
    assert ids[1:3].tolist() == ids[np.array([1, 2])].tolist() == [0, 2]
    assert not ids[:].flags.owndata
    assert not ids[:].flags.writeable


def test_other_numbers_stand_for_the_ids(file: Path) -> None:
    ids = MappedIds(file).standing_for(np.array([10, 11, 12, 13], np.int32))
    assert ids[:].tolist() == [13, 10, 12, 12]
    assert ids[np.array([3, 0])].tolist() == [12, 13]


def test_another_process_gets_the_name_of_the_file_and_not_the_ids(file: Path) -> None:
    np.zeros(100_000, "<i4").tofile(file)
    ids = MappedIds(file, np.array([7], np.int32))
    sent = pickle.dumps(ids)
    assert len(sent) < 2000
    assert pickle.loads(sent)[99_998:].tolist() == [7, 7]


def test_nothing_at_all_can_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    assert mapped(tmp_path / "none", "<i8").tolist() == []


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_stretches_are_short_and_hold_every_sequence_once(sizes: list[int], most: int) -> None:
    offsets = np.cumsum([0, *sizes])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "_TOKENS", most)
        found = [bounds.tolist() for bounds in stretches(offsets)]
    whole = list(dict.fromkeys(offsets.tolist())) if sum(sizes) else []
    assert [0][: len(whole)] + [end for bounds in found for end in bounds[1:]] == whole
    for bounds in found:
        assert len(bounds) == 2 or bounds[-1] - bounds[0] <= most

"""Sparse gradients over processes, against the mean of dense ones."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from seqlab.nn.sparse_rows import mean_over_processes, sparse_rows

ROWS: list[list[int]] = [[4, 1, 4], [], [3, 0, 6, 6, 2]]


def gradient(rank: int) -> Tensor:
    """Of rows that come several times, or not at all, or with zeros only."""
    values = torch.arange(2.0 * len(ROWS[rank])).view(-1, 2)
    values[:1] = 0.0
    places = torch.tensor([ROWS[rank]], dtype=torch.long)
    return torch.sparse_coo_tensor(places, values, (8, 2), check_invariants=True)


def take_part(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(ROWS)
    )
    torch.save(mean_over_processes(gradient(rank)), Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_the_mean_over_processes_is_that_of_dense_gradients(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    some = [context.Process(target=take_part, args=(r, str(tmp_path))) for r in range(len(ROWS))]
    for process in some:
        process.start()
    for process in some:
        process.join(180)
        assert process.exitcode == 0
    wanted = torch.stack([gradient(rank).to_dense() for rank in range(len(ROWS))]).mean(0)
    for rank in range(len(ROWS)):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found.to_dense(), wanted)
        assert found.indices()[0].tolist() == [0, 1, 2, 4, 6]  # 3 has zeros alone


@pytest.mark.parametrize("trained", [True, False])
def test_what_is_sparse_is_found_by_name(trained: bool) -> None:
    model = nn.Sequential(nn.Embedding(3, 2), nn.ModuleList([nn.Embedding(4, 2, sparse=True)]))
    model.requires_grad_(trained)
    assert list(sparse_rows(model)) == (["1.0.weight"] if trained else [])
    assert list(sparse_rows(nn.Embedding(3, 2, sparse=True))) == ["weight"]

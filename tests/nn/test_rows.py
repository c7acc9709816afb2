from __future__ import annotations

import pytest
import torch

from seqlab.nn.kernels.library import obstacle
from seqlab.nn.rows import WordEmbedding, coalesced

compiled = pytest.mark.skipif(obstacle() is not None, reason="there is no C++ compiler")
IDS = torch.tensor([[3, 1, 3], [9, 0, 0]])  # 0 is padding


def gradient_of(embedding: WordEmbedding, ids: torch.Tensor = IDS) -> torch.Tensor:
    embedding.weight.grad = None
    found = embedding(ids)
    weights = torch.arange(found.numel(), dtype=torch.float32).view_as(found)
    (found * weights).sum().backward()
    assert embedding.weight.grad is not None
    return embedding.weight.grad


@compiled
@pytest.mark.parametrize("size", [1, 5, 16, 37])
def test_gradients_by_row_are_those_of_a_dense_one(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "native")
    embedding = WordEmbedding(12, size, padding_idx=0)
    dense = gradient_of(embedding)
    assert not dense.is_sparse
    embedding.by_row = True
    by_row = gradient_of(embedding)
    assert by_row.is_sparse
    assert torch.equal(by_row.to_dense(), dense)
    assert coalesced(by_row).indices()[0].tolist() == [1, 3, 9]
    assert torch.equal(embedding(IDS), torch.nn.functional.embedding(IDS, embedding.weight))


@compiled
def test_gradients_of_several_batches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "native")
    embedding = WordEmbedding(12, 4, padding_idx=0)
    embedding.by_row = True
    for ids in (IDS, IDS + 1):
        embedding(ids).sum().backward()
    gradient = embedding.weight.grad
    assert gradient is not None
    assert coalesced(gradient).indices()[0].tolist() == [1, 2, 3, 4, 9, 10]
    assert gradient.to_dense()[1].tolist() == [3.0] * 4  # once in the first, twice in the second


def test_without_compiled_kernels_the_gradient_is_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "plain")
    embedding = WordEmbedding(12, 4, padding_idx=0)
    embedding.by_row = True
    assert not gradient_of(embedding).is_sparse


@compiled
def test_frozen_rows_get_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQLAB_KERNELS", "native")
    embedding = WordEmbedding(12, 4, padding_idx=0)
    embedding.by_row = True
    embedding.weight.requires_grad_(False)
    assert not embedding(IDS).requires_grad


def test_rows_out_of_order_are_sorted() -> None:
    values = torch.arange(6.0).view(3, 2)
    mixed = torch.sparse_coo_tensor(
        torch.tensor([[4, 1, 4]]), values, (6, 2), check_invariants=True
    )
    found = coalesced(mixed)
    assert found.indices()[0].tolist() == [1, 4]
    assert found.values().tolist() == [[2.0, 3.0], [4.0, 6.0]]

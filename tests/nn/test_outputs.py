"""Output layers: tied weights, and copying."""

from __future__ import annotations

import torch
from torch import nn

from seqlab.nn.outputs import CopyGate, TokenOutput


def test_a_tied_output_multiplies_by_the_embeddings() -> None:
    torch.manual_seed(0)
    embedding = nn.Embedding(11, 4)
    output = TokenOutput(6, 11, embedding)
    nn.init.normal_(output.bias)
    features = torch.randn(2, 3, 6)
    assert output.project is not None
    wanted = features @ output.project.weight.t() @ embedding.weight.t() + output.bias
    torch.testing.assert_close(output(features), wanted, rtol=1e-5, atol=1e-5)
    assert "embedding.weight" not in dict(output.named_parameters())
    assert {name for name, _ in output.named_parameters()} == {"project.weight", "bias"}
    output(features).sum().backward()
    assert embedding.weight.grad is not None


def test_a_free_output_has_weights_of_its_own() -> None:
    output = TokenOutput(6, 11)
    assert output.project is None
    features = torch.randn(2, 3, 6)
    torch.testing.assert_close(
        output(features), features @ output.weight.t() + output.bias, rtol=1e-5, atol=1e-5
    )


def test_probabilities_with_copies_sum_to_one_and_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    copies = torch.tensor([0, 3, 3, 2, 1])  # two source tokens become the same target token
    gate = CopyGate(6, copies)
    nn.init.normal_(gate.gate.bias)
    logits, features = torch.randn(2, 3, 7), torch.randn(2, 3, 6)
    source = torch.tensor([[1, 2, 4, 3], [4, 4, 3, 0]])
    attention = torch.rand(2, 3, 4)
    attention[1, :, 3] = 0  # padding
    attention = attention / attention.sum(-1, keepdim=True)
    found = gate(logits, features, attention, source).exp()
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3))

    g = gate.gate(features).sigmoid()
    wanted = (1 - g) * logits.softmax(-1)
    for row in range(2):
        for time in range(3):
            for place in range(4):
                token = copies[source[row, place]]
                wanted[row, time, token] += g[row, time, 0] * attention[row, time, place]
    torch.testing.assert_close(found, wanted)


def test_the_gradient_of_copying_is_finite_where_nothing_is_attended_to() -> None:
    torch.manual_seed(0)
    gate = CopyGate(6, torch.arange(7))
    logits = torch.full((1, 1, 7), -200.0, requires_grad=True)
    attention = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    features = torch.randn(1, 1, 6, requires_grad=True)
    found = gate(logits, features, attention, torch.tensor([[4, 5]]))
    (-found[0, 0, 5] - found[0, 0, 4]).backward()
    for leaf in (logits, attention, features, *gate.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()

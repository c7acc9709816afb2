"""What all models of words share, on a model that does nothing else."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.batch import Batch, Forms, FormTable
from seqlab.errors import RecipeError
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn.encoders import Lookup, RecurrentEncoder
from seqlab.nn.kernels import VARIABLE, library
from seqlab.vocabulary import Vocabulary, word_vocabulary

WORDS = ["the", "cat", "sees", "a", "dog", "."]
SOURCE = word_vocabulary(Counter(WORDS * 2))
TARGET = Vocabulary(["X", "Y"])
SMALL = {"hidden_size": 6, "embedding_size": 5, "character_size": 4, "casing_size": 3}
ENCODER = "seqlab.nn.encoders.RecurrentEncoder"
# Each says something of the recurrent encoder.
SETTINGS: list[dict[str, Any]] = [
    {"cell": "gru"},
    {"cell": "rnn", "nonlinearity": "relu"},
    {"proj_size": 3},
    {"bidirectional": False},
    {"merge": "sum"},
    {"connection": "highway", "num_layers": 2},
    {"recurrent_dropout": 0.2},
    {"zoneout": 0.1},
    {"learned_state": True},
    {"forget_bias": 2.0},
    {"initialisation": "uniform"},
    {"locked_dropout": 0.3, "num_layers": 2},
    {"dropout": 0.2, "num_layers": 3},
]


def model_of(**changes: Any) -> TokenNetwork:
    torch.manual_seed(0)
    return TokenNetwork(SOURCE, TARGET, **{**SMALL, **changes})


def batch_of(*texts: list[str]) -> Batch:
    table = FormTable(SOURCE)
    return table.batch(table.index([w for t in texts for w in t]), [len(t) for t in texts])


def text(tokens: int) -> list[str]:
    return [WORDS[i * i % len(WORDS)] for i in range(tokens)]


@torch.no_grad()
def states(model: TokenNetwork, *texts: list[str]) -> Tensor:
    return model.encode(batch_of(*texts))


def noisy(encoder: Any) -> Tensor:
    """What an encoder gives while training, always with the same draws."""
    torch.manual_seed(3)
    x = torch.randn(2, 5, encoder.forward_layers[0].input_size)
    with torch.no_grad():
        out: Tensor = encoder.train()(x, torch.tensor([5, 2]))
    return out


def differs(encoder: Any, other: RecurrentEncoder) -> bool:
    """Whether two encoders, one with the weights of the other, do not do the same."""
    try:
        other.load_state_dict(encoder.state_dict())
    except RuntimeError:
        return True
    ours, theirs = noisy(encoder), noisy(other)
    return ours.shape != theirs.shape or not torch.equal(ours, theirs)


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_what_is_said_of_the_encoder_makes_the_encoder(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    size = model.embedder.output_size
    common: dict[str, Any] = {"hidden_size": 6, "dropout": 0.5}
    assert not differs(model.encoder, RecurrentEncoder(size, **{**common, **changes}))
    layers = {k: v for k, v in changes.items() if k == "num_layers"}
    of_the_start = {"forget_bias", "initialisation"} & set(changes)  # they have their own tests
    plain = RecurrentEncoder(size, **common, **layers)
    assert differs(model.encoder, plain) != bool(of_the_start)
    assert {name: model.config[name] for name in changes} == changes


def test_the_bias_of_the_forget_gate_is_what_was_asked_for() -> None:
    (layer,) = model_of(forget_bias=3.0).encoder.forward_layers
    assert layer.bias_ih_l0.view(4, 6)[1].tolist() == [3.0] * 6


def test_the_weights_start_as_was_asked_for() -> None:
    def recurrent(**changes: Any) -> Tensor:
        weight = model_of(**changes).encoder.forward_layers[0].weight_hh_l0.detach()
        block: Tensor = weight[:6] @ weight[:6].T
        return block

    torch.testing.assert_close(recurrent(), torch.eye(6))
    assert (recurrent(initialisation="uniform") - torch.eye(6)).abs().max() > 0.1


def test_the_settings_of_the_encoder_are_those_of_the_class_above() -> None:
    encoder = list(inspect.signature(RecurrentEncoder).parameters.values())[1:]
    model = inspect.signature(TokenNetwork).parameters
    for parameter in encoder:
        assert parameter.name in model
        if parameter.name != "dropout":
            assert model[parameter.name].default == parameter.default, parameter.name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cell": "grux"}, "grux"),
        ({"merge": "concatt"}, "model.merge is 'concatt': choose one of concat, sum, mean, prod"),
        ({"hidden_size": 0}, "model.hidden_size is 0: it must be 1 or more."),
        ({"proj_size": -1}, "model.proj_size is -1: it must be 0 or more."),
        ({"casing_size": -1}, "model.casing_size is -1: it must be 0 or more."),
        ({"window": 0}, "model.window is 0: it must be 1 or more."),
        ({"word_dropout": 1.0}, "model.word_dropout is 1.0: it must be 0 or more and less than 1."),
        ({"zoneout": 1.0}, "model.zoneout is 1.0: it must be 0 or more and less than 1."),
    ],
    ids=str,
)
def test_what_makes_no_model_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        model_of(**changes)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"), [("cell", "gru"), ("bidirectional", False), ("zoneout", 0.1)]
)
def test_settings_that_would_do_nothing_beside_another_encoder_are_refused(
    name: str, value: Any
) -> None:
    with pytest.raises(RecipeError) as error:
        model_of(encoder={"class_path": ENCODER, "init_args": {name: value}}, **{name: value})
    assert str(error.value) == (
        f"model.{name} is {value!r}, but belongs to the recurrent encoder that model.encoder "
        "replaces: write it under model.encoder.init_args, or leave it out."
    )
    model = model_of(encoder={"class_path": ENCODER, "init_args": {name: value}})
    assert model.encoder.output_size in (200, 400)


def test_a_configuration_makes_the_model_again() -> None:
    for changes in SETTINGS:
        model = model_of(**changes, averaging=0.9)
        config = json.loads(json.dumps(model.config))
        twin = TokenNetwork(SOURCE, TARGET, **config)
        assert twin.config == config
        twin.load_state_dict(model.state_dict())
        assert torch.equal(states(twin.eval(), text(4)), states(model.eval(), text(4)))


def test_padding_changes_no_state() -> None:
    for changes in SETTINGS:
        model = model_of(**changes).eval()
        rows = [text(6), text(1), text(3)]
        together = states(model, *rows)
        for row, tokens in enumerate(rows):
            torch.testing.assert_close(together[row, : len(tokens)], states(model, tokens)[0])


@pytest.mark.parametrize("window", [1, 7, 64, 299])
def test_long_documents_are_read_in_windows_with_context(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of().eval()
    rows = [text(300), text(90), text(5)]
    whole = states(model, *rows)
    sizes: list[int] = []
    model.encoder.register_forward_pre_hook(lambda _, x: sizes.append(x[0].shape[1]))
    monkeypatch.setattr(model, "window", window)
    parts = states(model, *rows)
    assert len(sizes) == -(-300 // window)
    assert max(sizes) <= window + 2 * 128
    for row, tokens in enumerate(rows):
        size = len(tokens)
        torch.testing.assert_close(parts[row, :size], whole[row, :size], rtol=1e-3, atol=1e-3)


def test_training_reads_documents_whole() -> None:
    model = model_of(window=10, dropout=0.0)
    found = states(model.train(), text(300))
    model.window = 300
    assert torch.equal(states(model.eval(), text(300)), found)


def test_tokens_are_embedded_each_by_itself() -> None:
    model = model_of().eval()
    with torch.no_grad():
        one, other = model.embed(batch_of(["the", "cat"], ["cat", "sees"]))
    assert one.shape == (2, model.embedder.output_size)
    torch.testing.assert_close(one[1], other[0])
    assert not torch.equal(one[0], one[1])


def test_a_message_shows_the_first_words_of_a_batch_as_the_model_sees_them() -> None:
    assert model_of().beginning(batch_of(["The", "unicorn", "sees"], ["a"])) == "the <unk> sees"
    assert model_of().beginning(batch_of(["a"], text(9))) == "a"
    assert len(model_of().beginning(batch_of(text(20))).split()) == 8


def prepared(model: TokenNetwork, *texts: list[str]) -> tuple[Forms, Batch]:
    """A batch of forms that a model was shown before."""
    table = FormTable(SOURCE)
    forms, places = table.forms(table.index([w for t in texts for w in t]), often=True)
    model.prepare(forms)
    return forms, forms.batch(places, [len(t) for t in texts])


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize("window", [2048, 7])
@pytest.mark.parametrize(
    "options",
    [{}, {"characters": "lstm"}, {"characters": "none"}, {"casing_size": 0}, {"cell": "gru"}],
    ids=str,
)
@torch.no_grad()
def test_what_is_prepared_of_forms_changes_no_state(
    options: dict[str, Any], window: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, kernels)
    monkeypatch.setattr("seqlab.networks.tokens._FEW", 1)
    monkeypatch.setattr("seqlab.nn.embedders._GROUP", 3)
    model = model_of(window=window, **options).eval()
    texts = [["the", "cat", "sees", "the", "Unicorn-3", "the"], text(30), ["a"]]
    forms, batch = prepared(model, *texts)
    native = library.obstacle() is None and kernels == "auto" and "cell" not in options
    assert (batch.sums is not None) == native
    assert forms.repeated == 4
    assert forms.vectors is not None
    assert forms.vectors.shape == (6, model.embedder.output_size)
    expected = batch_of(*texts)
    assert expected.vectors is None
    torch.testing.assert_close(
        model.encode(batch)[batch.mask], model.encode(expected)[batch.mask], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(model.embed(batch)[batch.mask], model.embed(expected)[batch.mask])


def test_nothing_is_prepared_while_training() -> None:
    _, batch = prepared(model_of().train(), text(200))
    assert batch.vectors is None
    assert batch.sums is None


@torch.no_grad()
def test_a_model_that_embeds_in_its_own_way_is_asked_for_every_batch() -> None:
    class Louder(TokenNetwork):
        def embed(self, batch: Batch) -> Tensor:
            return 2 * super().embed(batch)

    torch.manual_seed(0)
    words = [f"{a}{b}" for a in "abcdefg" for b in "abcdefg"] * 2  # enough of them for sums
    texts = [words[:60], words[60:]]
    model, plain = Louder(SOURCE, TARGET, **SMALL).eval(), model_of().eval()
    plain.load_state_dict(model.state_dict())
    _, batch = prepared(model, *texts)
    assert batch.vectors is not None
    assert batch.sums is None
    torch.testing.assert_close(model.embed(batch), 2 * plain.embed(batch))
    torch.testing.assert_close(
        model.encode(batch)[batch.mask], model.encode(batch_of(*texts))[batch.mask]
    )
    assert not torch.allclose(model.encode(batch), plain.encode(batch))


@torch.no_grad()
def test_an_encoder_that_reads_in_its_own_way_gets_vectors() -> None:
    class Halved(RecurrentEncoder):
        def forward(self, x: Tensor | Lookup, lengths: Tensor) -> Tensor:
            assert isinstance(x, Tensor)
            return super().forward(x / 2, lengths)

    model = model_of().eval()
    model.encoder = Halved(model.embedder.output_size, 6).eval()
    _, batch = prepared(model, [f"{a}{b}" for a in "abcdefg" for b in "abcdefg"] * 2)
    assert batch.sums is None
    assert model.encode(batch).shape == (1, 98, 12)

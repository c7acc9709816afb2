from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from seqlab.errors import RecipeError
from seqlab.nn.embedders import CharacterCNN, CharacterLSTM, WordEmbedder, uniform_
from seqlab.nn.kernels import VARIABLE

# Five forms of one to four characters; row 0 of every embedding is padding.
SPELLINGS = [[1, 2, 3, 4], [5], [2, 2], [6, 1, 5], [3]]


def padded(rows: list[list[int]], spare: int = 0) -> Tensor:
    width = max(map(len, rows)) + spare
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def character_encoder(kind: type[CharacterCNN | CharacterLSTM], **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(7, 5, 6, **arguments).double()


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_character_cnn_is_a_convolution_and_a_maximum(width: int) -> None:
    cnn = character_encoder(CharacterCNN, width=width)
    assert isinstance(cnn, CharacterCNN)
    kernels = cnn.filters.weight.view(6, width, 5).transpose(1, 2)  # (filter, embedding, width)
    found = cnn(padded(SPELLINGS))
    for row, letters in enumerate(SPELLINGS):
        x = cnn.embedding(torch.tensor([letters])).transpose(1, 2)
        scores = functional.conv1d(x, kernels, cnn.filters.bias, padding=width // 2)
        torch.testing.assert_close(found[row], scores.amax(2)[0])


def test_the_character_lstm_gives_the_last_states_of_packed_sequences() -> None:
    lstm = character_encoder(CharacterLSTM)
    assert isinstance(lstm, CharacterLSTM)
    twin = nn.LSTM(5, 3, batch_first=True, bidirectional=True).double()
    state = {}
    for layers, suffix in (
        (lstm.encoder.forward_layers, ""),
        (lstm.encoder.backward_layers, "_reverse"),
    ):
        state.update({f"{k}{suffix}": v for k, v in layers[0].state_dict().items()})
    twin.load_state_dict(state)
    characters = padded(SPELLINGS, spare=2)
    packed = pack_padded_sequence(
        lstm.embedding(characters), [len(s) for s in SPELLINGS], True, enforce_sorted=False
    )
    _, (last, _) = twin(packed)  # (direction, form, half)
    torch.testing.assert_close(lstm(characters), torch.cat([last[0], last[1]], -1))


def test_an_odd_size_cannot_be_shared_by_two_directions() -> None:
    with pytest.raises(RecipeError) as error:
        embedder(characters="lstm", character_size=5)
    assert str(error.value) == (
        "model.character_size is 5: with `characters: lstm` it must be even, as each direction has "
        "half of it."
    )


@pytest.mark.parametrize("kind", [CharacterCNN, CharacterLSTM])
@pytest.mark.parametrize("spare", [1, 3, 12])
def test_more_padding_columns_change_no_form(
    kind: type[CharacterCNN | CharacterLSTM], spare: int
) -> None:
    encoder = character_encoder(kind)
    torch.testing.assert_close(
        encoder(padded(SPELLINGS, spare)), encoder(padded(SPELLINGS)), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("kind", [CharacterCNN, CharacterLSTM])
def test_a_form_does_not_depend_on_the_others(kind: type[CharacterCNN | CharacterLSTM]) -> None:
    encoder = character_encoder(kind)
    together = encoder(padded(SPELLINGS))
    for row, letters in enumerate(SPELLINGS):
        alone = encoder(torch.tensor([letters]))[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [CharacterCNN, CharacterLSTM])
def test_forms_of_padding_alone_send_back_no_gradient_that_is_no_number(
    kind: type[CharacterCNN | CharacterLSTM],
) -> None:
    encoder = character_encoder(kind)
    encoder(padded([*SPELLINGS, []]))[: len(SPELLINGS)].sum().backward()
    for parameter in encoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def embedder(**changes: Any) -> WordEmbedder:
    arguments: dict[str, Any] = {
        "num_characters": 7,
        "character_embedding_size": 5,
        "character_size": 6,
        "casing_size": 3,
        "num_features": [4, 5],
        "feature_size": 2,
    }
    torch.manual_seed(0)
    return WordEmbedder(9, 4, **{**arguments, **changes}).double()


def fields(spare_time: int = 0, spare_letters: int = 0) -> dict[str, Any]:
    """Two sentences of three and two tokens, whose first and last token are the same form."""

    def row(*ids: int) -> list[int]:
        return [*ids, *[0] * (3 - len(ids) + spare_time)]

    return {
        "source": torch.tensor([row(2, 3, 8), row(1, 2)]),
        "forms": torch.tensor([row(0, 1, 2), row(3, 0)]),
        "characters": padded(SPELLINGS[:4], spare_letters),
        "casing": torch.tensor([1, 2, 3, 7]),
        "features": [
            torch.tensor([row(1, 2, 3), row(3, 1)]),
            torch.tensor([row(4, 3, 2), row(1, 2)]),
        ],
    }


@pytest.mark.parametrize("characters", ["cnn", "lstm"])
def test_a_token_is_its_word_characters_casing_and_features(characters: Any) -> None:
    layer = embedder(characters=characters)
    batch = fields()
    found = layer(**batch)
    assert found.shape == (2, 3, layer.output_size)
    assert layer.output_size == 4 + 6 + 3 + 2 * 2
    assert layer.characters is not None
    assert layer.casing is not None
    for row, position in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        form = int(batch["forms"][row, position])
        expected = [
            layer.words.weight[batch["source"][row, position]],
            layer.characters(torch.tensor([SPELLINGS[form]]))[0],
            layer.casing.weight[batch["casing"][form]],
            *(
                part.get_parameter("weight")[ids[row, position]]
                for part, ids in zip(layer.features, batch["features"], strict=True)
            ),
        ]
        torch.testing.assert_close(found[row, position], torch.cat(expected))


@pytest.mark.parametrize("characters", ["cnn", "lstm"])
def test_padding_changes_no_token(characters: Any) -> None:
    layer = embedder(characters=characters)
    found = layer(**fields())
    wide = layer(**fields(spare_time=4, spare_letters=7))
    assert wide.shape[1] == 7
    torch.testing.assert_close(wide[0, :3], found[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(wide[1, :2], found[1, :2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("characters", ["cnn", "lstm"])
@pytest.mark.parametrize("count", [63, 64, 65])
def test_rounding_the_number_of_forms_up_changes_nothing(characters: Any, count: int) -> None:
    layer = embedder(characters=characters, casing_size=0, num_features=[])
    forms = torch.arange(count).unsqueeze(0)
    spellings = padded([SPELLINGS[i % 5] for i in range(count)])
    found = layer(torch.ones_like(forms), forms, spellings, torch.ones(count, dtype=torch.int64))
    assert layer.characters is not None
    torch.testing.assert_close(found[0, :, 4:], layer.characters(spellings))


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"characters": "none"}, 11),
        ({"num_characters": 0}, 11),
        ({"casing_size": 0}, 14),
        ({"num_features": []}, 13),
        ({"characters": "none", "casing_size": 0, "num_features": []}, 4),
    ],
)
def test_parts_can_be_left_out(changes: dict[str, Any], size: int) -> None:
    layer = embedder(**changes)
    batch = fields()
    batch["features"] = batch["features"] if changes.get("num_features") != [] else []
    assert layer.output_size == size
    assert layer(**batch).shape == (2, 3, size)


def test_a_missing_feature_column_is_an_error() -> None:
    batch = fields()
    batch["features"] = batch["features"][:1]
    with pytest.raises(ValueError, match="shorter"):
        embedder()(**batch)


def test_pretrained_vectors_go_where_there_are_some() -> None:
    layer = embedder()
    before = layer.words.weight.detach().clone()
    vectors = torch.full((9, 4), torch.nan)
    vectors[3] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    vectors[8] = 5.0
    layer.set_vectors(vectors)
    after = layer.words.weight.detach()
    assert after[3].tolist() == [1, 2, 3, 4]
    assert after[8].tolist() == [5, 5, 5, 5]
    rest = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(after[rest], before[rest])
    assert layer.words.weight.requires_grad


def test_sparse_rows_have_the_gradients_of_dense_ones() -> None:
    dense, sparse = embedder(), embedder(sparse=True)
    sparse.load_state_dict(dense.state_dict())
    for layer in (dense, sparse):
        (layer(**fields()) ** 2).sum().backward()
    assert sparse.words.weight.grad is not None
    assert sparse.words.weight.grad.is_sparse
    torch.testing.assert_close(sparse.words.weight.grad.to_dense(), dense.words.weight.grad)


def test_padding_rows_learn_nothing() -> None:
    layer = embedder(num_features=[4, 5])
    layer(**fields(spare_time=2, spare_letters=2)).sum().backward()
    assert isinstance(layer.characters, CharacterCNN)
    for part in (layer.words, layer.characters.embedding, *layer.features):
        gradient = part.get_parameter("weight").grad
        assert gradient is not None
        assert (gradient[0] == 0).all()
        assert (gradient[1:] != 0).any()


def test_character_dropout_works_in_training_only() -> None:
    layer = embedder(character_dropout=0.5)
    first, second = layer(**fields()), layer(**fields())
    assert torch.equal(first[..., :4], second[..., :4])
    assert not torch.equal(first[..., 4:10], second[..., 4:10])
    assert torch.equal(first[..., 10:], second[..., 10:])
    layer.eval()
    assert torch.equal(layer(**fields()), layer(**fields()))


def test_embeddings_start_uniform_with_a_row_of_zeros() -> None:
    weight = torch.empty(2000, 12)
    uniform_(weight)
    assert (weight[0] == 0).all()
    assert weight.abs().max() <= 0.5
    assert weight[1:].var().item() == pytest.approx(1 / 12, rel=0.05)  # (2 * 0.5) ** 2 / 12


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("characters", ["cnn", "lstm", "none"])
@torch.no_grad()
def test_forms_that_are_embedded_ahead_give_the_same_tokens(
    characters: Any, dtype: torch.dtype, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, kernels)
    monkeypatch.setattr("seqlab.nn.embedders._GROUP", 2)
    torch.manual_seed(2)
    embedder = WordEmbedder(
        9, 4, num_characters=7, characters=characters, character_size=6, casing_size=3,
        num_features=[5], feature_size=2,
    ).to(dtype)  # fmt: skip
    spellings = padded(SPELLINGS, spare=3)
    words, casing = torch.tensor([8, 1, 3, 3, 5]), torch.tensor([1, 2, 1, 7, 3])
    forms = torch.tensor([[0, 1, 4], [3, 2, 1]])
    features = [torch.tensor([[1, 2, 3], [4, 0, 1]])]
    vectors = embedder.of_forms(words, spellings, casing)
    assert vectors.shape == (5, embedder.output_size - 2)
    expected = embedder(words[forms], forms, spellings, casing, features)
    torch.testing.assert_close(embedder.look_up(vectors, forms, features), expected)


@pytest.mark.parametrize("kernels", ["auto", "plain"])
def test_characters_of_many_forms_are_read_some_at_a_time_and_without_their_padding(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, kernels)
    monkeypatch.setattr("seqlab.nn.embedders._GROUP", 64)
    embedder = WordEmbedder(9, 4, num_characters=7, characters="lstm", character_size=6)
    assert embedder.characters is not None
    seen = []
    embedder.characters.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape)))
    spellings = torch.zeros(130, 50, dtype=torch.int64)
    spellings[:, 0] = 1
    spellings[7] = 2
    vectors = embedder.of_forms(torch.ones(130, dtype=torch.int64), spellings, torch.ones(130))
    assert seen == [(64, 1), (64, 1), (64, 50)]  # the last two of them, rounded up
    rest = torch.arange(130) != 7
    assert torch.equal(vectors[rest], vectors[:1].expand(129, -1))
    assert not torch.allclose(vectors[7], vectors[0])

"""Embedders: words, their characters, their casing and extra columns -> ``(batch, time, dim)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqlab.errors import RecipeError
from seqlab.nn.characters import largest_sums
from seqlab.nn.dropout import Dropout
from seqlab.nn.encoders import BiLSTM
from seqlab.nn.kernels import chosen
from seqlab.nn.pooling import LastPooling
from seqlab.nn.rows import WordEmbedding

_ROWS = 64  # the number of forms is rounded up, so that the CPU's matrix kernels meet few shapes
_GROUP = 1024  # forms whose characters are read at once, where all of them may be many


def uniform_(weight: Tensor) -> None:
    """Fill an embedding with the uniform values of Ma and Hovy (2016), its padding with zeros."""
    bound = (3.0 / weight.shape[1]) ** 0.5
    with torch.no_grad():
        weight.uniform_(-bound, bound)
        weight[0].zero_()


class CharacterCNN(nn.Module):
    """Convolution over the characters of a word, and the largest value of each filter.

    Ma and Hovy (2016), section 2.1. The convolution is one matrix product over windows.

    Args:
        num_characters: number of rows of the character embedding, padding included.
        embedding_size: size of a character's embedding.
        output_size: number of filters.
        width: characters in a window; odd.
        dropout: probability of dropping an element of the characters' embeddings.
    """

    def __init__(
        self,
        num_characters: int,
        embedding_size: int = 30,
        output_size: int = 50,
        width: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.width = width
        self.embedding = nn.Embedding(num_characters, embedding_size, padding_idx=0)
        uniform_(self.embedding.weight)
        self.dropout = Dropout(dropout)
        self.filters = nn.Linear(width * embedding_size, output_size)
        nn.init.xavier_uniform_(self.filters.weight)

    def forward(self, characters: Tensor) -> Tensor:
        """Map ``characters (form, character)``, 0 = padding, to ``(form, output_size)``."""
        if self._by_table(characters):
            return largest_sums(characters, self._table(), self.filters.bias)
        x = self.dropout(self.embedding(characters))  # (form, character, embedding)
        side = self.width // 2
        x = functional.pad(x, (0, 0, side, side))
        time = characters.shape[1]
        windows = torch.cat([x[:, i : i + time] for i in range(self.width)], -1)
        scores: Tensor = self.filters(windows)  # (form, character, filter)
        scores = scores.masked_fill((characters == 0).unsqueeze(-1), torch.finfo(scores.dtype).min)
        return scores.amax(1)

    def _by_table(self, characters: Tensor) -> bool:
        """Say whether characters may go through the filters each once, and whether that is less."""
        weight = self.embedding.weight
        return (
            not (self.training and self.dropout.p)  # which is drawn for each occurrence
            and weight.device.type == "cpu"  # on a GPU sums by index have no fixed order
            and weight.shape[0] <= characters.numel()
        )

    def _table(self) -> Tensor:
        """What each character adds to each filter at each place of the window."""
        with torch.autocast("cpu", enabled=False):
            filters = self.filters.weight.view(self.output_size, self.width, -1)
            table = self.embedding.weight @ filters.flatten(0, 1).t()  # (character, filter * width)
        return table.view(-1, self.output_size, self.width).transpose(1, 2)


class CharacterLSTM(nn.Module):
    """The last states of a bidirectional LSTM over the characters of a word (Lample et al., 2016).

    Args:
        num_characters: number of rows of the character embedding, padding included.
        embedding_size: size of a character's embedding.
        output_size: size of both directions together; even.
        dropout: probability of dropping an element of the characters' embeddings.

    Raises:
        RecipeError: the output size is odd.
    """

    def __init__(
        self,
        num_characters: int,
        embedding_size: int = 30,
        output_size: int = 50,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if output_size % 2:
            raise RecipeError(
                f"model.character_size is {output_size}: with `characters: lstm` it must be even, "
                "as each direction has half of it."
            )
        self.output_size = output_size
        self.embedding = nn.Embedding(num_characters, embedding_size, padding_idx=0)
        uniform_(self.embedding.weight)
        self.dropout = Dropout(dropout)
        self.encoder = BiLSTM(embedding_size, output_size // 2)
        self.pooling = LastPooling(output_size, output_size // 2)

    def forward(self, characters: Tensor) -> Tensor:
        """Map ``characters (form, character)``, 0 = padding, to ``(form, output_size)``."""
        mask = characters != 0
        lengths = mask.sum(1).clamp_(min=1)
        states = self.encoder(self.dropout(self.embedding(characters)), lengths)
        return self.pooling(states, mask)[0]  # type: ignore[no-any-return]


class WordEmbedder(nn.Module):
    """Word vectors beside characters, casing and feature columns, concatenated.

    Everything that depends on the word form alone is computed once for each distinct form.

    Args:
        num_words: number of rows of the word embedding, padding and unknown included.
        embedding_size: size of a word's embedding.
        num_characters: number of rows of the character embedding; 0 leaves characters out.
        characters: ``cnn``, ``lstm`` or ``none``.
        character_embedding_size: size of a character's embedding.
        character_size: size of what the characters of a word become.
        character_dropout: probability of dropping an element of the characters' embeddings.
        casing_size: size of the casing embedding; 0 leaves it out.
        num_casings: number of kinds of casing.
        num_features: number of rows of each feature column's embedding.
        feature_size: size of each feature column's embedding.
        sparse: give the word embedding sparse gradients (only the rows of the batch are touched).

    Attributes:
        output_size: the sizes of all parts together.
    """

    def __init__(
        self,
        num_words: int,
        embedding_size: int = 100,
        *,
        num_characters: int = 0,
        characters: Literal["cnn", "lstm", "none"] = "cnn",
        character_embedding_size: int = 30,
        character_size: int = 50,
        character_dropout: float = 0.0,
        casing_size: int = 0,
        num_casings: int = 8,
        num_features: Sequence[int] = (),
        feature_size: int = 20,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.words = WordEmbedding(num_words, embedding_size, padding_idx=0, sparse=sparse)
        uniform_(self.words.weight)
        self.characters: CharacterCNN | CharacterLSTM | None = None
        sizes = (num_characters, character_embedding_size, character_size)
        if characters == "cnn" and num_characters:
            self.characters = CharacterCNN(*sizes, dropout=character_dropout)
        elif characters == "lstm" and num_characters:
            self.characters = CharacterLSTM(*sizes, dropout=character_dropout)
        self.casing = nn.Embedding(num_casings, casing_size) if casing_size else None
        self.features = nn.ModuleList(
            nn.Embedding(rows, feature_size, padding_idx=0) for rows in num_features
        )
        self.output_size = (
            embedding_size
            + (self.characters.output_size if self.characters is not None else 0)
            + casing_size
            + feature_size * len(self.features)
        )

    def set_vectors(self, vectors: Tensor) -> None:
        """Put pretrained vectors into the word rows.

        Args:
            vectors: ``(word, embedding)``; rows that hold NaN keep their random values.
        """
        given = ~vectors.isnan().any(1)
        with torch.no_grad():
            self.words.weight[given] = vectors[given].to(self.words.weight)

    def forward(
        self,
        source: Tensor,
        forms: Tensor,
        characters: Tensor,
        casing: Tensor,
        features: Sequence[Tensor] = (),
    ) -> Tensor:
        """Embed a batch; the arguments are the fields of :class:`seqlab.batch.Batch`.

        Returns:
            ``(batch, time, output_size)``.
        """
        parts = [self.words(source)]
        by_form = self._written(characters, casing)
        if by_form:
            parts.append(functional.embedding(forms, torch.cat(by_form, -1)))
        parts.extend(embedding(ids) for embedding, ids in zip(self.features, features, strict=True))
        return torch.cat(parts, -1)  # (batch, time, output_size)

    def of_forms(self, words: Tensor, characters: Tensor, casing: Tensor) -> Tensor:
        """Embed word forms by themselves, for :meth:`look_up`.

        Args:
            words: ``(form,)`` ids.
            characters: ``(form, character)`` ids.
            casing: ``(form,)``.

        Returns:
            ``(form, dim)``: all of their embedding but for feature columns.
        """
        parts = [self.words(words)]
        compiled = parts[0].dtype == torch.float32 and chosen(parts[0]) == "native"
        if compiled and not isinstance(self.characters, CharacterLSTM):  # padding takes no room
            return torch.cat([*parts, *self._written(characters, casing)], -1)
        order = (characters != 0).sum(1).argsort()  # (form,): like lengths side by side
        groups = [
            self._written(_trimmed(characters[some]), casing[some])
            for some in torch.split(order, _GROUP)
        ]
        parts.extend(torch.cat(group)[order.argsort()] for group in zip(*groups, strict=True))
        return torch.cat(parts, -1)

    def look_up(self, vectors: Tensor, forms: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """Embed a batch whose word forms are embedded already; equal to calling the module.

        Args:
            vectors: ``(form, dim)`` of :meth:`of_forms`.
            forms: ``(batch, time)``, for every token its row among them.
            features: one ``(batch, time)`` tensor for each feature column.

        Returns:
            ``(batch, time, output_size)``.
        """
        x = functional.embedding(forms, vectors)
        parts = [embedding(ids) for embedding, ids in zip(self.features, features, strict=True)]
        return torch.cat([x, *parts], -1) if parts else x

    def _written(self, characters: Tensor, casing: Tensor) -> list[Tensor]:
        """What the characters and the casing of word forms become, each ``(form, size)``."""
        parts: list[Tensor] = []
        if self.characters is not None:
            rows = characters.shape[0]
            spare = -rows % _ROWS if characters.device.type == "cpu" else 0
            padded = functional.pad(characters, (0, 0, 0, spare))
            parts.append(self.characters(padded)[:rows])  # (form, character_size)
        if self.casing is not None:
            parts.append(self.casing(casing))
        return parts


def _trimmed(characters: Tensor) -> Tensor:
    """Leave out the padding that all forms of ``(form, character)`` share, but for one column."""
    used = (characters != 0).any(0).sum()
    return characters[:, : max(1, int(used))]

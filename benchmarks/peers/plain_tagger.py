"""The tagger that everybody writes: plain PyTorch and pytorch-crf, batches as they come.

A character CNN on all tokens, a packed `nn.LSTM` in both directions, `nn.Dropout`, `torchcrf.CRF`,
random batches of 32, and `torch.optim.Adam` as it comes. Takes orders as `worker.py` says.
"""

from __future__ import annotations

import random
import time
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from steps import Watch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from worker import Sentence, SkippedError, count, read, serve

try:
    import torchcrf
except ImportError:
    torchcrf = None

BATCH = 32
LONGEST = 40  # characters of a word that are looked at


class PlainBatch(NamedTuple):
    """Sentences side by side; 0 is padding.

    Attributes:
        words: ``(batch, time)`` ids.
        characters: ``(batch, time, character)`` ids.
        lengths: ``(batch,)`` tokens.
        tags: ``(batch, time)`` ids.
    """

    words: Tensor
    characters: Tensor
    lengths: Tensor
    tags: Tensor

    @property
    def mask(self) -> Tensor:
        """``(batch, time)`` True at real tokens."""
        return torch.arange(self.words.shape[1]) < self.lengths[:, None]


class Ids:
    """Numbers for words, characters and tags, learnt from the training split."""

    def __init__(self, sentences: list[Sentence]) -> None:
        self.words, self.characters = {"": 0, "?": 1}, {"": 0, "?": 1}
        self.tags: dict[str, int] = {}
        for sentence in sentences:
            for word, tag in zip(*sentence, strict=True):
                self.words.setdefault(word.lower(), len(self.words))
                self.tags.setdefault(tag, len(self.tags))
                for character in word:
                    self.characters.setdefault(character, len(self.characters))
        self.names = list(self.tags)


class Encoded:
    """Sentences as numbers, looked up once: an epoch then only pads.

    Args:
        sentences: the sentences.
        ids: what their words and tags are.
    """

    def __init__(self, sentences: list[Sentence], ids: Ids) -> None:
        forms: dict[str, int] = {"": 0}  # padding is a word without characters
        for sentence in sentences:
            for word in sentence.words:
                forms.setdefault(word, len(forms))
        self.words = [
            torch.tensor([ids.words.get(w.lower(), 1) for w in s.words]) for s in sentences
        ]
        self.forms = [torch.tensor([forms[w] for w in s.words]) for s in sentences]
        self.tags = [torch.tensor([ids.tags.get(tag, 0) for tag in s.tags]) for s in sentences]
        letters = [[ids.characters.get(c, 1) for c in form[:LONGEST]] for form in forms]
        self.sizes = torch.tensor([len(row) for row in letters])
        real = torch.arange(int(self.sizes.max())) < self.sizes[:, None]
        self.letters = torch.zeros(real.shape, dtype=torch.long)  # (form, character)
        self.letters[real] = torch.tensor([c for row in letters for c in row])

    def batch(self, rows: list[int]) -> PlainBatch:
        """Pad sentences to the longest of them, and words too."""
        lengths = torch.tensor([len(self.words[row]) for row in rows])
        forms = pad_sequence([self.forms[row] for row in rows], batch_first=True)
        characters = self.letters[forms, : int(self.sizes[forms].max())]
        words = pad_sequence([self.words[row] for row in rows], batch_first=True)
        tags = pad_sequence([self.tags[row] for row in rows], batch_first=True)
        return PlainBatch(words, characters, lengths, tags)


class Embedder(nn.Module):
    """Word embeddings of 100 beside a character CNN of 30 filters, three characters wide."""

    def __init__(self, num_words: int, num_characters: int) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, 100, padding_idx=0)
        self.characters = nn.Embedding(num_characters, 30, padding_idx=0)
        self.convolution = nn.Conv1d(30, 30, 3, padding=1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, words: Tensor, characters: Tensor) -> Tensor:
        """Return ``(batch, time, 130)``."""
        letters = self.characters(characters.flatten(0, 1))  # (token, character, 30)
        spelling = self.convolution(letters.transpose(1, 2)).max(2).values  # (token, 30)
        spelling = spelling.view(*words.shape, -1)
        return self.dropout(torch.cat([self.words(words), spelling], -1))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """A packed LSTM of 200 in each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(130, 200, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(batch, time, 400)``."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.dropout(states)  # type: ignore[no-any-return]


class PlainTagger(nn.Module):
    """Embedder, encoder, a linear layer and pytorch-crf."""

    def __init__(self, ids: Ids) -> None:
        super().__init__()
        self.embedder = Embedder(len(ids.words), len(ids.characters))
        self.encoder = Encoder()
        self.emit = nn.Linear(400, len(ids.tags))
        self.crf = torchcrf.CRF(len(ids.tags), batch_first=True)

    def emissions(self, batch: PlainBatch) -> Tensor:
        """Return ``(batch, time, tag)``."""
        x = self.embedder(batch.words, batch.characters)
        return self.emit(self.encoder(x, batch.lengths))  # type: ignore[no-any-return]

    def loss(self, batch: PlainBatch) -> Tensor:
        """Return the mean negative log-likelihood of a sentence."""
        return -self.crf(self.emissions(batch), batch.tags, batch.mask, reduction="mean")  # type: ignore[no-any-return]


class Plain:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the splits.
        threads: of torch.
    """

    def __init__(self, corpus: str, threads: int) -> None:
        if torchcrf is None:
            raise SkippedError("pytorch-crf is not installed: run `pip install pytorch-crf`.")
        torch.set_num_threads(threads)
        self.versions = {"pytorch-crf": version("pytorch-crf")}
        self.corpus = corpus
        self.sentences = read(corpus, "train")
        self.ids = Ids(self.sentences)
        self.encoded = Encoded(self.sentences, self.ids)

    def _batches(self, seed: int, count: int) -> list[list[int]]:
        order = list(range(len(self.sentences)))
        random.Random(seed).shuffle(order)
        return [order[i : i + BATCH] for i in range(0, len(order), BATCH)][:count]

    def train(self, seed: int, batches: int, watched: bool = False) -> dict[str, Any]:
        """Train on some batches of an epoch.

        Args:
            seed: of the weights and of the order of the sentences.
            batches: how many of them.
            watched: time the parts of a step too.
        """
        torch.manual_seed(seed)
        model = PlainTagger(self.ids).train()
        optimizer = torch.optim.Adam(model.parameters())
        watch = Watch(model if watched else None)
        tokens, chosen, start = 0, self._batches(seed, batches), time.perf_counter()
        for rows in chosen:
            batch = self.encoded.batch(rows)
            watch.lap("batch")
            loss = model.loss(batch)
            watch.lap("rest of forward")
            loss.backward()
            watch.lap("embedder, backward")
            optimizer.step()
            optimizer.zero_grad()
            watch.lap("optimizer")
            tokens += int(batch.lengths.sum())
        seconds = time.perf_counter() - start
        return {"tokens": tokens, "seconds": seconds, "steps": len(chosen), "parts": watch.parts}

    @torch.no_grad()
    def predict(self, seed: int) -> dict[str, Any]:
        """Tag the test split, from words to tags, 32 sentences at a time as they come."""
        torch.manual_seed(seed)
        model = PlainTagger(self.ids).eval()
        sentences = [Sentence(s.words, []) for s in read(self.corpus, "test")]
        found: list[list[str]] = []
        start = time.perf_counter()
        for first in range(0, len(sentences), BATCH):
            part = sentences[first : first + BATCH]
            batch = Encoded(part, self.ids).batch(list(range(len(part))))
            best = model.crf.decode(model.emissions(batch), batch.mask)
            found += [[self.ids.names[tag] for tag in row] for row in best]
        seconds = time.perf_counter() - start
        assert [len(tags) for tags in found] == [len(s.words) for s in sentences]
        return {"tokens": count(sentences), "seconds": seconds}


if __name__ == "__main__":
    serve(Plain)

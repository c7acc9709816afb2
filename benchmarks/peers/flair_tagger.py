"""flair's SequenceTagger as a contender; runs under a Python that has flair.

Words of 100, one a form, beside flair's own character LSTM; one LSTM of 200 in each direction; its
CRF; SGD, as flair trains. Takes orders as `worker.py` says.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worker import Sentence, SkippedError, count, read, serve

BATCH = 32


class Flair:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the splits.
        threads: of torch.
    """

    def __init__(self, corpus: str, threads: int) -> None:
        try:
            import flair
            import torch
        except ImportError:
            raise SkippedError(
                "flair is not installed for this Python: make an environment with `pip install "
                "flair`, and name its Python as in `--peer-python flair=ENV/bin/python`."
            ) from None
        torch.set_num_threads(threads)
        flair.device = torch.device("cpu")
        self.versions = {"flair": f"{flair.__version__} (torch {torch.__version__})"}
        self.splits = {part: read(corpus, part) for part in ("train", "validation", "test")}

    def _corpus(self, sentences: list[Sentence]) -> Any:
        from flair.data import Corpus
        from flair.datasets import FlairDatapointDataset

        parts = {"train": sentences, "dev": self.splits["validation"][:BATCH]}
        sets = {name: FlairDatapointDataset(_labelled(part)) for name, part in parts.items()}
        return Corpus(**sets, test=sets["dev"], sample_missing_splits=False)

    def _dictionary(self, items: Iterable[str], unknown: bool) -> Any:
        from flair.data import Dictionary

        found = Dictionary(add_unk=unknown)
        for item in items:
            found.add_item(item)
        return found

    def _tagger(self, folder: Path) -> Any:
        """Make a tagger that knows what is in the whole training split."""
        from flair.embeddings import CharacterEmbeddings, OneHotEmbeddings, StackedEmbeddings
        from flair.models import SequenceTagger

        words = [word for sentence in self.splits["train"] for word in sentence.words]
        tags = [tag for sentence in self.splits["train"] for tag in sentence.tags]
        characters = str(folder / "characters")  # flair's own list of them is a download
        self._dictionary("".join(words), unknown=True).save(characters)
        rows = OneHotEmbeddings(self._dictionary(words, unknown=True), embedding_length=100)
        return SequenceTagger(
            embeddings=StackedEmbeddings([rows, CharacterEmbeddings(characters)]),
            tag_dictionary=self._dictionary(tags, unknown=False),
            tag_type="pos",
            hidden_size=200,
            rnn_layers=1,
            reproject_embeddings=False,
            use_crf=True,
            dropout=0.5,
            word_dropout=0.0,
            locked_dropout=0.0,
        )

    def train(self, seed: int, sentences: int) -> dict[str, Any]:
        """Train on some sentences once, and count the time of flair's own loop.

        Args:
            seed: chooses the sentences.
            sentences: how many of them.
        """
        from flair.trainers import ModelTrainer

        chosen = _chosen(self.splits["train"], seed, sentences)
        corpus = self._corpus(chosen)
        clock = _clock()
        with tempfile.TemporaryDirectory() as folder:
            ModelTrainer(self._tagger(Path(folder)), corpus).train(
                folder,
                learning_rate=0.1,
                mini_batch_size=BATCH,
                max_epochs=1,
                embeddings_storage_mode="none",
                monitor_test=False,
                save_final_model=False,
                plugins=[clock],
            )
        return {"tokens": count(chosen), "seconds": clock.seconds}

    def predict(self, seed: int) -> dict[str, Any]:
        """Tag the test split, from words to tags, with a new tagger."""
        import flair

        flair.set_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            tagger = self._tagger(Path(folder)).eval()
        start = time.perf_counter()
        sentences = [flair.data.Sentence(s.words) for s in self.splits["test"]]
        tagger.predict(sentences, mini_batch_size=BATCH, embedding_storage_mode="none")
        found = [[token.get_label("pos").value for token in s] for s in sentences]
        seconds = time.perf_counter() - start
        assert [len(tags) for tags in found] == [len(s.words) for s in self.splits["test"]]
        return {"tokens": count(self.splits["test"]), "seconds": seconds}


def _labelled(sentences: list[Sentence]) -> list[Any]:
    from flair.data import Sentence as FlairSentence

    found = []
    for words, tags in sentences:
        found.append(FlairSentence(words))
        for token, tag in zip(found[-1], tags, strict=True):
            token.add_label("pos", tag)
    return found


def _chosen(sentences: list[Sentence], seed: int, wanted: int) -> list[Sentence]:
    """Take some sentences in a row; other ones for another seed, as far as there are enough."""
    first = seed * wanted % max(1, len(sentences) - wanted)
    return sentences[first : first + wanted]


def _clock() -> Any:
    from flair.trainers.plugins import TrainerPlugin

    class Clock(TrainerPlugin):  # type: ignore[misc]
        """Times flair's epochs, without what it evaluates and writes after them."""

        started, seconds = 0.0, 0.0

        @TrainerPlugin.hook
        def before_training_epoch(self, **_: Any) -> None:
            """Start the clock."""
            self.started = time.perf_counter()

        @TrainerPlugin.hook
        def after_training_epoch(self, **_: Any) -> None:
            """Stop the clock."""
            self.seconds += time.perf_counter() - self.started

    return Clock()


if __name__ == "__main__":
    serve(Flair)

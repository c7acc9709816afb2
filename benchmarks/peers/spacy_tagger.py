"""spaCy's tok2vec and tagger as a contender; runs under a Python that has spaCy.

Its own small convolutional network over hashed words and a softmax for each token: no LSTM, no
characters, no CRF. Takes orders as `worker.py` says.
"""

from __future__ import annotations

import random
import time
from typing import Any

from worker import Sentence, SkippedError, count, read, serve


class Spacy:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the splits.
        threads: ignored, as spaCy's products of matrices use one; said by the environment.
    """

    def __init__(self, corpus: str, threads: int) -> None:
        try:
            import spacy
        except ImportError:
            raise SkippedError(
                "spaCy is not installed for this Python: make an environment with `pip install "
                "spacy`, and name its Python as in `--peer-python spacy=ENV/bin/python`."
            ) from None
        self.versions = {"spacy": spacy.__version__}
        self.splits = {part: read(corpus, part) for part in ("train", "test")}

    def _pipeline(self, examples: list[Any], seed: int) -> Any:
        import spacy

        spacy.util.fix_random_seed(seed)
        language = spacy.blank("en")
        language.add_pipe("tok2vec")
        listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96}
        model = {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}
        language.add_pipe("tagger", config={"model": model})
        language.initialize(lambda: examples)
        return language

    def _examples(self, sentences: list[Sentence]) -> list[Any]:
        import spacy
        from spacy.tokens import Doc
        from spacy.training import Example

        vocab = spacy.blank("en").vocab
        return [
            Example(Doc(vocab, words=words), Doc(vocab, words=words, tags=tags))
            for words, tags in sentences
        ]

    def train(self, seed: int, sentences: int) -> dict[str, Any]:
        """Train on some sentences once, in batches of about 1,000 words as spaCy's quickstart does.

        Args:
            seed: chooses the sentences.
            sentences: how many of them.
        """
        from spacy.training.batchers import minibatch_by_words

        chosen = random.Random(seed).sample(
            self.splits["train"], min(sentences, len(self.splits["train"]))
        )
        examples = self._examples(chosen)
        language = self._pipeline(examples, seed)
        optimizer = language.create_optimizer()
        start = time.perf_counter()
        for batch in minibatch_by_words(examples, size=1000, tolerance=0.2):
            language.update(batch, sgd=optimizer, drop=0.1)
        return {"tokens": count(chosen), "seconds": time.perf_counter() - start}

    def predict(self, seed: int) -> dict[str, Any]:
        """Tag the test split, from words to tags, with a new pipeline."""
        from spacy.tokens import Doc

        language = self._pipeline(self._examples(self.splits["train"][:200]), seed)
        start = time.perf_counter()
        documents = [Doc(language.vocab, words=s.words) for s in self.splits["test"]]
        found = [[t.tag_ for t in d] for d in language.pipe(documents, batch_size=256)]
        seconds = time.perf_counter() - start
        assert [len(tags) for tags in found] == [len(s.words) for s in self.splits["test"]]
        return {"tokens": count(self.splits["test"]), "seconds": seconds}


if __name__ == "__main__":
    serve(Spacy)

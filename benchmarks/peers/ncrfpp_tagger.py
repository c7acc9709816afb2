"""NCRF++ as a contender, from a checkout of its repository: its own command, its own figures.

It is no package: https://github.com/jiesutd/NCRFpp. The same architecture: words of 100, a
character CNN of 30, an LSTM of 200 in both directions, a CRF. Takes orders as `worker.py` says.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from worker import Sentence, SkippedError, count, read, serve

SETTINGS = """\
train_dir={folder}/train
dev_dir={folder}/validation
test_dir={folder}/test
model_dir={folder}/model
seg=False
word_emb_dim=100
char_emb_dim=30
use_crf=True
use_char=True
word_seq_feature=LSTM
char_seq_feature=CNN
optimizer=Adam
iteration=1
batch_size=32
ave_batch_loss=True
cnn_layer=1
char_hidden_dim=30
hidden_dim=200
dropout=0.5
lstm_layer=1
bilstm=True
learning_rate=0.002
lr_decay=0
l2=0
"""


class Ncrfpp:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the splits.
        threads: said by the environment.
        checkout: folder of NCRF++.
    """

    def __init__(self, corpus: str, threads: int, checkout: str) -> None:
        self.main = Path(checkout) / "main.py"
        if not self.main.is_file():
            raise SkippedError(f"there is no {self.main}: name a checkout of NCRF++.")
        self.versions: dict[str, str] = {}
        self.corpus = corpus

    def train(self, seed: int, sentences: int) -> dict[str, Any]:
        """Train on some sentences once; the speed is the one that it prints.

        Args:
            seed: chooses the sentences.
            sentences: how many of them.
        """
        train = read(self.corpus, "train")
        first = seed * sentences % max(1, len(train) - sentences)
        chosen = train[first : first + sentences]
        return _timed(self._run(chosen), r"Epoch: 0 training finished.*speed: ([\d.]+)st/s", chosen)

    def predict(self, seed: int) -> dict[str, Any]:
        """Tag the test split; it prints the speed of this without that of looking words up."""
        printed = self._run(read(self.corpus, "train")[: 32 * (seed + 1)])
        return _timed(printed, r"Test: .*speed: ([\d.]+)st/s", read(self.corpus, "test"))

    def _run(self, train: list[Sentence]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            parts = {"train": train, "validation": read(self.corpus, "validation")[:32]}
            for name, part in {**parts, "test": read(self.corpus, "test")}.items():
                lines = ("\n".join(map(" ".join, zip(*each, strict=True))) for each in part)
                (Path(folder) / name).write_text("\n\n".join(lines) + "\n\n", encoding="utf-8")
            settings = Path(folder) / "settings"
            settings.write_text(SETTINGS.format(folder=folder), encoding="utf-8")
            command = [sys.executable, str(self.main.resolve()), "--config", str(settings)]
            done = subprocess.run(
                command, cwd=self.main.parent, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise SkippedError(f"{self.main} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
        return done.stdout


def _timed(printed: str, pattern: str, sentences: list[Sentence]) -> dict[str, Any]:
    """Turn the sentences a second that it prints into tokens and seconds."""
    found = re.search(pattern, printed)
    if found is None:
        raise SkippedError(f"NCRF++ did not print its speed ({pattern}).")
    return {"tokens": count(sentences), "seconds": len(sentences) / float(found[1])}


if __name__ == "__main__":
    serve(Ncrfpp)

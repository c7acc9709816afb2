"""JoeyNMT's recurrent model as a contender; runs under a Python that has joeynmt.

Its own model, loss, clipping, optimizer and search, on batches that it is given. Takes orders as
`worker.py` says.
"""

from __future__ import annotations

import logging
from importlib import metadata
from typing import Any

import pairs
import torch
from pairs import Batch, Corpus, Rows
from torch import Tensor, nn
from worker import SkippedError, serve

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


class JoeyNMT:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the ids.
        threads: of torch.
        dropout: on embeddings, and before the attentional layer.
        smoothing: of labels.
    """

    def __init__(self, corpus: str, threads: int, dropout: float, smoothing: float) -> None:
        # It draws curves through the one, and asks for its version through the other.
        pairs.stand_in("torch.utils.tensorboard", importlib_metadata=metadata)
        try:
            import joeynmt.model  # noqa: F401
        except ImportError as error:
            raise SkippedError(
                f"JoeyNMT is not installed for this Python ({error}): make an environment with "
                "`pip install joeynmt`, and name its Python as in `--peer-python "
                "joeynmt=ENV/bin/python`."
            ) from None
        logging.disable(logging.INFO)
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.versions = {"joeynmt": f"{metadata.version('joeynmt')} (torch {torch.__version__})"}
        self.corpus = Corpus(corpus)
        self.model = self._model(dropout)
        self.model.loss_function = ("crossentropy", smoothing)

    def _model(self, dropout: float) -> Any:
        from joeynmt.builders import build_gradient_clipper, build_optimizer
        from joeynmt.model import build_model

        each = {"type": "recurrent", "rnn_type": "lstm", "num_layers": 1, "dropout": dropout}
        each["embeddings"] = {"embedding_dim": pairs.EMBEDDING, "scale": False, "dropout": dropout}
        decoder = {
            **each,
            "hidden_size": pairs.DECODER,
            "hidden_dropout": dropout,
            "attention": "luong",
        }
        words = {
            "encoder": {**each, "hidden_size": pairs.ENCODER, "bidirectional": True},
            "decoder": {**decoder, "input_feeding": True, "init_hidden": "bridge"},
        }
        names = pairs.Names(self.corpus.size, SPECIAL)
        model = build_model(words, names, names)
        training = {"optimizer": "adam", "learning_rate": pairs.RATE}
        training |= {"clip_grad_norm": pairs.CLIP, "clip_grad_val": None}
        self.optimizer = build_optimizer(training, model.parameters())
        self.clip = build_gradient_clipper(training)
        return model

    def train(self, seed: int, batches: int) -> dict[str, Any]:
        """Train on some batches, as the inner loop of its `TrainManager` does.

        Args:
            seed: chooses the batches.
            batches: how many of them.
        """
        return pairs.trained(self.corpus.batches(seed, batches), _prepared, self._step)

    def _step(self, words: dict[str, Any]) -> None:
        batch = _batch(**words)
        self.model.train()
        batch.sort_by_src_length()
        loss, _, _, correct = self.model(return_type="loss", **vars(batch))
        loss = batch.normalize(loss, "tokens")
        loss.backward()
        loss.item(), correct.item()  # which it logs
        self.clip(parameters=self.model.parameters())
        self.optimizer.step()
        self.model.zero_grad()

    def load(self, file: str) -> dict[str, Any]:
        """Take weights of seqlab, for which its output gets a bias, and its decoder another start.

        Its own bridge begins state and cell alike; ours begins them apart.

        Args:
            file: as `seqlab_translator.py` wrote it.
        """
        w = torch.load(file, weights_only=True)
        decoder = self.model.decoder
        decoder.output_layer = nn.Linear(pairs.DECODER, self.corpus.size)
        decoder.bridge_layer = nn.Linear(2 * pairs.ENCODER, 2 * pairs.DECODER)
        decoder._init_hidden = lambda final: tuple(
            part.contiguous().unsqueeze(0)
            for part in torch.tanh(decoder.bridge_layer(final)).chunk(2, 1)
        )
        pairs.fill(
            self.model,
            {
                "src_embed.lut.weight": w["source_embedding"],
                "trg_embed.lut.weight": w["target_embedding"],
                **{f"encoder.rnn.{name}": value for name, value in w["encoder"].items()},
                **{f"decoder.rnn.{name}_l0": value for name, value in w["decoder"].items()},
                "decoder.bridge_layer.weight": w["bridge_weight"],
                "decoder.bridge_layer.bias": w["bridge_bias"],
                "decoder.attention.key_layer.weight": w["keys"],
                "decoder.att_vector_layer.weight": torch.cat([w["feature"], w["values"]], 1),
                "decoder.att_vector_layer.bias": torch.zeros(pairs.DECODER),
                "decoder.output_layer.weight": w["output_weight"],
                "decoder.output_layer.bias": w["output_bias"],
            },
        )
        self.model.eval()
        return {"loaded": True}

    def translate(self, sentences: int, batch: int, beam: int) -> dict[str, Any]:
        """Translate the first sentences of the test split.

        Args:
            sentences: how many.
            batch: how many at a time.
            beam: hypotheses of each that are kept.
        """

        def search(source: Tensor, lengths: Tensor) -> Rows:
            return self._search(source, lengths, beam)

        with torch.no_grad():
            return pairs.translated(self.corpus.sources[:sentences], batch, search)

    def _search(self, source: Tensor, lengths: Tensor, beam: int) -> Rows:
        from joeynmt.search import search

        batch = _batch(source, lengths, None, is_train=False)
        back = batch.sort_by_src_length()
        found, _, _ = search(
            model=self.model,
            batch=batch,
            beam_size=beam,
            beam_alpha=1.0,
            max_output_length=pairs.longest(source.shape[1]),
            min_output_length=0,
            n_best=1,
            return_attention=False,
            return_prob="none",
            generate_unk=True,
            repetition_penalty=-1,
            no_repeat_ngram_size=-1,
            autocast={"device_type": "cpu", "enabled": False},
        )
        rows: Rows = found.tolist()
        return [rows[row] for row in back]


def _prepared(batch: Batch) -> dict[str, Any]:
    return {"source": batch.source, "lengths": batch.source_lengths, "target": batch.begun}


def _batch(source: Tensor, lengths: Tensor, target: Tensor | None, is_train: bool = True) -> Any:
    """Make its batch, which each step of its training does too."""
    from joeynmt.batch import Batch as JoeyBatch

    return JoeyBatch(
        src=source,
        src_length=lengths,
        src_prompt_mask=None,
        trg=target,
        trg_prompt_mask=None,
        indices=torch.arange(len(source)),
        device=torch.device("cpu"),
        pad_index=pairs.PADDING,
        eos_index=pairs.END,
        is_train=is_train,
    )


if __name__ == "__main__":
    serve(JoeyNMT)

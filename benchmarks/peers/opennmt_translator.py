"""OpenNMT-py's recurrent model as a contender; runs under a Python that has OpenNMT-py.

Its own model, loss, clipping, optimizer and search, on batches that it is given. Takes orders as
`worker.py` says.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pairs
import torch
from pairs import Batch, Corpus, Rows
from torch import Tensor, nn
from worker import SkippedError, serve

SPECIAL = ("<blank>", "<unk>", "<s>", "</s>")
# It imports these for what prepares and serves its data, none of which is timed.
UNUSED = ("spacy", "spacy.language", "ahocorasick", "rapidfuzz", "fasttext", "flask", "waitress")


class OpenNMT:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the ids.
        threads: of torch.
        dropout: on embeddings and on the decoder's output.
        smoothing: of labels.
    """

    def __init__(self, corpus: str, threads: int, dropout: float, smoothing: float) -> None:
        warnings.simplefilter("ignore")
        pairs.stand_in(*UNUSED)
        try:
            import onmt
            import onmt.model_builder
        except ImportError as error:
            raise SkippedError(
                f"OpenNMT-py is not installed for this Python ({error}): make an environment with "
                "`pip install OpenNMT-py`, and name its Python as in `--peer-python "
                "opennmt=ENV/bin/python`."
            ) from None
        logging.disable(logging.INFO)
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.versions = {"OpenNMT-py": f"{onmt.__version__} (torch {torch.__version__})"}
        self.corpus = Corpus(corpus)
        self._build(dropout, smoothing)

    def _build(self, dropout: float, smoothing: float) -> None:
        import onmt.opts
        from onmt.model_builder import build_model
        from onmt.utils.loss import LossCompute
        from onmt.utils.optimizers import Optimizer
        from onmt.utils.parse import ArgumentParser

        parser = ArgumentParser()
        onmt.opts.train_opts(parser)
        options = {
            **{name: "x" for name in ("data", "src_vocab", "save_model")},  # which nobody opens
            **{"encoder_type": "brnn", "decoder_type": "rnn", "rnn_type": "LSTM", "layers": 1},
            **{"word_vec_size": pairs.EMBEDDING, "hidden_size": pairs.DECODER, "dropout": dropout},
            **{"global_attention": "general", "input_feed": 1, "label_smoothing": smoothing},
            **{"optim": "adam", "learning_rate": pairs.RATE, "max_grad_norm": pairs.CLIP},
            "normalization": "tokens",
        }
        words = parser.parse_args([str(x) for name in options for x in (f"-{name}", options[name])])
        ArgumentParser.update_model_opts(words)
        words.model_task, words.brnn = "seq2seq", True
        words.enc_hid_size = words.dec_hid_size = pairs.DECODER
        names = pairs.Names(self.corpus.size, SPECIAL)
        self.vocabularies = {"src": names, "tgt": names, "data_task": "seq2seq"}
        self.vocabularies["decoder_start_token"] = SPECIAL[2]
        self.model = build_model(words, words, self.vocabularies, None, -1)
        self.loss = LossCompute.from_opts(words, self.model, names)
        self.optimizer = Optimizer.from_opt(self.model, words)

    def train(self, seed: int, batches: int) -> dict[str, Any]:
        """Train on some batches, as the inner loop of its `Trainer` does.

        Args:
            seed: chooses the batches.
            batches: how many of them.
        """
        return pairs.trained(self.corpus.batches(seed, batches), _prepared, self._step)

    def _step(self, batch: dict[str, Any]) -> None:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        out, attention = self.model(
            batch["src"], batch["tgt"], batch["srclen"], bptt=False, with_align=False
        )
        time = batch["tgt"].size(1)
        loss, _ = self.loss(batch, out, attention, trunc_start=0, trunc_size=time)
        loss /= batch["tokens"]
        self.optimizer.backward(loss)
        self.model.decoder.detach_state()
        self.optimizer.step()

    def load(self, file: str) -> dict[str, Any]:
        """Take weights of seqlab, for which its decoder gets another start.

        It begins in the encoder's last state and cell; ours maps the state to both.

        Args:
            file: as `seqlab_translator.py` wrote it.
        """
        w = torch.load(file, weights_only=True)
        decoder = self.model.decoder
        decoder.bridge = nn.Linear(2 * pairs.ENCODER, 2 * pairs.DECODER)
        own = decoder.init_state

        def begin(source: Tensor, states: Tensor, final: tuple[Tensor, Tensor]) -> None:
            ends = torch.cat([final[0][0], final[0][1]], 1)
            hidden, cell = torch.tanh(decoder.bridge(ends)).chunk(2, 1)
            # It will put what it takes for two directions side by side.
            own(source, states, tuple(torch.stack(x.chunk(2, 1)) for x in (hidden, cell)))

        decoder.init_state = begin
        embeddings = "embeddings.make_embedding.emb_luts.0.weight"
        pairs.fill(
            self.model,
            {
                f"encoder.{embeddings}": w["source_embedding"],
                f"decoder.{embeddings}": w["target_embedding"],
                **{f"encoder.rnn.{name}": value for name, value in w["encoder"].items()},
                **{f"decoder.rnn.layers.0.{name}": value for name, value in w["decoder"].items()},
                "decoder.bridge.weight": w["bridge_weight"],
                "decoder.bridge.bias": w["bridge_bias"],
                "decoder.attn.linear_in.weight": w["keys"].t(),
                "decoder.attn.linear_out.weight": torch.cat([w["values"], w["feature"]], 1),
                "generator.weight": w["output_weight"],
                "generator.bias": w["output_bias"],
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
        from onmt.translate import GNMTGlobalScorer
        from onmt.translate.translator import Translator

        translator = Translator(
            self.model,
            self.vocabularies,
            beam_size=beam,
            random_sampling_topk=int(beam == 1),  # has its greedy search, faster than a beam of one
            n_best=1,
            min_length=0,
            max_length=1000,
            max_length_ratio=pairs.RATIO,  # to which it adds five subwords
            global_scorer=GNMTGlobalScorer(0.0, 0.0, "avg", "none"),
            report_score=False,
        )

        def search(source: Tensor, lengths: Tensor) -> Rows:
            numbers = torch.arange(len(source))
            made = {"src": source.unsqueeze(2), "srclen": lengths, "ind_in_bucket": numbers}
            found = translator.translate_batch(made, False)["predictions"]
            return [best[0].tolist() for best in found]

        with torch.no_grad():
            return pairs.translated(self.corpus.sources[:sentences], batch, search)


def _prepared(batch: Batch) -> dict[str, Any]:
    return {
        "src": batch.source.unsqueeze(2),
        "srclen": batch.source_lengths,
        "tgt": batch.begun.unsqueeze(2),
        "tokens": int(batch.target_lengths.sum()),
    }


assert pairs.EXTRA == 5  # the number that OpenNMT-py adds

if __name__ == "__main__":
    serve(OpenNMT)

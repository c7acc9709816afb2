"""seqlab's Translator as a contender: training steps and searches on ids that it is given.

Takes orders as `worker.py` says.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pairs
import torch
from pairs import Batch, Corpus, Rows
from steps import Watch
from torch import Tensor, nn
from worker import serve

from seqlab import report
from seqlab.errors import SeqlabError
from seqlab.models.translator import Translator
from seqlab.nn.decoder_steps import DecoderSteps
from seqlab.nn.kernels.allocator import keep_memory
from seqlab.nn.optimizers import clip_gradients_, schedule_factor
from seqlab.nn.precision import using
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary
from seqlab.translation_metrics import TranslationScores

WARMUP = 100  # steps


class Seqlab:
    """The contender: what it can be ordered to do.

    Args:
        corpus: folder of the ids, and of the vocabulary that made them.
        threads: of torch.
        dropout: share that is left out.
        smoothing: of labels.
        options: of the model.
    """

    def __init__(
        self, corpus: str, threads: int, dropout: float, smoothing: float, **options: Any
    ) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        keep_memory()  # as `seqlab fit` and `seqlab predict` do
        self.versions = report.versions()
        self.corpus = Corpus(corpus)
        self.gold = (Path(corpus) / "gold.txt").read_text(encoding="utf-8").split("\n")
        text = (Path(corpus) / "vocabulary.json").read_text(encoding="utf-8")
        vocabulary = SubwordVocabulary.from_json(text)
        sizes = {
            "embedding_size": pairs.EMBEDDING,
            "hidden_size": pairs.ENCODER,
            "decoder_size": pairs.DECODER,
        }
        shares = {"dropout": dropout, "label_smoothing": smoothing, "learning_rate": pairs.RATE}
        self.model = Translator(vocabulary, vocabulary, **sizes, **shares, **options)
        optimizer = self.model.configure_optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def train(self, seed: int, batches: int) -> dict[str, Any]:
        """Train on some batches, as `seqlab fit` does.

        Args:
            seed: chooses the batches.
            batches: how many of them.
        """
        self.model.train()
        watch = Watch(None)

        def step(batch: PairBatch) -> None:
            self._step(batch, watch)

        return pairs.trained(self.corpus.batches(seed, batches), _prepared, step)

    def _step(self, batch: PairBatch, watch: Watch) -> None:
        with using(self.model.precision, self.model.device):
            loss = self.model.loss(batch)
        assert math.isfinite(loss.item())
        watch.lap("loss, forward")
        self.optimizer.zero_grad()
        watch.lap("optimizer")
        loss.backward()  # type: ignore[no-untyped-call]
        watch.lap("embeddings, backward")
        clip_gradients_(self.parameters, pairs.CLIP)
        watch.lap("clipping")
        self.optimizer.step()
        watch.lap("optimizer")

    def profile(self, seed: int, batches: int) -> dict[str, Any]:
        """Time the parts of training steps, batches made from lists of ids included.

        Args:
            seed: chooses the batches.
            batches: how many of them.
        """
        self.model.train()
        watch = StepWatch(self.model)
        for number in range(batches):
            watch.lap("")
            (batch,) = self.corpus.batches(seed * batches + number, 1)
            watch.lap("batch")
            self._step(_prepared(batch), watch)
        watch.close()
        watch.parts.pop("")
        return {"parts": watch.parts, "steps": batches}

    def learn(self, steps: int, file: str) -> dict[str, Any]:
        """Train until it translates, and write the weights for all contenders.

        Args:
            steps: how many, on one batch each.
            file: where the weights go.
        """
        self.model.train()
        watch = Watch(None)
        for number in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = pairs.RATE * schedule_factor("cosine", number, WARMUP, steps)
            (batch,) = self.corpus.batches(number, 1)
            self._step(_prepared(batch), watch)
        torch.save(_weights(self.model), file)
        return {"steps": steps}

    def bleu(self) -> dict[str, Any]:
        """Translate the whole test split greedily, and score it."""
        found = self.translate(len(self.corpus.sources), 64, 1)["found"]
        scores = TranslationScores()
        scores.update(self.model.target_vocab.decode(found), self.gold)
        return {"bleu": scores.compute()["bleu"]}

    def load(self, file: str) -> dict[str, Any]:
        """Take weights; a model whose embeddings are not tied gets those of one where they are.

        Args:
            file: as :meth:`learn` wrote it.
        """
        w = torch.load(file, weights_only=True)
        own: dict[str, Tensor] = dict(w["seqlab"])
        if self.model.output.free is not None:
            own.pop("output.project.weight")
            own["output.free.weight"] = w["output_weight"]
            own["own_target_embedding.weight"] = w["target_embedding"] / self.model.scale
        self.model.load_state_dict(own)
        self.model.eval()
        return {"loaded": True}

    def translate(self, sentences: int, batch: int, beam: int) -> dict[str, Any]:
        """Translate the first sentences of the test split.

        Args:
            sentences: how many.
            batch: how many at a time.
            beam: hypotheses of each that are kept.
        """
        self.model.eval()
        # Ours counts a sentence without its end, the others count it in.
        extra = pairs.EXTRA + math.ceil(pairs.RATIO)
        options = replace(self.model.searching, beam=beam, max_ratio=pairs.RATIO, max_extra=extra)

        def search(source: Tensor, lengths: Tensor) -> Rows:
            with using(self.model.precision, self.model.device), torch.inference_mode():
                found = self.model.translate(PairBatch(source, lengths), options)
            return [hypotheses[0].ids for hypotheses in found]

        return pairs.translated(self.corpus.sources[:sentences], batch, search)

    def search_profile(self, sentences: int, batch: int, beam: int) -> dict[str, Any]:
        """Time the parts of a translation; see :meth:`translate`."""
        parts = {"encoder": 0.0, "decoder steps": 0.0}
        encode, step = self.model.encode, DecoderSteps.__call__

        def timed(name: str, call: Any) -> Any:
            def run(*args: Any, **words: Any) -> Any:
                start = time.perf_counter()
                found = call(*args, **words)
                parts[name] += time.perf_counter() - start
                return found

            return run

        self.model.encode = timed("encoder", encode)  # type: ignore[method-assign]
        DecoderSteps.__call__ = timed("decoder steps", step)  # type: ignore[method-assign]
        try:
            whole = self.translate(sentences, batch, beam)["seconds"]
        finally:
            self.model.encode, DecoderSteps.__call__ = encode, step  # type: ignore[method-assign]
        return {"parts": {**parts, "search": whole - sum(parts.values())}, "steps": sentences}


class StepWatch(Watch):
    """Adds up the seconds of the parts of a translator's training steps.

    Hooks tell when the encoder and the decoder begin and end. On the way back, they tell when the
    gradients of what stands between them are ready.

    Args:
        model: which is watched until :meth:`close`.
    """

    def __init__(self, model: Translator) -> None:
        super().__init__(None)
        self.on = True
        self._hooks = [
            model.encoder.register_forward_pre_hook(self._before_encoder),
            model.encoder.register_forward_hook(self._after_encoder),
            model.decoder.register_forward_pre_hook(self._before_decoder),
            model.decoder.register_forward_hook(self._after_decoder),
        ]

    def close(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def _before_encoder(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.lap("embeddings, forward")
        self._when_ready(args[0], "encoder, backward")

    def _after_encoder(self, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        self.lap("encoder, forward")
        self._when_ready(out, "bridge and memory, backward")

    def _before_decoder(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.lap("bridge and memory, forward")
        self._when_ready(args[0], "decoder, backward")

    def _after_decoder(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        self.lap("decoder, forward")
        self._when_ready(out.features, "loss, backward")


def _prepared(batch: Batch) -> PairBatch:
    return PairBatch(*batch)


def _weights(model: Translator) -> dict[str, Any]:
    """Return the weights as every contender can take them: embeddings scaled, nothing tied."""
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    target = model.target_embedding.weight.detach().clone()
    encoder = {}
    for way, end in (("forward", ""), ("backward", "_reverse")):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            encoder[f"{name}_l0{end}"] = own[f"encoder.{way}_layers.0.{name}_l0"]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return {
        "seqlab": own,
        "source_embedding": own["source_embedding.weight"] * model.scale,
        "target_embedding": target * model.scale,
        "encoder": encoder,
        "decoder": {name: own[f"decoder.layers.0.{name}_l0"] for name in names},
        "bridge_weight": own["bridge.map.weight"],
        "bridge_bias": own["bridge.map.bias"],
        "keys": own["decoder.attention.keys.weight"],
        "values": own["decoder.attention.values.weight"],
        "feature": own["decoder.output.weight"],
        "output_weight": target @ own["output.project.weight"],
        "output_bias": own["output.bias"],
    }


if __name__ == "__main__":
    serve(Seqlab, SeqlabError)

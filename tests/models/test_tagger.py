from __future__ import annotations

import inspect
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, cast, get_args

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seqlab.batch import Batch, FormTable
from seqlab.configuration import quiet
from seqlab.errors import RecipeError
from seqlab.models.tagger import Tagger
from seqlab.networks.base import Network
from seqlab.networks.tagger import TaggerNetwork
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn.cells import CellName
from seqlab.nn.crf import CRF
from seqlab.nn.encoders import BiLSTM
from seqlab.nn.optimizers import make_optimizer
from seqlab.tags import Grammar
from seqlab.vocabulary import Vocabulary, word_vocabulary

NAMES = ["Ada", "Bo", "Cy", "Dee"]
FILLERS = ["runs", "sees", "the", "dog", ","]
BIOES = ["O", *(f"{p}-{label}" for label in ("LOC", "PER") for p in "BIES")]
SMALL = {"hidden_size": 16, "embedding_size": 12, "character_size": 8, "casing_size": 4}
ENCODER = "seqlab.nn.encoders.BiLSTM"


class Corpus(NamedTuple):
    """Sentences with their tags, and what turns them into batches."""

    source: Vocabulary
    target: Vocabulary
    sentences: list[tuple[list[str], list[str], list[str]]]  # tokens, tags, values of a feature

    def batches(self, size: int = 25, hidden: float = 0.0) -> list[Batch]:
        """Batches with target and gold; some of the targets unknown."""
        table, rng = FormTable(self.source), random.Random(0)
        made = []
        for start in range(0, len(self.sentences), size):
            some = self.sentences[start : start + size]
            ids = [self.target.encode(tags) for _, tags, _ in some]
            ids = [[-1 if rng.random() < hidden else i for i in row] for row in ids]
            columns = [
                np.array([i for _, _, values in some for i in vocab.encode(values)], np.int64)
                for vocab in self.source.features.values()
            ]
            batch = table.batch(
                table.index([token for tokens, _, _ in some for token in tokens]),
                [len(tokens) for tokens, _, _ in some],
                columns,
                np.array([i for row in ids for i in row], np.int64),
            )
            batch.gold = [tags for _, tags, _ in some]
            made.append(batch)
        return made


def spans(count: int = 200, seed: int = 0) -> Corpus:
    """Names after "Mr" are persons, names after "in" are places, other names are nothing."""
    rng, sentences = random.Random(seed), []
    for _ in range(count):
        tokens: list[str] = []
        tags: list[str] = []
        for _ in range(rng.randint(1, 5)):
            first = rng.choice(["Mr", "in", *FILLERS])
            names = rng.choices(NAMES, k=rng.choice([1, 1, 2, 3]))
            label = {"Mr": "PER", "in": "LOC"}.get(first)
            prefixes = "S" if len(names) == 1 else f"B{'I' * (len(names) - 2)}E"
            tokens += [first, *names, "."]
            tags += ["O", *(f"{p}-{label}" if label else "O" for p in prefixes), "O"]
        sentences.append((tokens, tags, [""] * len(tokens)))
    words = word_vocabulary(Counter(["Mr", "in", ".", *FILLERS, *NAMES] * 2), lowercase=False)
    return Corpus(words, Vocabulary(BIOES, scheme="bioes", written="iob2"), sentences)


def letters(count: int = 200, seed: int = 0) -> Corpus:
    """The tag of a word is told by its last letter; nearly every word is new."""
    rng, sentences = random.Random(seed), []
    for _ in range(count):
        sizes = [rng.randint(2, 7) for _ in range(rng.randint(1, 8))]
        tokens = ["".join(rng.choices("abcdef", k=size)) for size in sizes]
        tags = ["VOWEL" if token[-1] in "ae" else "OTHER" for token in tokens]
        sentences.append((tokens, tags, [""] * len(tokens)))
    known = Vocabulary("abcdef", padding=True, unknown=1)
    source = Vocabulary(["abc"], padding=True, unknown=1, characters=known)
    return Corpus(source, Vocabulary(["OTHER", "VOWEL"]), sentences)


def columns(count: int = 200, seed: int = 0) -> Corpus:
    """The tag is told by the feature column alone."""
    rng, sentences = random.Random(seed), []
    for _ in range(count):
        size = rng.randint(1, 8)
        values = rng.choices(["NN", "VB"], k=size)
        tags = ["X" if value == "NN" else "Y" for value in values]
        sentences.append((rng.choices(FILLERS, k=size), tags, values))
    source = word_vocabulary(Counter(FILLERS * 2))
    source.features["pos"] = Vocabulary(["NN", "VB"], padding=True, unknown=1)
    return Corpus(source, Vocabulary(["X", "Y"]), sentences)


def model_of(corpus: Corpus, **changes: Any) -> Tagger:
    torch.manual_seed(0)
    return Tagger(corpus.source, corpus.target, **{**SMALL, "dropout": 0.1, **changes})


def train(model: Tagger, batches: Sequence[Batch], epochs: int = 12, rate: float = 0.02) -> Tagger:
    optimizer = make_optimizer("adam", model, rate)
    model.train()
    for _ in range(epochs):
        for batch in batches:
            optimizer.zero_grad()
            model.loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


@torch.no_grad()
def tags_by(model: Tagger, batch: Batch) -> list[list[str]]:
    return model.decode(model.emissions(batch), batch.mask)


def accuracy(model: Tagger, corpus: Corpus) -> float:
    pairs = [
        (found, wanted)
        for batch in corpus.batches()
        for ours, gold in zip(tags_by(model, batch), batch.gold or [], strict=True)
        for found, wanted in zip(ours, gold, strict=True)
    ]
    return sum(found == wanted for found, wanted in pairs) / len(pairs)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"decoder": "constrained"},
    {"decoder": "softmax"},
    {"characters": "lstm"},
    {"characters": "none"},
    {"word_rows": "sparse"},
    {"word_rows": "frozen"},
    {"num_layers": 2},
    {"casing_size": 0},
    {"dropout": 0.0, "locked_dropout": 0.1, "word_dropout": 0.05, "character_dropout": 0.1},
    {"encoder": {"class_path": ENCODER, "init_args": {"hidden_size": 20}}},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_variant_learns_spans_that_their_context_tells(changes: dict[str, Any]) -> None:
    model = model_of(spans(), **changes)
    rows = model.embedder.words.weight.detach().clone()
    assert accuracy(model.eval(), spans(seed=1)) < 0.8
    train(model, spans().batches())
    assert accuracy(model, spans(seed=1)) > 0.995
    unchanged = torch.equal(model.embedder.words.weight, rows)
    assert unchanged == (changes.get("word_rows") == "frozen")


@pytest.mark.parametrize("characters", ["cnn", "lstm"])
def test_characters_tell_the_tags_of_words_never_seen(characters: str) -> None:
    model = train(model_of(letters(), characters=characters), letters().batches())
    assert accuracy(model, letters(seed=1)) > 0.99


def test_without_characters_words_never_seen_are_alike() -> None:
    model = train(model_of(letters(), characters="none"), letters().batches(), epochs=3)
    assert accuracy(model, letters(seed=1)) < 0.8


def test_a_feature_column_is_read() -> None:
    model = train(model_of(columns()), columns().batches(), epochs=4)
    assert accuracy(model, columns(seed=1)) == 1.0


@pytest.mark.parametrize("decoder", ["crf", "constrained"])
def test_half_of_the_tags_are_enough(decoder: str) -> None:
    model = train(model_of(spans(), decoder=decoder), spans().batches(hidden=0.5), epochs=16)
    assert accuracy(model, spans(seed=1)) > 0.99


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_trainable_parameter_has_a_gradient(changes: dict[str, Any]) -> None:
    corpus = spans(60)
    corpus.source.features["pos"] = Vocabulary([""], padding=True, unknown=1)
    model = model_of(corpus, **changes, feature_size=3).train()
    model.loss(corpus.batches(60)[0]).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert (name, parameter.grad) == ("embedder.words.weight", None)
            continue
        assert parameter.grad is not None, name
        gradient = parameter.grad.to_dense()
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name
    assert model.embedder.words.weight.grad is None or (
        model.embedder.words.weight.grad.is_sparse == (changes.get("word_rows") == "sparse")
    )


def share_of_zeros(model: Tagger) -> dict[str, float]:
    """How much of what the encoder and the output layer are given is dropped."""
    found: dict[str, float] = {}

    def note(name: str, part: nn.Module) -> Any:
        def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            found[name] = (given[0] == 0).float().mean().item()

        return part.register_forward_pre_hook(look)

    hooks = [note("encoder", model.encoder), note("emit", model.emit)]
    with torch.no_grad():
        model.emissions(document(500)[0])
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("changes", "encoder", "emit"),
    [
        ({"dropout": 0.5}, 0.5, 0.5),
        ({"dropout": 0.0, "locked_dropout": 0.25}, 0.25, 0.25),
        ({"dropout": 0.0, "word_dropout": 0.3}, 0.3, 0.0),
        ({"dropout": 0.0}, 0.0, 0.0),
    ],
    ids=str,
)
def test_each_kind_of_dropout_drops_its_share_where_it_should(
    changes: dict[str, Any], encoder: float, emit: float
) -> None:
    model = model_of(spans(), hidden_size=100, embedding_size=200, **changes)
    found = share_of_zeros(model.train())
    assert found == {
        "encoder": pytest.approx(encoder, abs=0.1),
        "emit": pytest.approx(emit, abs=0.1),
    }
    assert share_of_zeros(model.eval()) == {"encoder": 0.0, "emit": 0.0}


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_a_configuration_makes_the_model_again(changes: dict[str, Any]) -> None:
    corpus = columns()
    model = model_of(corpus, **changes, averaging=0.9)
    config = json.loads(json.dumps(model.config))
    twin = Tagger(corpus.source, corpus.target, **config)
    assert twin.config == model.config == config
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in twin.state_dict().items()} == shapes
    twin.load_state_dict(model.state_dict())
    batch = corpus.batches()[0]
    assert torch.equal(twin.eval().emissions(batch), model.eval().emissions(batch))


def test_a_configuration_names_every_argument_of_the_class_and_of_its_bases() -> None:
    arguments = [
        name
        for cls in (TaggerNetwork, TokenNetwork, Network)
        for name in list(inspect.signature(cls).parameters)[2:]
        if name != "options"
    ]
    assert list(model_of(spans()).config) == arguments
    assert {"decoder", "hidden_size", "learning_rate"} <= set(arguments)


def test_an_option_that_no_base_knows_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'hiden_size'"):
        model_of(spans(), hiden_size=3)


def test_a_configuration_is_a_copy() -> None:
    model = model_of(spans())
    model.config["hidden_size"] = 7
    assert model.config["hidden_size"] == SMALL["hidden_size"]


def test_an_encoder_of_ones_own_is_called_with_the_size_of_its_input() -> None:
    part = {"class_path": ENCODER, "init_args": {"hidden_size": 5, "num_layers": 2}}
    model = model_of(spans(), encoder=part)
    assert type(model.encoder) is BiLSTM
    assert len(model.encoder.forward_layers) == 2
    assert model.encoder.output_size == model.emit.in_features == 10
    plain = model_of(spans(), encoder={"class_path": ENCODER})
    assert plain.emit.in_features == 400


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (
            {"class_path": "seqlab.nn.encoders.Mill"},
            "model.encoder: no class 'seqlab.nn.encoders.Mill' can be imported (module "
            "'seqlab.nn.encoders' has no attribute 'Mill'); write its full import path.",
        ),
        (
            {"class_path": "nowhere.BiLSTM"},
            "model.encoder: no class 'nowhere.BiLSTM' can be imported (No module named 'nowhere'); "
            "write its full import path.",
        ),
        (
            {"class_path": "BiLSTM"},
            "model.encoder: no class 'BiLSTM' can be imported (Empty module name); write its full "
            "import path.",
        ),
        (
            {},
            "model.encoder: no class '' can be imported (Empty module name); write its full import "
            "path.",
        ),
        (
            {"class_path": ENCODER, "init_args": {"colour": 3}},
            f"model.encoder: {ENCODER}: RecurrentEncoder.__init__() got an unexpected keyword "
            "argument 'colour'.",
        ),
        (
            {"class_path": "torch.nn.Linear", "init_args": {"out_features": 3}},
            "model.encoder: torch.nn.Linear has no output_size: it must be an encoder as described "
            "in seqlab.nn.encoders.Encoder.",
        ),
    ],
)
def test_an_encoder_that_is_none_is_named(part: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        model_of(spans(), encoder=part)
    assert str(error.value) == sentence


@pytest.mark.parametrize("word_rows", ["dense", "sparse", "frozen"])
def test_vectors_stand_in_their_rows_and_set_the_size(word_rows: str) -> None:
    corpus = spans()
    vectors = torch.full((len(corpus.source), 7), torch.nan)
    rows = corpus.source.encode(["Ada", "in"])
    vectors[rows] = torch.arange(14.0).view(2, 7)
    corpus.source.vectors = vectors
    model = model_of(corpus, word_rows=word_rows, embedding_size=99)
    weight = model.embedder.words.weight.detach()
    assert model.config["embedding_size"] == model.embedder.words.embedding_dim == 7
    torch.testing.assert_close(weight[rows], torch.arange(14.0).view(2, 7))
    others = [i for i in range(len(weight)) if i not in rows]
    assert weight.isfinite().all()
    assert (weight[others].abs() < 1.0).all()
    assert not weight[0].any()


def test_the_loss_is_the_mean_over_sentences_whatever_their_padding() -> None:
    corpus = spans(9)
    for decoder in ("crf", "constrained", "softmax"):
        model = model_of(corpus, decoder=decoder).eval()
        alone = torch.stack([model.loss(batch) for batch in corpus.batches(1)])
        torch.testing.assert_close(model.loss(corpus.batches(9)[0]), alone.mean())


def test_the_loss_is_that_of_its_definition() -> None:
    corpus = spans(3)
    for decoder in ("crf", "softmax"):
        model = model_of(corpus, decoder=decoder).eval()
        batch = corpus.batches(3, hidden=0.3)[0]
        assert batch.target is not None
        emissions, total = model.emissions(batch), torch.zeros(())
        for row, length in enumerate(batch.lengths.tolist()):
            scores, wanted = emissions[row, :length], batch.target[row, :length].tolist()
            if decoder == "crf":
                total = total + surprise(model.crf, scores, wanted)
                continue
            for one, tag in zip(scores.log_softmax(-1), wanted, strict=True):
                total = total - (one[tag] if tag >= 0 else 0.0)
        torch.testing.assert_close(model.loss(batch), total / 3, rtol=1e-4, atol=1e-4)


def surprise(crf: CRF, scores: Tensor, wanted: list[int]) -> Tensor:
    """Negative log of the summed probability of all sequences that agree with the known tags."""

    def total(allowed: list[list[int]]) -> Tensor:
        table = torch.full(scores.shape, -torch.inf)
        for position, tags in enumerate(allowed):
            table[position, tags] = scores[position, tags]
        return crf.log_partition(table[None])[0]

    everything = list(range(scores.shape[1]))
    known = [[tag] if tag >= 0 else everything for tag in wanted]
    return total([everything] * len(wanted)) - total(known)


@pytest.mark.parametrize("decoder", ["crf", "constrained", "softmax"])
def test_a_sentence_without_a_known_tag_teaches_nothing(decoder: str) -> None:
    corpus = spans(4)
    model = model_of(corpus, decoder=decoder, dropout=0.0).train()
    loss = model.loss(corpus.batches(4, hidden=1.1)[0])
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    gradients = [p.grad.abs().max() for p in model.parameters() if p.grad is not None]
    assert max(gradients) < 1e-5


@pytest.mark.parametrize("decoder", ["crf", "constrained"])
def test_decoding_finds_the_best_legal_sequence(decoder: str) -> None:
    corpus = spans()
    model = model_of(corpus, decoder=decoder).eval()
    grammar = Grammar.of(BIOES, "bioes")
    paths = [p for p in itertools.product(range(9), repeat=3) if grammar.allows(p)]
    torch.manual_seed(1)
    emissions = 3.0 * torch.randn(5, 3, 9)
    with torch.no_grad():
        for parameter in model.crf.parameters():
            parameter.normal_()
    for row, found in zip(
        emissions, model.decode(emissions, torch.ones(5, 3, dtype=torch.bool)), strict=True
    ):
        best = max(paths, key=lambda path, row=row: score_of(model.crf, row, path))  # type: ignore[misc]
        assert found == corpus.target.decode(best)


def score_of(crf: CRF, scores: Tensor, path: Sequence[int]) -> float:
    total = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
    for position, tag in enumerate(path):
        total = total + scores[position, tag]
        if position:
            total = total + crf.transitions[path[position - 1], tag]
    return total.item()


def test_softmax_takes_each_token_by_itself_and_mends_what_is_illegal() -> None:
    corpus = spans()
    model = model_of(corpus, decoder="softmax")
    written = [["I-PER", "O", "B-LOC", "E-PER"], ["S-LOC", "I-LOC", "I-LOC"]]
    emissions = torch.zeros(2, 4, 9)
    for row, tags in enumerate(written):
        emissions[row, range(len(tags)), corpus.target.encode(tags)] = 1.0
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    assert model.decode(emissions, mask) == [
        ["S-PER", "O", "S-LOC", "S-PER"],
        ["S-LOC", "B-LOC", "E-LOC"],
    ]


def test_tags_without_spans_are_scored_by_accuracy() -> None:
    model = model_of(letters())
    assert (model.has_spans, model.monitor, model.labels) == (False, "val/accuracy", [])
    model = model_of(spans())
    assert (model.has_spans, model.monitor, model.labels) == (True, "val/span_f1", ["LOC", "PER"])


def loader(batches: list[Batch]) -> DataLoader[Batch]:
    return DataLoader(cast(Any, batches), batch_size=None)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_tagger_works_in_anybodys_trainer(precision: Any) -> None:
    model = model_of(spans(), learning_rate=0.02, schedule="linear", warmup_steps=5, averaging=0.9)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=12,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    fresh = spans(seed=1).batches()
    with quiet():
        trainer.fit(model, loader(spans().batches()), loader(fresh))
        fitted = trainer.callback_metrics
        assert fitted["val/span_f1"] > 0.99
        assert {"train/loss", "val/precision", "val/recall", "val/accuracy"} <= set(fitted)
        (tested,) = trainer.test(model, loader(fresh), verbose=False)
    assert tested["test/span_f1"] > 0.99
    assert model.last_scores["test/per_type"]["PER"]["f1"] > 0.98
    assert "equal to seqeval strict" in model.last_scores["test/scorer"]


def test_scores_start_anew_with_every_validation() -> None:
    model = train(model_of(spans()), spans().batches())
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    wrong = spans(seed=1).batches()
    for batch in wrong:
        batch.gold = [["O"] * len(tags) for tags in batch.gold or []]
    with quiet():
        trainer.validate(model, loader(wrong), verbose=False)
        (scores,) = trainer.validate(model, loader(spans(seed=1).batches()), verbose=False)
    assert scores["val/span_f1"] > 0.99


@pytest.fixture(scope="module")
def reader() -> Tagger:
    """A model that has learnt spans."""
    return train(model_of(spans()), spans().batches())


def document(tokens: int) -> tuple[Batch, list[str]]:
    """One long document, with its tags."""
    corpus = spans(tokens // 5, seed=2)
    words = [token for sentence, _, _ in corpus.sentences for token in sentence]
    tags = [tag for _, row, _ in corpus.sentences for tag in row]
    whole = corpus._replace(sentences=[(words[:tokens], tags[:tokens], [""] * tokens)])
    (batch,) = whole.batches()
    assert batch.source.shape == (1, tokens)
    return batch, tags[:tokens]


@pytest.mark.parametrize("window", [64, 500, 1999])
def test_windows_see_nearly_what_a_whole_pass_sees(
    reader: Tagger, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, gold = document(2000)
    with torch.no_grad():
        whole = reader.emissions(batch)
        monkeypatch.setattr(reader, "window", window)
        parts = reader.emissions(batch)
    assert parts.shape == whole.shape
    torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-3)
    assert reader.decode(parts, batch.mask) == reader.decode(whole, batch.mask)
    assert reader.decode(parts, batch.mask)[0][:-3] == gold[:-3]


def test_a_window_is_all_that_the_encoder_holds_at_once(
    reader: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(reader, "window", 100)
    seen = reader.encoder.register_forward_pre_hook(lambda _, x: sizes.append(x[0].shape[1]))
    batch, _ = document(2050)
    with torch.no_grad():
        reader.emissions(batch)
    seen.remove()
    assert len(sizes) == 21
    assert max(sizes) <= 100 + 2 * 128


def test_windows_change_nothing_for_the_short_ones_of_a_batch(
    reader: Tagger, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = spans(300, seed=5)
    tokens = [t for row, _, _ in corpus.sentences for t in row][:700]
    rows = [*corpus.sentences[:4], (tokens, ["O"] * 700, [""] * 700), *corpus.sentences[4:6]]
    (batch,) = corpus._replace(sentences=rows).batches()
    monkeypatch.setattr(reader, "window", 90)
    with torch.no_grad():
        together = reader.emissions(batch)
        for row, (alone,) in enumerate(
            [corpus._replace(sentences=[one]).batches() for one in rows]
        ):
            length = int(alone.lengths[0])
            torch.testing.assert_close(
                together[row, :length], reader.emissions(alone)[0], rtol=1e-4, atol=1e-4
            )


def test_training_sees_documents_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(spans(), dropout=0.0, window=10)
    batch, _ = document(300)
    with torch.no_grad():
        training = model.train().emissions(batch)
        monkeypatch.setattr(model, "window", 300)
        assert torch.equal(model.eval().emissions(batch), training)


def test_a_sentence_of_20000_tokens_is_tagged(reader: Tagger) -> None:
    batch, gold = document(20_000)
    assert tags_by(reader, batch)[0][:-3] == gold[:-3]


def test_every_parameter_belongs_to_a_named_part() -> None:
    model = model_of(spans())
    parts = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert parts == {"embedder", "encoder", "emit", "crf"}


def test_the_fast_precision_trains_and_scores_with_bfloat16_factors() -> None:
    corpus = spans(60)
    losses = {}
    for precision in ("exact", "fast"):
        model = model_of(corpus, precision=precision, dropout=0.0)
        assert model.config["precision"] == precision
        loss = model.training_step(corpus.batches()[0], 0)
        loss.backward()
        assert model.emit.weight.grad is not None
        assert model.emit.weight.grad.dtype == torch.float32
        losses[precision] = loss.item()
        model.eval()
        model.validation_step(corpus.batches()[0], 0)
        assert model.scores("val")["val/accuracy"] >= 0.0
    assert losses["fast"] != losses["exact"]
    assert losses["fast"] == pytest.approx(losses["exact"], rel=0.02)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_under_autocast_the_loss_is_float32_and_tags_are_legal(changes: dict[str, Any]) -> None:
    changes = {**changes, "dropout": 0.0, "word_dropout": 0.0, "locked_dropout": 0.0}
    model = model_of(spans(60), **{**changes, "character_dropout": 0.0}).train()
    batch = spans(60).batches(60)[0]
    exact = model.loss(batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch)
        found = tags_by(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), exact, rtol=0.02, atol=0.02)
    gradients = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    grammar = Grammar.of(model.target_vocab.tokens, model.target_vocab.scheme)
    assert all(grammar.allows(model.target_vocab.encode(tags)) for tags in found)


CELLS: list[dict[str, Any]] = [
    *({"cell": cell, "learned_state": True} for cell in get_args(CellName) if cell != "sru"),
    {"cell": "sru"},
    {"cell": "lstm", "proj_size": 4, "num_layers": 2},
    {"num_layers": 2, "connection": "highway"},
    {"bidirectional": False},
    {"recurrent_dropout": 0.5, "zoneout": 0.0},
    {"zoneout": 0.5},
]


@pytest.mark.parametrize("changes", [*VARIANTS, *CELLS], ids=str)
def test_the_smallest_batch_leaves_no_parameter_without_a_gradient(changes: dict[str, Any]) -> None:
    """Several processes would wait for it (`find_unused_parameters`)."""
    corpus = spans(60)
    model = model_of(corpus, **changes).train()
    corpus.sentences[:] = [(["unheard-of"], ["O"], ["NN"])]
    (batch,) = corpus.batches(1)
    model.loss(batch).backward()  # type: ignore[no-untyped-call]
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

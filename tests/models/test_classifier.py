from __future__ import annotations

import inspect
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as lightning
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from seqlab.batch import Batch, FormTable
from seqlab.bundle import load_bundle, save_bundle
from seqlab.configuration import quiet
from seqlab.errors import DataError, RecipeError
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.networks.base import Network
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn.optimizers import make_optimizer
from seqlab.vocabulary import Vocabulary, word_vocabulary

FILLERS = ["the", "a", "big", "sees", "."]
ANIMALS = ["cat", "dog", "eel"]
SOURCE = word_vocabulary(Counter([*FILLERS, *ANIMALS] * 2))
SMALL = {"hidden_size": 12, "embedding_size": 10, "characters": "none", "casing_size": 0}
Texts = list[tuple[list[str], list[str]]]  # tokens, labels


def one() -> Vocabulary:
    return Vocabulary(ANIMALS, scheme="label", written="label")


def several() -> Vocabulary:
    return Vocabulary(ANIMALS, scheme="labels", written="labels")


def order(count: int = 200, seed: int = 0) -> Texts:
    """The label is the animal that comes first of two, wherever that is."""
    rng, texts = random.Random(seed), []
    for _ in range(count):
        first, second = rng.sample(ANIMALS, 2)
        parts = [rng.choices(FILLERS, k=rng.randint(0, 3)) for _ in range(3)]
        texts.append(([*parts[0], first, *parts[1], second, *parts[2]], [first]))
    return texts


def presence(count: int = 200, seed: int = 0) -> Texts:
    """The labels are the animals that are there: none, one, or more."""
    rng, texts = random.Random(seed), []
    for _ in range(count):
        labels = [x for x in ANIMALS if rng.random() < 0.4]
        tokens = [*labels, *rng.choices(FILLERS, k=rng.randint(1, 5))]
        texts.append((rng.sample(tokens, len(tokens)), labels))
    return texts


def batches(texts: Texts, target: Vocabulary, size: int = 25) -> list[Batch]:
    table, made = FormTable(SOURCE), []
    for start in range(0, len(texts), size):
        some = texts[start : start + size]
        batch = table.batch(
            table.index([token for tokens, _ in some for token in tokens]),
            [len(tokens) for tokens, _ in some],
        )
        if target.scheme == "label":
            batch.target = torch.tensor([target.id(labels[0]) for _, labels in some])
        else:
            rows = [[float(x in labels) for x in target.tokens] for _, labels in some]
            batch.target = torch.tensor(rows)
        batch.gold = [labels for _, labels in some]
        made.append(batch)
    return made


def model_of(target: Vocabulary | None = None, **changes: Any) -> Classifier:
    torch.manual_seed(0)
    target = one() if target is None else target
    return Classifier(SOURCE, target, **{**SMALL, "dropout": 0.1, **changes})


def train(model: Classifier, texts: Texts, epochs: int = 8) -> Classifier:
    optimizer = make_optimizer("adam", model, 0.02)
    model.train()
    for _ in range(epochs):
        for batch in batches(texts, model.target_vocab):
            optimizer.zero_grad()
            model.loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


@torch.no_grad()
def probabilities(model: Classifier, texts: Texts, size: int = 25) -> Tensor:
    found = [
        model.classify(batch).probabilities for batch in batches(texts, model.target_vocab, size)
    ]
    return torch.cat(found)


def accuracy(model: Classifier, texts: Texts) -> float:
    chosen = model.choose(probabilities(model, texts))
    return sum(set(x) == set(y) for x, (_, y) in zip(chosen, texts, strict=True)) / len(texts)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"pooling": "last"},
    {"pooling": "mean"},
    {"pooling": "max"},
    {"pooling": ["attention", "last", "max", "mean"], "heads": 2},
    {"heads": 3},
    {"cell": "gru", "merge": "sum", "pooling": "last"},
    {"bidirectional": False, "hidden_size": 24},
    {"num_layers": 2, "connection": "residual"},
    {"word_rows": "sparse"},
    {"class_weights": {"cat": 2.0}, "label_smoothing": 0.1},
    {"spatial_dropout": 0.1, "dropout": 0.0},
    {"encoder": {"class_path": "seqlab.nn.encoders.BiLSTM", "init_args": {"hidden_size": 8}}},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_variant_learns_what_the_order_of_words_tells(changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    assert accuracy(model.eval(), order(seed=1)) < 0.7
    assert accuracy(train(model, order()), order(seed=1)) > 0.97


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_any_number_of_labels_is_learnt(changes: dict[str, Any]) -> None:
    model = train(model_of(several(), **changes), presence())
    assert accuracy(model, presence(seed=1)) > 0.97
    chosen = model.choose(probabilities(model, presence(seed=1)))
    assert {len(labels) for labels in chosen} == {0, 1, 2, 3}


@pytest.mark.parametrize("target", [one(), several()], ids=["one", "several"])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_trainable_parameter_has_a_gradient(
    changes: dict[str, Any], target: Vocabulary
) -> None:
    model = model_of(target, **changes).train()
    texts = order(30) if target.scheme == "label" else presence(30)
    model.loss(batches(texts, target, 30)[0]).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.to_dense().abs().sum() > 0, name
        assert parameter.grad.to_dense().isfinite().all(), name


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_smallest_batch_leaves_no_parameter_without_a_gradient(changes: dict[str, Any]) -> None:
    model = model_of(**changes).train()
    (batch,) = batches([(["unheard-of"], ["cat"])], one())
    model.loss(batch).backward()  # type: ignore[no-untyped-call]
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("target", [one(), several()], ids=["one", "several"])
def test_under_autocast_the_loss_is_float32(target: Vocabulary) -> None:
    model = model_of(target, dropout=0.0).train()
    texts = order(30) if target.scheme == "label" else presence(30)
    (batch,) = batches(texts, target, 30)
    exact = model.loss(batch).detach()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), exact, rtol=0.02, atol=0.02)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_a_text_gets_the_same_in_any_company(changes: dict[str, Any]) -> None:
    model, texts = model_of(**changes).eval(), [(["cat"], ["cat"]), *order(20)]
    together = batches(texts, one(), 21)[0]
    found = model.classify(together)
    for row, (batch, length) in enumerate(
        zip(batches(texts, one(), 1), together.lengths.tolist(), strict=True)
    ):
        alone = model.classify(batch)
        torch.testing.assert_close(found.probabilities[row], alone.probabilities[0])
        if found.attention is not None:
            assert alone.attention is not None
            torch.testing.assert_close(found.attention[row, :, :length], alone.attention[0])
            assert (found.attention[row, :, length:] == 0).all()
            torch.testing.assert_close(found.attention[row].sum(-1), torch.ones(model_heads(model)))


def model_heads(model: Classifier) -> int:
    heads: int = model.config["heads"]
    return heads


def test_attention_is_given_where_there_is_one() -> None:
    batch = batches(order(5), one())[0]
    for pooling, given in [("attention", True), (["max", "attention"], True), ("mean", False)]:
        assert (model_of(pooling=pooling).classify(batch).attention is not None) == given


@pytest.mark.parametrize("pooling", ["attention", "last", "mean", "max"])
@pytest.mark.parametrize("window", [60, 400])
def test_long_documents_are_read_in_windows_and_pooled_whole(
    pooling: Any, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = random.Random(0).choices([*FILLERS, *ANIMALS], weights=range(1, 9), k=507)
    words[:250] = sorted(words[:250])  # so that one half is nothing like the other
    texts = [(words, ["cat"]), (["eel", "a", "cat"], ["eel"])]
    model = model_of(pooling=pooling).eval()  # what is learnt may reach farther than the windows

    @torch.no_grad()
    def logits(texts: Texts) -> Tensor:
        return model.logits(batches(texts, one())[0])[0]

    whole, half = logits(texts), logits([(words[250:], ["cat"])])
    sizes: list[int] = []
    model.encoder.register_forward_pre_hook(lambda _, x: sizes.append(x[0].shape[1]))
    monkeypatch.setattr(model, "window", window)
    torch.testing.assert_close(logits(texts), whole, rtol=1e-4, atol=1e-4)
    assert len(sizes) == -(-507 // window)
    assert (whole[0] - half[0]).abs().max() > 0.01


# The loss.


def losses(model: Classifier, texts: Texts) -> list[float]:
    """The negative log-likelihood of each text by its definition."""
    weights = model.config["class_weights"]
    weights = weights if isinstance(weights, dict) else dict.fromkeys(ANIMALS, 1.0)
    share = model.label_smoothing
    found = []
    with torch.no_grad():
        logits, _ = model.logits(batches(texts, model.target_vocab, len(texts))[0])
    for row, (_, labels) in zip(logits.double().tolist(), texts, strict=True):
        total = 0.0
        for label, score in zip(ANIMALS, row, strict=True):
            if model.multi_label:
                target = (label in labels) * (1 - share) + share / 2
                yes, no = math.log(1 / (1 + math.exp(-score))), math.log(1 / (1 + math.exp(score)))
                total -= target * weights.get(label, 1.0) * yes + (1 - target) * no
            else:
                target = (label in labels) * (1 - share) + share / 3
                log = score - math.log(sum(math.exp(x) for x in row))
                total -= target * weights.get(label, 1.0) * log
        found.append(total)
    return found


@pytest.mark.parametrize("target", [one(), several()], ids=["one", "several"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"label_smoothing": 0.2}, {"class_weights": {"cat": 3.0, "eel": 0.25}}]
    + [{"label_smoothing": 0.1, "class_weights": {"dog": 2.0}}],
    ids=str,
)
def test_the_loss_is_that_of_its_definition_whatever_the_batch(
    changes: dict[str, Any], target: Vocabulary
) -> None:
    model = model_of(target, **changes).eval()
    texts = order(8) if target.scheme == "label" else presence(8)
    expected = losses(model, texts)
    whole = model.loss(batches(texts, target, 8)[0]).item()
    assert whole == pytest.approx(sum(expected) / 8, rel=1e-5)
    alone = [model.loss(batch).item() for batch in batches(texts, target, 1)]
    assert alone == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", [one(), several()], ids=["one", "several"])
def test_balanced_weights_come_from_the_counts_of_the_training_split(target: Vocabulary) -> None:
    target.counts = {"cat": 6, "dog": 2, "eel": 0}
    model = model_of(target, class_weights="balanced")
    assert model.class_weights is not None
    assert model.class_weights.tolist() == pytest.approx([8 / 18, 8 / 6, 1.0])
    assert model.config["class_weights"] == pytest.approx({"cat": 8 / 18, "dog": 8 / 6, "eel": 1.0})
    twin = Classifier(SOURCE, one(), **json.loads(json.dumps(model.config)))
    assert twin.class_weights is not None
    assert torch.equal(twin.class_weights, model.class_weights)


def test_balanced_weights_without_counts_serve_for_all_but_training() -> None:
    model = model_of(class_weights="balanced")
    batch = batches(order(5), one())[0]
    assert model.classify(batch).probabilities.shape == (5, 3)
    with pytest.raises(RecipeError) as error:
        model.loss(batch)
    assert str(error.value) == (
        "model.class_weights is balanced, but the target vocabulary does not say how often each "
        "label occurs: give the weights themselves, as {label: weight}."
    )


def test_weights_are_no_part_of_the_saved_state() -> None:
    plain, weighted = model_of(), model_of(class_weights={"cat": 2.0})
    assert list(plain.state_dict()) == list(weighted.state_dict())
    assert "thresholds" in plain.state_dict()


def test_spatial_dropout_drops_whole_dimensions_of_the_embedder() -> None:
    model = model_of(spatial_dropout=0.5, dropout=0.0, embedding_size=200).train()
    batch = batches(order(8), one(), 8)[0]
    dropped = model.embed(batch) == 0  # (batch, time, dim)
    share = []
    for row, length in zip(dropped, batch.lengths.tolist(), strict=True):
        assert (row[:length] == row[0]).all()
        share.append(row[0].float().mean().item())
    assert sum(share) / 8 == pytest.approx(0.5, abs=0.1)
    assert not (model.eval().embed(batch)[:, 0] == 0).any()


# What is refused.


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"class_weights": {"cta": 2.0}},
            "model.class_weights: there is no label 'cta'; name those of the training split. "
            "Did you mean 'cat'?",
        ),
        (
            {"class_weights": {"cat": -1.0}},
            "model.class_weights.cat is -1.0: it must be 0 or more.",
        ),
        (
            {"label_smoothing": 1.0},
            "model.label_smoothing is 1.0: it must be 0 or more and less than 1.",
        ),
        (
            {"spatial_dropout": -0.5},
            "model.spatial_dropout is -0.5: it must be 0 or more and less than 1.",
        ),
        ({"pooling": "avg"}, "model.pooling: 'avg' is none of last, mean, max, attention."),
        (
            {"pooling": "mean", "heads": 2},
            "model.heads is 2, but model.pooling has no attention: add it, or leave heads out.",
        ),
        (
            {"class_weights": "balance"},
            "model.class_weights is 'balance': write none, balanced or {label: weight}.",
        ),
    ],
    ids=str,
)
def test_what_makes_no_classifier_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        model_of(**changes)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("target", "are"),
    [
        (Vocabulary(["cat"], scheme="label"), "all labelled 'cat'"),
        (Vocabulary([], scheme="label"), "unlabelled"),
        (Vocabulary([], scheme="labels"), "unlabelled"),
    ],
)
def test_one_label_alone_is_no_choice(target: Vocabulary, are: str) -> None:
    with pytest.raises(DataError) as error:
        model_of(target)
    assert str(error.value) == (
        f"the texts of the training split are {are}: a classifier needs two labels or more to "
        "choose from."
    )


def test_a_text_may_have_one_label_or_not() -> None:
    model = model_of(Vocabulary(["cat"], scheme="labels"))
    assert model.choose(torch.tensor([[0.6], [0.4]])) == [["cat"], []]


def test_models_of_the_other_kind_of_data_are_named() -> None:
    with pytest.raises(RecipeError, match="use data.class_path seqlab.ClassificationData"):
        model_of(Vocabulary(["O", "B-X"], scheme="iob2"))
    for target in (one(), several()):
        with pytest.raises(RecipeError, match="use model.class_path seqlab.Classifier"):
            Tagger(SOURCE, target)


# Configuration and bundles.


def test_a_configuration_names_every_argument_of_the_class_and_of_its_bases() -> None:
    arguments = [
        name
        for cls in (ClassifierNetwork, TokenNetwork, Network)
        for name in list(inspect.signature(cls).parameters)[2:]
        if name != "options"
    ]
    assert list(model_of().config) == arguments


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("target", [one(), several()], ids=["one", "several"])
def test_a_bundle_gives_the_same_probabilities_and_choices(
    changes: dict[str, Any], target: Vocabulary, tmp_path: Path
) -> None:
    model = model_of(target, **changes).eval()
    model.thresholds.copy_(torch.tensor([0.4, 0.5, 0.6]))
    found = load_bundle(save_bundle(model, tmp_path / "bundle"))
    assert isinstance(found, Classifier)
    assert found.config == json.loads(json.dumps(model.config))
    assert torch.equal(found.thresholds, model.thresholds)
    assert found.multi_label == model.multi_label == (target.scheme == "labels")
    texts = order(10) if target.scheme == "label" else presence(10)
    ours, theirs = probabilities(model, texts), probabilities(found, texts)
    assert torch.equal(ours, theirs)
    assert found.choose(theirs) == model.choose(ours)


# Choosing.


def test_one_label_is_chosen_the_most_probable() -> None:
    rows = torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    assert model_of().choose(rows) == [["dog"], ["cat"]]


def test_labels_are_chosen_from_their_thresholds_on_and_ordered() -> None:
    model = model_of(several())
    model.thresholds.copy_(torch.tensor([0.5, 0.25, 0.75]))
    rows = torch.tensor([[0.5, 0.9, 0.75], [0.49, 0.2, 0.7], [0.1, 0.25, 0.8]])
    assert model.choose(rows) == [["dog", "eel", "cat"], [], ["eel", "dog"]]


# In a trainer.


def loader(rows: list[Batch]) -> DataLoader[Batch]:
    return DataLoader(cast(Any, rows), batch_size=None)


def trainer(epochs: int = 1, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


SCORES = {"accuracy", "macro_f1", "micro_f1", "ece"}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_classifier_works_in_anybodys_trainer(precision: Any) -> None:
    model = model_of(learning_rate=0.02, averaging=0.9)
    assert model.monitor == "val/accuracy"
    fresh = loader(batches(order(seed=1), one()))
    fit = trainer(8, precision=precision)
    with quiet():
        fit.fit(model, loader(batches(order(), one())), fresh)
        logged = fit.callback_metrics
        assert {f"val/{name}" for name in SCORES} < set(logged)
        assert logged["val/accuracy"] > 0.95
        (tested,) = fit.test(model, fresh, verbose=False)
    assert tested["test/accuracy"] > 0.95
    scores = model.last_scores
    assert set(scores) == {f"test/{name}" for name in {*SCORES, "per_type", "confusion", "scorer"}}
    assert json.loads(json.dumps(scores)) == scores
    assert scores["test/per_type"]["cat"]["gold"] == sum(x == ["cat"] for _, x in order(seed=1))
    assert torch.equal(model.thresholds, torch.full((3,), 0.5))


def test_thresholds_are_tuned_on_the_validation_split_while_fitting_only() -> None:
    model = model_of(several(), learning_rate=0.01)
    assert model.monitor == "val/macro_f1"
    dev = batches(presence(60, seed=1), several())
    other = batches([(t, ["cat"]) for t, _ in presence(60, seed=2)], several())
    fit = trainer(2, num_sanity_val_steps=1)
    with quiet():
        fit.fit(model, loader(batches(presence(60), several())), loader(dev))
        tuned = model.thresholds.clone()
        scores = model.last_scores
        assert not torch.equal(tuned, torch.full((3,), 0.5))
        assert scores["val/thresholds"] == pytest.approx(
            dict(zip(ANIMALS, tuned.tolist(), strict=True))
        )
        (again,) = fit.validate(model, loader(dev), verbose=False)
        assert again["val/macro_f1"] == pytest.approx(scores["val/macro_f1"])
        fit.validate(model, loader(other), verbose=False)
        fit.test(model, loader(other), verbose=False)
    assert torch.equal(model.thresholds, tuned)
    assert set(model.last_scores) == {
        f"test/{name}" for name in {*SCORES, "per_type", "thresholds", "scorer"}
    }
    plain = model_of(several())
    plain.load_state_dict(model.state_dict())
    plain.thresholds.fill_(0.5)
    with quiet():
        (untuned,) = trainer().validate(plain, loader(dev), verbose=False)
    assert again["val/macro_f1"] > untuned["val/macro_f1"]


def test_labels_of_the_test_split_that_training_lacks_count_as_wrong() -> None:
    model = train(model_of(), order())
    texts = order(20, seed=1)
    rows = batches(texts, one(), 20)
    rows[0].gold = [["emu"] if i < 5 else labels for i, (_, labels) in enumerate(texts)]
    with quiet():
        (scores,) = trainer().test(model, loader(rows), verbose=False)
    assert scores["test/accuracy"] <= 0.75
    assert model.last_scores["test/per_type"]["(other labels)"]["gold"] == 5


def test_the_scores_do_not_depend_on_the_batches() -> None:
    model, found = train(model_of(), order(100), epochs=2), []
    texts: Sequence[Any] = order(60, seed=1)
    for size in (1, 7, 60):
        rows = batches(random.Random(size).sample(texts, 60), one(), size)
        with quiet():
            trainer().test(model, loader(rows), verbose=False)
        found.append(model.last_scores)
    for scores in found[1:]:
        assert scores["test/per_type"] == found[0]["test/per_type"]
        assert scores["test/ece"] == pytest.approx(found[0]["test/ece"], abs=1e-4)


def test_every_parameter_belongs_to_a_named_part() -> None:
    parts = {name.split(".")[0] for name, _ in model_of().named_parameters()}
    assert parts == {"embedder", "encoder", "pooling", "output"}

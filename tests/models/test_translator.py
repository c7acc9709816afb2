"""The translator: its loss, its search, its bundle, and that it learns what can be learnt."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from torch import Tensor

from seqlab.bundle import load_bundle, save_bundle
from seqlab.callbacks import RunKeeper
from seqlab.configuration import quiet
from seqlab.data.translation import TranslationData
from seqlab.errors import RecipeError
from seqlab.models.translator import Translator
from seqlab.networks.search import searched
from seqlab.nn.search import Constraints, SearchOptions
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary, train_tokenizer
from seqlab.vocabulary import Vocabulary

LETTERS = "abcdefghij"
BEGIN, END = SubwordVocabulary.BEGIN, SubwordVocabulary.END
SMALL: dict[str, Any] = {
    "hidden_size": 6,
    "embedding_size": 5,
    "decoder_size": 8,
    "dropout": 0.0,
    "max_ratio": 1.0,
    "max_extra": 3,
}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no feeding": {"input_feeding": False},
    "deep": {"num_layers": 2, "decoder_layers": 3, "cell": "gru"},
    "additive, covering": {"attention": "additive", "coverage": 1.0},
    "heads, copying": {"attention": "multi-head", "heads": 2, "copy": True},
    "local, free": {"attention": "local", "window": 2, "tie": "none", "bridge": "zero"},
    "dot, one way": {
        "attention": "dot",
        "bidirectional": False,
        "hidden_size": 8,
        "bridge": "copy",
        "tie": "decoder",
    },
}


def letters(language: str | None = None) -> SubwordVocabulary:
    tokenizer = train_tokenizer(iter([" ".join(LETTERS)]), "words", 100)
    return SubwordVocabulary(tokenizer, language=language)


def made(**options: Any) -> Translator:
    torch.manual_seed(1)
    vocabulary = letters()
    model = Translator(vocabulary, vocabulary, **{**SMALL, **options})
    for parameter in model.parameters():  # away from zero, lest all hypotheses be alike
        parameter.data.mul_(2.0).add_(torch.randn_like(parameter) * 0.1)
    return model


def padded(rows: list[list[int]], spare: int = 0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    table = torch.zeros(len(rows), int(lengths.max()) + spare, dtype=torch.long)
    for at, row in enumerate(rows):
        table[at, : len(row)] = torch.tensor(row)
    return table, lengths


def batch_of(pairs: list[tuple[str, str]], spare: int = 0) -> PairBatch:
    vocabulary = letters()
    sides = zip(*pairs, strict=True)
    rows = [[[*ids, END] for ids in vocabulary.encode(list(side))] for side in sides]
    (source, source_lengths), (target, target_lengths) = (padded(side, spare) for side in rows)
    gold, texts = [pair[1] for pair in pairs], [pair[0] for pair in pairs]
    return PairBatch(source, source_lengths, target, target_lengths, gold, texts)


PAIRS = [("a b c d", "d c b a"), ("e", "e e"), ("f g h", "h"), ("j i j i j i", "a b c d e f g")]


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_the_loss_is_the_mean_over_subwords_each_told_from_those_before(way: str) -> None:
    model = made(**WAYS[way], label_smoothing=0.2)
    model.coverage_share = 0.0  # which adds a term of its own
    total, tokens = 0.0, 0
    for pair in PAIRS:
        one = batch_of([pair])
        memory, start = model.encode(one)
        state = model.decoder.begin(start, memory)
        assert one.target is not None
        words = [BEGIN, *one.target[0].tolist()]
        for before, right in zip(words, words[1:], strict=False):
            x = model.embed(model.target_embedding, torch.tensor([[before]]))
            feature, weights, state = model.decoder.step(x, state, memory)
            found = model.log_probabilities(feature, weights, one.source)[0, 0]
            assert float(found.exp().sum()) == pytest.approx(1.0, abs=1e-5)
            total -= 0.8 * float(found[right]) + 0.2 * float(found.mean())
            tokens += 1
    assert float(model.loss(batch_of(PAIRS, spare=2))) == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_every_parameter_learns(way: str) -> None:
    model = made(**WAYS[way])
    model.loss(batch_of(PAIRS)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("options", [{}, {"scheduled_sampling": 0.9}], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_the_smallest_batch_leaves_no_parameter_without_a_gradient(
    way: str, options: dict[str, Any]
) -> None:
    model = made(**WAYS[way], **options).train()
    model.loss(batch_of([("a", "")])).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("way", WAYS)
def test_under_autocast_the_loss_is_float32(way: str) -> None:
    model = made(**WAYS[way])
    exact = model.loss(batch_of(PAIRS)).detach()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch_of(PAIRS))
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.detach(), exact, rtol=0.03, atol=0.03)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_coverage_has_a_loss_of_its_own() -> None:
    model = made(attention="additive", coverage=1.0)
    batch = batch_of(PAIRS)
    with_it = model.loss(batch).item()
    model.coverage_share = 0.0
    without = model.loss(batch).item()
    model.coverage_share = 2.0
    assert with_it > without
    assert model.loss(batch).item() - without == pytest.approx(2 * (with_it - without), rel=1e-3)


def test_tied_embeddings_are_one_table() -> None:
    names = {name for name, _ in made(tie="all").named_parameters()}
    assert "own_target_embedding.weight" not in names
    assert not any(name.startswith("output.free") for name in names)
    assert made(tie="auto").own_target_embedding is None
    some = {name for name, _ in made(tie="decoder").named_parameters()}
    assert "own_target_embedding.weight" in some
    assert "output.free.weight" not in some
    assert "output.free.weight" in {name for name, _ in made(tie="none").named_parameters()}


def greedy_by_hand(model: Translator, text: str, longest: int) -> list[int]:
    one = batch_of([(text, "a")])
    memory, start = model.encode(one)
    state = model.decoder.begin(start, memory)
    words: list[int] = []
    last = BEGIN
    while len(words) < longest:
        x = model.embed(model.target_embedding, torch.tensor([[last]]))
        feature, weights, state = model.decoder.step(x, state, memory)
        found = model.log_probabilities(feature, weights, one.source)[0, 0]
        found[[SubwordVocabulary.PADDING, BEGIN]] = -torch.inf
        last = int(found.argmax())
        if last == END:
            break
        words.append(last)
    return words


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_greedy_search_says_the_best_subword_at_every_step(way: str) -> None:
    model = made(**WAYS[way]).eval()
    found = model.translate(batch_of(PAIRS, spare=3), replace(model.searching, beam=1))
    for (text, _), best in zip(PAIRS, found, strict=True):
        longest = model.searching.limit(len(text.split()))
        assert best[0].ids == greedy_by_hand(model, text, longest)


def texts_of(count: int) -> list[tuple[str, str]]:
    rng = random.Random(3)
    return [(" ".join(rng.choices(LETTERS, k=rng.randint(1, 9))), "a") for _ in range(count)]


@pytest.mark.parametrize("way", WAYS)
def test_hypotheses_and_scores_do_not_depend_on_the_batch(way: str) -> None:
    model = made(**WAYS[way]).eval()
    pairs = texts_of(20)
    options = replace(model.searching, beam=4, n_best=4)
    alone = [model.translate(batch_of([pair]), options)[0] for pair in pairs]
    order = list(range(len(pairs)))
    random.Random(4).shuffle(order)
    for size, spare in ((7, 0), (20, 4)):
        for first in range(0, len(order), size):
            some = order[first : first + size]
            found = model.translate(batch_of([pairs[at] for at in some], spare), options)
            for at, hypotheses in zip(some, found, strict=True):
                for mine, other in zip(hypotheses, alone[at], strict=True):
                    assert mine.score == pytest.approx(other.score, abs=1e-4)
                gaps = [a.score - b.score for a, b in zip(alone[at], alone[at][1:], strict=False)]
                if min(gaps, default=1.0) > 1e-4:
                    assert [x.ids for x in hypotheses] == [x.ids for x in alone[at]]


def test_scores_are_log_probabilities_of_the_model() -> None:
    model = made().eval()
    pairs = texts_of(5)
    found = model.translate(batch_of(pairs), replace(model.searching, beam=3, n_best=3))
    longest = [model.searching.limit(len(text.split())) for text, _ in pairs]
    for (text, _), hypotheses, limit in zip(pairs, found, longest, strict=True):
        for hypothesis in hypotheses:
            if len(hypothesis.ids) < limit:
                target = " ".join(letters().pieces(hypothesis.ids))
                total, _ = model.log_likelihood(batch_of([(text, target)]))
                assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)


def test_models_are_searched_together() -> None:
    model = made().eval()
    other = made().eval()
    for parameter in other.parameters():
        parameter.data.neg_()
    batch = batch_of(texts_of(6))
    alone = model.translate(batch)
    twice = searched([model, model], batch, model.searching)
    mixed = searched([model, other], batch, model.searching)
    assert [x[0].ids for x in twice] == [x[0].ids for x in alone]
    assert twice[0][0].score == pytest.approx(alone[0][0].score, abs=1e-5)
    assert [x[0].ids for x in mixed] != [x[0].ids for x in alone]


def test_search_takes_wishes() -> None:
    model = made().eval()
    wish = Constraints(prefix=[5], required=[[7, 8]], banned=[[6]])
    pairs = [(text, gold) for text, gold in texts_of(4)]
    options = replace(model.searching, max_extra=8)
    for hypotheses in model.translate(batch_of(pairs), options, [wish] * 4):
        ids = hypotheses[0].ids
        assert ids[0] == 5
        assert 6 not in ids
        assert (7, 8) in zip(ids, ids[1:], strict=False)


def test_steps_are_laid_out_anew_after_a_step_of_training() -> None:
    model = made().eval()
    batch = batch_of(texts_of(8))
    before = model.translate(batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    assert [x[0].score for x in model.translate(batch)] != [x[0].score for x in before]


def test_what_is_laid_out_outlives_a_second_call_of_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    from seqlab.networks import translator

    model, batch = made().eval(), batch_of(PAIRS)
    model.translate(batch)

    def never(*_: Any) -> None:
        raise AssertionError("laid out again")

    monkeypatch.setattr(translator, "laid_out", never)
    model.eval().translate(batch)
    with pytest.raises(AssertionError, match="laid out again"):
        model.train().eval().translate(batch)


def test_steps_are_laid_out_anew_after_training_however_weights_were_changed() -> None:
    model = made().eval()
    batch = batch_of(PAIRS)
    before = model.translate(batch)[0][0].score
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)  # leaves no trace
    model.loss(batch).backward()
    optimizer.step()
    model.eval()
    found = model.translate(batch, replace(model.searching, beam=1))
    assert found[0][0].score != before
    for (text, _), best in zip(PAIRS, found, strict=True):
        longest = model.searching.limit(len(text.split()))
        with torch.no_grad():
            assert best[0].ids == greedy_by_hand(model, text, longest)


def test_scores_of_a_split_are_those_of_sacrebleu() -> None:
    import sacrebleu

    model = made().eval()
    for batch in (batch_of(PAIRS[:3]), batch_of(PAIRS[3:])):
        model.score(batch, "test")
    scores = model.scores("test")
    options = replace(model.searching, beam=5)
    found = model.translate(batch_of(PAIRS), options)
    texts = letters().decode([best[0].ids for best in found])
    wanted = sacrebleu.corpus_bleu(texts, [[gold for _, gold in PAIRS]])
    assert scores["test/bleu"] == pytest.approx(wanted.score)
    total, tokens = model.log_likelihood(batch_of(PAIRS))
    assert scores["test/perplexity"] == pytest.approx(math.exp(-total / tokens), rel=1e-4)
    assert {x["source"] for x in scores["test/examples"]} == {text for text, _ in PAIRS}
    json.dumps(scores)


@pytest.mark.parametrize("way", WAYS)
def test_a_bundle_translates_as_the_model_it_came_from(way: str, tmp_path: Path) -> None:
    model = made(**WAYS[way]).eval()
    loaded = load_bundle(save_bundle(model, tmp_path / "bundle"))
    assert isinstance(loaded, Translator)
    batch = batch_of(PAIRS)
    assert loaded.translate(batch) == model.translate(batch)
    assert loaded.source_vocab == model.source_vocab


def test_arguments_that_make_no_model_are_refused() -> None:
    vocabulary = letters()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"attention": "dto"}, r"Did you mean 'dot'"),
        ({"heads": 2}, r"model\.heads is 2, but model\.attention is general"),
        ({"dropout": 1.0}, r"model\.dropout is 1\.0: it must be 0 or more and less than 1"),
        ({"beam": 0}, r"model\.beam is 0: it must be 1 or more"),
        ({"bridge": "copy"}, r"set model\.decoder_size to 12"),
        ({"sequence_loss": "minimum_risk", "sequence_candidates": 1}, "sequence_candidates is 1"),
        ({"length_penalty": "mean"}, "length_penalty is 'mean'"),
    ]
    for options, message in cases:
        with pytest.raises(RecipeError, match=message):
            Translator(vocabulary, vocabulary, **{**SMALL, **options})
    tags = Vocabulary(["O"])
    with pytest.raises(RecipeError, match="use data.class_path seqlab.TranslationData"):
        Translator(vocabulary, tags, **SMALL)  # type: ignore[arg-type]
    other = SubwordVocabulary(train_tokenizer(iter(["x y z"]), "words", 100), language=None)
    with pytest.raises(RecipeError, match=r"set data\.joint to true, or tie decoder"):
        Translator(vocabulary, other, **SMALL, tie="all")


def toy(folder: Path, count: int, longest: int, backwards: bool) -> str:
    rng = random.Random(0)
    texts = {tuple(rng.choices(LETTERS, k=rng.randint(1, longest))) for _ in range(count)}
    lines = [
        " ".join(text) + "\t" + " ".join(text[::-1] if backwards else text)
        for text in sorted(texts)
    ]
    rng.shuffle(lines)
    folder.mkdir()
    held = min(500, len(lines) // 10)
    parts = {"dev": lines[:held], "test": lines[held : 2 * held], "train": lines[2 * held :]}
    for name, part in parts.items():
        (folder / f"{name}.tsv").write_text("a\tb\n" + "\n".join(part) + "\n", encoding="utf-8")
    return str(folder)


def trained(
    path: str, folder: Path, epochs: int, resume: bool = False, stop: int = 0, **options: Any
) -> Translator:
    """Train as `seqlab fit` does; `stop` breaks off after so many epochs."""
    with quiet():
        lightning.seed_everything(1)
        data = TranslationData(
            path,
            source_language="a",
            target_language="b",
            tokenizer="words",
            vocabulary_size=100,
            tokens_per_batch=400,
            batch_size=32,
            seed=1,
        )
        model = Translator(data.source_vocab, data.target_vocab, **options)
        folder.mkdir(exist_ok=True)
        keeper = RunKeeper(folder)
        trainer = lightning.Trainer(
            max_epochs=stop or epochs,
            accelerator="cpu",
            callbacks=[keeper],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            gradient_clip_val=1.0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
        )
        path = str(keeper.last) if resume else ""
        trainer.fit(model, data, ckpt_path=path or None, weights_only=True)
        trainer.test(model, data.test_dataloader(), verbose=False)
    return model


TOY: dict[str, Any] = {
    "hidden_size": 32,
    "embedding_size": 32,
    "decoder_size": 64,
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "learning_rate": 5e-3,
    "betas": (0.9, 0.98),
}


@pytest.mark.slow
@pytest.mark.parametrize("backwards", [False, True], ids=["copy", "reverse"])
def test_toy_tasks_are_learnt_to_the_last_letter(backwards: bool, tmp_path: Path) -> None:
    path = toy(tmp_path / "toy", 12000, 8, backwards)
    model = trained(path, tmp_path / "run", 14, schedule="cosine", **TOY)
    assert model.last_scores["test/bleu"] == pytest.approx(100.0)
    assert model.last_scores["test/ter"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"attention": "additive", "coverage": 0.5, "copy": True},
        {"input_feeding": False, "attention": "multi-head", "heads": 4},
        {"scheduled_sampling": 0.3, "scheduled_sampling_steps": 200, "attention": "dot"},
    ],
    ids=["copying", "without feeding", "scheduled sampling"],
)
def test_other_ways_learn_to_copy_too(options: dict[str, Any], tmp_path: Path) -> None:
    path = toy(tmp_path / "toy", 4000, 5, backwards=False)
    model = trained(path, tmp_path / "run", 8, schedule="cosine", **{**TOY, **options})
    assert model.last_scores["test/bleu"] > 99.0


TINY: dict[str, Any] = {
    "hidden_size": 6,
    "embedding_size": 5,
    "decoder_size": 8,
    "word_dropout": 0.1,
    "averaging": 0.9,
}


def test_a_resumed_run_ends_with_the_weights_of_one_never_stopped(tmp_path: Path) -> None:
    path = toy(tmp_path / "toy", 300, 4, backwards=False)
    whole = trained(path, tmp_path / "whole", 3, **TINY)
    trained(path, tmp_path / "broken", 3, stop=1, **TINY)
    resumed = trained(path, tmp_path / "broken", 3, resume=True, **TINY)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_greedy_search_is_what_validation_uses_unless_told_otherwise() -> None:
    model = made()
    assert model.validation_beam == 1
    assert model.searching == SearchOptions(beam=5, max_ratio=1.0, max_extra=3)
    assert model.monitor == "val/bleu"


def test_the_source_is_read_once_however_often_a_search_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = made().eval()
    read: list[int] = []
    encode = model.encode

    def counted(batch: PairBatch) -> Any:
        read.append(len(batch))
        return encode(batch)

    monkeypatch.setattr(model, "encode", counted)
    wishes = [Constraints(required=[[7]]), None, Constraints(required=[[8]]), None]
    model.translate(batch_of(PAIRS), constraints=wishes)
    assert read == [4]

"""Scores of translators against sacrebleu's own functions, and against counts by hand."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from torch import distributed, multiprocessing

from seqlab.translation_metrics import (
    TranslationScores,
    corpus_scores,
    sentence_bleu,
    sentence_chrf,
)

REFERENCES = [
    "Two dogs are playing in the snow.",
    "A man, wearing a red hat, sits on a bench.",
    "Übung macht den Meister 🙂👍🏽!",
    "The children run across the field.",
    'He said: "It\'s 3.5 kilometres" & left.',
]
HYPOTHESES = [
    "two dogs play in the snow .",
    "On a bench sits a man, wearing a red hat.",
    "Übung macht Meister 🙂👍🏽!",
    "",
    'He said: "It\'s 3,5 kilometres" and left.',
]


def scored(pairs: list[tuple[str, str]], size: int = 2) -> TranslationScores:
    metric = TranslationScores()
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        metric.update([ours for ours, _ in batch], [gold for _, gold in batch])
    return metric


def test_scores_and_signatures_are_those_of_sacrebleu() -> None:
    scores = scored(list(zip(HYPOTHESES, REFERENCES, strict=True))).compute()
    bleu = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
    lowercased = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], lowercase=True)
    assert scores["bleu"] == bleu.score
    assert scores["bleu_lowercased"] == lowercased.score
    assert bleu.score < lowercased.score
    assert scores["chrf"] == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert scores["ter"] == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score
    assert (scores["brevity_penalty"], scores["length_ratio"]) == (bleu.bp, bleu.ratio)
    assert (scores["translated_words"], scores["reference_words"]) == (bleu.sys_len, bleu.ref_len)
    assert scores["sentences"] == len(REFERENCES)
    end = f"version:{sacrebleu.__version__}"
    assert scores["scorer"] == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{end}",
        "bleu_lowercased": f"nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|{end}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{end}",
        "ter": f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|{end}",
    }


def test_scores_are_those_of_a_count_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours; nothing is short.
    metric = scored([("the cat sat on the mat", "the cat sat on a mat")])
    scores = metric.compute()
    assert scores["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert scores["ter"] == pytest.approx(100 / 6)  # one word of six is replaced
    # 3 words of 4, cut short; one moved block is one edit.
    scores = scored([("a b c", "a b c d"), ("x y z a b c", "a b c x y z")]).compute()
    assert scores["brevity_penalty"] == pytest.approx(math.exp(1 - 10 / 9))
    assert scores["length_ratio"] == pytest.approx(9 / 10)
    assert scores["ter"] == pytest.approx(100 * 2 / 10)
    # Of "ab" and "ac" one letter of two is right and no pair: P = R = (1/2 + 0) / 2.
    assert scored([("ab", "ac")]).compute()["chrf"] == pytest.approx(25)


def test_order_and_batches_change_nothing() -> None:
    pairs = list(zip(HYPOTHESES, REFERENCES, strict=True)) * 3
    likelihoods = [(0.1 * i + 1e-9, i + 1, i // 2) for i in range(20)]
    found = []
    for seed in range(4):
        rng = random.Random(seed)
        rng.shuffle(pairs)
        rng.shuffle(likelihoods)
        metric = scored(pairs, size=seed + 1)
        for likelihood in likelihoods:
            metric.update_likelihood(*likelihood)
        found.append(metric.compute())
    assert found[1:] == found[:-1]


def test_perplexity_is_that_of_all_tokens() -> None:
    metric = TranslationScores()
    metric.update_likelihood(torch.tensor(3.0), 2, 1)
    metric.update_likelihood(9.0, 4, 2)
    assert metric.compute() == {"perplexity": math.exp(2.0), "token_accuracy": 0.5}
    metric.update_likelihood(1.0, 1)
    assert metric.compute() == {"perplexity": math.exp(13 / 7)}  # right tokens not all known
    metric.update_likelihood(1e9, 1)
    assert metric.compute()["perplexity"] == math.inf


def test_scores_are_plain_and_reset_forgets() -> None:
    metric = scored([("a", "a")])
    metric.update_likelihood(1.0, 1, 1)
    scores = metric.compute()
    assert json.loads(json.dumps(scores)) == scores
    assert all(type(scores[name]) is float for name in ("bleu", "chrf", "ter", "perplexity"))
    metric.reset()
    metric.update([], [])
    assert metric.compute() == {}


def test_merged_states_equal_one_metric_over_all() -> None:
    pairs = list(zip(HYPOTHESES, REFERENCES, strict=True))
    whole, first, second = scored(pairs), scored(pairs[:2]), scored(pairs[2:])
    first.merge_state(second)
    assert first.compute() == whole.compute()


@pytest.mark.parametrize("text", ["", "  ", "line\nbreak \u2028", "\ud800", "🙂" * 500, "\x00"])
def test_any_text_survives_being_kept(text: str) -> None:
    metric = scored([(text, "reference"), ("reference", text)])
    scores = metric.compute()
    assert scores == corpus_scores([text, "reference"], ["reference", text])
    assert all(math.isfinite(scores[name]) for name in ("bleu", "chrf", "ter"))


def test_empty_translations_score_zero() -> None:
    scores = scored([("", "A dog."), ("", "A cat.")]).compute()
    assert (scores["bleu"], scores["chrf"], scores["ter"]) == (0.0, 0.0, 100.0)
    assert scores["brevity_penalty"] == 0.0


def test_long_lines_are_scored() -> None:
    rng = random.Random(0)
    words = [f"w{rng.randrange(300)}" for _ in range(2_000)]
    ours = ["x" if i % 10 == 0 else word for i, word in enumerate(words)]
    scores = scored([(" ".join(ours), " ".join(words))]).compute()
    assert scores["ter"] == pytest.approx(10.0)
    assert scores["translated_words"] == 2_000


def test_sides_of_different_length_are_refused() -> None:
    metric = TranslationScores()
    with pytest.raises(ValueError, match="1 translations for 2 references"):
        metric.update(["a"], ["a", "b"])
    assert metric.records == []


def test_rewards_are_sentence_scores_of_sacrebleu() -> None:
    bleu, chrf = sentence_bleu(HYPOTHESES, REFERENCES), sentence_chrf(HYPOTHESES, REFERENCES)
    for i, (ours, gold) in enumerate(zip(HYPOTHESES, REFERENCES, strict=True)):
        assert bleu[i] == pytest.approx(sacrebleu.sentence_bleu(ours, [gold]).score / 100)
        assert chrf[i] == pytest.approx(sacrebleu.sentence_chrf(ours, [gold]).score / 100)
    assert 0.0 == bleu[3] == chrf[3]
    assert 0.0 < bleu[0] < bleu[2] < 1.0
    assert sentence_bleu([REFERENCES[0]], [REFERENCES[0]]) == [1.0]
    assert sentence_bleu(["short"], ["short"]) == [1.0]  # though it has no pair of words
    assert sentence_bleu([], []) == sentence_chrf([], []) == []


def test_reward_scorers_keep_nothing_from_call_to_call() -> None:
    first = sentence_bleu(HYPOTHESES, REFERENCES)
    sentence_bleu(["quite", "another"], ["batch of", "sentences"])
    assert sentence_bleu(HYPOTHESES, REFERENCES) == first


def metric_of_rank(rank: int) -> TranslationScores:
    """Rank 0 has more and longer sentences, so that the ranks' states differ in size."""
    metric = TranslationScores()
    ours, gold = (HYPOTHESES[:3], REFERENCES[:3]) if rank == 0 else (HYPOTHESES[3:], REFERENCES[3:])
    for pair in zip(ours, gold, strict=True):
        metric.update([pair[0]], [pair[1]])
    metric.update_likelihood(0.1 + rank, 3 + rank, 2)
    return metric


def score_on_rank(rank: int, store: str, expected: dict[str, Any], alone: dict[str, Any]) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    assert metric_of_rank(rank).compute() == expected
    metric = metric_of_rank(0) if rank == 1 else TranslationScores()
    if rank == 0:
        metric.reset()  # a rank that has seen no batch
        with pytest.warns(UserWarning, match="called before"):
            assert metric.compute() == alone
    else:
        assert metric.compute() == alone
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path) -> None:
    whole = scored(list(zip(HYPOTHESES, REFERENCES, strict=True)))
    whole.update_likelihood(1.1, 4, 2)
    whole.update_likelihood(0.1, 3, 2)
    arguments = (str(tmp_path / "store"), whole.compute(), metric_of_rank(0).compute())
    multiprocessing.spawn(score_on_rank, args=arguments, nprocs=2)

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from seqlab.errors import SeqlabError, UsageError
from seqlab.nn.search import SearchOptions
from seqlab.pipeline import Pipeline
from seqlab.subwords import SubwordVocabulary
from seqlab.translated import Translated
from seqlab.translation_pipeline import TranslationPipeline, Wishes
from seqlab.wishes import says

TEXTS = ["the cat sat", "a dog", "I see the cats and the dogs", "mat", "the dog (brown) runs, he"]


@pytest.fixture(scope="module")
def pipeline(make_translator: Any) -> TranslationPipeline:
    return TranslationPipeline(make_translator(beam=3), device="cpu")


def assert_same(first: Translated, second: Translated) -> None:
    assert first.text == second.text
    assert [h.ids for h in first.hypotheses] == [h.ids for h in second.hypotheses]
    assert first.score == pytest.approx(second.score, abs=1e-5)
    assert first.source_pieces == second.source_pieces


def test_a_text_gives_one_translation_and_lists_give_lists(pipeline: TranslationPipeline) -> None:
    one = pipeline("the cat sat")
    assert isinstance(one, Translated)
    assert one.translation
    found = pipeline(TEXTS)
    assert [result.text for result in found] == TEXTS
    assert_same(found[0], one)
    assert pipeline([]) == []


def test_a_translation_is_what_the_model_finds(pipeline: TranslationPipeline) -> None:
    model = pipeline.model
    [ids] = model.source_vocab.encode(["the cat sat"])
    [[best]] = model.translate(pipeline._batch(pipeline.jobs(["the cat sat"])))
    found = pipeline("the cat sat").hypotheses[0]
    assert (found.ids, found.text) == (best.ids, model.target_vocab.decode([best.ids])[0])
    assert found.score == pytest.approx(best.score)
    assert found.log_probability == pytest.approx(best.log_probability)
    assert pipeline("the cat sat").source_pieces == model.source_vocab.pieces(ids)


def test_results_come_in_order_whatever_the_batches_are(make_translator: Any) -> None:
    model = make_translator(beam=2)
    alone = TranslationPipeline(model, device="cpu", tokens_per_batch=1)
    texts = [" ".join(some) for some in itertools.permutations(TEXTS[:4], 2)] + ["", *TEXTS]
    expected = alone(texts)
    for tokens in (7, 40, 4096):
        found = TranslationPipeline(model, device="cpu", tokens_per_batch=tokens)(texts)
        for first, second in zip(found, expected, strict=True):
            assert_same(first, second)


def test_few_texts_are_read_ahead(make_translator: Any) -> None:
    pipeline = TranslationPipeline(make_translator(beam=1), device="cpu", tokens_per_batch=2)
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "the cat"

    found = list(itertools.islice(pipeline.stream(endless()), 3))
    assert len(found) == 3
    assert taken <= 17


def test_blank_texts_never_reach_the_model(make_translator: Any) -> None:
    model = make_translator()
    pipeline = TranslationPipeline(model, device="cpu", alignments=True)
    model.encode = None  # would fail
    for text in ("", " \t\n ", "\x00\x07"):
        found = pipeline(text, Wishes(require=("cat",)))
        assert (found.text, found.translation, found.alignments()) == (text, "", "")
        assert found.hypotheses[0].missing == ["cat"]


def test_threads_may_share_a_pipeline(make_translator: Any) -> None:
    pipeline = TranslationPipeline(make_translator(beam=2), device="cpu")
    expected = pipeline(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(pipeline, [TEXTS] * 8):
            for first, second in zip(found, expected, strict=True):
                assert_same(first, second)


def test_alignments_are_those_of_the_pieces(make_translator: Any) -> None:
    pipeline = TranslationPipeline(make_translator(), device="cpu", alignments=True)
    (found,) = pipeline(["the  cat sat"])
    weights = found.hypotheses[0].alignment
    assert weights is not None
    assert weights.shape == (len(found.hypotheses[0].ids), 3)
    assert found.offsets == [(0, 3), (5, 8), (9, 12)]
    words = found.translation.split()
    assert [target for _, target in found.links()] == list(range(len(words)))
    assert all(0 <= source < 3 for source, _ in found.links())
    pipeline.alignments = False
    assert pipeline("the cat sat").hypotheses[0].alignment is None


def test_an_unknown_word_is_copied_from_the_source(make_translator: Any) -> None:
    model = make_translator(max_ratio=1.0, max_extra=1, tie="none")
    with torch.no_grad():
        model.output.bias[SubwordVocabulary.UNKNOWN] = 20.0
    plain = TranslationPipeline(model, device="cpu", alignments=True)("zebra Zoe")
    assert plain.unknown == 2
    assert plain.translation == ""
    pipeline = TranslationPipeline(model, device="cpu", replace_unknown=True)
    found = pipeline("zebra Zoe")
    best = plain.hypotheses[0].alignment
    assert best is not None
    expected = [["zebra", "Zoe"][place] for place in best.argmax(1).tolist()]
    assert found.translation.split() == expected
    assert "".join(found.hypotheses[0].pieces).split() == expected
    assert found.hypotheses[0].alignment is None  # was not asked for
    # What is banned is not copied either.
    assert pipeline("zebra Zoe", Wishes(ban=tuple(set(expected)))).translation == ""


@pytest.mark.parametrize("kind", ["words", "bpe", "unigram"])
def test_wishes_hold(make_translator: Any, kind: str) -> None:
    size = 300 if kind == "bpe" else 60
    options = SearchOptions(beam=4, n_best=4)
    pipeline = TranslationPipeline(make_translator(kind, size), device="cpu", options=options)
    for banned in ("cat", ",", pipeline("a dog").translation.split()[0]):
        found = pipeline("a dog", Wishes(ban=(banned,)))
        assert not any(says(h.text, banned) for h in found.hypotheses)
    found = pipeline("a dog", Wishes(require=("cat", "the mat")))
    for hypothesis in found.hypotheses:
        assert "cat" in hypothesis.text
        assert "the mat" in hypothesis.text
        assert hypothesis.missing == []
    found = pipeline("a dog", Wishes(prefix="I see"))
    assert all(h.text.startswith("I see") for h in found.hypotheses)


def test_each_text_may_have_wishes_of_its_own(pipeline: TranslationPipeline) -> None:
    free = pipeline("a dog")
    found = pipeline(
        [("a dog", Wishes(prefix="the cat")), "a dog", ("a dog", Wishes(require=("mat",)))],
        Wishes(require=("runs",)),
    )
    assert found[0].translation.startswith("the cat")
    assert all("runs" in result.translation for result in found)
    assert "mat" in found[2].translation
    assert_same(pipeline("a dog"), free)


def test_wishes_that_cannot_be_are_named_by_their_text(pipeline: TranslationPipeline) -> None:
    with pytest.raises(UsageError, match=r"^text 2: the banned phrase 'cat' is the same as"):
        pipeline(["a", ("dog", Wishes(require=("cat",)))], Wishes(ban=("cat",)))
    with pytest.raises(UsageError, match=r"^the prefix 'zebra' cannot be written"):
        pipeline(["a"], Wishes(prefix="zebra"))


def test_samples_depend_on_the_place_of_a_text_alone(make_translator: Any) -> None:
    options = SearchOptions(method="sample", n_best=3, seed=5)
    model = make_translator()
    pipeline = TranslationPipeline(model, device="cpu", options=options)
    texts = ["the cat", "the cat", *TEXTS]
    found = pipeline(texts)
    assert found[0].hypotheses[0].ids != found[1].hypotheses[0].ids
    narrow = TranslationPipeline(model, device="cpu", options=options, tokens_per_batch=1)
    for first, second in zip(found, narrow(texts), strict=True):
        assert_same(first, second)
    (later,) = pipeline.stream(["the cat"], first=1)
    assert_same(later, found[1])


def test_an_ensemble_averages_probabilities(make_translator: Any) -> None:
    models = [make_translator(seed=seed, beam=1) for seed in (1, 2)]
    options = SearchOptions(beam=1, max_extra=2, max_ratio=1.0, length_penalty="none")
    together = TranslationPipeline(models, device="cpu", options=options)("the cat sat")
    alone = [TranslationPipeline(m, device="cpu", options=options)("the cat sat") for m in models]
    best = together.hypotheses[0]
    steps = torch.zeros(2, len(best.ids) + 1)
    for row, model in enumerate(models):
        batch = TranslationPipeline(model, device="cpu")._batch(together_jobs(model))
        batch.target = torch.tensor([[*best.ids, SubwordVocabulary.END]])
        batch.target_lengths = torch.tensor([len(best.ids) + 1])
        memory, start = model.encode(batch)
        x = model.embed(model.target_embedding, model.before(batch.target))
        features, weights = model.decoder(x, start, memory)
        logs = model.log_probabilities(features, weights, batch.source)[0]
        steps[row] = logs.gather(1, batch.target[0].unsqueeze(1)).squeeze(1).detach()
    mean = (steps.exp().mean(0)).log().sum()
    assert best.log_probability == pytest.approx(float(mean), abs=1e-4)
    assert alone[0].log_probability != pytest.approx(alone[1].log_probability, abs=1e-3)


def together_jobs(model: Any) -> Any:
    return TranslationPipeline(model, device="cpu").jobs(["the cat sat"])


def test_models_that_do_not_fit_are_refused(make_translator: Any) -> None:
    with pytest.raises(UsageError, match="need the same vocabularies"):
        TranslationPipeline([make_translator(), make_translator("bpe")], device="cpu")
    with pytest.raises(UsageError, match="there is no model"):
        TranslationPipeline([], device="cpu")
    other: Any = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="serves Translators, and this is a Linear: use Pipeline"):
        TranslationPipeline(other)
    with pytest.raises(TypeError, match="this is a Translator: use TranslationPipeline"):
        Pipeline(make_translator())


def test_wrong_settings_and_inputs_are_refused(
    make_translator: Any, pipeline: TranslationPipeline
) -> None:
    wrong: Any
    with pytest.raises(SeqlabError, match="device 'cpuu' is unknown"):
        TranslationPipeline(make_translator(), device="cpuu")
    with pytest.raises(ValueError, match="tokens_per_batch must be at least 1"):
        TranslationPipeline(make_translator(), tokens_per_batch=0)
    for wrong in (3, None, b"cat", iter(["cat"])):
        with pytest.raises(TypeError, match="takes a text or a list of texts"):
            pipeline(wrong)
    for wrong in (["cat", 3], ["cat", ["the", "cat"]], ["cat", ("cat", "dog")]):
        with pytest.raises(TypeError, match="input 2 is of type"):
            pipeline(wrong)


def test_other_languages_are_refused(make_translator: Any) -> None:
    pipeline = TranslationPipeline(make_translator(), device="cpu")
    pipeline.check_languages("en", "fr")
    pipeline.check_languages()
    for asked in ({"source": "de"}, {"target": "de"}):
        with pytest.raises(UsageError, match="translates from en to fr, and de is asked for"):
            pipeline.check_languages(**asked)
    pipeline.model.source_vocab.language = None
    with pytest.raises(UsageError, match="does not say what languages it translates"):
        pipeline.check_languages("en")


def test_any_character_can_be_read(make_translator: Any) -> None:
    texts = ["东京 \U0001f469\u200d\U0001f680", "\ud83d half", "caf\u00e9 \u0130"]
    for kind in ("bpe", "words", "wordpiece", "unigram"):
        model = make_translator(kind, 300 if kind == "bpe" else 60)
        pipeline = TranslationPipeline(model, device="cpu", alignments=True, replace_unknown=True)
        found = pipeline(texts)
        assert [result.text for result in found] == texts
        assert all((result.unknown > 0) is (kind != "bpe") for result in found)
        for result in found:
            result.translation.encode()


def test_a_very_long_text_changes_nothing_for_the_others(make_translator: Any) -> None:
    options = SearchOptions(beam=2, max_ratio=0.0, max_extra=8)
    pipeline = TranslationPipeline(make_translator(), device="cpu", options=options)
    found = pipeline(["the cat", "dog " * 5000, "a dog"])
    assert len(found[1].source_pieces) == 5000
    assert len(found[1].hypotheses[0].ids) <= 8
    for result, text in ((found[0], "the cat"), (found[2], "a dog")):
        assert_same(result, pipeline(text))


def test_fast_is_near_exact(make_translator: Any) -> None:
    model = make_translator()
    exact = TranslationPipeline(model, device="cpu")("the cat sat")
    options = replace(model.searching, beam=1)
    fast = TranslationPipeline(model, device="cpu", precision="fast", options=options)
    assert fast("the cat sat").score == pytest.approx(exact.score, abs=0.5)

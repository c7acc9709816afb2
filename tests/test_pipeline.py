from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from seqlab.batch import FormTable
from seqlab.errors import DataError, SeqlabError, UsageError
from seqlab.models.base import SequenceModel
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.networks.tagger import DecoderName
from seqlab.nn.kernels import VARIABLE
from seqlab.pipeline import Labelled, Pipeline, Sentence, Tagged, is_served
from seqlab.tags import Grammar, convert, spans_of
from seqlab.vocabulary import Vocabulary

WORDS = ["Ada", "Lovelace", "was", "born", "in", "London", ".", "und", "wrote", "programs"]
BIOES = ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
IOB2 = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def source(features: dict[str, Vocabulary] | None = None) -> Vocabulary:
    letters = Vocabulary("abcdefghijklmnopqrstuvwxyz", padding=True, unknown=1)
    return Vocabulary(
        WORDS[:6], padding=True, unknown=1, characters=letters, features=features or {}
    )


def tagger(
    tags: Sequence[str] = BIOES,
    scheme: str = "bioes",
    written: str = "iob2",
    decoder: DecoderName = "crf",
    features: dict[str, Vocabulary] | None = None,
    window: int = 2048,
    spread: float = 3.0,
) -> Tagger:
    torch.manual_seed(7)
    model = Tagger(
        source(features),
        Vocabulary(tags, scheme=scheme, written=written),
        hidden_size=8,
        embedding_size=8,
        character_size=8,
        decoder=decoder,
        window=window,
    )
    with torch.no_grad():  # untrained scores lie close together: pull them apart, towards spans
        model.emit.weight *= spread
        model.emit.bias[0] -= 1.0
        for parameter in model.crf.parameters():
            parameter.uniform_(-1, 1)
    return model


POOLINGS = ["last", "mean", "max", "attention", ["last", "mean", "max", "attention"]]


def classifier(
    pooling: str | list[str] = "attention", scheme: str = "label", **options: Any
) -> Classifier:
    torch.manual_seed(11)
    heads = 2 if "attention" in pooling else 1
    target = Vocabulary(["en", "de", "fr"], scheme=scheme, written=scheme)
    sizes = {"hidden_size": 8, "embedding_size": 8, "character_size": 8}
    model = Classifier(source(), target, pooling=pooling, heads=heads, **(sizes | options))
    with torch.no_grad():  # pull apart what is untrained: labels and attention must differ by text
        for parameter in [*model.embedder.parameters(), *model.encoder.parameters()]:
            parameter *= 2.0
    return model


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(tagger(), device="cpu")


def sentences(count: int, longest: int = 12) -> list[list[str]]:
    rng = random.Random(3)
    return [rng.choices(WORDS, k=rng.randint(1, longest)) for _ in range(count)]


def assert_same(first: Tagged, second: Tagged) -> None:
    assert first.tokens == second.tokens
    assert first.tags == second.tags
    assert first.confidences == pytest.approx(second.confidences, abs=1e-5)
    assert [s.label for s in first.spans] == [s.label for s in second.spans]
    sure = [s.confidence for s in first.spans]
    assert sure == pytest.approx([s.confidence for s in second.spans], abs=1e-5)


def assert_same_label(first: Labelled, second: Labelled) -> None:
    assert (first.text, first.tokens) == (second.text, second.tokens)
    assert (first.label, first.labels) == (second.label, second.labels)
    assert first.probabilities == pytest.approx(second.probabilities, abs=1e-5)
    assert first.attention == pytest.approx(second.attention, abs=1e-5)


def test_a_text_gives_one_result_and_lists_give_lists(pipeline: Pipeline) -> None:
    one = pipeline("Ada was born in London.")
    assert isinstance(one, Tagged)
    assert one.tokens == ["Ada", "was", "born", "in", "London", "."]
    two = pipeline(["Ada was born in London.", "Ada wrote"])
    assert [t.text for t in two] == ["Ada was born in London.", "Ada wrote"]
    assert_same(two[0], one)
    (cut,) = pipeline([["Ada", "was", "born", "in", "London", "."]])
    assert cut.text == "Ada was born in London ."
    assert cut.offsets[-2:] == [(16, 22), (23, 24)]
    assert_same(cut, one)
    assert pipeline([]) == []


def test_text_without_words_gives_a_result_without_tokens(pipeline: Pipeline) -> None:
    for text in ("", " \t\n "):
        assert pipeline(text) == Tagged(text, [], [], [], [], [])
    assert [t.tokens for t in pipeline([[], ["Ada"], []])] == [[], ["Ada"], []]
    assert [t.tokens for t in pipeline(["", "Ada", ""])] == [[], ["Ada"], []]


@pytest.mark.parametrize("wrong", [3, None, b"Ada", {"Ada": 1}, iter(["Ada"])])
def test_a_wrong_input_is_a_type_error_that_says_what_is_taken(
    pipeline: Pipeline, wrong: Any
) -> None:
    with pytest.raises(TypeError, match=r"takes a text, a list of texts or a list of lists"):
        pipeline(wrong)


def test_wrong_items_are_named_by_their_place(pipeline: Pipeline) -> None:
    wrong: Any = ["Ada", 3]
    with pytest.raises(TypeError, match=r"input 2 is of type int"):
        pipeline(wrong)
    with pytest.raises(TypeError, match=r"sentence 1: word 2 is a list, not a string"):
        pipeline([["Ada", wrong]])
    with pytest.raises(TypeError, match=r"input 1 is no Sentence but str"):
        pipeline.tag(wrong)
    with pytest.raises(TypeError, match=r"its words come as a str"):
        pipeline.tag([Sentence("Ada")])
    with pytest.raises(DataError, match=r"sentence 2: word 1 is empty"):
        pipeline([["Ada"], [""]])
    with pytest.raises(DataError, match=r"sentence 1 has 1 tokens and 2 values of offsets"):
        pipeline.tag([Sentence(["Ada"], text="Ada", offsets=[(0, 1), (1, 3)])])


def test_offsets_and_spans_fit_the_text(pipeline: Pipeline) -> None:
    text = "  Ada\u00a0Lovelace \U0001f468\u200d\U0001f469\u200d\U0001f467 \x01 was\nin London!! 🇬🇧"
    found = pipeline(text)
    assert found.text == text
    assert [text[start:end] for start, end in found.offsets] == found.tokens
    assert found.spans
    for span in found.spans:
        assert text[span.start : span.end] == span.text
        assert found.offsets[span.first_token][0] == span.start
        assert found.offsets[span.last_token][1] == span.end
        assert found.tags[span.first_token] == f"B-{span.label}"


def test_control_characters_and_halves_of_characters_pass_through(pipeline: Pipeline) -> None:
    tokens = ["\x00", "a\tb", "\ud83d", "\u202e", "x" * 1000, "🇬🇧"]
    (found,) = pipeline([tokens])
    assert found.tokens == tokens
    assert [found.text[start:end] for start, end in found.offsets] == tokens
    assert len(found.tags) == len(tokens)


def test_a_result_becomes_plain_json(pipeline: Pipeline) -> None:
    found = pipeline("Ada Lovelace")
    data = json.loads(json.dumps(found.to_dict()))
    assert list(data) == ["text", "tokens", "offsets", "tags", "spans", "confidences"]
    assert data["offsets"] == [[0, 3], [4, 12]]
    keys = ["text", "label", "start", "end", "confidence", "first_token", "last_token"]
    assert all(list(span) == keys for span in data["spans"])


def test_without_confidence_there_are_no_numbers() -> None:
    model = tagger()
    found = Pipeline(model, device="cpu", confidence=False)("Ada Lovelace was born in London")
    assert found.confidences is None
    assert found.spans
    assert {span.confidence for span in found.spans} == {None}
    assert found.tags == Pipeline(model, device="cpu")("Ada Lovelace was born in London").tags


def test_tags_are_written_in_the_scheme_of_the_corpus() -> None:
    text = "Ada Lovelace was born in London . Ada"
    own = Pipeline(tagger(written="none"), device="cpu")(text)
    assert own.spans
    for written in ("iob1", "iob2", "bioes", "bilou"):
        found = Pipeline(tagger(written=written), device="cpu")(text)
        assert found.tags == convert(own.tags, "bioes", written)
        assert [s.text for s in found.spans] == [s.text for s in own.spans]


def test_tags_without_spans_give_every_token_one() -> None:
    model = tagger(["NOUN", "VERB", "PUNCT"], "none", "none")
    found = Pipeline(model, device="cpu")("Ada wrote programs.")
    assert [s.text for s in found.spans] == ["Ada", "wrote", "programs", "."]
    assert [s.label for s in found.spans] == found.tags
    assert [s.confidence for s in found.spans] == found.confidences
    assert str(found) == " ".join(f"{s.text}/{s.label}" for s in found.spans)


def test_printing_a_result_marks_its_spans_in_the_text() -> None:
    found = Pipeline(tagger(), device="cpu")("Ada  Lovelace was born in London .")
    marked = str(found)
    for span in found.spans:
        assert f"[{span.text}]({span.label} {span.confidence:.2f})" in marked
        marked = marked.replace(f"[{span.text}]({span.label} {span.confidence:.2f})", span.text, 1)
    assert found.spans
    assert marked == found.text


def legal_sequences(model: Tagger, tokens: list[str]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every tag sequence of non-zero probability and its probability, by enumeration."""
    vocab = model.target_vocab
    table = FormTable(model.source_vocab)
    with torch.inference_mode():
        emissions = model.emissions(table.batch(table.index(tokens), [len(tokens)]))[0].double()
    crf = model.crf
    parts = (crf.start_transitions, crf.transitions, crf.end_transitions)
    start, step, end = (part.detach() for part in parts)
    grammar = Grammar.of(vocab.tokens, "none" if model.decoder == "softmax" else vocab.scheme)
    scores = {}
    for ids in itertools.product(range(len(vocab)), repeat=len(tokens)):
        if grammar.allows(ids):
            score = float(start[ids[0]] + end[ids[-1]])
            score += sum(float(emissions[i, tag]) for i, tag in enumerate(ids))
            score += sum(float(step[a, b]) for a, b in itertools.pairwise(ids))
            scores[ids] = score
    total = torch.tensor(list(scores.values()), dtype=torch.float64).logsumexp(0).item()
    for ids, score in scores.items():
        yield ids, float(torch.tensor(score - total, dtype=torch.float64).exp())


@pytest.mark.parametrize("decoder", ["crf", "constrained", "softmax"])
@pytest.mark.parametrize(("scheme", "tags"), [("bioes", BIOES), ("iob2", IOB2)])
def test_confidences_are_those_of_brute_force(
    decoder: DecoderName, scheme: str, tags: list[str]
) -> None:
    model = tagger(tags, scheme, "iob2", decoder).eval()
    pipeline = Pipeline(model, device="cpu")
    long_spans = followed = 0
    for tokens in [["Ada"], *(words[:4] for words in sentences(12))]:
        (found,) = pipeline([tokens])
        weighed = [(model.target_vocab.decode(ids), p) for ids, p in legal_sequences(model, tokens)]
        assert found.confidences is not None
        for position, tag in enumerate(found.tags):
            same = {"B": "BS", "I": "IE", "O": "O"}[tag[0]]
            expected = sum(
                p for t, p in weighed if t[position][0] in same and t[position][1:] == tag[1:]
            )
            assert found.confidences[position] == pytest.approx(expected, abs=1e-5)
        for span in found.spans:
            wanted = (span.label, span.first_token, span.last_token + 1)
            # Under a softmax illegal sequences have probability too; only what is written as this
            # very span counts as it.
            expected = sum(p for t, p in weighed if wanted in spans_of(t, scheme, "strict"))
            if decoder == "softmax":
                expected = path_probability(weighed, wanted, scheme)
            assert span.confidence == pytest.approx(expected, abs=1e-5)
            long_spans += span.last_token > span.first_token
            followed += span.last_token + 1 < len(tokens)
    assert long_spans
    assert followed


def test_one_very_long_span_changes_no_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(tagger(IOB2, "iob2"), device="cpu")
    texts = sentences(30)
    expected = pipeline(texts)
    monkeypatch.setattr("seqlab.confidence._QUERY_TOKENS", 3)
    for found, whole in zip(pipeline(texts), expected, strict=True):
        assert_same(found, whole)


def path_probability(
    weighed: list[tuple[list[str], float]], span: tuple[str, int, int], scheme: str
) -> float:
    """Probability of the tags that write a span, by enumeration; in IOB2 it must not go on."""
    label, start, end = span
    size = end - start
    prefixes = "B" + "I" * (size - 1)
    if scheme == "bioes":
        prefixes = "S" if size == 1 else prefixes[:-1] + "E"
    path = [f"{prefix}-{label}" for prefix in prefixes]
    return sum(
        p
        for tags, p in weighed
        if tags[start:end] == path
        and not (scheme == "iob2" and tags[end : end + 1] == [f"I-{label}"])
    )


def test_a_repaired_tag_that_the_model_cannot_give_has_no_probability() -> None:
    model = tagger(["O", "I-PER"], "iob2", "iob2", "softmax")
    found = Pipeline(model, device="cpu")([["Ada", "Lovelace", "London"]])[0]
    assert "B-PER" in found.tags
    assert found.confidences is not None
    assert found.confidences[found.tags.index("B-PER")] == 0.0
    assert found.spans[0].confidence == 0.0


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize(
    ("decoder", "window"), [("crf", 2048), ("crf", 5), ("constrained", 2048), ("softmax", 2048)]
)
def test_batches_order_padding_and_kernels_change_nothing(
    decoder: DecoderName, window: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tagger(decoder=decoder, window=window)
    texts = sentences(60)
    monkeypatch.setenv(VARIABLE, "plain")
    alone = [Pipeline(model, device="cpu")([words])[0] for words in texts]
    monkeypatch.setenv(VARIABLE, kernels)
    monkeypatch.setattr("seqlab.networks.tokens._FEW", 4)  # so that all is done that saves work
    order = random.Random(1).sample(range(60), 60)
    for tokens_per_batch in (1, 20, 100, 4096):
        pipeline = Pipeline(model, device="cpu", tokens_per_batch=tokens_per_batch)
        for row, found in zip(order, pipeline([texts[row] for row in order]), strict=True):
            assert_same(found, alone[row])


def test_batches_keep_to_the_budget_and_hold_like_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = Pipeline(tagger(), device="cpu", tokens_per_batch=50)
    seen: list[torch.Size] = []
    original = pipeline.model.emissions

    def watched(batch: Any) -> torch.Tensor:
        seen.append(batch.source.shape)
        return original(batch)

    monkeypatch.setattr(pipeline.model, "emissions", watched)
    texts = sentences(100)
    pipeline([*texts, ["Ada"] * 70])
    assert all(rows * time <= 50 or rows == 1 for rows, time in seen)
    assert sum(rows * time for rows, time in seen) < 1.2 * (70 + sum(map(len, texts)))


def test_a_stream_is_read_some_batches_ahead_and_no_further() -> None:
    pipeline = Pipeline(tagger(), device="cpu", tokens_per_batch=4)
    taken = 0

    def endless() -> Iterator[Sentence]:
        nonlocal taken
        while True:
            taken += 1
            yield Sentence(["Ada", "wrote"] if taken % 3 else [])

    results = pipeline.stream(endless())
    first = [next(results) for _ in range(100)]
    assert [len(t.tokens) for t in first] == [2, 2, 0] * 33 + [2]
    assert taken < 100 + 16 * 4 + 1
    nothing = pipeline.stream(itertools.repeat(Sentence([])))
    assert next(nothing).tokens == []


def test_a_stream_of_ever_new_words_keeps_a_bounded_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqlab.pipeline._FORMS_KEPT", 100)
    pipeline = Pipeline(tagger(), device="cpu", tokens_per_batch=4)
    numbers = itertools.count()
    texts = (Sentence([f"Ada{next(numbers)}" for _ in range(4)]) for _ in itertools.count())
    held = []
    for found in itertools.islice(pipeline.stream(texts), 400):
        assert len(found.tags) == 4
        held.append(len(pipeline._forms))
    assert set(held) == {64, 128}  # as many as are read ahead, and twice as many


def test_a_stream_goes_on_after_one_that_was_left_or_failed() -> None:
    pipeline = Pipeline(tagger(), device="cpu", tokens_per_batch=4)
    texts = [Sentence(words) for words in sentences(40)]
    expected = pipeline.tag(texts)
    left = pipeline.stream(iter(texts))
    assert_same(next(left), expected[0])
    left.close()
    wrong: Any = [*texts, "no sentence"]
    with pytest.raises(TypeError, match="input 41 is no Sentence"):
        pipeline.tag(wrong)
    for found, one in zip(pipeline.tag(texts), expected, strict=True):
        assert_same(found, one)


@pytest.mark.parametrize("make", [tagger, classifier])
def test_weights_that_change_between_calls_count(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqlab.networks.tokens._FEW", 1)
    model, other = make(), make()
    pipeline = Pipeline(model, device="cpu")
    texts = sentences(20)
    before = pipeline(texts)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    model.load_state_dict(other.state_dict())
    for found, one, old in zip(pipeline(texts), Pipeline(other)(texts), before, strict=True):
        if isinstance(found, Tagged):
            assert_same(found, one)
            assert found.confidences != pytest.approx(old.confidences, abs=1e-4)
        else:
            assert_same_label(found, one)
            assert found.probabilities != pytest.approx(old.probabilities, abs=1e-4)


def test_a_model_that_is_put_back_to_training_still_answers() -> None:
    pipeline = Pipeline(tagger(), device="cpu")
    expected = pipeline(sentences(20))
    pipeline.model.train()
    noisy = pipeline(sentences(20))
    assert [len(one.tags) for one in noisy] == [len(one.tags) for one in expected]
    assert any(
        one.confidences != pytest.approx(other.confidences, abs=1e-3)
        for one, other in zip(noisy, expected, strict=True)
    )


def test_the_fast_precision_gives_nearly_the_same_answers() -> None:
    model = tagger()
    texts = sentences(200)
    exact = Pipeline(model, device="cpu")
    fast = Pipeline(model, device="cpu", precision="fast")
    assert (exact.precision, fast.precision) == ("exact", "fast")
    pairs = list(zip(exact(texts), fast(texts), strict=True))
    same = sum(a == b for one, other in pairs for a, b in zip(one.tags, other.tags, strict=True))
    assert same > 0.97 * sum(map(len, texts))
    ours = [sure for _, other in pairs for sure in other.confidences or []]
    theirs = [sure for one, _ in pairs for sure in one.confidences or []]
    assert {type(sure) for sure in ours} == {float}
    assert all(0.0 <= sure <= 1.0 for sure in ours)
    assert ours != theirs
    assert sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 0.02 * len(ours)
    fast.precision = "exact"
    for found, (one, _) in zip(fast(texts), pairs, strict=True):
        assert_same(found, one)


def test_legal_tags_come_out_in_the_fast_precision() -> None:
    model = tagger(written="bioes")
    grammar = Grammar.of(BIOES, "bioes")
    for found in Pipeline(model, device="cpu", precision="fast")(sentences(200)):
        assert grammar.allows(model.target_vocab.encode(found.tags))


def test_a_classifier_may_be_fast() -> None:
    model = classifier()
    found = Pipeline(model, device="cpu", precision="fast")(sentences(50))
    for one, other in zip(found, Pipeline(model, device="cpu")(sentences(50)), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.03)


def test_an_unknown_precision_is_refused() -> None:
    wrong: Any = "fats"
    with pytest.raises(SeqlabError, match=r"^precision is 'fats': choose exact or fast. Did you"):
        Pipeline(tagger(), precision=wrong)


def test_a_long_document_is_tagged_whole_through_windows() -> None:
    words = random.Random(2).choices(WORDS, k=2_000)
    whole = Pipeline(tagger(), device="cpu")([words])[0]
    windows = Pipeline(tagger(window=300), device="cpu")([words])[0]
    assert windows.tags == whole.tags
    # An encoder that was never trained forgets slowly: a little is left after the window's margin.
    assert windows.confidences == pytest.approx(whole.confidences, abs=1e-3)


@pytest.mark.slow
def test_a_document_of_100000_tokens_is_tagged() -> None:
    text = " ".join(random.Random(2).choices(WORDS, k=100_000))
    found = Pipeline(tagger(), device="cpu")(text)
    assert len(found.tags) == len(found.tokens) >= 100_000
    assert all(span.confidence is not None for span in found.spans)


def test_columns_that_the_model_needs_are_asked_for_and_used() -> None:
    pos = Vocabulary(["NOUN", "VERB"], padding=True, unknown=1)
    pipeline = Pipeline(tagger(features={"pos": pos}), device="cpu")
    for inputs in ("Ada wrote", ["Ada wrote"], [["Ada", "wrote"]]):
        with pytest.raises(
            SeqlabError, match=r"needs the column pos .* `--input FILE --columns po"
        ):
            pipeline(inputs)
    nouns = Sentence(["Ada", "wrote"], {"pos": ["NOUN", "NOUN"], "lemma": ["Ada", "write"]})
    verbs = Sentence(["Ada", "wrote"], {"pos": ["VERB", "never seen"]})
    first, second = pipeline.tag([nouns, verbs])
    assert first.confidences != second.confidences
    assert_same(pipeline.tag([verbs])[0], second)
    with pytest.raises(DataError, match=r"sentence 1 has 2 tokens and 1 values of pos"):
        pipeline.tag([Sentence(["Ada", "wrote"], {"pos": ["NOUN"]})])


def test_threads_may_share_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqlab.pipeline._FORMS_KEPT", 50)  # the table is emptied all the time
    monkeypatch.setattr("seqlab.networks.tokens._FEW", 4)
    model = tagger()
    shared = Pipeline(model, device="cpu", tokens_per_batch=64)
    rng = random.Random(9)
    parts = [
        [[f"{rng.choice(WORDS)}{rng.randint(0, 400)}" for _ in range(8)] for _ in range(40)]
        for _ in range(4)
    ]
    ready = threading.Barrier(4)

    def work(part: list[list[str]]) -> list[Tagged]:
        ready.wait()
        return shared(part)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, parts))
    for part, found in zip(parts, together, strict=True):
        for one, other in zip(found, Pipeline(model, device="cpu")(part), strict=True):
            assert_same(one, other)


def test_the_model_is_set_to_evaluation_and_left_without_gradients() -> None:
    model = tagger().train()
    pipeline = Pipeline(model, device="cpu")
    assert not model.training
    assert_same(pipeline("Ada Lovelace"), pipeline("Ada Lovelace"))
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_a_device_that_is_not_there_is_a_sentence() -> None:
    for name in ("tpu9", "cuda:63"):
        with pytest.raises(SeqlabError, match=f"device '{name}' is .*: choose auto"):
            Pipeline(tagger(), device=name)
    assert Pipeline(tagger(), device="auto").device.type in ("cpu", "cuda")


def test_a_scheme_without_fixed_beginnings_is_refused() -> None:
    with pytest.raises(SeqlabError, match=r"the model tags in iob1, and a pipeline reads bioes"):
        Pipeline(tagger(["O", "B-PER", "I-PER"], "iob1", "iob1"), device="cpu")


@pytest.mark.parametrize("scheme", ["label", "labels"])
@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_batches_order_and_padding_change_no_label(pooling: str | list[str], scheme: str) -> None:
    model = classifier(pooling, scheme)
    texts = sentences(60)
    alone = [Pipeline(model, device="cpu")([words])[0] for words in texts]
    assert len({tuple(found.labels) for found in alone}) > 1
    order = random.Random(1).sample(range(60), 60)
    for tokens_per_batch in (1, 20, 100, 4096):
        pipeline = Pipeline(model, device="cpu", tokens_per_batch=tokens_per_batch)
        for row, found in zip(order, pipeline([texts[row] for row in order]), strict=True):
            assert_same_label(found, alone[row])


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_windows_of_long_texts_change_no_text_beside_them(pooling: str | list[str]) -> None:
    model = classifier(pooling, window=6)
    texts = sentences(20, longest=30)
    assert max(map(len, texts)) > 4 * 6
    together = Pipeline(model, device="cpu")(texts)
    for words, found in zip(texts, together, strict=True):
        assert_same_label(Pipeline(model, device="cpu", tokens_per_batch=1)([words])[0], found)


def test_a_classifier_gives_one_result_a_text_in_their_order() -> None:
    pipeline = Pipeline(classifier(), device="cpu", tokens_per_batch=8)
    texts = ["Ada was born in London.", "", "Ada", "Lovelace  wrote"]
    several = pipeline(texts)
    assert [found.text for found in several] == texts
    assert [found.label is None for found in several] == [False, True, False, False]
    for text, found in zip(texts, several, strict=True):
        one = pipeline(text)
        assert isinstance(one, Labelled)
        assert_same_label(one, found)
    streamed = list(pipeline.stream(map(Sentence.of, texts)))
    assert [found.label for found in streamed] == [found.label for found in several]
    with pytest.raises(DataError, match=r"^text 2: word 1 is empty"):
        pipeline([["Ada"], [""]])


def test_threads_may_share_the_pipeline_of_a_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqlab.pipeline._FORMS_KEPT", 50)
    shared = Pipeline(classifier(), device="cpu", tokens_per_batch=64)
    parts = [[[f"{word}{at}{n}" for word in WORDS] for n in range(30)] for at in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(shared, parts))
    for part, found in zip(parts, together, strict=True):
        for one, other in zip(found, Pipeline(classifier(), device="cpu")(part), strict=True):
            assert_same_label(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_a_document_of_200000_tokens_is_classified(pooling: str | list[str]) -> None:
    words = random.Random(2).choices(WORDS, k=200_000)
    found = Pipeline(classifier(pooling), device="cpu")([["Ada"], words, ["Ada", "wrote"]])
    assert found[1].tokens == words
    assert found[1].label in ("en", "de", "fr")
    assert sum((found[1].probabilities or {}).values()) == pytest.approx(1.0, abs=1e-4)
    if found[1].attention is not None:
        assert len(found[1].attention) == 200_000
        assert sum(found[1].attention) == pytest.approx(1.0, abs=1e-3)
    assert_same_label(found[0], Pipeline(classifier(pooling), device="cpu")([["Ada"]])[0])


def test_other_models_have_no_pipeline() -> None:
    other: Any = SequenceModel(source(), Vocabulary(["a"]))
    assert is_served(tagger())
    assert is_served(classifier())
    assert not is_served(other)
    with pytest.raises(TypeError, match=r"serves a Tagger or a Classifier, and this is a Sequence"):
        Pipeline(other, device="cpu")


@pytest.mark.parametrize("scheme", ["bioes", "iob2"])
def test_spans_that_are_less_sure_are_left_out(scheme: str) -> None:
    tags = BIOES if scheme == "bioes" else [t for t in BIOES if t[0] in "OBI"]
    model = tagger(tags, scheme)
    inputs = sentences(40)
    every = Pipeline(model)(inputs)
    sure = sorted(span.confidence for x in every for span in x.spans if span.confidence is not None)
    least = sure[len(sure) // 2]
    kept = Pipeline(model, min_confidence=least)(inputs)
    for whole, some in zip(every, kept, strict=True):
        wanted = [s for s in whole.spans if s.confidence is not None and s.confidence >= least]
        assert [(s.label, s.first_token, s.last_token) for s in some.spans] == [
            (s.label, s.first_token, s.last_token) for s in wanted
        ]
        inside = {i for s in wanted for i in range(s.first_token, s.last_token + 1)}
        for position, tag in enumerate(some.tags):
            assert tag == (whole.tags[position] if position in inside else "O")
    assert any(len(x.spans) < len(y.spans) for x, y in zip(kept, every, strict=True))
    silent = Pipeline(model, min_confidence=least, confidence=False)(inputs)
    assert [x.tags for x in silent] == [x.tags for x in kept]


def test_tags_that_are_less_sure_are_unknown() -> None:
    model = tagger(["NOUN", "VERB", "X"], "none", "none")
    inputs = sentences(40)
    every = Pipeline(model)(inputs)
    sure = sorted(c for x in every for c in x.confidences or ())
    least = sure[len(sure) // 2]
    kept = Pipeline(model, min_confidence=least)(inputs)
    for whole, some in zip(every, kept, strict=True):
        assert some.confidences == whole.confidences
        pairs = zip(whole.tags, whole.confidences or (), strict=True)
        assert some.tags == [tag if sure >= least else "?" for tag, sure in pairs]


def test_texts_that_are_less_sure_get_no_label() -> None:
    model = classifier()
    inputs = sentences(40)
    every = Pipeline(model)(inputs)
    sure = sorted(max((x.probabilities or {"": 0.0}).values()) for x in every)
    least = sure[len(sure) // 2]
    kept = Pipeline(model, min_confidence=least)(inputs)
    assert {len(x.labels) for x in kept} == {0, 1}
    for whole, some in zip(every, kept, strict=True):
        assert some.probabilities == whole.probabilities
        sure_enough = max((whole.probabilities or {"": 0.0}).values()) >= least
        assert some.label == (whole.label if sure_enough else None)


def test_a_wished_precision_is_looked_up_in_the_curve_of_the_model() -> None:
    model = tagger()
    pipeline = Pipeline(model)
    with pytest.raises(UsageError, match="does not know how right"):
        pipeline.at_precision(0.9)
    model.measure([[0.7, 0.95, 0.5, 50], [0.4, 0.91, 0.8, 80], [0.1, 0.5, 1.0, 100]])
    assert pipeline.at_precision(0.9).kept == 0.8
    assert pipeline.min_confidence == 0.4
    assert model.config["precision_curve"][0] == [0.7, 0.95, 0.5, 50]

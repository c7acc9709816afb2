from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from seqlab.batch import FormTable
from seqlab.errors import SeqlabError
from seqlab.models.tagger import Tagger
from seqlab.sentence import Sentence
from seqlab.tagged import Tagged, TaggedSpan, Tagging
from seqlab.tags import Grammar, convert, spans_of
from seqlab.vocabulary import Vocabulary


def tagger(tags: list[str], scheme: str) -> Tagger:
    torch.manual_seed(1)
    words = Vocabulary(["Ada", "was"], padding=True, unknown=1)
    target = Vocabulary(tags, scheme=scheme, written=scheme)
    model = Tagger(words, target, hidden_size=4, embedding_size=4, characters="none")
    with torch.no_grad():
        model.emit.weight.zero_()
        for parameter in model.crf.parameters():
            parameter.zero_()
        model.emit.bias.copy_(torch.arange(len(tags)))  # the last tag wins everywhere
    return model.eval()


def tagged(*spans: TaggedSpan, has_spans: bool = True) -> Tagged:
    tags = ["B-PER", "O"]
    return Tagged("Ada was", ["Ada", "was"], [(0, 3), (4, 7)], tags, [*spans], None, has_spans)


def test_printed_a_result_marks_its_spans() -> None:
    sure, plain = (TaggedSpan("Ada", "PER", 0, 3, chance, 0, 0) for chance in (0.987, None))
    assert str(tagged(sure)) == "[Ada](PER 0.99) was"
    assert str(tagged(plain)) == "[Ada](PER) was"
    assert str(tagged()) == "Ada was"
    assert str(tagged(has_spans=False)) == "Ada/B-PER was/O"


def test_a_batch_gets_one_result_a_sentence() -> None:
    model = tagger(["O", "B-PER"], "iob2")
    table = FormTable(model.source_vocab)
    batch = table.batch(table.index(["Ada", "was", "Ada"]), [2, 1])
    sentences = [Sentence(["Ada", "was"]), Sentence.of(" Ada")]
    with torch.inference_mode():
        first, second = Tagging(model).of_batch(batch, sentences, confidence=True)
        plain = Tagging(model).of_batch(batch, sentences, confidence=False)
    assert first.tags == ["B-PER", "B-PER"]
    assert (second.text, second.offsets, second.tags) == (" Ada", [(1, 4)], ["B-PER"])
    assert [span.text for span in [*first.spans, *second.spans]] == ["Ada", "was", "Ada"]
    assert second.confidences == pytest.approx([1 / (1 + torch.e**-1)], abs=1e-5)
    assert [one.confidences for one in plain] == [None, None]
    assert {span.confidence for one in plain for span in one.spans} == {None}


@pytest.mark.parametrize("confidence", [True, False])
def test_a_sentence_without_words_has_no_tags(confidence: bool) -> None:
    tagging = Tagging(tagger(["NOUN", "VERB"], "none"))
    found = tagging.of_nothing(Sentence.of(" "), confidence)
    assert found == Tagged(" ", [], [], [], [], [] if confidence else None, has_spans=False)


def test_a_scheme_that_models_do_not_use_is_refused() -> None:
    with pytest.raises(SeqlabError, match=r"^the model tags in iob1, and a pipeline reads bioes, "):
        Tagging(tagger(["O", "I-PER", "B-PER"], "iob1"))


def of_tags(tags: list[str], scheme: str, written: str, sentence: Sentence) -> Tagged:
    """What a pipeline says of a sentence for which a model finds these tags."""
    target = Vocabulary([*dict.fromkeys(["O", *tags])], scheme=scheme, written=written)
    words = Vocabulary(["a"], padding=True, unknown=1)
    model = Tagger(words, target, hidden_size=2, embedding_size=2, decoder="softmax")
    return Tagging(model)._tagged(sentence, tags)


def example(placed: bool) -> Tagged:
    text, offsets = ("Ada  was in", [(0, 3), (5, 8), (9, 11)]) if placed else (None, None)
    sentence = Sentence(["Ada", "was", "in"], text=text, offsets=offsets)
    return of_tags(["B-PER", "I-PER", "O"], "iob2", "iob2", sentence)


def made_at_once(placed: bool) -> Tagged:
    text, first = ("Ada  was in", 5) if placed else ("Ada was in", 4)
    offsets = [(0, 3), (first, first + 3), (first + 4, first + 6)]
    span = TaggedSpan(text[: first + 3], "PER", 0, first + 3, None, 0, 1)
    return Tagged(text, ["Ada", "was", "in"], offsets, ["B-PER", "I-PER", "O"], [span], None)


USES: dict[str, Callable[[Tagged], Any]] = {
    "itself": lambda found: found,
    "pickle": lambda found: pickle.loads(pickle.dumps(found)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": lambda found: dataclasses.replace(found, confidences=None),
    "asdict": dataclasses.asdict,
    "to_dict": lambda found: json.dumps(found.to_dict()),
    "repr": repr,
    "str": str,
    "spans first": lambda found: (found.spans, found.offsets, found.text),
    "text last": lambda found: (found.offsets, found.spans, found.text),
}


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_is_made_when_it_is_asked_for_is_as_if_made_at_once(
    use: Callable[[Tagged], Any], placed: bool
) -> None:
    assert use(example(placed)) == use(made_at_once(placed))
    assert example(placed) == made_at_once(placed)
    assert example(placed) != made_at_once(not placed)


def test_a_result_has_no_other_attributes_and_takes_none() -> None:
    found: Any = example(placed=True)
    with pytest.raises(AttributeError, match="'Tagged' object has no attribute 'labels'"):
        found.labels  # noqa: B018
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.tags = []
    assert found.spans is found.spans
    assert found.offsets is found.offsets


@pytest.mark.parametrize("has_spans", [True, False])
@pytest.mark.parametrize("placed", [False, True])
def test_changing_parts_of_a_result_changes_none_that_is_made_later(
    placed: bool, has_spans: bool
) -> None:
    words = ["Ada", "was"]
    offsets = [(0, 3), (5, 8)] if placed else None
    sentence = Sentence(words, text="Ada  was" if placed else None, offsets=offsets)
    model = tagger(["B-A", "B-B"], "iob2" if has_spans else "none")
    table = FormTable(model.source_vocab)
    batch = table.batch(table.index(words), [2])
    with torch.inference_mode():
        left, changed = (Tagging(model).of_batch(batch, [sentence], True)[0] for _ in range(2))
    expected = copy.deepcopy(left)
    assert len(expected.spans) == 2
    changed.tokens[:] = ["nothing"]
    changed.tags.clear()
    assert changed.confidences
    changed.confidences.clear()
    words.reverse()
    if offsets is not None:
        offsets.pop()
    changed.offsets.append((0, 0))
    assert (changed.text, changed.spans) == (expected.text, expected.spans)
    assert changed.offsets == [*expected.offsets, (0, 0)]


@pytest.mark.parametrize("written", ["iob1", "iob2", "bioes", "bilou"])
@pytest.mark.parametrize("scheme", ["bioes", "bilou", "iob2"])
def test_tags_are_rewritten_as_converted(scheme: str, written: str) -> None:
    letters = {"bioes": "BIES", "bilou": "BILU", "iob2": "BI"}[scheme]
    tags = ["O", *(f"{prefix}-{label}" for label in ("A", "B-C") for prefix in letters)]
    vocab = Vocabulary(tags, scheme=scheme, written=written)
    grammar = Grammar.of(tags, scheme)
    model = Tagger(Vocabulary(["a"], padding=True, unknown=1), vocab, hidden_size=2)
    tagging = Tagging(model)
    seen = 0
    for size in range(5):
        for ids in itertools.product(range(len(tags)), repeat=size):
            if grammar.allows(ids):
                own = vocab.decode(ids)
                found = tagging._tagged(Sentence(["a"] * size), own)
                assert found.tags == convert(own, scheme, written)
                spans = [(s.label, s.first_token, s.last_token + 1) for s in found.spans]
                assert spans == spans_of(own, scheme)
                seen += 1
    assert seen > 100


def test_repaired_tags_that_the_model_lacks_are_rewritten_too() -> None:
    found = of_tags(["B-PER", "E-PER"], "bioes", "iob2", Sentence(["a", "b"]))
    assert found.tags == ["B-PER", "I-PER"]
    target = Vocabulary(["O", "I-PER"], scheme="bioes", written="iob2")  # alone it becomes S-PER
    words = Vocabulary(["a"], padding=True, unknown=1)
    model = Tagger(words, target, hidden_size=2, decoder="softmax")
    assert Tagging(model)._tagged(Sentence(["a"]), ["S-PER"]).tags == ["B-PER"]


def test_tags_outside_of_spans_that_have_a_label_are_converted() -> None:
    found = of_tags(["O-PER", "S-PER"], "bioes", "iob2", Sentence(["a", "b"]))
    assert found.tags == convert(["O-PER", "S-PER"], "bioes", "iob2") == ["O", "B-PER"]


def test_names_that_only_look_like_tags_of_spans_stay_as_they_are() -> None:
    found = of_tags(["I-X", "N"], "none", "iob2", Sentence(["a", "b"]))
    assert found.tags == ["I-X", "N"]
    assert [span.label for span in found.spans] == ["I-X", "N"]

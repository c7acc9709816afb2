from __future__ import annotations

import pytest
import torch

from seqlab.batch import FormTable
from seqlab.errors import SeqlabError
from seqlab.models.tagger import Tagger
from seqlab.sentence import Sentence
from seqlab.tagged import Tagged, TaggedSpan, Tagging
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

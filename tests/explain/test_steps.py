from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from seqlab.explain.pieces import END
from seqlab.explain.steps import ALTERNATIVES, Retold, Step, retold
from seqlab.models.translator import Translator
from seqlab.pairs import PairBatch
from seqlab.subwords import SubwordVocabulary

Make = Callable[..., Translator]
KINDS = [
    {},
    {"input_feeding": False},
    {"copy": True, "coverage": 1.0},
    {"attention": "multi-head", "heads": 2, "decoder_layers": 2},
    {"attention": "local", "window": 2, "cell": "gru"},
]


def batch_of(model: Translator, text: str = "Ada saw the dog.") -> PairBatch:
    (ids,) = model.source_vocab.encode([text])
    ids = [*ids, SubwordVocabulary.END]
    return PairBatch(torch.tensor([ids]), torch.tensor([len(ids)]))


def told(model: Translator, batch: PairBatch) -> Retold:
    return retold(model, batch, model.translate(batch)[0][0].ids)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_the_steps_are_those_of_the_search(
    make_translator: Make, options: dict[str, object]
) -> None:
    model = make_translator(**options)
    batch = batch_of(model)
    best = model.translate(
        batch, type(model.searching)(beam=3, max_ratio=1.0, max_extra=3, keep_attention=True)
    )[0][0]
    found = retold(model, batch, best.ids)
    assert len(found.steps) == len(best.ids) + 1
    total = sum(math.log(step.probability) for step in found.steps)
    assert total == pytest.approx(best.log_probability, abs=1e-4)
    assert best.attention is not None
    seen = found.attention[:-1, : best.attention.shape[1]]
    torch.testing.assert_close(seen, best.attention, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.attention.sum(1), torch.ones(len(found.steps)))


def test_pieces_are_named_and_the_end_is_one(translator: Translator) -> None:
    batch = batch_of(translator)
    ids = translator.target_vocab.encode(["Ada vit le chat."])[0]
    found = retold(translator, batch, ids)
    assert [step.piece for step in found.steps] == [" Ada", " vit", " le", " chat", ".", END]


def test_the_distribution_is_summed_up(translator: Translator) -> None:
    batch = batch_of(translator)
    ids = translator.target_vocab.encode(["Ada vit"])[0]
    found = retold(translator, batch, ids)
    with torch.no_grad():
        memory, start = translator.encode(batch)
        target = torch.tensor([[*ids, SubwordVocabulary.END]])
        x = translator.embed(translator.target_embedding, translator.before(target))
        features, _ = translator.decoder(x, start, memory)
        logs = translator.log_probabilities(features, None, batch.source)[0].double()
    for step, row, chosen in zip(found.steps, logs, target[0].tolist(), strict=True):
        assert step.probability == pytest.approx(row[chosen].exp().item())
        assert step.entropy == pytest.approx(-(row.exp() * row).sum().item() / math.log(2))
        order = [i for i in row.argsort(descending=True).tolist() if i not in (0, 2, chosen)]
        names = translator.target_vocab.pieces(order[:ALTERNATIVES])
        names = [
            END if i == SubwordVocabulary.END else n for i, n in zip(order, names, strict=False)
        ]
        assert [name for name, _ in step.alternatives] == names
        values = [row[i].exp().item() for i in order[:ALTERNATIVES]]
        assert [value for _, value in step.alternatives] == pytest.approx(values)


def test_the_gate_of_a_model_that_copies_is_told(make_translator: Make) -> None:
    model = make_translator(copy=True)
    assert model.copy is not None
    found = told(model, batch_of(model))
    assert all(step.copied is not None and 0 < step.copied < 1 for step in found.steps)
    with torch.no_grad():
        model.copy.gate.weight.zero_()
        model.copy.gate.bias.fill_(math.log(3))
    assert told(model, batch_of(model)).steps[0].copied == pytest.approx(0.75)
    assert "copied" in found.steps[0].to_dict()


def test_other_models_have_no_gate(translator: Translator) -> None:
    step = told(translator, batch_of(translator)).steps[0]
    assert step.copied is None
    assert "copied" not in step.to_dict()


def test_a_step_is_plain_data_and_shown() -> None:
    step = Step(" Ada", 0.5, 1.0, [(" the", 0.25), (".", 0.125), (END, 0.0625)], None)
    assert step.to_dict()["alternatives"][1] == {"piece": ".", "probability": 0.125}
    assert [name for name, _ in step.others] == ["the", "·.", END]


def test_a_small_vocabulary_has_fewer_alternatives(make_translator: Make) -> None:
    from seqlab.subwords import train_tokenizer

    tiny = SubwordVocabulary(train_tokenizer(iter(["Ada"]), "words", 10), language=None)
    model = make_translator(target=tiny)
    for step in told(model, batch_of(model)).steps:
        names = {step.piece, *(name for name, _ in step.alternatives)}
        assert names == {" Ada", "<unk>", END}

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab.__main__ import main
from seqlab.bundle import save_bundle
from seqlab.errors import UsageError
from seqlab.explain import cost as module
from seqlab.explain.cost import ModelCost, cost_of
from seqlab.explain.options import Options, parse
from seqlab.nn.costs import Cost
from seqlab.pipeline import Pipeline
from seqlab.vocabulary import Vocabulary

Maker = Callable[..., Any]


def found(model: Any, tokens: int = 6) -> ModelCost:
    return cost_of(Pipeline(model, device="cpu", tokens_per_batch=60), tokens, seconds=0)


@pytest.mark.parametrize("cell", ["lstm", "gru", "coupled", "layernorm", "sru"])
def test_the_whole_is_the_sum_of_its_parts(
    cell: str, make_tagger: Maker, make_classifier: Maker
) -> None:
    for model in (make_tagger(cell=cell, num_layers=2), make_classifier(cell=cell)):
        cost = found(model)
        total = cost.total
        assert total.parameters == sum(weight.numel() for weight in model.parameters())
        assert total.bytes["float32"] >= 4 * total.parameters
        assert total.cost is not None
        assert total.cost.matrix == sum(part.cost.matrix for part in cost.parts if part.cost)
        assert total.training == pytest.approx(sum(part.training for part in cost.parts))
        # What one part has made is gone before the next but one is at work.
        assert max(part.inference for part in cost.parts) < total.inference
        assert total.inference < sum(part.inference for part in cost.parts)
        assert total.inference < total.training


def test_bytes_are_told_by_the_type_of_number(make_tagger: Maker) -> None:
    model = make_tagger()
    model.encoder.double()
    cost = found(model.float()).total.bytes
    assert cost == {"float32": 4 * sum(w.numel() for w in model.parameters()), "bool": 9 + 81 + 9}
    model.crf.double()
    parts = {part.part: part for part in found(model).parts}
    assert parts["decoder: crf"].bytes == {"float64": 8 * (9 + 81 + 9), "bool": 99}


def test_activations_by_hand(make_tagger: Maker) -> None:
    model = make_tagger(num_layers=2, dropout=0.0, cell="coupled", characters="none")
    parts = {part.part: part for part in found(model).parts}
    # Emissions: one float a tag.
    assert parts["output layer"].inference == 4 * 9
    # Both layers read as many tokens and have as many units: gates, cells, states, what the output
    # gate lets through, and the input in the order of each direction, are held for the gradient.
    least = 4 * 2 * 5 * (3 + 1 + 1 + 1)
    for name in ("layer 1: coupled, two ways", "layer 2: coupled, two ways"):
        assert least < parts[name].training < 3 * least
        assert parts[name].inference > 4 * 2 * 5


def test_more_layers_hold_more_in_training_only(make_tagger: Maker) -> None:
    one, two = (found(make_tagger(num_layers=n)).total for n in (1, 2))
    assert two.training > 1.3 * one.training
    assert two.inference < 1.3 * one.inference


def test_a_model_is_left_as_it_was(make_tagger: Maker, make_classifier: Maker) -> None:
    for model in (make_tagger(dropout=0.5), make_classifier(dropout=0.5)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.random.get_rng_state()
        found(model)
        assert not any(part.training for part in model.modules())
        assert torch.equal(torch.random.get_rng_state(), state)
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])
        assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("decoder", ["crf", "constrained", "softmax"])
def test_every_decoder_has_a_cost(decoder: str, make_tagger: Maker) -> None:
    cost = found(make_tagger(decoder=decoder))
    assert cost.parts[-1].part == f"decoder: {decoder}"
    assert cost.parts[-1].training > 0


def test_texts_with_any_number_of_labels(make_classifier: Maker) -> None:
    target = Vocabulary(["a", "b", "c"], scheme="labels")
    cost = found(make_classifier(target=target, pooling=["last", "mean"]))
    assert [part.part for part in cost.parts[-2:]] == ["pooling", "output layer"]


def test_columns_beside_the_words_and_documents_in_windows(make_tagger: Maker) -> None:
    columns = {"pos": Vocabulary(["N"], padding=True, unknown=1)}
    cost = found(make_tagger(columns, window=4), tokens=300)
    assert [pace.sentences for pace in cost.paces] == [1]
    assert cost.tokens == 300


def test_paces_are_of_one_sentence_and_of_a_batch(make_tagger: Maker) -> None:
    cost = found(make_tagger(), tokens=6)
    assert [pace.sentences for pace in cost.paces] == [1, 10]
    for pace in cost.paces:
        assert pace.runs >= 3
        assert pace.tokens_per_second > 0
    assert cost.device == "cpu"
    assert "threads: " in cost.hardware
    assert cost.letters is not None
    assert 1 <= cost.letters <= 5


def test_everything_is_plain_data(make_tagger: Maker) -> None:
    cost = found(make_tagger())
    data = json.loads(json.dumps(cost.to_dict()))
    assert data["parts"][0]["part"] == "word embedding"
    assert data["total"]["multiply_adds"].keys() == {"matrix", "element"}
    assert data["total"]["activation_bytes"].keys() == {"inference", "training"}
    assert [speed["sentences"] for speed in data["speed"]] == [1, 10]
    assert data["threads"] == torch.get_num_threads()


def test_unknown_equations_make_the_sum_unknown(make_tagger: Maker) -> None:
    rows = found(make_tagger()).parts
    lost = [*rows[:-1], module.PartCost("encoder: X", 1, {"float32": 4}, None, 1.0, 1.0)]
    total = module._sum(lost, 5.0)
    assert total.cost is None
    assert total.to_dict()["multiply_adds"] is None
    assert module._sum(rows[:1], 5.0).cost == Cost(0, 0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cost_of", partial(cost_of, seconds=0))


@pytest.mark.usefixtures("quick")
def test_the_verb_prints_a_table(
    make_tagger: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tagger()
    save_bundle(model, tmp_path / "bundle")
    assert main(["explain", str(tmp_path / "bundle"), "--cost", "--tokens", "7"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    count = sum(weight.numel() for weight in model.parameters())
    assert f"/bundle: Tagger, {count:,} parameters, " in shown.out
    assert "tokens a sentence: 7," in shown.out
    assert "layer 1: lstm, two ways" in shown.out


@pytest.mark.usefixtures("quick")
def test_the_verb_prints_json(
    make_classifier: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_bundle(make_classifier(), tmp_path / "bundle")
    words = ["explain", str(tmp_path / "bundle"), "--cost", "--json", "--device", "cpu"]
    assert main(words) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["path"] == str(tmp_path / "bundle")
    assert data["model"] == "Classifier"
    assert data["tokens"] == 25


def test_a_device_that_is_not_there_is_one_sentence(
    make_tagger: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_bundle(make_tagger(), tmp_path / "bundle")
    assert main(["explain", str(tmp_path / "bundle"), "--cost", "--device", "cuda:99"]) == 1
    assert "device 'cuda:99' is not there" in capsys.readouterr().err


def test_options_of_the_cost() -> None:
    assert parse(["m", "--cost"]) == Options("m", cost=True)
    assert parse(["--cost", "--tokens", "9", "m", "--device", "cuda", "--json", "--trust"]) == (
        Options("m", json=True, trust=True, cost=True, tokens=9, device="cuda")
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("m a --cost", "TEXT 'a' is given beside --cost, which looks at no text: leave one"),
        ("m --cost --input f", "--input is given beside --cost"),
        ("m --cost --from 2", "--from is given beside --cost"),
        ("m --cost --to 2", "--to is given beside --cost"),
        ("m --cost --layer 2", "--layer is given beside --cost"),
        ("m --cost --direction forward", "--direction is given beside --cost"),
        ("m --cost --unit 2", "--unit is given beside --cost"),
        ("m --cost --html f", "--html is given beside --cost"),
        ("m --cost --tokens 0", "argument --tokens: '0' is no whole number from 1 on"),
        ("m a --tokens 3", "--tokens goes with --cost: add that, or leave it out"),
        ("m a --device cpu", "--device goes with --cost: add that, or leave it out"),
        ("--cost", "no MODEL is given"),
    ],
)
def test_what_does_not_go_with_the_cost_is_refused(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(words.split())

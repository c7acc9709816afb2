"""Promises that hold over the whole: on a model that was trained through the command line's code.

Promise 3 (checked against dumb code) has its tests beside each part as well, and promise 5 (kill it
anywhere) in test_callbacks.py.
"""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import pickletools
import random
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, f1_score
from seqeval.scheme import IOB2, IOBES

import seqlab
from seqlab import training
from seqlab.data.sampling import BucketSampler
from seqlab.data.tagging import TaggingData
from seqlab.metrics import SpanF1
from seqlab.models.tagger import Tagger
from seqlab.networks.tagger import DecoderName
from seqlab.pipeline import Pipeline, Sentence, Tagged
from seqlab.tags import Grammar, convert
from seqlab.vocabulary import Vocabulary

UNHURRIED = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
SOURCE = Vocabulary(["a"], padding=True, unknown=1)
TAGS = {
    "bioes": ["O", *(f"{p}-{label}" for label in ("PER", "LOC") for p in "BIES")],
    "iob2": ["O", *(f"{p}-{label}" for label in ("PER", "LOC", "ORG") for p in "BI")],
}
RECIPE = """\
seed_everything: 7
model:
  class_path: seqlab.Tagger
  init_args:
    hidden_size: 24
    embedding_size: 24
    character_size: 16
    learning_rate: 1.0e-2
    averaging: 0.9
data:
  class_path: seqlab.TaggingData
  init_args:
    path: sample:ner
trainer:
  max_epochs: 3
  accelerator: cpu
"""


# Promise 1: legal by construction.


def tagger(decoder: DecoderName, scheme: str) -> Tagger:
    """A model whose transitions are random, too."""
    target = Vocabulary(TAGS[scheme], scheme=scheme, written=scheme)
    model = Tagger(SOURCE, target, hidden_size=1, embedding_size=1, decoder=decoder).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.crf.parameters():
            parameter.normal_(0, 3)
    return model


def random_emissions(tensors: int, tags: int, dtype: torch.dtype) -> Iterator[Any]:
    """Batches with their masks: 1 to 40 tokens, from flat to steep, with ties and with -inf."""
    torch.manual_seed(tensors)
    scales = (0.0, 1e-3, 1.0, 10.0, 1e3, 1e30)
    sizes = (1, 2, 3, 5, 8, 13, 21, 40)
    kinds = [(scale, time) for scale in scales for time in sizes]
    batch = -(-tensors // len(kinds))
    for scale, time in kinds:
        emissions = (torch.randn(batch, time, tags) * scale).to(dtype)
        if time in (2, 5, 21):  # ties
            emissions = emissions.sign() * scale
        if time in (3, 21):  # what is impossible, but never O
            emissions[..., 1:].masked_fill_(torch.rand(batch, time, tags - 1) < 0.3, -torch.inf)
        lengths = torch.randint(1, time + 1, (batch, 1))
        yield emissions.to(dtype), torch.arange(time) < lengths


def count_illegal(decoder: DecoderName, scheme: str, dtype: torch.dtype, tensors: int) -> int:
    """Decode that many random tensors, assert that each got its tags, and count illegal ones."""
    model = tagger(decoder, scheme)
    grammar = Grammar.of(TAGS[scheme], scheme)
    ids = {tag: i for i, tag in enumerate(TAGS[scheme])}
    seen = illegal = 0
    for emissions, mask in random_emissions(tensors, len(ids), dtype):
        found = model.decode(emissions, mask)
        assert [len(tags) for tags in found] == mask.sum(1).tolist()
        illegal += sum(not grammar.allows([ids.get(tag, 0) for tag in tags]) for tags in found)
        illegal += sum(tag not in ids for tags in found for tag in tags)
        seen += len(found)
    assert seen >= tensors
    return illegal


CASES = [
    (decoder, scheme, dtype)
    for decoder in ("crf", "constrained", "softmax")
    for scheme in TAGS
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize(("decoder", "scheme", "dtype"), CASES, ids=str)
def test_no_tags_are_illegal_in_100000_tensors(
    decoder: DecoderName, scheme: str, dtype: torch.dtype
) -> None:
    assert count_illegal(decoder, scheme, dtype, 100_000 // len(CASES) + 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "scheme", "dtype"), CASES, ids=str)
def test_no_tags_are_illegal_in_a_million_tensors(
    decoder: DecoderName, scheme: str, dtype: torch.dtype
) -> None:
    assert count_illegal(decoder, scheme, dtype, 1_000_000 // len(CASES) + 1) == 0


def test_a_model_without_a_grammar_would_be_caught() -> None:
    model = tagger("crf", "bioes")
    model.crf.constrained = False
    grammar, illegal = Grammar.of(TAGS["bioes"], "bioes"), 0
    for emissions, mask in random_emissions(100, 9, torch.float32):
        ids = [model.target_vocab.encode(tags) for tags in model.decode(emissions, mask)]
        illegal += sum(not grammar.allows(row) for row in ids)
    assert illegal > 50


# The rest is about a run.


class Run(NamedTuple):
    """What a small training has left."""

    folder: Path
    pipeline: Pipeline
    data: TaggingData


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLAB_RUNS", str(home / "runs"))
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # set on the way
            patch.setenv(name, "0")
            patch.delenv(name)
        with warnings.catch_warnings():  # Lightning calls what jsonargparse has renamed by now
            warnings.simplefilter("ignore", DeprecationWarning)
            assert training.run("fit", [str(home / "tiny.yaml")]) == 0
    folder = home / "runs" / "tiny" / "1"
    data = TaggingData("sample:ner", vocabularies_from=str(folder / "bundle"))
    return Run(folder, seqlab.load(folder, device="cpu"), data)


def dev_tokens(run: Run) -> list[list[str]]:
    return list(run.data.splits["validation"]["tokens"])


# Promise 2: padding changes nothing.


def assert_alike(found: Sequence[Tagged], expected: Sequence[Tagged]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.tags == other.tags
        assert one.confidences == pytest.approx(other.confidences, abs=1e-5)
        assert [(s.label, s.start, s.end) for s in one.spans] == [
            (s.label, s.start, s.end) for s in other.spans
        ]
        assert [s.confidence for s in one.spans] == pytest.approx(
            [s.confidence for s in other.spans], abs=1e-5
        )


@pytest.fixture(scope="module")
def alone(run: Run) -> list[Tagged]:
    """What every sentence of the dev split gets by itself."""
    return [run.pipeline([tokens])[0] for tokens in dev_tokens(run)]


@UNHURRIED
@given(data=st.data())
def test_a_sentence_gets_the_same_in_any_company(run: Run, alone: list[Tagged], data: Any) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(alone) - 1), min_size=1, max_size=12))
    budget = data.draw(st.sampled_from([1, 20, 64, 4096]))
    pipeline = Pipeline(run.pipeline.model, device="cpu", tokens_per_batch=budget)
    found = pipeline.tag([Sentence(alone[i].tokens) for i in chosen])
    assert_alike(found, [alone[i] for i in chosen])


def emissions_by_row(run: Run, batch_size: int, tokens: int, seed: int) -> dict[int, Any]:
    """The emissions of every sentence of the dev split, through batches of the data module."""
    dataset, model = run.data.dataset("validation", scored=True), run.pipeline.model
    sampler = BucketSampler(
        dataset.encoded.lengths, batch_size, tokens, shuffle=seed > 0, seed=seed, pool=3
    )
    found = {}
    for rows in sampler:
        batch = dataset[rows]
        with torch.inference_mode():
            emissions = model.emissions(batch)
            tags = model.decode(emissions, batch.mask)
        for i, row in enumerate(rows.tolist()):
            found[row] = emissions[i, : len(tags[i])], tags[i]
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("batch_size", "tokens"), [(3, 4096), (32, 200), (500, 100_000)])
def test_emissions_do_not_depend_on_the_batch(
    run: Run, batch_size: int, tokens: int, seed: int
) -> None:
    one = emissions_by_row(run, 1, 1, 0)
    found = emissions_by_row(run, batch_size, tokens, seed)
    assert set(found) == set(one) == set(range(len(dev_tokens(run))))
    for row, (emissions, tags) in found.items():
        torch.testing.assert_close(emissions, one[row][0], rtol=1e-5, atol=1e-5)
        assert tags == one[row][1]


def test_the_pipeline_and_the_data_module_see_the_same(run: Run, alone: list[Tagged]) -> None:
    target = run.pipeline.model.target_vocab
    for row, (_, tags) in emissions_by_row(run, 32, 4096, 0).items():
        assert convert(tags, target.scheme, target.written) == alone[row].tags


def test_the_loaders_give_every_sentence_its_own_tags(run: Run) -> None:
    one = emissions_by_row(run, 1, 1, 0)
    expected = sorted(tags for _, tags in one.values())
    model, found = run.pipeline.model, []
    for batch in run.data.val_dataloader():
        with torch.inference_mode():
            found += model.decode(model.emissions(batch), batch.mask)
    assert sorted(found) == expected


# Promise 3: checked against other people's code.


def test_the_score_of_a_run_is_that_of_seqeval(run: Run) -> None:
    model = run.pipeline.model
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    ours: list[list[str]] = []
    golds: list[list[str]] = []
    for batch in run.data.val_dataloader():
        with torch.inference_mode():
            ours += model.decode(model.emissions(batch), batch.mask)
        golds += batch.gold or []
    strict: dict[str, Any] = {"mode": "strict", "scheme": IOBES, "zero_division": 0}
    expected = f1_score(golds, ours, **strict)
    assert 0.05 < expected < 1.0  # else this would show nothing
    assert metrics["val/span_f1"] == pytest.approx(expected, abs=1e-6)
    report = classification_report(golds, ours, output_dict=True, **strict)
    assert metrics["val/macro_f1"] == pytest.approx(report["macro avg"]["f1-score"], abs=1e-6)
    for label, row in metrics["val/per_type"].items():
        theirs = report[label]
        assert row["gold"] == theirs["support"]
        assert [row[k] for k in ("precision", "recall", "f1")] == pytest.approx(
            [theirs[k] for k in ("precision", "recall", "f1-score")]
        )


def test_the_scheme_of_the_model_does_not_change_the_score(run: Run, alone: list[Tagged]) -> None:
    golds = list(run.data.splits["validation"]["tags"])
    ours = [tagged.tags for tagged in alone]
    metric = SpanF1(run.pipeline.model.labels, scheme="iob2")
    metric.update(ours, golds)
    expected = f1_score(golds, ours, mode="strict", scheme=IOB2)
    assert metric.compute()["span_f1"].item() == pytest.approx(expected, abs=1e-6)
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["val/span_f1"] == pytest.approx(expected, abs=1e-6)


# Promise 6: what was saved loads safely.


def is_pickle(data: bytes) -> bool:
    """Whether the bytes are a pickle from their first opcode to STOP."""
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(data))
    except ValueError:  # an opcode that there is not, or its argument
        return False


def test_a_bundle_holds_no_pickle_and_no_archive(run: Run, tmp_path: Path) -> None:
    files = [path for path in (run.folder / "bundle").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        *("config.json", "source_vocab.json", "target_vocab.json", "model.safetensors"),
        *("metrics.json", "recipe.yaml", "README.md"),
    }
    for path in files:
        data = path.read_bytes()
        assert not zipfile.is_zipfile(path), path
        assert not is_pickle(data), path
        for mark in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):  # PROTO, and its number
            assert not data.startswith(mark), path
        for mark in (b"PK\x03\x04", b"__reduce__", b"c__builtin__", b"torch._utils"):
            assert mark not in data, path
        if path.suffix != ".safetensors":
            assert data.decode("utf-8")
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pt")
    assert zipfile.is_zipfile(tmp_path / "weights.pt")  # the scan would notice these
    assert is_pickle(pickle.dumps({"a": [1.0, "b"]}))


def test_the_checkpoint_of_a_run_loads_without_running_code(run: Run) -> None:
    state = torch.load(run.folder / "last.ckpt", weights_only=True)
    assert state["epoch"] == 2
    assert set(state["state_dict"]) == set(run.pipeline.model.state_dict())
    assert "hyper_parameters" not in state  # vocabularies would be pickled there


# Promise 8: honest numbers.


def test_the_metrics_of_a_run_say_where_they_come_from(run: Run) -> None:
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == json.loads(
        (run.folder / "bundle" / "metrics.json").read_text(encoding="utf-8")
    )
    assert metrics["test/scorer"] == metrics["val/scorer"]
    assert metrics["test/scorer"].startswith("seqlab SpanF1: exact spans, micro-averaged, ")
    assert "equal to seqeval strict" in metrics["test/scorer"]
    assert (metrics["split"], metrics["seed"], metrics["data"]) == ("test", 7, "sample:ner")
    assert metrics["versions"]["seqlab"] == seqlab.__version__
    assert metrics["versions"]["torch"] == importlib.metadata.version("torch")
    assert "python" in metrics["versions"]
    assert "threads" in metrics["hardware"]
    assert metrics["train/tokens_per_second"] > 0
    assert metrics["train/seconds"] > 0
    assert metrics["epochs"] == 3
    assert metrics["monitor"] == "val/span_f1"
    lines = (run.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    best = max(range(3), key=lambda epoch: history[epoch]["val/span_f1"])
    assert metrics["best_epoch"] == best
    assert metrics["val/span_f1"] == pytest.approx(history[best]["val/span_f1"], abs=1e-6)
    seconds = sum(line["seconds"] for line in history)
    assert metrics["train/seconds"] == pytest.approx(seconds, abs=0.01)
    tokens = sum(map(len, run.data.splits["train"]["tokens"]))
    assert metrics["train/tokens_per_second"] == pytest.approx(3 * tokens / seconds, rel=0.01)


def test_the_card_of_a_model_tells_scorer_split_and_seed(run: Run) -> None:
    card = (run.folder / "bundle" / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test/scorer"] in card
    for name, value in (("split", "test"), ("seed", "7")):
        assert any(line.split() == [name, value] for line in card.splitlines()), name
    assert f"{metrics['test/span_f1']:.2%}" in card


def test_the_score_of_the_test_split_is_that_of_the_model_that_was_kept(run: Run) -> None:
    metric = SpanF1(run.pipeline.model.labels, scheme="iob2")
    rows = run.data.splits["test"]
    sentences = list(rows["tokens"])
    random.Random(0).shuffle(sentences)
    found = {tuple(t.tokens): t.tags for t in run.pipeline(sentences)}
    metric.update([found[tuple(tokens)] for tokens in rows["tokens"]], list(rows["tags"]))
    metrics = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test/span_f1"] == pytest.approx(metric.compute()["span_f1"].item(), abs=1e-6)

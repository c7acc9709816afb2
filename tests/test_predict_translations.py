from __future__ import annotations

import gzip
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab.errors import BundleError, DataError, UsageError
from seqlab.models.tagger import Tagger
from seqlab.models.translator import Translator
from seqlab.nn.search import SearchOptions
from seqlab.pipeline import Pipeline
from seqlab.predict import run
from seqlab.subwords import SubwordVocabulary
from seqlab.translation_pipeline import TranslationPipeline, Wishes
from seqlab.vocabulary import Vocabulary

TEXTS = ["the cat sat", "a dog", "I see the cats"]


class Stream(io.TextIOWrapper):
    """Standard input of bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BufferedReader(io.BytesIO(data)), encoding="utf-8")


class Leaky(Translator):
    """Sees how many sentences a batch has."""

    def encode(self, batch: Any) -> Any:
        memory, start = super().encode(batch)
        return memory._replace(values=memory.values * (1 + 0.1 * len(batch))), start


@pytest.fixture(scope="module")
def models(make_translator: Any) -> dict[str, Any]:
    words = Vocabulary(["Ada"], padding=True, unknown=1, characters=Vocabulary("Ad", unknown=0))
    tags = Vocabulary(["O", "S-PER"], scheme="bioes", written="iob2")
    short = {"max_ratio": 1.0, "max_extra": 3}
    return {
        "M": make_translator(**short),
        "N": make_translator(seed=2, **short),
        "BPE": make_translator("bpe", **short),
        "LEAKY": make_translator(cls=Leaky, **short),
        "TAGGER": Tagger(words, tags, hidden_size=4, embedding_size=4, character_size=4),
    }


@pytest.fixture
def predict(models: dict[str, Any], capfdbinary: Any) -> Any:
    """Run the verb and return what it wrote to standard output."""

    def load(name: str, *, device: str) -> Any:
        if name not in models:
            raise BundleError(f"no model {name!r}: give a run folder.")
        serves = Pipeline if name == "TAGGER" else TranslationPipeline
        return serves(models[name], device=device)

    def call(*argv: str, code: int = 0) -> str:
        capfdbinary.readouterr()
        assert run([*argv, "--device", "cpu"], load) == code
        return capfdbinary.readouterr().out.decode()

    return call


def expected(models: dict[str, Any], texts: list[str] = TEXTS, **options: Any) -> list[Any]:
    return TranslationPipeline(models["M"], device="cpu", **options)(texts)


def test_a_translation_a_line(predict: Any, models: Any) -> None:
    found = expected(models, ["the cat sat", "", "a dog"])
    assert predict("M", "the cat sat", "", "a dog") == "".join(f"{x}\n" for x in found)
    assert predict("M", "") == "\n"


@pytest.mark.parametrize("form", ["lines", "gz", "jsonl", "table", "stdin", "piped jsonl"])
def test_input_comes_in_many_forms(
    predict: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = tmp_path / "input"
    lines = "".join(f"{text}\n" for text in TEXTS)
    records = "".join(json.dumps({"en": text}) + "\n" for text in TEXTS)
    arguments = ["--input", str(path)]
    if form == "lines":
        path.write_text(lines)
    elif form == "gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif form == "jsonl":
        path.write_text(records)
    elif form == "table":
        path.write_text("".join(f"{text}\tx\n" for text in TEXTS))
        arguments += ["--columns", "source=0"]
    else:
        data = lines if form == "stdin" else records
        monkeypatch.setattr(sys, "stdin", Stream(data.encode()))
        arguments = []
    assert predict("M", *arguments) == "".join(f"{x}\n" for x in expected(models))


def test_several_are_written_as_moses_does(predict: Any, models: Any) -> None:
    options = SearchOptions(beam=4, n_best=2, max_ratio=1.0, max_extra=3)
    found = expected(models, options=options, alignments=True)
    rows = [
        f"{number} ||| {h.text} ||| {h.score:.4f}"
        for number, result in enumerate(found)
        for h in result.hypotheses
    ]
    assert predict("M", *TEXTS, "--beam", "4", "--n-best", "2").splitlines() == rows
    aligned = predict("M", *TEXTS, "--beam", "4", "--n-best", "2", "--alignments").splitlines()
    assert aligned[0] == f"{rows[0]} ||| {found[0].alignments(0)}"


def test_alignments_come_after_a_tab(predict: Any, models: Any) -> None:
    (found,) = expected(models, ["the cat sat"], alignments=True)
    assert predict("M", "the cat sat", "--alignments") == f"{found}\t{found.alignments()}\n"
    assert re.fullmatch(r"\d+-\d+( \d+-\d+)*", found.alignments())


def test_jsonl_has_everything(predict: Any, models: Any) -> None:
    line = predict("M", "the cat sat", "--format", "jsonl", "--n-best", "2", "--alignments")
    data = json.loads(line)
    options = SearchOptions(beam=5, n_best=2, max_ratio=1.0, max_extra=3)
    (found,) = expected(models, ["the cat sat"], options=options, alignments=True)
    assert data == json.loads(json.dumps(found.to_dict()))


def test_options_and_wishes_reach_the_search(predict: Any, models: Any) -> None:
    arguments = ["--beam", "3", "--prefix", "a", "--require", "cat", "--require", "mat"]
    pipeline = TranslationPipeline(models["M"], device="cpu")
    pipeline.options = SearchOptions(beam=3, max_ratio=1.0, max_extra=3)
    wishes = Wishes("a", ("cat", "mat"), ("dog",))
    assert predict("M", "I see", *arguments, "--ban", "dog") == f"{pipeline('I see', wishes)}\n"


def test_records_have_wishes_of_their_own(predict: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a dog", "require": ["cat"]}\n{"text": "a dog", "prefix": "mat"}\n')
    first, second = predict("M", "--input", str(path), "--ban", "runs").splitlines()
    assert "cat" in first
    assert second.startswith("mat")
    path.write_text('{"text": "a"}\n{"text": "a dog", "require": ["cat"], "ban": ["cat"]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: the banned phrase 'cat' is the same as"):
        predict("M", "--input", str(path))
    path.write_text('{"text": "a dog", "require": ["runs"]}\n')
    with pytest.raises(UsageError, match=r"text 1: the banned phrase 'runs' is the same as"):
        predict("M", "--input", str(path), "--ban", "runs")


def test_samples_do_not_depend_on_how_the_input_comes(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--sample", "2", "--seed", "4", "--top-k", "9"]
    found = predict("M", *TEXTS, *arguments)
    assert len(found.splitlines()) == 6
    monkeypatch.setattr("seqlab.reading._PIECE", 12)  # bytes at a time
    monkeypatch.setattr(sys, "stdin", Stream("\n".join(TEXTS).encode()))
    assert words_of(predict("M", "--lines", *arguments)) == words_of(found)
    other = predict("M", *TEXTS, "--sample", "2", "--seed", "5", "--top-k", "9")
    assert words_of(other) != words_of(found)


def words_of(found: str) -> list[list[str]]:
    """Numbers and texts, without the scores, which may round differently."""
    return [line.split(" ||| ")[:2] for line in found.splitlines()]


def test_an_ensemble_is_translated_with(predict: Any, models: Any) -> None:
    together = TranslationPipeline([models["M"], models["N"]], device="cpu")
    found = predict("M", *TEXTS, "--ensemble", "N")
    assert found == "".join(f"{x}\n" for x in together(TEXTS))
    with pytest.raises(UsageError, match="--ensemble TAGGER: that is a Tagger"):
        predict("M", *TEXTS, "--ensemble", "TAGGER")
    with pytest.raises(UsageError, match="need the same vocabularies"):
        predict("M", *TEXTS, "--ensemble", "BPE")
    with pytest.raises(BundleError, match="no model 'NONE'"):
        predict("M", *TEXTS, "--ensemble", "NONE")


def test_unknown_words_are_copied_on_demand(predict: Any, models: Any) -> None:
    bias = models["N"].output.bias
    before = bias.detach().clone()
    with torch.no_grad():
        bias[SubwordVocabulary.UNKNOWN] = 30.0
    assert predict("N", "zebra", "--max-extra", "0") == "\n"
    assert predict("N", "zebra", "--max-extra", "0", "--replace-unknown") == "zebra\n"
    with torch.no_grad():
        bias.copy_(before)


def test_oddities_are_told_once_at_the_end(models: Any, capfd: Any, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("the cat\n" + "dog " * 5000 + "\n\u6771 \u4eac\na dog\n", encoding="utf-8")
    arguments = ["--input", str(path), "--max-ratio", "0", "--beam", "1"]
    found = run_and_read(models, capfd, "M", arguments)
    assert len(found.out.splitlines()) == 4
    assert found.err.splitlines() == [
        "seqlab: 2 pieces of the input were unknown to the model, which cannot translate them.",
        "seqlab: text 2 has 5,000 pieces: no training has such long ones; cut it into sentences.",
    ]
    assert run_and_read(models, capfd, "M", ["the cat"]).err == ""


def run_and_read(models: Any, capfd: Any, name: str, arguments: list[str]) -> Any:
    def load(model: str, *, device: str) -> TranslationPipeline:
        return TranslationPipeline(models[model], device=device)

    capfd.readouterr()
    assert run([name, *arguments, "--device", "cpu"], load) == 0
    return capfd.readouterr()


def test_invariance_is_shown_on_the_input(predict: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS * 3) + "\n")
    found = predict("M", "--input", str(path), "--check-invariance", "--beam", "3")
    assert found.startswith("9 texts with 27 translations; ")
    assert found.endswith("Batches change nothing: all scores agree within 0.0001.\n")
    found = predict("LEAKY", "--input", str(path), "--check-invariance", code=1)
    assert "Batches change results" in found
    arguments = ["--check-invariance", "--format", "jsonl", "--n-best", "1"]
    data = json.loads(predict("M", *TEXTS, *arguments))
    assert (data["holds"], data["texts"], data["hypotheses"]) == (True, 3, 3)


def test_so_many_texts_are_compared(
    models: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqlab.predict_translations._COMPARED", 2)
    found = run_and_read(models, capfd, "M", [*TEXTS, "--check-invariance"])
    assert found.out.startswith("2 texts with 10 translations")
    assert found.err == "seqlab: only the first 2 texts were compared.\n"
    found = run_and_read(models, capfd, "M", [*TEXTS[:2], "--check-invariance"])
    assert found.err == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--beam 0", r"^--beam is 0: it must be 1 or more\.$"),
        ("--n-best 9", r"^--n-best is 9, but --beam is 5"),
        ("--beam 2 --n-best 3", r"^--n-best is 3, but --beam is 2"),
        ("--require cat --ban cat", r"^the banned phrase 'cat' is the same as the required"),
        ("--require zebra", r"^the required phrase 'zebra' cannot be written"),
        ("--format conll", r"^--format conll writes a tag for every token, and M is a translator"),
        ("--format tsv", r"^--format tsv writes a label for every text"),
        ("--explain", r"^--explain shows the attention of a classifier, and M is a translator"),
        ("--no-confidence", r"^--no-confidence leaves out the probabilities of tags"),
        ("--source-language de", r"^the model translates from en to fr, and de is asked for"),
        ("--target-language de", r"^the model translates from en to fr, and de is asked for"),
        ("--check-invariance --precision fast", r"^--check-invariance needs --precision exact"),
        ("--check-invariance --sample 2", r"^--check-invariance compares"),
    ],
)
def test_what_does_not_fit_is_refused(predict: Any, argv: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        predict("M", "the cat", *argv.split())


def test_columns_are_those_of_the_source(predict: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("the cat\tx\n")
    with pytest.raises(UsageError, match=r"^--columns text: M is a translator, which reads one"):
        predict("M", "--input", str(path), "--columns", "text=0")


@pytest.mark.parametrize(
    "argv", [["--beam", "2"], ["--alignments"], ["--ban", "x"], ["--check-invariance"]]
)
def test_a_tagger_is_not_searched(predict: Any, argv: list[str]) -> None:
    with pytest.raises(UsageError, match=rf"^{argv[0]} is for translators, and TAGGER is a tagger"):
        predict("TAGGER", "Ada", *argv)


@pytest.mark.parametrize("more", [[], ["--check-invariance"]])
def test_an_empty_input_is_refused(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    output = tmp_path / "out"
    with pytest.raises(DataError, match="empty holds no text: give a file with a text a line"):
        predict("M", "--input", str(path), "--output", str(output), *more)
    monkeypatch.setattr(sys, "stdin", Stream(b""))
    with pytest.raises(DataError, match="standard input holds no text: give a text a line"):
        predict("M", "--output", str(output), *more)
    assert not list(tmp_path.glob("out*"))

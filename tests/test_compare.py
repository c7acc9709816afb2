"""`seqlab compare` from the command line, on models trained for a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqlab.__main__ import main
from seqlab.compare.outcomes import calibration_error, outcomes_of
from seqlab.restoring import restored

SMALL = ["--trainer.max_epochs", "1", "--model.hidden_size", "8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLAB_RUNS", str(folder))
        for seed in ("1", "2"):
            assert main(["fit", "ner", *SMALL, "--seed_everything", seed]) == 0
        assert main(["fit", "ner", *SMALL, "--model.decoder", "softmax"]) == 0
        assert main(["fit", "sentiment", *SMALL]) == 0
    return folder


def test_taggers_are_compared(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    words = ["--rounds", "200", "--html", str(page), "--json", str(data)]
    assert main(["compare", str(runs / "ner"), *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("span F1, ")
    assert "ner decoder=softmax" in out
    assert "tokens/s at 32" in out
    found = json.loads(data.read_text(encoding="utf-8"))
    assert {row["name"] for row in found["rows"]} == {"ner", "ner decoder=softmax"}
    by_name = {row["name"]: row for row in found["rows"]}
    for name, numbers in (("ner", (1, 2)), ("ner decoder=softmax", (3,))):
        for score, number in zip(by_name[name]["scores"], numbers, strict=True):
            metrics = json.loads((runs / f"ner/{number}/metrics.json").read_text(encoding="utf-8"))
            assert score == pytest.approx(100 * metrics["test/span_f1"])
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_models_of_other_corpora_are_refused(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(runs / "ner/1"), str(runs / "sentiment/1"), "--no-speed"]
    assert main(["compare", *words]) == 2
    assert "they cannot be compared" in capsys.readouterr().err


def test_a_classifier_answers_as_it_is_scored(runs: Path) -> None:
    cli = restored(runs / "sentiment/1/bundle", [])
    found = outcomes_of(cli.model, cli.datamodule)
    metrics = json.loads((runs / "sentiment/1/metrics.json").read_text(encoding="utf-8"))
    assert found.score(found.counts.sum(0)) == pytest.approx(metrics["test/accuracy"])
    assert len(found.sentences) == len(found.gold) == len(found.answers)
    assert calibration_error(cli.model, cli.datamodule) == pytest.approx(metrics["test/ece"])


def test_another_corpus_has_its_own_calibration_error(
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seqlab.compare.outcomes.calibration_error", lambda *_: 0.25)
    lines = "Ada\tB-PER\nsaw\tO\nParis\tB-LOC\n.\tO\n\n"
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.conll").write_text(lines * 3, encoding="utf-8")
    words = [str(runs / "ner/1"), str(runs / "ner/3"), "--no-speed", "--rounds", "100"]
    errors = []
    for more in ([], ["--data.path", str(tmp_path)]):
        assert main(["compare", *words, *more, "--json", "-"]) == 0
        found = json.loads(capsys.readouterr().out)
        errors.append({row["name"]: row["ece"] for row in found["rows"]})
    metrics = json.loads((runs / "ner/1/metrics.json").read_text(encoding="utf-8"))
    assert errors[0]["ner"] == metrics["test/ece"]
    assert errors[1] == {"ner": 0.25, "ner decoder=softmax": 0.25}
    assert found["sentences"] == 3


@pytest.mark.slow
def test_translators_are_timed_as_they_translate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path / "runs"))
    pairs = "The cat sleeps.\tLe chat dort.\nA dog runs.\tUn chien court.\n"
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text(pairs * 20, encoding="utf-8")
    data = ["--data.path", str(tmp_path), "--data.vocabulary_size", "270"]
    small = ["--model.embedding_size", "8", "--model.decoder_size", "8"]
    for size in ("8", "6"):
        assert (
            main(["fit", "translate", *SMALL[:2], *data, *small, "--model.hidden_size", size]) == 0
        )
    capsys.readouterr()
    assert main(["compare", "translate", "--rounds", "100"]) == 0
    out = capsys.readouterr().out
    for column in ("sentences/s at 1 ", "sentences/s at 32", "target subwords/s at 32"):
        assert column in out
    assert "tokens/s" not in out
    assert "one seed only, so that no standard deviation can be given" in out

"""`seqlab predict --cascade` from the command line, on models trained for a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqlab.__main__ import main

SMALL = ["--trainer.max_epochs", "1", "--model.hidden_size", "8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLAB_RUNS", str(folder))
        for size in ("8", "16"):
            assert main(["fit", "sentiment", *SMALL[:3], size]) == 0
        assert main(["fit", "ner", *SMALL]) == 0
        assert main(["fit", "translate", *SMALL, "--trainer.limit_val_batches", "1"]) == 0
    return folder


def test_the_threshold_is_found_and_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = f"{runs}/sentiment/1,{runs}/sentiment/2"
    texts = ["A good film.", "An awful evening.", "It rains."]
    assert main(["predict", "--cascade", both, "--format", "jsonl", *texts]) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["text"] for one in found] == texts
    assert "threshold  handed on  accuracy  ms a sentence" in err
    assert " of 3 sentences (" in err
    threshold = err.split("--threshold ")[1].split()[0]
    assert main(["predict", "--cascade", both, "--threshold", threshold, *texts]) == 0
    again, err = capsys.readouterr()
    assert "handed on" not in err
    assert len(again.splitlines()) == 3


@pytest.mark.parametrize("threshold", ["0", "1.01"])
def test_a_threshold_that_is_given_needs_no_corpus(
    runs: Path, threshold: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both = f"{runs}/sentiment/1,{runs}/sentiment/2"
    assert main(["predict", "--cascade", both, "--threshold", threshold, "Fine."]) == 0
    out, err = capsys.readouterr()
    number = "1" if threshold == "0" else "2"
    assert main(["predict", f"{runs}/sentiment/{number}", "Fine."]) == 0
    assert capsys.readouterr().out == out
    assert f"answered {0 if threshold == '0' else 1} of 1 sentences" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cascade", "A,B", "--threshold", "high", "x"], "--threshold is 'high': write auto"),
        (["--cascade", "A,B", "--threshold", "-1", "x"], "--threshold is '-1': write auto"),
        (["--cascade", "A,B", "--no-confidence", "x"], "--no-confidence: a cascade goes by"),
        (["--cascade", "A,B", "--target-precision", ".9", "x"], "--target-precision is about one"),
        (["--cascade", "A", "x"], "write two models with a comma between"),
        (["--cascade", "A,B,C", "x"], "write two models with a comma between"),
        (["A", "--threshold", "0.5", "x"], "--threshold goes with --cascade"),
        (["A", "--min-confidence", "2", "x"], "--min-confidence is 2: it must be from 0 to 1"),
        (["A", "--min-confidence", ".5", "--target-precision", ".9", "x"], "leave one of them"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("models", "words", "said"),
    [
        ("sentiment/1,ner/1", [], "one model is a Classifier and the other a Tagger"),
        ("sentiment/1,translate/1", [], "translates, and has no confidence to go by"),
        ("sentiment/1,sentiment/2", ["--explain"], "--explain shows the attention of one model"),
    ],
)
def test_models_that_do_not_go_together_are_refused(
    runs: Path, models: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ",".join(f"{runs}/{model}" for model in models.split(","))
    assert main(["predict", "--cascade", both, *words, "It rains."]) == 2
    assert said in capsys.readouterr().err


def test_translators_withhold_nothing(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", f"{runs}/translate/1", "--min-confidence", "0.5", "It rains."]) == 2
    assert "--min-confidence withholds tags and labels" in capsys.readouterr().err


def test_a_wished_precision_withholds_what_the_curve_says(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(runs / "sentiment/2"), "A good film.", "It rains.", "--format", "jsonl"]
    assert main(["predict", *words, "--target-precision", "0.5"]) == 0
    out, err = capsys.readouterr()
    least = float(err.split("confidence below ")[1].split()[0])
    assert " of these were right." in err
    for line in out.splitlines():
        one = json.loads(line)
        assert (one["label"] is not None) == (max(one["probabilities"].values()) >= least - 1e-4)
    assert main(["predict", *words, "--target-precision", "1"]) == 2
    assert "at most on its validation split" in capsys.readouterr().err

"""`seqlab package` and what comes of it, on models trained for a moment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from seqlab.__main__ import main
from seqlab.receipts import check_receipt

SMALL = ["--trainer.max_epochs", "1", "--model.hidden_size", "8"]
NAMED = ["--name", "en-try", "--version", "1.0.0"]
FILES = {
    "README.md",
    "config.json",
    "metrics.json",
    "model.safetensors",
    "probe.json",
    "receipt.json",
    "recipe.yaml",
    "source_vocab.json",
    "target_vocab.json",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLAB_RUNS", str(folder))
        for seed in ("1", "2"):
            assert main(["fit", "ner", *SMALL, "--seed_everything", seed]) == 0
        assert main(["fit", "ner", *SMALL, "--model.decoder", "softmax"]) == 0
        assert main(["fit", "sentiment", *SMALL]) == 0
        assert main(["fit", "translate", *SMALL, "--trainer.limit_val_batches", "1"]) == 0
    return folder


def packed(run: Path, out: Path, *words: str) -> Path:
    assert main(["package", str(run), *NAMED, "--out", str(out), *words]) == 0
    return out / "en_try-1.0.0-py3-none-any.whl"


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "seqlab_models/en_try"


@pytest.mark.parametrize("run", ["ner/1", "sentiment/1", "translate/1"])
def test_a_wheel_is_installed_loaded_and_verified(
    runs: Path, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    wheel = packed(runs / run, tmp_path)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(site), str(wheel)], check=True)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    text = "Ada Lovelace was born in London."
    capsys.readouterr()
    assert main(["predict", "en-try", text]) == 0
    out = capsys.readouterr().out
    assert main(["predict", str(runs / run), text]) == 0
    assert capsys.readouterr().out == out
    assert main(["models"]) == 0
    assert "en-try  1.0.0" in capsys.readouterr().out
    assert main(["models", "info", "en-try"]) == 0
    assert capsys.readouterr().out.startswith("# en-try 1.0.0\n")
    assert main(["models", "verify", "en-try"]) == 0
    out = capsys.readouterr().out
    assert "8 files have the digests of the receipt." in out
    assert "10 of 10 probe sentences are answered as in the receipt" in out


def test_the_same_run_gives_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    one, other = (packed(runs / "ner/1", tmp_path / name, "--sdist") for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    sources = [path.parent / "en_try-1.0.0.tar.gz" for path in (one, other)]
    assert sources[0].read_bytes() == sources[1].read_bytes()


def test_a_receipt_vouches_for_all_files_and_names_its_origins(runs: Path, tmp_path: Path) -> None:
    wheel = packed(runs / "ner/1", tmp_path, str(runs / "ner/2"), "--license", "CC0-1.0")
    folder = unpacked(wheel, tmp_path / "in")
    assert {file.name for file in folder.iterdir()} == FILES
    receipt = check_receipt(folder)
    assert set(receipt["files"]) == FILES - {"receipt.json"}
    made = receipt["made"]
    scores = []
    for number in ("1", "2"):
        metrics = json.loads((runs / f"ner/{number}/metrics.json").read_text(encoding="utf-8"))
        scores.append(metrics["test/span_f1"])
    assert made["seeds"] == [1, 2]
    assert made["score"] == {"name": "test/span_f1", "values": scores}
    assert made["data"].keys() == {"train", "validation", "test"}
    assert made["versions"].keys() >= {"torch", "seqlab"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "test/span_f1: **" in card
    assert "(2 seeds)**" in card
    assert "licence of this model: CC0-1.0" in card
    for heading in ("What it is", "Data", "Scores", "Limits", "Cite", "Made with"):
        assert f"\n## {heading}\n" in card


def test_rounded_weights_and_fewer_words_are_scored_before_and_after(
    runs: Path, tmp_path: Path, capsys: Any
) -> None:
    plain = packed(runs / "ner/1", tmp_path / "plain")
    small = packed(runs / "ner/1", tmp_path / "small", "--quantize", "int8", "--words", "50")
    assert small.stat().st_size < 0.7 * plain.stat().st_size
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("50 words"))
    assert line.startswith("50 words and weights as int8: test/span_f1 ")
    folder = unpacked(small, tmp_path / "in")
    assert line in (folder / "README.md").read_text(encoding="utf-8")
    assert check_receipt(folder)["made"]["changed"] == [line]
    metrics = json.loads((runs / "ner/1/metrics.json").read_text(encoding="utf-8"))
    assert f"{100 * metrics['test/span_f1']:.2f} before" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "En POS!", "--version", "1.0.0"], "try en-pos"),
        (["--name", "en-pos", "--version", "one"], "'one'"),
        (["--name", "en-pos", "--version", "1.0.0", "--license", "mine"], "mine"),
        (["--name", "en-pos"], "--version"),
        (["--name", "en-pos", "--version", "1.0.0", "--example", 'a "b"'], "double quotes"),
    ],
)
def test_wrong_words_are_refused(runs: Path, words: list[str], said: str, capsys: Any) -> None:
    assert main(["package", str(runs / "ner/1"), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_half_written_run_is_refused(runs: Path, tmp_path: Path, capsys: Any) -> None:
    for text in ("{}", '{"val/span_f1": 0.5}', "{", None):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(runs / "ner/1", run)
        metrics = run / "bundle/metrics.json"
        metrics.unlink() if text is None else metrics.write_text(text, encoding="utf-8")
        assert main(["package", str(run), *NAMED, "--out", str(tmp_path / "dist")]) == 2
        assert "has no final scores, so there is nothing to vouch for" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["ner/3"], "are of different recipes"),
        (["ner/1"], "name each seed once"),
        (["sentiment/1"], "differ in their scorer"),
    ],
)
def test_runs_that_are_no_seeds_of_one_recipe_are_refused(
    runs: Path, others: list[str], said: str, tmp_path: Path, capsys: Any
) -> None:
    paths = [str(runs / run) for run in ("ner/1", *others)]
    assert main(["package", *paths, *NAMED, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_model_of_foreign_classes_is_not_packed(runs: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "ner/1", run)
    config = run / "bundle/config.json"
    data = json.loads(config.read_text(encoding="utf-8"))
    data["arguments"]["encoder"] = {"class_path": "elsewhere.Encoder"}
    config.write_text(json.dumps(data), encoding="utf-8")
    assert main(["package", str(run), *NAMED, "--out", str(tmp_path)]) == 1
    assert "elsewhere.Encoder, which is not part of seqlab" in capsys.readouterr().err


BLOCKED = (
    "lightning lightning_fabric pytorch_lightning datasets transformers torchmetrics seqeval "
    "sacrebleu scipy pyarrow pandas jsonargparse rich yaml"
)
ALONE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED.split()!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from seqlab.__main__ import main
"""


@pytest.mark.parametrize("run", ["ner/1", "sentiment/1", "translate/1"])
def test_prediction_needs_torch_tokenizers_and_safetensors_only(
    runs: Path, run: str, tmp_path: Path, capfd: Any
) -> None:
    folder = unpacked(packed(runs / run, tmp_path), tmp_path / "in")
    text = "Ada Lovelace was born in London."
    form = ["--format", "jsonl"]
    capfd.readouterr()
    assert main(["predict", str(folder), *form, text]) == 0
    expected = capfd.readouterr().out
    for words in (["predict", str(folder), *form, text], ["models", "verify", str(folder)]):
        done = subprocess.run(
            [sys.executable, "-c", f"{ALONE}sys.exit(main({words!r}))"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        if words[0] == "predict":
            assert json.loads(done.stdout) == json.loads(expected)
        else:
            assert "10 of 10 probe sentences" in done.stdout

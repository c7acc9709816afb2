"""`seqlab models`, and what is refused of installed models that were meddled with."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqlab import package
from seqlab.__main__ import main
from seqlab.receipts import write_receipt

SMALL = ["--trainer.max_epochs", "1", "--model.hidden_size", "8"]
TEXT = "Ada Lovelace was born in London."


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLAB_RUNS", str(folder))
        assert main(["fit", "ner", *SMALL]) == 0
    named = ["--name", "en-try", "--version", "1.0.0", "--out", str(folder)]
    package.pack([str(folder / "ner/1"), *named])
    return folder / "en_try-1.0.0-py3-none-any.whl"


@pytest.fixture
def site(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from, with the model installed."""
    folder = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(folder), str(wheel)], check=True)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def flip(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (model / "model.safetensors").write_bytes(data)


def relabel(model: Path) -> None:
    file = model / "target_vocab.json"
    file.write_text(file.read_text(encoding="utf-8").replace("PER", "LOC"), encoding="utf-8")


class Marker:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def poison(model: Path) -> None:
    (model / "model.pkl").write_bytes(pickle.dumps(Marker(model.parents[2] / "marker")))


def replace_weights_by_a_pickle(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(pickle.dumps(Marker(model.parents[2] / "marker")))


def climb(model: Path) -> None:
    receipt = json.loads((model / "receipt.json").read_text(encoding="utf-8"))
    receipt["files"]["../../outside"] = "0" * 64
    (model / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")


def link(model: Path) -> None:
    os.rename(model / "metrics.json", model.parents[2] / "elsewhere.json")
    (model / "metrics.json").symlink_to(model.parents[2] / "elsewhere.json")


def name_a_foreign_class(model: Path) -> None:
    """As somebody does who signs what they changed."""
    file = model / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["class"] = "os.system"
    del config["seal"]
    text = json.dumps(config, sort_keys=True, ensure_ascii=True)
    config["seal"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(config), encoding="utf-8")
    old = json.loads((model / "receipt.json").read_text(encoding="utf-8"))
    (model / "receipt.json").unlink()
    write_receipt(model, {key: old[key] for key in ("name", "version", "made")})


def lie(model: Path) -> None:
    (points,) = model.parents[1].glob("en_try-*.dist-info/entry_points.txt")
    points.write_text("[seqlab.models]\nen-try = os:system\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("meddle", "named"),
    [
        (flip, "model.safetensors"),
        (relabel, "target_vocab.json"),
        (poison, "model.pkl"),
        (replace_weights_by_a_pickle, "model.safetensors"),
        (climb, "../../outside"),
        (link, "metrics.json"),
        (name_a_foreign_class, "os.system"),
        (lie, "os:system"),
    ],
)
@pytest.mark.parametrize("words", [["predict", "en-try", TEXT], ["models", "verify", "en-try"]])
def test_what_was_meddled_with_is_refused_by_name(
    meddle: Callable[[Path], None], named: str, words: list[str], site: Path, capsys: Any
) -> None:
    meddle(site / "seqlab_models/en_try")
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert named in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (site.parent / "marker").exists()


def test_models_are_listed_shown_and_verified(site: Path, capsys: Any) -> None:
    assert main(["models", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["en-try"]["task"] == "tagger"
    assert found["en-try"]["fits"] is True
    assert main(["models", "verify", "en-try", "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert (verified["files"], verified["probes"], verified["different"]) == (8, 10, [])


def test_other_answers_are_told_and_fail(site: Path, capsys: Any) -> None:
    model = site / "seqlab_models/en_try"
    probe = json.loads((model / "probe.json").read_text(encoding="utf-8"))
    probe["answers"][0]["said"][0] = "B-XYZ"
    (model / "probe.json").write_text(json.dumps(probe), encoding="utf-8")
    old = json.loads((model / "receipt.json").read_text(encoding="utf-8"))
    (model / "receipt.json").unlink()
    write_receipt(model, {key: old[key] for key in ("name", "version", "made")})
    assert main(["models", "verify", "en-try"]) == 1
    out = capsys.readouterr().out
    assert "B-XYZ" in out
    assert "1 of 10 probe sentences are not answered as in the receipt" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["verify"], 2, "write `seqlab models`"),
        (["verfy", "en-try"], 2, "Did you mean 'verify'?"),
        (["info", "en-tr"], 1, "no model 'en-tr' is installed"),
        (["info", "en-tr"], 1, "Did you mean 'en-try'?"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], code: int, said: str, site: Path, capsys: Any
) -> None:
    assert main(["models", *words]) == code
    assert said in capsys.readouterr().err


def test_a_name_that_is_nothing_says_what_there_is(site: Path, capsys: Any) -> None:
    assert main(["predict", "en-tyr", TEXT]) == 1
    err = capsys.readouterr().err
    assert "no model 'en-tyr'" in err
    assert "Did you mean 'en-try'?" in err
    assert "pip install en-tyr" in err


def test_a_model_for_another_seqlab_is_refused(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("seqlab.__version__", "7.0.0")
    assert main(["predict", "en-try", TEXT]) == 1
    assert "en-try 1.0.0 asks for seqlab>=0.1,<0.2, and this is seqlab 7.0.0" in (
        capsys.readouterr().err
    )

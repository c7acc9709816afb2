"""The verb: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab.__main__ import main
from seqlab.bundle import save_bundle
from seqlab.explain import run
from seqlab.models.tagger import Tagger
from seqlab.models.translator import Translator
from seqlab.output import partial_of
from seqlab.subwords import SubwordVocabulary, train_tokenizer
from seqlab.vocabulary import Vocabulary

TEXT = "Ada saw Paris."
HEAVY = ("torch", "lightning", "datasets", "transformers", "numpy")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle with random weights."""
    torch.manual_seed(0)
    letters = Vocabulary("Adaspri", padding=True, unknown=1)
    source = Vocabulary(["Ada", "saw"], padding=True, unknown=1, characters=letters)
    target = Vocabulary(["O", "B-LOC", "I-LOC"], scheme="iob2", written="iob2")
    folder = tmp_path_factory.mktemp("models") / "small"
    return str(save_bundle(Tagger(source, target, hidden_size=3, embedding_size=4), folder))


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle of a translator with random weights."""
    torch.manual_seed(0)
    source, target = (
        SubwordVocabulary(train_tokenizer(iter([text]), "words", 20), language=language)
        for text, language in (("Ada saw Paris.", "en"), ("Ada vit Paris.", "fr"))
    )
    sizes = {"hidden_size": 3, "embedding_size": 4, "decoder_size": 5}
    model = Translator(source, target, **sizes)
    return str(save_bundle(model, tmp_path_factory.mktemp("models") / "translator"))


def test_a_picture_is_printed(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([model, TEXT]) == 0
    out, err = capsys.readouterr()
    assert "layer 1, forward: lstm, mean of 3 units" in out
    assert "why these tags" in out
    assert "\x1b" not in out
    assert err == ""


def test_the_verb_is_known(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", model, TEXT, "--layer", "1", "--direction", "backward"]) == 0
    out = capsys.readouterr().out
    assert "layer 1, backward" in out
    assert "forward" not in out


def test_json_is_one_object(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([model, TEXT + " \udcff", "--json", "--unit", "2"]) == 0
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["words"][:4] == ["Ada", "saw", "Paris", "."]
    assert data["unit"] == 2
    assert {len(row) for t in data["layers"] for s in t["series"].values() for row in s} == {1}
    assert out.count("\n") == 1
    assert err == ""


def test_a_page_is_written_and_named(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    assert run([model, TEXT, "--html", str(file)]) == 0
    assert capsys.readouterr() == (f"{file}\n", "")
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [file]


def test_a_page_and_json_go_together(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    assert run([model, TEXT, "--html", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 4
    assert file.is_file()


def test_a_translation_is_pictured(translator: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([translator, TEXT]) == 0
    out, err = capsys.readouterr()
    assert "attention (general): what each word said looks at" in out
    assert "how sure each piece is" in out
    assert "encoder, layer 1, backward: lstm, mean of 3 units" in out
    assert err == ""
    assert run([translator, TEXT, "--pieces", "--layer", "1", "--direction", "forward"]) == 0
    out = capsys.readouterr().out
    assert "what each piece said looks at" in out
    assert "backward" not in out


def test_a_translation_has_a_page_and_json(
    translator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    assert run([translator, TEXT, "--html", str(file), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["source"]["words"] == ["Ada", "saw", "Paris.", "(end)"]
    assert "Where it looks" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([" "], 2, "the text has no words: give one with a letter, a digit or a sign."),
        ([TEXT, "--to", "2"], 2, "--to 2: a translation is shown whole; leave that out, or"),
        ([TEXT, "--unit", "4"], 2, "--unit 4: the model has 3 units; choose from 1 to 3."),
        (["--cost"], 1, "what a Translator costs is not known: leave --cost out, or name a tagger"),
    ],
)
def test_what_does_not_apply_to_a_translator_is_one_sentence(
    words: list[str],
    code: int,
    said: str,
    translator: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", translator, *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"seqlab: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("form", [[], ["--json"], ["--html", "page.html"]])
def test_a_long_text_says_what_is_left_out(
    form: list[str],
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("long.txt").write_text("Ada saw Paris " * 100, encoding="utf-8")
    assert run([model, "--input", "long.txt", *form]) == 0
    assert capsys.readouterr().err == (
        "seqlab: words 1 to 200 of 300 are shown: choose others with --from and --to, up to "
        "111,111 at once.\n"
    )
    assert run([model, "--input", "long.txt", "--from", "150", "--to", "300", *form]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_100_000_words_are_read_and_some_shown(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "long.txt"
    file.write_text("Ada saw Paris . " * 25_000, encoding="utf-8")
    range_ = ["--from", "50001", "--to", "50010"]
    assert run([model, "--input", str(file), "--json", *range_]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["total"], len(data["words"]), len(data["decisions"])) == (100_000, 10, 10)
    assert data["words"][:4] == ["Ada", "saw", "Paris", "."]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing", TEXT], 1, "no model 'nothing': give a run folder"),
        (["MODEL", " "], 2, "the text has no words: give one with a letter, a digit or a sign."),
        (["MODEL", TEXT, "--layer", "2"], 2, "--layer 2: the model has 1 layer; choose from 1"),
        (["MODEL", TEXT, "--unit", "4"], 2, "--unit 4: the model has 3 units; choose from 1 to 3."),
        (["MODEL", TEXT, "--direction", "up"], 2, "--direction up: the model reads forward and"),
        (["MODEL", TEXT, "--to", "5"], 2, "--to 5: the text has 4 words; choose from 1 to 4."),
        (["MODEL", TEXT, "--pieces"], 2, "--pieces is for translators, and this model reads"),
        (["MODEL", TEXT, "--html", "no/p.html"], 2, "cannot write no/p.html: No such file or"),
        (["MODEL", TEXT, "--html", "."], 2, "cannot write .: it is a folder; give a file."),
    ],
)
def test_what_is_wrong_is_one_sentence(
    words: list[str],
    code: int,
    said: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [model if word == "MODEL" else word for word in words]
    assert main(["explain", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"seqlab: {said}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_fails_leaves_the_old_one(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    file.write_text("old", encoding="utf-8")
    assert main(["explain", model, TEXT, "--unit", "9", "--html", str(file)]) == 2
    assert file.read_text(encoding="utf-8") == "old"
    assert not partial_of(file).exists()


@pytest.mark.parametrize("words", [["--help"], [], ["model", "a", "b"], ["model", "--unit", "0"]])
def test_what_needs_no_model_loads_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from seqlab.__main__ import main\n"
        "try:\n"
        f"    main({['explain', *words]!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"loaded = {set(HEAVY)!r} & {{name.split('.')[0] for name in sys.modules}}\n"
        "assert not loaded, loaded"
    )
    root = Path(__file__).resolve().parents[1]
    done: Any = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

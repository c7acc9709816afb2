"""`seqlab zoo`: its list, and a model that is trained, packed and compared with its receipt."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from seqlab import zoo_build
from seqlab.__main__ import main
from seqlab.configuration import _SECTIONS
from seqlab.recipe import zoo_folder
from seqlab.recipe_check import read_recipe
from seqlab.wheels import check_license, check_name, check_version

RECIPE = """# A tiny model of the sample.
seed_everything: 1
model:
  class_path: seqlab.Tagger
  init_args: {hidden_size: 8}
data:
  class_path: seqlab.TaggingData
  init_args: {path: "sample:ner"}
trainer: {max_epochs: 1}
"""
ABOUT = {
    "version": "1.0.0",
    "language": "en",
    "license": "CC0-1.0",
    "summary": "Names.",
    "attribution": "Our own sentences.",
    "example": "Ada met Bo.",
    "storage": "int8",
    "seeds": [1],
}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with one small model, and a folder to work in."""
    folder = tmp_path / "zoo"
    (folder / "receipts").mkdir(parents=True)
    (folder / "models.json").write_text(json.dumps({"en-try": ABOUT}), encoding="utf-8")
    (folder / "en-try.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setattr(zoo_build, "zoo_folder", lambda: folder)
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_model_is_built_and_then_known_again(zoo: Path, capsys: Any) -> None:
    build = ["zoo", "build", "en-try"]
    assert main([*build, "--seeds", "1", "2"]) == 0
    assert "there is no receipt of a release" in capsys.readouterr().out
    wheel = Path("dist/en_try-1.0.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        receipt = json.loads(archive.read("seqlab_models/en_try/receipt.json"))
        card = archive.read("seqlab_models/en_try/README.md").decode()
    assert 'seqlab predict en-try "Ada met Bo."' in card
    assert receipt["made"]["seeds"] == [1, 2]
    file = zoo / "receipts/en-try.json"
    file.write_text(json.dumps(receipt), encoding="utf-8")
    before = wheel.read_bytes()
    assert main([*build, "--seeds", "1", "2"]) == 0  # the runs are used again
    out, err = capsys.readouterr()
    for line in ("data are those", "recipe is that", "weights are those"):
        assert f"en-try: {line} of the receipt: yes." in out
    assert "seed 2: " in err
    assert "is finished, and used" in err
    assert wheel.read_bytes() == before
    receipt["made"]["score"]["values"][0] += 0.02
    receipt["files"]["model.safetensors"] = "0" * 64
    file.write_text(json.dumps(receipt), encoding="utf-8")
    assert main([*build, "--seeds", "1", "2"]) == 1
    out = capsys.readouterr().out
    assert "weights are those of the receipt: no." in out
    assert "the scores of the first seed are 2.00 apart" in out
    assert main(["zoo"]) == 0
    assert "en-try  1.0.0    span_f1 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build"], "write `seqlab zoo`"),
        (["make", "en-try"], "write `seqlab zoo`"),
        (["build", "en-tyr"], "Did you mean 'en-try'?"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str, zoo: Path, capsys: Any) -> None:
    assert main(["zoo", *words]) == 2
    assert said in capsys.readouterr().err


def test_every_model_of_the_zoo_has_a_recipe_a_licence_and_a_legal_name() -> None:
    known = zoo_build.models()
    recipes = {path.stem for path in zoo_folder().glob("*.yaml")}
    assert set(known) == recipes >= {"en-pos", "fr-pos", "en-ner", "en-sentiment", "en-intent"}
    for name, about in known.items():
        assert check_name(name) == name
        assert check_version(about["version"]) == about["version"]
        assert check_license(about["license"]) == about["license"]
        assert about["storage"] in ("float32", "float16", "int8")
        assert about["seeds"]
        path = zoo_folder() / f"{name}.yaml"
        assert read_recipe(path, _SECTIONS)["data"]["init_args"]["path"].startswith(
            "${SEQLAB_DATA}/"
        )
        text = path.read_text(encoding="utf-8")
        assert "conll2000" not in text  # no licence is stated for either of them
        assert "multi30k" not in text
        assert yaml.safe_load(text)["seed_everything"] == about["seeds"][0]

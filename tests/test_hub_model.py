from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seqlab import bundle
from seqlab.bundle import save_bundle
from seqlab.errors import BundleError
from seqlab.hub_model import HubModel
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.vocabulary import Vocabulary
from tests.hub_server import TOKEN, HubServer, running_hub
from tests.test_bundle import SOURCE, TARGET, answers, assert_same, tagger

NAME = "ada/en-ner"
# The client's own upload where Xet is off, which only our hub needs, is behind its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


class OwnTagger(Tagger):
    """A tagger of somebody else."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with running_hub(tmp_path / "home", monkeypatch) as server:
        yield server


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bundles know the class above by a name that can be imported."""
    home = types.ModuleType("at_home")
    home.OwnTagger = OwnTagger  # type: ignore[attr-defined]
    monkeypatch.setattr(OwnTagger, "__module__", "at_home")
    monkeypatch.setitem(sys.modules, "at_home", home)


def hub_tagger(seed: int = 0, cls: type[Tagger] = Tagger) -> Tagger:
    model = cls(SOURCE, TARGET, hidden_size=4, embedding_size=5, feature_size=2)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def refusal(cls: type[HubModel], name: str | Path, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        cls.from_pretrained(name, **options)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_model_comes_back_from_a_folder(tmp_path: Path) -> None:
    folder = hub_tagger().save_pretrained(tmp_path / "ner", metrics={"a": 1}, card="# Ö\n")
    assert json.loads((folder / "metrics.json").read_text("utf-8")) == {"a": 1}
    for path in (folder, str(folder)):
        found = Tagger.from_pretrained(path, trust=True)
        assert type(found) is Tagger
        assert not found.training
        assert_same(found, hub_tagger())


def test_a_model_comes_back_from_the_hub(hub: HubServer) -> None:
    old = hub_tagger(0).push_to_hub(NAME, token=TOKEN, commit_message="One", recipe="a: 1\n")
    new = hub_tagger(1).push_to_hub(NAME, token=TOKEN, revision="main", metrics={"a": 1})
    assert hub.repositories[NAME].titles[1:] == ["One", "Upload a seqlab model"]
    for name, options, seed in (
        (old.name, {}, 0),
        (NAME, {"revision": old.commit}, 0),
        (new.name, {}, 1),
        (NAME, {}, 1),
    ):
        found = Tagger.from_pretrained(name, trust=True, **options)
        emissions, tags = answers(found)
        expected, expected_tags = answers(hub_tagger(seed))
        assert torch.equal(emissions, expected)
        assert tags == expected_tags


def test_a_private_model_comes_with_a_token(hub: HubServer, tmp_path: Path) -> None:
    hub_tagger().push_to_hub(NAME, token=TOKEN, private=True)
    assert "that you may see" in refusal(Tagger, NAME)
    cache = tmp_path / "own"
    Tagger.from_pretrained(NAME, token=TOKEN, cache_dir=cache, trust=True)
    assert [*cache.glob("models--*/snapshots/*/config.json")]


def test_a_path_comes_before_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub_tagger().save_pretrained(NAME)
    Tagger.from_pretrained(NAME, trust=True)
    assert hub.requests == []
    assert refusal(Tagger, NAME, revision="v1") == (
        f"{NAME} is no name on the hub, and only what is there has revisions: leave out "
        "revision='v1', or write owner/name."
    )


def test_the_home_folder_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    hub_tagger().save_pretrained(tmp_path / "ner")
    assert type(Tagger.from_pretrained("~/ner", trust=True)) is Tagger


def test_a_model_of_another_class_says_which(tmp_path: Path) -> None:
    labels = Vocabulary(["bad", "good"], scheme="label")
    folder = save_bundle(Classifier(SOURCE, labels, hidden_size=2), tmp_path / "sentiment")
    assert refusal(Tagger, folder) == (
        f"{folder} is a Classifier, not a Tagger: use seqlab.Classifier.from_pretrained."
    )


def test_a_class_of_somebody_else_is_named_in_full(at_home: None, tmp_path: Path) -> None:
    labels = Vocabulary(["bad", "good"], scheme="label")
    folder = tmp_path / "own"
    hub_tagger(cls=OwnTagger).save_pretrained(folder)
    assert type(Tagger.from_pretrained(folder, trust=True)) is OwnTagger
    assert refusal(Classifier, folder, trust=True) == (
        f"{folder} is a OwnTagger, not a Classifier: use at_home.OwnTagger.from_pretrained."
    )
    Classifier(SOURCE, labels, hidden_size=2).save_pretrained(folder)
    assert "is a Classifier, not a OwnTagger" in refusal(OwnTagger, folder)


def test_a_foreign_class_from_the_hub_needs_trust(hub: HubServer, at_home: None) -> None:
    hub_tagger(cls=OwnTagger).push_to_hub(NAME, token=TOKEN)
    sys.modules.pop("at_home")
    assert "asks for the class at_home.OwnTagger, which is not part of seqlab" in refusal(
        Tagger, NAME
    )
    assert "at_home" not in sys.modules


def test_an_installed_model_comes_by_its_name() -> None:
    assert type(Tagger.from_pretrained("en-pos")) is Tagger
    assert refusal(Classifier, "en-pos") == (
        "en-pos is a Tagger, not a Classifier: use seqlab.Tagger.from_pretrained."
    )


def test_a_configuration_changed_on_the_hub_is_refused(hub: HubServer, tmp_path: Path) -> None:
    folder = save_bundle(tagger(), tmp_path / "ner")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    config = json.loads(files["config.json"])
    config["arguments"]["dropout"] = 0.4
    assert bundle._seal(config) != config["seal"]
    hub.add(NAME, {**files, "config.json": json.dumps(config).encode()})
    assert "config.json does not have the checksum it was saved with" in refusal(Tagger, NAME)


def test_what_is_nowhere_is_named(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(Tagger, "runs/ner/latest").startswith("no model 'runs/ner/latest'")
    assert refusal(Tagger, "runs/ner").startswith("runs/ner is no path here, and no model of")


def test_the_class_knows_nothing_of_the_models_above_it() -> None:
    script = (
        "import sys, seqlab.hub_model; heavy = {'torch', 'huggingface_hub'} & set(sys.modules); "
        "print(*heavy, *(name for name in sys.modules if name.startswith('seqlab.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["seqlab.errors", "seqlab.hub_model"]

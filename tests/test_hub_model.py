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


class HubTagger(HubModel, Tagger):
    """What `Tagger` is once it is made of `HubModel`."""


class HubClassifier(HubModel, Classifier):
    """Likewise."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with running_hub(tmp_path / "home", monkeypatch) as server:
        yield server


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bundles know the classes above by a name that can be imported."""
    home = types.ModuleType("at_home")
    for cls in (HubTagger, HubClassifier):
        setattr(home, cls.__name__, cls)
        monkeypatch.setattr(cls, "__module__", "at_home")
    monkeypatch.setitem(sys.modules, "at_home", home)


def hub_tagger(seed: int = 0) -> HubTagger:
    model = HubTagger(SOURCE, TARGET, hidden_size=4, embedding_size=5, feature_size=2)
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
        found = HubTagger.from_pretrained(path, trust=True)
        assert type(found) is HubTagger
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
        found = HubTagger.from_pretrained(name, trust=True, **options)
        emissions, tags = answers(found)
        expected, expected_tags = answers(hub_tagger(seed))
        assert torch.equal(emissions, expected)
        assert tags == expected_tags


def test_a_private_model_comes_with_a_token(hub: HubServer, tmp_path: Path) -> None:
    hub_tagger().push_to_hub(NAME, token=TOKEN, private=True)
    assert "that you may see" in refusal(HubTagger, NAME)
    cache = tmp_path / "own"
    HubTagger.from_pretrained(NAME, token=TOKEN, cache_dir=cache, trust=True)
    assert [*cache.glob("models--*/snapshots/*/config.json")]


def test_a_path_comes_before_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub_tagger().save_pretrained(NAME)
    HubTagger.from_pretrained(NAME, trust=True)
    assert hub.requests == []
    assert refusal(HubTagger, NAME, revision="v1") == (
        f"{NAME} is no name on the hub, and only what is there has revisions: leave out "
        "revision='v1', or write owner/name."
    )


def test_the_home_folder_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    hub_tagger().save_pretrained(tmp_path / "ner")
    assert type(HubTagger.from_pretrained("~/ner", trust=True)) is HubTagger


def test_a_model_of_another_class_says_which(tmp_path: Path) -> None:
    labels = Vocabulary(["bad", "good"], scheme="label")
    folder = save_bundle(Classifier(SOURCE, labels, hidden_size=2), tmp_path / "sentiment")
    assert refusal(HubTagger, folder) == (
        f"{folder} is a Classifier, not a HubTagger: use seqlab.Classifier.from_pretrained."
    )
    HubClassifier(SOURCE, labels, hidden_size=2).save_pretrained(folder)
    assert refusal(HubTagger, folder, trust=True) == (
        f"{folder} is a HubClassifier, not a HubTagger: use at_home.HubClassifier.from_pretrained."
    )


def test_a_foreign_class_from_the_hub_needs_trust(hub: HubServer) -> None:
    hub_tagger().push_to_hub(NAME, token=TOKEN)
    sys.modules.pop("at_home")
    assert "asks for the class at_home.HubTagger, which is not part of seqlab" in refusal(
        HubTagger, NAME
    )
    assert "at_home" not in sys.modules


def test_a_configuration_changed_on_the_hub_is_refused(hub: HubServer, tmp_path: Path) -> None:
    folder = save_bundle(tagger(), tmp_path / "ner")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    config = json.loads(files["config.json"])
    config["arguments"]["dropout"] = 0.4
    assert bundle._seal(config) != config["seal"]
    hub.add(NAME, {**files, "config.json": json.dumps(config).encode()})
    assert "config.json does not have the checksum it was saved with" in refusal(HubTagger, NAME)


def test_what_is_nowhere_is_named(hub: HubServer) -> None:
    assert refusal(HubTagger, "runs/ner/latest").startswith("no model at runs/ner/latest")
    assert refusal(HubTagger, "runs/ner").startswith("runs/ner is no path here, and no model of")


def test_the_class_knows_nothing_of_the_models_above_it() -> None:
    script = (
        "import sys, seqlab.hub_model; heavy = {'torch', 'huggingface_hub'} & set(sys.modules); "
        "print(*heavy, *(name for name in sys.modules if name.startswith('seqlab.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["seqlab.errors", "seqlab.hub_model"]

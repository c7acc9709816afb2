from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

import seqlab
from seqlab.bundle import load_bundle, save_bundle
from seqlab.errors import BundleError
from seqlab.hub import download
from seqlab.hub_push import Pushed, hub_card, push_bundle, push_to_hub
from seqlab.models.classifier import Classifier
from seqlab.vocabulary import Vocabulary
from tests.hub_server import TOKEN, HubServer, running_hub
from tests.test_bundle import SOURCE, assert_same, tagger

NAME = "ada/en-ner"
# The client's own upload where Xet is off, which only our hub needs, is behind its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with running_hub(tmp_path / "home", monkeypatch) as server:
        yield server


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_bundle(tagger(), tmp_path / "bundle", card="# Ö\n", recipe="model: {}\n")


def push(seed: int = 0, name: str = NAME, **options: Any) -> Pushed:
    return push_to_hub(tagger(seed), name, token=TOKEN, **options)


def files_on(hub: HubServer, branch: str = "main") -> dict[str, bytes]:
    repository = hub.repositories[NAME]
    return repository.commits[repository.references[branch]]


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        push_to_hub(tagger(), *arguments, **options)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def head_of(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_what_is_pushed_comes_back_the_same(hub: HubServer) -> None:
    pushed = push(metrics={"test/span_f1": 0.5}, recipe="model: {}\n", card="# Ada\n")
    assert pushed.name == f"{NAME}@{pushed.commit}"
    assert pushed.url == f"{hub.endpoint}/{NAME}/commit/{pushed.commit}"
    folder = download(pushed.name)
    assert folder.name == pushed.commit
    assert_same(load_bundle(folder), tagger())
    assert json.loads((folder / "metrics.json").read_text("utf-8")) == {"test/span_f1": 0.5}
    assert (folder / "recipe.yaml").read_text("utf-8") == "model: {}\n"
    assert (folder / "README.md").read_text("utf-8").endswith("---\n\n# Ada\n")


def test_an_older_commit_keeps_the_older_model(hub: HubServer) -> None:
    old, new = push(0), push(1)
    assert old.commit != new.commit
    assert_same(load_bundle(download(old.name)), tagger(0))
    assert_same(load_bundle(download(new.name)), tagger(1))
    assert_same(load_bundle(download(NAME)), tagger(1))


def test_a_push_is_one_commit(hub: HubServer) -> None:
    push(commit_message="The first")
    assert hub.repositories[NAME].titles == ["initial commit", "The first"]
    assert len([request for request in hub.requests if "/commit/" in request]) == 1
    assert [request for request in hub.requests if request.startswith("PUT")]  # the weights


def test_nothing_new_makes_no_commit(hub: HubServer) -> None:
    first = push()
    assert push() == first
    assert len(hub.repositories[NAME].commits) == 2


def test_files_of_the_older_bundle_go_and_others_stay(hub: HubServer, saved: Path) -> None:
    (saved / "receipt.json").write_text("{}", encoding="utf-8")
    (saved / "probe.json").write_text("[]", encoding="utf-8")
    push_bundle(saved, NAME, token=TOKEN)
    others = {"pytorch_model.bin": b"pickle", "deep/recipe.yaml": b"", "LICENSE": b"Apache"}
    hub.repositories[NAME].commit({**files_on(hub), **others}, "by hand")
    push(1)
    assert set(files_on(hub)) == {
        *(".gitattributes", "config.json", "source_vocab.json", "target_vocab.json"),
        *("model.safetensors", "metrics.json", "README.md", *others),
    }
    assert hub.repositories[NAME].titles[-1] == "Upload a seqlab model"
    assert_same(load_bundle(download(NAME)), tagger(1))


def test_a_bundle_goes_byte_by_byte(hub: HubServer, saved: Path) -> None:
    (saved / "notes.txt").write_text("mine", encoding="utf-8")
    push_bundle(saved.parent, NAME, token=TOKEN)  # as a run folder holds it
    files = files_on(hub)
    assert "notes.txt" not in files
    expected = {file.name: file.read_bytes() for file in saved.iterdir()}
    del expected["notes.txt"]
    assert {name: files[name] for name in files if name != ".gitattributes"} == expected


def test_a_damaged_bundle_is_not_pushed(hub: HubServer, saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError) as error:
        push_bundle(saved, NAME, token=TOKEN)
    assert str(error.value) == (
        f"{saved} is damaged: model.safetensors does not have the checksum it was saved with; save "
        "the model again before it is pushed."
    )
    assert hub.requests == []


def test_a_branch_of_its_own(hub: HubServer) -> None:
    push(0)
    push(1, revision="trial")
    push(2, revision="trial")
    assert_same(load_bundle(download(NAME, "trial")), tagger(2))
    assert_same(load_bundle(download(NAME)), tagger(0))


@pytest.mark.parametrize("private", [None, False, True])
def test_a_new_repository_is_as_private_as_asked(private: bool | None, hub: HubServer) -> None:
    pushed = push(private=private)
    assert hub.repositories[NAME].private is bool(private)
    assert push(1, private=private).commit != pushed.commit
    if private:
        with pytest.raises(BundleError, match="no model of the hub that you may see"):
            download(pushed.name)
    assert_same(load_bundle(download(pushed.name, token=TOKEN)), tagger())


def test_what_must_be_private_does_not_go_where_all_see_it(hub: HubServer) -> None:
    push()
    assert refusal(NAME, token=TOKEN, private=True) == (
        f"{NAME} is there already, and public: make it private on its page on the hub, or choose "
        "another name."
    )
    assert len(hub.repositories[NAME].commits) == 2


def test_the_token_of_the_account_is_used(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert push_to_hub(tagger(), NAME).name.startswith(NAME)


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "Invalid username or password"),
        ("hf_wrong", "Invalid credentials in Authorization header"),
    ],
)
def test_who_is_not_known_may_not_push(token: str | None, why: str, hub: HubServer) -> None:
    assert refusal(NAME, token=token) == (
        f"the hub does not know who pushes {NAME} ({why}): log in with `hf auth login`, or give a "
        "token that may write."
    )
    assert hub.repositories == {}


def test_a_token_that_must_be_there_and_is_not(hub: HubServer) -> None:
    message = refusal(NAME, token=True)
    assert message.startswith(f"the hub does not know who pushes {NAME} (Token is required")


def test_the_name_of_somebody_else_is_refused(hub: HubServer) -> None:
    assert refusal("grace/en-ner", token=TOKEN) == (
        "you may not write to grace/en-ner (You don't have the rights to write here): ask its "
        "owner, or give a token that may."
    )


def test_two_pushes_at_once_do_not_mix(hub: HubServer) -> None:
    push()

    def somebody() -> None:
        hub.repositories[NAME].commit({"config.json": b"{}"}, "in between")

    hub.before_commit = somebody
    assert refusal(NAME, token=TOKEN, recipe="model: {}\n") == (
        f"somebody else has changed {NAME} in this moment: look at it, and push again."
    )
    assert files_on(hub) == {"config.json": b"{}"}


def test_who_forbids_the_network_cannot_push(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(NAME) == f"HF_HUB_OFFLINE forbids to push {NAME} to the hub: unset it."
    assert hub.requests == []


def test_without_a_network_nothing_is_pushed(hub: HubServer) -> None:
    hub.stop()
    message = refusal(NAME, token=TOKEN)
    assert message.startswith(f"{NAME} was not pushed to the hub (")
    assert "Connection refused" in message
    assert message.endswith("): see that the hub can be reached, and push again.")


def test_a_pull_request_that_is_not_there(hub: HubServer) -> None:
    assert refusal(NAME, token=TOKEN, revision="refs/pr/7") == (
        f"{NAME} has no revision 'refs/pr/7' on the hub: name a branch to push to."
    )


@pytest.mark.parametrize("name", ["en-ner", "a/b/c", "a b/c", ""])
def test_a_name_needs_an_owner(name: str, hub: HubServer) -> None:
    assert refusal(name).startswith(f"{name!r} names no model of the hub: write owner/name")
    assert hub.requests == []


def test_a_commit_is_nothing_to_push_to(hub: HubServer) -> None:
    assert refusal(f"{NAME}@v1") == (
        f"cannot push to {NAME}@v1: leave out @v1, or give it as revision."
    )


def test_a_card_that_the_hub_refuses_is_told(hub: HubServer) -> None:
    card = hub_card("# Ada", task=None, license="none-such")
    assert '"license" must be one of [mit]' in refusal(NAME, token=TOKEN, card=card)


def test_a_model_without_a_card_gets_one_that_says_how_to_load_it(hub: HubServer) -> None:
    push()
    card = files_on(hub)["README.md"].decode()
    assert hub.yaml[-1] == card
    assert head_of(card) == {
        "library_name": "seqlab",
        "pipeline_tag": "token-classification",
        "tags": ["seqlab", "lstm"],
    }
    assert f"# {NAME}\n\nA Tagger made with seqlab {seqlab.__version__}" in card
    assert f'seqlab.load("{NAME}")' in card


def test_a_card_names_the_task_of_its_model(hub: HubServer, make_translator: Any) -> None:
    torch.manual_seed(0)
    classifier = Classifier(SOURCE, Vocabulary(["bad", "good"], scheme="label"), hidden_size=2)
    for model, task in (
        (classifier, "text-classification"),
        (make_translator(), "translation"),
    ):
        push_to_hub(model, NAME, token=TOKEN, card="# Ada")
        assert head_of(files_on(hub)["README.md"].decode())["pipeline_tag"] == task


def test_the_head_of_a_card() -> None:
    card = hub_card(
        "\n# Ada\n\n---\n",
        task="translation",
        license="CC-BY-4.0",
        language=["en", "fr"],
        datasets=["ada/pairs"],
    )
    assert head_of(card) == {
        "datasets": ["ada/pairs"],
        "language": ["en", "fr"],
        "library_name": "seqlab",
        "license": "cc-by-4.0",
        "pipeline_tag": "translation",
        "tags": ["seqlab", "lstm"],
    }
    assert card.endswith("\n---\n\n# Ada\n\n---\n")


def test_a_head_that_a_card_has_stays() -> None:
    own = "---\nlicense: mit\ntags: [poems, lstm]\nlanguage: fr\nextra: 3\n---\n# Ada\n"
    card = hub_card(own, task="translation", language="en")
    assert head_of(card) == {
        "extra": 3,
        "language": "en",
        "library_name": "seqlab",
        "license": "mit",
        "pipeline_tag": "translation",
        "tags": ["poems", "lstm", "seqlab"],
    }
    assert hub_card(card, task=None) == hub_card(card, task="translation") == card


@pytest.mark.parametrize("head", ["a: [", "- a", "a: 1\na: [}"])
def test_a_head_that_is_no_yaml_is_refused(head: str) -> None:
    with pytest.raises(BundleError) as error:
        hub_card(f"---\n{head}\n---\n# Ada", task=None)
    message = str(error.value)
    assert message.startswith("the YAML between two lines of --- at the head of the model card")
    assert message.endswith("): correct it.")


def test_a_card_may_begin_with_a_rule(capfd: pytest.CaptureFixture[str]) -> None:
    assert hub_card("---\n# Ada", task=None).endswith("---\n\n---\n# Ada")
    assert capfd.readouterr().err == ""


def test_saving_is_that_of_a_bundle(tmp_path: Path, saved: Path) -> None:
    twin = tagger().save_pretrained(tmp_path / "twin", card="# Ö\n", recipe="model: {}\n")
    assert {file.name: file.read_bytes() for file in twin.iterdir()} == {
        file.name: file.read_bytes() for file in saved.iterdir()
    }

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import seqlab
from seqlab import runs, zoo
from seqlab.bundle import save_bundle
from seqlab.errors import BundleError, SeqlabError, UsageError
from seqlab.installed import find_installed
from seqlab.models.base import SequenceModel
from seqlab.models.classifier import Classifier
from seqlab.models.tagger import Tagger
from seqlab.pipeline import Labelled, Pipeline
from seqlab.tagged import Tagged
from seqlab.translation_pipeline import TranslationPipeline
from seqlab.vocabulary import Vocabulary
from seqlab.zoo import load, model_folder

SOURCE = Vocabulary(["ada", "was"], padding=True, unknown=1, lowercase=True)
TARGET = Vocabulary(["O", "B-PER", "I-PER"], scheme="iob2", written="iob2")


def tagger() -> Tagger:
    torch.manual_seed(0)
    return Tagger(SOURCE, TARGET, hidden_size=2, embedding_size=2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with runs in a place of their own."""
    monkeypatch.setenv("SEQLAB_RUNS", str(tmp_path / "my-runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home: Path) -> Path:
    """A run of the recipe ner, with its model."""
    folder = runs.new_run("ner")
    save_bundle(tagger(), folder / "bundle")
    return folder


def refusal(model: str | Path) -> str:
    with pytest.raises(BundleError) as error:
        load(model)
    return str(error.value)


def test_a_model_is_loaded_by_run_bundle_or_recipe(run: Path) -> None:
    weights = tagger().state_dict()
    for model in (run, str(run), run / "bundle", run.parent / "latest", "ner", "recipes/ner.yaml"):
        pipeline = load(model, device="cpu")
        assert isinstance(pipeline, Pipeline)
        torch.testing.assert_close(pipeline.model.state_dict(), weights, rtol=0, atol=0)
        assert not pipeline.model.training
        assert pipeline("Ada was").tokens == ["Ada", "was"]


def test_a_translator_is_loaded_into_its_own_pipeline(home: Path, make_translator: Any) -> None:
    model = make_translator()
    save_bundle(model, home / "bundle")
    pipeline = load("bundle", device="cpu")
    assert isinstance(pipeline, TranslationPipeline)
    texts = ["the cat sat", "a dog"]
    found = [str(result) for result in pipeline(texts)]
    assert found == [str(result) for result in TranslationPipeline(model, device="cpu")(texts)]
    assert pipeline.model.source_vocab.language == "en"


@pytest.mark.parametrize("scheme", ["label", "labels"])
def test_a_classifier_is_loaded_as_it_was_saved(home: Path, scheme: str) -> None:
    target = Vocabulary(["bad", "good"], scheme=scheme, written=scheme)
    torch.manual_seed(1)
    model = Classifier(SOURCE, target, hidden_size=2, embedding_size=2, pooling=["max", "last"])
    model.thresholds.fill_(0.01)
    folder = runs.new_run("sentiment")
    save_bundle(model, folder / "bundle")
    found = load("sentiment", device="cpu")("Ada was")
    assert isinstance(found, Labelled)
    assert found == Pipeline(model, device="cpu")("Ada was")
    assert len(found.labels) == (2 if scheme == "labels" else 1)


def test_load_is_the_packages_own() -> None:
    assert seqlab.load is load


def test_a_recipe_means_its_newest_run(run: Path) -> None:
    newer = runs.new_run("ner")
    save_bundle(tagger(), newer / "bundle")
    assert model_folder("ner").resolve() == (newer / "bundle").resolve()


def test_the_pointer_of_a_machine_without_links_is_followed(run: Path) -> None:
    pointer = run.parent / "latest"
    pointer.unlink()
    pointer.write_text("1", encoding="utf-8")
    assert model_folder(pointer) == run / "bundle"
    assert model_folder("ner") == run / "bundle"


@pytest.mark.parametrize("place", ["bundle", "."])
def test_a_bundle_that_a_kill_left_half_replaced_is_found(run: Path, place: str) -> None:
    (run / "bundle").rename(run / ".bundle.old")
    assert model_folder(run / place) == run / ".bundle.old"


@pytest.mark.parametrize("model", ["nothing", "runs/other/latest", "nothing.yaml"])
def test_a_name_that_means_nothing_says_what_to_give(model: str) -> None:
    assert refusal(model).startswith(
        f"no model {model!r}: give a run folder (runs/NAME/latest), a bundle, the recipe of a run, "
        "owner/name of the hub, or an installed model (there is "
    )
    assert "pip install" not in refusal(model)  # what pip could not know
    assert "`pip install xx-nothing` gets one" in refusal("xx-nothing")


def test_a_recipe_that_was_never_run_says_how_to_train_it(home: Path) -> None:
    with pytest.raises(UsageError) as error:
        load("ner")
    assert str(error.value) == (
        f"no run of 'ner' in {home}/my-runs: train it first with `seqlab fit ner`, or give the "
        "folder of a model."
    )


def test_a_run_without_a_whole_epoch_has_no_model(home: Path) -> None:
    folder = runs.new_run("ner")
    for model in (folder, "ner"):
        assert "holds no model: a bundle has a config.json" in refusal(model)


def test_a_damaged_model_is_refused(run: Path) -> None:
    (run / "bundle" / "source_vocab.json").write_text("{}", encoding="utf-8")
    assert "is damaged: source_vocab.json does not have the checksum" in refusal(run)


class Own(Tagger):
    """A tagger of somebody else's."""


def test_the_code_of_others_runs_only_where_it_is_trusted(run: Path) -> None:
    model = Own(SOURCE, TARGET, hidden_size=2, embedding_size=2)
    save_bundle(model, run / "bundle")
    assert f"asks for the class {Own.__module__}.Own, which is not part of seqlab" in refusal(run)
    assert type(load(run, device="cpu", trust=True).model) is Own


def test_a_model_of_another_task_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SequenceModel(SOURCE, TARGET)
    monkeypatch.setattr(zoo, "load_bundle", lambda folder, **_: other)
    assert refusal(run) == f"{run} is a SequenceModel, which no pipeline serves yet."


def test_a_device_that_is_not_there_is_a_sentence(run: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SeqlabError, match="cuda"):
        load(run, device="cuda")


def test_a_name_of_the_hub_is_fetched_and_a_misspelt_path_is_not(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetched(name: str) -> Path:
        asked.append(name)
        return run / "bundle"

    monkeypatch.setattr(zoo, "download", fetched)
    assert model_folder("ada/en-ner@v1") == run / "bundle"
    Path("ada").mkdir()
    with pytest.raises(BundleError, match="no model 'ada/en-nre'"):
        model_folder("ada/en-nre")
    assert asked == ["ada/en-ner@v1"]


@pytest.mark.skipif(find_installed("en-pos") is None, reason="en-pos is not packed yet")
def test_one_tagger_comes_with_seqlab_itself() -> None:
    tagger = load("en-pos", device="cpu")
    found = tagger("Time flies like an arrow.")
    assert isinstance(found, Tagged)
    assert [tag for tag in found.tags if tag == "NOUN"] == ["NOUN", "NOUN"]

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from torch import Tensor

import seqlab
from seqlab import bundle
from seqlab.batch import FormTable
from seqlab.bundle import FORMAT, find_bundle, load_bundle, read_config, save_bundle, write_json
from seqlab.errors import BundleError
from seqlab.models.tagger import Tagger
from seqlab.networks.base import Network
from seqlab.networks.tagger import TaggerNetwork
from seqlab.probes import answers as answers_of
from seqlab.probes import differences
from seqlab.receipts import check_receipt
from seqlab.vocabulary import Vocabulary
from seqlab.zoo import serve

SOURCE = Vocabulary(
    ["ada", "was", "in", "zürich"],
    padding=True,
    unknown=2,
    lowercase=True,
    characters=Vocabulary("abcdeinswü", padding=True, unknown=1),
    features={"pos": Vocabulary(["NN", "VB"], padding=True, unknown=1)},
)
TARGET = Vocabulary(["O", "B-PER", "I-PER"], scheme="iob2", written="iob1")
CHECKED = ("source_vocab.json", "target_vocab.json", "model.safetensors")
AGAIN = "; get the model again."


def tagger(seed: int = 0, **changes: Any) -> Tagger:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 4, "embedding_size": 5, "character_size": 6, "feature_size": 2}
    model = Tagger(SOURCE, TARGET, **{**sizes, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def answers(model: Network) -> tuple[Tensor, list[list[str]]]:
    """Emissions and tags of two sentences."""
    assert isinstance(model, TaggerNetwork)
    table = FormTable(model.source_vocab)
    pos = model.source_vocab.features["pos"].encode(["NN", "VB", "X", "NN"])
    rows = table.index(["Ada", "was", "new", "Zürich"])
    batch = table.batch(rows, [3, 1], [torch.tensor(pos).numpy()])
    with torch.no_grad():
        emissions = model.emissions(batch)
    return emissions, model.decode(emissions, batch.mask)


def assert_same(found: Network, expected: Network) -> None:
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    (emissions, tags), (expected_emissions, expected_tags) = answers(found), answers(expected)
    assert torch.equal(emissions, expected_emissions)
    assert tags == expected_tags


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the configuration of a bundle by hand, as someone who seals it again."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    change(config)
    config["seal"] = bundle._seal(config)
    file.write_text(json.dumps(config), encoding="utf-8")


def refusal(path: str | Path, *, trust: bool = False) -> str:
    with pytest.raises(BundleError) as error:
        load_bundle(path, trust=trust)
    return str(error.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_bundle(tagger(), tmp_path / "bundle")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoder": "constrained", "characters": "lstm", "num_layers": 2},
        {"decoder": "softmax", "characters": "none", "casing_size": 0},
        {"word_rows": "sparse", "optimizer": "sgd"},
        {"word_rows": "frozen", "dropout": 0.0},
        {
            "encoder": {
                "class_path": "seqlab.nn.encoders.BiLSTM",
                "init_args": {"hidden_size": 3, "num_layers": 2},
            }
        },
    ],
    ids=str,
)
def test_what_is_loaded_is_what_was_saved(changes: dict[str, Any], tmp_path: Path) -> None:
    model = tagger(**changes)
    found = load_bundle(save_bundle(model, tmp_path / "bundle"))
    assert_same(found, model)
    assert type(found) is Tagger
    assert found.config == model.config
    assert (found.source_vocab, found.target_vocab) == (SOURCE, TARGET)
    assert not found.training


def test_a_model_with_pretrained_vectors_needs_no_file_of_them(tmp_path: Path) -> None:
    source = Vocabulary.from_dict(SOURCE.to_dict())
    source.vectors = torch.full((len(source), 7), 0.5)
    model = Tagger(source, TARGET, hidden_size=2, embedding_size=5).eval()
    found = load_bundle(save_bundle(model, tmp_path / "bundle"))
    assert found.source_vocab.vectors is None
    assert_same(found, model)


def test_a_bundle_is_saved_again_byte_by_byte(saved: Path, tmp_path: Path) -> None:
    twin = save_bundle(load_bundle(saved), tmp_path / "twin")
    for file in saved.iterdir():
        assert (twin / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_rounded_weights_are_smaller_and_nearly_the_same(storage: Any, tmp_path: Path) -> None:
    model = tagger(hidden_size=64)
    plain = save_bundle(model, tmp_path / "plain")
    saved = save_bundle(model, tmp_path / "rounded", storage=storage)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (plain, saved)]
    assert sizes[1] < 0.75 * sizes[0]
    assert read_config(saved)["format"] == FORMAT
    found = load_bundle(saved)
    assert found.config == model.config
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=0.01, atol=0.03)
    twin = save_bundle(found, tmp_path / "twin", storage=storage)
    assert_same(load_bundle(twin), found)


def test_a_network_predicts_what_the_model_does_and_is_saved_as_it(
    saved: Path, tmp_path: Path
) -> None:
    network = load_bundle(saved, trainable=False)
    assert type(network) is TaggerNetwork
    assert not isinstance(network, lightning.LightningModule)
    assert_same(network, load_bundle(saved))
    twin = save_bundle(network, tmp_path / "twin")
    assert (twin / "config.json").read_bytes() == (saved / "config.json").read_bytes()
    assert type(load_bundle(twin)) is Tagger


def test_a_bundle_holds_text_and_safetensors_only(tmp_path: Path) -> None:
    folder = save_bundle(
        tagger(),
        tmp_path / "runs" / "1" / "bundle",
        metrics={"test/span_f1": 0.5, "label": "Zürich"},
        recipe="model: ä\n",
        card="# Ö\n",
    )
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*CHECKED, "config.json", "metrics.json", "recipe.yaml", "README.md"]
    )
    for name in ("config.json", "metrics.json", *CHECKED[:2]):
        assert json.loads((folder / name).read_text(encoding="utf-8"))
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["label"] == "Zürich"
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == "model: ä\n"
    assert (folder / "README.md").read_text(encoding="utf-8") == "# Ö\n"
    weights = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", weights[:8])  # the format: a length, a JSON header, raw numbers
    header = json.loads(weights[8 : 8 + size])
    assert set(header) - {"__metadata__"} == set(tagger().state_dict())


def test_recipe_and_card_are_written_where_they_are_given(saved: Path) -> None:
    assert not (saved / "recipe.yaml").exists()
    assert json.loads((saved / "metrics.json").read_text(encoding="utf-8")) == {}


def test_the_configuration_says_what_made_it(saved: Path) -> None:
    config = read_config(saved)
    assert config["format"] == 1  # as all readers know it; rounded weights are of format 2
    assert config["seqlab"] == seqlab.__version__
    assert config["class"] == "seqlab.models.tagger.Tagger"
    assert config["arguments"]["hidden_size"] == 4
    assert set(config["sha256"]) == set(CHECKED)


def test_nothing_but_the_bundle_is_left_behind(tmp_path: Path) -> None:
    for seed in range(3):
        save_bundle(tagger(seed), tmp_path / "bundle")
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
        assert not [path for path in (tmp_path / "bundle").iterdir() if path.name[0] == "."]
        assert_same(load_bundle(tmp_path / "bundle"), tagger(seed))


def test_a_bundle_that_cannot_be_written_leaves_the_old_one(saved: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_bundle(tagger(1), saved, metrics={"x": object()})
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]
    assert_same(load_bundle(saved), tagger(0))


def test_a_run_folder_means_the_bundle_in_it(saved: Path) -> None:
    assert find_bundle(saved) == find_bundle(saved.parent) == find_bundle(str(saved)) == saved
    assert_same(load_bundle(saved.parent), tagger())


@pytest.mark.parametrize("place", ["bundle", "."])
def test_a_bundle_is_found_from_inside(
    saved: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved.parent / place)
    assert find_bundle(".").resolve() == saved


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path} holds no model: a bundle has a config.json, and a run has one in its folder "
        "`bundle` once its first epoch is over."
    )


def test_a_path_without_a_model_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    assert refusal(missing) == f"no model at {missing}: give a run folder or a bundle."


class Killed(BaseException):
    """The process is gone: nothing that comes after takes place."""


def save_until(moment: int, model: Network, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Save a bundle and be killed before the n-th step that the file system sees."""
    steps = 0

    def mortal(step: Callable[..., Any]) -> Callable[..., Any]:
        def take(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > moment:
                raise Killed
            return step(*arguments, **options)

        return take

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", mortal(os.rename))
        patch.setattr(shutil, "rmtree", mortal(shutil.rmtree))
        try:
            save_bundle(model, folder)
        except Killed:
            return False
    return True


def test_a_flipped_byte_of_the_configuration_is_refused(saved: Path) -> None:
    text = (saved / "config.json").read_text(encoding="utf-8")
    (saved / "config.json").write_text(text.replace('"dropout": 0.5', '"dropout": 0.4'), "utf-8")
    assert refusal(saved) == (
        f"{saved} is damaged: config.json does not have the checksum it was saved with{AGAIN}"
    )


def test_what_a_killed_save_left_is_removed_by_the_next(saved: Path) -> None:
    left = saved.parent / ".bundle.12345.new"
    left.mkdir()
    save_bundle(tagger(1), saved)
    assert not left.exists()


@pytest.mark.parametrize("moment", range(6))
@pytest.mark.parametrize("killed_before", [False, True])
def test_a_kill_at_any_step_leaves_a_whole_model(
    moment: int, killed_before: bool, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if killed_before:  # between the two renames of an earlier save
        saved.rename(saved.parent / ".bundle.old")
    done = save_until(moment, tagger(1), saved, monkeypatch)
    for path in (saved, saved.parent):
        found = load_bundle(path)
        old = torch.equal(found.state_dict()["emit.bias"], tagger(0).state_dict()["emit.bias"])
        assert_same(found, tagger(0 if old else 1))
        assert not (done and old)


def test_the_steps_above_are_all_there_are(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not save_until(3, tagger(1), saved, monkeypatch)
    assert save_until(4, tagger(1), saved, monkeypatch)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_between_the_two_renames_still_loads(
    error: type[BaseException], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = os.rename, []

    def once(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise error
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", once)
        with pytest.raises(error):
            save_bundle(tagger(1), saved)
    assert not saved.exists()
    assert_same(load_bundle(saved), tagger(0))
    assert_same(load_bundle(saved.parent), tagger(0))
    save_bundle(tagger(2), saved)
    assert [path.name for path in saved.parent.iterdir()] == ["bundle"]
    assert_same(load_bundle(saved), tagger(2))


@pytest.mark.parametrize("name", CHECKED)
def test_every_flipped_byte_is_noticed(name: str, saved: Path) -> None:
    file = saved / name
    whole = file.read_bytes()
    chosen = random.Random(0)
    positions = {0, len(whole) - 1, *(chosen.randrange(len(whole)) for _ in range(50))}
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chosen.randrange(8)
        file.write_bytes(damaged)
        assert refusal(saved) == (
            f"{saved} is damaged: {name} does not have the checksum it was saved with{AGAIN}"
        )
    file.write_bytes(whole)
    assert_same(load_bundle(saved), tagger())


@pytest.mark.parametrize("name", CHECKED)
def test_a_file_that_is_cut_off_is_noticed(name: str, saved: Path) -> None:
    file = saved / name
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{name} does not have the checksum" in refusal(saved)


@pytest.mark.parametrize("name", CHECKED)
def test_a_missing_file_is_named(name: str, saved: Path) -> None:
    (saved / name).unlink()
    assert refusal(saved) == f"{saved} is damaged: {name} is missing{AGAIN}"


def test_a_missing_configuration_is_named(saved: Path) -> None:
    (saved / "config.json").unlink()
    with pytest.raises(BundleError) as error:
        read_config(saved)
    assert str(error.value) == f"{saved} is damaged: config.json is missing{AGAIN}"


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"a": 1} x'])
def test_a_configuration_that_is_no_json_is_named(text: bytes, saved: Path) -> None:
    (saved / "config.json").write_bytes(text)
    message = refusal(saved)
    assert message.startswith(f"{saved} is damaged: config.json cannot be read (")
    assert message.endswith(f"){AGAIN}")


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_configuration_that_is_no_object_is_named(text: str, saved: Path) -> None:
    (saved / "config.json").write_text(text, encoding="utf-8")
    assert refusal(saved) == f"{saved} is damaged: config.json holds no JSON object{AGAIN}"


@pytest.mark.parametrize(
    ("key", "kind"),
    [("format", "int"), ("class", "str"), ("arguments", "dict"), ("sha256", "dict")],
)
@pytest.mark.parametrize("missing", [True, False])
def test_a_key_that_is_missing_or_of_another_kind_is_named(
    key: str, kind: str, missing: bool, saved: Path
) -> None:
    edit(saved, lambda c: c.pop(key) if missing or key == "format" else c.update({key: [3]}))
    assert refusal(saved) == (
        f"{saved}/config.json is damaged: {key!r} is missing or no {kind}{AGAIN}"
    )


def test_a_newer_format_says_what_to_install(saved: Path) -> None:
    edit(saved, lambda c: (c.update(format=FORMAT + 1, seqlab="9.9.9"), c.pop("sha256")))
    assert refusal(saved) == (
        f"{saved} has bundle format {FORMAT + 1}, and seqlab {seqlab.__version__} reads formats 1 "
        f"to {FORMAT}: install the seqlab that wrote it (9.9.9)."
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["arguments"].update(hidden_size=5),
        lambda c: c["arguments"].update(future_key=5),
        lambda c: c.update(arguments={}),
    ],
)
def test_weights_and_arguments_that_do_not_fit_say_what_to_install(
    change: Callable[[dict[str, Any]], object], saved: Path
) -> None:
    edit(saved, lambda c: (c.update(seqlab="9.9.9"), change(c)))
    message = refusal(saved)
    assert message.startswith(
        f"{saved}: the weights or arguments do not fit seqlab.models.tagger.Tagger ("
    )
    assert message.endswith("; the model was written by seqlab 9.9.9: install that version.")


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that appears once somebody imports the package ``outside``."""
    home = tmp_path / "site-packages"
    home.mkdir()
    (home / "outside.py").write_text(
        "from pathlib import Path\n"
        "from seqlab.models.tagger import Tagger\n"
        "from seqlab.nn.encoders import BiLSTM\n"
        "Path(__file__).with_name('imported').touch()\n"
        "class Own(Tagger): ...\n"
        "class OwnLSTM(BiLSTM): ...\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(sys.modules, "outside", raising=False)
    return home / "imported"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("outside.Own", lambda c: c.update({"class": "outside.Own"})),
        ("seqlabel.Own", lambda c: c.update({"class": "seqlabel.Own"})),
        (
            "outside.OwnLSTM",
            lambda c: c["arguments"].update(encoder={"class_path": "outside.OwnLSTM"}),
        ),
        (
            "outside.Deep",
            lambda c: c["arguments"].update(
                encoder={
                    "class_path": "seqlab.nn.encoders.BiLSTM",
                    "init_args": {"parts": [1, [{"class_path": "outside.Deep"}]]},
                }
            ),
        ),
    ],
    ids=["model", "name alike", "encoder", "part of a part"],
)
def test_a_class_outside_seqlab_is_not_even_imported(
    name: str, change: Callable[[dict[str, Any]], object], saved: Path, marker: Path
) -> None:
    edit(saved, change)
    assert refusal(saved) == (
        f"{saved} asks for the class {name}, which is not part of seqlab: if you trust whoever "
        "made it, add --trust (in Python trust=True)."
    )
    assert not marker.exists()
    assert "outside" not in sys.modules


def test_who_trusts_a_bundle_loads_its_classes(saved: Path, marker: Path) -> None:
    encoder = {"class_path": "outside.OwnLSTM", "init_args": {"hidden_size": 4}}
    edit(
        saved,
        lambda c: (c.update({"class": "outside.Own"}), c["arguments"].update(encoder=encoder)),
    )
    found = load_bundle(saved, trust=True)
    assert marker.exists()
    assert type(found).__name__ == "Own"
    assert isinstance(found, Tagger)
    assert type(found.encoder).__name__ == "OwnLSTM"
    torch.testing.assert_close(answers(found)[0], answers(tagger())[0])


def test_a_model_of_another_package_is_saved_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type("Own", (Tagger,), {"__module__": "elsewhere"})
    module = types.ModuleType("elsewhere")
    vars(module)["Own"] = own
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    model = own(SOURCE, TARGET, hidden_size=2)
    assert "elsewhere.Own" in refusal(save_bundle(model, tmp_path / "bundle"))
    assert type(load_bundle(tmp_path / "bundle", trust=True)) is own


@pytest.mark.parametrize("name", ["nowhere.Model", "seqlab.models.tagger.Gone", "Tagger", ""])
def test_a_class_that_is_not_there_is_named(name: str, saved: Path) -> None:
    edit(saved, lambda c: c.update({"class": name}))
    message = refusal(saved, trust=True)
    assert message.startswith(f"{saved} asks for the class {name}, which cannot be imported (")
    assert message.endswith(
        "; install the package that it belongs to, or another version of seqlab."
    )


@pytest.mark.parametrize("name", ["seqlab.nn.encoders.BiLSTM", "seqlab.bundle.write_json"])
def test_a_class_that_is_no_model_is_refused(name: str, saved: Path) -> None:
    edit(saved, lambda c: c.update({"class": name}))
    assert refusal(saved) == f"{saved} asks for {name}, which is no model: get the model again."


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": 1}
    write_json(file, {"ä": [1, 2.5, None]})
    assert file.read_text(encoding="utf-8").endswith("}\n")
    assert json.loads(file.read_text(encoding="utf-8")) == {"ä": [1, 2.5, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


FROZEN = sorted((Path(__file__).parent / "frozen").glob("*.whl"))


def test_there_is_a_frozen_wheel_of_every_format() -> None:
    assert len(FROZEN) == FORMAT


@pytest.mark.parametrize("wheel", FROZEN, ids=lambda path: path.stem)
def test_a_wheel_of_an_older_format_loads_and_answers_as_it_did(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "seqlab_models/frozen_ner"
    number = int(wheel.stem.split("-")[1].split(".")[0])
    assert read_config(folder)["format"] == number
    assert check_receipt(folder)["version"] == f"{number}.0.0"
    expected = json.loads((folder / "probe.json").read_text(encoding="utf-8"))["answers"]
    assert any(tag != "O" for one in expected for tag in one["said"])
    for trainable in (True, False):
        pipeline = serve(load_bundle(folder, trainable=trainable), device="cpu")
        wrong, largest = differences(expected, answers_of(pipeline, [x["text"] for x in expected]))
        assert wrong == []
        assert largest < 1e-4

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import seqlab
from seqlab.errors import BundleError
from seqlab.installed import Installed, as_json, as_table, find_installed, installed_models
from seqlab.receipts import check_receipt
from seqlab.wheels import write_wheel
from tests.test_receipts import Malicious
from tests.test_wheels import FILES, META, make_model, run_python

INFORMATION = "en_pos-1.0.0.dist-info"
AGAIN = "; install its wheel again (`pip install --force-reinstall WHEEL`)."
posix = pytest.mark.skipif(sys.platform == "win32", reason="links need a right on Windows")


def pip_install(wheel: Path, site: Path) -> None:
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    run_python("-m", "pip", "install", *options, "--target", str(site), str(wheel))


def make_site(folder: Path, *, name: str = "en-pos", version: str = "1.0.0", **meta: Any) -> Path:
    """Build a wheel and install it with pip to a folder of its own."""
    model = make_model(folder / "bundle", name=name, version=version)
    wheel = write_wheel(model, folder, replace(META, name=name, version=version, **meta))
    pip_install(wheel, folder / "site")
    return Path(os.path.realpath(folder / "site"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("fresh"))


@pytest.fixture
def site(fresh: Path, tmp_path: Path) -> Path:
    """A copy of an installation, to be harmed."""
    copy = Path(os.path.realpath(tmp_path)) / "site"
    shutil.copytree(fresh, copy)
    return copy


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that nobody may write."""
    return tmp_path / "marker"


def find(site: Path, name: str = "en-pos") -> Installed:
    found = find_installed(name, [str(site)])
    assert found is not None
    return found


def refusal(site: Path, name: str = "en-pos") -> str:
    """The sentence that `find_installed` raises, which the list tells as well."""
    with pytest.raises(BundleError) as error:
        find_installed(name, [str(site)])
    message = str(error.value)
    (model,) = installed_models([str(site)])
    assert model.problem == message
    assert message in as_table([model])
    assert "\n" not in message
    return message


def lie(site: Path, text: str) -> None:
    (site / INFORMATION / "entry_points.txt").write_text(text, encoding="utf-8")


def test_what_pip_has_installed_is_found(site: Path) -> None:
    model = find(site)
    assert model == Installed(
        name="en-pos",
        version="1.0.0",
        folder=site / "seqlab_models" / "en_pos",
        distribution="en-pos",
        summary=META.summary,
        license="CC-BY-SA-4.0",
        size_bytes=sum(file.stat().st_size for file in (site / "seqlab_models/en_pos").iterdir()),
        requires=("seqlab>=0.1,<0.2",),
        site=site,
        task="tagger",
    )
    assert model.fits
    assert installed_models([str(site)]) == [model]
    assert check_receipt(model.folder)["name"] == "en-pos"
    for name, content in FILES.items():
        assert (model.folder / name).read_bytes() == content


@pytest.mark.parametrize("name", ["en-pos", "EN_pos", "en.pos"])
def test_a_model_is_found_in_every_spelling_of_its_name(name: str, site: Path) -> None:
    assert find(site, name).name == "en-pos"


@pytest.mark.parametrize("name", ["fr-pos", "en", "runs/x/latest", "", "../site", "a\0b"])
def test_what_is_not_installed_is_none(name: str, site: Path) -> None:
    assert find_installed(name, [str(site)]) is None


def test_no_folders_hold_no_models(tmp_path: Path) -> None:
    assert installed_models([]) == []
    assert installed_models([str(tmp_path), str(tmp_path / "nowhere")]) == []


def test_models_are_found_where_python_imports_from(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    assert "en-pos" in [model.name for model in installed_models()]
    found = find_installed("en-pos")
    assert found is not None
    assert found.folder == site / "seqlab_models" / "en_pos"


@posix
def test_one_folder_reached_on_two_ways_is_one_installation(site: Path, tmp_path: Path) -> None:
    (tmp_path / "lib64").symlink_to(site)
    ways = [str(site), str(tmp_path / "lib64"), f"{site}/../site", str(site)]
    assert [model.folder for model in installed_models(ways)] == [site / "seqlab_models/en_pos"]


def test_models_of_several_folders_are_sorted_by_name(site: Path, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other", name="de-ner", version="2.0")
    names = [(m.name, m.version) for m in installed_models([str(site), str(other)])]
    assert names == [("de-ner", "2.0"), ("en-pos", "1.0.0")]


SILENT = """
import sys
from seqlab.installed import as_json, as_table, find_installed, installed_models
models = installed_models()
assert [m.name for m in models if not m.problem] == ["en-pos"], models
as_table(models), as_json(models)
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_nothing_of_a_model_is_imported_and_no_torch(site: Path, marker: Path) -> None:
    code = f"open({str(marker)!r}, 'w')"
    (site / "seqlab_models" / "__init__.py").write_text(code, encoding="utf-8")
    (site / "seqlab_models" / "en_pos" / "__init__.py").write_text(code, encoding="utf-8")
    root = Path(__file__).resolve().parents[1]
    search = os.pathsep.join([str(site), str(root), os.environ.get("PYTHONPATH", "")])
    loaded = run_python("-c", SILENT, env={**os.environ, "PYTHONPATH": search}).stdout.split()
    assert "seqlab" in loaded
    assert {"torch", "numpy", "seqlab_models", "yaml"}.isdisjoint(loaded)
    assert not marker.exists()
    # The code would have been run by an import.
    subprocess.run([sys.executable, "-c", "import seqlab_models.en_pos"], cwd=site, check=True)
    assert marker.exists()


def flipped(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[1234] ^= 1
    (folder / "model.safetensors").write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (flipped, "'model.safetensors' does not have the SHA-256"),
        (
            lambda folder: (folder / "target_vocab.json").write_text('["X"]', encoding="utf-8"),
            "'target_vocab.json' does not have the SHA-256",
        ),
        (lambda folder: (folder / "extra.json").touch(), "'extra.json' is not in its receipt"),
        (lambda folder: (folder / "recipe.yaml").unlink(), "'recipe.yaml' is missing"),
    ],
    ids=["a bit", "labels", "extra", "missing"],
)
def test_tampering_after_the_installation_is_caught_by_the_receipt(
    harm: Callable[[Path], object], words: str, site: Path
) -> None:
    folder = find(site).folder
    check_receipt(folder)
    harm(folder)
    with pytest.raises(BundleError, match=words):
        check_receipt(find(site).folder)


def test_a_malicious_pickle_in_the_folder_is_never_opened(site: Path, marker: Path) -> None:
    folder = find(site).folder
    harmful = pickle.dumps(Malicious(marker))
    pickle.loads(harmful)
    assert marker.exists()  # it is harmful indeed
    marker.unlink()
    for name in ("model.pkl", "pytorch_model.bin"):
        (folder / name).write_bytes(harmful)
    as_table([find(site)])
    with pytest.raises(BundleError, match=r"'model.pkl' is not in its receipt"):
        check_receipt(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("en-pos", "os:system"),
        ("en-pos", "os.system"),
        ("en-pos", "seqlab_models.fr_pos"),
        ("en-pos", "seqlab_models.en_pos:load"),
        ("en-pos", "seqlab_models.en_pos [x]"),
        ("en-pos", "seqlab_models.en-pos"),
        ("en-pos", "seqlab_models..en_pos"),
        ("en-pos", "../../x"),
    ],
)
def test_an_entry_point_that_lies_is_refused_and_not_followed(
    name: str, value: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(point: importlib.metadata.EntryPoint) -> None:
        raise AssertionError(f"{point} was loaded")

    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", load)
    lie(site, f"[seqlab.models]\n{name} = {value}\n")
    assert refusal(site) == (
        f"en-pos 1.0.0 in {site} is refused, since its entry point lies: {name!r} is {value!r}, "
        "where a model names its folder in seqlab_models; `pip uninstall en-pos`."
    )


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a b", "a/b", "é", "..", "a\x1bb"])
def test_a_name_that_is_none_is_refused(name: str, site: Path) -> None:
    module = name.replace("-", "_")
    lie(site, f"[seqlab.models]\n{name} = seqlab_models.{module}\n")
    (model,) = installed_models([str(site)])
    assert "is refused, since its entry point lies: " in model.problem
    assert model.problem.isprintable()
    assert model.size_bytes == 0
    assert as_table([model]).replace("\n", "").isprintable()
    assert find_installed("en-pos", [str(site)]) is None


def test_a_distribution_offers_its_own_name_only(site: Path) -> None:
    shutil.copytree(site / "seqlab_models" / "en_pos", site / "seqlab_models" / "fr_pos")
    lie(site, "[seqlab.models]\nfr-pos = seqlab_models.fr_pos\n")
    assert refusal(site, "fr-pos") == (
        f"en-pos 1.0.0 in {site} is refused, since its entry point lies: it offers fr-pos, which "
        "only a distribution of that name may; `pip uninstall en-pos`."
    )
    assert find_installed("en-pos", [str(site)]) is None


def test_entry_points_of_other_groups_are_left_alone(site: Path) -> None:
    lie(
        site,
        "[console_scripts]\nen-pos = os:system\n\n[seqlab.models]\nen-pos = seqlab_models.en_pos\n"
        "[seqlab.models.extra]\nx = y\n",
    )
    assert find(site).problem == ""
    lie(site, "[console_scripts]\nen-pos = os:system\n")
    assert installed_models([str(site)]) == []


@pytest.mark.parametrize(
    "text",
    [
        b"[seqlab.models]\nen-pos\n",
        b"[seqlab.models]\nen-pos =\n",
        b"\xff[seqlab.models]\nen-pos = seqlab_models.en_pos\n",
    ],
)
def test_entry_points_that_cannot_be_read_are_named(text: bytes, site: Path) -> None:
    (site / INFORMATION / "entry_points.txt").write_bytes(text)
    assert refusal(site) == (
        f"en-pos 1.0.0 in {site} is damaged: its entry_points.txt cannot be read{AGAIN}"
    )


def test_two_distributions_of_one_name_are_both_named(site: Path, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other", version="1.1.0")
    for path in ([str(site), str(other)], [str(other), str(site)]):
        with pytest.raises(BundleError) as error:
            find_installed("en-pos", path)
        places = sorted([f"en-pos 1.0.0 in {site}", f"en-pos 1.1.0 in {other}"])
        assert str(error.value) == (
            f"en-pos is offered 2 times, by {' and by '.join(places)}: keep one, and remove the "
            "rest with `pip uninstall en-pos`."
        )
        assert [model.version for model in installed_models(path)] in (
            [["1.0.0", "1.1.0"], ["1.1.0", "1.0.0"]]
        )


def test_two_versions_in_one_folder_are_both_named(site: Path) -> None:
    shutil.copytree(site / INFORMATION, site / "en_pos-0.9.dist-info")
    metadata = site / "en_pos-0.9.dist-info" / "METADATA"
    text = metadata.read_text(encoding="utf-8").replace("Version: 1.0.0", "Version: 0.9")
    metadata.write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"by en-pos 0.9 in .* and by en-pos 1.0.0 in "):
        find_installed("en-pos", [str(site)])


def test_a_distribution_that_offers_the_name_of_another_is_named(
    site: Path, tmp_path: Path
) -> None:
    other = make_site(tmp_path / "other", name="evil", version="3.0")
    entry_points = other / "evil-3.0.dist-info" / "entry_points.txt"
    entry_points.write_text("[seqlab.models]\nen-pos = seqlab_models.en_pos\n", encoding="utf-8")
    with pytest.raises(BundleError) as error:
        find_installed("en-pos", [str(site), str(other)])
    assert f"en-pos 1.0.0 in {site}" in str(error.value)
    assert f"evil 3.0 in {other}" in str(error.value)
    assert str(error.value).endswith("with `pip uninstall en-pos` or `pip uninstall evil`.")


def test_what_an_update_has_left_is_not_installed(site: Path) -> None:
    shutil.copytree(site / INFORMATION, site / "~n_pos-1.0.0.dist-info")
    assert find(site).problem == ""
    shutil.rmtree(site / INFORMATION)
    assert installed_models([str(site)]) == []


def test_a_folder_that_is_missing_is_one_sentence(site: Path) -> None:
    shutil.rmtree(site / "seqlab_models")
    assert refusal(site) == (
        f"en-pos 1.0.0 in {site} is half removed: its folder seqlab_models/en_pos is missing{AGAIN}"
    )


@pytest.mark.parametrize(
    "noted", ["{", "[]", "{}", '{"dir_info": 3}', '{"dir_info": {"editable": false}}']
)
def test_an_editable_installation_says_so(noted: str, site: Path) -> None:
    shutil.rmtree(site / "seqlab_models")
    direct_url = site / INFORMATION / "direct_url.json"
    direct_url.write_text(noted, encoding="utf-8")
    assert "is half removed: its folder" in refusal(site)
    direct_url.write_text('{"url": "file:///x", "dir_info": {"editable": true}}', encoding="utf-8")
    assert refusal(site) == (
        f"en-pos 1.0.0 in {site} is installed in editable mode, in which no model can be read: "
        "`pip uninstall en-pos`, and install its wheel."
    )


@pytest.mark.parametrize(
    "text", [None, b"", b"\xff", b"Version: 1.0.0\n", b"Name: \n", b"Name: a; rm -rf x\n"]
)
def test_metadata_without_a_name_are_one_sentence(text: bytes | None, site: Path) -> None:
    metadata = site / INFORMATION / "METADATA"
    metadata.unlink() if text is None else metadata.write_bytes(text)
    message = refusal(site)
    assert message.startswith("a distribution without a name ")
    assert message.endswith(
        f"in {site} is half removed: its METADATA is missing, or gives no name; remove by hand "
        "what is left of it."
    )


@pytest.mark.parametrize("name", ["config.json", "receipt.json"])
def test_a_folder_without_its_files_is_shown_as_broken(name: str, site: Path) -> None:
    (site / "seqlab_models" / "en_pos" / name).unlink()
    assert refusal(site) == (
        f"en-pos 1.0.0 in {site} is damaged: seqlab_models/en_pos/{name} is missing, or no plain "
        f"file{AGAIN}"
    )


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"3", b'{"class": 3}', b"{}", b"\xff", b"[" * 100_000, b"null"]
)
def test_a_configuration_that_names_no_class_is_shown_as_broken(text: bytes, site: Path) -> None:
    (site / "seqlab_models" / "en_pos" / "config.json").write_bytes(text)
    assert refusal(site) == (
        f"en-pos 1.0.0 in {site} is damaged: its config.json does not name its class{AGAIN}"
    )


@posix
@pytest.mark.parametrize("place", ["seqlab_models", "seqlab_models/en_pos"])
def test_a_link_in_the_place_of_the_folder_is_refused(place: str, site: Path) -> None:
    (site / place).rename(site.parent / "elsewhere")
    (site / place).symlink_to(site.parent / "elsewhere")
    assert refusal(site) == (
        f"en-pos 1.0.0 in {site} is refused: its folder seqlab_models/en_pos is a link{AGAIN}"
    )


@posix
@pytest.mark.parametrize("target", ["nowhere", "..", "en_pos"])
def test_a_link_to_nothing_is_refused(target: str, site: Path) -> None:
    shutil.rmtree(site / "seqlab_models" / "en_pos")
    (site / "seqlab_models" / "en_pos").symlink_to(target)
    assert "its folder seqlab_models/en_pos is a link; install its wheel again" in refusal(site)


@posix
@pytest.mark.parametrize("name", ["config.json", "receipt.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_not_read(name: str, kind: str, site: Path) -> None:
    file = site / "seqlab_models" / "en_pos" / name
    file.unlink()
    if kind == "link":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    assert f"seqlab_models/en_pos/{name} is missing, or no plain file" in refusal(site)


def test_a_file_in_the_place_of_the_folder_is_one_sentence(site: Path) -> None:
    shutil.rmtree(site / "seqlab_models" / "en_pos")
    (site / "seqlab_models" / "en_pos").touch()
    assert "config.json is missing, or no plain file" in refusal(site)


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("0.1.0", True),
        ("0.1.9", True),
        ("0.1.5.dev3", True),
        ("0.1.5rc1", True),
        ("0.2.0", False),
        ("0.0.9", False),
        ("1.0", False),
    ],
)
def test_a_model_for_another_seqlab_does_not_fit(
    version: str, fits: bool, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seqlab, "__version__", version)
    model = find(site)  # which is no error yet
    assert model.fits is fits
    expected = (
        f"en-pos 1.0.0 asks for seqlab>=0.1,<0.2, and this is seqlab {version}: install the "
        "version of either that fits the other."
    )
    assert model.misfit == ("" if fits else expected)
    assert (expected in as_table([model])) is not fits


@pytest.mark.parametrize(
    ("requirement", "fits"),
    [
        ("Seqlab>=99", False),
        ("seqlab===99", False),
        ("seqlab", True),
        ("torch>=99", True),
        ('seqlab>=99; python_version < "3"', True),
        ('seqlab>=99; python_version >= "3"', False),
        ('seqlab>=99; extra == "new"', True),
        ("seqlab at least 99", False),
        ("", False),
    ],
)
def test_every_way_to_ask_for_a_seqlab_is_understood(
    requirement: str, fits: bool, site: Path
) -> None:
    metadata = site / INFORMATION / "METADATA"
    text = metadata.read_text(encoding="utf-8")
    assert "Requires-Dist: seqlab>=0.1,<0.2\n" in text
    changed = text.replace("Requires-Dist: seqlab>=0.1,<0.2", f"Requires-Dist: {requirement}")
    metadata.write_text(changed, encoding="utf-8")
    assert find(site).fits is fits


def example(**changes: Any) -> Installed:
    model = Installed(
        name="en-pos",
        version="1.0.0",
        folder=Path("site", "seqlab_models", "en_pos"),
        distribution="en-pos",
        summary="Parts of speech",
        license="CC-BY-SA-4.0",
        size_bytes=4_260_000,
        requires=("seqlab>=0.1,<0.2",),
        site=Path("site"),
        task="tagger",
    )
    return replace(model, **changes)


MODELS = [
    example(),
    example(name="fr-en", version="0.1", size_bytes=24_900_000, license="", summary="", task="x"),
    example(name="a", size_bytes=0, task="", problem="a 1 in site is damaged: do."),
    example(name="b", misfit="b 1 asks for more: do."),
]


def test_the_table_is_sorted_and_says_what_is_wrong_below() -> None:
    assert as_table(MODELS).splitlines() == [
        "name    version     size  licence       task    summary",
        "a       1.0.0          -  CC-BY-SA-4.0  broken  Parts of speech",
        "b       1.0.0     4.3 MB  CC-BY-SA-4.0  tagger  Parts of speech",
        "en-pos  1.0.0     4.3 MB  CC-BY-SA-4.0  tagger  Parts of speech",
        "fr-en   0.1      24.9 MB  -             x       -",
        "",
        "a 1 in site is damaged: do.",
        "b 1 asks for more: do.",
    ]
    assert as_table(MODELS[:1]).count("\n") == 1
    twice = [example(problem="the same."), example(problem="the same.")]
    assert as_table(twice).count("the same.") == 1


def test_a_table_of_nothing_says_how_to_install_a_model() -> None:
    assert as_table([]) == (
        "no models are installed: install one with pip, as in "
        "`pip install en_pos-1.0.0-py3-none-any.whl`."
    )
    assert json.loads(as_json([])) == []


def test_json_holds_every_field() -> None:
    rows = json.loads(as_json(MODELS))
    assert [row["name"] for row in rows] == ["a", "b", "en-pos", "fr-en"]
    assert rows[2] == {
        "name": "en-pos",
        "version": "1.0.0",
        "folder": str(Path("site", "seqlab_models", "en_pos")),
        "distribution": "en-pos",
        "summary": "Parts of speech",
        "license": "CC-BY-SA-4.0",
        "size_bytes": 4_260_000,
        "requires": ["seqlab>=0.1,<0.2"],
        "site": "site",
        "task": "tagger",
        "misfit": "",
        "problem": "",
        "fits": True,
    }
    assert [row["fits"] for row in rows] == [True, False, True, True]


def test_foreign_text_cannot_command_a_terminal(site: Path) -> None:
    metadata = site / INFORMATION / "METADATA"
    text = metadata.read_text(encoding="utf-8")
    for field in ("Summary", "License-Expression", "Version", "Requires-Dist"):
        text = text.replace(f"\n{field}: ", f"\n{field}: \x1b[2J\u202e\x9b ")
    metadata.write_text(text, encoding="utf-8")
    (model,) = installed_models([str(site)])
    shown = as_table([model]) + as_json([model])
    assert shown.replace("\n", "").isprintable()
    assert "[2J" in shown

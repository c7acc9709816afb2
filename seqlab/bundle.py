"""A model as a folder: JSON and safetensors, checked by SHA-256, never a pickle.

``config.json`` (class, arguments, versions, checksums), ``source_vocab.json``,
``target_vocab.json``, ``model.safetensors``, ``metrics.json``, ``recipe.yaml``, ``README.md``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import seqlab
from seqlab.errors import BundleError
from seqlab.networks.base import Network
from seqlab.networks.parts import import_name
from seqlab.storage import Storage, packed, unpacked
from seqlab.subwords import vocabulary_from_dict

if TYPE_CHECKING:
    from seqlab.models.base import SequenceModel

FORMAT = 2  # the newest that is read; 1 has its weights in float32, 2 may have them rounded
_WEIGHTS = "model.safetensors"
_CHECKED = ("source_vocab.json", "target_vocab.json", _WEIGHTS)
_TRUSTED = "seqlab."
# A bundle names the model that can be trained; who only predicts takes its network, which needs no
# training framework.
_NETWORKS = {
    f"seqlab.models.{name.lower()}.{name}": f"seqlab.networks.{name.lower()}.{name}Network"
    for name in ("Tagger", "Classifier", "Translator")
}


def save_bundle(
    model: Network,
    folder: str | Path,
    *,
    metrics: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    card: str | None = None,
    storage: Storage = "float32",
) -> Path:
    """Write a model to a folder, which holds the old or the new one whole at any moment.

    Args:
        model: the model, with its vocabularies.
        folder: where; an existing bundle there is replaced.
        metrics: scores to keep beside it, as plain JSON data.
        recipe: the text of the recipe that made it.
        card: the text of its README.md.
        storage: how its weights are kept (see :mod:`seqlab.storage`).

    Returns:
        the folder.
    """
    from safetensors.torch import save

    folder = Path(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    for left in folder.parent.glob(f".{folder.name}.*.new"):  # by a save that was killed
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        # `save_file` would hide the file from other users, and a full disk behind its own error.
        (new / _WEIGHTS).write_bytes(save(packed(state, storage)))
        (new / "source_vocab.json").write_text(model.source_vocab.to_json(), encoding="utf-8")
        (new / "target_vocab.json").write_text(model.target_vocab.to_json(), encoding="utf-8")
        config = {
            "format": 1 if storage == "float32" else 2,
            "seqlab": seqlab.__version__,
            "class": _name_of(type(model)),
            "arguments": model.config,
            "storage": storage,
            "sha256": {name: _digest(new / name) for name in _CHECKED},
        }
        config["seal"] = _seal(config)
        write_json(new / "config.json", config)
        write_json(new / "metrics.json", dict(metrics or {}))
        for name, text in (("recipe.yaml", recipe), ("README.md", card)):
            if text is not None:
                (new / name).write_text(text, encoding="utf-8")
        _swap(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return folder


def _swap(new: Path, folder: Path) -> None:
    """Put a folder in the place of another; :func:`find_bundle` covers the instant between."""
    old = _retired(folder)
    if folder.exists():  # otherwise a kill has left the old one as the only one
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def _retired(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def find_bundle(path: str | Path) -> Path:
    """Find the bundle that a path means: itself, or the one inside a run folder.

    Args:
        path: a bundle or a run folder.

    Returns:
        the folder of the bundle.

    Raises:
        BundleError: there is none.
    """
    path = Path(path)
    for folder in (path, path / "bundle", _retired(path), _retired(path / "bundle")):
        if (folder / "config.json").is_file():
            return folder
    if path.is_dir():
        raise BundleError(
            f"{path} holds no model: a bundle has a config.json, and a run has one in its folder "
            "`bundle` once its first epoch is over."
        )
    raise BundleError(f"no model at {path}: give a run folder or a bundle.")


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check a bundle's ``config.json``.

    Raises:
        BundleError: it is missing, damaged or of a newer format.
    """
    config = read_json(folder, "config.json")
    if isinstance(config.get("format"), int) and not 1 <= config["format"] <= FORMAT:
        raise BundleError(
            f"{folder} has bundle format {config['format']}, and seqlab {seqlab.__version__} reads "
            f"formats 1 to {FORMAT}: install the seqlab that wrote it "
            f"({config.get('seqlab', 'newer')})."
        )
    for key, kind in (("format", int), ("class", str), ("arguments", dict), ("sha256", dict)):
        if not isinstance(config.get(key), kind):
            raise BundleError(
                f"{folder}/config.json is damaged: {key!r} is missing or no {kind.__name__}; "
                "get the model again."
            )
    return config


def _seal(config: Mapping[str, Any]) -> str:
    """The checksum of a configuration itself: against damage, not against malice."""
    plain = {key: value for key, value in config.items() if key != "seal"}
    text = json.dumps(plain, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _name_of(cls: type[Network]) -> str:
    """Name the class that a bundle is of: of a network the model that trains it."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    return {network: model for model, network in _NETWORKS.items()}.get(name, name)


@overload
def load_bundle(
    path: str | Path, *, trust: bool = False, trainable: Literal[True] = True
) -> SequenceModel: ...


@overload
def load_bundle(path: str | Path, *, trust: bool = False, trainable: Literal[False]) -> Network: ...


def load_bundle(path: str | Path, *, trust: bool = False, trainable: bool = True) -> Network:
    """Build the model of a bundle, in evaluation mode on the CPU.

    Args:
        path: a bundle or a run folder.
        trust: allow classes outside seqlab to be imported, which runs their code.
        trainable: whether a trainer is to train or score it. Otherwise it is its network alone,
            which predicts the same, loads faster, and needs no Lightning.

    Returns:
        the model.

    Raises:
        BundleError: a file is missing, a checksum does not fit, or a class is not trusted.
    """
    from safetensors.torch import load_file

    folder = find_bundle(path)
    config = read_config(folder)
    _check_files(folder, config["sha256"])
    if not trust:
        check_classes(folder, {"class_path": config["class"], **config["arguments"]})
    if config.get("seal") != _seal(config):
        raise BundleError(
            f"{folder} is damaged: config.json does not have the checksum it was saved with; "
            "get the model again."
        )
    source, target = (
        vocabulary_from_dict(read_json(folder, f"{side}_vocab.json"))
        for side in ("source", "target")
    )
    name = config["class"] if trainable else _NETWORKS.get(config["class"], config["class"])
    cls = _class(folder, name)
    try:
        model = cls(source, target, **config["arguments"])
        model.load_state_dict(unpacked(load_file(folder / _WEIGHTS)))
    except (TypeError, RuntimeError) as error:
        raise BundleError(
            f"{folder}: the weights or arguments do not fit {config['class']} "
            f"({str(error).splitlines()[0]}); the model was written by seqlab "
            f"{config.get('seqlab', 'unknown')}: install that version."
        ) from error
    return model.eval()


def _class(folder: Path, name: str) -> type[Network]:
    try:
        cls = import_name(name)
    except ImportError as error:
        raise BundleError(
            f"{folder} asks for the class {name}, which cannot be imported ({error}); install the "
            "package that it belongs to, or another version of seqlab."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Network)):
        raise BundleError(f"{folder} asks for {name}, which is no model: get the model again.")
    return cls


def check_classes(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a configuration that names classes outside seqlab, before any is imported.

    Args:
        folder: where it comes from, for the message.
        config: any nested data; what stands under ``class_path`` is a class.

    Raises:
        BundleError: it names one, at any depth.
    """
    stack: list[Any] = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            name = str(value.get("class_path", _TRUSTED))
            if not name.startswith(_TRUSTED):
                raise BundleError(
                    f"{folder} asks for the class {name}, which is not part of seqlab: if you "
                    "trust whoever made it, add --trust (in Python trust=True)."
                )
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    for name in _CHECKED:
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{folder} is damaged: {name} is missing; get the model again.")
        if _digest(file) != digests.get(name):
            raise BundleError(
                f"{folder} is damaged: {name} does not have the checksum it was saved with; "
                "get the model again."
            )


def _digest(file: Path) -> str:
    total = hashlib.sha256()
    with open(file, "rb") as data:
        while piece := data.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object out of a bundle.

    Raises:
        BundleError: the file is missing or holds none.
    """
    try:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder} is damaged: {name} is missing; get the model again."
        ) from error
    except ValueError as error:
        raise BundleError(
            f"{folder} is damaged: {name} cannot be read ({error}); get the model again."
        ) from error
    if not isinstance(data, dict):
        raise BundleError(f"{folder} is damaged: {name} holds no JSON object; get the model again.")
    return data


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as JSON, in one step that cannot leave half a file."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, file)

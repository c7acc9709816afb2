"""``load``: from the name or the path of a model to a pipeline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqlab import runs
from seqlab.bundle import find_bundle, load_bundle
from seqlab.errors import BundleError, RecipeError, nearest
from seqlab.hub import download, is_hub_id
from seqlab.installed import Installed, find_installed, installed_models
from seqlab.networks.base import Network, kind_of
from seqlab.pipeline import Pipeline, is_served, translates
from seqlab.receipts import check_receipt
from seqlab.recipe import find_recipe

if TYPE_CHECKING:
    from seqlab.translation_pipeline import TranslationPipeline

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")  # of the kind that models have


def load(
    model: str | Path, *, device: str = "auto", trust: bool = False
) -> Pipeline[Any] | TranslationPipeline:
    """Load a model, ready to be called on text.

    Args:
        model: a run folder, a bundle, the name of an installed model, a recipe, which means its
            newest run here, or ``owner/name@revision`` of the Hugging Face hub.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        trust: allow the model to name classes outside seqlab, which runs their code.

    Returns:
        a pipeline; call it on a text, a list of texts, or, unless it translates, a list of lists of
        words.

    Raises:
        BundleError: there is no model there, or it is damaged or not trusted.
        UsageError: the recipe was never run here.
    """
    loaded = load_bundle(model_folder(model), trust=trust, trainable=False)
    if not (translates(loaded) or is_served(loaded)):
        raise BundleError(f"{model} is a {kind_of(loaded)}, which no pipeline serves yet.")
    return serve(loaded, device=device)


def serve(model: Network, *, device: str = "auto") -> Pipeline[Any] | TranslationPipeline:
    """Put a model behind the pipeline of its task.

    Args:
        model: a tagger, a classifier or a translator, as :func:`seqlab.bundle.load_bundle` gives.
        device: see :func:`load`.

    Raises:
        TypeError: it is none of them.
    """
    network: Any = model
    if translates(model):
        from seqlab.translation_pipeline import TranslationPipeline  # here, for a fast start

        return TranslationPipeline(network, device=device)
    return Pipeline(network, device=device)


def model_folder(model: str | Path) -> Path:
    """Find the bundle that a path, an installed model, a recipe or a name on the hub means.

    Raises:
        BundleError: it is none of them, the run has no model yet, or what is installed is not what
            its receipt says.
        UsageError: the recipe was never run here.
    """
    path = Path(model)
    try:
        return find_bundle(path)  # which also finds one that a kill left half replaced
    except BundleError:
        if path.is_dir():
            raise
    if path.name == "latest" and path.is_file():  # the pointer of a machine without links
        return find_bundle(runs.latest_run(path.parent.name, path.parent.parent))
    if path.name == str(model) and (installed := find_installed(path.name)) is not None:
        return _checked(installed)
    try:
        name = find_recipe(str(model)).stem
    except RecipeError as error:
        if is_hub_id(str(model)) and not path.parent.exists():  # else it is a misspelt path
            return download(str(model))
        raise BundleError(_nothing(str(model))) from error
    return find_bundle(runs.latest_run(name))


def _checked(installed: Installed) -> Path:
    """Return the folder of an installed model that fits this seqlab and its own receipt."""
    if not installed.fits:
        raise BundleError(installed.misfit)
    receipt = check_receipt(installed.folder)
    if (receipt["name"], receipt["version"]) != (installed.name, installed.version):
        raise BundleError(
            f"{installed.folder} is installed as {installed.name} {installed.version}, but its "
            f"receipt is of {receipt['name']} {receipt['version']}: install it again."
        )
    return installed.folder


def _nothing(model: str) -> str:
    """Say that a name is no model, and what there is."""
    known = [one.name for one in installed_models()]
    pip = f"; `pip install {model}` gets one that is published" if _NAME.fullmatch(model) else ""
    return (
        f"no model {model!r}: give a run folder (runs/NAME/latest), a bundle, the recipe of a run, "
        f"owner/name of the hub, or an installed model (there is {', '.join(known) or 'none'}"
        f"{pip}).{nearest(model, known)}"
    )

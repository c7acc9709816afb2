"""``load``: from the name or the path of a model to a pipeline."""

from __future__ import annotations

from pathlib import Path

from seqlab.bundle import find_bundle, load_bundle
from seqlab.errors import BundleError
from seqlab.models.tagger import Tagger
from seqlab.pipeline import Pipeline


def load(model: str | Path, *, device: str = "auto", trust: bool = False) -> Pipeline:
    """Load a model, ready to be called on text.

    Args:
        model: a run folder or a bundle.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        trust: allow the model to name classes outside seqlab, which runs their code.

    Returns:
        a pipeline; call it on a text, a list of texts, or a list of lists of words.

    Raises:
        BundleError: there is no model there, or it is damaged or not trusted.
    """
    if not Path(model).exists():
        raise BundleError(f"no model at {model}: give a run folder (runs/NAME/latest) or a bundle.")
    loaded = load_bundle(find_bundle(model), trust=trust)
    if not isinstance(loaded, Tagger):
        raise BundleError(f"{model} is a {type(loaded).__name__}, which no pipeline serves yet.")
    return Pipeline(loaded, device=device)

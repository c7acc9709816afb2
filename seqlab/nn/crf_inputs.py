"""What goes into a CRF, checked and brought into one form: left-aligned and wide enough."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn, Protocol

import torch
from torch import Tensor

from seqlab.nn.crf_kernels import real_positions

ANY_TAG = -1


class TagGrammar(Protocol):
    """Which tag may open a sentence, follow another one, and close a sentence."""

    @property
    def start(self) -> Sequence[bool]:
        """Whether each tag may come first."""

    @property
    def transitions(self) -> Sequence[Sequence[bool]]:
        """``transitions[previous][next]``: whether the next tag may follow the previous one."""

    @property
    def end(self) -> Sequence[bool]:
        """Whether each tag may come last."""


class Forbidden(NamedTuple):
    """What a grammar forbids: True where a tag or a pair of tags is illegal."""

    start: Tensor  # (tag,)
    transitions: Tensor  # (previous tag, next tag)
    end: Tensor  # (tag,)

    @classmethod
    def by(cls, grammar: TagGrammar | None, num_tags: int) -> Forbidden:
        """Read a grammar; without one nothing is forbidden.

        Args:
            grammar: what is allowed.
            num_tags: number of tags it must be made for.

        Raises:
            ValueError: when it is made for another number of tags.
        """
        shapes = ((num_tags,), (num_tags, num_tags), (num_tags,))
        if grammar is None:
            return cls(*(torch.zeros(shape, dtype=torch.bool) for shape in shapes))
        allowed = (grammar.start, grammar.transitions, grammar.end)
        masks = [~torch.tensor(part, dtype=torch.bool) for part in allowed]
        if any(mask.shape != shape for mask, shape in zip(masks, shapes, strict=True)):
            raise ValueError(
                f"The grammar is made for {len(grammar.start)} tags, the CRF has {num_tags}."
            )
        return cls(*masks)


class Sentences(NamedTuple):
    """Emissions with the real positions of each sentence moved to the left."""

    emissions: Tensor  # (batch, time, tag) float32 or float64
    lengths: Tensor  # (batch,)
    order: Tensor | None  # (batch, time) source of each place; None where nothing moved

    @classmethod
    def of(cls, emissions: Tensor, mask: Tensor | None) -> Sentences:
        """Widen half precision and take masked positions out of the sentences.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real positions, in any pattern.

        Raises:
            ValueError: when the shapes do not fit.
        """
        emissions = emissions.to(torch.promote_types(emissions.dtype, torch.float32))
        batch, time, _ = emissions.shape
        if mask is None:
            return cls(emissions, torch.full((batch,), time, device=emissions.device), None)
        mask = mask.bool()
        lengths = mask.sum(1)
        if mask.numel() == 0 or bool(mask.all()):
            return cls(emissions, lengths, None)
        if not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            return cls(emissions, lengths, None)
        order = (~mask).byte().argsort(dim=1, stable=True)  # (batch, time)
        rows = torch.arange(batch, device=order.device).unsqueeze(1)  # (batch, 1)
        return cls(emissions[rows, order], lengths, order)

    def aligned(self, values: Tensor) -> Tensor:
        """Move ``(batch, time)`` values as the emissions were moved."""
        return values if self.order is None else values.gather(1, self.order)

    def restored(self, values: Tensor) -> Tensor:
        """Move ``(batch, time)`` or ``(batch, time, tag)`` values back where they came from."""
        if self.order is None:
            return values
        order = self.order if values.dim() == 2 else self.order.unsqueeze(-1).expand_as(values)
        return torch.empty_like(values).scatter_(1, order, values)

    def position(self, row: int, place: int) -> int:
        """The caller's position of a left-aligned place."""
        return place if self.order is None else int(self.order[row, place])


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Run with products in full precision: probabilities rounded to 8 bits do not sum to one.

    Switches autocast off, and TF32 and bfloat16 products of float32 numbers where they are on.
    """
    mkldnn = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    backends = (mkldnn, torch.backends.cuda.matmul)
    lowered = [(b, b.fp32_precision) for b in backends if b.fp32_precision in ("tf32", "bf16")]
    try:
        for backend, _ in lowered:
            backend.fp32_precision = "ieee"
        if torch.is_autocast_enabled(device.type):
            with torch.autocast(device.type, enabled=False):
                yield
        else:
            yield
    finally:
        for backend, precision in lowered:
            backend.fp32_precision = precision


def checked_tags(tags: Tensor, sentences: Sentences) -> tuple[Tensor, bool]:
    """Move tags as the emissions were moved; padding becomes 0.

    Args:
        tags: ``(batch, time)`` ids, -1 for any tag.
        sentences: the emissions they belong to.

    Returns:
        ``(batch, time)`` int64, and whether there is a -1 among them.

    Raises:
        ValueError: on an id that is no tag, at a real position.
    """
    batch, time, num_tags = sentences.emissions.shape
    if tags.shape != (batch, time):
        raise ValueError(f"Tags must have the shape {(batch, time)}, not {tuple(tags.shape)}.")
    tags = sentences.aligned(tags.long())
    tags = tags.masked_fill(~real_positions(sentences.lengths, time).t(), 0)
    if tags.numel() == 0:
        return tags, False
    least, greatest = (int(bound) for bound in tags.aminmax())
    if least < ANY_TAG or greatest >= num_tags:
        wrong = (tags < ANY_TAG) | (tags >= num_tags)
        row, place = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"Row {row} has the tag id {int(tags[row, place])} at position "
            f"{sentences.position(row, place)}: ids run from 0 to {num_tags - 1}, "
            f"and {ANY_TAG} stands for any tag."
        )
    return tags, least == ANY_TAG


def refuse_illegal(
    tags: Tensor, sentences: Sentences, forbidden: Forbidden, suspects: Tensor
) -> None:
    """Raise where tags break the grammar.

    Args:
        tags: ``(batch, time)`` checked tags.
        sentences: the emissions they belong to.
        forbidden: what the grammar forbids.
        suspects: ``(batch,)`` sentences of probability 0 or NaN; their emissions may be why.

    Raises:
        ValueError: names the row, the position and the tags.
    """
    for row in suspects.nonzero().squeeze(1).tolist():
        ids = tags[row, : int(sentences.lengths[row])].tolist()

        def refuse(place: int, what: str, row: int = row) -> NoReturn:
            position = sentences.position(row, place)
            raise ValueError(f"Row {row} breaks the grammar at position {position}: {what}.")

        if ids[0] != ANY_TAG and forbidden.start[ids[0]]:
            refuse(0, f"tag {ids[0]} may not open a sentence")
        for place, (last, tag) in enumerate(zip(ids[:-1], ids[1:], strict=True), start=1):
            if ANY_TAG not in (last, tag) and forbidden.transitions[last, tag]:
                refuse(place, f"tag {tag} may not follow tag {last}")
        if ids[-1] != ANY_TAG and forbidden.end[ids[-1]]:
            refuse(len(ids) - 1, f"tag {ids[-1]} may not close a sentence")
        if ANY_TAG in ids and bool(sentences.emissions[row, : len(ids)].isfinite().all()):
            raise ValueError(f"Row {row} breaks the grammar: no sequence of tags fits its tags.")


def check_totals(totals: Tensor, possible: bool = True) -> None:
    """Refuse sentences without a distribution.

    Args:
        totals: ``(batch,)`` log partitions or best scores.
        possible: whether a sentence with no possible sequence, -inf, is refused as well.

    Raises:
        ValueError: names the first such row.
    """
    unsound = totals.isnan() | (totals == torch.inf)
    if possible:
        unsound |= totals == -torch.inf
    if not bool(unsound.any()):
        return
    row = int(unsound.nonzero()[0])
    if not bool(totals[row] == -torch.inf):
        raise ValueError(
            f"Row {row} cannot be scored: its emissions or the transitions hold NaN or +inf."
        )
    raise ValueError(
        f"Row {row} has no possible tags: the grammar, or emissions of -inf, forbid every sequence."
    )


def check_queries(
    lengths: Sequence[int],
    num_tags: int,
    rows: Sequence[int],
    starts: Sequence[int],
    tags: Sequence[Sequence[int]],
) -> None:
    """Refuse queries about tokens or tags that are not there.

    Args:
        lengths: number of tokens of each sentence.
        num_tags: number of tags.
        rows: sentence of each query.
        starts: first token of each query.
        tags: tag ids of each query.

    Raises:
        ValueError: names the first such query.
    """
    if not len(rows) == len(starts) == len(tags):
        raise ValueError(
            f"Each query needs a row, a start and tags; there are {len(rows)} rows, "
            f"{len(starts)} starts and {len(tags)} paths of tags."
        )
    for query, (row, start, path) in enumerate(zip(rows, starts, tags, strict=True)):
        if not 0 <= row < len(lengths):
            raise ValueError(f"Query {query} asks for row {row} of {len(lengths)}.")
        if start < 0 or start + len(path) > lengths[row]:
            raise ValueError(
                f"Query {query} asks for {len(path)} tokens from token {start} on, "
                f"but row {row} has {lengths[row]}."
            )
        if any(not 0 <= tag < num_tags for tag in path):
            raise ValueError(f"Query {query} has a tag id outside 0 to {num_tags - 1}.")

"""Why a tagger chose a tag: exact parts of the score of the path that it chose.

The score of a path ``y`` is the sum of the emissions ``e[t, y[t]]`` and of the transitions
``a[y[t - 1], y[t]]``, with the scores of beginning and ending at its borders; the tagger chooses
the legal path with the greatest score. Replace one tag of that path by another and the score
changes in three places only: the emission, and the transitions into and out of the tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqlab.nn.crf import CRF


@dataclass(frozen=True)
class Decision:
    """Why a token got its tag. Scores are in nats, as the CRF adds them up.

    Args:
        tag: the tag on the chosen path.
        probability: of the tag at this token, over all legal paths, 0 to 1.
        emission: what the token itself says for the tag.
        transition_in: what the tag before says for it; for the first token, the score of beginning
            with it.
        transition_out: what it says for the tag after; for the last token, the score of ending.
        rival: the tag that comes closest when this token alone gets another one and its neighbours
            keep theirs; None where no other tag is legal between them.
        margin: how much the score of the path falls when the rival replaces the tag here alone;
            not below 0 where the tagger takes the best path. None without a rival.
        margin_emission: the part of the margin that the emissions make.
        margin_transition: the part that the transitions make; the two add up to the margin.
        alternative: the most probable other tag, whatever it does to the neighbours; None where the
            model has one tag only.
        alternative_probability: its probability.
    """

    tag: str
    probability: float
    emission: float
    transition_in: float
    transition_out: float
    rival: str | None
    margin: float | None
    margin_emission: float | None
    margin_transition: float | None
    alternative: str | None
    alternative_probability: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON data."""
        return asdict(self)


class Parts(NamedTuple):
    """What every tag would add to the score of a path at every token, float64."""

    emission: Tensor  # (time, tag)
    into: Tensor  # (time, tag), from the tag that the path has before
    out: Tensor  # (time, tag), to the tag that the path has after

    @property
    def transition(self) -> Tensor:
        """Both transitions together."""
        return self.into + self.out


def parts_of(crf: CRF, emissions: Tensor, path: Tensor) -> Parts:
    """Take the score of a path and of its neighbours apart.

    Args:
        crf: the CRF, also one that has learnt nothing but obeys a grammar.
        emissions: ``(time, tag)``.
        path: ``(time,)`` ids of tags.

    Returns:
        for every token and tag, what the tag adds at this place of the path; ``-inf`` where the
        grammar forbids it.
    """
    start, step, end = (
        scores.detach().double().masked_fill(forbidden, -torch.inf)
        for scores, forbidden in (
            (crf.start_transitions, crf.forbidden_start),
            (crf.transitions, crf.forbidden_transitions),
            (crf.end_transitions, crf.forbidden_end),
        )
    )
    into = torch.cat([start.unsqueeze(0), step[path[:-1]]])  # (time, tag)
    out = torch.cat([step.t()[path[1:]], end.unsqueeze(0)])  # (time, tag)
    return Parts(emissions.double(), into, out)


@torch.no_grad()
def decisions_of(
    crf: CRF, emissions: Tensor, tags: Sequence[str], names: Sequence[str], shown: range
) -> list[Decision]:
    """Say for some tokens of a sentence why they got their tags.

    Args:
        crf: the CRF of the tagger.
        emissions: ``(time, tag)``, of the whole sentence.
        tags: the chosen tag of every token of the sentence.
        names: the tag of every id.
        shown: the positions to speak of.

    Returns:
        one decision for each position.
    """
    ids = {name: i for i, name in enumerate(names)}
    path = torch.tensor([ids[tag] for tag in tags], device=emissions.device)
    parts = parts_of(crf, emissions, path)
    mask = torch.ones(1, len(tags), dtype=torch.bool, device=emissions.device)
    chances = crf.marginals(emissions.unsqueeze(0), mask)[0].double()  # (time, tag)
    here = path.unsqueeze(1)  # (time, 1)
    total = (parts.emission + parts.transition).scatter(1, here, -torch.inf)
    rivals = total.argmax(1)
    others = chances.scatter(1, here, -torch.inf).argmax(1)
    found = []
    for t in shown:
        chosen, rival, other = int(path[t]), int(rivals[t]), int(others[t])
        value, by_neighbours = parts.emission[t].tolist(), parts.transition[t].tolist()
        rivalled = bool(total[t, rival] > -torch.inf)
        by_emission = value[chosen] - value[rival]
        by_transition = by_neighbours[chosen] - by_neighbours[rival]
        several = len(names) > 1
        found.append(
            Decision(
                tag=tags[t],
                probability=float(chances[t, chosen]),
                emission=value[chosen],
                transition_in=float(parts.into[t, chosen]),
                transition_out=float(parts.out[t, chosen]),
                rival=names[rival] if rivalled else None,
                margin=by_emission + by_transition if rivalled else None,
                margin_emission=by_emission if rivalled else None,
                margin_transition=by_transition if rivalled else None,
                alternative=names[other] if several else None,
                alternative_probability=float(chances[t, other]) if several else None,
            )
        )
    return found

"""How sure a model is of what it prints: exact probabilities of tags and of whole spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from seqlab.nn.crf import CRF
from seqlab.tags import Span, split_tag
from seqlab.vocabulary import Vocabulary

_QUERY_TOKENS = 1 << 22  # a table of spans, padded to the longest, may hold so many tokens
_PLACES = {"S": "B", "U": "B", "E": "I", "L": "I"}
_CLOSED_SCHEMES = ("bioes", "bilou")  # the tags of a span say where it ends


class _Query(NamedTuple):
    """One path of tags whose probability goes, with a sign, into that of a span."""

    span: int
    sign: float
    row: int
    start: int
    path: list[int]


class Confidence:
    """Probabilities of tags and spans under the distribution of a model's CRF.

    A tag is what the corpus writes: where the model tells single and last tokens of a span apart
    (``S``, ``E``) and the corpus does not, they are added up with ``B`` and ``I``.

    Args:
        vocab: the tags of the model, in ``bioes``, ``bilou``, ``iob2`` or ``none``.
    """

    def __init__(self, vocab: Vocabulary) -> None:
        self._ids = {tag: vocab.id(tag) for tag in vocab.tokens}
        self._closed = vocab.scheme in _CLOSED_SCHEMES
        # The corpus may tell less apart than the model: B and S are both written B in IOB2.
        self._merge = self._closed and vocab.written in ("iob1", "iob2")
        groups = dict.fromkeys(self._group(tag) for tag in vocab.tokens)
        self._columns = {group: column for column, group in enumerate(groups)}
        self._column_of: dict[str, int] = {}  # by tag, as they come
        # One more column, of zeros, is for repaired tags that the model itself can never give.
        self._members = torch.zeros(len(vocab), len(groups) + 1)  # (tag, group)
        for tag, tag_id in self._ids.items():
            self._members[tag_id, self._columns[self._group(tag)]] = 1.0

    def _group(self, tag: str) -> str:
        if not self._merge:
            return tag
        prefix, label = split_tag(tag)
        return f"{_PLACES.get(prefix, prefix)}-{label}"

    def _column(self, tag: str) -> int:
        """Where the probability of a tag stands in the sums by group."""
        column = self._column_of.get(tag)
        if column is None:
            column = self._columns.get(self._group(tag), len(self._columns))
            self._column_of[tag] = column
        return column

    def of_tokens(self, marginals: Tensor, decoded: Sequence[Sequence[str]]) -> list[list[float]]:
        """Probability of the tag of every token.

        Args:
            marginals: ``(token, tag)``, all sentences end to end.
            decoded: the tags of each sentence, in the model's scheme.

        Returns:
            for each sentence one number a token.
        """
        by_group = marginals @ self._members.to(marginals)  # (token, group)
        columns = [self._column(tag) for tags in decoded for tag in tags]
        index = torch.tensor(columns, device=marginals.device).unsqueeze(1)  # (token, 1)
        flat = by_group.gather(1, index).squeeze(1).clamp(0.0, 1.0).tolist()
        ends = list(accumulate(map(len, decoded)))
        return [flat[end - len(tags) : end] for tags, end in zip(decoded, ends, strict=True)]

    def of_spans(
        self,
        crf: CRF,
        emissions: Tensor,
        mask: Tensor,
        decoded: Sequence[Sequence[str]],
        found: Sequence[Sequence[Span]],
    ) -> list[list[float]]:
        """Probability that exactly these spans, with these labels, are there.

        The path of a span fixes its borders where the last tag is marked. In IOB2 it may go on, so
        what goes on is taken off: P(B I) - P(B I I).

        Args:
            crf: the distribution.
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)``.
            decoded: the tags of each sentence, in the model's scheme.
            found: the spans of each sentence.

        Returns:
            for each sentence one number a span.
        """
        ends = list(accumulate(map(len, found)))
        queries: list[_Query] = []
        for row, (tags, spans) in enumerate(zip(decoded, found, strict=True)):
            for number, span in enumerate(spans, ends[row] - len(spans)):
                path = [self._ids.get(tag, -1) for tag in tags[span.start : span.end]]
                if -1 in path:  # repaired to a tag that the model never gives
                    continue
                queries.append(_Query(number, 1.0, row, span.start, path))
                on = self._ids.get(f"I-{span.label}")
                if not self._closed and on is not None and span.end < len(tags):
                    queries.append(_Query(number, -1.0, row, span.start, [*path, on]))
        totals = [0.0] * sum(map(len, found))
        for some in _grouped(queries):
            _, _, rows, starts, paths = zip(*some, strict=True)
            values = crf.path_marginals(emissions, mask, rows, starts, paths).tolist()
            for query, value in zip(some, values, strict=True):
                totals[query.span] += query.sign * value
        flat = [min(1.0, max(0.0, total)) for total in totals]
        return [flat[end - len(spans) : end] for spans, end in zip(found, ends, strict=True)]


def _grouped(queries: Sequence[_Query]) -> Iterator[Sequence[_Query]]:
    """All queries at once, or by length where one very long span would make the table too large."""
    longest = max((len(query.path) for query in queries), default=0)
    if not queries or len(queries) * longest <= _QUERY_TOKENS:
        yield from [queries] if queries else []
        return
    by_size: dict[int, list[_Query]] = {}
    for query in queries:
        by_size.setdefault(len(query.path).bit_length(), []).append(query)
    yield from by_size.values()

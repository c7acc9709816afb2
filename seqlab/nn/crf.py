"""A linear-chain conditional random field whose every answer obeys the same grammar.

The interface of pytorch-crf's ``torchcrf.CRF``, with value and exact gradient from one pass, a
grammar that makes illegal sequences impossible, partial labels, and the whole distribution:
marginals, n best sequences, probabilities of spans, entropy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqlab.nn import crf_answers as answers
from seqlab.nn import crf_inputs as inputs
from seqlab.nn import crf_kernels as kernels
from seqlab.nn import crf_search as search
from seqlab.nn.crf_inputs import Forbidden, Sentences, TagGrammar, full_precision
from seqlab.nn.crf_kernels import Posterior, Scores
from seqlab.nn.crf_likelihood import log_likelihood, log_partition
from seqlab.nn.kernels import chosen
from seqlab.nn.kernels import crf_native as native

_REDUCTIONS = ("none", "sum", "mean", "token_mean")


class CRF(nn.Module):
    """Linear-chain conditional random field (Lafferty, McCallum and Pereira, 2001).

    Drop-in for pytorch-crf's class: the same arguments, parameter names, ``forward`` and
    ``decode``. Computes in float32, also under autocast; float64 emissions in float64. Masks may
    have any pattern: hidden positions, wherever they are, are taken out of the sentence, and a
    sentence without any token has probability 1 and no tags.

    Args:
        num_tags: number of tags, at least 1.
        batch_first: whether tensors are ``(batch, time, ...)``; otherwise ``(time, batch, ...)``.
        grammar: what may open, follow and close; illegal sequences get probability 0 everywhere.
            Without one everything is legal.
        learn: whether transition scores are learned; otherwise they are 0, and only the grammar
            ties the tags of a sentence together.

    Example:
        >>> crf = CRF(2, batch_first=True, learn=False)
        >>> crf.decode(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]))
        [[1, 0]]
    """

    start_transitions: Tensor
    transitions: Tensor
    end_transitions: Tensor
    forbidden_start: Tensor
    forbidden_transitions: Tensor
    forbidden_end: Tensor

    def __init__(
        self,
        num_tags: int,
        batch_first: bool = False,
        grammar: TagGrammar | None = None,
        learn: bool = True,
    ) -> None:
        super().__init__()
        if num_tags < 1:
            raise ValueError(f"num_tags must be at least 1, not {num_tags}.")
        self.num_tags = num_tags
        self.batch_first = batch_first
        self.learn = learn
        self.constrained = grammar is not None
        shapes = {
            "start_transitions": (num_tags,),
            "end_transitions": (num_tags,),
            "transitions": (num_tags, num_tags),
        }
        for name, shape in shapes.items():
            if learn:
                self.register_parameter(name, nn.Parameter(torch.empty(shape)))
            else:
                self.register_buffer(name, torch.zeros(shape), persistent=False)
        for name, mask in Forbidden.by(grammar, num_tags)._asdict().items():
            self.register_buffer(f"forbidden_{name}", mask, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the learned scores from uniform(-0.1, 0.1)."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def extra_repr(self) -> str:
        """Say what the printed module is made of."""
        return f"{self.num_tags}, constrained={self.constrained}, learn={self.learn}"

    def forward(
        self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: str = "sum"
    ) -> Tensor:
        """Log-likelihood of tag sequences; its negative is the loss.

        A tag of -1 at a real token stands for any tag: the result is then the log of the summed
        probability of all sequences that agree with the known tags (Tsuboi et al., 2008).

        Args:
            emissions: ``(batch, time, tag)``. NaN and ``+inf`` make their sentence's result NaN;
                ``-inf`` makes a tag impossible.
            tags: ``(batch, time)`` ids; padding may hold anything.
            mask: ``(batch, time)`` True at real tokens; without it all are real.
            reduction: ``none``, ``sum``, ``mean`` (over sentences) or ``token_mean`` (the sum over
                the number of real tokens).

        Returns:
            Nats: ``(batch,)`` for ``none``, else a scalar.

        Raises:
            ValueError: on shapes that do not fit, unknown tags, and tags that break the grammar.
        """
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(_REDUCTIONS)}: {reduction!r}.")
        given = self._for_native(emissions, mask)
        if given:
            value = native.log_likelihood(*given, self._batch_first(tags), reduction)
            if value is not None:
                return value
        with full_precision(emissions.device):
            sentences, scores = self._prepared(emissions, mask)
            tags, partial = inputs.checked_tags(self._batch_first(tags), sentences)
            values = log_likelihood(
                sentences.emissions, sentences.lengths, scores, tags, partial
            )  # (batch,)
            if self.constrained and not bool((values > -torch.inf).all()):
                forbidden = Forbidden(
                    self.forbidden_start, self.forbidden_transitions, self.forbidden_end
                )
                inputs.refuse_illegal(tags, sentences, forbidden, ~(values > -torch.inf))
        if reduction == "none":
            return values
        if reduction == "mean":
            return values.sum() / max(1, len(values))
        if reduction == "token_mean":
            return values.sum() / sentences.lengths.sum().clamp(min=1)
        return values.sum()

    def log_partition(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log of the summed exponential scores of all legal sequences; differentiable.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real tokens.

        Returns:
            ``(batch,)``; ``-inf`` where no sequence is possible.
        """
        given = self._for_native(emissions, mask)
        if given and (total := native.log_partition(*given)) is not None:
            return total
        with full_precision(emissions.device):
            sentences, scores = self._prepared(emissions, mask)
            return log_partition(sentences.emissions, sentences.lengths, scores)

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        """Most probable legal tag sequences, as lists.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real tokens.

        Returns:
            For each sentence the tag ids of its real tokens.

        Raises:
            ValueError: as in ``best``.
        """
        given = self._for_native(emissions, mask)
        if given and (found := native.decode(*given)) is not None:
            return found
        tags, _, sentences = self._best(emissions, mask)
        lengths = sentences.lengths.tolist()
        return [row[:length] for row, length in zip(tags.tolist(), lengths, strict=True)]

    def best(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Most probable legal tag sequences, as tensors.

        Of equally probable sequences the one with the lowest ids is taken, compared from the last
        token back, whatever else is in the batch.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real tokens.

        Returns:
            Tags in the shape of the mask, int64, -1 where masked; and scores ``(batch,)``: the
            probability of a sequence is ``exp(score - log_partition)``.

        Raises:
            ValueError: on NaN or ``+inf`` emissions, and where no sequence is possible.
        """
        given = self._for_native(emissions, mask)
        if given and (found := native.best(*given)) is not None:
            return self._batch_first(found[0]), found[1]
        tags, score, sentences = self._best(emissions, mask)
        return self._batch_first(sentences.restored(tags)), score

    @torch.no_grad()
    def n_best(
        self, emissions: Tensor, mask: Tensor | None = None, n: int = 1
    ) -> list[list[tuple[list[int], float]]]:
        """The n most probable legal sequences with their exact probabilities.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real tokens.
            n: number of sequences, at least 1.

        Returns:
            For each sentence ``(tag ids, probability)``, most probable first; fewer than n where
            fewer are possible.

        Raises:
            ValueError: on n below 1, and on NaN or ``+inf`` emissions.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}.")
        with full_precision(emissions.device):
            sentences, scores = self._prepared(emissions, mask)
            posterior = kernels.forward_backward(sentences.emissions, sentences.lengths, scores)
            inputs.check_totals(posterior.log_partition, possible=False)
            paths, found = search.n_best(sentences.emissions, sentences.lengths, scores, n)
            chances = answers.chances(posterior, paths, sentences.lengths, scores)  # (batch, n)
        columns = (paths, chances, sentences.lengths, found)
        return [
            [
                (path[:length], chance)
                for path, chance in zip(rows[:count], row[:count], strict=True)
            ]
            for rows, row, length, count in zip(*(c.tolist() for c in columns), strict=True)
        ]

    @torch.no_grad()
    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Probability of each tag at each token, over all legal sequences.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real tokens.

        Returns:
            Shaped as the emissions; they sum to 1 at each real token and are 0 where masked.

        Raises:
            ValueError: on NaN or ``+inf`` emissions, and where no sequence is possible.
        """
        given = self._for_native(emissions, mask)
        if given and (chances := native.marginals(*given)) is not None:
            return self._batch_first(chances)
        sentences, posterior = self._posterior(emissions, mask)
        return self._batch_first(sentences.restored(posterior.marginals.transpose(0, 1)))

    @torch.no_grad()
    def path_marginals(
        self,
        emissions: Tensor,
        mask: Tensor | None,
        rows: Sequence[int],
        starts: Sequence[int],
        tags: Sequence[Sequence[int]],
    ) -> Tensor:
        """Probability that sentences carry given tags at given tokens, whatever surrounds them.

        With the tags of an entity this is the exact confidence in it (Culotta and McCallum, 2004),
        unlike a mean of token marginals.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real tokens.
            rows: sentence of each query.
            starts: first token of each query, counted among the sentence's real tokens.
            tags: tag ids of each query, one for each token from there on.

        Returns:
            ``(query,)`` probabilities.

        Raises:
            ValueError: on queries that leave their sentence, and as in ``marginals``.
        """
        given = self._for_native(emissions, mask)
        if given:
            lengths = native.lengths(*given[:2])
            inputs.check_queries(lengths, self.num_tags, rows, starts, tags)
            if (chances := native.path_marginals(*given, rows, starts, tags)) is not None:
                return chances
        sentences, posterior = self._posterior(emissions, mask)
        inputs.check_queries(sentences.lengths.tolist(), self.num_tags, rows, starts, tags)
        return answers.path_probabilities(posterior, rows, starts, tags)

    @torch.no_grad()
    def entropy(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Entropy of the distribution over legal sequences: how undecided the model is.

        Args:
            emissions: ``(batch, time, tag)``.
            mask: ``(batch, time)`` True at real tokens.

        Returns:
            ``(batch,)`` nats; 0 where only one sequence is possible.

        Raises:
            ValueError: on NaN or ``+inf`` emissions, and where no sequence is possible.
        """
        with full_precision(emissions.device):
            sentences, scores = self._prepared(emissions, mask)
            nats, totals = answers.entropy(sentences.emissions, sentences.lengths, scores)
        inputs.check_totals(totals)
        return nats.to(sentences.emissions.dtype)

    def _batch_first(self, values: Tensor) -> Tensor:
        """Swap the first two axes where the caller has time first; its own inverse."""
        return values if self.batch_first else values.transpose(0, 1)

    def _for_native(
        self, emissions: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, native.Parameters] | None:
        """What the compiled kernels take; None where they are not for these emissions."""
        if chosen(emissions) != "native":
            return None
        self._check_shapes(emissions, mask)
        if not self.batch_first:
            emissions = emissions.transpose(0, 1)
            mask = mask if mask is None else mask.transpose(0, 1)
        scores = (self.start_transitions, self.transitions, self.end_transitions)
        if not native.fits(emissions, mask, scores[1]):
            return None
        if mask is not None and mask.dtype is not torch.bool:
            mask = mask.bool()
        forbidden = None
        if self.constrained:
            forbidden = (self.forbidden_start, self.forbidden_transitions, self.forbidden_end)
        return emissions, mask, native.Parameters(*scores, forbidden)

    def _check_shapes(self, emissions: Tensor, mask: Tensor | None) -> None:
        shape = emissions.shape
        if len(shape) != 3 or shape[2] != self.num_tags:
            raise ValueError(
                f"Emissions must end in {self.num_tags} tags, after two axes: {tuple(shape)}."
            )
        if mask is not None and mask.shape != shape[:2]:
            raise ValueError(
                f"The mask {tuple(mask.shape)} does not fit the emissions {tuple(shape)}."
            )

    def _prepared(self, emissions: Tensor, mask: Tensor | None) -> tuple[Sentences, Scores]:
        """Left-aligned sentences, and scores in their dtype with -inf where forbidden."""
        self._check_shapes(emissions, mask)
        sentences = Sentences.of(
            self._batch_first(emissions), None if mask is None else self._batch_first(mask)
        )
        values = (self.start_transitions, self.transitions, self.end_transitions)
        scores = Scores(*(value.to(sentences.emissions.dtype) for value in values))
        if self.constrained:
            scores = Scores(
                scores.start.masked_fill(self.forbidden_start, -torch.inf),
                scores.transitions.masked_fill(self.forbidden_transitions, -torch.inf),
                scores.end.masked_fill(self.forbidden_end, -torch.inf),
            )
        return sentences, scores

    @torch.no_grad()
    def _best(self, emissions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Sentences]:
        """Left-aligned best tags (batch, time), their scores (batch,), and the sentences."""
        with full_precision(emissions.device):
            sentences, scores = self._prepared(emissions, mask)
            tags, score = search.viterbi(sentences.emissions, sentences.lengths, scores)
        inputs.check_totals(score)
        return tags, score, sentences

    def _posterior(self, emissions: Tensor, mask: Tensor | None) -> tuple[Sentences, Posterior]:
        with full_precision(emissions.device):
            sentences, scores = self._prepared(emissions, mask)
            posterior = kernels.forward_backward(sentences.emissions, sentences.lengths, scores)
        inputs.check_totals(posterior.log_partition)
        return sentences, posterior

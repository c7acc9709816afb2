"""The linear-chain CRF on a GPU: likelihood with its gradient, and best sequences.

A step of a CRF is a product of a vector with a small matrix: 300 multiply-adds for 17 tags, while
plain PyTorch starts some kernels a step, of two to five microseconds each. Here one kernel goes
through all steps of all sentences, one program a sentence (`.crf_triton_sums`), and leaves behind
the value, the gradient of the emissions, and messages from which a second kernel adds up the
gradient of the transitions once the weights of the sentences are known (`.crf_triton_pairs`).
Sixteen sentences a program, for the tensor cores, would leave most multiprocessors idle at 64
sentences, and TF32 is too coarse for probabilities.

Probabilities are rescaled at every step. Sentences in which underflow may matter are noticed in the
kernel and done again by another one in logarithms and float64 (`.crf_triton_logs`), which is always
launched and whose programs end at once where there is nothing to do: that costs a launch, but the
CPU never waits for the GPU. Nothing is added up by atomics, so results repeat bit for bit.

Up to ``KEPT`` tags the transitions stay in registers; beyond, up to ``MOST``, every step reads them
from the second-level cache, 256 KB at 256 tags and 1 MB at 512, for each sentence and direction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqlab.nn.crf_kernels import Scores
from seqlab.nn.kernels import chosen

MOST = 512  # tags
KEPT = 128  # tags whose transitions fit into the registers of a program
TILE = 32  # tags of a program that adds up the gradient of transitions, on either side
LEAST = 16  # rows and columns that Triton multiplies at least
SPAN = 64  # tokens of a given sequence that are scored at once
PARTS = 512  # programs, about, that share the gradient of the transitions


class Layout(NamedTuple):
    """How the tags are laid out in a program.

    Attributes:
        padded: the power of two that holds all tags.
        block: rows of transitions that are taken at once.
        chunk: positions that are joined, and tags that are summed in logarithms, at once.
        warps: groups of 32 threads.
    """

    padded: int
    block: int
    chunk: int
    warps: int


def layout(tags: int) -> Layout:
    """Lay out the tags of a CRF.

    Args:
        tags: their number.

    Example:
        >>> layout(17)
        Layout(padded=32, block=32, chunk=8, warps=1)
        >>> layout(512)
        Layout(padded=512, block=32, chunk=4, warps=8)
    """
    padded = max(LEAST, 1 << (tags - 1).bit_length())
    block = padded if padded <= KEPT else KEPT * KEPT // padded
    warps = 1 if padded <= 32 else 4 if padded <= 64 else 8
    return Layout(padded, block, 256 * warps // padded, warps)  # 8 numbers a thread


def computes(emissions: Tensor, scores: Scores) -> bool:
    """Say whether the kernels support a CRF and are chosen.

    Args:
        emissions: ``(batch, time, tag)``.
        scores: start, transition and end scores.

    Raises:
        UsageError: see `seqlab.nn.kernels.chosen`.
    """
    return supports(emissions, scores) and chosen(emissions) == "triton"


def supports(emissions: Tensor, scores: Scores) -> bool:
    """Say whether the kernels compute a CRF; plain PyTorch does the others.

    Args:
        emissions: ``(batch, time, tag)``.
        scores: start, transition and end scores.

    Returns:
        False for float64, more than 512 tags, and where there is nothing to compute.
    """
    some = emissions.numel() > 0 and emissions.shape[-1] <= MOST
    return some and all(x.dtype == torch.float32 for x in (emissions, *scores))


def likelihood(emissions: Tensor, lengths: Tensor, scores: Scores, tags: Tensor | None) -> Tensor:
    """Log-probability of the tags, or minus the log partition; see `seqlab.nn.crf_likelihood`.

    Args:
        emissions: ``(batch, time, tag)`` such as :func:`supports` accepts, left-aligned.
        lengths: ``(batch,)``.
        scores: start, transition and end scores.
        tags: ``(batch, time)`` ids, or None.

    Returns:
        ``(batch,)`` nats in float64; differentiable once in the emissions and the scores.
    """
    value: Tensor = _Likelihood.apply(emissions, *scores, lengths, tags)  # type: ignore[no-untyped-call]
    return value


class _Likelihood(torch.autograd.Function):
    """See :func:`likelihood`."""

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        start: Tensor,
        transitions: Tensor,
        end: Tensor,
        lengths: Tensor,
        tags: Tensor | None,
    ) -> Tensor:
        given = [x.contiguous() for x in (emissions, lengths, start, transitions, end)]
        tags = None if tags is None else tags.contiguous()
        value, *saved = _sums(given, tags)
        ctx.save_for_backward(given[1], given[3], tags, *saved)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        lengths, *_, difference, _, _, _ = ctx.saved_tensors
        weights = weights.float().contiguous()  # (batch,)
        emissions = start = transitions = end = None
        if ctx.needs_input_grad[0]:
            emissions = difference * weights.view(-1, 1, 1)
        if ctx.needs_input_grad[1]:
            start = (weights.unsqueeze(1) * difference[:, 0]).sum(0)
        if ctx.needs_input_grad[2]:
            transitions = _transition_gradient(weights, ctx.saved_tensors)
        if ctx.needs_input_grad[3]:
            last = (lengths - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, difference.shape[2])
            end = (weights.unsqueeze(1) * difference.gather(1, last).squeeze(1)).sum(0)
        return emissions, start, transitions, end, None, None


def _sums(given: list[Tensor], tags: Tensor | None) -> tuple[Tensor, ...]:
    """Launch what sums over all sequences.

    Args:
        given: emissions, lengths, start, transition and end scores, contiguous.
        tags: ``(batch, time)``, contiguous, or None.

    Returns:
        value, steps, difference and messages as in `.crf_triton_sums`, the messages once more as in
        `.crf_triton_logs`, and which sentences have the latter.
    """
    from seqlab.nn.kernels.crf_triton_logs import logs_kernel
    from seqlab.nn.kernels.crf_triton_sums import sums_kernel

    emissions, lengths, _, transitions, _ = given
    batch, time, size = emissions.shape
    how = layout(size)
    peak = transitions.max().clamp(min=torch.finfo(torch.float32).min)  # finite, or NaN
    step = (transitions - peak).exp()
    step_back = step.t().contiguous()
    value = emissions.new_empty(batch, dtype=torch.float64)
    difference, messages = torch.empty_like(emissions), emissions.new_empty(batch, 2, time, size)
    wide = messages.view(-1).view(torch.float64)  # (batch * time * tag,)
    scratch = emissions.new_empty(batch, size, dtype=torch.float64)
    doubtful = lengths.new_empty(batch, dtype=torch.int32)
    same = {"TAGS": size, "PADDED": how.padded, "SPAN": SPAN, **_compiled(how.warps)}
    with torch.cuda.device_of(emissions):  # type: ignore[no-untyped-call]
        sums_kernel[(batch,)](
            *given, tags, peak, step, step_back, value, difference, messages, doubtful, time,
            BLOCK=how.block, CHUNK=how.chunk, **same,
        )  # fmt: skip
        logs_kernel[(batch,)](
            *given, tags, value, difference, wide, scratch, doubtful, time,
            BLOCK=how.chunk, **same,
        )  # fmt: skip
    return value, step, difference, messages, wide, doubtful


def _compiled(warps: int) -> dict[str, Any]:
    return {"num_warps": warps, "enable_fp_fusion": True}


def _transition_gradient(weights: Tensor, saved: tuple[Tensor, ...]) -> Tensor:
    """Sum over the batch of what was seen less what was expected, (previous tag, next tag)."""
    from seqlab.nn.kernels.crf_triton_pairs import pairs_kernel

    lengths, transitions, tags, step, difference, messages, wide, doubtful = saved
    batch, time, size = difference.shape
    how = layout(size)
    tile = min(TILE, how.padded)
    tiles = -(-size // tile)
    each = -(-batch // max(1, PARTS // tiles**2))
    parts = -(-batch // each)
    out = difference.new_empty(parts, size, size)
    given = (weights, lengths, transitions, tags, step, difference, messages, wide)
    with torch.cuda.device_of(difference):  # type: ignore[no-untyped-call]
        pairs_kernel[(tiles, tiles, parts)](
            *given, doubtful, out, batch, time, each,
            TAGS=size, TILE=tile, SPAN=32, BLOCK=LEAST, **_compiled(4),
        )  # fmt: skip
    return out.sum(0)


def viterbi(emissions: Tensor, lengths: Tensor, scores: Scores) -> tuple[Tensor, Tensor]:
    """Best tag sequence of each sentence; see `seqlab.nn.crf_search.viterbi`.

    Args:
        emissions: ``(batch, time, tag)`` such as :func:`supports` accepts, left-aligned.
        lengths: ``(batch,)``.
        scores: start, transition and end scores.

    Returns:
        Tags ``(batch, time)`` int64, -1 at padding, and scores ``(batch,)``.
    """
    from seqlab.nn.crf_search import _SETTLE_EVERY
    from seqlab.nn.kernels.crf_triton_best import best_kernel

    batch, time, size = emissions.shape
    given = [x.detach().contiguous() for x in (emissions, lengths, *scores)]
    how = layout(size)
    table = torch.empty_like(given[0])
    tags, score = lengths.new_empty(batch, time), emissions.new_empty(batch)
    with torch.cuda.device_of(emissions):  # type: ignore[no-untyped-call]
        best_kernel[(batch,)](
            *given, table, tags, score, time,
            TAGS=size, PADDED=how.padded, BLOCK=how.block, SPAN=SPAN,
            SETTLE_EVERY=_SETTLE_EVERY, **_compiled(how.warps),
        )  # fmt: skip
    return tags, score

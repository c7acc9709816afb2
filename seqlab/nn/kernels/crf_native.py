"""The compiled CRF kernels: one call of `native/crf.cpp` or `native/crf_viterbi.cpp` an answer.

Where they cannot do what is asked, or something is wrong with it, they answer None: the plain way
then gives the answer, or says in its own words what is wrong.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from ctypes import addressof, c_char_p, c_int64, create_string_buffer
from functools import cache
from itertools import accumulate, chain
from struct import Struct
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from seqlab.nn.kernels.library import signature

MOST_TAGS = 512
_REDUCTIONS = {"none": 0, "sum": 1, "mean": 2, "token_mean": 3}
_SUSPECT = 4  # in a kernel's answer: a sentence of probability 0, or one without any
_FEW = 1 << 17  # products below which waking other threads costs more than they bring
# A kernel takes one struct of numbers of 8 bytes: addresses, sizes and strides.
_LIKELIHOOD, _PATHS, _VITERBI = (Struct(f"{n}q").pack for n in (29, 22, 22))
_kernel = cache(lambda name: signature(f"seqlab_crf_{name}", (c_char_p,), c_int64))
_PLAIN = (Tensor, Parameter)


class Parameters(NamedTuple):
    """Scores of a CRF, and what its grammar forbids."""

    start: Tensor  # (tag,)
    transitions: Tensor  # (previous tag, next tag)
    end: Tensor  # (tag,)
    forbidden: tuple[Tensor, Tensor, Tensor] | None  # bool, shaped as they; None: nothing


class _Question(NamedTuple):
    """What is asked about emissions and scores."""

    mask: Tensor | None  # (batch, time) bool
    tags: Tensor | None  # (batch, time) int64; None asks for the log partition
    reduction: str
    forbidden: tuple[Tensor, Tensor, Tensor] | None
    learns: bool  # whether gradients are wanted at all

    def kept(self) -> _Question:
        """The same, whatever the caller writes into the mask and the tags afterwards."""
        mask, tags = (None if x is None else x.clone() for x in self[:2])
        return self._replace(mask=mask, tags=tags)


def fits(emissions: Tensor, mask: Tensor | None, transitions: Tensor) -> bool:
    """Whether the kernels work on such tensors.

    Args:
        emissions: ``(batch, time, tag)`` on a CPU.
        mask: ``(batch, time)``.
        transitions: ``(previous tag, next tag)``.
    """
    return (
        type(emissions) in _PLAIN  # others may have no memory
        and emissions.dtype is not torch.float64
        and emissions.shape[2] <= MOST_TAGS
        and emissions.numel() > 0
        and (mask is None or mask.is_cpu)
        and transitions.is_cpu
        and not torch.compiler.is_compiling()
    )


def log_likelihood(
    emissions: Tensor, mask: Tensor | None, parameters: Parameters, tags: Tensor, reduction: str
) -> Tensor | None:
    """Log-likelihood of tags, as `seqlab.nn.crf.CRF` gives it; differentiable once.

    Args:
        emissions: ``(batch, time, tag)`` that fit.
        mask: ``(batch, time)`` True at real positions.
        parameters: of the CRF.
        tags: ``(batch, time)`` ids, -1 for any tag.
        reduction: ``none``, ``sum``, ``mean`` or ``token_mean``.

    Returns:
        ``(batch,)`` for ``none``, else a scalar. None where the mask has holes, where an id is no
        tag, and where there is a grammar and a sentence has probability 0.
    """
    if tags.shape != emissions.shape[:2] or not tags.is_cpu:
        return None
    if tags.dtype is not torch.int64:
        tags = tags.long()
    return _value(emissions, mask, parameters, tags, reduction)


def log_partition(emissions: Tensor, mask: Tensor | None, parameters: Parameters) -> Tensor | None:
    """Log of the summed exponential scores of all sequences; differentiable once.

    Args:
        emissions: ``(batch, time, tag)`` that fit.
        mask: ``(batch, time)`` True at real positions.
        parameters: of the CRF.

    Returns:
        ``(batch,)``; None where the mask has holes.
    """
    return _value(emissions, mask, parameters, None, "none")


def marginals(emissions: Tensor, mask: Tensor | None, parameters: Parameters) -> Tensor | None:
    """Probability of each tag at each position.

    Args:
        emissions: ``(batch, time, tag)`` that fit.
        mask: ``(batch, time)`` True at real positions.
        parameters: of the CRF.

    Returns:
        ``(batch, time, tag)``, 0 where masked; None where the mask has holes, and where a sentence
        has no distribution.
    """
    question = _Question(mask, None, "none", parameters.forbidden, False)
    inputs = _inputs(emissions, parameters)
    answer, _, gradients = _likelihood(inputs, question, None, True, False)
    return None if answer else gradients[0]


def lengths(emissions: Tensor, mask: Tensor | None) -> list[int]:
    """Number of real positions of each sentence.

    Args:
        emissions: ``(batch, time, tag)``.
        mask: ``(batch, time)`` True at real positions.
    """
    batch, time, _ = emissions.shape
    counts: list[int] = [time] * batch if mask is None else mask.sum(1).tolist()
    return counts


def path_marginals(
    emissions: Tensor,
    mask: Tensor | None,
    parameters: Parameters,
    rows: Sequence[int],
    starts: Sequence[int],
    tags: Sequence[Sequence[int]],
) -> Tensor | None:
    """Probability that sentences carry given tags at given positions, whatever surrounds them.

    Args:
        emissions: ``(batch, time, tag)`` that fit.
        mask: ``(batch, time)`` True at real positions.
        parameters: of the CRF.
        rows: sentence of each query.
        starts: first position of each query.
        tags: tag ids of each query; all inside their sentence.

    Returns:
        ``(query,)``; None as in ``marginals``.
    """
    inputs = _inputs(emissions, parameters)
    ends = list(accumulate(map(len, tags), initial=0))
    # Rows, starts, where the tags of each query begin and the last end, and all tags.
    queries = array("q", [*rows, *starts, *ends, *chain.from_iterable(tags)])
    chances = torch.empty(len(rows))
    address, _ = queries.buffer_info()
    places = [address + 8 * len(rows) * n for n in range(3)]
    answer = _kernel("paths")(
        _PATHS(
            *_given(inputs, mask, parameters.forbidden),
            len(rows),
            *places,
            places[2] + 8 * len(ends),
            chances.data_ptr(),
        )
    )
    return None if answer else chances


def decode(
    emissions: Tensor, mask: Tensor | None, parameters: Parameters
) -> list[list[int]] | None:
    """Best tag sequences, as lists.

    Args:
        emissions: ``(batch, time, tag)`` that fit.
        mask: ``(batch, time)`` True at real positions.
        parameters: of the CRF.

    Returns:
        A list for each sentence; None where the mask has holes, and where a sentence has no best
        sequence.
    """
    batch, time, size = emissions.shape
    width = 1 if size <= 256 else 2
    paths, sizes = create_string_buffer(batch * time * width), (c_int64 * batch)()
    inputs, forbidden = _inputs(emissions, parameters), parameters.forbidden
    places = (addressof(paths), time, 1, width, addressof(sizes), 0)
    if _kernel("viterbi")(_VITERBI(*_given(inputs, mask, forbidden), *places)):
        return None
    # Small numbers come from bytes sooner than from a tensor.
    ids = paths.raw if width == 1 else array("H", paths.raw)
    return [list(ids[n * time : n * time + length]) for n, length in enumerate(sizes)]


def best(
    emissions: Tensor, mask: Tensor | None, parameters: Parameters
) -> tuple[Tensor, Tensor] | None:
    """Best tag sequences and their scores, as tensors.

    Args:
        emissions: ``(batch, time, tag)`` that fit.
        mask: ``(batch, time)`` True at real positions.
        parameters: of the CRF.

    Returns:
        ``(batch, time)`` int64, -1 where masked, and ``(batch,)``; None as in ``decode``.
    """
    batch, time, _ = emissions.shape
    paths, scores = torch.empty(batch, time, dtype=torch.int64), torch.empty(batch)
    inputs, forbidden = _inputs(emissions, parameters), parameters.forbidden
    places = (paths.data_ptr(), time, 1, 8, 0, scores.data_ptr())
    answer = _kernel("viterbi")(_VITERBI(*_given(inputs, mask, forbidden), *places))
    return None if answer else (paths, scores)


def _inputs(emissions: Tensor, parameters: Parameters) -> list[Tensor]:
    """Emissions, start, transition and end scores as float32, tags side by side."""
    inputs = [emissions, parameters.start, parameters.transitions, parameters.end]
    for n, x in enumerate(inputs):
        if x.dtype is not torch.float32:
            inputs[n] = x.float()
        if not x.is_contiguous() and (n or x.stride(2) != 1):
            inputs[n] = inputs[n].contiguous()
    return inputs


def _value(
    emissions: Tensor,
    mask: Tensor | None,
    parameters: Parameters,
    tags: Tensor | None,
    reduction: str,
) -> Tensor | None:
    inputs = _inputs(emissions, parameters)
    # In the function below the switch is always off, and inputs that learn do so all the same.
    question = _Question(mask, tags, reduction, parameters.forbidden, torch.is_grad_enabled())
    value: Tensor | None = _Value.apply(*inputs, question)  # type: ignore[no-untyped-call]
    return value


class _Value(torch.autograd.Function):
    """Value and gradient come from one pass; the way back only scales the gradient.

    Where the sentences have different weights, the pass is made again with them, as the gradient of
    the transitions is a sum over the sentences.
    """

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        start: Tensor,
        transitions: Tensor,
        end: Tensor,
        question: _Question,
    ) -> Tensor | None:
        inputs = [emissions, start, transitions, end]
        needed = [question.learns and x for x in ctx.needs_input_grad]
        learned = needed[1] or needed[2] or needed[3]
        answer, value, gradients = _likelihood(inputs, question, None, needed[0], learned)
        strict = question.tags is not None and question.forbidden is not None
        if answer and (strict or answer != _SUSPECT):
            return None
        again = inputs if question.reduction == "none" and question.learns else ()
        ctx.question = question.kept() if again else None
        ctx.save_for_backward(*gradients, *again)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors[:4]
        if weights.dim():
            if not bool((weights == weights[0]).all()):
                needed, inputs = ctx.needs_input_grad, ctx.saved_tensors[4:]
                learned = needed[1] or needed[2] or needed[3]
                _, _, again = _likelihood(inputs, ctx.question, weights, needed[0], learned)
                return *again, None
            weights = weights[0]
        return *(None if g is None else g * weights for g in gradients), None


_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def _likelihood(
    inputs: Sequence[Tensor],
    question: _Question,
    weights: Tensor | None,
    of_emissions: bool,
    of_scores: bool,
) -> tuple[int, Tensor, _Gradients]:
    """Call the kernel: its answer, the value, and the gradients of the inputs."""
    mask, tags, reduction, forbidden, _ = question
    value = torch.empty(len(inputs[0]) if reduction == "none" else ())
    emissions = _alike(inputs[0]) if of_emissions else None
    scores = [torch.empty_like(x) for x in inputs[1:]] if of_scores else [None] * 3
    answer = _kernel("likelihood")(
        _LIKELIHOOD(
            *_given(inputs, mask, forbidden),
            *((0, 0, 0) if tags is None else (tags.data_ptr(), *tags.stride())),
            *((0, 0) if weights is None else (weights.data_ptr(), *weights.stride())),
            _REDUCTIONS[reduction],
            value.data_ptr(),
            *((0, 0, 0) if emissions is None else (emissions.data_ptr(), *emissions.stride()[:2])),
            *(0 if x is None else x.data_ptr() for x in scores),
        )
    )
    return answer, value, (emissions, *scores)


def _alike(emissions: Tensor) -> Tensor:
    """Memory for their gradient, tags side by side; empty_like parts those of some views."""
    memory = torch.empty_like(emissions)
    return memory if memory.stride(2) == 1 else torch.empty(emissions.shape)


def _given(
    inputs: Sequence[Tensor],
    mask: Tensor | None,
    forbidden: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[int, ...]:
    """Fill the struct that all kernels begin with."""
    emissions, start, transitions, end = inputs
    batch, time, size = emissions.shape
    batch_stride, time_stride, _ = emissions.stride()
    many = batch * time * size * size > _FEW
    return (
        emissions.data_ptr(),
        batch,
        time,
        size,
        batch_stride,
        time_stride,
        *((0, 0, 0) if mask is None else (mask.data_ptr(), *mask.stride())),
        start.data_ptr(),
        transitions.data_ptr(),
        end.data_ptr(),
        *((0, 0, 0) if forbidden is None else (x.data_ptr() for x in forbidden)),
        torch.get_num_threads() if many else 1,
    )

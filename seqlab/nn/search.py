"""Search: outputs of a model that reads its own output, the same ones in any batch.

The parts are in ``search_*.py``; a model is a :class:`~seqlab.nn.search_steppers.Stepper`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seqlab.errors import SeqlabError, UsageError
from seqlab.nn.search_beam import BeamSearch
from seqlab.nn.search_constraints import check_constraints
from seqlab.nn.search_greedy import GreedySearch
from seqlab.nn.search_options import Constraints, Hypothesis, SearchOptions
from seqlab.nn.search_required import missing_phrases
from seqlab.nn.search_sampling import Sampling, number_of
from seqlab.nn.search_steppers import Ensemble, Part, Step, Stepper

__all__ = [
    "Constraints",
    "Ensemble",
    "Hypothesis",
    "SearchOptions",
    "Step",
    "Stepper",
    "number_of",
    "search",
]


@torch.inference_mode()
def search(
    stepper: Stepper,
    options: SearchOptions,
    lengths: Tensor,
    constraints: Sequence[Constraints | None] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Search for the outputs of a batch of sentences.

    No result depends on what else is in the batch, as far as the model's own numbers do not.

    Args:
        stepper: the model, with the sentences read.
        options: what is asked for.
        lengths: ``(sentence,)`` tokens of the sources, on the device of the search.
        constraints: of each sentence, where it has any.
        numbers: of each sentence, for sampling: what its draws depend on besides the seed, such as
            its place in the input, or :func:`~seqlab.nn.search_sampling.number_of` its ids.

    Returns:
        Of each sentence its outputs, best first (samples as they were drawn): ``n_best``, or fewer
        where fewer exist. Where a sentence's wishes cannot be met together, the outputs of a search
        without required phrases, least length and n-gram blocking; ``missing`` says which phrases
        each output lacks.

    Raises:
        UsageError: constraints contradict themselves or do not fit the search.
        SeqlabError: the model's logits are not numbers.
    """
    wishes = [wish or Constraints() for wish in constraints or [None] * len(lengths)]
    if len(wishes) != len(lengths):
        raise UsageError(f"{len(wishes)} constraints were given for {len(lengths)} sentences.")
    check_constraints(wishes, options, stepper.size)
    if len(lengths) == 0:
        return []
    if options.method == "sample":
        results = _sampled(stepper, options, lengths, wishes, numbers)
    else:
        results = _searched(stepper, options, lengths, wishes)
        results = _rescued(results, stepper, options, lengths, wishes)
    for number, (outputs, wish) in enumerate(zip(results, wishes, strict=True), start=1):
        odd = [h for h in outputs if options.scores and not math.isfinite(h.log_probability)]
        if odd or not outputs:
            raise SeqlabError(
                f"Sentence {number}: the model's scores are not numbers: its training went wrong, "
                f"or its weights are damaged."
            )
        if wish.required:
            outputs[:] = [
                h._replace(missing=missing_phrases(h.ids, wish.required)) for h in outputs
            ]
    return results


def _sampled(
    stepper: Stepper,
    options: SearchOptions,
    lengths: Tensor,
    wishes: list[Constraints],
    numbers: Sequence[int] | None,
) -> list[list[Hypothesis]]:
    if any(wish.required for wish in wishes):
        raise UsageError("Samples cannot be made to contain phrases: set method to 'beam'.")
    if options.coverage:
        raise UsageError("Samples have no coverage penalty: set coverage to 0.")
    if numbers is None or len(numbers) != len(lengths):
        raise UsageError("Sampling needs a number for each sentence, for draws of its own.")
    return Sampling(stepper, options, lengths, wishes, numbers).run()


def _searched(
    stepper: Stepper, options: SearchOptions, lengths: Tensor, wishes: list[Constraints]
) -> list[list[Hypothesis]]:
    """Search; sentences with required phrases by themselves, lest they slow down the others."""
    having = [bool(wish.required) for wish in wishes]
    if len(set(having)) == 1:
        return _searched_alike(stepper, options, lengths, wishes)
    results: list[list[Hypothesis]] = [[] for _ in wishes]
    for kind in (True, False):
        some = [place for place, has in enumerate(having) if has == kind]
        _put(results, some, stepper, options, lengths, [wishes[place] for place in some])
    return results


def _put(
    results: list[list[Hypothesis]],
    some: list[int],
    stepper: Stepper,
    options: SearchOptions,
    lengths: Tensor,
    wishes: list[Constraints],
) -> None:
    """Search for some sentences, and put what was found into their places."""
    rows = torch.tensor(some, device=lengths.device)
    found = _searched_alike(Part(stepper, rows), options, lengths[rows], wishes)
    for place, outputs in zip(some, found, strict=True):
        results[place] = outputs


def _searched_alike(
    stepper: Stepper, options: SearchOptions, lengths: Tensor, wishes: list[Constraints]
) -> list[list[Hypothesis]]:
    plain = options.beam == 1 and not options.coverage and not options.no_repeat_ngram
    if plain and not any(wish.prefix or wish.required or wish.banned for wish in wishes):
        return GreedySearch(stepper, options, lengths).run()
    if options.groups > 1 and any(wish.required for wish in wishes):
        raise UsageError("Diverse beam search cannot take required phrases: set groups to 1.")
    return BeamSearch(stepper, options, lengths, wishes).run()


def _rescued(
    results: list[list[Hypothesis]],
    stepper: Stepper,
    options: SearchOptions,
    lengths: Tensor,
    wishes: list[Constraints],
) -> list[list[Hypothesis]]:
    """Search again where wishes that contradict each other have left nothing."""
    some = [place for place, outputs in enumerate(results) if not outputs]
    if some:
        options = replace(options, min_length=0, no_repeat_ngram=0)
        relaxed = [replace(wishes[place], required=()) for place in some]
        _put(results, some, stepper, options, lengths, relaxed)
    return results

"""Losses that train on whole outputs and how good they are, in place of token by token.

A model proposes some outputs for each sentence; each has a log-probability, which carries the
gradient, and a reward, which does not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def minimum_risk(
    log_probabilities: Tensor, rewards: Tensor, smoothness: float, mask: Tensor
) -> Tensor:
    """Minus the reward to be expected among some candidates (Shen et al., 2016, equations 11-13).

    Candidates are taken for all there is: their probabilities to the power of ``smoothness`` are
    made to sum to 1 in each sentence. One that came twice must count once, see :func:`distinct`.

    Args:
        log_probabilities: ``(sentence, candidate)`` nats, of whole outputs.
        rewards: ``(sentence, candidate)``, higher is better.
        smoothness: above 0; small ones make candidates alike. Shen et al. take 0.005.
        mask: ``(sentence, candidate)`` bool, True = counts, at least one in each sentence; what
            stands elsewhere has no meaning.

    Returns:
        The mean over the sentences, a scalar.

    Example:
        >>> rewards, mask = torch.tensor([[0.0, 1.0]]), torch.tensor([[True, True]])
        >>> minimum_risk(torch.tensor([[0.6, 0.2]]).log(), rewards, 1.0, mask)
        tensor(-0.2500)
    """
    scores = (smoothness * _exact(log_probabilities)).masked_fill(~mask, -torch.inf)
    shares = scores.softmax(1)  # (sentence, candidate)
    return -(shares * rewards.detach().masked_fill(~mask, 0.0)).sum(1).mean()


def self_critical(log_probabilities: Tensor, rewards: Tensor, baseline: Tensor) -> Tensor:
    """The policy gradient with a baseline, as a loss (Rennie et al., 2017, equation 9).

    Samples that do better than the baseline become more likely, the others less.

    Args:
        log_probabilities: ``(sentence, sample)`` nats, of whole outputs that were sampled.
        rewards: ``(sentence, sample)``, higher is better.
        baseline: ``(sentence,)``, the reward of what the model would say in earnest, as by greedy
            search.

    Returns:
        The mean over all samples, a scalar; its value says nothing, its gradient does.

    Example:
        >>> log_probabilities = torch.zeros(1, 2, requires_grad=True)
        >>> rewards, baseline = torch.tensor([[0.9, 0.4]]), torch.tensor([0.5])
        >>> self_critical(log_probabilities, rewards, baseline).backward()
        >>> log_probabilities.grad
        tensor([[-0.2000,  0.0500]])
    """
    advantage = (rewards - baseline.unsqueeze(1)).detach()
    return -(advantage * _exact(log_probabilities)).mean()


def distinct(candidates: Tensor) -> Tensor:
    """Find the candidates that have not come before in their sentence.

    Args:
        candidates: ``(sentence, candidate, time)`` ids, all padded alike.

    Returns:
        ``(sentence, candidate)`` bool.

    Example:
        >>> distinct(torch.tensor([[[5, 3], [7, 3], [5, 3]]]))
        tensor([[ True,  True, False]])
    """
    same = (candidates.unsqueeze(2) == candidates.unsqueeze(1)).all(-1)
    return ~same.tril(-1).any(-1)  # (sentence, candidate)


def _exact(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

"""AdamW with warm-up and cosine decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class OptimiseConfig:
    """How weights are moved.

    Parameters
    ----------
    learning_rate
        Peak rate.
    warmup
        Share of the steps over which the rate rises linearly from zero.
    weight_decay
        Of AdamW, on every weight with two dimensions or more.
    clip
        Largest norm of the gradient.
    betas
        Of AdamW.
    """

    learning_rate: float = 2e-3
    warmup: float = 0.08
    weight_decay: float = 0.02
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)


def make_optimiser(parameters: Iterable[nn.Parameter], config: OptimiseConfig) -> torch.optim.AdamW:
    """Return AdamW over the parameters that are trained; biases, gains and other vectors do not decay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def rate_at(step: int, steps: int, config: OptimiseConfig) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`: linear warm-up, then half a cosine to zero."""
    rising = max(1, round(config.warmup * steps))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

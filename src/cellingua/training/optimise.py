"""AdamW with warm-up and cosine decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from cellingua.core.errors import ConfigError

SCHEDULES = ("cosine", "linear", "constant")


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
    factors
        Pattern of a weight's name (``*`` stands for anything), and what the rate is multiplied by for it; the first
        that fits counts. Layers that came trained may move slower than fresh ones.
    schedule
        How the rate goes after the warm-up: half a ``cosine`` or ``linear`` to zero, or ``constant``.
    """

    learning_rate: float = 2e-3
    warmup: float = 0.08
    weight_decay: float = 0.02
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    factors: tuple[tuple[str, float], ...] = ()
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule is {self.schedule!r}.", " or ".join(SCHEDULES))

    def factor(self, name: str) -> float:
        """Return what the rate of the weight `name` is multiplied by."""
        return next((factor for pattern, factor in self.factors if fnmatchcase(name, pattern)), 1.0)


def make_optimiser(
    parameters: Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]], config: OptimiseConfig
) -> torch.optim.AdamW:
    """Return AdamW over the parameters that are trained; biases, gains and other vectors do not decay.

    Parameters
    ----------
    parameters
        With their names where `config` has factors.
    config
        See `OptimiseConfig`. A group's factor is held beside its rate, for who sets the rate.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for one in parameters:
        name, parameter = one if isinstance(one, tuple) else ("", one)
        if parameter.requires_grad:
            groups.setdefault((parameter.dim() < 2, config.factor(name)), []).append(parameter)
    kinds = [{"params": [], "weight_decay": config.weight_decay, "factor": 1.0}] if not groups else []
    for (is_vector, factor), held in sorted(groups.items(), key=lambda item: item[0]):
        decay = 0.0 if is_vector else config.weight_decay
        kinds.append({"params": held, "weight_decay": decay, "factor": factor, "lr": config.learning_rate * factor})
    return torch.optim.AdamW(kinds, lr=config.learning_rate, betas=config.betas)


def rate_at(step: int, steps: int, config: OptimiseConfig) -> float:
    """Return the learning rate of step `step` (from 0) of `steps`: linear warm-up, then the schedule."""
    rising = round(config.warmup * steps) if config.schedule == "constant" else max(1, round(config.warmup * steps))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "linear":
        return config.learning_rate * (1 - done)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

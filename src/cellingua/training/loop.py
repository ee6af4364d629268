"""The one training loop.

A step is a function of its number alone: the caller draws minibatch `step` from a generator that is seeded with
the step, and torch is seeded with it too. So a run that was stopped and resumed does what an unbroken run does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cellingua.core.config import to_dict
from cellingua.core.errors import CellinguaError
from cellingua.core.progress import Progress, Silent
from cellingua.training.checkpoint import load_checkpoint, save_checkpoint
from cellingua.training.optimise import OptimiseConfig, make_optimiser, rate_at

_ADVICE = "a lower learning rate"


@dataclass(frozen=True)
class TrainConfig:
    """How long and how.

    Parameters
    ----------
    steps
        Minibatches.
    seed
        Of everything random.
    checkpoint_every
        Steps between checkpoints.
    optimise
        See `OptimiseConfig`.
    """

    steps: int = 800
    seed: int = 0
    checkpoint_every: int = 100
    optimise: OptimiseConfig = field(default_factory=OptimiseConfig)


def train(
    module: nn.Module,
    losses_of: Callable[[int], Mapping[str, Tensor]],
    config: TrainConfig,
    *,
    folder: Path | None = None,
    run: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train `module` in place.

    Parameters
    ----------
    losses_of
        Step number -> named losses (scalars with a graph), which are summed.
    config
        See `TrainConfig`.
    folder
        Where checkpoints and ``log.jsonl`` go; with a checkpoint in it the run resumes. None keeps nothing.
    run
        What else describes the run, as JSON values: a resume with something else is refused.
    progress
        Where to report.

    Raises
    ------
    CellinguaError
        A loss or its gradient is not finite; the step is named, no weight has moved in it, and the last
        checkpoint is kept.
    """
    progress = progress or Silent()
    optimiser = make_optimiser(module.parameters(), config.optimise)
    described = {**(run or {}), "train": to_dict(config)}
    start = load_checkpoint(folder, module, optimiser, described) if folder is not None else 0
    progress.step(f"Training for {config.steps} steps" + (f" (resumed at {start})" if start else ""), config.steps)
    progress.advance(start)
    done = start
    module.train()
    try:
        for step in range(start, config.steps):
            _step(module, optimiser, losses_of, step, config, folder)
            done = step + 1
            progress.advance()
            if folder is not None and done % config.checkpoint_every == 0:
                save_checkpoint(folder, module, optimiser, done, described)
    except KeyboardInterrupt:
        # Between steps the state is whole; within one, the optimiser may have moved some weights only.
        if folder is not None:
            progress.say(f"Stopped after {done} steps; the last checkpoint is kept, and the same call resumes.")
        raise
    finally:
        module.eval()
    if folder is not None and done > start:
        save_checkpoint(folder, module, optimiser, done, described)


def _step(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    losses_of: Callable[[int], Mapping[str, Tensor]],
    step: int,
    config: TrainConfig,
    folder: Path | None,
) -> None:
    """Do one step, and write a line of the log every tenth."""
    torch.manual_seed(config.seed * 1_000_003 + step)
    rate = rate_at(step, config.steps, config.optimise)
    for group in optimiser.param_groups:
        group["lr"] = rate
    losses = losses_of(step)
    total = torch.stack(list(losses.values())).sum()
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if not math.isfinite(float(total.detach())):
        raise CellinguaError(f"The loss of step {step} is not finite: {values}.", "", _ADVICE)
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    norm = nn.utils.clip_grad_norm_(
        (p for group in optimiser.param_groups for p in group["params"]), config.optimise.clip
    )
    if not math.isfinite(float(norm)):
        # Clipping by such a norm would make every weight NaN, and the next checkpoint with them.
        raise CellinguaError(f"The gradient of step {step} is not finite (losses {values}).", "", _ADVICE)
    optimiser.step()
    if folder is not None and step % 10 == 0:
        folder.mkdir(parents=True, exist_ok=True)
        line = {"step": step, **values, "gradient_norm": float(norm), "learning_rate": rate}
        with open(folder / "log.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

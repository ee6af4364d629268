"""The one training loop.

A step is a function of its number alone: the caller draws minibatch `step` from a generator that is seeded with
the step, and torch is seeded with it too. So a run that was stopped and resumed does what an unbroken run does.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cellingua.core.config import to_dict
from cellingua.core.errors import CellinguaError, ConfigError
from cellingua.core.files import write_json
from cellingua.core.progress import Progress, Silent
from cellingua.core.runtime import memory_in_use
from cellingua.training.checkpoint import load_checkpoint, save_checkpoint
from cellingua.training.logbook import Logbook
from cellingua.training.optimise import OptimiseConfig, make_optimiser, rate_at
from cellingua.training.place import OneProcess, Place, whole
from cellingua.training.stopping import Stopping

_ADVICE = "a lower learning rate"
_NAMED = 8  # cells that a message names

LossesOf = Callable[[int], Mapping[str, Tensor]]
BackwardOf = Callable[[int], Mapping[str, float]]


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
    precision
        ``float32``, ``bf16`` (autocast; weights stay float32) or ``float64``.
    log_every
        Steps between lines of the log.
    validate_every
        Steps between validations; 0 is never. Where it is not 0, there is one before the first step and one after the
        last.
    """

    steps: int = 800
    seed: int = 0
    checkpoint_every: int = 100
    optimise: OptimiseConfig = field(default_factory=OptimiseConfig)
    precision: str = "float32"
    log_every: int = 10
    validate_every: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"TrainConfig.{name} is {getattr(self, name)}.", "1 or more")
        if self.validate_every < 0:
            raise ConfigError(f"TrainConfig.validate_every is {self.validate_every}.", "0 (never) or more")

    @property
    def autocast(self) -> torch.dtype | None:
        """What forward passes compute in where that is not the type of the weights."""
        return torch.bfloat16 if self.precision == "bf16" else None


@dataclass(frozen=True)
class Watch:
    """What a run tells besides its losses; none of it changes a weight.

    Parameters
    ----------
    validate
        Steps done -> named values, such as the losses of a held-out study; called in evaluation mode without gradient.
    cells_of
        Step -> names of the cells of its minibatch, for the message about a loss that is not finite.
    batch
        Cells of a minibatch, for cells per second.
    tensorboard
        Write TensorBoard's events too.
    """

    validate: Callable[[int], Mapping[str, float]] | None = None
    cells_of: Callable[[int], Sequence[str]] | None = None
    batch: int = 0
    tensorboard: bool = False


def train(
    module: nn.Module,
    losses_of: LossesOf | None,
    config: TrainConfig,
    *,
    backward_of: BackwardOf | None = None,
    folder: Path | None = None,
    run: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    place: Place | None = None,
) -> None:
    """Train `module` in place.

    Parameters
    ----------
    losses_of
        Step number -> named losses (scalars with a graph), which are summed. With several processes each gives its
        share, so that the shares add up to the loss of the whole minibatch.
    config
        See `TrainConfig`.
    backward_of
        Instead of `losses_of`: step number -> named values, after the gradients of the whole minibatch were left in
        ``.grad`` (where several processes run, the same in all of them, values too). It does its own autocast.
    folder
        Where checkpoints and ``log.jsonl`` go; with a checkpoint in it the run resumes. None keeps nothing.
    run
        What else describes the run, as JSON values: a resume with something else is refused.
    progress
        Where to report.
    watch
        See `Watch`.
    place
        Where to compute (see `cellingua.training.place`); None is this process, where the module is.

    Raises
    ------
    ConfigError
        Not exactly one of `losses_of` and `backward_of` is given, or the checkpoint is of another run.
    CellinguaError
        A loss or its gradient is not finite; the step and its cells are named, no weight has moved in it, and the
        last checkpoint is kept.
    OutputError
        A checkpoint or the log can't be written (a full disk); the last checkpoint is kept.
    KeyboardInterrupt, SystemExit
        Ctrl-C, or SIGTERM (exit code 143): the step at hand was finished and saved.
    """
    if (losses_of is None) == (backward_of is None):
        raise ConfigError("A run needs losses_of or backward_of, and not both.", "one of them")
    if place is None:
        place = OneProcess(str(next((p.device for p in module.parameters()), "cpu")))
    described = {**(run or {}), "train": to_dict(config)}
    loop = _Loop(module, losses_of, backward_of, config, folder, described, progress or Silent(), watch, place)
    loop.go()


class _Loop:
    """One run."""

    def __init__(
        self,
        module: nn.Module,
        losses_of: LossesOf | None,
        backward_of: BackwardOf | None,
        config: TrainConfig,
        folder: Path | None,
        described: dict[str, Any],
        progress: Progress,
        watch: Watch | None,
        place: Place,
    ) -> None:
        self.module, self.losses_of, self.backward_of, self.config = module, losses_of, backward_of, config
        self.folder, self.described, self.progress = folder, described, progress
        self.watch, self.place = watch or Watch(), place
        place.setup(module, config.precision)
        self.optimiser = make_optimiser(module.named_parameters(), config.optimise)
        self.done = self.saved = self.start = self._load()
        self.shown = 0.0

    def _load(self) -> int:
        if self.folder is None:
            return 0
        return load_checkpoint(self.folder, self.module, self.optimiser, self.described)

    def go(self) -> None:
        """Train from where the run stands to its end."""
        steps, resumed = self.config.steps, f" (from step {self.start:,})" if self.start else ""
        self.progress.step(f"Training for {steps:,} steps{resumed}", steps - self.start)
        first = self.place.rank == 0
        self.log = Logbook(self.folder if first else None, self.start, tensorboard=self.watch.tensorboard)
        self.began = time.monotonic()
        self.module.train()
        try:
            with Stopping() as stopping:
                if self.start == 0:
                    self._validate()
                for step in range(self.start, steps):
                    self._step(step)
                    self._after(stopping)
        except (KeyboardInterrupt, SystemExit):
            # Between steps the state is whole; within one, the optimiser may have moved some weights only.
            if self.folder is not None:
                kept = f"the checkpoint of step {self.saved:,} is kept" if self.saved else "there is no checkpoint yet"
                self.progress.say(f"Stopped after {self.done:,} steps; {kept}, and the same call resumes.")
            raise
        finally:
            self.module.eval()
            self.log.close()
        self._save()

    def _after(self, stopping: Stopping) -> None:
        """Do what is due between two steps."""
        self.progress.advance()
        config, done = self.config, self.done
        if config.validate_every and (done % config.validate_every == 0 or done == config.steps):
            self._validate()
        if done % config.checkpoint_every == 0:
            self._save()
        asked = stopping.signal
        if self.place.world > 1:  # one process may have been told before the others
            asked = int(self.place.sums({"signal": float(asked)})["signal"])
            asked = stopping.signal or (asked and int(signal.SIGTERM))
        if asked:
            self._save()
            stopping.raise_if_asked(asked)

    def _step(self, step: int) -> None:
        """Do one step; write a line of the log where it is due."""
        config, place = self.config, self.place
        torch.manual_seed(config.seed * 1_000_003 + step + (place.rank << 40))  # other dropout in other processes
        rate = rate_at(step, config.steps, config.optimise)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)
        values = self._gradients(step)
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        norm = float(whole(nn.utils.clip_grad_norm_(trained, config.optimise.clip)))
        if not math.isfinite(norm):
            # Clipping by such a norm would make every weight NaN, and the next checkpoint with them.
            self._not_finite(step, "gradient", values)
        self.optimiser.step()
        self.done = step + 1
        now = time.monotonic()
        due = step % config.log_every == 0
        if not due and now - self.shown < 1:
            return
        self.shown = now
        memory = memory_in_use() / 1e9
        speed = self.watch.batch * (self.done - self.start) / max(now - self.began, 1e-9)
        if due and place.rank == 0:
            facts = {"gradient_norm": norm, "learning_rate": rate, "seconds": round(now - self.began, 3)}
            facts |= {"memory_gb": round(memory, 3)}
            facts |= {"cells_per_second": round(speed, 1)} if self.watch.batch else {}
            self.log.losses(step, values, **facts)
        shown = [f"loss {sum(values.values()):.4g}", f"{memory:.1f} GB"]
        self.progress.status(", ".join([*shown, f"{speed:,.0f} cells/s"] if self.watch.batch else shown))

    def _gradients(self, step: int) -> dict[str, float]:
        """Leave the gradients of the whole minibatch in ``.grad`` and return its losses."""
        if self.backward_of is not None:
            values = {name: float(value) for name, value in self.backward_of(step).items()}
            if not math.isfinite(sum(values.values())):
                self._not_finite(step, "loss", values)
            return values
        assert self.losses_of is not None
        with self.place.autocast(self.config.precision):
            losses = self.losses_of(step)
            total = torch.stack([loss.to(_sum_type(loss)) for loss in losses.values()]).sum()
        values = self.place.sums({name: float(loss.detach()) for name, loss in losses.items()})
        if not math.isfinite(sum(values.values())):
            self._not_finite(step, "loss", values)
        total.backward()  # type: ignore[no-untyped-call]
        self.place.reduce_gradients(self.module.parameters())
        return values

    def _not_finite(self, step: int, what: str, values: Mapping[str, float]) -> None:
        """Raise the error that names the step and its cells; all of them go into ``not_finite.json``."""
        cells = list(self.watch.cells_of(step)) if self.watch.cells_of is not None else []
        told = ""
        if cells:
            more = f" and {len(cells) - _NAMED:,} more" if len(cells) > _NAMED else ""
            told = f" Its cells: {', '.join(cells[:_NAMED])}{more}."
        if self.folder is not None and self.place.rank == 0:
            path = self.folder / "not_finite.json"
            # JSON has no NaN: values are written as text.
            shown = {name: repr(value) for name, value in values.items()}
            write_json(path, {"step": step, "what": what, "losses": shown, "cells": cells})
            told += f" See {path}." if len(cells) > _NAMED else ""
        raise CellinguaError(f"The {what} of step {step} is not finite: {dict(values)}.{told}", "", _ADVICE)

    def _validate(self) -> None:
        if self.watch.validate is None or not self.config.validate_every:
            return
        self.module.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            values = {name: float(value) for name, value in self.watch.validate(self.done).items()}
        self.module.train()
        self.log.validation(self.done, values)
        told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.progress.say(f"After {self.done:,} steps: {told}.")

    def _save(self) -> None:
        if self.folder is not None and self.done > self.saved:
            save_checkpoint(self.folder, self.module, self.optimiser, self.done, self.described, first=self.place.first)
            self.saved = self.done


def _sum_type(loss: Tensor) -> torch.dtype:
    """Return the type that losses are added in: float32 at least."""
    return torch.promote_types(loss.dtype, torch.float32)

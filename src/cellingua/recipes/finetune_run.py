"""The run of a trained method on the one training loop: defaults of each, held-out cells, early stopping."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from cellingua.core.errors import InputError
from cellingua.core.files import atomic_path, write_json
from cellingua.core.progress import Progress
from cellingua.measures.classification import macro_f1
from cellingua.measures.splits import Split, by_share, groups_by_share
from cellingua.recipes.finetune_config import FinetuneConfig, LabelledCells, class_weights
from cellingua.recipes.finetune_frozen import Classes, Linear, States, read_states
from cellingua.recipes.finetune_towers import Minibatches, Trained, build, in_groups
from cellingua.training.loop import TrainConfig, Watch, train
from cellingua.training.optimise import OptimiseConfig

if TYPE_CHECKING:
    from cellingua.models.tuned import Model

SHARE = 0.2
ENOUGH = 5  # cells of the middle class, below which none is held out unless that is asked for
BEST = "best"


@dataclass(frozen=True)
class Settings:
    """Defaults of a method: those of its paper's code where it has one; `patience` 0 is no early stopping."""

    epochs: int
    batch: int
    optimise: OptimiseConfig
    weights: str
    patience: int


_ADAM = {"weight_decay": 0.0, "betas": (0.9, 0.999), "warmup": 0.0, "clip": 1e6, "schedule": "constant"}
_LINEAR = {"weight_decay": 0.001, "betas": (0.9, 0.999), "clip": 1.0, "schedule": "linear"}
SETTINGS = {
    "lora": Settings(30, 32, OptimiseConfig(1e-3, 0.1, 0.01), "balanced", 6),
    "full": Settings(30, 32, OptimiseConfig(1e-4, 0.1, 0.01), "balanced", 6),
    # Adam at 1e-5, 10 epochs of 12, no schedule, no clipping, no validation.
    "langcell": Settings(10, 12, OptimiseConfig(1e-5, **_ADAM), "none", 0),  # type: ignore[arg-type]
    # AdamW at 5e-5, 20 epochs of 16, linear decay; the warm-up of 500 steps is a tenth of them here.
    "langcell_ce": Settings(20, 16, OptimiseConfig(5e-5, warmup=0.1, **_LINEAR), "none", 0),  # type: ignore[arg-type]
    # Adam at 1e-4, 4 minibatches of 32 a step, 100 epochs, patience 10, weights (1 - n_c / n)^2.
    "cellm": Settings(100, 128, OptimiseConfig(1e-4, **_ADAM), "cellm", 10),  # type: ignore[arg-type]
    # Adam at 1e-4, 60 minibatches of 3, unweighted; its cosine restarts are left out.
    "scbert": Settings(100, 180, OptimiseConfig(1e-4, **_ADAM), "none", 10),  # type: ignore[arg-type]
}
FEW_SHOT_RATE = 5e-3  # of langcell_ce with all but the classifier frozen, without warm-up


def settings(config: FinetuneConfig) -> Settings:
    """Return the settings of a run: the method's defaults with what the configuration says."""
    chosen = SETTINGS[config.method]
    optimise = chosen.optimise
    if config.method == "langcell_ce" and config.few_shot:
        optimise = replace(optimise, learning_rate=FEW_SHOT_RATE, warmup=0.0)
    if config.learning_rate is not None:
        optimise = replace(optimise, learning_rate=config.learning_rate)
    return Settings(
        config.epochs or chosen.epochs,
        config.batch or chosen.batch,
        optimise,
        config.class_weights or chosen.weights,
        config.patience or chosen.patience,
    )


def held_out(cells: LabelledCells, config: FinetuneConfig) -> tuple[Split, str]:
    """Return rows to train on and rows to judge by, and how they were chosen.

    Whole donors where there are two or more, as long as every class keeps a cell to be learned from; otherwise a share
    of each class. Without a share in the configuration nothing is held out of few cells.

    Raises
    ------
    InputError
        A share is asked for, there are no donors, and a class has one cell.
    """
    everything = np.arange(len(cells))
    share = SHARE if config.validation_share is None else config.validation_share
    if share == 0:
        return Split(everything, everything[:0]), "none: no share was asked for"
    sizes = Counter(cells.labels)
    if config.validation_share is None and float(np.median(list(sizes.values()))) < ENOUGH:
        return Split(everything, everything[:0]), "none: too few cells of a class"
    note = ""
    if cells.donors is not None and len(set(cells.donors)) >= 2:
        split = groups_by_share(cells.donors, 1 - share, config.seed)
        if {cells.labels[row] for row in split.train.tolist()} == set(sizes):
            return split, f"whole donors, {len(split.test):,} cells"
        note = ", since a class would have been lost with its donors"
    single = next((label for label in sorted(sizes) if sizes[label] == 1), None)
    if single is not None and config.validation_share is not None:
        raise InputError(
            f"The class {single!r} has one cell, and a validation needs another.",
            "two cells of each class, or donors",
            "leaving the class out, or no share for validation",
        )
    return by_share(cells.labels, 1 - share, config.seed), f"a share of each class{note}"


class Enough(Exception):
    """Training has not got better for as long as was asked."""


@dataclass
class Run:
    """A finished run.

    Attributes
    ----------
    net
        With its best weights.
    held_logits
        float64 (held-out cells, classes), of those weights.
    history
        A line for each validation.
    """

    net: Trained
    held_logits: NDArray[np.float64]
    history: list[dict[str, float]] = field(default_factory=list)


def train_towers(
    model: Model,
    cells: LabelledCells,
    held: LabelledCells | None,
    classes: Classes,
    config: FinetuneConfig,
    states: States,
    plain: Linear,
    folder: Path | None,
    progress: Progress,
) -> Run:
    """Train a method on `cells` and return it with the weights that did best on `held` (the last ones without it)."""
    chosen = settings(config)
    # One table of cells: those to be learned from, then those held out.
    everything, every_state = cells, states
    if held is not None:
        everything = joined(cells, held)
        every_state = read_states(model, everything, classes)
    net = build(model, everything, classes, config, every_state, plain.module())
    n, k = len(cells), len(classes.labels)
    weight = torch.tensor(class_weights(chosen.weights, states.truth, k), dtype=torch.float32, device=model.device)
    truth = torch.from_numpy(every_state.truth).to(model.device)
    minibatches = Minibatches(n, min(chosen.batch, n), config.seed)
    judge = Judge(net, np.arange(n, len(everything)), every_state.truth, minibatches.steps, chosen.patience, folder)

    def losses_of(step: int) -> Mapping[str, Tensor]:
        if judge.enough:
            raise Enough
        rows = minibatches.rows(step)
        return net.loss(rows, truth[rows], weight)

    how = TrainConfig(
        steps=chosen.epochs * minibatches.steps,
        seed=config.seed,
        checkpoint_every=max(1, minibatches.steps),
        optimise=chosen.optimise,
        validate_every=minibatches.steps if held is not None else 0,
    )
    described = {"finetune": asdict(config), "cells": n, "base": model.hash, "classes": list(classes.labels)}
    watch = Watch(validate=judge.measure if held is not None else None, batch=minibatches.size)
    try:
        train(net, losses_of, how, folder=folder, run=described, progress=progress, watch=watch)
    except Enough:
        progress.say(f"Stopped early: no better macro-F1 in {chosen.patience} epochs.")
    judge.restore()
    net.eval()
    logits = judge.logits() if held is not None else np.zeros((0, k))
    return Run(net, logits, judge.history)


def joined(first: LabelledCells, second: LabelledCells) -> LabelledCells:
    """Return the cells of both, in this order."""
    from scipy.sparse import csr_matrix, vstack

    counts = csr_matrix(vstack([first.counts, second.counts]))
    return LabelledCells(counts, np.concatenate([first.totals, second.totals]), [*first.labels, *second.labels])


def _worth(line: Mapping[str, float]) -> tuple[float, float]:
    """Return what is compared: macro-F1, and where that is equal the likelihood."""
    return line["macro_f1"], -line["log_loss"]


class Judge:
    """Measures held-out cells after each epoch, and keeps the weights that did best.

    Parameters
    ----------
    net
        What is trained.
    rows
        The held-out cells.
    truth
        Class of every cell.
    steps
        Of an epoch.
    patience
        Epochs without a better macro-F1 after which it is enough; 0 for never.
    folder
        The best weights are kept there too, so that a run that resumes knows them.
    """

    def __init__(
        self,
        net: Trained,
        rows: NDArray[np.int64],
        truth: NDArray[np.int64],
        steps: int,
        patience: int,
        folder: Path | None,
    ) -> None:
        self.net, self.rows, self.truth, self.steps, self.patience = net, rows, truth, steps, patience
        self.folder, self.history = folder, list[dict[str, float]]()
        self.best: dict[str, Tensor] = {}
        self._recall()

    @property
    def enough(self) -> bool:
        """Whether the last validations were no better than one before them."""
        if not self.patience or not self.history:
            return False
        best = max(range(len(self.history)), key=lambda place: _worth(self.history[place]))
        return len(self.history) - 1 - best >= self.patience

    def measure(self, done: int) -> dict[str, float]:
        """Judge the weights after `done` steps."""
        self.history = [line for line in self.history if line["step"] < done]
        logits = self.logits()
        truth = self.truth[self.rows]
        shifted = logits - logits.max(axis=1, keepdims=True)
        loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(truth)), truth]
        score = macro_f1(truth, logits.argmax(axis=1))
        line = {"step": float(done), "macro_f1": score, "log_loss": float(loss.mean())}
        better = all(_worth(line) > _worth(other) for other in self.history)
        self.history.append(line)
        if better:
            self._keep()
        if self.folder is not None:
            write_json(self.folder / f"{BEST}.json", {"history": self.history})
        return {"macro_f1": score, "log_loss": float(loss.mean())}

    @torch.no_grad()
    def logits(self) -> NDArray[np.float64]:
        """Return the logits of the held-out cells."""
        training = self.net.training
        self.net.eval()
        parts = [self.net.rows_logits(rows).double().cpu().numpy() for rows in in_groups(self.rows)]
        self.net.train(training)
        return np.concatenate(parts)

    def restore(self) -> None:
        """Put the best weights back, where any were judged."""
        if self.best:
            self.net.load_state_dict(self.best, strict=False)

    def _keep(self) -> None:
        trained = {name for name, weight in self.net.named_parameters() if weight.requires_grad}
        held = self.net.state_dict()
        self.best = {name: held[name].detach().clone() for name in trained}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / f"{BEST}.safetensors") as partial:
                save_file({name: tensor.cpu().contiguous() for name, tensor in self.best.items()}, partial)

    def _recall(self) -> None:
        """Take up what an earlier call of the same run has judged."""
        if self.folder is None or not (self.folder / "checkpoint" / "run.json").is_file():
            return
        if not (self.folder / f"{BEST}.json").is_file() or not len(self.rows):
            return
        done = json.loads((self.folder / "checkpoint" / "run.json").read_text(encoding="utf-8"))["step"]
        held: Any = json.loads((self.folder / f"{BEST}.json").read_text(encoding="utf-8"))
        self.history = [line for line in held["history"] if line["step"] <= done]
        if self.history:
            self.best = load_file(self.folder / f"{BEST}.safetensors")

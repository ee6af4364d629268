"""One step of the CellLM recipe through the divide-and-conquer engine, and what must hold of its encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellingua.cells.loader import Loader
from cellingua.core.errors import ConfigError
from cellingua.engine.divide_conquer import divide_conquer
from cellingua.engine.losses import InfoNCE, NTXent
from cellingua.engine.processes import Processes
from cellingua.models.cellm import CellLMModule
from cellingua.recipes.cellm_config import CellLMRecipeConfig
from cellingua.recipes.cellm_views import Labels, ViewTower


@dataclass(frozen=True)
class Prepared:
    """What a run needs besides its configuration, all of it from the corpus.

    Attributes
    ----------
    rows
        int64: the cells that are trained on.
    genes
        int64 (n,): column of each gene of the model.
    module
        Untrained.
    labels
        See `Labels`.
    class_weights
        float64 (2,): over the cells that are trained on.
    """

    rows: NDArray[np.int64]
    genes: NDArray[np.int64]
    module: CellLMModule
    labels: Labels
    class_weights: torch.Tensor


class Step:
    """One step: draws the views, redraws features where that is due, and leaves gradients in ``.grad``.

    Parameters
    ----------
    config
        See `CellLMRecipeConfig`.
    prepared
        See `Prepared`.
    loader
        Draws the two views of a step.
    processes
        Who takes part; None is every process there is.
    """

    def __init__(
        self,
        config: CellLMRecipeConfig,
        prepared: Prepared,
        loader: Loader[Any],
        processes: Processes | None = None,
    ) -> None:
        self.config, self.module, self.loader, self.processes = config, prepared.module, loader, processes
        weights = config.weights
        named = {"masked": weights.masked, "discrimination": weights.discrimination}
        self.weights = {name: weight for name, weight in named.items() if weight}
        self.tower = ViewTower(
            self.module,
            masked=weights.masked > 0,
            discriminated=weights.discrimination > 0,
            class_weights=prepared.class_weights,
        )
        contrast: Any = NTXent(config.temperature)
        if not config.within_views:
            contrast = InfoNCE(config.temperature, config.symmetric)
        self.objective = (lambda a, b: weights.contrast * contrast(a, b)) if weights.contrast else None
        self.autocast = config.train.autocast

    def __call__(self, step: int) -> dict[str, float]:
        """Return the weighted losses of step `step`, by name."""
        config = self.config
        if config.redraw_every and step and step % config.redraw_every == 0:
            # Between two optimizer steps: inside one, the second pass would see another encoder than the first.
            self.module.performer.redraw_features(torch.Generator().manual_seed(config.train.seed * 1_000_003 + step))
        result = divide_conquer(
            [self.tower, self.tower],
            list(self.loader.draw(step)),
            self.objective,
            chunk=config.chunk,
            budget=math.inf if config.keep is None else config.keep,
            seed=config.train.seed * 1_000_003 + step,
            weights=self.weights,
            autocast=self.autocast,
            processes=self.processes,
        )
        losses = {"contrast": result.parts["objective"]} if self.objective is not None else {}
        return losses | {name: weight * result.parts[name] for name, weight in self.weights.items()}


def refuse_batch_norm(module: nn.Module) -> None:
    """Raise `ConfigError` where a module normalises over the batch: its cells would depend on each other."""
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"The encoder holds {type(part).__name__} {name!r}: chunks would not add up to the batch.",
                "a normalisation within a cell, such as LayerNorm",
            )

"""What a run tells of itself on a fixed set of cells: the geometry of their states, and how well tokens are told."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellingua.cells.sources import CellRows, CellSource
from cellingua.models.cellm import CellLMModule
from cellingua.nn.batch import BinnedBatch
from cellingua.objectives.discrimination import discrimination_right
from cellingua.objectives.masked import majority_share, masked_right
from cellingua.recipes.cellm_views import View, ViewMaker
from cellingua.training.monitor import Monitor

CHUNK = 32
STEP = 0  # whose masks the fixed cells have


class Probe:
    """Measures fixed cells: geometry, accuracy over bins beside the commonest bin's, normal or cancer.

    Parameters
    ----------
    module
        What is trained.
    source, rows
        The cells.
    make
        As the minibatches are made.
    """

    def __init__(self, module: CellLMModule, source: CellSource, rows: NDArray[np.int64], make: ViewMaker) -> None:
        self.module = module
        fixed = ViewMaker(make.genes, make.bins, make.mask, make.encoder, make.labels, make.seed)
        cells: CellRows = source.read(rows)
        self.view: View = fixed(STEP, cells)[0]
        self.monitor = Monitor(module, self._encode, every=0, seed=make.seed)

    @property
    def lines(self) -> list[dict[str, float]]:
        """What was measured, a line each time."""
        return self.monitor.lines

    def measure(self, step: int) -> dict[str, float]:
        """Return everything by name; the module is in evaluation mode and stays so."""
        found = self.monitor.observe(step)
        told = {**found, **self._told()}
        self.monitor.lines[-1] |= told
        return told

    def _encode(self) -> Tensor:
        """Return the states of CLS of the cells as they are, nothing hidden."""
        parts = []
        for view in self._chunks():
            parts.append(self.module(BinnedBatch(view.levels, view.genes, view.mask)).cls)
        return torch.cat(parts)

    @torch.no_grad()
    def _told(self) -> dict[str, float]:
        right = hidden = known = named = 0
        bins = self.module.config.bins.bins + 1
        for view in self._chunks():
            states = self.module(BinnedBatch(view.tokens, view.genes, view.mask))
            targets = view.levels[view.chosen]
            right += masked_right(self.module.logits(states.hidden[view.chosen]), targets, bins)
            hidden += len(targets)
            if self.module.discriminator is not None:
                hit, n = discrimination_right(self.module.discrimination(states.cls), view.labels)
                named, known = named + hit, known + n
        told = {
            "masked_accuracy": right / max(hidden, 1),
            "majority_bin": majority_share(self.view.levels[self.view.chosen], bins),
        }
        return told | ({"discrimination_accuracy": named / known} if known else {})

    def _chunks(self) -> list[View]:
        device = self.module.performer.norm.weight.device
        parts = []
        for start in range(0, len(self.view), CHUNK):
            rows = slice(start, start + CHUNK)
            view = self.view
            part = View(
                view.tokens[rows], view.genes[rows], view.mask[rows], view.chosen[rows], view.levels[rows],
                view.labels[rows],
            )  # fmt: skip
            parts.append(part.trimmed(device))
        return parts

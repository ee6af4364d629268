"""The geometry of a fixed set of cells, logged while a model is trained.

Anisotropy must be visible before and after: the monitor runs before the first step, every so many steps, and after the
last. It reads; it moves no weight and no random state, so a run with a monitor is the run without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cellingua.core.errors import ConfigError
from cellingua.measures.geometry import (
    alignment,
    effective_rank,
    mean_cosine,
    participation_ratio,
    spectrum,
    uniformity,
    unit_rows,
)

LOG = "geometry.jsonl"
SHARES = (1, 2, 4, 8, 16, 32)


def geometry(states: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return the measures of one set of cells, by name.

    Parameters
    ----------
    states
        (n, d): without dropout, as a user gets them.
    first, second
        (n, d): the same cells in two dropout views.

    Returns
    -------
    dict
        ``alignment`` (between views), ``uniformity``, ``mean_cosine``, ``effective_rank`` of the unit vectors as they
        are, ``participation`` of their spread about the mean, and ``spectrum_k``: the share of the sum of singular
        values that the k largest hold.
    """
    rows = unit_rows(states)
    running = np.cumsum(spectrum(rows))
    return {
        "alignment": alignment(unit_rows(first), unit_rows(second)),
        "uniformity": uniformity(rows),
        "mean_cosine": mean_cosine(rows),
        "effective_rank": effective_rank(rows),
        "participation": participation_ratio(rows),
        **{f"spectrum_{k}": float(running[k - 1]) for k in SHARES if k <= len(running)},
    }


class Monitor:
    """Measures a fixed set of cells and keeps a line of floats for each time it did.

    Parameters
    ----------
    module
        What is trained; put into training mode for the two views and back again.
    encode
        Encodes the fixed cells without gradient: float (n, d). Called once in evaluation mode and twice in training
        mode, so with dropout.
    every
        Steps between measurements; 0 measures only where `observe` is told to.
    folder
        Lines go to ``geometry.jsonl`` there; None keeps them in `lines` alone.
    seed
        Of the two views.
    """

    def __init__(
        self,
        module: nn.Module,
        encode: Callable[[], Tensor],
        *,
        every: int = 100,
        folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        if every < 0:
            raise ConfigError(f"The monitor is to measure every {every} steps.", "0 (never) or more")
        self.module, self.encode, self.every, self.folder, self.seed = module, encode, every, folder, seed
        self.lines: list[dict[str, float]] = []

    def due(self, step: int) -> bool:
        """Is a measurement due after `step` steps?"""
        return self.every > 0 and step % self.every == 0

    def observe(self, step: int) -> dict[str, float]:
        """Measure now, log a line, and return it without the step."""
        training = self.module.training
        try:
            with torch.no_grad(), torch.random.fork_rng():
                states = self._encoded(train=False, seed=self.seed)
                views = [self._encoded(train=True, seed=self.seed + 1 + view) for view in range(2)]
        finally:
            self.module.train(training)
        found = geometry(states, *views)
        self.lines.append({"step": float(step), **found})
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / LOG, "a", encoding="utf-8") as handle:
                handle.write(json.dumps({"step": step, **found}) + "\n")
        return found

    def _encoded(self, *, train: bool, seed: int) -> np.ndarray:
        self.module.train(train)
        torch.manual_seed(seed)
        return np.asarray(self.encode().detach().float().cpu().numpy(), np.float64)

"""One ridge regression a drug on the features of lines: the plain baseline that a cell encoder must beat.

The penalty is chosen for each drug by leave-one-out error on its own learned lines, in closed form (Golub, Heath and
Wahba 1979), and the regression is solved in the span of its lines, so thousands of genes cost no more than hundreds.
"""

from __future__ import annotations

import numpy as np

from cellingua.baselines.drug_form import Grid, Known, checked, scaled
from cellingua.baselines.drug_mean import DrugMean
from cellingua.core.errors import InputError


class DrugRidge:
    """Ridge regression of each drug on the z-scores of the lines' features.

    Parameters
    ----------
    penalties
        Tried for each drug, in units of the mean squared length of its lines.
    least
        A drug with fewer values has its mean.
    """

    def __init__(self, penalties: tuple[float, ...] = (0.03, 0.1, 0.3, 1, 3, 10, 30), least: int = 10) -> None:
        self.penalties, self.least = penalties, least

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return the regressions for every pair."""
        there = checked(grid)
        if known.lines is None or len(known.lines) != len(grid):
            raise InputError("Ridge regression needs features for each line.", f"{len(grid)} rows of features")
        z = scaled(known.lines, there.any(axis=1))
        inner = z @ z.T
        out = DrugMean().complete(grid, known)
        for drug in range(grid.shape[1]):
            rows = np.flatnonzero(there[:, drug])
            if len(rows) >= self.least:
                out[:, drug] = self._one(inner[:, rows], rows, grid[rows, drug])
        return out

    def _one(self, inner: Grid, rows: np.ndarray, values: Grid) -> Grid:
        """Return one drug's prediction for all lines; `inner` (L, n) are inner products with its own lines."""
        # Centred on the drug's own lines: the intercept is free, as in scikit-learn.
        centre = inner[rows].mean(axis=0)
        gram = inner[rows] - centre[None, :] - centre[:, None] + centre.mean()
        cross = inner - inner.mean(axis=1, keepdims=True) - centre[None, :] + centre.mean()
        size, axes = np.linalg.eigh(gram)
        size = np.maximum(size, 0.0)
        unit = size.mean()
        mean = values.mean()
        turned = axes.T @ (values - mean)
        best: tuple[float, Grid] | None = None
        for penalty in self.penalties:
            kept = size / (size + penalty * unit + 1e-12)
            # The intercept takes 1/n of each line's own influence.
            leverage = (axes**2) @ kept + 1.0 / len(rows)
            error = float(np.mean(((values - mean - axes @ (kept * turned)) / np.maximum(1 - leverage, 1e-9)) ** 2))
            if best is None or error < best[0]:
                best = (error, axes @ (turned / (size + penalty * unit + 1e-12)))
        assert best is not None
        return np.asarray(mean + cross @ best[1])

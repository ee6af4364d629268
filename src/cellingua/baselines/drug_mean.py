"""What is known without looking at a line: the mean of all responses, and the mean of each drug."""

from __future__ import annotations

import numpy as np

from cellingua.baselines.drug_form import Grid, Known, checked


class GlobalMean:
    """The mean of all that was learned."""

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return one number for every pair."""
        return np.full(grid.shape, grid[checked(grid)].mean())


class DrugMean:
    """The mean of each drug; of a drug without any value the mean of all."""

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return one number for each drug."""
        there = checked(grid)
        count = there.sum(axis=0)
        sums = np.where(there, grid, 0.0).sum(axis=0)
        mean = np.where(count > 0, sums / np.maximum(count, 1), grid[there].mean())
        return np.repeat(mean[None, :], len(grid), axis=0)

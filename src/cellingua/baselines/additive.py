"""Drug plus line: a drug that kills everything, and a line that everything kills, without any meeting of the two."""

from __future__ import annotations

import numpy as np

from cellingua.baselines.drug_form import Grid, Known, checked


class Additive:
    """Mean + effect of the drug + effect of the line, by least squares; an effect never seen is 0.

    Parameters
    ----------
    rounds
        Of alternating between the two; both converge within a few.
    """

    def __init__(self, rounds: int = 20) -> None:
        self.rounds = rounds

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return the sum of both effects for every pair."""
        mean, line, drug = effects(grid, self.rounds)
        return mean + line[:, None] + drug[None, :]


def effects(grid: Grid, rounds: int = 20) -> tuple[float, Grid, Grid]:
    """Return the mean (of the drugs' means), the effects of lines (L,) and of drugs (D,)."""
    there = checked(grid)
    values = np.where(there, grid, 0.0)
    per_line, per_drug = np.maximum(there.sum(axis=1), 1), np.maximum(there.sum(axis=0), 1)
    line, drug = np.zeros(grid.shape[0]), np.zeros(grid.shape[1])
    for _ in range(rounds):
        drug = (values - np.where(there, line[:, None], 0.0)).sum(axis=0) / per_drug
        line = (values - np.where(there, drug[None, :], 0.0)).sum(axis=1) / per_line
    seen = there.any(axis=0)
    mean = float(drug[seen].mean())
    return mean, line, np.where(seen, drug - mean, 0.0)

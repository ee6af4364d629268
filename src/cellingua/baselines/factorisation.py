"""A table of responses as the product of two narrow ones: no expression, no chemistry.

On pairs drawn at random this alone reaches what published networks report, which is what that split is worth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellingua.baselines.additive import effects
from cellingua.baselines.drug_form import Grid, Known, checked


class Factorisation:
    """Additive effects and `rank` factors a line and drug, by alternating ridge regressions.

    Parameters
    ----------
    rank, penalty
        Of the factors; chosen on validation pairs.
    rounds, seed
        Of alternating, and of the start.
    """

    def __init__(self, rank: int = 16, penalty: float = 7.0, rounds: int = 20, seed: int = 0) -> None:
        self.rank, self.penalty, self.rounds, self.seed = rank, penalty, rounds, seed

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return the product for every pair; a line or drug without values has no factors, only the additive guess."""
        there = checked(grid)
        mean, line, drug = effects(grid)
        # Few values say little about a line's own level.
        line = line * (there.sum(axis=1) / (there.sum(axis=1) + 3.0))
        level = mean + line[:, None] + drug[None, :]
        rest = np.where(there, grid - level, 0.0)
        right = np.random.default_rng(self.seed).normal(0, 0.1, (grid.shape[1], self.rank))
        left = np.zeros((grid.shape[0], self.rank))
        for _ in range(self.rounds):
            left = _solved(right, there, rest, self.penalty)
            right = _solved(left, there.T, rest.T, self.penalty)
        return level + left @ right.T


def _solved(factors: Grid, there: NDArray[np.bool_], rest: Grid, penalty: float) -> Grid:
    """Return the ridge solution of each row on the factors of the columns where it has values."""
    gram = np.einsum("jk,jl->jkl", factors, factors).reshape(len(factors), -1)
    k = factors.shape[1]
    left = (there @ gram).reshape(-1, k, k) + penalty * np.eye(k)
    return np.linalg.solve(left, (rest @ factors)[:, :, None])[:, :, 0]

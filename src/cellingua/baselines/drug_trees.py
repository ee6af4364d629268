"""Boosted trees on components of expression and of fingerprints: the usual strong learner on tables.

The trees are scikit-learn's, which is not a dependency of cellingua: it is imported when a model is fitted.
"""

from __future__ import annotations

import numpy as np

from cellingua.baselines.drug_form import Grid, Known, checked, components, scaled
from cellingua.core.errors import InputError


class DrugTrees:
    """Histogram gradient boosting on principal components of both sides.

    Parameters
    ----------
    line_components, drug_components
        Of each side; their axes come from the lines and drugs that are learned from.
    trees, rate, leaves
        Of the boosting.
    effects
        Add the mean residual of each line, and the mean of each drug, as features; only for splits where both sides
        of a pair are known.
    seed
        Of scikit-learn.
    """

    def __init__(
        self,
        line_components: int = 50,
        drug_components: int = 50,
        trees: int = 500,
        rate: float = 0.1,
        leaves: int = 31,
        effects: bool = False,
        seed: int = 0,
    ) -> None:
        self.line_components, self.drug_components = line_components, drug_components
        self.trees, self.rate, self.leaves, self.effects, self.seed = trees, rate, leaves, effects, seed

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return the trees' answer for every pair."""
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ModuleNotFoundError as error:
            raise InputError("Boosted trees need scikit-learn.", "", "pip install scikit-learn") from error
        there = checked(grid)
        if known.lines is None or known.drugs is None:
            raise InputError("Boosted trees need features of the lines and of the drugs.")
        left = components(scaled(known.lines, there.any(axis=1)), there.any(axis=1), self.line_components)
        right = components(known.drugs.astype(np.float64), there.any(axis=0), self.drug_components)
        line, drug = np.nonzero(there)
        if self.effects:
            left, right = self._with_effects(grid, left, right)
        trees = HistGradientBoostingRegressor(
            max_iter=self.trees, learning_rate=self.rate, max_leaf_nodes=self.leaves, random_state=self.seed
        )
        trees.fit(_joined(left, right, line, drug), grid[line, drug])
        every = np.indices(grid.shape).reshape(2, -1)
        return np.asarray(trees.predict(_joined(left, right, *every)), dtype=np.float64).reshape(grid.shape)

    @staticmethod
    def _with_effects(grid: Grid, left: Grid, right: Grid) -> tuple[Grid, Grid]:
        from cellingua.baselines.additive import effects

        mean, line, drug = effects(grid)
        return np.column_stack([left, line]), np.column_stack([right, mean + drug])


def _joined(left: Grid, right: Grid, line: np.ndarray, drug: np.ndarray) -> np.ndarray:
    return np.concatenate([left[line], right[drug]], axis=1).astype(np.float32)

"""One classifier a drug on lines called sensitive or resistant: SCAD's setting, by logistic regression or a forest.

The most sensitive share of a drug's lines are called sensitive, the others resistant; a drug with few lines is left at
the share itself. The answer is the probability of being *resistant*, so that low means sensitive, as with ln IC50.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellingua.baselines.drug_form import Grid, Known, checked, scaled
from cellingua.baselines.softmax_regression import fit_softmax
from cellingua.core.errors import InputError

SHARE = 0.5
LEAST = 20  # lines of a drug


def binarised(grid: Grid, share: float = SHARE) -> Grid:
    """Return a table with 0 for the most sensitive `share` of each drug's lines, 1 for the others, NaN where unknown.

    Lines of equal value are called the same; a drug whose lines are all equal is unknown.
    """
    if not 0 < share < 1:
        raise InputError(f"A share of {share} was asked for.", "above 0 and below 1")
    out = np.full(grid.shape, np.nan)
    for drug in range(grid.shape[1]):
        rows = np.flatnonzero(np.isfinite(grid[:, drug]))
        if len(rows) and np.ptp(grid[rows, drug]) > 0:
            border = np.quantile(grid[rows, drug], share, method="lower")
            resistant = grid[rows, drug] > border
            if not resistant.any():  # so many lines share the highest value that the border is that value
                resistant = grid[rows, drug] >= border
            out[rows, drug] = resistant
    return out


class DrugLogistic:
    """Logistic regression of each drug on the z-scores of the lines' features.

    Parameters
    ----------
    share
        Of a drug's lines that are called sensitive.
    penalty
        Precision of the weights' prior, in units of the mean squared length of a line.
    """

    def __init__(self, share: float = SHARE, penalty: float = 2.5) -> None:
        self.share, self.penalty = share, penalty

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return the probability of resistance for every pair."""
        z, table, out = _prepared(grid, known, self.share)
        for drug, rows, resistant in _drugs(table):
            unit = float((z[rows] ** 2).sum(axis=1).mean())
            fitted = fit_softmax(z[rows], resistant, 2, penalty=self.penalty * unit, bias_penalty=0.0)
            logits = fitted.logits(z)
            out[:, drug] = 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -500, 500)))
        return out


class DrugForest:
    """A random forest for each drug; scikit-learn's, which is imported when one is fitted.

    Parameters
    ----------
    share
        Of a drug's lines that are called sensitive.
    trees, seed
        Of the forest.
    """

    def __init__(self, share: float = SHARE, trees: int = 200, seed: int = 0) -> None:
        self.share, self.trees, self.seed = share, trees, seed

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return the share of trees that say resistant, for every pair."""
        try:
            from sklearn.ensemble import RandomForestClassifier
        except ModuleNotFoundError as error:
            raise InputError("A random forest needs scikit-learn.", "", "pip install scikit-learn") from error
        z, table, out = _prepared(grid, known, self.share)
        for drug, rows, resistant in _drugs(table):
            forest = RandomForestClassifier(self.trees, min_samples_leaf=3, random_state=self.seed, n_jobs=1)
            out[:, drug] = forest.fit(z[rows], resistant).predict_proba(z)[:, 1]
        return out


def _prepared(grid: Grid, known: Known, share: float) -> tuple[Grid, Grid, Grid]:
    """Return features as z-scores, the binarised table, and an answer that knows nothing yet."""
    there = checked(grid)
    if known.lines is None or len(known.lines) != len(grid):
        raise InputError("A classifier needs features for each line.", f"{len(grid)} rows of features")
    return scaled(known.lines, there.any(axis=1)), binarised(grid, share), np.full(grid.shape, 1 - share)


def _drugs(table: Grid) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Return (drug, rows, resistant or not) of the drugs with enough lines."""
    found = []
    for drug in range(table.shape[1]):
        rows = np.flatnonzero(np.isfinite(table[:, drug]))
        if len(rows) >= LEAST:
            found.append((drug, rows, table[rows, drug].astype(np.int64)))
    return found

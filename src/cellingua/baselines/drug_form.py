"""The one form of every drug baseline: a table of responses with holes and features of lines in, a full table out.

A baseline sees ``grid`` (L, D): ln IC50 of lines and drugs, NaN where a pair is not to be learned from. Its answer is
a table of the same shape without holes. What it may use besides stands in `Known`; scaling is always fitted on the
lines, or drugs, that have a value in the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cellingua.core.errors import InputError

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What is known of lines and drugs without any response.

    Attributes
    ----------
    lines
        float (L, F): features of the lines, such as expression; NaN where absent. None: nothing.
    drugs
        float (D, G): features of the drugs, such as fingerprints. None: nothing.
    """

    lines: Grid | None = None
    drugs: Grid | None = None


class DrugBaseline(Protocol):
    """A guess at every pair."""

    def complete(self, grid: Grid, known: Known) -> Grid:
        """Return float64 (L, D): a prediction for every pair, from the values of `grid` alone."""


def checked(grid: Grid) -> NDArray[np.bool_]:
    """Return where `grid` has values; refuse one that is no table or has none."""
    there: NDArray[np.bool_] = np.asarray(np.isfinite(grid))
    if grid.ndim != 2 or not there.any():
        raise InputError(
            f"A grid of the shape {grid.shape} with {int(there.sum())} values.", "lines x drugs, some known"
        )
    return there


def scaled(values: Grid, learned: Any, limit: float = 5.0) -> Grid:
    """Return features as z-scores over the rows that are learned from, absent and constant ones as 0.

    Parameters
    ----------
    values
        (n, F), NaN where absent.
    learned
        bool (n,).
    limit
        Largest z-score: an unseen outlier must not outweigh all other features.
    """
    rows = values[learned]
    there = np.isfinite(rows)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, rows, 0.0).sum(axis=0) / count
    sd = np.sqrt(np.where(there, (rows - mean) ** 2, 0.0).sum(axis=0) / count)
    z = np.where(sd > 1e-8, (values - mean) / np.maximum(sd, 1e-8), 0.0)
    return np.clip(np.where(np.isfinite(z), z, 0.0), -limit, limit)


def components(values: Grid, learned: Any, number: int) -> Grid:
    """Return the leading principal components (n, number) of features whose axes come from the learned rows."""
    z = values[learned] - values[learned].mean(axis=0)
    _, _, axes = np.linalg.svd(z, full_matrices=False)
    return (values - values[learned].mean(axis=0)) @ axes[:number].T

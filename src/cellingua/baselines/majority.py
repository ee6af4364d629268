"""Always the commonest label: what nothing has to be known for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.form import Floats, Labels, coded


class Majority:
    """Gives every cell the shares of the labels it learned from; the commonest is the answer, the first of equals."""

    def __init__(self) -> None:
        self.classes: NDArray[np.str_] = np.zeros(0, np.str_)
        self._shares: Floats = np.zeros(0)

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> Majority:
        """Count the labels."""
        self.classes, codes = coded(labels, counts.shape[0])
        self._shares = np.bincount(codes) / len(codes)
        return self

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the same row for every cell, float64 (n, K)."""
        return np.tile(self._shares, (counts.shape[0], 1))

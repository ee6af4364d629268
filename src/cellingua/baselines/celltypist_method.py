"""CellTypist's method: one-vs-rest logistic regression on scaled log1p of counts per 10,000, with its defaults.

Source: ``celltypist.train`` 1.7.1 (Dominguez Conde et al. 2022, Science 376:eabl5197): genes without a count are left
out, each gene is brought to mean 0 and standard deviation 1, values above 10 are cut, C = 1, L-BFGS. The package
itself asks scikit-learn for ``multi_class="ovr"``, which current versions no longer have; so this is its method on the
same cells, not its package, and none of its trained models.

As elsewhere, weights are found in the span of the training cells: the same optimum, with n numbers a cell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.form import Floats, Labels, coded
from cellingua.baselines.normalise import log_normalised
from cellingua.baselines.softmax_regression import fit_softmax

CUT = 10.0
BLOCK = 512  # cells that are dense at once
STEPS = 1000  # CellTypist's, below 50,000 cells


class CellTypistMethod:
    """One-vs-rest logistic regression with CellTypist's defaults.

    Parameters
    ----------
    c
        Inverse strength of the penalty.
    """

    def __init__(self, c: float = 1.0) -> None:
        self.c = c
        self.classes: NDArray[np.str_] = np.zeros(0, np.str_)
        self.weights: Floats = np.zeros((0, 0))
        self.intercepts: Floats = np.zeros(0)
        self._columns: NDArray[np.int64] = np.zeros(0, np.int64)
        self._mean: Floats = np.zeros(0)
        self._spread: Floats = np.zeros(0)

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> CellTypistMethod:
        """Scale the genes and fit one classifier a class."""
        self.classes, codes = coded(labels, counts.shape[0])
        values = log_normalised(counts, totals)
        self._columns = np.flatnonzero(values.getnnz(axis=0))
        held = values[:, self._columns].astype(np.float64)
        self._mean = np.asarray(held.mean(axis=0)).ravel()
        square = np.asarray(held.multiply(held).mean(axis=0)).ravel()
        spread = np.sqrt(np.maximum(square - self._mean**2, 0.0))
        self._spread = np.where(spread > 1e-7, spread, 1.0)
        scaled = np.concatenate([self._scaled(held, start) for start in range(0, held.shape[0], BLOCK)])
        size, vectors = np.linalg.eigh(scaled @ scaled.T)
        kept = size > max(size[-1], 0.0) * 1e-12
        root = np.sqrt(size[kept])
        weights, intercepts = [], []
        for code in range(len(self.classes)):
            # Two classes of a softmax share the weights of a logistic regression between them: half the penalty each.
            found = fit_softmax(
                vectors[:, kept] * root, (codes == code).astype(np.int64), 2, penalty=2 / self.c, bias_penalty=0.0,
                tolerance=1e-4 / self.c, steps=STEPS,
            )  # fmt: skip
            weights.append(found.weights[:, 1] - found.weights[:, 0])
            intercepts.append(found.bias[1] - found.bias[0])
        self.weights = np.asarray(scaled.T @ ((vectors[:, kept] / root) @ np.stack(weights, axis=1)))
        self.intercepts = np.array(intercepts)
        return self

    def decision(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the log odds of each class against the rest, float64 (n, K)."""
        held = log_normalised(counts, totals)[:, self._columns].astype(np.float64)
        parts = [self._scaled(held, start) @ self.weights for start in range(0, held.shape[0], BLOCK)]
        return np.concatenate([*parts, np.zeros((0, len(self.classes)))]) + self.intercepts

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the probabilities of the classifiers, brought to a sum of 1, float64 (n, K)."""
        odds = self.decision(counts, totals)
        # From the largest down, so that a cell that every classifier refuses has shares, too.
        likely = -np.logaddexp(0.0, -odds)
        shares = np.exp(likely - likely.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def _scaled(self, values: csr_matrix, start: int) -> Floats:
        """Return a block of cells as the classifiers see it."""
        part = values[start : start + BLOCK].toarray()
        return np.minimum((part - self._mean) / self._spread, CUT)

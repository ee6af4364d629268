"""Multinomial logistic regression on log-normalised counts, solved exactly by L-BFGS in the span of its cells.

The objective is scikit-learn's: ``C * sum of cross-entropies + |w|^2 / 2``, intercepts free. Because of the penalty
the weights lie in the span of the training cells, so the problem is solved on the coordinates of the cells in an
orthonormal basis of that span: n numbers a cell instead of tens of thousands of genes, and the same optimum. Tests
compare with scikit-learn on the genes themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.form import Floats, Labels, coded, softmax
from cellingua.baselines.normalise import Components, axes_of, inner_products, log_normalised
from cellingua.baselines.softmax_regression import fit_softmax


class LogisticRegression:
    """Logistic regression on log-normalised counts.

    Parameters
    ----------
    c
        Inverse strength of the penalty (scikit-learn's ``C``, and its default).
    components
        None: all genes. A number: so many principal components of the training cells. A `Components` that is fitted
        already: its axes, which may have seen other cells without their labels. Coordinates are not scaled.
    tolerance, steps
        L-BFGS stops where no entry of the gradient is larger, or after so many steps.

    Attributes
    ----------
    weights, intercepts
        float64 (features, K) and (K,).
    """

    def __init__(
        self, c: float = 1.0, components: int | Components | None = None, *, tolerance: float = 1e-4, steps: int = 1000
    ) -> None:
        self.c, self.tolerance, self.steps = c, tolerance, steps
        self.components = components
        self._axes: Components | None = None
        self.classes: NDArray[np.str_] = np.zeros(0, np.str_)
        self.weights: Floats = np.zeros((0, 0))
        self.intercepts: Floats = np.zeros(0)

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> LogisticRegression:
        """Find the optimum; with one class alone there is nothing to find."""
        self.classes, codes = coded(labels, counts.shape[0])
        values = log_normalised(counts, totals)
        self._axes = axes_of(self.components, values)
        if self._axes is not None:
            values = csr_matrix(self._axes.transform(values))
        coordinates, back = _span(values)
        found = fit_softmax(
            coordinates,
            codes,
            len(self.classes),
            penalty=1 / self.c,
            bias_penalty=0.0,
            tolerance=self.tolerance / self.c,
            steps=self.steps,
        )
        self.weights, self.intercepts = found.weights, found.bias
        if back is not None:
            self.weights = np.asarray(values.T @ (back @ found.weights))
        return self

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the probabilities, float64 (n, K)."""
        values = log_normalised(counts, totals)
        if self._axes is None:
            return softmax(np.asarray(values @ self.weights) + self.intercepts)
        return softmax(self._axes.transform(values) @ self.weights + self.intercepts)


def _span(values: csr_matrix) -> tuple[Floats, Floats | None]:
    """Return the rows of `values` (n, genes) in an orthonormal basis of their span, and how to come back.

    Weights w (rank, K) there are the weights ``values.T @ (back @ w)`` of the genes. With fewer genes than cells
    nothing is gained: the rows themselves come, and None.
    """
    if values.shape[1] <= values.shape[0]:
        return values.toarray().astype(np.float64), None
    size, vectors = np.linalg.eigh(inner_products(values))
    kept = size > max(size[-1], 0.0) * 1e-12
    root = np.sqrt(size[kept])
    return vectors[:, kept] * root, vectors[:, kept] / root

"""The class whose mean cell is most alike: one profile a class, compared by correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.form import Floats, Labels, coded, softmax
from cellingua.baselines.normalise import log_normalised

SHARPNESS = 50.0


class NearestCentroid:
    """Pearson correlation with the mean log-normalised cell of each class.

    Parameters
    ----------
    sharpness
        Correlations are multiplied by it before the softmax. It shapes the probabilities and changes no answer.
    """

    def __init__(self, sharpness: float = SHARPNESS) -> None:
        self.sharpness = sharpness
        self.classes: NDArray[np.str_] = np.zeros(0, np.str_)
        self._centroids: Floats = np.zeros((0, 0))

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> NearestCentroid:
        """Take the mean of each class."""
        self.classes, codes = coded(labels, counts.shape[0])
        members = csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
        sums = np.asarray((members @ log_normalised(counts, totals).astype(np.float64)).todense())
        means = sums / np.bincount(codes)[:, None]
        centred = means - means.mean(axis=1, keepdims=True)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        self._centroids = centred / np.where(length > 0, length, 1.0)
        return self

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the softmax of the correlations, float64 (n, K); equal shares for a cell without any count."""
        values = log_normalised(counts, totals).astype(np.float64)
        genes = values.shape[1]
        mean = np.asarray(values.sum(axis=1)).ravel() / genes
        square = np.asarray(values.multiply(values).sum(axis=1)).ravel() - genes * mean**2
        # Centroids sum to zero, so that the mean of the cell drops out of the product.
        product = np.asarray(values @ self._centroids.T)
        length = np.sqrt(np.maximum(square, 0.0))
        return softmax(self.sharpness * product / np.where(length > 0, length, 1.0)[:, None])

"""The labels of the nearest training cells, on log-normalised counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.baselines.form import Floats, Labels, coded
from cellingua.baselines.normalise import Components, axes_of, log_normalised
from cellingua.core.errors import InputError

METRICS = ("cosine", "euclid")
BLOCK = 1024  # cells whose distances are held at once


class Neighbours:
    """k nearest neighbours.

    Parameters
    ----------
    k
        Neighbours, at most; never more than the median number of training cells of a class, so that with one cell of
        each class the nearest alone answers.
    metric
        ``euclid``: distance; ``cosine``: one less the cosine.
    components
        None: all genes. A number: so many principal components of the training cells. A `Components` that is fitted
        already: its axes. Without components cosines are between log-normalised cells as they are; with them, between
        centred coordinates.

    Notes
    -----
    Of the classes with equally many neighbours, the one whose neighbours are nearer together is the answer: a vote
    counts 1, and up to half of one vote, over all, is given by nearness.
    """

    def __init__(self, k: int = 5, metric: str = "cosine", components: int | Components | None = None) -> None:
        if metric not in METRICS or k < 1:
            raise InputError(f"{k} neighbours by {metric!r} were asked for.", f"k >= 1, a metric of {METRICS}")
        self.k, self.metric, self.components = k, metric, components
        self.classes: NDArray[np.str_] = np.zeros(0, np.str_)
        self._codes: NDArray[np.int64] = np.zeros(0, np.int64)
        self._used = k
        self._axes: Components | None = None
        self._cells: Floats | csr_matrix = np.zeros((0, 0))

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> Neighbours:
        """Keep the cells."""
        self.classes, self._codes = coded(labels, counts.shape[0])
        self._used = int(np.clip(np.median(np.bincount(self._codes)), 1, self.k))
        values = log_normalised(counts, totals)
        self._axes = axes_of(self.components, values)
        self._cells = self._features(values)
        return self

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return the shares of the votes, float64 (n, K)."""
        values = log_normalised(counts, totals)
        votes = np.zeros((counts.shape[0], len(self.classes)))
        for start in range(0, len(votes), BLOCK):
            distance = self._distances(self._features(values[start : start + BLOCK]))
            nearest = np.argsort(distance, axis=1, kind="stable")[:, : self._used]
            near = np.take_along_axis(distance, nearest, axis=1)
            reach = near[:, -1:] - near[:, :1]
            closer = np.where(reach > 0, (near[:, -1:] - near) / np.where(reach > 0, reach, 1.0), 0.0)
            weight = 1.0 + 0.5 * closer / self._used
            rows = np.arange(start, start + len(near))[:, None]
            np.add.at(votes, (rows, self._codes[nearest]), weight)
        return votes / votes.sum(axis=1, keepdims=True)

    def _features(self, values: csr_matrix) -> Floats | csr_matrix:
        """Return what distances are taken between: rows of unit length for cosine."""
        if self._axes is not None:
            scores = self._axes.transform(values)
            if self.metric == "euclid":
                return scores
            length = np.linalg.norm(scores, axis=1, keepdims=True)
            return scores / np.where(length > 0, length, 1.0)
        rows = values.astype(np.float64)
        if self.metric == "cosine":
            length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
            rows.data /= np.repeat(np.where(length > 0, length, 1.0), np.diff(rows.indptr))
        return rows

    def _distances(self, cells: Floats | csr_matrix) -> Floats:
        """Return squared distances (n, training cells): for unit rows, twice one less the cosine."""
        inner = cells @ self._cells.T
        inner = inner if isinstance(inner, np.ndarray) else inner.toarray()
        return np.asarray(_squares(cells)[:, None] + _squares(self._cells)[None, :] - 2.0 * inner)


def _squares(rows: Floats | csr_matrix) -> Floats:
    if isinstance(rows, np.ndarray):
        return np.asarray((rows * rows).sum(axis=1))
    return np.asarray(rows.multiply(rows).sum(axis=1)).ravel()

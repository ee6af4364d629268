"""What counts are before a plain classifier sees them: log-normalised, and, if wanted, on principal components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.core.errors import InputError

TARGET = 1e4
GENES = 1024  # that are dense at once


def log_normalised(
    counts: csr_matrix, totals: NDArray[np.floating] | None = None, target: float = TARGET
) -> csr_matrix:
    """Return ``log(1 + count / total * target)``, CSR float32 with the zeros of `counts` (n, genes).

    Parameters
    ----------
    totals
        (n,): all counts of each cell; by default the row sums. A cell without any count stays zero.
    """
    values = csr_matrix(counts, dtype=np.float32, copy=True)
    total = np.asarray(values.sum(axis=1) if totals is None else totals, np.float64).ravel()
    if len(total) != values.shape[0]:
        raise InputError(f"{len(total):,} totals for {values.shape[0]:,} cells.", "one total a cell")
    scale = target / np.where(total > 0, total, 1.0)
    values.data = np.log1p(values.data * np.repeat(scale, np.diff(values.indptr))).astype(np.float32)
    return values


class Components:
    """Principal components of the cells that it is fitted on.

    With fewer cells than genes they follow from the cells' inner products alone, which are exact and never need a
    dense matrix of all genes. The sign of a component is free; here its largest weight is positive.

    Parameters
    ----------
    n
        How many, at most; there are never more than cells less one.

    Attributes
    ----------
    axes
        float64 (genes, k): orthonormal columns.
    mean
        float64 (genes,): of the fitted cells.
    """

    def __init__(self, n: int = 50) -> None:
        self.n = n
        self.axes: NDArray[np.float64] = np.zeros((0, 0))
        self.mean: NDArray[np.float64] = np.zeros(0)

    def fit(self, values: csr_matrix) -> Components:
        """Learn the axes from `values`, CSR (n, genes), and return itself."""
        rows = values.astype(np.float64)
        self.mean = np.asarray(rows.mean(axis=0)).ravel()
        gram = inner_products(rows)
        gram -= gram.mean(axis=0, keepdims=True)
        gram -= gram.mean(axis=1, keepdims=True)  # the inner products of the centred cells
        variance, vectors = np.linalg.eigh(gram)
        kept = np.argsort(variance)[::-1][: self.n]
        kept = kept[variance[kept] > max(variance[-1], 0.0) * 1e-10]
        vectors = vectors[:, kept] / np.sqrt(variance[kept])
        # centred rows, transposed, times the eigenvectors: the mean is taken off afterwards, and nothing gets dense
        axes = rows.T @ vectors - np.outer(self.mean, vectors.sum(axis=0))
        largest = np.abs(axes).argmax(axis=0) if len(kept) else np.zeros(0, np.int64)
        self.axes = axes * np.sign(axes[largest, np.arange(len(kept))])
        return self

    def transform(self, values: csr_matrix) -> NDArray[np.float64]:
        """Return the coordinates of `values` (n, genes) on the axes, float64 (n, k)."""
        return np.asarray(values @ self.axes - self.mean @ self.axes)


def inner_products(values: csr_matrix) -> NDArray[np.float64]:
    """Return ``values @ values.T``, float64 (n, n).

    Some hundred genes at a time are made dense: with a few thousand cells that is ten times as fast as a product of
    sparse matrices, and takes no more memory than the answer.
    """
    columns = values.tocsc()
    out = np.zeros((values.shape[0], values.shape[0]))
    for start in range(0, values.shape[1], GENES):
        part = columns[:, start : start + GENES].toarray().astype(np.float64)
        part = part[:, part.any(axis=0)]
        out += part @ part.T
    return out


def axes_of(components: int | Components | None, values: csr_matrix) -> Components | None:
    """Return components as a classifier was asked for them: none, so many of these cells, or those that are given."""
    return Components(components).fit(values) if isinstance(components, int) else components

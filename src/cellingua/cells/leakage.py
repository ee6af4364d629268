"""Keep evaluation cells out of training data: refuse a training cell that is one of them, also when thinned.

A cell matches an evaluation cell where they carry one barcode and the same counts, or where their log-normalised
expression correlates above 0.9 (Pearson) over at least 200 genes that both express. Log-normalised values are used
because raw counts of innocent blood cells already correlate that much through their ribosomal genes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

CORRELATION = 0.9
SHARED_GENES = 200
_BARCODE = re.compile(r"[ACGT]{8,}", re.IGNORECASE)
_ROWS = 1024


@dataclass(frozen=True)
class Refusals:
    """Which training cells match an evaluation cell.

    Attributes
    ----------
    by_barcode, by_correlation
        bool (cells,).
    """

    by_barcode: NDArray[np.bool_]
    by_correlation: NDArray[np.bool_]

    @property
    def refused(self) -> NDArray[np.bool_]:
        """bool (cells,): matched in either way."""
        return self.by_barcode | self.by_correlation

    def share(self) -> float:
        """Return the share of cells refused (0 of none)."""
        return float(self.refused.mean()) if len(self.refused) else 0.0


def find_matches(
    counts: csr_matrix,
    names: NDArray[np.str_],
    evaluation: csr_matrix,
    evaluation_names: NDArray[np.str_],
) -> Refusals:
    """Compare training cells with evaluation cells over the same genes.

    Parameters
    ----------
    counts, evaluation
        CSR (cells, genes), raw counts, columns the same genes.
    names, evaluation_names
        Names of the cells; the barcode is the longest run of A, C, G, T (at least 8) in a name.
    """
    return Refusals(
        _same_barcode_and_counts(counts, names, evaluation, evaluation_names), _correlated(counts, evaluation)
    )


def log_normalised(counts: csr_matrix) -> csr_matrix:
    """Return log1p of counts per 10,000, float32 CSR; empty cells stay empty."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scale = np.divide(1e4, totals, out=np.zeros(len(totals)), where=totals > 0)
    data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr))).astype(np.float32)
    return csr_matrix((data, counts.indices, counts.indptr), counts.shape)


def _barcode(name: str) -> str:
    return max(_BARCODE.findall(name), key=len, default="").upper()


def _same_barcode_and_counts(
    counts: csr_matrix, names: NDArray[np.str_], evaluation: csr_matrix, evaluation_names: NDArray[np.str_]
) -> NDArray[np.bool_]:
    """Is there an evaluation cell of one barcode whose counts agree on the genes that both files measure?"""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(evaluation_names):
        if barcode := _barcode(str(name)):
            rows.setdefault(barcode, []).append(row)
    ours = counts.getnnz(axis=0) > 0
    theirs = evaluation.getnnz(axis=0) > 0
    both = np.flatnonzero(ours & theirs)
    found = np.zeros(counts.shape[0], bool)
    for row, name in enumerate(names):
        for other in rows.get(_barcode(str(name)), ()):
            a, b = counts[row].toarray()[0, both], evaluation[other].toarray()[0, both]
            found[row] |= bool(a.any() and np.array_equal(a, b))
    return found


def _correlated(counts: csr_matrix, evaluation: csr_matrix) -> NDArray[np.bool_]:
    """Does a cell correlate above the bar with any evaluation cell, over the genes that both express?

    All sums that Pearson's r over the shared genes needs are matrix products of values, squares and presence.
    """
    genes = np.flatnonzero(evaluation.getnnz(axis=0) > 0)
    right = log_normalised(evaluation)[:, genes].toarray().T
    right_present = (right > 0).astype(np.float32)
    right_square = right * right
    left = log_normalised(counts)[:, genes]
    found = np.zeros(counts.shape[0], bool)
    for start in range(0, counts.shape[0], _ROWS):
        x = left[start : start + _ROWS].toarray()
        present = (x > 0).astype(np.float32)
        n = present @ right_present
        sum_x, sum_y = x @ right_present, present @ right
        covariance = n * (x @ right) - sum_x * sum_y
        variance_x = n * ((x * x) @ right_present) - sum_x**2
        variance_y = n * (present @ right_square) - sum_y**2
        # r > 0.9 without dividing: rows whose variance is zero (or rounds below) can't correlate.
        spread = np.sqrt(np.maximum(variance_x, 0) * np.maximum(variance_y, 0))
        match = (covariance > CORRELATION * spread) & (spread > 0) & (n >= SHARED_GENES)
        found[start : start + _ROWS] = match.any(axis=1)
    return found

"""The one form of every baseline: counts and labels in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.core.errors import InputError

Floats = NDArray[np.float64]
Labels = Sequence[str] | NDArray[Any]


class Baseline(Protocol):
    """A classifier of cells.

    Attributes
    ----------
    classes
        str (K,): the labels it learned, sorted; the columns of its probabilities.
    """

    classes: NDArray[np.str_]

    def fit(self, counts: csr_matrix, labels: Labels, totals: Floats | None = None) -> Baseline:
        """Learn from labelled cells and return itself.

        Parameters
        ----------
        counts
            CSR (n, genes): raw counts.
        labels
            Label of each cell (n,), none of them empty.
        totals
            (n,): all counts of each cell, those of genes that have no column included; by default the row sums.
        """

    def predict_proba(self, counts: csr_matrix, totals: Floats | None = None) -> Floats:
        """Return float64 (n, K), each row summing to 1; a row depends on its own cell alone."""


def predicted(baseline: Baseline, counts: csr_matrix, totals: Floats | None = None) -> NDArray[np.str_]:
    """Return the likeliest label of each cell; the first in order where several are equally likely."""
    return baseline.classes[baseline.predict_proba(counts, totals).argmax(axis=1)]


def coded(labels: Labels, n: int) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the sorted classes and the class number of each of `n` cells.

    Raises
    ------
    InputError
        No cell, another number of labels than of cells, or an empty label.
    """
    names = np.asarray(labels, dtype=np.str_)
    if names.shape != (n,) or not n:
        raise InputError(f"{n:,} cells have labels of the shape {names.shape}.", "one label a cell, at least one cell")
    if (names == "").any():
        raise InputError(
            f"{int((names == '').sum()):,} of {n:,} cells have no label.", "a label for each", "leaving them out"
        )
    classes, codes = np.unique(names, return_inverse=True)
    return classes, codes.astype(np.int64)


def softmax(logits: Floats) -> Floats:
    """Return probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))

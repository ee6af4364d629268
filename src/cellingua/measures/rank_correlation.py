"""Rank correlation of many rows at once, and the genes that tell two profiles apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

NO_SPREAD = 1e-6  # length from which on a centred row is more than rounding


def unit_rows(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return each row centred and of unit length, float64; zeros for a row without differences.

    The product of two such rows is their Pearson correlation.
    """
    centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > NO_SPREAD)


def unit_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return `unit_rows` of the ranks within each row, ties shared: products are Spearman's correlation."""
    return unit_rows(rankdata(values, axis=1))


def telling_genes(first: NDArray[np.floating], second: NDArray[np.floating], each_way: int) -> NDArray[np.int64]:
    """Return the genes by which either of two profiles (g,) is higher, at most `each_way` of each; ties by place."""
    order = np.argsort(first - second, kind="stable")
    return order if len(order) <= 2 * each_way else np.concatenate([order[:each_way], order[-each_way:]])

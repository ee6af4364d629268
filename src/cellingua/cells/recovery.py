"""Counts from normalised values, where it can be proved.

Normalising multiplies the counts of a cell by one number and then takes a logarithm. So if some logarithm is
undone and one scale a cell turns every value into a whole number, these are the counts (up to a common factor
of all counts of that cell). Chance does not do that: a value lies within the tolerance of a whole number with
a probability of about 0.01, and hundreds of values are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
INVERSES: dict[str, Callable[[Floats], Floats]] = {
    "log1p": np.expm1,
    "none": lambda x: x,
    "log2(1+x)": lambda x: np.exp2(x) - 1,
    "log10(1+x)": lambda x: np.power(10.0, x) - 1,
    "log1p twice": lambda x: np.expm1(np.expm1(x)),
    "sqrt": np.square,
}
SPOKEN = {
    "log1p": "log1p-normalised values (natural logarithm)",
    "none": "normalised values (no logarithm)",
    "log2(1+x)": "log2(1 + x)-normalised values",
    "log10(1+x)": "log10(1 + x)-normalised values",
    "log1p twice": "values whose logarithm was taken twice",
    "sqrt": "square roots of normalised values",
}
TOLERANCE = 2e-3  # of small counts; float32 logarithms of counts near 1,000 are off by about 1e-3
RELATIVE_TOLERANCE = 4e-6
SKEW = 8.0  # the largest values of a cell exceed its median more than that, unless a logarithm was taken
LARGEST_PROOF = 2000.0  # beyond, float32 can't tell neighbours apart, so larger values prove nothing
LARGEST_UNIT = 6  # smallest count of a cell that is tried
INFORMATIVE = 20  # values other than the unit that a proof needs
# Larger values are no such logarithm: no cell has 10 million counts, or values per million above that.
LARGEST_LOG = {"log1p": 16.2, "log2(1+x)": 23.3, "log10(1+x)": 7.1, "log1p twice": 2.9}


@dataclass(frozen=True)
class Recovery:
    """How counts are made from the values of a file.

    Attributes
    ----------
    transform
        The logarithm to undo, a key of `INVERSES`.
    exact
        True: the values are counts times one scale a cell, and counts are given back. False: the values are
        only relative expression within a cell.
    largest_distance
        Largest distance to a whole number met in the proof (NaN if not exact).
    target
        Sum of a cell's values once the logarithm is undone, where it is the same for all cells, else NaN.
    """

    transform: str
    exact: bool
    largest_distance: float = float("nan")
    target: float = float("nan")

    def apply(self, values: csr_matrix) -> csr_matrix:
        """Return counts (or relative expression), float64, for the rows of `values`.

        A cell that the proof fails for (it was outside the sample) keeps its relative values, its smallest at 1.
        """
        undone = undo(values, self.transform)
        if not self.exact:
            return undone
        whole, _, proved = whole_numbers(undone)
        lengths = np.diff(undone.indptr)
        keep = np.repeat(proved, lengths)
        scaled = undone.data / np.repeat(row_minimum(undone), lengths)
        return csr_matrix((np.where(keep, whole, scaled), undone.indices, undone.indptr), shape=undone.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "transform": self.transform,
            "exact": self.exact,
            "largest_distance": None if np.isnan(self.largest_distance) else self.largest_distance,
            "target": None if np.isnan(self.target) else self.target,
        }


def undo(values: csr_matrix, transform: str) -> csr_matrix:
    """Return float64 `values` with the logarithm undone, without stored zeros."""
    with np.errstate(over="ignore"):
        data = INVERSES[transform](values.data.astype(np.float64))
    undone = csr_matrix((data, values.indices.copy(), values.indptr.copy()), shape=values.shape)
    undone.eliminate_zeros()
    return undone


def row_minimum(values: csr_matrix) -> Floats:
    """Return the smallest stored value of each row (1 for empty rows)."""
    return _by_row(np.minimum, values.data, values.indptr, empty=1.0)


def _by_row(reduce: np.ufunc, data: Floats, indptr: NDArray[Any], *, empty: float = 0.0) -> Floats:
    """Return what `reduce` makes of the stored values of each row; `empty` for a row without one."""
    found = np.full(indptr.size - 1, empty)
    filled = np.flatnonzero(np.diff(indptr))
    if filled.size:
        found[filled] = reduce.reduceat(data, indptr[filled])
    return found


def whole_numbers(values: csr_matrix) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Look for one scale a row that makes every value a whole number.

    Parameters
    ----------
    values
        float64, positive, no stored zeros.

    Returns
    -------
    whole
        The whole numbers in the order of ``values.data`` (of no meaning in rows without proof).
    distance
        (rows,): largest distance of a value up to `LARGEST_PROOF` to its whole number.
    proved
        bool (rows,): every such value lies within the tolerance.
    """
    lengths = np.diff(values.indptr)
    unit = row_minimum(values)
    whole = np.zeros(values.data.size)
    distance = np.full(values.shape[0], np.inf)
    proved = np.zeros(values.shape[0], bool)
    for smallest in range(1, LARGEST_UNIT + 1):
        rows = np.flatnonzero(~proved)
        if not rows.size:
            break
        part = values[rows]
        spread = np.repeat(unit[rows] / smallest, lengths[rows])
        rounded = np.rint(part.data / spread)
        # All values together give the scale more precisely than the smallest alone.
        sums = _by_row(np.add, part.data, part.indptr)
        scale = sums / np.maximum(_by_row(np.add, rounded, part.indptr), 1)
        counts = part.data / np.repeat(np.where(scale > 0, scale, 1.0), lengths[rows])
        rounded = np.rint(counts)
        off = np.where(counts <= LARGEST_PROOF, np.abs(counts - rounded), 0.0)
        within = _by_row(np.maximum, off - RELATIVE_TOLERANCE * counts, part.indptr) <= TOLERANCE
        fine = rows[within]
        distance[fine] = _by_row(np.maximum, off, part.indptr)[within]
        proved[fine] = True
        entries = np.repeat(within, lengths[rows])
        where = np.flatnonzero(np.repeat(np.isin(np.arange(values.shape[0]), rows), lengths))
        whole[where[entries]] = rounded[entries]
    return whole, distance, proved


def find_recovery(sample: csr_matrix) -> Recovery:
    """Find how counts can be had from a sample of rows of non-negative values that are no counts.

    Returns
    -------
    Recovery
        Exact where at least 99.5 % of the cells that have values are proved, else the most plausible
        logarithm: the one after whose undoing the sums of all cells are equal (within 2 %, then `target` is
        set) or much nearer to equal than by the others, else the natural one.
    """
    if not sample.nnz:
        return Recovery("log1p", False)
    largest = float(sample.data.max())
    plausible = [name for name in INVERSES if largest <= LARGEST_LOG.get(name, np.inf)]
    for name in plausible:
        undone = undo(sample, name)
        filled = np.diff(undone.indptr) > 0
        whole, distance, proved = whole_numbers(undone)
        if filled.any() and proved[filled].mean() >= 0.995 and (whole > 1).sum() >= INFORMATIVE:
            return Recovery(name, True, float(distance[proved & filled].max()), _common_sum(undone)[0])
    usual = [name for name in plausible if name not in ("log1p twice", "sqrt")]
    if len(usual) > 1 and np.quantile(sample.data, 0.999) < SKEW * np.median(sample.data):
        usual.remove("none")
    sums = {name: _common_sum(undo(sample, name)) for name in usual}
    order = sorted(usual, key=lambda name: sums[name][1])
    target, spread = sums[order[0]]
    if not np.isnan(target) or (len(order) > 1 and spread < min(0.5, 0.5 * sums[order[1]][1])):
        return Recovery(order[0], False, target=target)
    return Recovery("log1p" if "log1p" in plausible else "none", False)


def _common_sum(values: csr_matrix) -> tuple[float, float]:
    """Return (the sum of a row, its relative spread); the sum is NaN if rows differ by more than 2 %."""
    sums = _by_row(np.add, values.data, values.indptr)
    sums = sums[sums > 0]
    if sums.size < 2 or not np.isfinite(sums).all():
        return float("nan"), float("inf")
    middle = float(np.median(sums))
    spread = float(np.quantile(np.abs(sums - middle), 0.95)) / middle
    return (middle, spread) if spread < 0.02 else (float("nan"), spread)

"""What kind of numbers a place of a file holds, judged from rows spread over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.reading import CellFile
from cellingua.cells.recovery import Recovery, find_recovery

LARGEST_SAMPLE = 2e7  # values held at once
SPOKEN = {
    "counts": "counts",
    "recoverable": "normalised values, from which counts can be recovered",
    "normalised": "normalised values",
    "fractional": "expected counts (not whole numbers)",
    "binary": "only 0 and 1",
    "ranked": "ranks",
    "scaled": "scaled values (z-scores)",
    "unit": "values scaled to lie between 0 and 1",
    "corrected": "values below zero (batch-corrected, or residuals)",
    "nan": "values that are not numbers (NaN) or infinite",
    "empty": "only zeros",
}


@dataclass(frozen=True)
class Look:
    """The kind of values in a place.

    Attributes
    ----------
    place
        The place that was looked at.
    kind
        A key of `SPOKEN`.
    recovery
        How counts are made from them, for kinds "recoverable", "normalised" and "fractional".
    n_columns
        Columns of the place.
    detail
        Where the first bad value is, for kinds "nan", "scaled" and "corrected".
    """

    place: str
    kind: str
    n_columns: int
    recovery: Recovery | None = None
    detail: str = ""


def sample_rows(cells: CellFile, place: str, rows: int, pieces: int = 16) -> tuple[csr_matrix, NDArray[np.int64]]:
    """Return about `rows` rows in contiguous pieces spread over the file, and their numbers.

    Pieces are read one after the other until `LARGEST_SAMPLE` values are held.
    """
    n = cells.n_cells
    size = max(1, rows // pieces)
    if n <= rows:
        starts = list(range(0, n, size))
    else:
        starts = sorted({int(start) for start in np.linspace(0, n - size, pieces)})
    # Middle pieces first when the sample is cut short, so that it isn't the first rows only.
    order = sorted(range(len(starts)), key=lambda i: (i % 4, i))
    taken: dict[int, csr_matrix] = {}
    held = 0
    for i in order:
        taken[i] = cells.rows(place, starts[i], min(starts[i] + size, n))
        held += taken[i].nnz
        if held > LARGEST_SAMPLE:
            break
    parts = [taken[i] for i in sorted(taken)]
    numbers = [np.arange(starts[i], starts[i] + taken[i].shape[0]) for i in sorted(taken)]
    return csr_matrix(vstack(parts, format="csr")), np.concatenate(numbers).astype(np.int64)


def look_at(cells: CellFile, place: str, rows: int = 256) -> Look:
    """Say what kind of values a place holds."""
    sample, numbers = sample_rows(cells, place, rows)
    sample.eliminate_zeros()
    columns = sample.shape[1]
    data = sample.data
    if not data.size:
        return Look(place, "empty", columns)
    finite = np.isfinite(data)
    if not finite.all():
        return Look(place, "nan", columns, detail=where_bad(cells, place, sample, numbers, ~finite))
    if data.min() < 0:
        kind = "scaled" if _is_scaled(sample) else "corrected"
        return Look(place, kind, columns, detail=where_bad(cells, place, sample, numbers, data < 0))
    if is_ranked(sample):
        return Look(place, "ranked", columns)
    if (data == np.rint(data)).all():
        binary = data.max() == 1 and data.size > 50 * sample.shape[0]
        return Look(place, "binary" if binary else "counts", columns)
    recovery = find_recovery(sample)
    if recovery.exact:
        return Look(place, "recoverable", columns, recovery)
    if data.max() <= 1 and np.isnan(recovery.target):  # logarithms of counts exceed 1, shares sum to 1
        return Look(place, "unit", columns)
    fractional = recovery.transform == "none" and np.isnan(recovery.target)
    return Look(place, "fractional" if fractional else "normalised", columns, recovery)


def where_bad(
    cells: CellFile, place: str, sample: csr_matrix, numbers: NDArray[np.int64], bad: NDArray[np.bool_]
) -> str:
    """Say how many values of a sample are bad, and where the first is (`bad`: bool, one a stored value)."""
    position = int(np.flatnonzero(bad)[0])
    row = int(np.searchsorted(sample.indptr, position, side="right")) - 1
    cell = str(cells.obs.index[numbers[row]])
    column = str(cells.columns(place).index[sample.indices[position]])
    share = float(bad.mean())
    much = f"{share:.0%} of the values" if share >= 0.01 else "few of the values"
    return f"{much}; the first is {sample.data[position]:.3g} in cell {cell!r}, column {column!r}"


def _is_scaled(sample: csr_matrix) -> bool:
    """Say whether columns have a mean of 0 and a spread of 1 (values may be clipped, and rows are a part)."""
    if sample.nnz < 0.5 * sample.shape[0] * sample.shape[1] or sample.shape[0] < 3:
        return False
    values = sample[:, : min(500, sample.shape[1])].toarray()
    means, spreads = values.mean(axis=0), values.std(axis=0)
    return bool(abs(np.median(means)) < 0.25 and 0.3 < np.median(spreads) < 2)


def is_ranked(sample: csr_matrix) -> bool:
    """Say whether the values of each row are ranks, or the same quantiles in every row.

    Ranks 1 to k sum to k(k + 1)/2 whatever the ties (they share the mean rank), and ranks divided by k to
    (k + 1)/2. Counts don't.
    """
    lengths = np.diff(sample.indptr)
    rows = np.flatnonzero(lengths >= 20)
    if rows.size < 3:
        return False
    sums = np.asarray(sample.sum(axis=1), dtype=np.float64).ravel()[rows]
    k = lengths[rows].astype(np.float64)
    for expected in (k * (k + 1) / 2, (k + 1) / 2):
        if (np.abs(sums - expected) <= 1e-4 * expected).mean() >= 0.95:
            return True
    tops = [np.sort(sample.data[sample.indptr[row] : sample.indptr[row + 1]])[-15:] for row in rows[:100]]
    first = tops[0]
    same = all(np.allclose(top, first, rtol=1e-5) for top in tops)
    return same and len(np.unique(first)) >= 5

"""LangCell's tokens: the genes of a cell, ordered by how far each exceeds its median.

The value of gene g in a cell is ``counts_g / total * 10000 / median_g`` (LangCell, ICML 2024, and the
Geneformer tokeniser that it uses), genes with a value are sorted by it, largest first, and each becomes a token.

`rank_tokens` works on CSR and never densifies; `rank_tokens_plain` is the same in five obvious lines a cell.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_COLUMN_BITS = 16
_COLUMN_MASK = np.uint64((1 << _COLUMN_BITS) - 1)
_BLOCK = 64  # rows whose keys stay in the processor's cache


@dataclass(frozen=True)
class RankedCells:
    """Ragged rank-value tokens of `n` cells.

    Attributes
    ----------
    indptr
        int64 (n + 1,); the tokens of cell i are ``tokens[indptr[i]:indptr[i + 1]]``.
    tokens
        int32 (total,), without any special token.
    values
        float32 (total,): the value each token was ranked by (relative error below 1e-7).
    """

    indptr: NDArray[np.int64]
    tokens: NDArray[np.int32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def cell(self, i: int) -> NDArray[np.int32]:
        """Return the tokens of cell `i`, highest value first."""
        return self.tokens[self.indptr[i] : self.indptr[i + 1]]

    def take(self, rows: NDArray[np.integer]) -> RankedCells:
        """Return the cells `rows`, in that order."""
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return RankedCells(indptr, self.tokens[source], self.values[source])


def rank_tokens(
    counts: csr_matrix,
    tokens: NDArray[np.integer],
    medians: NDArray[np.float64],
    totals: NDArray[np.floating] | None = None,
    limit: int | None = None,
) -> RankedCells:
    """Turn counts into rank-value tokens.

    Parameters
    ----------
    counts
        CSR (cells, columns), non-negative. float32 counts are divided by float32 totals and then by float64
        medians, as released code does; integers and float64 are float64 throughout.
    tokens
        int (columns,): the token of each column, -1 for columns without one.
    medians
        float64 (columns,), positive where there is a token.
    totals
        (cells,): the total over **all** columns of the cell, also those that have no token or are not in
        `counts`. By default the row sums of `counts`.
    limit
        Keep this many tokens a cell (LangCell stores 2,048 and reads 2,047). None keeps all.

    Returns
    -------
    RankedCells
        Value descending, then column ascending. A cell whose total is zero has no token.

    Raises
    ------
    ValueError
        `tokens` or `medians` do not have one entry a column, or a median in use is not positive.
    """
    tokens, medians, totals = _checked(counts, tokens, medians, totals)
    if counts.shape[1] > 1 << _COLUMN_BITS:
        return rank_tokens_plain(counts, tokens, medians, totals, limit)
    divisors = np.where(tokens >= 0, medians, np.nan)
    tokens = tokens.astype(np.int32)
    n = counts.shape[0]
    indptr = np.zeros(n + 1, np.int64)
    ids, values = np.empty(counts.nnz, np.int32), np.empty(counts.nnz, np.float32)
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        keys, lengths = _block_keys(counts, rows, divisors, totals[rows], limit)
        indptr[start + 1 : rows.stop + 1] = indptr[start] + np.cumsum(lengths)
        out = slice(indptr[start], indptr[rows.stop])
        np.take(tokens, (keys & _COLUMN_MASK).view(np.int64), out=ids[out], mode="clip")
        np.bitwise_or(keys, _COLUMN_MASK, out=keys)
        values[out] = np.invert(keys, out=keys).view(np.float64)
    return RankedCells(indptr, ids[: indptr[-1]], values[: indptr[-1]])


def rank_tokens_plain(
    counts: csr_matrix,
    tokens: NDArray[np.integer],
    medians: NDArray[np.float64],
    totals: NDArray[np.floating] | None = None,
    limit: int | None = None,
) -> RankedCells:
    """Do what `rank_tokens` does, one cell at a time: the truth that the fast path is held against."""
    tokens, medians, totals = _checked(counts, tokens, medians, totals)
    indptr, ids, values = [0], [], []
    for i in range(counts.shape[0]):
        row = slice(counts.indptr[i], counts.indptr[i + 1])
        order = np.argsort(counts.indices[row], kind="stable")
        columns, data = counts.indices[row][order], counts.data[row][order]
        kept = (tokens[columns] >= 0) & (data != 0) & (totals[i] > 0)
        columns, data = columns[kept], data[kept]
        value = data / totals[i] * _ten_thousand(data) / medians[columns] if len(data) else np.empty(0)
        best = np.argsort(-value, kind="stable")[:limit]
        ids.append(tokens[columns[best]].astype(np.int32))
        values.append(value[best].astype(np.float32))
        indptr.append(indptr[-1] + len(best))
    none_i, none_f = np.empty(0, np.int32), np.empty(0, np.float32)
    return RankedCells(np.array(indptr, np.int64), np.concatenate([none_i, *ids]), np.concatenate([none_f, *values]))


def _checked(
    counts: csr_matrix,
    tokens: NDArray[np.integer],
    medians: NDArray[np.float64],
    totals: NDArray[np.floating] | None,
) -> tuple[NDArray[np.integer], NDArray[np.float64], NDArray[np.floating]]:
    """Check lengths; return totals in the type that the arithmetic uses (float32 for float32 counts)."""
    tokens = np.asarray(tokens)
    medians = np.asarray(medians, np.float64)
    if len(tokens) != counts.shape[1] or len(medians) != counts.shape[1]:
        raise ValueError(f"{len(tokens)} tokens and {len(medians)} medians for {counts.shape[1]} columns")
    if not (medians[tokens >= 0] > 0).all():
        raise ValueError("a median is not positive")
    totals = np.asarray(counts.sum(axis=1) if totals is None else totals).ravel()
    if len(totals) != counts.shape[0]:
        raise ValueError(f"{len(totals)} totals for {counts.shape[0]} cells")
    return tokens, medians, np.asarray(totals, np.float32 if counts.dtype == np.float32 else np.float64)


def _ten_thousand(data: NDArray[Any]) -> np.floating:
    """Return 10,000 in the type of the arithmetic: float32 counts stay float32 until the median divides."""
    return np.float32(10_000) if data.dtype == np.float32 else np.float64(10_000)


def _block_keys(
    counts: csr_matrix,
    rows: slice,
    divisors: NDArray[np.float64],
    totals: NDArray[np.floating],
    limit: int | None,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the sorted keys of some rows, and how many each row has.

    A key is 48 bits of the (negated) value above 16 bits of the column, so one unstable integer sort gives
    value descending, column ascending. Rows where the 16 cut bits could matter are sorted again in full.
    """
    starts = counts.indptr[rows.start : rows.stop + 1]
    span = slice(starts[0], starts[-1])
    columns, data = counts.indices[span], counts.data[span]
    ends = (starts - starts[0]).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = data / np.repeat(totals, np.diff(ends)) * _ten_thousand(data) / np.take(divisors, columns)
    kept = value > 0  # false for NaN (no token, or 0/0)
    kept &= value < np.inf
    if not kept.all():
        ends = np.concatenate([[0], np.cumsum(kept)])[ends]
        value, columns = value[kept], columns[kept]
    keys = ~value.view(np.uint64)
    keys &= ~_COLUMN_MASK
    keys |= columns.astype(np.uint64)
    for a, b in itertools.pairwise(ends.tolist()):
        keys[a:b].sort()
    _settle_ties(keys, value, columns, ends)
    lengths = np.diff(ends)
    if limit is not None and len(lengths) and lengths.max() > limit:
        keys = keys[np.arange(len(keys)) - np.repeat(ends[:-1], lengths) < limit]
        lengths = np.minimum(lengths, limit)
    return keys, lengths


def _settle_ties(
    keys: NDArray[np.uint64],
    value: NDArray[np.float64],
    columns: NDArray[np.integer],
    ends: NDArray[np.integer],
) -> None:
    """Sort in full, in place, the rows in which two values agree in their first 48 bits."""
    close = np.flatnonzero((keys[1:] ^ keys[:-1]) <= _COLUMN_MASK)
    for i in np.unique(np.searchsorted(ends, close, side="right") - 1):
        a, b = ends[i], ends[i + 1]
        if b - a < 2:
            continue
        order = np.lexsort((columns[a:b], -value[a:b]))
        keys[a:b] = (~value[a:b].view(np.uint64) & ~_COLUMN_MASK)[order] | columns[a:b][order].astype(np.uint64)

"""CellLM's tokens: the expressed genes of a cell in the model's order, each with the bin of its expression.

A count becomes ``x = log(1 + count / total * target)`` and its token ``floor(min(x, bins))``, compared in float32
(CellLM, arXiv 2306.04371; scBERT's normalisation). Token 0 means "expressed, below 1"; genes without a count are
no part of the cell.

`bin_cells` works on CSR and takes no logarithm: it compares ``count / total * target`` with the edges of the bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.core.errors import ConfigError

BASES = {"2": 2.0, "e": math.e}
BEYOND = ("vocabulary", "top", "sample")
TOTALS = ("vocabulary", "all")
#: A larger share of tokens in one bin is worth a warning: the panel or the depth does not fit the bins.
CROWDED = 0.5


@dataclass(frozen=True)
class BinConfig:
    """How counts become tokens; stored with a model, since another choice makes other tokens.

    Parameters
    ----------
    base
        Of the logarithm: ``2`` (scBERT) or ``e``.
    target
        Total that each cell is scaled to.
    bins
        The highest bin: tokens are 0 to `bins`.
    length
        Most tokens a cell, CLS included; None keeps all.
    beyond
        Which genes of a longer cell are kept: the first ones of the model's order (``vocabulary``, as released),
        those with the highest values (``top``), or random ones (``sample``, in training; without a generator the
        cell is kept whole).
    total
        What is scaled to `target`: the counts of the model's genes (``vocabulary``) or of all genes (``all``).
    """

    base: str = "2"
    target: float = 1e4
    bins: int = 5
    length: int | None = 6000
    beyond: str = "vocabulary"
    total: str = "vocabulary"

    def __post_init__(self) -> None:
        for name, known in (("base", tuple(BASES)), ("beyond", BEYOND), ("total", TOTALS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}.", " or ".join(repr(value) for value in known))
        if not (0 < self.target < np.inf):
            raise ConfigError(f"target is {self.target}.", "a number above 0, such as 10000")
        if not 1 <= self.bins <= 120:
            raise ConfigError(f"bins is {self.bins}.", "1 to 120")
        if self.length is not None and self.length < 2:
            raise ConfigError(f"length is {self.length}.", "at least 2: CLS and a gene")


@dataclass(frozen=True)
class BinnedCells:
    """Ragged binned tokens of `n` cells, without CLS.

    Attributes
    ----------
    indptr
        int64 (n + 1,); cell i is ``tokens[indptr[i]:indptr[i + 1]]`` and the same of `genes`.
    tokens
        int8 (total,): the bins.
    genes
        int32 (total,): the genes, numbered in the model's order, ascending within a cell.
    truncated
        bool (n,): whether the cell lost genes to the length.
    """

    indptr: NDArray[np.int64]
    tokens: NDArray[np.int8]
    genes: NDArray[np.int32]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 (n,): tokens of each cell, CLS not counted."""
        return np.diff(self.indptr)

    def take(self, rows: NDArray[np.integer]) -> BinnedCells:
        """Return the cells `rows`, in that order."""
        rows = np.asarray(rows)
        lengths = self.lengths[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return BinnedCells(indptr, self.tokens[source], self.genes[source], self.truncated[rows])

    def sample(self, length: int | None, rng: np.random.Generator) -> BinnedCells:
        """Return the cells with random genes left out where they exceed `length` (CLS counted)."""
        return _cut(self, length, None if length is None else rng.random(len(self.tokens)))

    def histogram(self, bins: int = 5) -> NDArray[np.int64]:
        """Return how many tokens lie in each bin, int64 (bins + 1,)."""
        return np.bincount(self.tokens, minlength=bins + 1).astype(np.int64)


def bin_cells(
    counts: csr_matrix,
    totals: NDArray[np.floating] | None,
    config: BinConfig,
    rng: np.random.Generator | None = None,
) -> BinnedCells:
    """Turn counts into binned tokens.

    Parameters
    ----------
    counts
        CSR (cells, genes of the model, in its order), raw counts.
    totals
        (cells,): total over all genes of the file. Read where ``config.total`` is ``all``, else passed over.
    config
        How.
    rng
        For ``config.beyond == "sample"``; without it cells are kept whole.

    Returns
    -------
    BinnedCells
        A cell whose total is zero has no token.

    Raises
    ------
    ValueError
        `totals` are needed and missing, or not one a cell.
    """
    if config.total == "vocabulary":
        totals = counts @ np.ones(counts.shape[1], np.float64)
    elif totals is None:
        raise ValueError("the configuration scales by the total over all genes, and no totals were given")
    totals = np.asarray(totals, np.float64).ravel()
    if len(totals) != counts.shape[0]:
        raise ValueError(f"{len(totals)} totals for {counts.shape[0]} cells")
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = counts.data * np.repeat(config.target / totals, np.diff(counts.indptr))
        scaled[~(counts.data > 0)] = 0
    return _tokens(counts, scaled, _edges(config), config, rng)


def crowding(histogram: NDArray[np.integer]) -> str | None:
    """Return a sentence for a warning where one bin holds more than half of the tokens, else None."""
    total = int(histogram.sum())
    fullest = int(histogram.argmax())
    if total == 0 or histogram[fullest] <= CROWDED * total:
        return None
    share = histogram[fullest] / total
    return (
        f"{share:.0%} of the expression tokens lie in bin {fullest} of {len(histogram) - 1}: these cells are much "
        "deeper or shallower, or hold far fewer genes, than the bins are made for."
    )


def _edges(config: BinConfig) -> NDArray[np.float64]:
    """Return float64 (bins,): the least ``count / total * target`` of the bins from 1 up.

    A value counts as k when its logarithm, rounded to float32, is k: that is half a step of float32 below k.
    """
    bins = np.arange(1, config.bins + 1, dtype=np.float32)
    step = bins.astype(np.float64) - np.nextafter(bins, np.float32(0)).astype(np.float64)
    return np.expm1((bins - step / 2) * math.log(BASES[config.base]))


def _tokens(
    source: csr_matrix,
    values: NDArray[np.floating],
    edges: NDArray[np.floating],
    config: BinConfig,
    rng: np.random.Generator | None,
) -> BinnedCells:
    """Bin the stored `values` of `source`, put each cell in the model's order, and cut what is too long."""
    if not source.has_sorted_indices:
        order = csr_matrix((np.arange(source.nnz), source.indices.copy(), source.indptr.copy()), shape=source.shape)
        order.sort_indices()
        values, columns = values[order.data], order.indices
    else:
        columns = source.indices
    kept = values > 0  # false for NaN
    indptr = source.indptr.astype(np.int64)
    if not kept.all():
        indptr = np.concatenate([[0], np.cumsum(kept)])[indptr].astype(np.int64)
        values, columns = values[kept], columns[kept]
    tokens = np.zeros(len(values), np.int8)
    for edge in edges:  # few comparisons of whole arrays are faster than a search for each value
        tokens += values >= edge
    whole = BinnedCells(indptr, tokens, columns.astype(np.int32), np.zeros(len(indptr) - 1, np.bool_))
    if config.beyond == "sample":
        return whole if rng is None else whole.sample(config.length, rng)
    return _cut(whole, config.length, -values if config.beyond == "top" else None)


def _cut(cells: BinnedCells, length: int | None, rank_by: NDArray[np.floating] | None) -> BinnedCells:
    """Keep ``length - 1`` genes of each longer cell: those with the lowest `rank_by`, or the first ones."""
    lengths = cells.lengths
    if length is None or not len(lengths) or lengths.max() < length:
        return cells
    long = lengths >= length
    kept = np.ones(len(cells.tokens), np.bool_)
    for row in np.flatnonzero(long):
        start, stop = cells.indptr[row], cells.indptr[row + 1]
        kept[start:stop] = False
        if rank_by is None:
            kept[start : start + length - 1] = True
        else:
            kept[start + np.argsort(rank_by[start:stop], kind="stable")[: length - 1]] = True
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, length - 1))]).astype(np.int64)
    return BinnedCells(indptr, cells.tokens[kept], cells.genes[kept], cells.truncated | long)

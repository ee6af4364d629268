"""The genes that speak for each cluster, from one pass over row blocks."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from cellingua.cells.counts import CountBlocks
from cellingua.core.progress import Progress

ROWS = 2048
SCALE = 1e4
MIN_FRACTION = 0.25  # a gene speaks for a cluster only if at least this share of its cells shows it


def cluster_markers(
    blocks: CountBlocks, codes: np.ndarray, symbols: np.ndarray, progress: Progress, *, count: int = 5
) -> list[tuple[str, ...]]:
    """Return up to `count` symbols for each cluster, strongest first.

    A gene's strength in a cluster is the difference of its mean log1p(CP10k) inside and outside the cluster, times
    the difference of the shares of cells that show it. Only sums over clusters are kept, so a file of any size is
    read in blocks once.

    Parameters
    ----------
    blocks
        Counts over the vocabulary.
    codes
        int (n,): cluster of each cell, 0 to g - 1.
    symbols
        str (vocabulary,): symbol of each gene.
    """
    groups = int(codes.max()) + 1 if len(codes) else 0
    if groups < 2:
        return [() for _ in range(groups)]
    sums, shown = cluster_sums(blocks, codes, groups, progress)
    return strongest(sums, shown, np.bincount(codes, minlength=groups), symbols, count)


def cluster_sums(
    blocks: CountBlocks, codes: np.ndarray, groups: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 (groups, genes): sums of log1p(CP10k), and numbers of cells that show each gene."""
    sums: np.ndarray | None = None
    shown: np.ndarray | None = None
    for block in blocks.blocks(ROWS):
        counts = block.counts.tocsr()
        if sums is None or shown is None:
            sums, shown = np.zeros((groups, counts.shape[1])), np.zeros((groups, counts.shape[1]))
        n = counts.shape[0]
        totals = np.asarray(block.totals, dtype=np.float64)
        scale = np.divide(SCALE, totals, out=np.zeros(n), where=totals > 0)
        logs = counts.astype(np.float64)
        logs.data = np.log1p(logs.data * np.repeat(scale, np.diff(counts.indptr)))
        member = sparse.csr_matrix((np.ones(n), (codes[block.start : block.stop], np.arange(n))), shape=(groups, n))
        sums += (member @ logs).toarray()
        logs.data = (counts.data > 0).astype(np.float64)
        shown += (member @ logs).toarray()
        progress.advance(n)
    if sums is None or shown is None:
        return np.zeros((groups, 0)), np.zeros((groups, 0))
    return sums, shown


def strongest(
    sums: np.ndarray, shown: np.ndarray, sizes: np.ndarray, symbols: np.ndarray, count: int
) -> list[tuple[str, ...]]:
    """Return up to `count` symbols a cluster, from sums and shown (groups, genes) and sizes (groups,)."""
    inside = np.maximum(sizes, 1)[:, None]
    outside = np.maximum(sizes.sum() - sizes, 1)[:, None]
    lift = sums / inside - (sums.sum(axis=0) - sums) / outside
    share = shown / inside
    more = share - (shown.sum(axis=0) - shown) / outside
    strength = np.where((share >= MIN_FRACTION) & (lift > 0) & (more > 0), lift * more, 0.0)
    found = []
    for row in strength:
        order = np.argsort(-row, kind="stable")[:count]
        found.append(tuple(str(symbols[gene]) for gene in order if row[gene] > 0))
    return found

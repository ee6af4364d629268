"""Tokenising: ours against a per-cell densify-and-argsort loop, on one core, in one run.

The loop is what LangCell's and Geneformer's tokenisers do for a cell: make the row dense, divide, sort the
genes that are expressed. Bar: at least 6 times its cells per second, tokens equal.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.common import Bars, write_result
from cellingua.cells.ranked import RankedCells, rank_tokens

CELLS, GENES, PAIRS = 2_000, 20_000, 7


def simulate(seed: int) -> csr_matrix:
    """Return float32 counts with about 2,900 expressed genes a cell (negative binomial, log-normal genes)."""
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(-3.2, 2.0, GENES)
    mean *= 8_000 / mean.sum()
    depth = rng.lognormal(0, 0.4, CELLS)
    rows = [rng.poisson(rng.gamma(0.5, 2.0, GENES) * mean * d).astype(np.float32) for d in depth]
    return csr_matrix(np.stack(rows))


def loop(counts: csr_matrix, tokens: np.ndarray, medians: np.ndarray, totals: np.ndarray) -> list[np.ndarray]:
    """Densify and sort cell by cell."""
    out = []
    for i in range(counts.shape[0]):
        row = np.asarray(counts[i].todense()).ravel()
        value = row / totals[i] * 10_000 / medians
        expressed = np.flatnonzero(value)
        out.append(tokens[expressed[np.argsort(-value[expressed], kind="stable")]])
    return out


def equal(ours: RankedCells, theirs: list[np.ndarray]) -> bool:
    """Are all tokens of all cells the same?"""
    return all(np.array_equal(ours.cell(i), row) for i, row in enumerate(theirs))


def main() -> int:
    """Measure interleaved pairs; exit 0 where the bar holds."""
    counts = simulate(0)
    rng = np.random.default_rng(1)
    tokens, medians = np.arange(GENES) + 2, rng.lognormal(0.5, 0.8, GENES)
    totals = np.asarray(counts.sum(1)).ravel().astype(np.float32)
    same = equal(rank_tokens(counts, tokens, medians, totals), loop(counts, tokens, medians, totals))
    ours, theirs = [], []
    for _ in range(PAIRS):
        start = time.perf_counter()
        rank_tokens(counts, tokens, medians, totals)
        middle = time.perf_counter()
        loop(counts, tokens, medians, totals)
        ours.append(middle - start)
        theirs.append(time.perf_counter() - middle)
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    figures = {
        "cells": CELLS,
        "genes_per_cell": round(counts.nnz / CELLS, 1),
        "ours_cells_per_second": round(CELLS / statistics.median(ours)),
        "loop_cells_per_second": round(CELLS / statistics.median(theirs)),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "pairs": PAIRS,
        "tokens_equal": same,
    }
    bars: Bars = {
        "tokens equal": {"value": same, "bar": True, "ok": same},
        "ratio_median": {"value": figures["ratio_median"], "bar": 6.0, "ok": statistics.median(ratios) >= 6.0},
    }
    return write_result("tokens", figures, bars, seeds={"counts": 0, "medians": 1})


if __name__ == "__main__":
    sys.exit(main())

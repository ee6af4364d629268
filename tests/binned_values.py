"""Binned tokens of values that are normalised already, as the released code's inputs are."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from cellingua.cells.binned import BinConfig, BinnedCells, _tokens


def bin_normalised(values: csr_matrix, config: BinConfig) -> BinnedCells:
    """Return the tokens of logarithms of scaled counts: the package's own binning, with the bins' numbers as edges."""
    edges = np.arange(1, config.bins + 1, dtype=np.float32)
    return _tokens(values, np.asarray(values.data, np.float32), edges, config, None)

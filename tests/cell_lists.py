"""Cells written down as lists, for the towers."""

from __future__ import annotations

import numpy as np

from cellingua.nn.batch import CellBatch


def from_lists(cells: list[list[int]], values: list[list[float]] | None = None) -> CellBatch:
    """Return a batch from one list of tokens (and of values) a cell."""
    indptr = np.concatenate([[0], np.cumsum([len(cell) for cell in cells])]).astype(np.int64)
    flat = np.array([token for cell in cells for token in cell], dtype=np.int64)
    level = None if values is None else np.array([v for cell in values for v in cell], dtype=np.float32)
    return CellBatch.from_arrays(indptr, flat, level)

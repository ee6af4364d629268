"""A source of cells that is nothing but numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.sources import CellRows, read_in_blocks


class Numbers:
    """Cells of three genes; cell `i` has the place `i`."""

    n_genes = 3
    categories = {"file": ("f",), "donor": ("d",)}  # noqa: RUF012

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def read(self, rows: NDArray[np.integer]) -> CellRows:
        rows = np.asarray(rows)
        counts = csr_matrix(np.ones((len(rows), 3), np.float32))
        zeros = np.zeros(len(rows), np.int32)
        return CellRows(counts, np.ones(len(rows)), {"file": zeros, "donor": zeros}, rows)

    def column(self, name: str) -> NDArray[np.int32]:
        return np.zeros(self.n, np.int32)

    def blocks(self, seed: int, epoch: int, size: int) -> Iterator[CellRows]:
        return read_in_blocks(self, seed, epoch, size)

"""Cells in memory as training reads them: the part that test sources share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.sources import CellRows, read_in_blocks


class MemorySource:
    """A `CellSource` over `counts` and `totals`; `codes` holds a column's codes of all cells, by name."""

    n_genes: int
    counts: csr_matrix
    totals: NDArray[np.float64]
    categories: dict[str, tuple[str, ...]]
    codes: dict[str, NDArray[np.int32]]

    def __len__(self) -> int:
        return len(self.totals)

    def read(self, rows: NDArray[np.integer]) -> CellRows:
        labels = {name: codes[rows] for name, codes in self.codes.items()}
        return CellRows(csr_matrix(self.counts[rows]), self.totals[rows], labels, np.asarray(rows, np.int64))

    def column(self, name: str) -> NDArray[np.int32]:
        return self.codes[name]

    def blocks(self, seed: int, epoch: int, size: int) -> Iterator[CellRows]:
        return read_in_blocks(self, seed, epoch, size)

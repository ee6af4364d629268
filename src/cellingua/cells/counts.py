"""Counts of a file in blocks of cells, on the genes of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.genes import collapse
from cellingua.cells.reading import CellFile
from cellingua.core.errors import CountsError


@dataclass(frozen=True)
class CountBlock:
    """Counts of the cells `start` to `stop` (exclusive).

    Attributes
    ----------
    counts
        csr float32 (cells, n_vocabulary), columns that name one gene summed.
    totals
        float64 (cells,): sum over all kept columns, those of unknown genes included.
    n_genes
        int64 (cells,): genes of the vocabulary with a count.
    """

    start: int
    stop: int
    counts: csr_matrix
    totals: NDArray[np.float64]
    n_genes: NDArray[np.int64]


class CountBlocks:
    """The counts of a file as the doctor found them; nothing is held but one block.

    Parameters
    ----------
    cells
        An open file.
    diagnosis
        What `examine` said about it; a refusal is raised here.
    """

    def __init__(self, cells: CellFile, diagnosis: Diagnosis) -> None:
        diagnosis.raise_if_refused()
        if diagnosis.match is None or diagnosis.keep_columns is None:
            raise CountsError(f"{cells.name}: no counts were found.", "raw counts", "cellingua doctor on the file")
        self.cells = cells
        self.diagnosis = diagnosis
        self._match = diagnosis.match.restrict(diagnosis.keep_columns)
        self._keep = diagnosis.keep_columns.astype(np.float64)

    def __len__(self) -> int:
        return self.cells.n_cells

    def __iter__(self) -> Iterator[CountBlock]:
        return self.blocks()

    def blocks(self, rows: int = 2048) -> Iterator[CountBlock]:
        """Yield the counts of `rows` cells at a time, in the order of the file.

        Raises
        ------
        CountsError
            If a value is negative, infinite or not a number; the cell is named.
        """
        for start in range(0, self.cells.n_cells, rows):
            yield self.block(start, min(start + rows, self.cells.n_cells))

    def block(self, start: int, stop: int) -> CountBlock:
        """Return the counts of the cells `start` to `stop` (exclusive)."""
        values = self.cells.rows(self.diagnosis.place, start, stop)
        self._check(values, start)
        if self.diagnosis.recovery is not None:
            values = self.diagnosis.recovery.apply(values)
        totals = np.asarray(values.astype(np.float64) @ self._keep)
        counts = collapse(values, self._match)
        return CountBlock(start, stop, counts, totals, np.diff(counts.indptr).astype(np.int64))

    def _check(self, values: csr_matrix, start: int) -> None:
        # NaN fails every comparison, so one test finds NaN, infinities and negatives.
        good = (values.data >= 0) & (values.data < np.inf)
        if good.all():
            return
        position = int(np.flatnonzero(~good)[0])
        row = int(np.searchsorted(values.indptr, position, side="right")) - 1
        cell = self.cells.obs.index[start + row]
        column = self.cells.columns(self.diagnosis.place).index[values.indices[position]]
        raise CountsError(
            f"{self.cells.name}: {self.diagnosis.place} has the value {values.data[position]} in cell "
            f"{str(cell)!r} (row {start + row:,}), column {str(column)!r}.",
            "counts: whole numbers from 0",
            "remove that cell, or name the layer that holds raw counts with --layer",
        )

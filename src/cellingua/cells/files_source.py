"""Files of cells as a source, read where they lie: nothing to prepare, and slower than shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import open_cells
from cellingua.cells.sources import DONOR, FILE, CellRows, read_in_blocks, runs
from cellingua.cells.survey import LabelColumn, find_sources


class FilesSource:
    """Cells of files in their own order: a `CellSource`.

    Parameters
    ----------
    sources
        Files and folders, as for a corpus.
    labels
        Label columns as `LabelColumn.parse` reads them.
    donor_column
        Column of ``obs`` with the donor.
    layer
        Layer with the counts; None lets the doctor find it.

    Raises
    ------
    FileError, CountsError, GeneError
        A file can't be read or is refused.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        *,
        labels: Sequence[str] = (),
        donor_column: str = "donor_id",
        layer: str | None = None,
    ) -> None:
        found = find_sources(sources)
        self.n_genes = len(load_vocabulary())
        self._files = []
        columns = [LabelColumn.parse(text) for text in labels]
        values: dict[str, list[NDArray[np.object_]]] = {name: [] for name in (FILE, DONOR, *(c.name for c in columns))}
        for path, name in found:
            cells = open_cells(path)
            self._files.append(CountBlocks(cells, examine(cells, layer=layer)))
            donors = LabelColumn(DONOR, (donor_column,)).values(cells.obs)
            values[FILE].append(np.full(cells.n_cells, name, dtype=object))
            values[DONOR].append(np.array([f"{name}/{donor}" for donor in donors], dtype=object))
            for column in columns:
                values[column.name].append(column.values(cells.obs))
        self._ends = np.cumsum([len(file) for file in self._files])
        self.categories: dict[str, tuple[str, ...]] = {}
        self._codes: dict[str, NDArray[np.int32]] = {}
        for name, parts in values.items():
            together = np.concatenate(parts)
            self.categories[name] = tuple(sorted(set(together.tolist()) - {""}))
            code_of = {value: code for code, value in enumerate(self.categories[name])} | {"": -1}
            self._codes[name] = np.array([code_of[value] for value in together.tolist()], np.int32)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, rows: NDArray[np.integer]) -> CellRows:
        """Return the cells `rows`, in that order."""
        rows = np.asarray(rows, np.int64)
        if not len(rows):
            return self.read(np.zeros(1, np.int64)).take(rows)
        counts, totals = [], []
        for start, stop in runs(rows):
            while start < stop:
                number = int(np.searchsorted(self._ends, start, side="right"))
                begin = int(self._ends[number - 1]) if number else 0
                end = min(stop, int(self._ends[number]))
                block = self._files[number].block(start - begin, end - begin)
                counts.append(block.counts)
                totals.append(block.totals)
                start = end
        labels = {name: codes[rows] for name, codes in self._codes.items()}
        begins = np.concatenate([[0], self._ends])[labels[FILE]]
        return CellRows(csr_matrix(vstack(counts)), np.concatenate(totals), labels, rows - begins)

    def column(self, name: str) -> NDArray[np.int32]:
        """Return the codes of a column for all cells."""
        return self._codes[name]

    def blocks(self, seed: int, epoch: int, size: int) -> Iterator[CellRows]:
        """Yield every cell once, in blocks of neighbours, the blocks in random order."""
        return read_in_blocks(self, seed, epoch, size)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.cells.close()

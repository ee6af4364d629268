"""What training needs of cells, wherever they come from: their number, their labels, and rows by number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.core.errors import LabelError

FILE, DONOR = "file", "donor"
NORMAL = ("normal", "healthy", "false", "0")


@dataclass(frozen=True)
class CellRows:
    """Some cells.

    Attributes
    ----------
    counts
        csr float32 (cells, genes).
    totals
        float64 (cells,): over all columns of the file.
    labels
        Column ("file", "donor" and the user's) -> int32 (cells,) codes; -1 is not known.
    places
        int64 (cells,): row in the source file.
    """

    counts: csr_matrix
    totals: NDArray[np.float64]
    labels: dict[str, NDArray[np.int32]]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.totals)

    def take(self, rows: NDArray[np.integer]) -> CellRows:
        """Return some of the cells, in that order."""
        labels = {name: codes[rows] for name, codes in self.labels.items()}
        return CellRows(csr_matrix(self.counts[rows]), self.totals[rows], labels, self.places[rows])


class CellSource(Protocol):
    """Cells on one gene axis that are read by row number."""

    @property
    def n_genes(self) -> int:
        """Number of columns of the counts."""

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """Column -> the value of each code; "file" and "donor" are always there."""

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.integer]) -> CellRows:
        """Return the cells `rows`, in that order; neighbouring rows are read together."""

    def column(self, name: str) -> NDArray[np.int32]:
        """Return the codes of a column for all cells."""

    def blocks(self, seed: int, epoch: int, size: int) -> Iterator[CellRows]:
        """Yield every cell once, in blocks of `size` neighbours (the last may be shorter), blocks in random order."""


def read_in_blocks(source: CellSource, seed: int, epoch: int, size: int) -> Iterator[CellRows]:
    """Yield what `CellSource.blocks` promises, by `read`."""
    starts = np.arange(0, len(source), size)
    for start in np.random.default_rng([seed, 11, epoch]).permutation(starts):
        yield source.read(np.arange(start, min(start + size, len(source))))


def runs(rows: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of runs of neighbours, in the order of `rows`."""
    breaks = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    for begin, end in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        if end > begin:
            yield int(rows[begin]), int(rows[end - 1]) + 1


def cell_names(source: CellSource, rows: NDArray[np.integer]) -> list[str]:
    """Return how messages call cells: the file and the row there, counted from 0."""
    found = source.read(rows)
    files = source.categories[FILE]
    return [f"{files[file]} row {place:,}" for file, place in zip(found.labels[FILE], found.places, strict=True)]


def codes_of(source: CellSource, column: str, values: Sequence[str]) -> list[int]:
    """Return the codes of values of a column.

    Raises
    ------
    LabelError
        The column or a value is not there.
    """
    if column not in source.categories:
        raise LabelError(
            f"The corpus has no column {column!r}.",
            f"one of: {', '.join(source.categories)}",
            "name it with --label-columns when the corpus is prepared",
        )
    known = {value: code for code, value in enumerate(source.categories[column])}
    for value in values:
        if value not in known:
            near = ", ".join(list(known)[:5])
            raise LabelError(f"No cell of the corpus has {column} = {value!r}.", f"one of: {near}, …")
    return [known[value] for value in values]


def normal_or_cancer(source: CellSource, column: str, normal: Sequence[str] = NORMAL) -> NDArray[np.int8]:
    """Return the class of each code of a label column: 0 normal, 1 cancer.

    Parameters
    ----------
    column
        A label column.
    normal
        Values that mean normal, in any case; every other known value means cancer.

    Returns
    -------
    int8 (codes + 1,)
        Index it with the codes: the last entry, for code -1 (not known), is -1.

    Raises
    ------
    LabelError
        There is no such column, or all its values are of one class.
    """
    codes_of(source, column, ())
    values = source.categories[column]
    means = {value.lower() for value in normal}
    classes = np.array([*(int(value.lower() not in means) for value in values), -1], np.int8)
    if len(set(classes[:-1].tolist())) < 2:
        shown = ", ".join(map(repr, list(values)[:5]))
        raise LabelError(
            f"All values of {column!r} mean one class ({shown}).",
            "values that mean normal beside others",
            f"another label column; normal are: {', '.join(normal)}",
        )
    return classes


def rows_of(source: CellSource, column: str, values: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of cells whose `column` is one of `values`, for holding out a study or a donor."""
    codes = codes_of(source, column, values)
    return np.flatnonzero(np.isin(source.column(column), codes))


def rows_without(source: CellSource, column: str, values: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of cells whose `column` is none of `values`: what is trained on where these are held out."""
    rows = np.arange(len(source))
    return np.setdiff1d(rows, rows_of(source, column, values)) if values else rows


def count_by(source: CellSource, column: str, rows: NDArray[np.integer]) -> dict[str, int]:
    """Return how many of the cells `rows` have each value of `column`, values of none left out."""
    counts = np.bincount(source.column(column)[rows], minlength=len(source.categories[column]))
    return {name: int(n) for name, n in zip(source.categories[column], counts, strict=True) if n}

"""Rows of a matrix, wherever and however it is stored.

Each class here answers ``rows(start, stop)`` with a csr_matrix of float32 or float64; none reads more of a
file than it has to.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, issparse

from cellingua.core.errors import FileError


class Matrix(Protocol):
    """What the rest of the room needs of a matrix."""

    shape: tuple[int, int]
    note: str

    def rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start` to `stop` (exclusive)."""

    def stored_per_row(self) -> NDArray[np.int64] | None:
        """Return the number of stored values of each row, or None where that takes reading all."""


def as_float(values: NDArray[Any]) -> NDArray[Any]:
    """Return float32 where it holds every value exactly, else float64 (unsigned integers would wrap around)."""
    small = values.dtype.kind in "biu" and values.dtype.itemsize <= 2
    if small or (values.dtype.kind == "f" and values.dtype.itemsize <= 4):
        return values.astype(np.float32, copy=False)
    return values.astype(np.float64, copy=False)


def _damaged(what: str) -> FileError:
    return FileError(
        f"The matrix is damaged: {what}.",
        "a complete file",
        "copy or download the file again, and compare its size with the original",
    )


class HeldMatrix:
    """A matrix in memory: scipy sparse (any format) or dense; or anything that can be sliced by rows."""

    def __init__(self, values: Any, note: str = "") -> None:
        if len(values.shape) != 2:
            raise _damaged(f"it has {len(values.shape)} dimensions, not 2")
        self.shape: tuple[int, int] = (int(values.shape[0]), int(values.shape[1]))
        self.note = note
        self._sparse = bool(issparse(values))
        if self._sparse:
            values = csr_matrix(values)
        self._values: Any = values

    def rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start` to `stop` (exclusive)."""
        block = self._values[start:stop]
        if hasattr(block, "compute"):  # dask
            block = block.compute()
        if not issparse(block):
            block = np.asarray(block)
        block = csr_matrix(block)
        return csr_matrix((as_float(block.data), block.indices, block.indptr), shape=block.shape)

    def stored_per_row(self) -> NDArray[np.int64] | None:
        """Return the stored values of each row of a sparse matrix."""
        return np.diff(self._values.indptr).astype(np.int64) if self._sparse else None


class StoredRows:
    """A compressed sparse matrix by rows in an HDF5 or zarr group (``data``, ``indices``, ``indptr``)."""

    def __init__(self, group: Any, shape: tuple[int, int]) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.note = ""
        self._data, self._indices = group["data"], group["indices"]
        self._indptr = np.asarray(group["indptr"][:], dtype=np.int64)
        pointers = self._indptr
        if pointers.size != self.shape[0] + 1:
            raise _damaged(f"{pointers.size:,} row pointers for {self.shape[0]:,} rows")
        if pointers[0] != 0 or (np.diff(pointers) < 0).any() or pointers[-1] != self._data.shape[0]:
            raise _damaged("its row pointers don't fit its values")

    def rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start` to `stop` (exclusive); only their part of the file is read."""
        stop = min(stop, self.shape[0])
        begin, end = int(self._indptr[start]), int(self._indptr[stop])
        indices = np.asarray(self._indices[begin:end])
        if indices.size and (indices.min() < 0 or indices.max() >= self.shape[1]):
            raise _damaged("it has values outside its columns")
        values = as_float(np.asarray(self._data[begin:end]))
        pointers = self._indptr[start : stop + 1] - begin
        return csr_matrix((values, indices, pointers), shape=(stop - start, self.shape[1]))

    def stored_per_row(self) -> NDArray[np.int64] | None:
        """Return the number of stored values of each row."""
        return np.diff(self._indptr)


class StoredColumns:
    """A compressed sparse matrix by columns: loaded whole, once, when the first row is asked for."""

    def __init__(self, group: Any, shape: tuple[int, int]) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.note = "the matrix is stored by columns (CSC), so it was loaded whole"
        self._group = group
        self._held: HeldMatrix | None = None

    def _load(self) -> HeldMatrix:
        if self._held is None:
            flipped = StoredRows(self._group, (self.shape[1], self.shape[0]))
            self._held = HeldMatrix(flipped.rows(0, self.shape[1]).T.tocsr())
        return self._held

    def rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start` to `stop` (exclusive)."""
        return self._load().rows(start, stop)

    def stored_per_row(self) -> NDArray[np.int64] | None:
        """Return the number of stored values of each row, once the matrix is loaded."""
        return self._held.stored_per_row() if self._held is not None else None


class JoinedColumns:
    """Matrices of the same cells, side by side (a 10x file of two genomes)."""

    def __init__(self, parts: list[Matrix]) -> None:
        self.shape = (parts[0].shape[0], sum(part.shape[1] for part in parts))
        self.note = ""
        self._parts = parts

    def rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start` to `stop` (exclusive)."""
        return csr_matrix(hstack([part.rows(start, stop) for part in self._parts], format="csr"))

    def stored_per_row(self) -> NDArray[np.int64] | None:
        """Return the number of stored values of each row."""
        counts = [part.stored_per_row() for part in self._parts]
        known = [count for count in counts if count is not None]
        return np.sum(known, axis=0) if len(known) == len(counts) else None


def stored_matrix(element: Any) -> Matrix:
    """Return the matrix of an HDF5 or zarr element as AnnData writes it (also the form of anndata 0.6).

    Raises
    ------
    FileError
        If it is of no known form, or its parts don't fit together.
    """
    if hasattr(element, "shape"):
        return HeldMatrix(element)
    attributes = dict(element.attrs)
    form = attributes.get("encoding-type", attributes.get("h5sparse_format"))
    shape = attributes.get("shape", attributes.get("h5sparse_shape"))
    form = form.decode() if isinstance(form, bytes) else str(form)
    if shape is None or len(shape) != 2 or form not in ("csr_matrix", "csr", "csc_matrix", "csc"):
        raise _damaged(f"a matrix of the form {form!r} is not known")
    kind = StoredRows if form.startswith("csr") else StoredColumns
    return kind(element, (int(shape[0]), int(shape[1])))

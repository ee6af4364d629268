"""Cells as compact raw arrays on disk: one ``.bin`` a shard, with a JSON index beside it, memory-mapped.

A stored count takes three bytes: the gene's row of the vocabulary (uint16) and the value (uint8). Values that are no
whole number from 0 to 254 stand aside as float32 with their position, so every value comes back exactly.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.core.errors import FileError
from cellingua.core.files import atomic_path, write_json

ASIDE = 255  # the byte of a value that stands in `large`
ALIGN = 64
_DTYPES: dict[str, np.dtype[Any]] = {
    "indptr": np.dtype("<i8"),
    "genes": np.dtype("<u2"),
    "small": np.dtype("u1"),
    "large_at": np.dtype("<i8"),
    "large": np.dtype("<f4"),
    "totals": np.dtype("<f8"),
    "codes": np.dtype("<i4"),
    "places": np.dtype("<i8"),
}


@dataclass(frozen=True)
class EncodedCells:
    """Cells as they are stored.

    Attributes
    ----------
    indptr
        int64 (cells + 1,): where each cell's values begin.
    genes
        uint16 (values,): row of the vocabulary, ascending in a cell.
    small
        uint8 (values,): the count, or `ASIDE`.
    large_at, large
        int64 and float32 (few,): position and value of what stands aside, positions ascending.
    totals
        float64 (cells,): over all columns of the file.
    codes
        int32 (cells, columns): file, donor, then a code a label column; -1 is not known.
    places
        int64 (cells,): row in the source file.
    """

    indptr: NDArray[np.int64]
    genes: NDArray[np.uint16]
    small: NDArray[np.uint8]
    large_at: NDArray[np.int64]
    large: NDArray[np.float32]
    totals: NDArray[np.float64]
    codes: NDArray[np.int32]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.totals)

    def slice(self, start: int, stop: int) -> EncodedCells:
        """Return the cells `start` to `stop` (exclusive); nothing large is copied."""
        begin, end = int(self.indptr[start]), int(self.indptr[stop])
        first, last = np.searchsorted(self.large_at, (begin, end))
        return EncodedCells(
            self.indptr[start : stop + 1] - begin,
            self.genes[begin:end],
            self.small[begin:end],
            self.large_at[first:last] - begin,
            self.large[first:last],
            self.totals[start:stop],
            self.codes[start:stop],
            self.places[start:stop],
        )

    def take(self, rows: NDArray[np.integer]) -> EncodedCells:
        """Return the cells `rows`, in that order."""
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(indptr[-1]) + np.repeat(self.indptr[:-1][rows] - indptr[:-1], lengths)
        small = self.small[at]
        large_at = np.flatnonzero(small == ASIDE)
        large = self.large[np.searchsorted(self.large_at, at[large_at])]
        genes, totals = self.genes[at], self.totals[rows]
        return EncodedCells(indptr, genes, small, large_at, large, totals, self.codes[rows], self.places[rows])

    def counts(self, n_genes: int) -> csr_matrix:
        """Return the counts, csr float32 (cells, n_genes)."""
        values = self.small.astype(np.float32)
        values[self.large_at] = self.large
        return csr_matrix((values, self.genes.astype(np.int32), self.indptr), shape=(len(self), n_genes))


def encode(
    counts: csr_matrix, totals: NDArray[np.float64], codes: NDArray[np.int32], places: NDArray[np.int64]
) -> EncodedCells:
    """Return cells in the stored form.

    Parameters
    ----------
    counts
        csr float32 (cells, genes), indices sorted, at most 65,536 genes.
    totals, codes, places
        See `EncodedCells`.
    """
    values = counts.data
    whole = (values >= 0) & (values < ASIDE) & (values == np.floor(values))
    small = np.where(whole, values, ASIDE).astype(np.uint8)
    large_at = np.flatnonzero(~whole)
    return EncodedCells(
        counts.indptr.astype(np.int64),
        counts.indices.astype(np.uint16),
        small,
        large_at,
        values[large_at].astype(np.float32),
        np.asarray(totals, np.float64),
        np.asarray(codes, np.int32),
        np.asarray(places, np.int64),
    )


def join(parts: Sequence[EncodedCells]) -> EncodedCells:
    """Return the cells of all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    begins = np.cumsum([0, *(len(part.genes) for part in parts)])
    pointers = [part.indptr[1:] + begin for part, begin in zip(parts, begins, strict=False)]
    return EncodedCells(
        np.concatenate([[0], *pointers]).astype(np.int64),
        np.concatenate([part.genes for part in parts]),
        np.concatenate([part.small for part in parts]),
        np.concatenate([part.large_at + begin for part, begin in zip(parts, begins, strict=False)]),
        np.concatenate([part.large for part in parts]),
        np.concatenate([part.totals for part in parts]),
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.places for part in parts]),
    )


def write_shard(path: Path, cells: EncodedCells) -> dict[str, Any]:
    """Write ``path.bin`` and then ``path.json``, each atomically; a shard is there once its index is.

    Returns
    -------
    dict
        The index: ``cells``, ``values``, ``bytes``, ``sha256``, ``arrays`` (offset, dtype and shape of each).

    Raises
    ------
    OutputError
        The disk is full.
    """
    arrays: dict[str, dict[str, Any]] = {}
    digest, offset = hashlib.sha256(), 0
    with atomic_path(path.with_suffix(".bin")) as partial, open(partial, "wb") as handle:
        for name, dtype in _DTYPES.items():
            array = np.ascontiguousarray(getattr(cells, name), dtype)
            padding = b"\0" * (-offset % ALIGN)
            handle.write(padding)
            digest.update(padding)
            offset += len(padding)
            arrays[name] = {"offset": offset, "dtype": dtype.str, "shape": list(array.shape)}
            content = array.data if array.size else memoryview(b"")
            handle.write(content)
            digest.update(content)
            offset += array.nbytes
    index = {
        "cells": len(cells),
        "values": len(cells.genes),
        "bytes": offset,
        "sha256": digest.hexdigest(),
        "arrays": arrays,
    }
    write_json(path.with_suffix(".json"), index)
    return index


def read_index(path: Path) -> dict[str, Any] | None:
    """Return the index of a shard that is whole (its ``.bin`` has the size it should), else None."""
    try:
        index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        whole = path.with_suffix(".bin").stat().st_size == index["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if whole else None


@dataclass(frozen=True)
class Shard:
    """A memory-mapped shard: its cells are read from disk as they are used.

    Attributes
    ----------
    cells
        All of them, as views of the map.
    """

    cells: EncodedCells
    _map: mmap.mmap
    _offsets: Mapping[str, int]

    def expect(self, start: int, stop: int) -> None:
        """Ask the system for the cells `start` to `stop` (exclusive) now, so that many blocks are fetched at once."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        values = slice(int(self.cells.indptr[start]), int(self.cells.indptr[stop]))
        for name in ("genes", "small"):
            width = _DTYPES[name].itemsize
            begin = self._offsets[name] + values.start * width
            end = self._offsets[name] + values.stop * width
            begin -= begin % mmap.PAGESIZE
            if end > begin:
                self._map.madvise(mmap.MADV_WILLNEED, begin, end - begin)


def open_shard(path: Path) -> Shard:
    """Memory-map a shard: what is returned reads from disk as it is used.

    Raises
    ------
    FileError
        It is missing, cut short, or not what its index says.
    """
    index = read_index(path)
    if index is None:
        raise FileError(
            f"{path.with_suffix('.bin')} is missing or not whole.",
            "a shard and its index, as they were written",
            "prepare the corpus again in another folder",
        )
    with open(path.with_suffix(".bin"), "rb") as handle:
        held = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    cells = EncodedCells(**{name: _view(path, held, name, index["arrays"]) for name in _DTYPES})
    return Shard(cells, held, {name: int(index["arrays"][name]["offset"]) for name in _DTYPES})


def _view(path: Path, held: mmap.mmap, name: str, arrays: Mapping[str, Any]) -> NDArray[Any]:
    """Return one array of a mapped shard."""
    try:
        entry = arrays[name]
        shape, dtype = tuple(int(size) for size in entry["shape"]), np.dtype(entry["dtype"])
        if dtype != _DTYPES[name]:
            raise ValueError(f"{name} is of type {dtype}")
        size = int(np.prod(shape))
        return np.frombuffer(held, dtype, count=size, offset=int(entry["offset"])).reshape(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path.with_suffix('.json')} does not fit its shard: {error}.", "the index that was written with it"
        ) from error

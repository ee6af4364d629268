"""A prepared corpus on disk, read by row number; a corpus larger than memory is read as any other."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellingua.cells.genes import load_vocabulary
from cellingua.cells.shards import EncodedCells, Shard, join, open_shard
from cellingua.cells.sources import FILE, CellRows, read_in_blocks
from cellingua.core.errors import FileError

INDEX, FORMAT, COLUMNS = "corpus.json", 1, "columns"
_OPEN = 64  # shards mapped at a time


def genes_digest() -> str:
    """Return the hash of the vocabulary that row numbers of genes refer to."""
    return hashlib.sha256("\n".join(load_vocabulary().ensembl_ids.tolist()).encode()).hexdigest()


def is_corpus(folder: Path) -> bool:
    """Is there a prepared corpus?"""
    return (folder / INDEX).is_file()


def read_corpus(folder: Path) -> dict[str, Any]:
    """Return the index of a prepared corpus.

    Raises
    ------
    FileError
        It is missing, damaged, of another version, or on other genes.
    """
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        found = index["format"], index["genes"]
        for key in ("cells", "values", "digest", COLUMNS, "files", "shards", "plan"):
            index[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{folder} can't be read as a corpus: {type(error).__name__} {error}.",
            f"a folder with {INDEX}, as cellingua prepares it",
            "prepare it again",
        ) from error
    if found != (FORMAT, genes_digest()):
        raise FileError(
            f"{folder} was prepared by another version of cellingua (format {found[0]}, or another gene table).",
            f"format {FORMAT} on the genes of this version",
            "prepare it again in another folder",
        )
    return index


def open_corpus(folder: Path) -> Corpus:
    """Open a prepared corpus; a shard is read when its cells are asked for.

    Raises
    ------
    FileError
        It is missing, damaged, of another version, or a shard is missing.
    """
    return Corpus(folder, read_corpus(folder))


class Corpus:
    """Cells in shards: a `CellSource`.

    Parameters
    ----------
    folder
        Where it lies.
    index
        What `read_corpus` returned.

    Attributes
    ----------
    digest
        Hash of all that was stored, for provenance.
    """

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder, self.index = folder, index
        self.digest: str = index["digest"]
        self.categories: dict[str, tuple[str, ...]] = {name: tuple(v) for name, v in index[COLUMNS].items()}
        self.n_genes = len(load_vocabulary())
        self._names = [str(shard["name"]) for shard in index["shards"]]
        self._ends = np.cumsum([int(shard["cells"]) for shard in index["shards"]])
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()
        for shard in index["shards"]:
            path = folder / "shards" / f"{shard['name']}.bin"
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise FileError(
                    f"{path} is missing or not whole.", f"{shard['bytes']:,} bytes", "prepare the corpus again"
                )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, rows: NDArray[np.integer]) -> CellRows:
        """Return the cells `rows`, in that order; runs of neighbours are read at once.

        Raises
        ------
        IndexError
            A row is not there.
        """
        cells = self.encoded(rows)
        labels = {name: cells.codes[:, place] for place, name in enumerate(self.categories)}
        return CellRows(cells.counts(self.n_genes), cells.totals, labels, cells.places)

    def encoded(self, rows: NDArray[np.integer]) -> EncodedCells:
        """Return the cells `rows` as they are stored."""
        rows = np.asarray(rows, np.int64)
        if rows.size == 0:
            return self._shard(0).cells.slice(0, 0)
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows {rows.min():,} to {rows.max():,} of {len(self):,}")
        spans = list(self._spans(rows.astype(np.int64)))
        if len(spans) > 1:  # one after the other, each would wait for the disk
            for held, first, last in spans:
                held.expect(first, last)
        return join([held.cells.slice(first, last) for held, first, last in spans])

    def expect(self, rows: NDArray[np.integer]) -> None:
        """Begin to fetch the cells `rows` from disk, and don't wait for them."""
        for held, first, last in self._spans(np.asarray(rows, np.int64)):
            held.expect(first, last)

    def _spans(self, rows: NDArray[np.int64]) -> Iterator[tuple[Shard, int, int]]:
        """Yield the shard of each run of neighbours, and where the run begins and ends in it."""
        shard = np.searchsorted(self._ends, rows, side="right")
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(shard) != 0)) + 1
        for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True):
            number = int(shard[begin])
            first = int(rows[begin]) - (int(self._ends[number - 1]) if number else 0)
            yield self._shard(number), first, first + end - begin

    def column(self, name: str) -> NDArray[np.int32]:
        """Return the codes of a column for all cells, int32 (cells,)."""
        place = list(self.categories).index(name)
        return np.concatenate([self._shard(number).cells.codes[:, place] for number in range(len(self._names))])

    def blocks(self, seed: int, epoch: int, size: int) -> Iterator[CellRows]:
        """Yield every cell once, in blocks of neighbours, the blocks in random order."""
        return read_in_blocks(self, seed, epoch, size)

    def summary(self) -> str:
        """Return one line for people."""
        size = sum(shard["bytes"] for shard in self.index["shards"])
        per_cell = self.index["values"] / max(1, len(self))
        return (
            f"{len(self):,} cells of {len(self.categories[FILE]):,} files, {per_cell:,.0f} genes a cell, "
            f"{len(self._names):,} shards, {size / 1e9:.2f} GB on disk."
        )

    def _shard(self, number: int) -> Shard:
        """Return a shard, mapped; the ones used longest ago are let go."""
        with self._lock:
            held = self._open.pop(number, None)
            if held is None:
                held = open_shard(self.folder / "shards" / self._names[number])
            self._open[number] = held
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
            return held

"""The genes of a model: which it knows, their tokens, and the medians it divides by."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from cellingua.cells.genes import load_vocabulary
from cellingua.cells.ranked import RankedCells, rank_tokens
from cellingua.core.errors import ModelError

HEADER = ("ensembl_id", "symbol", "token", "median")
MAX_BYTES = 64 << 20
GZIP = b"\x1f\x8b"
FIRST_TOKEN = 2  # below it: padding and mask
SCALE = 1e4


@dataclass(frozen=True)
class GeneTable:
    """One row a gene.

    Parameters
    ----------
    ensembl_ids, symbols
        str (n,); ids without version, each once; a symbol may be empty.
    tokens
        int32 (n,): the row of the cell tower's table, each once, above the special tokens.
    medians
        float64 (n,): the gene's median of counts / total x 10,000 over the cells that express it, above 0.
    """

    ensembl_ids: NDArray[np.str_]
    symbols: NDArray[np.str_]
    tokens: NDArray[np.int32]
    medians: NDArray[np.float64]

    def __post_init__(self) -> None:
        sizes = {len(column) for column in (self.ensembl_ids, self.symbols, self.tokens, self.medians)}
        if len(sizes) != 1 or len(self.tokens) == 0:
            raise ModelError("The gene table's columns differ in length, or it has no gene.", "a row a gene")
        if len(np.unique(self.ensembl_ids)) < len(self.ensembl_ids):
            raise ModelError("The gene table holds an Ensembl id twice.", "each id once")
        if len(np.unique(self.tokens)) < len(self.tokens) or self.tokens.min() < 0:
            raise ModelError("The gene table holds a token twice, or one below 0.", "each token once")
        if not (np.isfinite(self.medians).all() and (self.medians > 0).all()):
            raise ModelError("The gene table holds a median that is not above 0.", "positive medians")

    def __len__(self) -> int:
        return len(self.tokens)

    def columns(self, ensembl_ids: NDArray[np.str_]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Return the token (-1: none) and the median (1 where there is none) of columns by their Ensembl ids."""
        order = np.argsort(self.ensembl_ids)
        place = np.searchsorted(self.ensembl_ids, ensembl_ids, sorter=order).clip(max=len(self) - 1)
        rows = order[place]
        known = self.ensembl_ids[rows] == ensembl_ids
        tokens = np.where(known, self.tokens[rows], -1).astype(np.int32)
        return tokens, np.where(known, self.medians[rows], 1.0)

    @cached_property
    def on_vocabulary(self) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """What `columns` returns for the genes of the vocabulary."""
        return self.columns(load_vocabulary().ensembl_ids)

    def rank(self, counts: csr_matrix, totals: NDArray[np.float64] | None, limit: int | None) -> RankedCells:
        """Return the ranked tokens of counts over the vocabulary's genes: see `rank_tokens`."""
        return rank_tokens(counts, *self.on_vocabulary, totals=totals, limit=limit)

    def to_bytes(self) -> bytes:
        """Return the table as a gzip of tab-separated text; the same table gives the same bytes."""
        lines = ["\t".join(HEADER)]
        rows = zip(self.ensembl_ids, self.symbols, self.tokens, self.medians, strict=True)
        lines += [f"{gene}\t{symbol}\t{token}\t{float(median)!r}" for gene, symbol, token, median in rows]
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as handle:
            handle.write(("\n".join(lines) + "\n").encode("utf-8"))
        return buffer.getvalue()


def number_genes(rows: NDArray[np.int64], medians: NDArray[np.float64]) -> GeneTable:
    """Return the table of the genes at `rows` of the vocabulary; tokens follow the order of the Ensembl ids."""
    vocabulary = load_vocabulary()
    order = np.argsort(vocabulary.ensembl_ids[rows])
    rows, medians = rows[order], medians[order]
    tokens = (FIRST_TOKEN + np.arange(len(rows))).astype(np.int32)
    return GeneTable(vocabulary.ensembl_ids[rows], vocabulary.symbols[rows], tokens, medians)


def gene_medians(counts: csr_matrix, totals: NDArray[np.float64], least: int) -> NDArray[np.float64]:
    """Return each gene's median of counts / total x 10,000 over the cells that express it.

    Parameters
    ----------
    counts
        CSR (cells, genes).
    totals
        float64 (cells,).
    least
        Cells that must express a gene.

    Returns
    -------
    ndarray
        float64 (genes,), NaN where fewer cells express it.
    """
    data = counts.data * np.repeat(SCALE / np.maximum(totals, 1), np.diff(counts.indptr))
    columns = csc_matrix(csr_matrix((data, counts.indices, counts.indptr), counts.shape))
    medians = np.full(counts.shape[1], np.nan)
    for gene in np.flatnonzero(np.diff(columns.indptr) >= least):
        medians[gene] = np.median(columns.data[columns.indptr[gene] : columns.indptr[gene + 1]])
    return medians


def read_gene_table(path: Path) -> GeneTable:
    """Read ``genes.tsv.gz``, or the same table unpacked: ensembl_id, symbol, token, median.

    Rows with neither token nor median are passed over: the official table lists names outside the vocabulary so.

    Raises
    ------
    ModelError
        The file is missing, damaged, or not such a table.
    """
    try:
        header, *lines = _unpacked(path).decode("utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        if tuple(header.split("\t")) != HEADER or any(len(row) != len(HEADER) for row in rows):
            raise ValueError("its columns are others")
        rows = [row for row in rows if row[2:] != ["", ""]]
        return GeneTable(
            np.array([row[0] for row in rows], dtype=np.str_),
            np.array([row[1] for row in rows], dtype=np.str_),
            np.array([int(row[2]) for row in rows], dtype=np.int32),
            np.array([float(row[3]) for row in rows], dtype=np.float64),
        )
    except (OSError, EOFError, ValueError, zlib.error) as error:
        columns = ", ".join(HEADER)
        raise ModelError(f"{path} can't be read: {error}.", f"a table with the columns {columns}") from error


def _unpacked(path: Path) -> bytes:
    """Return the content of a file, unpacked if it is a gzip; neither side may be larger than any list of genes."""
    with open(path, "rb") as handle:
        packed = handle.read(MAX_BYTES + 1)
    if packed[:2] == GZIP:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as unpacking:
            packed = unpacking.read(MAX_BYTES + 1)
    if len(packed) > MAX_BYTES:
        raise ValueError(f"it holds more than {MAX_BYTES:,} bytes")
    return packed

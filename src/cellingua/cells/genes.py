"""One vocabulary of human genes, and the ways a column of a matrix may name one of them.

The tables are made by ``scripts/make_genes.py`` from GENCODE and HGNC (see there for what is in and why).
"""

from __future__ import annotations

import functools
import gzip
import importlib.resources
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

# ENSG00000182378, with a version, "_PAR_Y", ENSGR (pseudo-autosomal genes on Y) or a symbol around it.
_ENSEMBL = re.compile(r"ENSG[R0]\d{10}", re.IGNORECASE)
# "-1" by AnnData's var_names_make_unique, ".1" by R's make.unique.
_SUFFIX = re.compile(r"[-.]\d{1,2}$")
_MISSING = {"", "nan", "none", "na", "null", "<na>"}  # NaN is also an alias of SCN11A, but no column means that
_AMBIGUOUS = -2
HOW = ("ensembl", "symbol", "previous", "alias", "case", "none", "ambiguous")


@dataclass(frozen=True)
class GeneMatch:
    """Which gene each column of a matrix is.

    Attributes
    ----------
    index
        int32 (n_columns,): row of the vocabulary, or -1 where the column is no known gene.
    how
        str (n_columns,): the way it was found, one of `HOW`; "none" and "ambiguous" where it was not.
    n_vocabulary
        Number of genes of the vocabulary.
    """

    index: NDArray[np.int32]
    how: NDArray[np.str_]
    n_vocabulary: int

    @property
    def n_genes(self) -> int:
        """Number of distinct genes found."""
        return int(np.unique(self.index[self.index >= 0]).size)

    def summary(self) -> dict[str, int]:
        """Return columns, mapped columns, distinct genes, columns that were summed, and a count for each way."""
        mapped = int((self.index >= 0).sum())
        counts = {"columns": int(self.index.size), "mapped": mapped, "genes": self.n_genes}
        counts["summed"] = mapped - counts["genes"]
        return counts | {how: int((self.how == how).sum()) for how in HOW}

    def restrict(self, keep: NDArray[np.bool_]) -> GeneMatch:
        """Return the match with the columns outside `keep` unmapped."""
        return GeneMatch(
            np.where(keep, self.index, -1).astype(np.int32), np.where(keep, self.how, "none"), self.n_vocabulary
        )

    @functools.cached_property
    def indicator(self) -> csr_matrix:
        """float32 (n_columns, n_vocabulary), 1 where the column is the gene."""
        columns = np.flatnonzero(self.index >= 0)
        ones = np.ones(columns.size, np.float32)
        shape = (self.index.size, self.n_vocabulary)
        return csr_matrix((ones, (columns, self.index[columns])), shape=shape)


class Vocabulary:
    """Human genes, with everything that is known to name them.

    Parameters
    ----------
    ensembl_ids, symbols, biotypes
        Equally long; symbols may repeat (the first row that is given has the symbol).
    other_names
        Previous symbols and aliases: name -> (row, "previous" or "alias").
    """

    def __init__(
        self,
        ensembl_ids: Sequence[str],
        symbols: Sequence[str],
        biotypes: Sequence[str],
        other_names: dict[str, tuple[int, str]] | None = None,
    ) -> None:
        self.ensembl_ids = np.array(ensembl_ids, dtype=np.str_)
        self.symbols = np.array(symbols, dtype=np.str_)
        self.biotypes = np.array(biotypes, dtype=np.str_)
        self._by_id = {gene: row for row, gene in enumerate(ensembl_ids)}
        # Of genes that share a symbol, a protein-coding one, then the one with the lower (older) id, has it.
        order = sorted(range(len(symbols)), key=lambda row: (biotypes[row] != "protein_coding", ensembl_ids[row]))
        self._by_symbol: dict[str, int] = {}
        for row in order:
            self._by_symbol.setdefault(symbols[row], row)
        self._others = other_names or {}

    def __len__(self) -> int:
        return len(self.ensembl_ids)

    @functools.cached_property
    def _by_upper(self) -> dict[str, int]:
        """Names in upper case; symbols go before other names, and what remains unclear is `_AMBIGUOUS`."""
        upper: dict[str, int] = {}
        for name, row in self._by_symbol.items():
            key = name.upper()
            upper[key] = row if upper.setdefault(key, row) == row else _AMBIGUOUS
        others: dict[str, int] = {}
        for name, (row, _) in self._others.items():
            key = name.upper()
            others[key] = row if others.setdefault(key, row) == row else _AMBIGUOUS
        return others | upper

    def row_of_id(self, text: str) -> int:
        """Return the row of the Ensembl id in `text` (version and case don't matter), or -1.

        -2 says that there is a human Ensembl id, but of a gene outside the vocabulary.
        """
        found = _ENSEMBL.search(text)
        if found is None:
            return -1
        return self._by_id.get("ENSG0" + found.group()[5:], -2)

    def row_of_name(self, name: str) -> tuple[int, str]:
        """Return (row or -1, how) of a symbol, previous symbol, alias, or one of these in another spelling."""
        row = self._by_symbol.get(name)
        if row is not None:
            return row, "symbol"
        if name.lower() in _MISSING:
            return -1, "none"
        other = self._others.get(name)
        if other is not None:
            return other
        key = name.upper()
        row = self._by_upper.get(key)
        if row is None and "." in key:  # R writes HLA.A for HLA-A
            row = self._by_upper.get(key.replace(".", "-"))
        if row is None:
            return -1, "none"
        return (-1, "ambiguous") if row == _AMBIGUOUS else (row, "case")

    def resolve(self, names: Sequence[str], ids: Sequence[str] | None = None) -> GeneMatch:
        """Find the gene of each column.

        Parameters
        ----------
        names
            Symbols or Ensembl ids, one a column.
        ids
            Ensembl ids of the same columns, if there are any; they go before `names`. Where an id is not (or no
            longer) in the vocabulary, the name is used unless another column has that gene by its id: the
            second TBCE of an annotation is then a transcript beside the gene, not the gene. The same holds
            for an alias of a column without an id.

        Notes
        -----
        A name is tried as Ensembl id (with or without version), current symbol, previous symbol, unambiguous
        alias, then without regard to case, then without the "-1" that makes names unique (only if the name
        without it is a column too, so that NKX2-1 stays itself).
        """
        names = [str(name).strip() for name in names]
        index = np.full(len(names), -1, np.int32)
        how = np.full(len(names), "none", dtype="<U9")
        waiting: list[int] = []
        columns = list(range(len(names)))
        if ids is not None:
            rows = np.array([self.row_of_id(str(text)) for text in ids], np.int64)
            found = rows >= 0
            index[found] = rows[found]
            how[found] = "ensembl"
            waiting = np.flatnonzero(rows == -2).tolist()
            columns = np.flatnonzero(rows == -1).tolist()
        taken = set(index[how == "ensembl"].tolist())
        known: set[str] | None = None
        for column in columns:
            name = names[column]
            row = self.row_of_id(name) if name[:4].upper() == "ENSG" or "ENSG" in name else -1
            way = "ensembl"
            if row == -1:
                row, way = self.row_of_name(name)
                if row < 0 and _SUFFIX.search(name):
                    known = set(names) if known is None else known
                    base = _SUFFIX.sub("", name)
                    if base in known:
                        row, way = self.row_of_name(base)
            if row >= 0 and way in ("alias", "case") and row in taken:
                continue
            if row >= 0:
                index[column] = row
            how[column] = way if row >= 0 or way == "ambiguous" else "none"
        for column in waiting:
            row, way = self.row_of_name(names[column])
            if row >= 0 and way != "case" and row not in taken:
                index[column], how[column] = row, way
        return GeneMatch(index, how, len(self))


def collapse(counts: csr_matrix, match: GeneMatch) -> csr_matrix:
    """Sum the columns that fall on one gene.

    Parameters
    ----------
    counts
        (cells, n_columns), sparse, any number type.
    match
        What the columns are; unmapped columns are left out.

    Returns
    -------
    csr_matrix
        float32 (cells, n_vocabulary), column j is row j of the vocabulary, indices sorted, no stored zeros.
        Integers stay exact up to 2**24.
    """
    counts = csr_matrix(counts)
    if counts.dtype.kind in "biu":  # small unsigned integers would wrap around when summed
        counts = counts.astype(np.float32 if counts.dtype.itemsize <= 2 else np.float64)
    summed: csr_matrix = csr_matrix(counts @ match.indicator)
    summed = summed.astype(np.float32, copy=False)
    summed.eliminate_zeros()
    summed.sort_indices()
    return summed


def _read_table(name: str) -> list[list[str]]:
    packed = (importlib.resources.files("cellingua") / "data" / "genes" / name).read_bytes()
    return [line.split("\t") for line in gzip.decompress(packed).decode().splitlines()[1:]]


@functools.lru_cache(maxsize=1)
def load_vocabulary() -> Vocabulary:
    """Return the shipped vocabulary (read once)."""
    ids, symbols, biotypes = (list(column) for column in zip(*_read_table("genes.tsv.gz"), strict=True))
    rows = {gene: row for row, gene in enumerate(ids)}
    others = {name: (rows[gene], how) for name, gene, how in _read_table("names.tsv.gz")}
    return Vocabulary(ids, symbols, biotypes, others)

"""Fingerprints of cells: what a model has seen can be told again, whatever the file looks like.

A fingerprint is a 64-bit hash of the pairs (Ensembl id, raw count) of the genes with a count, over a fixed list of
genes. The order of genes and cells, the format, stored zeros, genes that are absent because nothing was counted, and
the type of the numbers change nothing. There are sixteen lists of 32 genes (``data/genes/fingerprint.tsv``), made for
files that were cut: two hold genes that every cell expresses, the others genes that panels and variable-gene filters
keep. A cell has a fingerprint over each list on which enough was counted, so it is recognised as long as one of
its lists came through whole.

The hash of a pair is splitmix64 of (key of the gene + splitmix64 of (count x the golden ratio)), a list's is
splitmix64 of their sum: a sum has no order, so nothing needs sorting. The key is the start of the id's SHA-256.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.genes import load_vocabulary

#: A cell has a fingerprint over a list if this many of its genes have a count ...
LEAST_GENES = 6
#: ... and if the counts, as whole powers of two (1 and 2 are worth 1, 3 to 6 are worth 2, ...), add up to this.
LEAST_WEIGHT = 8
#: The first lists hold genes that every cell expresses; of these one fingerprint a cell is stored.
COMMON = 2
#: Fingerprints that are stored of a cell, at most.
STORED = 3
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class GeneLists:
    """The lists that fingerprints are taken over.

    Attributes
    ----------
    list_of
        int8 (vocabulary,): the list of each gene, -1 for none.
    keys
        uint64 (vocabulary,): the key of each gene of a list, 0 of others.
    number
        How many lists there are.
    hash
        SHA-256 of the lists: fingerprints over other lists can't be compared.
    """

    list_of: NDArray[np.int8]
    keys: NDArray[np.uint64]
    number: int
    hash: str


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of n cells over G lists.

    Attributes
    ----------
    values
        uint64 (n, G).
    genes
        int64 (n, G): genes of the list with a count, 0 where the cell has no fingerprint over it.
    """

    values: NDArray[np.uint64]
    genes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def there(self) -> NDArray[np.bool_]:
        """bool (n, G): where there is a fingerprint."""
        return self.genes > 0

    def stored(self) -> NDArray[np.bool_]:
        """Return bool (n, G): the fingerprints that a model keeps of each cell.

        Those over the lists of which the cell expresses most, at most `STORED`, and one of them over a common list.
        """
        order = np.argsort(-self.genes, axis=1, kind="stable")
        rows = np.arange(len(self))
        chosen = np.zeros(self.genes.shape, bool)
        common = np.zeros(len(self), bool)
        for place in range(self.genes.shape[1]):
            column = order[:, place]
            free = self.there[rows, column] & (chosen.sum(axis=1) < STORED) & ~(common & (column < COMMON))
            chosen[rows[free], column[free]] = True
            common |= free & (column < COMMON)
        return chosen

    @staticmethod
    def join(parts: Iterable[Fingerprints]) -> Fingerprints:
        """Return the fingerprints of several blocks of cells as one."""
        held = list(parts)
        if not held:
            number = load_lists().number
            return Fingerprints(np.zeros((0, number), np.uint64), np.zeros((0, number), np.int64))
        return Fingerprints(np.concatenate([p.values for p in held]), np.concatenate([p.genes for p in held]))


def gene_key(ensembl_id: str) -> int:
    """Return the key of a gene: the first eight bytes of its id's SHA-256, little-endian."""
    return int.from_bytes(hashlib.sha256(ensembl_id.encode()).digest()[:8], "little")


@functools.lru_cache(maxsize=1)
def load_lists() -> GeneLists:
    """Return the shipped lists (read once)."""
    table = (importlib.resources.files("cellingua") / "data" / "genes" / "fingerprint.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in table.splitlines()[1:]]
    vocabulary = load_vocabulary()
    list_of = np.full(len(vocabulary), -1, np.int8)
    keys = np.zeros(len(vocabulary), np.uint64)
    for gene, _, number in rows:
        row = vocabulary.row_of_id(gene)
        list_of[row], keys[row] = int(number), gene_key(gene)
    told = "\n".join(f"{gene} {number}" for gene, _, number in sorted(rows))
    return GeneLists(list_of, keys, int(list_of.max()) + 1, hashlib.sha256(told.encode()).hexdigest())


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return splitmix64's last step (Steele, Lea and Flood 2014) of each value: every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))


def fingerprints(counts: csr_matrix) -> Fingerprints:
    """Return the fingerprints of cells.

    Parameters
    ----------
    counts
        CSR (cells, vocabulary), raw counts on the vocabulary's genes, as `CountBlocks` gives them; what is no whole
        number (a recovered count) is rounded.
    """
    lists = load_lists()
    number = lists.number
    # Most counts are of genes outside the lists: they are put aside first. Arrays may be longer than what they hold.
    use = np.flatnonzero(lists.list_of[counts.indices[: counts.indptr[-1]]] >= 0)
    values = np.rint(counts.data[use]).astype(np.int64)
    use, values = use[values > 0], values[values > 0]
    columns = counts.indices[use]
    rows = np.searchsorted(counts.indptr, use, side="right") - 1
    place = rows * number + lists.list_of[columns]
    size = counts.shape[0] * number
    with np.errstate(over="ignore"):
        pairs = mixed(lists.keys[columns] + mixed(values.astype(np.uint64) * np.uint64(_GOLDEN)))
        # A sum modulo 2**64 from two sums of halves, each of at most 2**32 x 32 genes: exact in float64.
        low = np.bincount(place, (pairs & np.uint64(0xFFFFFFFF)).astype(np.float64), size).astype(np.uint64)
        high = np.bincount(place, (pairs >> np.uint64(32)).astype(np.float64), size).astype(np.uint64)
        found = mixed((high << np.uint64(32)) + low)
    genes = np.bincount(place, minlength=size)
    weight = np.bincount(place, np.frexp(values + 1.0)[1] - 1, size)
    there = (genes >= LEAST_GENES) & (weight >= LEAST_WEIGHT)
    shape = counts.shape[0], number
    return Fingerprints(np.where(there, found, 0).reshape(shape), np.where(there, genes, 0).reshape(shape))


def fingerprints_plain(pairs: Iterable[tuple[str, int]]) -> dict[int, int]:
    """Return list -> fingerprint of one cell from its pairs (Ensembl id, count): the plain twin of `fingerprints`."""
    lists, vocabulary = load_lists(), load_vocabulary()
    held: dict[int, list[tuple[str, int]]] = {}
    for gene, count in sorted(pairs):
        row = vocabulary.row_of_id(gene)
        if count > 0 and row >= 0 and lists.list_of[row] >= 0:
            held.setdefault(int(lists.list_of[row]), []).append((gene, count))
    found = {}
    for number, genes in held.items():
        weight = sum((count + 1).bit_length() - 1 for _, count in genes)
        if len(genes) >= LEAST_GENES and weight >= LEAST_WEIGHT:
            total = sum(_mixed_plain(gene_key(gene) + _mixed_plain(count * _GOLDEN)) for gene, count in genes)
            found[number] = _mixed_plain(total)
    return found


def _mixed_plain(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)

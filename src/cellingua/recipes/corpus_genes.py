"""The genes of a model that is trained on a corpus: the released table, or the corpus's own with its own medians."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.sources import CellSource
from cellingua.core.errors import CountsError
from cellingua.models.gene_dictionaries import V1_TABLE
from cellingua.models.gene_table import GeneTable, gene_medians, number_genes, read_gene_table

SOURCES = ("geneformer_v1", "corpus")
LEAST_CELLS = 10  # of a sample, that express a gene
SAMPLE, BLOCK = 20_000, 16


def official_genes() -> GeneTable:
    """Return the 25,424 genes of Geneformer V1 and LangCell with their medians over 30 million cells."""
    return read_gene_table(V1_TABLE)


def corpus_genes(source: CellSource, rows: NDArray[np.int64], seed: int = 0) -> GeneTable:
    """Return the genes that a sample of a corpus expresses, with the non-zero median of counts / total x 10,000.

    Parameters
    ----------
    rows
        int64: cells that may be looked at; up to 20,000 are, in random blocks of neighbours.
    seed
        Of the sample.

    Raises
    ------
    CountsError
        No gene is expressed by 10 of them.
    """
    starts = np.random.default_rng([seed, 42]).permutation(np.arange(0, len(rows), BLOCK))[: SAMPLE // BLOCK]
    cells = source.read(np.concatenate([rows[start : start + BLOCK] for start in np.sort(starts)]))
    medians = gene_medians(csr_matrix(cells.counts), cells.totals, LEAST_CELLS)
    genes = np.flatnonzero(~np.isnan(medians))
    if not len(genes):
        raise CountsError(f"No gene is expressed by {LEAST_CELLS} of {len(cells):,} cells.", "a larger corpus")
    return number_genes(genes, medians[genes])

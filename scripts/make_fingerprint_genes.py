"""Make ``src/cellingua/data/genes/fingerprint.tsv``: the genes that a cell's fingerprints are taken over.

Run as ``python scripts/make_fingerprint_genes.py [../shared/data/cells/corpus]``. Sixteen lists of 32 genes, none in
two lists. Two hold the genes that most cells of every study express: they are left when rare genes are dropped. The
others are made for panels and for files cut to their most variable genes: each family of studies (early embryo, fetal
brain, cell lines, blood, tumours and skin, full-length libraries) gives the genes that most of its panels and variable
genes hold, the often expressed ones first. A gene is protein-coding, has its symbol alone and has had no other (an
old annotation names it the same), and is not mitochondrial, ribosomal or of the HLA (often left out, or aligned
differently). Only training data are read; cells that models are judged by take no part.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.collections import CellSet, read_cells
from cellingua.cells.genes import load_vocabulary

ROOT = Path(__file__).resolve().parents[1]
GENES = ROOT / "src/cellingua/data/genes"
SIZE, COMMON = 32, 2
VARIABLE = 2000
WHOLE = 8000  # genes with a count in a file that was not cut to a panel
CELLS = 250  # fewer say nothing of variable genes
OUT_OF_LISTS = ("MT-", "RPL", "RPS", "HLA-", "MTRNR")
BLOOD = ("onek1k_panel1000", "pbmc_3p_5p_panel1767", "pbmc_five_sources", "hao_pbmc_1000", "eccite_pbmc_500")
# Family -> its files and its number of lists; a gene goes to the first family that wants it, so narrow ones are first.
FAMILIES = {
    "fetal brain": (("fetal_cortex_culture_panel2000",), 2),
    "early embryo": (("tyser_gastrula_panel2900",), 2),
    "cell lines": (("stoeckius_hashed_lines",), 2),
    "blood": ((*BLOOD, "malt_lymphoma_1000"), 4),
    "tumours and skin": (("kim_luad_t34", "wu_breast_cid4465", "copykat_breast_tumour", "skin_ctcl_normal"), 3),
    "full-length": (("li_cell_lines", "pollen_lines_cortex", "sc_mixology_lung_lines"), 1),
}


def steady_genes() -> NDArray[np.bool_]:
    """Return bool (vocabulary,): genes that every annotation calls the same and few analyses leave out."""
    vocabulary = load_vocabulary()
    lines = gzip.decompress((GENES / "names.tsv.gz").read_bytes()).decode().splitlines()[1:]
    renamed = {line.split("\t")[1] for line in lines if line.endswith("\tprevious")}
    symbols, uses = np.unique(vocabulary.symbols, return_counts=True)
    shared = set(symbols[uses > 1].tolist())
    rows = zip(vocabulary.ensembl_ids.tolist(), vocabulary.symbols.tolist(), vocabulary.biotypes.tolist(), strict=True)
    return np.array(
        [
            biotype == "protein_coding"
            and gene not in renamed
            and symbol not in shared
            and not symbol.startswith(("ENSG", *OUT_OF_LISTS))
            for gene, symbol, biotype in rows
        ]
    )


def detection(counts: csr_matrix) -> NDArray[np.float64]:
    """Return the share of cells that express each gene."""
    return counts.getnnz(axis=0) / counts.shape[0]


def by_dispersion(counts: csr_matrix) -> NDArray[np.int64]:
    """Return the most variable genes of log-normalised counts: dispersion among genes of like mean, as in scanpy."""
    totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    data = np.log1p(counts.data * 1e4 / np.repeat(totals, np.diff(counts.indptr)))
    values = csr_matrix((data, counts.indices, counts.indptr), counts.shape)
    mean = np.asarray(values.mean(axis=0)).ravel()
    variance = np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2
    score = np.full(len(mean), -np.inf)
    dispersion = np.log(np.maximum(variance, 1e-12) / np.maximum(mean, 1e-9))
    bins = np.digitize(mean, np.quantile(mean[mean > 0], np.linspace(0, 1, 21)))
    for number in np.unique(bins):
        inside = (bins == number) & (mean > 0)
        if inside.sum() > 5:
            score[inside] = (dispersion[inside] - dispersion[inside].mean()) / (dispersion[inside].std() + 1e-9)
    return np.argsort(-score, kind="stable")[:VARIABLE]


def by_residual(counts: csr_matrix) -> NDArray[np.int64]:
    """Return the most variable genes of raw counts: variance above what the mean lets expect (a parabola in logs)."""
    mean = np.asarray(counts.mean(axis=0)).ravel()
    variance = np.asarray(counts.multiply(counts).mean(axis=0)).ravel() - mean**2
    varies = variance > 0
    score = np.full(len(mean), -np.inf)
    x, y = np.log10(mean[varies]), np.log10(variance[varies])
    score[varies] = y - np.polyval(np.polyfit(x, y, 2), x)
    return np.argsort(-score, kind="stable")[:VARIABLE]


def gene_sets(counts: csr_matrix) -> list[NDArray[np.bool_]]:
    """Return what a file may be cut to: its panel, or its most variable genes by two rules."""
    present = counts.getnnz(axis=0) > 0
    if present.sum() < WHOLE:
        return [present, present]
    chosen = []
    for rows in (by_dispersion(counts), by_residual(counts)):
        held = np.zeros(counts.shape[1], bool)
        held[rows] = True
        chosen.append(held)
    return chosen


def make_lists(cells: CellSet) -> list[NDArray[np.int64]]:
    """Return the lists as rows of the vocabulary."""
    free = steady_genes()
    parts = {str(file): cells.take(cells.files == file).counts for file in np.unique(cells.files)}
    whole = [part for part in parts.values() if part.shape[0] >= CELLS and (part.getnnz(axis=0) > 0).sum() > WHOLE]
    widely = np.mean([detection(part) for part in whole], axis=0)
    lists = _deal(np.where(free, widely, 0), COMMON, free)
    for files, number in FAMILIES.values():
        held = np.mean([held for file in files for held in gene_sets(parts[file])], axis=0)
        shown = np.mean([detection(parts[file]) for file in files], axis=0)
        lists += _deal(np.where(free, held**4 * np.sqrt(shown), 0), number, free)
    return lists


def _deal(score: NDArray[np.float64], lists: int, free: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Deal the best genes out to lists that are equally good, and take them out of what is free."""
    best = np.argsort(-score, kind="stable")[: lists * SIZE]
    free[best] = False
    return [best[place::lists] for place in range(lists)]


def main() -> None:
    """Write the table."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared/data/cells/corpus"
    vocabulary = load_vocabulary()
    lines = ["ensembl_id\tsymbol\tlist"]
    for number, rows in enumerate(make_lists(read_cells(folder))):
        ids = sorted((str(vocabulary.ensembl_ids[row]), str(vocabulary.symbols[row])) for row in rows)
        lines += [f"{gene}\t{symbol}\t{number}" for gene, symbol in ids]
    (GENES / "fingerprint.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

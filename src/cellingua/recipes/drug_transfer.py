"""From cell lines to single cells without a labelled cell: SCAD's setting, by plain methods.

For each drug a method learns from the lines' expression and responses, and scores cells. Bulk and single cells have
nothing in common but the genes, so each gene is standardised over the lines and, separately, over the cells. **A
cell's score therefore depends on the other cells of its file**: it says which of *these* cells look more like the
sensitive lines than the others do, and nothing of all of them together. (`cellingua drug rank` answers for one sample
alone.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellingua.baselines.drug_binary import DrugForest, DrugLogistic
from cellingua.baselines.drug_form import DrugBaseline, Known, scaled
from cellingua.baselines.drug_ridge import DrugRidge
from cellingua.cells.genes import load_vocabulary
from cellingua.core.errors import GeneError, InputError

Floats = NDArray[np.float64]
#: Of the strong ridge; chosen on single cells of lines that were left out, where 0.1 to 100 were tried.
STRONG = 3.0
FEWEST_GENES = 200
#: Name -> what makes the method. ``ridge`` chooses its penalty on the lines alone, and chooses too small a one for
#: cells; ``strong ridge`` has the penalty that was best for cells of other lines.
METHODS = ("strong ridge", "ridge", "classifier", "random forest")


@dataclass(frozen=True)
class SharedGenes:
    """Lines and cells on the same genes.

    Attributes
    ----------
    symbols
        str (G,).
    lines, cells
        float64 (L, G) and (C, G): z-scores over the lines and over the cells; what is absent or constant is 0.
    """

    symbols: NDArray[np.str_]
    lines: Floats
    cells: Floats


def make_method(name: str, seed: int = 0) -> DrugBaseline:
    """Return a method by name."""
    if name == "strong ridge":
        return DrugRidge(penalties=(STRONG,))
    if name == "ridge":
        return DrugRidge()
    if name == "classifier":
        return DrugLogistic()
    if name == "random forest":
        return DrugForest(seed=seed)
    raise InputError(f"There is no method {name!r}.", " or ".join(METHODS))


def share_genes(
    line_genes: Sequence[str], line_values: Floats, cell_genes: Sequence[str], cell_values: Floats
) -> SharedGenes:
    """Bring lines and cells on the human genes that both have, standardised over each by itself.

    Parameters
    ----------
    line_genes, cell_genes
        Symbols or Ensembl ids; of a gene that stands twice the first column is taken.
    line_values
        float (L, G'), NaN where absent.
    cell_values
        float (C, G''): z-scores, or log-normalised counts.

    Raises
    ------
    GeneError
        Fewer than `FEWEST_GENES` are shared.
    """
    vocabulary = load_vocabulary()
    places = [
        _first_columns(vocabulary.resolve([str(name) for name in genes]).index) for genes in (line_genes, cell_genes)
    ]
    both = sorted(places[0].keys() & places[1].keys())
    if len(both) < FEWEST_GENES:
        raise GeneError(
            f"Lines and cells share {len(both):,} known human genes.",
            f"{FEWEST_GENES} at least",
            "expression of all genes, with symbols or Ensembl ids",
        )
    columns = [[place[gene] for gene in both] for place in places]
    lines, cells = (np.asarray(v, np.float64)[:, c] for v, c in zip((line_values, cell_values), columns, strict=True))
    if len(cells) < 2:
        raise InputError(f"{len(cells)} cells can't be standardised over themselves.", "two cells at least")
    every = [np.ones(len(values), dtype=bool) for values in (lines, cells)]
    return SharedGenes(vocabulary.symbols[both], scaled(lines, every[0]), scaled(cells, every[1]))


def _first_columns(index: NDArray[np.integer]) -> dict[int, int]:
    return {int(gene): place for place, gene in reversed(list(enumerate(index))) if gene >= 0}


def transfer(method: DrugBaseline, grid: Floats, genes: SharedGenes) -> Floats:
    """Return float64 (cells, D): a score that is higher for cells more like the sensitive lines of each drug.

    Parameters
    ----------
    grid
        float (L, D): ln IC50 of the lines, NaN where unknown.
    """
    if len(grid) != len(genes.lines):
        raise InputError(f"Responses of {len(grid):,} lines for {len(genes.lines):,}.", "one row a line in each")
    n = len(genes.lines)
    table = np.concatenate([grid, np.full((len(genes.cells), grid.shape[1]), np.nan)])
    return -method.complete(table, Known(np.concatenate([genes.lines, genes.cells])))[n:]

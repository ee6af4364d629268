"""What a drug model is asked about: lines of a table, clusters of a file of cells (pseudo-bulk), or each cell.

A pseudo-bulk is the sum of the counts of a cluster's cells, which stands for that cluster alone. Genes of the
vocabulary that no column of the file names are absent; a gene that has a column and no count was measured as zero. A
file of cells needs to say which cells belong together: a column of labels, all cells as one sample, or each row as a
bulk profile. Nothing of that is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.columns import gene_names
from cellingua.cells.counts import CountBlocks
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import CellFile
from cellingua.core.errors import InputError
from cellingua.models.drug_expression import Samples
from cellingua.tasks.columns import label_column
from cellingua.tasks.drug_tables import read_expression

if TYPE_CHECKING:
    from cellingua.core.progress import Progress

ROWS = 2048
FEW_CELLS = 20
MOST_GROUPS = 200


@dataclass(frozen=True)
class SampleSet:
    """Samples, and what they were made of.

    Attributes
    ----------
    samples
        One a line, cluster or whole file.
    kind
        ``lines`` (rows of a table), ``clusters`` or ``whole``.
    cells
        int64 (m,): cells of each pseudo-bulk; None for lines.
    group
        int64 (n,): the sample of each cell of the file, -1 for none; None for lines.
    notes
        What a user should know, a sentence each.
    key
        Column that named the clusters.
    """

    samples: Samples
    kind: str
    cells: NDArray[np.int64] | None = None
    group: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = field(default=())
    key: str = ""

    def own_warnings(self) -> list[list[str]]:
        """Return what to beware of in each sample beside what the model says: a pseudo-bulk of few cells."""
        if self.cells is None:
            return [[] for _ in self.samples.names]
        return [
            [f"few cells: a pseudo-bulk of {n:,} {'cell' if n == 1 else 'cells'}"] if n < FEW_CELLS else []
            for n in self.cells.tolist()
        ]


def of_clusters(cells: CellFile, diagnosis: Diagnosis, key: str | None, progress: Progress) -> SampleSet:
    """Return the pseudo-bulk of each cluster of an opened file.

    Parameters
    ----------
    key
        Column of ``obs``; None makes one sample of all cells.

    Raises
    ------
    InputError
        There is no such column, no cell has a label, or there are more than `MOST_GROUPS` labels.
    """
    diagnosis.raise_if_refused()
    if key is None:
        labels, names = [cells.name] * cells.n_cells, [cells.name]
    else:
        labels = label_column(cells.obs, key)
        names = sorted({label for label in labels if label}, key=_natural)
    if not names:
        raise InputError(f"No cell has a label in {key!r}.", "a column with labels", "another column")
    if len(names) > MOST_GROUPS:
        raise InputError(
            f"The column {key!r} has {len(names):,} labels.", f"clusters, at most {MOST_GROUPS}", "another column"
        )
    place = {name: number for number, name in enumerate(names)}
    group = np.array([place.get(label, -1) for label in labels], dtype=np.int64)
    blocks = CountBlocks(cells, diagnosis)
    columns = measured(diagnosis)
    total = np.zeros((len(names), len(columns)))
    progress.step("Adding up the cells of each cluster", cells.n_cells)
    for block in blocks.blocks(ROWS):
        mine = group[block.start : block.stop]
        rows = np.flatnonzero(mine >= 0)
        pick = csr_matrix((np.ones(len(rows)), (mine[rows], rows)), shape=(len(names), len(mine)))
        total += (pick @ block.counts.astype(np.float64)).toarray()[:, columns]
        progress.advance(block.stop - block.start)
    sizes = np.bincount(group[group >= 0], minlength=len(names)).astype(np.int64)
    without = int((group < 0).sum())
    notes = [f"{without:,} cells without a label in {key!r} were left out."] if without else []
    samples = Samples(names, load_vocabulary().ensembl_ids[columns], total, total)
    return SampleSet(samples, "whole" if key is None else "clusters", sizes, group, tuple(notes), key or "")


def cell_blocks(cells: CellFile, diagnosis: Diagnosis, rows: int = 256) -> Iterator[tuple[int, int, Samples]]:
    """Yield (start, stop, samples) with a sample for each cell of an opened file, in blocks."""
    columns = measured(diagnosis)
    genes = load_vocabulary().ensembl_ids[columns]
    for block in CountBlocks(cells, diagnosis).blocks(rows):
        counts = block.counts.toarray()[:, columns].astype(np.float64)
        names = [str(number) for number in range(block.start, block.stop)]
        yield block.start, block.stop, Samples(names, genes, counts, counts)


def of_rows(cells: CellFile, layer: str | None) -> SampleSet:
    """Return each row of a file of profiles (h5ad, zarr) as a sample, in whatever unit its values are."""
    place = cells.place_of(layer) if layer else "X"
    if place not in cells.matrices:
        raise InputError(f"{cells.name} has no X.", "expression of each line", "--layer with the name of a layer")
    names = gene_names(cells.columns(place), load_vocabulary())
    columns = names.ids if names.ids is not None else names.names
    values = np.concatenate([block.toarray() for _, _, block in cells.blocks(place, 512)])
    table = pd.DataFrame(values.astype(np.float64), index=[str(name) for name in cells.obs.index], columns=columns)
    samples, notes = read_expression(table)
    return SampleSet(samples, "lines", notes=tuple(notes.lines()))


def of_table(source: Any, *, genes_in_rows: bool = False) -> SampleSet:
    """Return the lines of a table."""
    samples, notes = read_expression(source, genes_in_rows=genes_in_rows)
    return SampleSet(samples, "lines", notes=tuple(notes.lines()))


def measured(diagnosis: Diagnosis) -> NDArray[np.int64]:
    """Return the rows of the vocabulary that a column of the file names, ascending."""
    diagnosis.raise_if_refused()
    assert diagnosis.match is not None
    assert diagnosis.keep_columns is not None
    index = diagnosis.match.restrict(diagnosis.keep_columns).index
    return np.unique(index[index >= 0]).astype(np.int64)


def refuse_without_labels(cells: CellFile, wanted: str) -> None:
    """Raise `InputError` for a file of cells that was given without saying which cells belong together.

    Columns that could serve are named.
    """
    fitting = [str(name) for name in cells.obs.columns if _may_label(cells.obs[name])][:8]
    found = f"columns that could serve: {', '.join(fitting)}" if fitting else "obs has no column of labels"
    raise InputError(
        f"{cells.name} holds {cells.n_cells:,} single cells, and which of them belong together was not said ({found}).",
        f"the column of obs with clusters or labels ({wanted})",
        f"{wanted} {fitting[0] if fitting else 'COLUMN, after cellingua annotate'}; --whole for the cells of one "
        "culture; --bulk where each row is a line or a tumour",
    )


def _may_label(column: pd.Series) -> bool:
    kinds = column.dropna().nunique()
    text = not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)
    return bool(1 <= kinds <= 100 and 3 * kinds <= max(len(column), 3) and text)


def _natural(label: str) -> tuple[int, float, str]:
    """Return what sorts "2" before "10", and numbers before words."""
    return (0, float(label), label) if label.isascii() and label.isdigit() else (1, 0.0, label)

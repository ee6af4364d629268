"""Examine a file of cells before anything is made of it: what it holds, what to take, what to beware of."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cellingua.cells.columns import gene_names
from cellingua.cells.diagnosis import Diagnosis
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.places import choose_place
from cellingua.cells.reading import CellFile
from cellingua.cells.species import Kept, human_columns, species_of
from cellingua.cells.values import Look, sample_rows, where_bad
from cellingua.cells.wording import count_of

SAMPLE = 2048
READ_WHOLE = 4096  # cells; smaller files are looked at whole
FEWEST_MAPPED = 0.30  # of the counts
FEW_MAPPED = 0.60
FEW_GENES = 500
SHALLOW = 200  # counts
PANEL = 5000  # columns
# Genes that every cell of every tissue shows; a selection of variable genes has few of them.
HOUSEKEEPING = frozenset({
    "ACTB", "ACTG1", "B2M", "EEF1A1", "EIF1", "FTH1", "FTL", "GAPDH", "H3-3B", "HSP90AB1", "MT-CO1", "MT-ND4",
    "NACA", "PTMA", "RPL10", "RPL13", "RPL41", "RPLP0", "RPS18", "RPS27", "TMSB4X", "TPT1", "TUBA1B", "UBC",
})  # fmt: skip


def examine(cells: CellFile, *, layer: str | None = None) -> Diagnosis:
    """Say what a file holds and how its counts are to be taken.

    Values are judged from up to 2,048 cells spread over the file (all, up to 4,096), genes from all columns.
    Nothing is changed, and nothing is raised for bad contents: see `Diagnosis.raise_if_refused`.

    Parameters
    ----------
    cells
        An open file.
    layer
        The layer that holds counts, if the caller knows ("X" and "raw" are understood too).

    Raises
    ------
    ConfigError
        If there is no such layer.
    FileError
        If the file turns out to be damaged.
    """
    diagnosis = Diagnosis(cells.name, cells.kind, cells.n_cells, cells.n_columns)
    if layer is not None:
        cells.place_of(layer)
    if cells.n_cells == 0:
        diagnosis.add("refusal", "no_cells", "it has no cells.", "check the filter that removed them")
    if max((len(cells.columns(place)) for place in cells.places()), default=cells.n_columns) == 0:
        diagnosis.add("refusal", "no_genes", "it has no genes.", "check the filter that removed them")
    if diagnosis.refused:
        return diagnosis
    look = choose_place(cells, layer, diagnosis)
    if look is None:
        _name_genes(cells, cells.places()[0] if cells.places() else "X", diagnosis)
        return diagnosis
    diagnosis.place, diagnosis.recovery = look.place, look.recovery
    kept = _name_genes(cells, look.place, diagnosis)
    rows = cells.n_cells if cells.n_cells <= READ_WHOLE else SAMPLE
    sample, numbers = sample_rows(cells, look.place, rows)
    diagnosis.cells_examined = len(numbers)
    note = cells.matrices[look.place].note
    if note:
        diagnosis.add("note", "loaded_whole", f"{note}.")
    bad = ~((sample.data >= 0) & (sample.data < np.inf))
    if bad.any():
        diagnosis.add(
            "refusal",
            "nan",
            f"{look.place} has values below zero, infinite or not a number (NaN) "
            f"({where_bad(cells, look.place, sample, numbers, bad)}).",
            "remove these cells or genes, or name the layer that holds raw counts with --layer",
        )
        return diagnosis
    if diagnosis.recovery is not None:
        sample = diagnosis.recovery.apply(sample)
    totals = _judge_genes(sample, kept, diagnosis)
    _judge_selection(look, diagnosis)
    _judge_cells(cells, look, totals, diagnosis)
    _judge_names(cells, look.place, diagnosis)
    return diagnosis


def _name_genes(cells: CellFile, place: str, diagnosis: Diagnosis) -> Kept:
    """Find the gene of each column, the species, and the columns that are no human genes."""
    vocabulary = load_vocabulary()
    var: pd.DataFrame = cells.columns(place)
    found = gene_names(var, vocabulary)
    kept = human_columns(var, found.names, found.ids)
    diagnosis.n_columns = len(var)
    diagnosis.gene_source = found.source
    diagnosis.keep_columns = kept.keep
    match = vocabulary.resolve(kept.names, found.ids)
    diagnosis.match = match.restrict(kept.keep)
    chosen = np.flatnonzero(kept.keep)
    ids = None if found.ids is None else [found.ids[i] for i in chosen]
    diagnosis.species = species_of([kept.names[i] for i in chosen], ids, vocabulary)
    if not kept.keep.any():
        diagnosis.add("refusal", "no_genes", "none of its columns is gene expression.", "the part that holds RNA")
    elif diagnosis.species not in ("human", ""):
        examples = ", ".join(repr(kept.names[i]) for i in chosen[:3])
        diagnosis.add(
            "refusal",
            "species",
            f"the genes are of {diagnosis.species} ({examples}); the models know human genes.",
            "replace each gene by its human one-to-one ortholog (Ensembl BioMart has tables)",
        )
    for what, k in kept.dropped.items():
        diagnosis.add("note", "left_out", f"{count_of(k, 'column')} of {what}: left out of counts and totals.")
    return kept


def _judge_genes(sample: csr_matrix, kept: Kept, diagnosis: Diagnosis) -> NDArray[np.float64]:
    """Say how many counts fall on known genes; return the total of each cell of the sample."""
    values = sample.astype(np.float64)
    per_column = np.asarray(values.sum(axis=0)).ravel()
    totals = np.asarray(values @ kept.keep.astype(np.float64))
    match = diagnosis.match
    if match is None:
        return totals
    if kept.second.any():
        share = per_column[kept.second].sum() / max(per_column[kept.second | kept.keep].sum(), 1e-300)
        others = np.asarray(values @ kept.second.astype(np.float64)) > totals
        diagnosis.add(
            "warning" if share > 0.01 else "note",
            "second_genome",
            f"{int(kept.second.sum()):,} columns are of a second genome ({kept.second_name}) with {share:.1%} of "
            f"the counts: left out. It has more counts than human in {int(others.sum()):,} of {totals.size:,} "
            "cells looked at.",
            "remove the cells that are mostly of the second genome" if others.any() else "",
        )
    total = per_column[kept.keep].sum()
    mapped = match.index >= 0
    share = float(per_column[mapped].sum() / total) if total > 0 else 0.0
    diagnosis.share_of_counts_mapped = share
    examples = [kept.names[i] for i in np.flatnonzero(kept.keep & ~mapped)[:3]]
    found = f"{int(mapped.sum()):,} of {int(kept.keep.sum()):,} columns, with {share:.1%} of the counts"
    if diagnosis.refused:
        return totals
    if total > 0 and share < FEWEST_MAPPED:
        diagnosis.add(
            "refusal",
            "few_mapped",
            f"only {found}, are human genes that are known here; unknown are {', '.join(map(repr, examples))}.",
            "put gene symbols or Ensembl ids of human genes in the var index, or in a column of var",
        )
    elif share < FEW_MAPPED:
        diagnosis.add(
            "warning",
            "part_mapped",
            f"{found}, are known coding genes; unknown are {', '.join(map(repr, examples))}, …",
            "check that the var index holds gene symbols or Ensembl ids" if share < 0.5 else "",
        )
    summary = match.summary()
    if summary["summed"]:
        diagnosis.add(
            "note",
            "summed",
            f"{count_of(summary['summed'], 'column')} with a gene that another column has: summed.",
        )
    if summary["ambiguous"]:
        diagnosis.add("note", "ambiguous", f"{count_of(summary['ambiguous'], 'name')} of more than one gene: not used.")
    return totals


def _judge_selection(look: Look, diagnosis: Diagnosis) -> None:
    """Recognise panels and selections of variable genes, which lack what the order of genes is judged by."""
    match = diagnosis.match
    if match is None or diagnosis.refused or diagnosis.keep_columns is None:
        return
    columns = int(diagnosis.keep_columns.sum())
    symbols = set(load_vocabulary().symbols[match.index[match.index >= 0]].tolist())
    common = len(HOUSEKEEPING & symbols)
    round_number = columns in (1000, 1500, 2000, 2500, 3000, 4000, 5000)
    if match.n_genes < FEW_GENES:
        diagnosis.add(
            "warning",
            "few_genes",
            f"only {count_of(match.n_genes, 'coding gene')} in it: answers will be unsure.",
            "a file with all genes, if there is one",
        )
    elif columns <= PANEL and (common < len(HOUSEKEEPING) // 2 or round_number):
        diagnosis.add(
            "warning",
            "selected_genes",
            f"{columns:,} genes with {common} of {len(HOUSEKEEPING)} housekeeping genes: a selection of variable "
            "genes, or a panel. Genes that were left out count as not expressed.",
            "the file before genes were selected, if there is one",
        )
    elif columns <= PANEL:
        diagnosis.add("note", "panel", f"{columns:,} genes: part of the transcriptome, such as a panel.")


def _judge_cells(cells: CellFile, look: Look, totals: NDArray[np.float64], diagnosis: Diagnosis) -> None:
    """List empty and shallow cells, and recognise values per million."""
    stored = cells.matrices[look.place].stored_per_row()
    everywhere = diagnosis.cells_examined == cells.n_cells
    empty = int((totals == 0).sum())
    where = "" if everywhere else f" of the {totals.size:,} looked at"
    if not everywhere and stored is not None and diagnosis.keep_columns is not None and diagnosis.keep_columns.all():
        empty, where = int((stored == 0).sum()), ""
    if empty:
        diagnosis.add("note", "empty_cells", f"{count_of(empty, 'cell')}{where} without counts: no name can be given.")
    filled = totals[totals > 0]
    if not filled.size:
        if not diagnosis.refused:
            diagnosis.add("refusal", "empty", "no cell has a count in a gene.", "check how the file was written")
        return
    middle = float(np.median(filled))
    alike = float(np.quantile(np.abs(filled - middle), 0.9)) < 0.05 * middle
    if filled.size >= 5 and alike and diagnosis.taken_as != "recovered counts" and 4e5 < middle < 1.2e6:
        diagnosis.add(
            "note",
            "per_million",
            f"each cell sums to about {middle:,.0f}: values per million (TPM, CPM or FPKM), not counts. They are "
            "used as they are.",
        )
    elif diagnosis.taken_as != "relative expression":
        shallow = int((filled < SHALLOW).sum())
        share = shallow / filled.size
        if share > 0.5 and cells.n_cells > 20_000:
            diagnosis.add(
                "warning",
                "droplets",
                f"{share:.0%} of the cells have fewer than {SHALLOW} counts: all droplets, not only cells?",
                "the filtered matrix (filtered_feature_bc_matrix)",
            )
        elif shallow:
            where = "" if everywhere else f" of the {totals.size:,} looked at"
            diagnosis.add(
                "note",
                "shallow_cells",
                f"{count_of(shallow, 'cell')}{where} with fewer than {SHALLOW} counts: answers there are unsure.",
            )
        diagnosis.add("ok", "depth", f"a cell has {middle:,.0f} counts (median).")


def _judge_names(cells: CellFile, place: str, diagnosis: Diagnosis) -> None:
    """List names that repeat."""
    repeated = int(cells.obs.index.duplicated().sum())
    if repeated:
        diagnosis.add(
            "note",
            "cell_names",
            f"{count_of(repeated, 'repeated cell name')}: made unique in what is written.",
        )
    genes = int(cells.columns(place).index.duplicated().sum())
    if genes:
        diagnosis.add("note", "gene_names", f"{count_of(genes, 'repeated column name')}.")

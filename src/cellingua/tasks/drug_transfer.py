"""Scores of single cells from cell lines, without a labelled cell, and how well they tell labelled ones apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import vstack

from cellingua.baselines.normalise import log_normalised
from cellingua.cells.columns import gene_names
from cellingua.cells.counts import CountBlocks
from cellingua.cells.doctor import examine
from cellingua.cells.genes import load_vocabulary
from cellingua.cells.reading import CellFile, open_cells
from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.measures.ranking import auroc
from cellingua.recipes.drug_data import spelled
from cellingua.recipes.drug_transfer import METHODS, make_method, share_genes, transfer
from cellingua.tasks.columns import label_column
from cellingua.tasks.drug_labels import positives
from cellingua.tasks.drug_pairs import ResponseOptions, pair, read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cellingua.tasks.drug_answer import Source

COMPANY = (
    "A score compares a cell with the other cells of this file, because each gene is standardised over them: it says "
    "nothing of all of them together, and changes with the cells beside it."
)


@dataclass
class DrugTransfer:
    """Scores of cells.

    Attributes
    ----------
    scores
        Cells x drugs: higher is more like the sensitive lines.
    auroc
        Drug -> AUROC against the labels, None where there are none.
    facts
        Genes and lines that were used, and the method.
    warnings
        Sentences.
    """

    scores: pd.DataFrame
    auroc: dict[str, float | None]
    facts: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the scores as JSON values."""
        return {"auroc": self.auroc, "facts": self.facts, "warnings": self.warnings}


def drug_transfer(
    cells: AnnData | CellFile | str | Path,
    lines: Source,
    responses: str | Path | pd.DataFrame,
    *,
    drugs: Sequence[str],
    labels_from: str | None = None,
    sensitive: str | None = None,
    resistant: str | None = None,
    method: str = METHODS[0],
    options: ResponseOptions | None = None,
    layer: str | None = None,
    as_is: bool = False,
    genes_in_rows: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> DrugTransfer:
    """Score single cells by classifiers (or regressions) of cell lines, one for each drug: SCAD's setting.

    Parameters
    ----------
    cells
        An AnnData or a file; nothing is written into it.
    lines
        Expression of cell lines: a table, lines x genes, or a file with a row a line.
    responses
        A row a measurement: line, drug and IC50.
    drugs
        Drugs of `responses`, in any spelling.
    labels_from
        Column of ``obs`` with the labels, for an AUROC. Nothing is learned from it.
    sensitive, resistant
        The labels that mean each, where they don't say so themselves.
    method
        ``strong ridge``, ``ridge``, ``classifier`` or ``random forest`` (needs scikit-learn).
    options
        How the responses are read.
    layer
        Layer that holds the counts of the cells; by default they are looked for.
    as_is
        The cells' values are no counts, such as z-scores: take them as they are.
    genes_in_rows
        The table of expression has one row a gene.
    seed
        Of the forest.
    progress
        Where to report.

    Raises
    ------
    InputError
        A table can't be used, a drug has no responses, or there are too few genes in common.
    """
    progress = progress or Silent()
    paired = pair(read_lines(lines, genes_in_rows=genes_in_rows), responses, options or ResponseOptions())
    names, columns = _drugs(paired.responses.drugs, drugs)
    source = cells if isinstance(cells, CellFile) else open_cells(cells)
    genes, values, warnings = cell_values(source, layer, as_is)
    samples = paired.lines.samples
    rows = [samples.names.index(line) for line in paired.responses.lines.tolist()]
    shared = share_genes(samples.genes.tolist(), samples.values[rows], genes, values)  # noqa: PD011
    progress.step("Learning from the lines", len(names))
    scores = transfer(make_method(method, seed), paired.responses.grid()[:, columns], shared)
    table = pd.DataFrame(scores, index=[str(name) for name in source.obs.index], columns=names)
    found: dict[str, float | None] = dict.fromkeys(names)
    if labels_from is not None:
        known, truth, _ = positives(label_column(source.obs, labels_from), labels_from, sensitive, resistant)
        found = {name: round(auroc(truth, scores[known, place]), 4) for place, name in enumerate(names)}
    facts = {
        "method": method,
        "genes": len(shared.symbols),
        "lines": {
            name: int(np.isfinite(paired.responses.grid()[:, c]).sum()) for name, c in zip(names, columns, strict=True)
        },
        "cells": len(scores),
    }
    return DrugTransfer(table, found, facts, [*warnings, COMPANY])


def cell_values(cells: CellFile, layer: str | None, as_is: bool) -> tuple[list[str], NDArray[np.float64], list[str]]:
    """Return names of genes, values (cells, genes) and warnings: log-normalised counts, or the values as they are."""
    if as_is:
        place = cells.place_of(layer) if layer else "X"
        if place not in cells.matrices:
            raise InputError(f"{cells.name} has no X.", "values of each cell", "--layer with the name of a layer")
        held = gene_names(cells.columns(place), load_vocabulary())
        values = cells.rows(place, 0, cells.n_cells).toarray().astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"{cells.name}: {place} holds a value that is not finite.", "finite numbers")
        return [str(name) for name in (held.ids if held.ids is not None else held.names)], values, []
    diagnosis = examine(cells, layer=layer)
    blocks = list(CountBlocks(cells, diagnosis).blocks())
    totals = np.concatenate([block.totals for block in blocks])
    logs = log_normalised(vstack([block.counts for block in blocks]), totals)
    there = np.flatnonzero(np.asarray(logs.sum(axis=0)).ravel() > 0)
    warnings = [finding.text for finding in diagnosis.findings if finding.level == "warning"]
    if any(finding.code == "fractional" for finding in diagnosis.findings):
        warnings.append(
            "The values are no whole numbers; if they are no counts (z-scores), --as-is takes them as such."
        )
    return load_vocabulary().ensembl_ids[there].tolist(), logs[:, there].toarray().astype(np.float64), warnings


def _drugs(have: NDArray[np.str_], wanted: Sequence[str]) -> tuple[list[str], list[int]]:
    place = {spelled(name): number for number, name in enumerate(have.tolist())}
    for name in wanted:
        if spelled(name) not in place:
            raise InputError(
                f"The responses hold no drug {name!r}.",
                "a drug of the table",
                f"one of: {', '.join(have[:8].tolist())}",
            )
    if not wanted:
        raise InputError("No drug was named.", "one at least", "--drug NAME")
    at = [place[spelled(name)] for name in wanted]
    return [str(have[number]) for number in at], at

"""What the expression decoder is fitted on: the mean log expression of each term over profiles and real cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cellingua.cells.collections import CellSet
from cellingua.cells.genes import load_vocabulary
from cellingua.models.decoding import ExpressionDecoder, fit_decoder
from cellingua.recipes.material import Material
from cellingua.recipes.words import WordBank
from cellingua.words.ontology import load_ontology

FLOOR = 0.1  # counts per 10,000 below which expression is not told from none
MEASURED = 0.6  # share of profiles that must measure a gene
GENES = 6000  # kept: those that differ most among the terms
LEAST_CELLS, LEAST_GENES = 8, 8000  # of a type in a file; of a file, so that panels, whose scale is another, stay out
RIDGE = 1e-3


def expression_decoder(
    material: Material, words: WordBank, vectors: NDArray[np.float32], least_profiles: int
) -> ExpressionDecoder:
    """Return the decoder for the terms' vectors (n, joint), fitted on the material."""
    terms, levels, weight, columns = mean_levels(material, least_profiles)
    kept = np.sort(np.argsort(-levels.std(axis=0), kind="stable")[:GENES])
    genes = tuple(load_vocabulary().ensembl_ids[columns[kept]].tolist())
    rows = [words.term_ids.index(term) for term in terms]
    ontology = load_ontology("CL")
    known = frozenset(terms).union(*(ontology.ancestors(term) for term in terms))
    return ExpressionDecoder(genes, known, *fit_decoder(vectors[rows], levels[:, kept], weight, ridge=RIDGE))


def mean_levels(
    material: Material, least_profiles: int
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Return terms; their mean log counts per 10,000 float32 (terms, genes); how many profiles stand behind each (real
    cells of one file count as one); and the genes, as rows of the vocabulary.

    What a profile did not measure counts as nothing known: the mean of the term's other profiles, or else of all.
    """
    profiles = material.profiles
    often = (profiles.expression > 0).sum(axis=0) >= least_profiles
    columns = np.flatnonzero(often & (profiles.measured.mean(axis=0) > MEASURED))
    level = np.log(profiles.expression[:, columns] * 1e4 + FLOOR)
    measured = profiles.measured[:, columns]
    average = np.where(measured, level, 0).sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
    total: dict[str, NDArray[np.float64]] = {}
    weight: dict[str, float] = {}
    for term in np.unique(profiles.terms).tolist():
        rows = profiles.terms == term
        known = measured[rows].sum(axis=0)
        mean = np.where(known > 0, np.where(measured[rows], level[rows], 0).sum(axis=0) / np.maximum(known, 1), average)
        total[term], weight[term] = mean * rows.sum(), float(rows.sum())
    for term, mean in _of_cells(material.cells, columns):
        total[term] = total.get(term, 0.0) + mean
        weight[term] = weight.get(term, 0.0) + 1.0
    terms = sorted(total)
    levels = np.stack([total[term] / weight[term] for term in terms]).astype(np.float32)
    return terms, levels, np.array([weight[term] for term in terms]), columns


def _of_cells(cells: CellSet, columns: NDArray[np.int64]) -> list[tuple[str, NDArray[np.float64]]]:
    """Return (term, mean log level) of each type of each file that is no panel."""
    found = []
    for file in np.unique(cells.files):
        part = cells.take(cells.files == file)
        if (part.counts.getnnz(axis=0) > 0).sum() < LEAST_GENES:
            continue
        for term in np.unique(part.terms).tolist():
            rows = np.flatnonzero(part.terms == term)
            if len(rows) >= LEAST_CELLS:
                total = np.asarray(part.counts[rows].sum(axis=0), np.float64).ravel()
                found.append((term, np.log(total[columns] / max(total.sum(), 1.0) * 1e4 + FLOOR)))
    return found

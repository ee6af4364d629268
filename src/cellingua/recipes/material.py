"""What the LangCell recipe trains on: cells, profiles and markers on one gene axis, evaluation cells kept out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from cellingua.cells.collections import CellSet, data_hashes, read_cells, read_markers, read_profiles
from cellingua.cells.leakage import find_matches
from cellingua.cells.simulate import ProfileSet, SimulateConfig, Simulator
from cellingua.core.errors import FileError
from cellingua.core.progress import Progress
from cellingua.models.gene_table import gene_medians
from cellingua.recipes.consensus import read_consensus, relabelled
from cellingua.words.ontology import Ontology, load_ontology

PSEUDO_CELLS, REAL_CELLS = 1500, 3000  # that medians are estimated from, at most


@dataclass(frozen=True)
class Material:
    """Training material; every matrix has the vocabulary's genes as columns.

    Attributes
    ----------
    cells
        Real cells that may be trained on.
    profiles, markers
        Mean profiles; ontology id -> genes, best first.
    hashes
        SHA-256 of each data file.
    refused
        file -> (cells refused, cells), by the guard against evaluation cells; None where there was nothing to
        guard against.
    folder
        Where all this was read.
    """

    cells: CellSet
    profiles: ProfileSet
    markers: dict[str, NDArray[np.int64]]
    hashes: dict[str, str]
    refused: dict[str, tuple[int, int]] | None
    folder: Path | None = None

    def without(self, held_out: Iterable[str]) -> Material:
        """Return the material less some files."""
        held = set(held_out)
        unknown = held - set(self.cells.files.tolist())
        if unknown:
            raise FileError(f"There is no file {sorted(unknown)[0]!r} to hold out.", "stems of files in corpus/")
        rows = ~np.isin(self.cells.files, list(held))
        return replace(self, cells=self.cells.take(rows))

    def narrowed(self, narrower: Mapping[str, str]) -> Material:
        """Return the material with each term of `narrower` called by the term beside it, in cells and profiles."""

        def of(terms: NDArray[np.str_]) -> NDArray[np.str_]:
            return np.array([narrower.get(term, term) for term in terms.tolist()], str)

        cells = replace(self.cells, terms=of(self.cells.terms))
        return replace(self, cells=cells, profiles=replace(self.profiles, terms=of(self.profiles.terms)))


def reviewed_labels() -> dict[tuple[str, str], str]:
    """Return the reviewed ontology ids of profiles: (study, source label) -> id, ``""`` to leave it out."""
    path = files("cellingua") / "data" / "recipes" / "profile_labels.tsv"
    with path.open(encoding="utf-8") as handle:
        rows = csv.DictReader(handle, delimiter="\t")
        return {(row["set"], row["source_label"]): row["cell_type_ontology_term_id"] for row in rows}


def read_material(folder: Path, generic: Iterable[str], progress: Progress, consensus: str = "") -> Material:
    """Read a data folder as `cellingua.cells.collections` describes it, and refuse evaluation cells.

    Parameters
    ----------
    generic
        Terms so wide that they teach nothing; what carries them is left out.
    consensus
        Name of a shipped configuration by which unlabelled files are labelled; see `cellingua.recipes.consensus`.
    """
    ontology, wide = load_ontology("CL"), set(generic)
    cells = read_cells(folder / "corpus", progress)
    hashes = data_hashes(folder)
    refused = None
    if (folder / "evaluation").is_dir():
        cells, refused = guarded(cells, read_cells(folder / "evaluation", progress), progress)
        hashes = {path: digest for path, digest in hashes.items() if not path.startswith("evaluation/")}
    profiles = read_profiles(folder / "profiles", reviewed_labels())
    useful = np.array([term in ontology and term not in wide for term in profiles.terms.tolist()])
    markers = read_markers(folder / "markers" / "cellconsensus_top40.parquet")
    markers = {term: rows for term, rows in markers.items() if term in ontology and term not in wide}
    if consensus:
        cells = relabelled(cells, profiles, read_consensus(consensus))
    named = np.array([term in ontology and term not in wide for term in cells.terms.tolist()])
    return Material(cells.take(named), profiles.take(useful), markers, hashes, refused, folder)


def guarded(cells: CellSet, evaluation: CellSet, progress: Progress) -> tuple[CellSet, dict[str, tuple[int, int]]]:
    """Return the cells that match no evaluation cell, and what was refused, by file."""
    progress.step("Comparing with evaluation cells", len(cells))
    refused = np.zeros(len(cells), bool)
    told: dict[str, tuple[int, int]] = {}
    for file in np.unique(cells.files):
        rows = np.flatnonzero(cells.files == file)
        part = cells.take(rows)
        found = find_matches(part.counts, part.names, evaluation.counts, evaluation.names).refused
        refused[rows] = found
        told[str(file)] = (int(found.sum()), len(rows))
        progress.advance(len(rows))
    total = int(refused.sum())
    progress.say(f"{total:,} of {len(cells):,} cells ({total / len(cells):.2%}) match an evaluation cell: refused.")
    return cells.take(~refused), told


def wider_terms(ontology: Ontology, terms: Iterable[str]) -> dict[str, list[str]]:
    """Return the ancestors of each term, narrowest first (those with the most ancestors of their own)."""
    return {
        term: sorted(ontology.ancestors(term), key=lambda wider: (-len(ontology.ancestors(wider)), wider))
        for term in terms
    }


def make_simulator(material: Material, config: SimulateConfig) -> Simulator:
    """Return a simulator over the profiles and markers of `material`."""
    wider = wider_terms(load_ontology("CL"), material.markers)
    return Simulator(material.profiles, material.markers, wider, config)


def model_genes(profiles: ProfileSet, least: int) -> NDArray[np.int64]:
    """Return the vocabulary rows of genes that at least `least` profiles express."""
    return np.flatnonzero((profiles.expression > 0).sum(axis=0) >= least)


def estimate_medians(
    material: Material, simulator: Simulator, genes: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the non-zero median of counts / total x 10,000 of each gene over pseudo-cells and real cells.

    Genes seen in fewer than three of these cells take the median of all medians.
    """
    drawn, _ = simulator.from_profiles(PSEUDO_CELLS, rng)
    rows = rng.choice(len(material.cells), min(REAL_CELLS, len(material.cells)), replace=False)
    real = material.cells.take(rows)
    totals = np.concatenate([np.asarray(drawn.sum(axis=1)).ravel(), real.totals])
    counts = csr_matrix(vstack([drawn, real.counts]))[:, genes]
    medians = gene_medians(counts, totals, least=3)
    return np.where(np.isnan(medians), np.nanmedian(medians), medians)

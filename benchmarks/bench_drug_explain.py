"""What explanations of drug responses are worth: deletion against random deletion, and known markers among the genes.

Run as ``make bench-drug-explain`` or ``python -m benchmarks.bench_drug_explain`` with the model that ships, on lines of
TGSA's test split by line, which it never saw. Genes that an explanation puts first are taken from a line, as if they
had not been measured (what goes with them stands in) or made average; beside them as many at random. Atoms likewise,
of molecules that the model does not know. What counts is the share of the way from a prediction to that for typical
lines (for atoms, to that of a molecule like none). Beside it, where genes stand that are known to go with the response
to a drug; these are told, and no bar. Writes ``benchmarks/results/drug_explain.json``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import at_least, shared_folder, write_result
from cellingua.models.drug_atoms import atom_effects, delete_atoms
from cellingua.models.drug_bundle import load_drug_model
from cellingua.models.drug_effects import GeneEffects, delete_genes, gene_effects
from cellingua.models.drug_expression import Samples
from cellingua.models.drug_model import DrugModel
from cellingua.molecules.smiles import Molecule, read_molecules

COUNTS, SHARES, DRAWS = (10, 25, 50, 100, 200, 500), (0.1, 0.2, 0.3, 0.5), 4
#: Drug -> genes whose expression is widely reported to go with the response to it: its target, what carries it out of
#: the cell, or what answers to its pathway.
MARKERS = {
    "Venetoclax": ("BCL2",), "Navitoclax": ("BCL2", "BCL2L1"), "Irinotecan": ("SLFN11",), "Topotecan": ("SLFN11",),
    "Camptothecin": ("SLFN11",), "Gemcitabine": ("SLFN11",), "Trametinib": ("DUSP6", "SPRY2", "ETV4"),
    "Selumetinib": ("DUSP6", "SPRY2"), "PD0325901": ("DUSP6", "SPRY2", "ETV4"), "Lapatinib": ("ERBB2", "EGFR"),
    "Afatinib": ("ERBB2", "EGFR"), "Erlotinib": ("EGFR",), "Gefitinib": ("EGFR",), "Dabrafenib": ("MLANA", "MITF"),
    "PLX-4720": ("MLANA", "MITF"), "Paclitaxel": ("ABCB1",), "Vinblastine": ("ABCB1",),
}  # fmt: skip


def left_out_lines(folder: Path, every: int) -> Samples:
    """Return every n-th line of the test split that has the wide table of expression."""
    lines = pd.read_csv(folder / "tgsa" / "lines.tsv", sep="\t", dtype=str, keep_default_na=False)
    test = set(lines.line[lines.split_line == "test"])
    genes = pd.read_csv(folder / "expression" / "genes.tsv", sep="\t", dtype=str, keep_default_na=False)
    kept = (genes.filled != "True").to_numpy()
    with np.load(folder / "expression" / "gdsc_expression_z_6163.npz", allow_pickle=False) as held:
        rows = np.array([row for row, name in enumerate(held["depmap"]) if name in test])[::every]
        values = held["z_times_1024"][rows][:, kept] / 1024.0
        return Samples([str(name) for name in held["depmap"][rows]], held["genes"][kept].astype(np.str_), values)


def unknown_molecules(folder: Path, model: DrugModel, most: int) -> list[Molecule]:
    """Return molecules of the GDSC screens that the model does not know, evenly from their list by name."""
    drugs = pd.read_csv(folder / "gdsc" / "drugs.tsv", sep="\t", dtype=str, keep_default_na=False)
    known = {drug.inchikey for drug in model.drugs}
    free = drugs[(drugs.smiles != "") & ~drugs.inchikey.isin(known) & (drugs.n_fragments == "1")].sort_values("drug")
    chosen = free.iloc[np.linspace(0, len(free) - 1, most).astype(int)]
    return read_molecules(chosen.drug.tolist(), chosen.smiles.tolist())


def genes_deleted(told: GeneEffects, average: bool) -> dict[str, Any]:
    """Return the share of the way that first and random genes make, by number of genes, over all predictions."""
    first, random, way, beaten = np.zeros(len(COUNTS)), np.zeros(len(COUNTS)), 0.0, []
    for sample in range(len(told.samples)):
        for drug in range(len(told.drugs)):
            found = delete_genes(told, sample, drug, counts=COUNTS, draws=DRAWS, average=average)
            first, random = first + found.explained, random + found.random
            way += abs(float(told.value[sample, drug] - told.reference[sample, drug]))
            beaten.append(found.explained > found.random)
    return _shares(COUNTS, first / way, random / way, np.array(beaten))


def atoms_deleted(model: DrugModel, samples: Samples, molecules: list[Molecule]) -> dict[str, Any]:
    """Return the same for atoms, by share of a molecule's atoms."""
    first, random, way, beaten = np.zeros(len(SHARES)), np.zeros(len(SHARES)), 0.0, []
    for molecule in molecules:
        told = atom_effects(model, samples, molecule)
        counts = [max(1, round(share * len(told.symbols))) for share in SHARES]
        for sample in range(len(samples.names)):
            found = delete_atoms(model, samples, told, sample, counts=counts)
            first, random = first + found.explained, random + found.random
            way += abs(float(told.value[sample] - told.reference[sample]))
            beaten.append(found.explained > found.random)
    return _shares(SHARES, first / way, random / way, np.array(beaten))


def _shares(
    parts: tuple[float, ...], first: NDArray[np.float64], random: NDArray[np.float64], beaten: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        f"{part:g}": {
            "first": round(float(a), 4),
            "random": round(float(b), 4),
            "predictions where the first beat random": round(float(c), 4),
        }
        for part, a, b, c in zip(parts, first, random, beaten.mean(axis=0), strict=True)
    }


def with_own_factor(model: DrugModel) -> set[str]:
    """Return genes that a factor of the model has to itself."""
    loadings = model.network.loadings.numpy()
    alone = (loadings != 0).sum(axis=0) == 1
    return {str(model.genes[gene]) for gene in np.abs(loadings[:, alone]).argmax(axis=0)}


def markers(told: GeneEffects, own: set[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return drug -> marker -> its rank among all genes by mean size of effect over the lines (1 is the first).

    Beside it, whether the model's recipe gave the gene a factor of its own because it is known: then its rank is no
    discovery.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for place, drug in enumerate(told.drugs):
        order = np.argsort(-np.abs(told.effect[:, place]).mean(axis=0), kind="stable")
        rank = {str(told.genes[gene]): number for number, gene in enumerate(order, start=1)}
        found[drug] = {gene: {"rank": rank.get(gene), "factor of its own": gene in own} for gene in MARKERS[drug]}
    return found


def main() -> int:
    """Measure, print, write the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="drug_mini", help="name or folder of a drug model")
    parser.add_argument("--every", type=int, default=10, help="every n-th line of the test split")
    parser.add_argument("--molecules", type=int, default=20)
    arguments = parser.parse_args()
    folder = shared_folder() / "data" / "drug"
    model = load_drug_model(arguments.model)
    samples = left_out_lines(folder, arguments.every)
    names = {drug.name for drug in model.drugs}
    told = gene_effects(model, samples, [drug for drug in MARKERS if drug in names])
    ranks = markers(told, with_own_factor(model))
    absent, average = genes_deleted(told, False), genes_deleted(told, True)
    few = samples.take(slice(0, 3))
    molecules = unknown_molecules(folder, model, arguments.molecules)
    atoms = atoms_deleted(model, few, molecules)
    figures = {
        "lines": len(samples.names),
        "drugs": len(told.drugs),
        "genes of the model": len(model.genes),
        "new molecules": len(molecules),
        "largest sum of effects that is missing, ln uM": float(f"{np.abs(told.unexplained()).max():.2g}"),
        "genes absent": absent,
        "genes average": average,
        "atoms": atoms,
        "rank of known markers": ranks,
    }
    bars = {
        "50 genes absent: share of the way": at_least(absent["50"]["first"], 0.1),
        "50 genes absent, predictions where they beat random": at_least(
            absent["50"]["predictions where the first beat random"], 0.95
        ),
        "50 genes absent against random, times": at_least(
            round(absent["50"]["first"] / max(abs(absent["50"]["random"]), 0.005), 1), 5.0
        ),
        "a fifth of the atoms against random, times": at_least(
            round(atoms["0.2"]["first"] / max(abs(atoms["0.2"]["random"]), 0.005), 2), 1.2
        ),
    }
    files = [folder / "expression" / "gdsc_expression_z_6163.npz", folder / "gdsc" / "drugs.tsv"]
    return write_result("drug_explain", figures, bars, seeds={"everything random": 0}, data=files)


if __name__ == "__main__":
    sys.exit(main())

"""What predicted drug responses rest on, for lines, tumours and clusters: ``cl.tl.drug_explain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cellingua.core.errors import InputError
from cellingua.core.progress import Progress, Silent
from cellingua.models.drug_atoms import AtomEffects, atom_effects, delete_atoms
from cellingua.models.drug_bundle import DEFAULT, load_drug_model
from cellingua.models.drug_effects import Deletion, GeneEffects, captum_methods, delete_genes, gene_effects
from cellingua.models.drug_model import DrugModel
from cellingua.tasks.drug_answer import DrugOptions, Source, answer
from cellingua.tasks.drug_result import DrugResult

if TYPE_CHECKING:
    from cellingua.molecules.smiles import Molecule

#: Predictions that are explained at once, and the share of a molecule's atoms, or number of genes, that are deleted.
MOST, ATOMS, GENES = 200, 0.2, 50


@dataclass(frozen=True)
class DrugExplanation:
    """Predictions with what they rest on.

    Attributes
    ----------
    result
        The predictions themselves, with range, percentile, distance and warnings.
    rows
        Which of its samples are explained.
    genes
        What each gene adds.
    atoms
        What each atom of each new molecule adds.
    gene_checks
        (sample, drug) as numbers in `genes` -> deletion of genes that are then absent, and of genes made average.
    atom_checks
        (sample, molecule) as numbers -> deletion of atoms.
    """

    result: DrugResult
    rows: tuple[int, ...]
    genes: GeneEffects
    atoms: list[AtomEffects]
    gene_checks: dict[tuple[int, int], tuple[Deletion, Deletion]]
    atom_checks: dict[tuple[int, int], Deletion]

    def to_frame(self, top: int = 30) -> pd.DataFrame:
        """Return a row a sample, drug and gene: the `top` genes by the size of their effect."""
        parts, told = [], self.genes
        for sample, name in enumerate(told.samples):
            for drug, asked in enumerate(told.drugs):
                first = told.order(sample, drug)[:top]
                effect = told.effect[sample, drug, first]
                columns = {
                    "sample": name,
                    "drug": asked,
                    "rank": np.arange(1, len(first) + 1),
                    "gene": told.genes[first],
                    "effect_ln_ic50": effect,
                    "speaks_for": np.where(effect < 0, "sensitive", "resistant"),
                    "expression_z": told.z[sample, first],
                }
                parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def atoms_frame(self) -> pd.DataFrame:
        """Return a row a sample, new molecule and atom, atoms in the order of its SMILES."""
        parts = []
        for molecule in self.atoms:
            for sample, name in enumerate(self.genes.samples):
                columns = {
                    "sample": name,
                    "drug": molecule.molecule.name,
                    "smiles": molecule.molecule.smiles,
                    "atom": np.arange(1, len(molecule.symbols) + 1),
                    "element": molecule.symbols,
                    "effect_ln_ic50": molecule.effect[sample],
                    "speaks_for": np.where(molecule.effect[sample] < 0, "sensitive", "resistant"),
                }
                parts.append(pd.DataFrame(columns))
        names = ["sample", "drug", "smiles", "atom", "element", "effect_ln_ic50", "speaks_for"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def summary(self, top: int = 10) -> dict[str, Any]:
        """Return the figures for programs: each prediction, its reference, first genes, and how deletion fared."""
        told, out = self.genes, []
        for sample, name in enumerate(told.samples):
            for drug, asked in enumerate(told.drugs):
                first = told.order(sample, drug)[:top]
                place = self.result.drugs.index(asked)
                absent, average = self.gene_checks[sample, drug]
                entry = {
                    "sample": name,
                    **self.result.entry(self.rows[sample], place),
                    "reference_ln_ic50": float(told.reference[sample, drug]),
                    "unexplained_ln_ic50": float(told.unexplained()[sample, drug]),
                    "genes": {str(told.genes[g]): float(told.effect[sample, drug, g]) for g in first},
                    "deletion": {"absent": _check(absent), "average": _check(average)},
                    "warnings": self.result.warnings(self.rows[sample]),
                }
                new = drug - (len(told.drugs) - len(self.atoms))
                if new >= 0:
                    entry["atoms"] = [float(effect) for effect in self.atoms[new].effect[sample]]
                    entry["deletion"]["atoms"] = _check(self.atom_checks[sample, new])
                out.append(entry)
        return {"research_only": True, "predictions": out, "provenance": self.result.provenance}


def drug_explain(
    cells: Source,
    drugs: Sequence[str] = (),
    *,
    samples: Sequence[str] | None = None,
    molecules: Sequence[Molecule] = (),
    model: str | Path | DrugModel = DEFAULT,
    cluster_key: str | None = None,
    whole: bool = False,
    bulk: bool = False,
    genes_in_rows: bool = False,
    layer: str | None = None,
    level: float = 0.9,
    progress: Progress | None = None,
) -> DrugExplanation:
    """Say which genes, and which atoms of new molecules, predictions rest on. For research, not for treatment.

    Parameters
    ----------
    cells, cluster_key, whole, bulk, genes_in_rows, layer, level, model
        As `drug_rank` takes them; nothing is written into what was given.
    drugs
        Known ones, by name.
    samples
        Names of lines or clusters; by default all.
    molecules
        New drugs, from `cellingua.molecules.smiles.read_molecules` (needs RDKit).
    progress
        Where to report.

    Raises
    ------
    InputError
        No drug, or too much, was asked for; a sample or drug is not there; captum is not installed.
    """
    progress = progress or Silent()
    captum_methods()
    if not drugs and not molecules:
        raise InputError("No drug was named.", "at least one drug or new molecule", "--drug NAME, or --smiles")
    loaded = model if isinstance(model, DrugModel) else load_drug_model(model)
    options = DrugOptions(
        cluster_key, whole, bulk, genes_in_rows, layer, tuple(drugs), tuple(molecules), level=level
    )  # fmt: skip
    result = answer(cells, loaded, options, progress=progress)
    rows = _chosen(result, samples)
    asked = [name for name in result.drugs if name not in {molecule.name for molecule in molecules}]
    if len(rows) * len(result.drugs) > MOST:
        raise InputError(
            f"{len(rows):,} samples and {len(result.drugs):,} drugs are {len(rows) * len(result.drugs):,} predictions.",
            f"at most {MOST} to be explained", "naming samples (--sample)",
        )  # fmt: skip
    chosen = result.set.samples.take(np.array(rows))
    progress.step("Following predictions back to genes")
    genes = gene_effects(loaded, chosen, asked, molecules)
    pairs = [(sample, drug) for sample in range(len(rows)) for drug in range(len(genes.drugs))]
    checks = {}
    progress.step("Deleting genes, the first against random ones", len(pairs))
    for sample, drug in pairs:
        absent, average = (delete_genes(genes, sample, drug, counts=(GENES,), average=way) for way in (False, True))
        checks[sample, drug] = absent, average
        progress.advance(1)
    atoms = [atom_effects(loaded, chosen, molecule) for molecule in molecules]
    atom_checks = {
        (sample, number): delete_atoms(
            loaded, chosen, told, sample, counts=(max(1, round(ATOMS * len(told.symbols))),)
        )
        for number, told in enumerate(atoms) for sample in range(len(rows))
    }  # fmt: skip
    return DrugExplanation(result, rows, genes, atoms, checks, atom_checks)


def _chosen(result: DrugResult, samples: Sequence[str] | None) -> tuple[int, ...]:
    """Return the numbers of samples by name."""
    if samples is None:
        return tuple(range(len(result.samples)))
    missing = [name for name in samples if name not in result.samples]
    if missing or not samples:
        some = ", ".join(result.samples[:8]) + (", ..." if len(result.samples) > 8 else "")
        raise InputError(f"There is no sample {', '.join(missing)!r}.", f"one of {some}")
    return tuple(result.samples.index(name) for name in dict.fromkeys(samples))


def _check(deletion: Deletion) -> dict[str, float]:
    return {
        "parts": deletion.counts[0],
        "moved_by_first": float(deletion.explained[0]),
        "moved_by_random": float(deletion.random[0]),
        "spread_of_random": float(deletion.spread[0]),
    }

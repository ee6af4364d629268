"""Molecules as graphs: what a graph encoder sees of each atom, and which atoms are bound.

The 77 numbers of an atom and their order are those of TGSA's featuriser, which CellLM's drug branch reads (they are
those of DGL-LifeSci's canonical atom featuriser, with ring and chirality after them), so that weights of one fit the
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellingua.molecules.smiles import Molecule, _parsed

if TYPE_CHECKING:
    from rdkit.Chem import Atom

_SYMBOLS = (
    "C N O S F Si P Cl Br Mg Na Ca Fe As Al I B V K Tl Yb Sb Sn Ag Pd Co Se Ti Zn H Li Ge Cu Au Ni Cd In Mn Zr Cr Pt "
    "Hg Pb"
)
ELEMENTS = tuple(_SYMBOLS.split())
HYBRIDS = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
CHIRAL = ("CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW")
#: element 43, degree 0-10, implicit valence 0-6, charge, radical electrons, hybridisation 5, aromatic, hydrogens 0-4,
#: in a ring, chirality 2
ATOM_FEATURES = len(ELEMENTS) + 11 + 7 + 1 + 1 + len(HYBRIDS) + 1 + 5 + 1 + len(CHIRAL)


@dataclass(frozen=True)
class MoleculeGraphs:
    """Several molecules as one graph without edges between them.

    Attributes
    ----------
    atoms
        float32 (A, 77).
    edges
        int64 (2, E): both directions of each bond.
    molecule
        int64 (A,): which molecule each atom belongs to; ascending.
    count
        How many molecules.
    """

    atoms: NDArray[np.float32]
    edges: NDArray[np.int64]
    molecule: NDArray[np.int64]
    count: int


def graphs(molecules: Sequence[Molecule]) -> MoleculeGraphs:
    """Return molecules as graphs; atoms stand in the order of their canonical SMILES."""
    atoms: list[list[float]] = []
    edges: list[tuple[int, int]] = []
    owner: list[int] = []
    for number, molecule in enumerate(molecules):
        parsed = _parsed(molecule.smiles)
        first = len(atoms)
        atoms += [_features(atom) for atom in parsed.GetAtoms()]
        owner += [number] * parsed.GetNumAtoms()
        for bond in parsed.GetBonds():
            a, b = first + bond.GetBeginAtomIdx(), first + bond.GetEndAtomIdx()
            edges += [(a, b), (b, a)]
    return MoleculeGraphs(
        np.array(atoms, np.float32).reshape(-1, ATOM_FEATURES),
        np.array(edges, np.int64).reshape(-1, 2).T.copy(),
        np.array(owner, np.int64),
        len(molecules),
    )


def atom_names(molecule: Molecule) -> list[str]:
    """Return the element of each atom, in the order of `graphs`."""
    return [atom.GetSymbol() for atom in _parsed(molecule.smiles).GetAtoms()]


def _features(atom: Atom) -> list[float]:
    implicit = atom.GetValence(_which_valence().IMPLICIT)
    return [
        *_one_of(atom.GetSymbol(), ELEMENTS),
        *_one_of(atom.GetDegree(), range(11)),
        *_one_of(implicit, range(7)),
        float(atom.GetFormalCharge()),
        float(atom.GetNumRadicalElectrons()),
        *_one_of(str(atom.GetHybridization()), HYBRIDS),
        float(atom.GetIsAromatic()),
        *_one_of(atom.GetTotalNumHs(), range(5)),
        float(atom.IsInRing()),
        *_one_of(str(atom.GetChiralTag()), CHIRAL),
    ]


def _which_valence() -> Any:
    from rdkit.Chem import ValenceType

    return ValenceType


def _one_of(value: Any, among: Sequence[Any]) -> list[float]:
    """Return 1 at the place of `value` and 0 elsewhere; all 0 where it is not among them."""
    return [float(value == other) for other in among]

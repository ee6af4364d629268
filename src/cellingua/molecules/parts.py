"""What a molecule's likeness to others owes to each of its atoms.

An atom is taken out of a molecule's *description*, not out of the molecule: every circular environment, atom pair and
torsion that it is part of is left out, and what remains is described as before. This is how similarity maps delete
atoms (Riniker and Landrum 2013); cutting the atom out would make another molecule, with new ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellingua.molecules.smiles import BITS, Molecule, _parsed, _rdkit, fingerprints, tanimoto

Floats = NDArray[np.float64]


class PartialLikeness:
    """How alike a molecule, of which some atoms are not described, is to some others: `likeness` with atoms left out.

    Parameters
    ----------
    molecule
        The one whose atoms are asked about, in the order of `molecules.graph`.
    others
        D of them.
    """

    def __init__(self, molecule: Molecule, others: Sequence[Molecule]) -> None:
        made = _rdkit("rdFingerprintGenerator")
        self._mol = _parsed(molecule.smiles)
        self.atoms: int = self._mol.GetNumAtoms()
        self._around = _environments(self._mol)
        self._bits = np.array([bit for bit, _ in self._around], dtype=np.int64)
        self._morgan = fingerprints(others, bits=BITS)
        self._counters = (made.GetAtomPairGenerator(fpSize=BITS), made.GetTopologicalTorsionGenerator(fpSize=BITS))
        parsed = [_parsed(other.smiles) for other in others]
        self._counts = [
            np.array([c.GetCountFingerprintAsNumPy(one) for one in parsed], dtype=np.float64).reshape(-1, BITS)
            for c in self._counters
        ]
        self._known: dict[bytes, Floats] = {}

    def __call__(self, kept: NDArray[np.bool_]) -> Floats:
        """Return float64 (n, D) between 0 and 1 for n ways to keep some atoms, bool (n, atoms)."""
        found = [self._one(np.asarray(row, dtype=bool)) for row in kept]
        return np.array(found).reshape(len(kept), len(self._morgan))

    def _one(self, kept: NDArray[np.bool_]) -> Floats:
        key = kept.tobytes()
        if key not in self._known:
            self._known[key] = self._described(kept)
        return self._known[key]

    def _described(self, kept: NDArray[np.bool_]) -> Floats:
        whole = np.array([bool(kept[atoms].all()) for _, atoms in self._around], dtype=bool)
        bits = np.zeros((1, BITS), np.uint8)
        bits[0, self._bits[whole]] = 1
        total = tanimoto(bits, self._morgan)[0]
        out = np.flatnonzero(~kept).tolist()
        for counter, theirs in zip(self._counters, self._counts, strict=True):
            mine = np.zeros(BITS) if not kept.any() else counter.GetCountFingerprintAsNumPy(self._mol, ignoreAtoms=out)
            used = np.flatnonzero(mine)
            common = np.minimum(theirs[:, used], mine[used]).sum(axis=1)
            union = theirs.sum(axis=1) + mine.sum() - common
            total = total + np.divide(common, union, out=np.zeros_like(common), where=union > 0)
        return np.asarray(total / 3)


def _environments(mol: object) -> list[tuple[int, NDArray[np.int64]]]:
    """Return the circular environments up to radius 2, each with its bit and its atoms."""
    chem, made = _rdkit(), _rdkit("rdFingerprintGenerator")
    told = made.AdditionalOutput()
    told.CollectBitInfoMap()
    made.GetMorganGenerator(radius=2, fpSize=BITS).GetFingerprint(mol, additionalOutput=told)
    found = []
    for bit, centres in told.GetBitInfoMap().items():
        for centre, radius in centres:
            atoms = {centre}
            for bond in chem.FindAtomEnvironmentOfRadiusN(mol, radius, centre) if radius else ():
                ends = mol.GetBondWithIdx(bond)  # type: ignore[attr-defined]
                atoms |= {ends.GetBeginAtomIdx(), ends.GetEndAtomIdx()}
            found.append((int(bit), np.array(sorted(atoms), dtype=np.int64)))
    return found

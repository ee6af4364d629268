"""Molecules with atoms left out of their description: all kept is the molecule itself, nothing kept is like nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rdkit")

from cellingua.molecules.parts import PartialLikeness
from cellingua.molecules.smiles import likeness, read_molecules

KNOWN = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "erlotinib": "C#Cc1cccc(Nc2ncnc3cc(OCCOC)c(OCCOC)cc23)c1",
    "cisplatin": "[NH3][Pt]([NH3])(Cl)Cl",
    "methane": "C",
}
NEW = "COCCOc1cc2ncnc(Nc3cccc(Cl)c3)c2cc1OC"


def parts(smiles: str = NEW) -> tuple[PartialLikeness, np.ndarray]:
    molecules = read_molecules(["new", *KNOWN], [smiles, *KNOWN.values()])
    return PartialLikeness(molecules[0], molecules[1:]), likeness(molecules)[0, 1:]


@pytest.mark.parametrize("smiles", [NEW, *KNOWN.values(), "CC(C)N.OS(=O)(=O)O"])
def test_with_all_atoms_it_is_the_likeness_of_the_molecule(smiles: str) -> None:
    partial, whole = parts(smiles)
    found = partial(np.ones((1, partial.atoms), bool))[0]
    # `likeness` calls a molecule without any pair of atoms like itself; described by bits alone methane is.
    np.testing.assert_allclose(found[:-1], whole[:-1], atol=1e-12)
    assert 0 <= found[-1] <= 1


def test_without_atoms_it_is_like_nothing_and_without_one_it_is_less_like_its_relative() -> None:
    partial, whole = parts()
    masks = ~np.eye(partial.atoms, dtype=bool)
    found = partial(np.concatenate([np.zeros((1, partial.atoms), bool), masks]))
    assert (found[0] == 0).all()
    relative = list(KNOWN).index("erlotinib")
    # Every atom of the quinazoline core is shared, and no atom of a molecule takes likeness from its description alone
    # as much as the core gives.
    assert found[1:, relative].min() < whole[relative] - 0.05
    assert found[1:].min() >= 0
    assert found[1:].max() <= 1


def test_a_row_does_not_depend_on_the_others() -> None:
    partial, _ = parts()
    masks = np.random.default_rng(0).random((12, partial.atoms)) < 0.7
    together = partial(masks)
    again, _ = parts()
    for row in np.random.default_rng(1).permutation(12):
        np.testing.assert_array_equal(again(masks[row][None])[0], together[row])

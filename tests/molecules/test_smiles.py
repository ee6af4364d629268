"""Molecules: what is read, what is stripped, which row is refused, and the 77 numbers of an atom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellingua.core.errors import InputError

pytest.importorskip("rdkit")

from cellingua.molecules.graph import ATOM_FEATURES, ELEMENTS, atom_names, graphs
from cellingua.molecules.smiles import fingerprints, read_molecules, same_compounds, tanimoto

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def test_one_compound_written_in_two_ways_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    one, other = read_molecules(["a", "b"], [ASPIRIN, "OC(=O)c1ccccc1OC(C)=O"])
    assert one.smiles == other.smiles
    assert same_compounds([one, other])["a"] == same_compounds([one, other])["b"]
    assert one.scaffold == "c1ccccc1"
    assert (fingerprints([one]) == fingerprints([other])).all()
    assert capfd.readouterr() == ("", "")


def test_an_unreadable_smiles_is_named_with_its_row(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"2 of 4 SMILES.*row 2 \(bad\): 'C1CC', row 4 \(none\): ''"):
        read_molecules(["ok", "bad", "ok too", "none"], ["CCO", "C1CC", "C", ""])
    assert capfd.readouterr() == ("", "")  # RDKit's own complaints stay off the screen
    with pytest.raises(InputError, match="1 names have 2"):
        read_molecules(["a"], ["C", "C"])


def test_salts_are_kept_or_stripped_and_metals_are_never_torn_apart() -> None:
    names, smiles = ["salt", "platinum"], ["CCN.Cl", "[NH3].[NH3].[Cl-].[Cl-].[Pt+2]"]
    kept, whole = read_molecules(names, smiles)
    assert kept.smiles == "CCN.Cl"
    assert kept.fragments == 2
    stripped, same = read_molecules(names, smiles, salts="strip")
    assert stripped.smiles == "CCN"
    assert stripped.inchikey == kept.inchikey  # still the compound that was written
    assert same == whole
    assert "Pt" in same.smiles
    with pytest.raises(InputError, match="'wash'"):
        read_molecules(["a"], ["C"], salts="wash")


def test_tanimoto_is_one_for_the_same_and_never_undefined() -> None:
    made = read_molecules(["a", "b", "c"], [ASPIRIN, "c1ccccc1", "CCO"])
    bits = fingerprints(made)
    alike = tanimoto(bits, bits)
    assert np.allclose(np.diag(alike), 1)
    assert np.allclose(alike, alike.T)
    assert (alike[0, 1:] < 1).all()
    assert tanimoto(np.zeros((1, 8), np.uint8), np.zeros((2, 8), np.uint8)).tolist() == [[0.0, 0.0]]


def test_graphs_do_not_depend_on_company() -> None:
    made = read_molecules(["a", "b", "lone"], [ASPIRIN, "C[C@H](N)C(=O)O", "[Cl-]"])
    together = graphs(made)
    assert together.atoms.shape == (sum(len(atom_names(m)) for m in made), ATOM_FEATURES)
    assert ATOM_FEATURES == 77
    assert together.count == 3
    for number, molecule in enumerate(made):
        alone = graphs([molecule])
        rows = np.flatnonzero(together.molecule == number)
        assert (together.atoms[rows] == alone.atoms).all()
        kept = np.isin(together.edges[0], rows)
        assert (together.edges[:, kept] - rows[0] == alone.edges).all()
    assert alone.edges.shape == (2, 0)


def test_the_numbers_of_an_atom_say_what_it_is() -> None:
    (alanine,) = read_molecules(["alanine"], ["C[C@H](N)C(=O)O"])
    atoms = dict(zip(atom_names(alanine), graphs([alanine]).atoms, strict=False))
    nitrogen = graphs([alanine]).atoms[atom_names(alanine).index("N")]
    assert nitrogen[ELEMENTS.index("N")] == 1
    assert nitrogen[: len(ELEMENTS)].sum() == 1
    assert nitrogen[43 + 1] == 1  # one neighbour
    assert nitrogen[43 + 11 + 2] == 1  # two implicit hydrogens
    assert nitrogen[69 + 2] == 1  # and two hydrogens in all, after charge, radicals, hybridisation and aromaticity
    chiral = graphs([alanine]).atoms[:, -2:].sum()
    assert chiral == 1
    assert len(atoms) >= 3


def test_identities_are_those_of_the_stored_table(shared: Path) -> None:
    table = pd.read_csv(shared / "data" / "drug" / "tgsa" / "drugs.tsv", sep="\t", keep_default_na=False)
    made = read_molecules(table.drug.tolist(), table.isomeric_smiles.tolist())
    assert [m.inchikey for m in made] == table.inchikey.tolist()
    assert [m.fragments for m in made] == table.n_fragments.tolist()
    assert [m.name for m in made if m.fragments > 1] == [
        "Sepantronium bromide", "Oxaliplatin", "BMS-345541", "Obatoclax Mesylate"
    ]  # fmt: skip

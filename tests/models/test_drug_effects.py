"""What predictions rest on: effects add up, equal captum's on the whole network, and deleting by them beats chance."""

from __future__ import annotations

import sys
from itertools import permutations

import drug_world
import numpy as np
import pytest
import torch

pytest.importorskip("captum")
pytest.importorskip("rdkit")

from captum.attr import IntegratedGradients

from cellingua.core.errors import InputError
from cellingua.models.drug_atoms import AtomsOut, atom_effects, delete_atoms
from cellingua.models.drug_effects import delete_genes, gene_effects, typical_lines
from cellingua.models.drug_expression import Samples
from cellingua.molecules.smiles import Molecule, read_molecules

NEW = "COCCOc1cc2ncnc(Nc3cccc(Cl)c3)c2cc1OC"


model = drug_world.model_with_molecules


def new(smiles: str = NEW) -> list[Molecule]:
    return read_molecules(["new one"], [smiles])


def lines(*rows: int) -> Samples:
    return drug_world.samples().take(np.array(rows))


def test_effects_and_reference_add_up_to_the_prediction() -> None:
    samples = lines(50, 55, 60)
    told = gene_effects(model(), samples, ["Erlotinib", "Bortezomib"], new())
    assert told.drugs == ["Erlotinib", "Bortezomib", "new one"]
    assert np.abs(told.unexplained()).max() < 1e-4
    assert np.abs(told.value - told.reference).max() > 0.5
    said = model().predict(samples, ["Erlotinib", "Bortezomib"]).value
    np.testing.assert_allclose(told.value[:, :2], said, atol=1e-9)
    np.testing.assert_allclose(told.value[:, 2:], model().predict_molecules(samples, new()).value, atol=1e-9)


def test_they_are_captums_gradients_on_the_whole_network() -> None:
    samples = lines(50)
    told = gene_effects(model(), samples, ["Erlotinib"], references=3, steps=16)
    z, there = (torch.from_numpy(array) for array in model().standardise(samples))
    typical, place = torch.from_numpy(typical_lines(model().network, 3)), int(model().columns(["Erlotinib"])[0])
    plain = IntegratedGradients(model().gradient_module()).attribute(
        z.expand(3, -1), baselines=typical, target=place, additional_forward_args=(there.expand(3, -1),), n_steps=16
    )
    np.testing.assert_allclose(told.effect[0, 0], plain.mean(dim=0).detach().numpy(), atol=1e-10)


def test_an_absent_gene_has_no_effect_and_company_and_order_change_nothing() -> None:
    alone = gene_effects(model(), lines(52), ["Cisplatin"])
    among = gene_effects(model(), lines(60, 52, 50), ["Erlotinib", "Cisplatin"])
    np.testing.assert_allclose(among.effect[1, 1], alone.effect[0, 0], atol=1e-12)
    samples = lines(52)
    order = np.random.default_rng(0).permutation(len(samples.genes))
    turned = Samples(samples.names, samples.genes[order], samples.values[:, order])
    np.testing.assert_allclose(gene_effects(model(), turned, ["Cisplatin"]).effect, alone.effect, atol=1e-12)
    fewer = Samples(samples.names, samples.genes[40:], samples.values[:, 40:])
    told = gene_effects(model(), fewer, ["Cisplatin"])
    assert (told.effect[0, 0, ~told.there[0]] == 0).all()
    assert (~told.there[0]).sum() == 40
    assert np.abs(told.unexplained()).max() < 1e-4
    assert set(told.order(0, 0).tolist()) == set(np.flatnonzero(told.there[0]).tolist())


@pytest.mark.parametrize("average", [False, True])
def test_deleting_the_first_genes_moves_a_prediction_more_than_deleting_others(average: bool) -> None:
    told = gene_effects(model(), lines(*range(48, 60)), ["Erlotinib", "Trametinib"])
    first, random = np.zeros(2), np.zeros(2)
    for sample in range(12):
        for drug in range(2):
            found = delete_genes(told, sample, drug, counts=(10, 60), draws=5, average=average)
            first, random = first + found.explained, random + found.random
    assert (first > 5 * np.abs(random)).all()
    # All genes gone, absent or average: the prediction no longer knows which sample it is.
    whole = [
        delete_genes(told, sample, 0, counts=(10_000,), draws=1, average=average) for sample in (0, 1)
    ]  # fmt: skip
    ends = [
        told.value[s, 0] - (np.sign(told.value[s, 0] - told.reference[s, 0]) * whole[s].explained[0]) for s in (0, 1)
    ]
    assert whole[0].counts == [int(told.there[0].sum())]
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)
    np.testing.assert_allclose(whole[0].explained, whole[0].random)


def test_a_deleted_gene_is_an_absent_one_to_the_network() -> None:
    told = gene_effects(model(), lines(52), ["Erlotinib"])
    found = delete_genes(told, 0, 0, counts=(7, 90), draws=1)
    sign = np.sign(told.value[0, 0] - told.reference[0, 0])
    order = np.argsort(-sign * told.effect[0, 0], kind="stable")
    place = int(model().columns(["Erlotinib"])[0])
    for number, count in enumerate(found.counts):
        left = told.there[[0]].copy()
        left[0, order[:count]] = False
        plain = model().gradient_module()(torch.from_numpy(told.z[[0]]), torch.from_numpy(left))[0, place].item()
        assert found.explained[number] == pytest.approx(sign * (told.value[0, 0] - plain), abs=1e-9)


def test_atoms_add_up_and_do_not_depend_on_company() -> None:
    samples = lines(50, 55)
    told = atom_effects(model(), samples, new()[0])
    assert told.effect.shape == (2, len(told.symbols))
    assert told.symbols.count("Cl") == 1
    np.testing.assert_allclose(told.effect.sum(axis=1), told.value - told.reference, atol=1e-5)
    np.testing.assert_allclose(told.value, model().predict_molecules(samples, new()).value[:, 0], atol=1e-9)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    alone = atom_effects(model(), lines(55), new()[0])
    np.testing.assert_allclose(alone.effect[0], told.effect[1], atol=1e-12)
    assert torch.equal(state, torch.random.get_rng_state())


def test_atoms_are_shapley_values() -> None:
    molecule = new("CCOB")[0]
    say = AtomsOut(model(), lines(50), molecule)
    exact = np.zeros(say.atoms)
    orders = list(permutations(range(say.atoms)))
    for order in orders:
        masks = np.zeros((say.atoms + 1, say.atoms), bool)
        for place, atom in enumerate(order):
            masks[place + 1 :, atom] = True
        exact[list(order)] += np.diff(say(masks)[0]) / len(orders)
    told = atom_effects(model(), lines(50), molecule, orders=600)
    assert np.abs(exact).max() > 0
    np.testing.assert_allclose(told.effect[0], exact, atol=0.12 * np.abs(exact).max())


def test_leaving_out_the_first_atoms_moves_a_prediction_more_than_leaving_out_others() -> None:
    samples = lines(50, 55, 60)
    told = atom_effects(model(), samples, new()[0])
    for sample in range(3):
        found = delete_atoms(model(), samples, told, sample, counts=(4, 8, 1000))
        assert (found.explained[:2] > found.random[:2]).all()
        # Without any atom nothing is left but the reference.
        assert found.explained[2] == pytest.approx(abs(told.value[sample] - told.reference[sample]), abs=1e-9)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="learned from no molecules"):
        gene_effects(drug_world.model(), lines(50), None, new())
    with pytest.raises(InputError, match="'Aspirin' is not one"):
        gene_effects(model(), lines(50), ["Aspirin"])
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(InputError, match="needs captum"):
        gene_effects(model(), lines(50), ["Erlotinib"])

"""The network for who has a table: expression and molecules in, responses of new lines out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellingua.baselines.drug_form import Known
from cellingua.baselines.drug_mean import DrugMean
from cellingua.core.errors import InputError
from cellingua.molecules.smiles import Molecule
from cellingua.recipes.drug_network import SETTINGS, PlainNetwork, expression_components

SMALL = replace(SETTINGS["unseen_lines"], epochs=30, lines=20, molecule=8, hidden=16, joint=12, meet=8, last=8)
MOLECULES = [Molecule(f"drug{i}", "C" * (i + 1), f"key{i}", 1, "") for i in range(5)]


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(80, 2))
    expression = hidden @ rng.normal(size=(2, 30)) + 0.2 * rng.normal(size=(80, 30))
    truth = hidden @ rng.normal(size=(2, 5)) + rng.normal(0, 2, 5)
    grid = truth.copy()
    grid[60:] = np.nan
    return expression, grid, truth


def test_new_lines_are_told_better_than_by_their_drugs_means() -> None:
    pytest.importorskip("rdkit")
    expression, grid, truth = planted()
    said, apart = PlainNetwork(SMALL, seeds=(0, 1)).fit(expression, grid, MOLECULES).predict(expression[60:])
    guess = DrugMean().complete(grid, Known())[60:]
    assert ((said - truth[60:]) ** 2).mean() < 0.4 * ((guess - truth[60:]) ** 2).mean()
    assert apart.shape == said.shape
    assert (apart > 0).any()


def test_lines_that_are_not_learned_from_and_company_decide_nothing() -> None:
    pytest.importorskip("rdkit")
    expression, grid, _ = planted()
    few = replace(SMALL, epochs=2)
    network = PlainNetwork(few, seeds=(0,)).fit(expression, grid, MOLECULES)
    other = expression.copy()
    other[60:] = 50.0
    again = PlainNetwork(few, seeds=(0,)).fit(other, grid, MOLECULES)
    whole, _ = network.predict(expression[60:])
    assert np.array_equal(again.predict(expression[60:])[0], whole)
    assert np.allclose(network.predict(expression[63:64])[0], whole[3:4], atol=1e-5)
    hole = expression[60:61].copy()
    hole[0, 4] = np.nan
    assert np.isfinite(network.predict(hole)[0]).all()


def test_axes_come_from_learned_lines() -> None:
    expression, grid, _ = planted()
    learned = np.isfinite(grid).any(axis=1)
    other = expression.copy()
    other[60:] *= 3
    a, b = expression_components([expression], learned, 4), expression_components([other], learned, 4)
    assert np.array_equal(a[:60], b[:60])
    assert a.shape == (80, 4)


def test_what_cannot_be_is_refused() -> None:
    expression, grid, _ = planted()
    with pytest.raises(InputError, match="seed"):
        PlainNetwork(seeds=())
    with pytest.raises(InputError, match="at least 3"):
        PlainNetwork(SMALL).fit(expression, np.full_like(grid, np.nan), MOLECULES)
    with pytest.raises(InputError, match="not fitted"):
        PlainNetwork(SMALL).predict(expression)

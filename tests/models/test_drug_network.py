"""Networks on tables of responses: they learn what was planted, and nothing of what they may not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellingua.baselines.drug_form import Known
from cellingua.baselines.drug_mean import DrugMean
from cellingua.core.errors import ConfigError, InputError
from cellingua.models.drug_network import DrugNetwork, Level, NetworkConfig, Scaling, _taken
from cellingua.molecules.graph import MoleculeGraphs

SMALL = NetworkConfig(epochs=40, lines=20, molecule=8, hidden=16, joint=12, meet=8, last=8, rate=1e-2)
LINES, DRUGS = 80, 7


def chains(number: int = DRUGS, seed: int = 0) -> MoleculeGraphs:
    """Return chains of two to five atoms with random features."""
    rng = np.random.default_rng(seed)
    atoms: list[list[float]] = []
    edges: list[tuple[int, int]] = []
    owner: list[int] = []
    for molecule in range(number):
        first, size = len(owner), int(rng.integers(2, 6))
        atoms += rng.normal(size=(size, 4)).tolist()
        owner += [molecule] * size
        for a in range(first, first + size - 1):
            edges += [(a, a + 1), (a + 1, a)]
    return MoleculeGraphs(np.array(atoms, np.float32), np.array(edges).T.copy(), np.array(owner), number)


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return responses that follow two of six numbers of a line; the same with holes; the numbers."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(LINES, 6))
    truth = rng.normal(0, 3, DRUGS) + cells[:, :2] @ rng.normal(size=(2, DRUGS)) + 0.1 * rng.normal(size=(LINES, DRUGS))
    grid = np.where(rng.random(truth.shape) < 0.2, np.nan, truth)
    grid[60:] = np.nan
    return truth, grid, cells


def test_new_lines_are_told_better_than_by_their_drugs_means() -> None:
    truth, grid, cells = planted()
    said = DrugNetwork(SMALL).fit(grid, cells, chains()).predict(cells, chains())
    guess = DrugMean().complete(grid, Known())
    error, guessed = ((said - truth)[60:] ** 2).mean(), ((guess - truth)[60:] ** 2).mean()
    assert error < 0.3 * guessed


def test_what_is_not_learned_from_decides_nothing() -> None:
    _, grid, cells = planted()
    grid[:, 3] = np.nan
    few = replace(SMALL, epochs=2)
    first = DrugNetwork(few).fit(grid, cells, chains())
    other = cells.copy()
    other[60:] = 100.0
    atoms = chains()
    changed = MoleculeGraphs(
        np.where((atoms.molecule == 3)[:, None], 9.0, atoms.atoms).astype(np.float32),
        atoms.edges,
        atoms.molecule,
        DRUGS,
    )
    second = DrugNetwork(few).fit(grid, other, changed)
    kept = np.arange(DRUGS) != 3
    a, b = first.predict(cells, atoms), second.predict(other, changed)
    assert np.array_equal(a[:60][:, kept], b[:60][:, kept])


def test_a_line_is_the_same_alone_and_in_company() -> None:
    _, grid, cells = planted()
    network = DrugNetwork(replace(SMALL, epochs=2)).fit(grid, cells, chains())
    whole = network.predict_lines(cells[60:], chains())
    assert np.allclose(whole, network.predict(cells, chains())[60:], atol=1e-5)
    for row in (0, 7):
        assert np.allclose(network.predict_lines(cells[60 + row : 61 + row], chains()), whole[row : row + 1], atol=1e-5)


def test_the_same_seed_gives_the_same_network() -> None:
    _, grid, cells = planted()
    few = replace(SMALL, epochs=2, drop_own=0.3, own_lines=True, level="both")
    first, again, other = (DrugNetwork(few, seed).fit(grid, cells, chains()) for seed in (1, 1, 2))
    assert np.array_equal(first.predict(cells, chains()), again.predict(cells, chains()))
    assert not np.array_equal(first.predict(cells, chains()), other.predict(cells, chains()))


@pytest.mark.parametrize("kind", ["none", "drug", "line", "both"])
def test_levels_are_those_of_what_was_learned(kind: str) -> None:
    _, grid, _ = planted()
    grid[:, 2] = np.nan
    level = Level.fit(grid, kind)
    assert level.drug[2] == 0
    assert (level.line[60:] == 0).all()
    assert (level.line != 0).any() == (kind in ("line", "both"))
    assert (level.drug != 0).any() == (kind in ("drug", "both"))
    left = grid - level.table()
    assert np.isclose(left[np.isfinite(left)].std(), level.unit)
    if kind == "drug":
        assert np.allclose(np.nanmean(np.delete(left, 2, axis=1)[:60], axis=0), 0)


def test_scalings() -> None:
    cells = np.array([[0.0, 10.0, 3.0], [2.0, 30.0, 3.0], [4.0, np.nan, 3.0]])
    each = Scaling.fit(cells, "each")(cells).numpy()
    assert np.allclose(each[:, 0], [-1.2247, 0, 1.2247], atol=1e-4)
    assert each[2, 1] == 0
    assert (each[:, 2] == 0).all()
    joint = Scaling.fit(cells, "together")(cells).numpy()
    assert np.isclose(joint[1, 1] / joint[2, 0], 10.0 / 2.0)  # what is larger stays larger
    assert np.array_equal(Scaling.fit(cells, "none")(cells).numpy()[:, 0], cells[:, 0])


def test_some_molecules_are_those_that_are_left() -> None:
    atoms = chains()
    rows = np.array([1, 4, 6])
    part = _taken(atoms, rows)
    assert part.count == 3
    assert part.molecule.max() == 2
    for number, row in enumerate(rows):
        ours, theirs = part.molecule == number, atoms.molecule == row
        assert np.array_equal(part.atoms[ours], atoms.atoms[theirs])
        first, before = np.flatnonzero(ours)[0], np.flatnonzero(theirs)[0]
        mine = part.edges[:, ours[part.edges[0]]] - first
        assert np.array_equal(mine, atoms.edges[:, theirs[atoms.edges[0]]] - before)


def test_what_cannot_be_is_refused() -> None:
    _, grid, cells = planted()
    with pytest.raises(ConfigError, match="level"):
        NetworkConfig(level="tissue")
    with pytest.raises(ConfigError, match="scaling"):
        NetworkConfig(scaling="log")
    with pytest.raises(ConfigError, match="learned"):
        NetworkConfig(epochs=0)
    with pytest.raises(InputError, match="molecules"):
        DrugNetwork(SMALL).fit(grid, cells, chains(3))
    network = DrugNetwork(replace(SMALL, epochs=1)).fit(grid, cells, chains())
    with pytest.raises(InputError, match="of `fit`"):
        network.predict(cells[:5], chains())

"""Baselines for drug responses: what all promise, and each against its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cellingua.baselines.additive import Additive, effects
from cellingua.baselines.drug_form import DrugBaseline, Known, components, scaled
from cellingua.baselines.drug_mean import DrugMean, GlobalMean
from cellingua.baselines.drug_ridge import DrugRidge
from cellingua.baselines.drug_trees import DrugTrees
from cellingua.baselines.factorisation import Factorisation
from cellingua.core.errors import InputError

EVERY: dict[str, Callable[[], DrugBaseline]] = {
    "global mean": GlobalMean,
    "drug mean": DrugMean,
    "additive": Additive,
    "factorisation": lambda: Factorisation(2, 0.5),
    "ridge": DrugRidge,
    "trees": lambda: DrugTrees(4, 3, trees=20),
}


def planted(lines: int = 40, drugs: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Known]:
    """Return the truth, the same with a quarter of holes, and features that explain it."""
    rng = np.random.default_rng(seed)
    factors, chemistry = rng.normal(size=(lines, 6)), rng.normal(size=(drugs, 8))
    truth = 2 + factors @ rng.normal(size=(6, drugs)) + chemistry[:, 0] * 2 + rng.normal(size=(lines, 1))
    grid = np.where(rng.random(truth.shape) < 0.25, np.nan, truth)
    expression = np.concatenate([factors + 0.1 * rng.normal(size=factors.shape), rng.normal(size=(lines, 20))], axis=1)
    return truth, grid, Known(expression, chemistry)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_hidden_decides_nothing_and_order_does_not_either(name: str) -> None:
    _, grid, known = planted()
    made = EVERY[name]
    out = made().complete(grid, known)
    assert out.shape == grid.shape
    assert np.isfinite(out).all()
    assert (made().complete(grid, known) == out).all()
    # a line that is not learned from may have any features: no other line's answer moves
    unseen = grid.copy()
    unseen[:5] = np.nan
    assert known.lines is not None
    wild = known.lines.copy()
    wild[:5] *= 1e4
    before = made().complete(unseen, known)[5:]
    assert np.allclose(made().complete(unseen, Known(wild, known.drugs))[5:], before)
    if name not in ("factorisation", "trees"):  # these two start from the order of rows
        order = np.random.default_rng(1).permutation(len(grid))
        assert np.allclose(made().complete(grid[order], Known(known.lines[order], known.drugs)), out[order], atol=1e-8)


def test_each_is_better_than_what_knows_less() -> None:
    truth, grid, known = planted(120)
    hole = np.isnan(grid)
    error = {
        name: np.sqrt(np.mean((made().complete(grid, known)[hole] - truth[hole]) ** 2)) for name, made in EVERY.items()
    }
    assert error["global mean"] > error["drug mean"] > error["additive"] > error["ridge"]
    assert error["trees"] < error["drug mean"]


def test_factors_are_found_where_there_are_some() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 25)) + rng.normal(size=25)
    grid = np.where(rng.random(truth.shape) < 0.2, np.nan, truth)
    hole = np.isnan(grid)
    found = Factorisation(3, 0.05, rounds=60).complete(grid, Known())
    assert np.corrcoef(found[hole], truth[hole])[0, 1] > 0.98


def test_effects_are_those_of_a_full_table() -> None:
    line, drug = np.array([0.0, 1.0, -1.0]), np.array([2.0, -2.0])
    grid = 5 + line[:, None] + drug[None, :]
    mean, left, right = effects(grid)
    assert mean == pytest.approx(5)
    assert np.allclose(left, line)
    assert np.allclose(right, drug)
    hidden = grid.copy()
    hidden[0, 1] = np.nan
    assert np.allclose(Additive().complete(hidden, Known()), grid, atol=1e-3)
    new_drug = np.column_stack([grid, np.full(3, np.nan)])
    assert np.allclose(Additive().complete(new_drug, Known())[:, 2], 5 + line)
    assert np.allclose(DrugMean().complete(new_drug, Known())[:, 2], grid.mean())


def test_ridge_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    _, grid, known = planted(50, 3)
    assert known.lines is not None
    for penalty in (0.1, 3.0):
        out = DrugRidge((penalty,)).complete(grid, known)
        z = scaled(known.lines, np.isfinite(grid).any(axis=1))
        for drug in range(3):
            rows = np.isfinite(grid[:, drug])
            centred = z[rows] - z[rows].mean(axis=0)
            unit = np.linalg.eigvalsh(centred @ centred.T).clip(0).mean()
            theirs = linear_model.Ridge(alpha=penalty * unit).fit(z[rows], grid[rows, drug])
            assert np.allclose(theirs.predict(z), out[:, drug], atol=1e-6)


def test_ridge_chooses_by_leaving_each_line_out() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    _, grid, known = planted(30, 1)
    assert known.lines is not None
    rows = np.flatnonzero(np.isfinite(grid[:, 0]))
    grid, lines = grid[rows], known.lines[rows]
    z = scaled(lines, np.ones(len(rows), bool))
    centred = z - z.mean(axis=0)
    unit = np.linalg.eigvalsh(centred @ centred.T).clip(0).mean()
    penalties = (0.01, 0.3, 10.0)

    def left_out(penalty: float) -> float:
        errors = []
        for row in range(len(rows)):
            rest = np.arange(len(rows)) != row
            model = linear_model.Ridge(alpha=penalty * unit).fit(z[rest], grid[rest, 0])
            errors.append(float(model.predict(z[[row]])[0] - grid[row, 0]))
        return float(np.mean(np.square(errors)))

    best = min(penalties, key=left_out)
    ours = DrugRidge(penalties).complete(grid, Known(lines))
    assert np.allclose(ours, DrugRidge((best,)).complete(grid, Known(lines)))


def test_scaling_and_axes_come_from_the_learned_rows() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (20, 5))
    values[3, 2] = np.nan
    values[:, 4] = 1.0
    learned = np.arange(20) < 12
    z = scaled(values, learned)
    assert np.allclose(np.delete(z[:12], 3, axis=0)[:, :2].std(), z[:12, :2].std(), rtol=0.3)
    assert np.allclose(z[:12, 0].mean(), 0)
    assert np.allclose(z[:12, 0].std(), 1)
    assert z[3, 2] == 0
    assert (z[:, 4] == 0).all()
    shifted = values.copy()
    shifted[12:] += 100
    assert np.allclose(scaled(shifted, learned)[:12], z[:12])
    assert np.allclose(components(values[:, :2], learned, 2)[:12].mean(axis=0), 0)


def test_bad_input_is_refused() -> None:
    _, grid, known = planted()
    with pytest.raises(InputError, match="0 values"):
        GlobalMean().complete(np.full((3, 3), np.nan), Known())
    with pytest.raises(InputError, match="features for each line"):
        DrugRidge().complete(grid, Known())
    with pytest.raises(InputError, match="features of the lines and of the drugs"):
        DrugTrees().complete(grid, Known(known.lines))


def test_the_baselines_of_the_data_readme_come_out(shared: object) -> None:
    """Pearson and RMSE of the means and the additive guess, as the README of the data states them for its splits."""
    from pathlib import Path

    from cellingua.measures.regression import pearson, rmse
    from cellingua.molecules.response import read_table, responses

    frame = read_table(Path(str(shared)) / "data" / "drug" / "tgsa" / "pairs.parquet").sort_values(["line", "drug"])
    pairs, _ = responses(frame)
    for column, told in (
        ("split_random", {"drug mean": (0.838, 1.533), "additive": (0.904, 1.201)}),
        ("split_line", {"drug mean": (0.840, 1.515), "additive": (0.840, 1.515)}),
        ("split_drug", {"drug mean": (0.0, 2.783), "additive": (0.337, 2.620)}),
    ):
        role = frame[column].to_numpy()
        grid = np.where(_grid(pairs, role == "train"), pairs.grid(), np.nan)
        test = np.flatnonzero(role == "test")
        line, drug = pairs.line[test], pairs.drug[test]
        for name, (correlation, error) in told.items():
            said = EVERY[name]().complete(grid, Known())[line, drug]
            # the README weighs means by pairs where a drug was never seen; ours by drugs
            loose = 0.03 if column == "split_drug" else 0.0015
            assert pearson(pairs.value[test], said) == pytest.approx(correlation, abs=loose)
            assert rmse(pairs.value[test], said) == pytest.approx(error, abs=loose)


def _grid(pairs: object, kept: np.ndarray) -> np.ndarray:
    there = np.zeros((len(pairs.lines), len(pairs.drugs)), bool)  # type: ignore[attr-defined]
    there[pairs.line[kept], pairs.drug[kept]] = True  # type: ignore[attr-defined]
    return there

"""The field of responses: each part against its plain twin, and what must not leak."""

from __future__ import annotations

import numpy as np
import pytest

from cellingua.core.errors import InputError
from cellingua.models.drug_field import Band, FieldConfig, ResponseField, complete
from cellingua.models.drug_fill import conditional, conditional_rows, fill
from cellingua.models.drug_ridge import fit_components
from cellingua.models.drug_views import LineKernel, View

VIEWS = (View("genes", 1.0, 1.0), View("marks", 0.4, scale=False))
CONFIG = FieldConfig((Band(VIEWS, 0, 2), Band((View("genes", 0.0, 1.0, profile=0.5),), 2)), rounds=4)


def world(lines: int = 60, drugs: int = 15, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Return responses that follow from features, the features, and how alike the drugs are."""
    rng = np.random.default_rng(seed)
    state, target = rng.normal(size=(lines, 4)), rng.normal(size=(drugs, 3))
    mix = np.concatenate([target, np.ones((drugs, 1))], axis=1)
    truth = state @ mix.T + 3 * target[:, 0] + 0.2 * rng.normal(size=(lines, drugs))
    genes = state @ rng.normal(size=(4, 40)) + 0.3 * rng.normal(size=(lines, 40))
    genes[1, 3] = np.nan
    marks = (rng.random((lines, 6)) < 0.2).astype(float)
    alike = np.exp(-((target[:, None] - target[None]) ** 2).sum(axis=-1) / 3)
    return truth, {"genes": genes, "marks": marks}, alike


def test_a_new_line_is_alike_whatever_stands_beside_it() -> None:
    _, tables, _ = world()
    learned = {name: values[:40] for name, values in tables.items()}
    kernel = LineKernel(VIEWS).fit(learned)
    whole = kernel.to_learned(tables)
    assert whole.shape == (60, 40)
    for row in (0, 45, 59):
        alone = kernel.to_learned({name: values[[row]] for name, values in tables.items()})
        assert np.allclose(alone[0], whole[row])
    inner = whole[:40]
    assert np.allclose(inner, inner.T)
    assert np.linalg.eigvalsh(inner).min() > -1e-9
    assert np.diag(inner).mean() == pytest.approx(1 + 1 + 0.4)
    with pytest.raises(InputError, match="no table 'marks'"):
        kernel.to_learned({"genes": tables["genes"]})
    with pytest.raises(InputError, match="5 features"):
        kernel.to_learned({"genes": tables["genes"], "marks": tables["marks"][:, :5]})
    with pytest.raises(InputError, match="without a weight"):
        LineKernel([View("genes", 0.0)])


def test_leaving_one_out_in_closed_form_is_leaving_one_out() -> None:
    truth, tables, _ = world(25, 6)
    kernel = LineKernel(VIEWS).fit(tables).to_learned(tables)
    truth = truth[:, :4]
    fitted = fit_components(kernel, truth, penalties=(2.0,))
    assert np.isfinite(fitted.penalties).all()
    centre = truth.mean(axis=0)
    for row in (0, 7, 24):
        rest = np.arange(25) != row
        # the mean is that of all lines, as in the fit: the regression alone is left out
        weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + 2 * np.eye(24), truth[rest] - centre)
        assert np.allclose(centre + kernel[row, rest] @ weights, fitted.left_out[row])
    every = np.linalg.solve(kernel + 2 * np.eye(25), truth - centre)
    assert np.allclose(fitted.predict(kernel), centre + kernel @ every)


def test_a_component_that_is_noise_is_left_out() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(40, 5))
    fitted = fit_components(np.eye(40), noise, penalties=(0.5, 2.0))
    assert np.isinf(fitted.penalties).all()
    assert np.allclose(fitted.predict(np.eye(40)), noise.mean(axis=0))
    assert np.allclose(fitted.left_out, noise.mean(axis=0))


def test_conditional_is_that_of_the_joint_gaussian() -> None:
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 5))
    covariance, mean = root @ root.T + np.eye(5), rng.normal(size=5)
    row = np.array([1.0, np.nan, -2.0, np.nan, 0.5])
    values, sd = conditional(row, mean, covariance)
    # by precision instead of covariance
    precision = np.linalg.inv(covariance)
    hole, seen = [1, 3], [0, 2, 4]
    inner = np.linalg.inv(precision[np.ix_(hole, hole)])
    expected = mean[hole] - inner @ precision[np.ix_(hole, seen)] @ (row[seen] - mean[seen])
    assert np.allclose(values[hole], expected)
    assert np.allclose(sd[hole] ** 2, np.diag(inner))
    assert (sd[seen] == 0).all()
    assert (values[seen] == row[seen]).all()
    nothing, wide = conditional(np.full(5, np.nan), mean, covariance)
    assert (nothing == mean).all()
    assert np.allclose(wide**2, np.diag(covariance))


@pytest.mark.parametrize("holes", [0.1, 0.5, 0.9])
def test_filling_many_rows_is_filling_each(holes: float) -> None:
    """Few holes go by the precision and many by the covariance: both are the plain formula of one row."""
    rng = np.random.default_rng(4)
    root = rng.normal(size=(12, 12))
    covariance, mean = root @ root.T + np.eye(12), rng.normal(size=(30, 12))
    known = rng.normal(size=mean.shape)
    there = rng.random(known.shape) >= holes
    there[0], there[1] = True, False
    values, spare = conditional_rows(known, there, mean, covariance)
    total = np.zeros(12)
    for row in range(30):
        one, sd = conditional(np.where(there[row], known[row], np.nan), mean[row], covariance)
        assert np.allclose(values[row], one, rtol=0, atol=1e-9)
        total += sd**2
    assert np.allclose(np.diag(spare), total, rtol=0, atol=1e-8)


def test_a_drug_of_one_value_is_filled_with_it() -> None:
    rng = np.random.default_rng(1)
    grid = np.where(rng.random((40, 6)) < 0.2, np.nan, rng.normal(size=(40, 6)))
    grid[:, 2] = np.where(np.isnan(grid[:, 2]), np.nan, 3.0)
    found = fill(grid)
    assert np.allclose(found.values[:, 2], 3.0, atol=1e-2)
    assert np.isfinite(found.values).all()


def test_holes_are_filled_from_the_rest_of_the_row() -> None:
    rng = np.random.default_rng(1)
    truth = (
        rng.normal(size=(150, 3)) @ rng.normal(size=(3, 20)) + 0.3 * rng.normal(size=(150, 20)) + rng.normal(size=20)
    )
    grid = np.where(rng.random(truth.shape) < 0.2, np.nan, truth)
    hole = np.isnan(grid)
    found = fill(grid, shrink=0.05)
    means = np.broadcast_to(np.nanmean(grid, axis=0), truth.shape)
    error = np.sqrt(np.mean((found.values - truth)[hole] ** 2))
    assert error < 0.45 * np.sqrt(np.mean((means - truth)[hole] ** 2))
    assert (found.values[~hole] == grid[~hole]).all()
    assert np.linalg.eigvalsh(found.covariance).min() > 0
    order = rng.permutation(150)
    assert np.allclose(fill(grid[order], shrink=0.05).values, found.values[order])
    # units come back: ten times the values and a shift are ten times the answer and the shift
    assert np.allclose(fill(10 * grid + 3, shrink=0.05).values, 10 * found.values + 3)
    with pytest.raises(InputError, match="fewer than two"):
        fill(np.column_stack([grid, np.full(150, np.nan)]))


def test_every_question_beats_the_mean_of_the_drug() -> None:
    truth, tables, alike = world(80, 24)
    rng = np.random.default_rng(5)
    grid = np.where(rng.random(truth.shape) < 0.2, np.nan, truth)
    grid[60:] = np.nan
    grid[:, 20:] = np.nan
    done = complete(grid, tables, CONFIG, molecules=alike)
    mean = np.where(np.isfinite(grid).any(axis=0), np.nanmean(np.where(np.isfinite(grid), grid, np.nan)[:60, :20]), 0)
    assert mean.shape == (24,)
    hole = np.isnan(grid[:60, :20])
    per_drug = np.nanmean(grid[:60, :20], axis=0)
    for part, guess in (
        ((slice(60, 80), slice(0, 20)), np.broadcast_to(per_drug, (20, 20))),
        ((slice(0, 60), slice(20, 24)), np.full((60, 4), per_drug.mean())),
        ((slice(60, 80), slice(20, 24)), np.full((20, 4), per_drug.mean())),
    ):
        assert np.mean((done.values[part] - truth[part]) ** 2) < 0.8 * np.mean((guess - truth[part]) ** 2)
    inside = done.values[:60, :20]
    assert (inside[~hole] == grid[:60, :20][~hole]).all()
    assert np.mean((inside - truth[:60, :20])[hole] ** 2) < 0.2 * np.mean((per_drug - truth[:60, :20])[hole] ** 2)
    # deviations are told where nothing was measured, and larger the less is known
    assert (done.sd[:60, :20][~hole] == 0).all()
    assert done.sd[:60, :20][hole].mean() < done.sd[60:, :20].mean() < done.sd[60:, 20:].mean()


def test_unseen_lines_and_hidden_pairs_change_nothing() -> None:
    truth, tables, _ = world()
    grid = truth.copy()
    grid[40:] = np.nan
    before = complete(grid, tables, CONFIG).values
    wild = {name: values.copy() for name, values in tables.items()}
    wild["genes"][50:] = 1e3
    after = complete(grid, wild, CONFIG).values
    assert np.allclose(before[:50], after[:50])
    with pytest.raises(InputError, match="how alike"):
        complete(np.column_stack([grid, np.full(60, np.nan)]), tables, CONFIG)
    with pytest.raises(InputError, match="without any response"):
        ResponseField(CONFIG).fit(grid, tables)


def test_what_is_measured_on_a_new_line_refines_the_rest() -> None:
    truth, tables, _ = world(120, 15)
    known = {name: values[:80] for name, values in tables.items()}
    fitted = ResponseField(CONFIG).fit(truth[:80], known)
    new = {name: values[80:] for name, values in tables.items()}
    blind = fitted.predict(new)
    shown = np.where(np.arange(15)[None, :] < 8, truth[80:], np.nan)
    seen = fitted.predict(new, shown)
    rest = slice(8, 15)
    assert np.mean((seen.values - truth[80:])[:, rest] ** 2) < np.mean((blind.values - truth[80:])[:, rest] ** 2)
    assert (seen.sd[:, :8] == 0).all()
    nothing = fitted.predict(new, np.full(truth[80:].shape, np.nan))
    assert (nothing.values == blind.values).all()


def test_bands_with_the_same_views_are_one_regression() -> None:
    truth, tables, _ = world(40, 8)
    kernel = LineKernel(VIEWS).fit(tables).to_learned(tables)
    whole = fit_components(kernel, truth)
    parts = [fit_components(kernel, truth, part=slice(a, b)) for a, b in ((0, 2), (2, 5), (5, None))]
    summed = whole.centre + sum(part.predict(kernel) - part.centre for part in parts)
    assert np.allclose(summed, whole.predict(kernel))
    assert np.concatenate([part.penalties for part in parts]).tolist() == whole.penalties.tolist()
    few = whole.first(3)
    assert np.allclose(few.predict(kernel), whole.predict(kernel)[:, :3])


def test_further_drugs_are_read_of_learned_lines_alone() -> None:
    truth, tables, _ = world(80, 40, seed=2)
    grid = truth[:, :10].copy()
    rng = np.random.default_rng(0)
    grid[rng.random(grid.shape) < 0.6] = np.nan
    grid[60:] = np.nan
    grid[:60, 0] = np.where(np.isfinite(grid[:60]).any(axis=1), grid[:60, 0], truth[:60, 0])
    beside = truth[:, 10:].copy()
    alone = complete(grid, tables, CONFIG)
    helped = complete(grid, tables, CONFIG, beside=beside)
    assert helped.values.shape == alone.values.shape == grid.shape
    assert not np.allclose(helped.values[60:], alone.values[60:])
    beside[60:] = 1e6
    assert np.allclose(complete(grid, tables, CONFIG, beside=beside).values, helped.values)


def test_ranges_of_new_lines_come_from_left_out_lines() -> None:
    truth, tables, _ = world(140, 10, seed=4)
    fitted = ResponseField(CONFIG).fit(truth[:90], {name: table[:90] for name, table in tables.items()})
    assert fitted.ranges().units == 90
    new = fitted.predict({name: table[90:] for name, table in tables.items()})
    assert new.new_lines == fitted.ranges()
    assert new.new_lines is not None
    low, high = new.new_lines.around(new.values, new.sd, 0.9)
    inside = np.mean((truth[90:] >= low) & (truth[90:] <= high))
    assert 0.8 < inside < 0.99
